"""Accuracy under a corruption. Not known here: how a probe is fitted, what a corruption does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import gin
import torch
from torch import Tensor

from monosem.core.device import device
from monosem.core.fields import Count
from monosem.core.stage import Artifact, Job, Stage
from monosem.corruptions.base import Corruption
from monosem.corruptions.label_record import WRONG_LABELS, label_record, label_remarks
from monosem.models.features import Features
from monosem.probes.base import Predictions, Probe, Task
from monosem.robustness.code_movement import (
    MOVEMENT,
    OUTCOMES,
    by_outcome,
    code_movement,
    top_consistency,
)
from monosem.robustness.measurement import SeverityCurve, accuracies, accuracies_of


@gin.register
@dataclass(frozen=True, kw_only=True)
class Curve(SeverityCurve):
    """Accuracy of a probe on a representation, at every severity of a corruption.

    data: what the probe is trained and tested on.
    probe: what is trained on the features, anew at every severity that changes what it learns from.
    corruption: of the training labels, of the training examples or of the test inputs.
    severities: the points of the curve, in units of the corruption.
    repeats: independent draws of the corruption and of the probe. The intervals come from them.

    Beside the accuracy, of a probe that leaves the representation as it is (code_movement.py):
    cosine, stay_active, same_top_dimension: how far the test features move, where test inputs are
        corrupted.
    consistency_of_right, consistency_of_wrong: the class consistency of the most active dimension
        of the test images that the probe gets right and wrong, where training labels are wrong.
    adapter_sparsity, dead_ranks, update_norm: of a FineTune with an adapter, on the test split
        (learning/adapters.py).
    bits, coded_bits: what an example takes, where features are compressed
        (corruptions/feature_damage.py).
    Where training labels are wrong, of any probe (corruptions/label_record.py):
    wrong_labels: how many of the training labels that the probe saw are wrong. The artifact has
        beside it `confusion`, (severities, repeats, classes, classes) int32, and `label_digest`,
        (severities, repeats, 32) uint8.
    """

    VERSION = 3

    probe: Probe
    corruption: Corruption
    repeats: Count = 5

    @property
    def metrics(self) -> tuple[str, ...]:
        movement = MOVEMENT if self.probe.frozen and self.task.touches_inputs else ()
        outcomes = OUTCOMES if self.probe.frozen and self.task.touches_labels else ()
        labels = (WRONG_LABELS,) if self.task.touches_labels else ()
        of_probe, of_damage = self.probe.measures, self.corruption.measures
        return (*accuracies(self.data), *of_probe, *of_damage, *movement, *outcomes, *labels)

    @property
    def axis(self) -> str:
        return self.corruption.axis_of(self.data)

    def check_severity(self, severity: float) -> None:
        self.corruption.check_severity(severity, self.data.split("train").labels)
        self.corruption.check_width(severity, self.encoder.width)

    def preflight(self) -> None:
        super().preflight()
        if mismatch := self.corruption.incompatibility(self.data):
            self.refuse("data", mismatch)
        if self.task.touches_features and not self.probe.frozen:
            kind = type(self.probe).__name__
            self.refuse("probe", f"must leave features as they are to be damaged, got {kind}")
        self.probe.check_data(self.data)
        self.probe.check_width(self.encoder.width)

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
        stages = self.probe.upstream(self.task)
        return (*dict.fromkeys((*stages, self._clean)),) if self.probe.frozen else stages

    @property
    def _clean(self) -> Features:
        return Features(self.encoder, self.data, "test")

    def run(self, job: Job) -> Artifact:
        labels = self.data.split("test").labels.to(device())
        measured = [metric for metric in self.metrics if metric != WRONG_LABELS]
        columns: dict[str, list[float]] = {metric: [] for metric in measured}
        of_code = self._measure_of_code(job, labels)
        passes = 0
        every = self.probe.predictions(self.task, job)
        for (severity, _), predictions in zip(self.task.draws, every, strict=True):
            values = {
                **accuracies_of(predictions.logits, labels),
                **predictions.measures,
                **self._of_damage(predictions, severity),
                **of_code(predictions),
            }
            for metric, column in columns.items():
                column.append(values[metric])
            passes += predictions.passes
        job.log(1, 1, encoder_passes=passes)
        by_metric = {metric: self._by_severity(column) for metric, column in columns.items()}
        return {**by_metric, **self._label_records(), "passes": torch.tensor(passes)}

    def _of_damage(self, predictions: Predictions, severity: float) -> Mapping[str, float]:
        if not self.corruption.measures:
            return {}
        assert predictions.features is not None, "a frozen probe has them"
        return self.corruption.measure(predictions.features, severity)

    def _label_records(self) -> Artifact:
        """Of the labels that the probes saw, where some are wrong: (severities, repeats, ...)."""
        if not self.task.touches_labels:
            return {}
        clean, classes = self.data.split("train").labels, self.data.classes
        records = []
        for probe in self.task.probe_specs():
            seen = probe.examples
            records.append(label_record(clean[seen], probe.labels[seen], classes))
        stacked = {name: torch.stack([record[name] for record in records]) for name in records[0]}
        return {
            name: values.reshape(-1, self.repeats, *values.shape[1:])
            for name, values in stacked.items()
        }

    def remarks(self, artifact: Artifact) -> Iterator[str]:
        if self.task.touches_labels:
            yield from label_remarks(self.severities, artifact)

    def _measure_of_code(
        self, job: Job, labels: Tensor
    ) -> Callable[[Predictions], dict[str, float]]:
        """What gives the metrics beside the accuracy."""
        if not {*MOVEMENT, *OUTCOMES} & {*self.metrics}:
            return lambda predictions: {}
        clean = job.get(self._clean)["features"].to(device())
        consistency = top_consistency(clean, labels) if self.task.touches_labels else None

        def measure(predictions: Predictions) -> dict[str, float]:
            values: dict[str, float] = {}
            if consistency is not None:
                values |= by_outcome(consistency, predictions.logits.argmax(1) == labels)
            if self.task.touches_inputs:
                assert predictions.features is not None, "a frozen probe has them"
                values |= code_movement(clean, predictions.features)
            return values

        return measure

    def _by_severity(self, values: list[float]) -> Tensor:
        """One value for every draw of the task -> (severities, repeats)."""
        return torch.tensor(values, dtype=torch.float64).reshape(-1, self.repeats)
