"""The stages that evaluate a representation: its curves under corruption, its monosemanticity; and an experiment of both."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import gin
import torch
import torch.nn.functional as F

from monosem.core.device import device
from monosem.core.fields import Count, Label
from monosem.core.identity import seed_for
from monosem.core.stage import Artifact, Job, Stage
from monosem.data.dataset import Dataset
from monosem.evaluation.batched_probes import ProbeSpec, topk_accuracy
from monosem.evaluation.corruptions import Corruption
from monosem.evaluation.probes import LinearProbe, Probe, Task
from monosem.metrics.neighbours import precision_at
from monosem.metrics.space import by_activity
from monosem.models.features import Features
from monosem.models.representation import Representation
from monosem.results.rows import MONOSEMANTICITY


class Result(NamedTuple):
    """One number of a table: `value` of `metric`, measured on `n` images."""

    severity: float
    repeat: int
    metric: str
    value: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Measurement(Stage):
    """A stage whose artifact is numbers for the table. name: what they are called there."""

    name: Label = ""
    encoder: Representation
    data: Dataset

    @property
    def axis(self) -> str:
        """What the severity of its results is, with its unit."""
        raise NotImplementedError

    def results(self, artifact: Artifact) -> Iterator[Result]:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class SeverityCurve(Measurement):
    """A measurement at several severities: a curve in the figures.

    severities: its points. Artifact: a tensor (severities, repeats) for every metric, in percent; passes: images encoded for it alone.
    """

    severities: tuple[float, ...]
    metrics: ClassVar[tuple[str, ...]]  # the first one is drawn

    def validate(self) -> None:
        if not re.fullmatch(r"[\w.+-]*", self.name) or self.name.startswith(MONOSEMANTICITY):
            self.refuse(
                "name",
                f"must be a word of letters, digits and . _ + - other than {MONOSEMANTICITY}, got {self.name!r}",
            )
        if not self.severities:
            self.refuse("severities", "must hold at least one severity, got ()")
        if max(map(abs, self.severities)) > 1e9:
            self.refuse(
                "severities", f"must be at most 1e9, got {max(map(abs, self.severities)):g}"
            )
        if len(set(self.severities)) < len(self.severities):
            self.refuse("severities", f"must differ from one another, got {self.severities}")

    def preflight(self) -> None:
        if problem := self.data.problem() or self.encoder.incompatibility(self.data):
            self.refuse("data", problem)
        for severity in self.severities:
            try:
                self.check_severity(severity)
            except ValueError as error:
                self.refuse("severities", str(error))

    def check_severity(self, severity: float) -> None:
        """ValueError, saying what it must be, where it is none for this data."""

    def results(self, artifact: Artifact) -> Iterator[Result]:
        n = len(self.data.split("test").labels)
        for metric in self.metrics:
            for severity, values in zip(self.severities, artifact[metric].tolist(), strict=True):
                for repeat, value in enumerate(values):
                    yield Result(severity, repeat, metric, value, n)


@gin.register
@dataclass(frozen=True, kw_only=True)
class Curve(SeverityCurve):
    """Accuracy of a probe on a representation, at every severity of a corruption, several times over.

    data: what the probe is trained and tested on. severities: the points of the curve, in units of the corruption.
    repeats: independent draws of the corruption and of the probe, from which the intervals come.
    """

    probe: Probe
    corruption: Corruption
    repeats: Count = 5
    metrics = ("top1", "top5")

    @property
    def axis(self) -> str:
        return self.corruption.axis

    def check_severity(self, severity: float) -> None:
        self.corruption.check_severity(severity, self.data.split("train").labels)

    def preflight(self) -> None:
        super().preflight()
        if mismatch := self.corruption.incompatibility(self.data):
            self.refuse("data", mismatch)
        self.probe.check_size(len(self.data.split("train").labels))

    @property
    def task(self) -> Task:
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
        truth, passes, scores = self.data.split("test").labels.to(device()), 0, []
        for predictions in self.probe.predictions(self.task, job):
            scores.append([topk_accuracy(predictions.logits, truth, k) for k in (1, 5)])
            passes += predictions.passes
        job.log(1, 1, encoder_passes=passes)
        top1, top5 = (
            torch.tensor(scores, dtype=torch.float64)
            .reshape(len(self.severities), self.repeats, 2)
            .unbind(-1)
        )
        return {"top1": top1, "top5": top5, "passes": torch.tensor(passes)}


@dataclass(frozen=True, kw_only=True)
class TopDimensions(SeverityCurve):
    """A measurement on the dimensions that are most active, by how many are kept (NCL, section 4.2). Dimensions are ranked
    without labels, by the sums of the columns of features with unit rows."""

    @property
    def axis(self) -> str:
        return "dimensions that are kept"

    def validate(self) -> None:
        super().validate()
        for count in self.severities:
            if not (count.is_integer() and 1 <= count <= self.encoder.width):
                self.refuse(
                    "severities",
                    f"must be whole numbers of dimensions between 1 and {self.encoder.width}, got {count:g}",
                )


@gin.register
@dataclass(frozen=True, kw_only=True)
class FeatureSelection(TopDimensions):
    """Accuracy of a linear probe on the dimensions that are most active on the training split, which alone it sees.

    Features are rectified for the ranking alone, as in the NCL code. That swaps dimensions under a classifier after its first
    epoch, and trains on crops; here each number of dimensions has probes of its own, on images as they are.
    repeats: draws of the probe.
    """

    probe: LinearProbe
    repeats: Count = 5
    metrics = ("top1", "top5")

    def preflight(self) -> None:
        super().preflight()
        if self.probe.views:
            self.refuse(
                "probe",
                "must take images as they are: LinearProbe.views are not for feature selection",
            )
        self.probe.check_size(len(self.data.split("train").labels))

    def upstream(self) -> tuple[Stage, ...]:
        return Features(self.encoder, self.data, "train"), Features(self.encoder, self.data, "test")

    def run(self, job: Job) -> Artifact:
        seen, tested = (job.get(stage)["features"].to(device()) for stage in self.upstream())
        labels, truth = (self.data.split(split).labels for split in ("train", "test"))
        heads = [
            ProbeSpec(seed_for("probe", repeat), torch.arange(len(labels)), labels)
            for repeat in range(self.repeats)
        ]
        order = by_activity(F.relu(seen))
        scores = []
        for count in self.severities:
            kept = order[: int(count)]
            bank = self.probe.fit(seen[:, kept], self.data.classes, heads)
            logits = [bank.logits(tested[:, kept], number) for number in range(self.repeats)]
            scores.append(
                [[topk_accuracy(each, truth.to(each.device), k) for k in (1, 5)] for each in logits]
            )
        top1, top5 = torch.tensor(scores, dtype=torch.float64).unbind(-1)
        return {"top1": top1, "top5": top5, "passes": torch.tensor(0)}


@gin.register
@dataclass(frozen=True, kw_only=True)
class Retrieval(TopDimensions):
    """Precision@10 of retrieving test images of the class of a test image, by their distance in the dimensions that are most
    active on the test split. Nothing is drawn, so there is one value a severity."""

    metrics = ("precision_at_10",)

    def preflight(self) -> None:
        super().preflight()
        if (images := len(self.data.split("test").labels)) < 11:
            self.refuse(
                "data",
                f"must have 11 test images or more, one to ask with and ten to find, got {images}",
            )

    def upstream(self) -> tuple[Stage, ...]:
        return (Features(self.encoder, self.data, "test"),)

    def run(self, job: Job) -> Artifact:
        (stage,) = self.upstream()
        rows = F.normalize(job.get(stage)["features"].to(device()), dim=1)
        labels, order = self.data.split("test").labels.to(rows.device), by_activity(rows)
        found = [
            [100 * precision_at(rows[:, order[: int(count)]], labels, 10)]
            for count in self.severities
        ]
        return {
            "precision_at_10": torch.tensor(found, dtype=torch.float64),
            "passes": torch.tensor(0),
        }
