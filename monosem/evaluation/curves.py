"""The stages that curves are made of: accuracy under a corruption, and accuracy and retrieval by
the number of dimensions that are kept. Nothing here knows how a probe is fitted or what a
corruption does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import gin
import torch
import torch.nn.functional as F
from torch import Tensor

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

LARGEST_SEVERITY = 1e9
NEIGHBOURS = 10  # that retrieval looks for


class Result(NamedTuple):
    """One number of a table.

    severity: what was done, in the unit of the measurement's axis.
    repeat: which draw it is.
    metric: what the number is.
    value: the number; accuracies are in percent.
    n: how many test examples it is of.
    """

    severity: float
    repeat: int
    metric: str
    value: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Measurement(Stage):
    """A stage whose artifact is numbers for the table.

    name: what the numbers are called there.
    encoder: the representation that is measured.
    data: what it is measured on.
    """

    name: Label = ""
    encoder: Representation
    data: Dataset

    @property
    def axis(self) -> str:
        """What the severity of its results is, with its unit."""
        raise NotImplementedError

    def results(self, artifact: Artifact) -> Iterator[Result]:
        """The numbers that the stage left."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class SeverityCurve(Measurement):
    """A measurement at several severities: a curve in the figures.

    severities: its points.

    Artifact:
        a metric  (severities, repeats)  float64, in percent
        passes    ()                     how many inputs passed through the encoder for this
                                         curve alone
    """

    severities: tuple[float, ...]
    metrics: ClassVar[tuple[str, ...]]  # the first one is drawn

    def validate(self) -> None:
        if not re.fullmatch(r"[\w.+-]*", self.name) or self.name.startswith(MONOSEMANTICITY):
            self.refuse(
                "name",
                "must be a word of letters, digits and . _ + - "
                f"other than {MONOSEMANTICITY}, got {self.name!r}",
            )
        if not self.severities:
            self.refuse("severities", "must hold at least one severity, got ()")
        largest = max(map(abs, self.severities))
        if largest > LARGEST_SEVERITY:
            self.refuse("severities", f"must be at most 1e9, got {largest:g}")
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
        """Raise ValueError, with what is allowed, where the data do not allow a severity."""

    def results(self, artifact: Artifact) -> Iterator[Result]:
        n = len(self.data.split("test").labels)
        for metric in self.metrics:
            for severity, values in zip(self.severities, artifact[metric].tolist(), strict=True):
                for repeat, value in enumerate(values):
                    yield Result(severity, repeat, metric, value, n)


# Under a corruption


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


# By the number of dimensions


@dataclass(frozen=True, kw_only=True)
class TopDimensions(SeverityCurve):
    """A measurement on the most active dimensions, by how many are kept (NCL, section 4.2).

    Dimensions are ranked without labels, by the column sums of features with unit rows.
    severities: how many are kept, whole numbers from 1 to the width of the encoder.
    """

    @property
    def axis(self) -> str:
        return "dimensions that are kept"

    def validate(self) -> None:
        super().validate()
        width = self.encoder.width
        for count in self.severities:
            if not (count.is_integer() and 1 <= count <= width):
                self.refuse(
                    "severities",
                    f"must be whole numbers of dimensions between 1 and {width}, got {count:g}",
                )

    def top_dimensions(self, order: Tensor) -> Iterable[Tensor]:
        """For each severity, the first dimensions of (d,) ordered ones."""
        return (order[: int(count)] for count in self.severities)


@gin.register
@dataclass(frozen=True, kw_only=True)
class FeatureSelection(TopDimensions):
    """Accuracy of a linear probe on the dimensions that are most active on the training split.

    The probe sees these alone. Features are rectified for the ranking only, as in the NCL code.
    That code swaps dimensions under a classifier after its first epoch, and trains on crops. Here
    each number of dimensions has probes of its own, on images as they are.

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
        self.probe.check_data(self.data)

    def upstream(self) -> tuple[Stage, ...]:
        return Features(self.encoder, self.data, "train"), Features(self.encoder, self.data, "test")

    def run(self, job: Job) -> Artifact:
        train, test = (job.get(stage)["features"].to(device()) for stage in self.upstream())
        labels = self.data.split("test").labels.to(test.device)
        top1, top5 = [], []
        for dimensions in self.top_dimensions(by_activity(F.relu(train))):
            repeats = list(self._logits(train[:, dimensions], test[:, dimensions]))
            top1.append([topk_accuracy(logits, labels, 1) for logits in repeats])
            top5.append([topk_accuracy(logits, labels, 5) for logits in repeats])
        return {
            "top1": torch.tensor(top1, dtype=torch.float64),
            "top5": torch.tensor(top5, dtype=torch.float64),
            "passes": torch.tensor(0),
        }

    def _logits(self, train: Tensor, test: Tensor) -> Iterator[Tensor]:
        """(n, k) training and (m, k) test features -> (m, classes) for each repeat."""
        labels = self.data.split("train").labels
        everything = torch.arange(len(labels))
        probes = [
            ProbeSpec(seed_for("probe", repeat), everything, labels)
            for repeat in range(self.repeats)
        ]
        fitted = self.probe.fit(train, self.data.classes, probes)
        for repeat in range(self.repeats):
            yield fitted.logits(test, repeat)


@gin.register
@dataclass(frozen=True, kw_only=True)
class Retrieval(TopDimensions):
    """Precision@10 of finding test images of the same class by distance.

    Distances are taken in the dimensions that are most active on the test split. Nothing is drawn,
    so there is one value a severity.
    """

    metrics = ("precision_at_10",)

    def preflight(self) -> None:
        super().preflight()
        images = len(self.data.split("test").labels)
        if images <= NEIGHBOURS:
            self.refuse(
                "data",
                f"must have 11 test images or more, one to ask with and ten to find, got {images}",
            )

    def upstream(self) -> tuple[Stage, ...]:
        return (Features(self.encoder, self.data, "test"),)

    def run(self, job: Job) -> Artifact:
        (stage,) = self.upstream()
        rows = F.normalize(job.get(stage)["features"].to(device()), dim=1)
        labels = self.data.split("test").labels.to(rows.device)
        precision = [
            [100 * precision_at(rows[:, dimensions], labels, NEIGHBOURS)]
            for dimensions in self.top_dimensions(by_activity(rows))
        ]
        return {
            "precision_at_10": torch.tensor(precision, dtype=torch.float64),
            "passes": torch.tensor(0),
        }
