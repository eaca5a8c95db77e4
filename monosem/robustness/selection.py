"""Accuracy and retrieval by the number of dimensions that are kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import gin
import torch
import torch.nn.functional as F
from torch import Tensor

from monosem.core.device import device
from monosem.core.fields import Count
from monosem.core.identity import seed_for
from monosem.core.stage import Artifact, Job, Stage
from monosem.metrics.neighbours import precision_at
from monosem.metrics.space import by_activity
from monosem.models.features import Features
from monosem.probes.batched_probes import ProbeSpec, topk_accuracy
from monosem.probes.linear import LinearProbe
from monosem.robustness.measurement import SeverityCurve, accuracies

NEIGHBOURS = 10  # that retrieval looks for


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
    each number of dimensions has probes of its own, on inputs as they are.

    probe: without views, as it learns from inputs as they are.
    repeats: draws of the probe.
    """

    probe: LinearProbe
    repeats: Count = 5

    @property
    def metrics(self) -> tuple[str, ...]:
        return accuracies(self.data)

    def preflight(self) -> None:
        super().preflight()
        if self.probe.views:
            self.refuse(
                "probe",
                "must take inputs as they are: LinearProbe.views are not for feature selection",
            )
        self.probe.check_data(self.data)
        self.probe.check_width(self.encoder.width)

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
    """Precision@10 of finding test examples of the same class by distance.

    Distances are taken in the dimensions that are most active on the test split. Nothing is drawn,
    so there is one value a severity.
    """

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("precision_at_10",)

    def preflight(self) -> None:
        super().preflight()
        examples = len(self.data.split("test").labels)
        if examples <= NEIGHBOURS:
            self.refuse(
                "data",
                f"must have 11 test {self.data.noun} or more, one to ask with and ten to find, "
                f"got {examples}",
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
