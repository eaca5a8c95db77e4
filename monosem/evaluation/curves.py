"""Accuracy under a corruption. Not known here: how a probe is fitted, what a corruption does."""

from __future__ import annotations

from dataclasses import dataclass

import gin
import torch
from torch import Tensor

from monosem.core.device import device
from monosem.core.fields import Count
from monosem.core.stage import Artifact, Job, Stage
from monosem.corruptions.base import Corruption
from monosem.evaluation.measurement import SeverityCurve
from monosem.probes.base import Probe, Task
from monosem.probes.batched_probes import topk_accuracy


@gin.register
@dataclass(frozen=True, kw_only=True)
class Curve(SeverityCurve):
    """Accuracy of a probe on a representation, at every severity of a corruption.

    data: what the probe is trained and tested on.
    severities: the points of the curve, in units of the corruption.
    repeats: independent draws of the corruption and of the probe. The intervals come from them.
    """

    probe: Probe
    corruption: Corruption
    repeats: Count = 5

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("top1", "top5")

    @property
    def axis(self) -> str:
        return self.corruption.axis

    def check_severity(self, severity: float) -> None:
        self.corruption.check_severity(severity, self.data.split("train").labels)

    def preflight(self) -> None:
        super().preflight()
        if mismatch := self.corruption.incompatibility(self.data):
            self.refuse("data", mismatch)
        self.probe.check_data(self.data)

    @property
    def task(self) -> Task:
        """What is asked of the probe."""
        return Task(
            encoder=self.encoder,
            data=self.data,
            corruption=self.corruption,
            severities=self.severities,
            repeats=self.repeats,
        )

    def upstream(self) -> tuple[Stage, ...]:
        return self.probe.upstream(self.task)

    def run(self, job: Job) -> Artifact:
        labels = self.data.split("test").labels.to(device())
        top1, top5, passes = [], [], 0
        for predictions in self.probe.predictions(self.task, job):
            top1.append(topk_accuracy(predictions.logits, labels, 1))
            top5.append(topk_accuracy(predictions.logits, labels, 5))
            passes += predictions.passes
        job.log(1, 1, encoder_passes=passes)
        return {
            "top1": self._by_severity(top1),
            "top5": self._by_severity(top5),
            "passes": torch.tensor(passes),
        }

    def _by_severity(self, values: list[float]) -> Tensor:
        """One value for every draw of the task -> (severities, repeats)."""
        return torch.tensor(values, dtype=torch.float64).reshape(-1, self.repeats)
