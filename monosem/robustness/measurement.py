"""What a measurement is: a stage whose artifact is numbers for the table, at several points."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from monosem.core.fields import Label, Part
from monosem.core.stage import Artifact, Stage
from monosem.data.dataset import Dataset
from monosem.models.representation import Representation
from monosem.probes.batched_probes import topk_accuracy
from monosem.results.rows import FIGURES, MONOSEMANTICITY

LARGEST_SEVERITY = 1e9
TOP = 5  # the wider accuracy: whether the right class is among the first five


class Result(NamedTuple):
    """One number of a table.

    severity: what was done, in the unit of the measurement's axis.
    repeat: which draw it is.
    metric: what the number is.
    value: the number; accuracies are in percent.
    n: how many test examples it is of.
    point: the name of what was measured, where a name and not a severity tells it.
    """

    severity: float
    repeat: int
    metric: str
    value: float
    n: int
    point: str = ""


class Point(NamedTuple):
    """One place of a figure: a bar that has a name, or a severity of a curve.

    name: '' where the severity alone tells it.
    severity: 0 where there is none.
    """

    name: str
    severity: float


@dataclass(frozen=True, kw_only=True)
class Measurement(Stage):
    """A stage whose artifact is numbers for the table.

    name: what the numbers are called there.
    """

    name: Label = ""

    @property
    def axis(self) -> str:
        """What the severity of its results is, with its unit."""
        raise NotImplementedError

    @property
    def noun(self) -> str:
        """What its examples are, for people, in the plural."""
        raise NotImplementedError

    def results(self, artifact: Artifact) -> Iterator[Result]:
        """The numbers that the stage left."""
        raise NotImplementedError

    def remarks(self, artifact: Artifact) -> Iterator[str]:
        """What a reader of these numbers must know, for summary.md."""
        yield from ()


@dataclass(frozen=True, kw_only=True)
class DataMeasurement(Measurement):
    """A measurement on a dataset.

    data: what is measured on.
    """

    data: Dataset

    @property
    def noun(self) -> str:
        return self.data.noun


@dataclass(frozen=True, kw_only=True)
class CleanTestMeasurement(DataMeasurement):
    """A measurement on the test split as it is: numbers without a severity."""

    @property
    def axis(self) -> str:
        return f"clean test {self.noun}"


@dataclass(frozen=True, kw_only=True)
class Panel(Measurement):
    """A measurement at several points: one panel of the figures, one name in the tables."""

    @property
    def subject(self) -> Part:
        """What is measured."""
        raise NotImplementedError

    @property
    def points(self) -> tuple[Point, ...]:
        """Its points, in the order of the figure."""
        raise NotImplementedError

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of its results; the first one is drawn."""
        raise NotImplementedError

    def validate(self) -> None:
        if not re.fullmatch(r"[\w.+-]*", self.name) or self.name.startswith(MONOSEMANTICITY):
            self.refuse(
                "name",
                "must be a word of letters, digits and . _ + - "
                f"other than {MONOSEMANTICITY}, got {self.name!r}",
            )
        if self.name.partition("-")[0] in FIGURES:
            self.refuse(
                "name",
                f"must not be that of another figure ({', '.join(FIGURES)}, and these with - and "
                f"more), got {self.name!r}",
            )


@dataclass(frozen=True, kw_only=True)
class Series(DataMeasurement, Panel):
    """A panel of a representation, whose dimensions are measured and shown beside it.

    encoder: the representation that is measured.
    """

    encoder: Representation

    @property
    def subject(self) -> Part:
        return self.encoder


@dataclass(frozen=True, kw_only=True)
class SeverityCurve(Series):
    """A measurement at several severities: a curve in the figures.

    severities: its points.

    Artifact:
        a metric  (severities, repeats)  float64, in percent; nan where there is none
        passes    ()                     how many inputs passed through the encoder for this
                                         curve alone
    """

    severities: tuple[float, ...]

    @property
    def points(self) -> tuple[Point, ...]:
        return tuple(Point("", severity) for severity in self.severities)

    def validate(self) -> None:
        super().validate()
        if not self.severities:
            self.refuse("severities", "must hold at least one severity, got ()")
        largest = max(map(abs, self.severities))
        if largest > LARGEST_SEVERITY:
            self.refuse("severities", f"must be at most 1e9, got {largest:g}")
        self.refuse_repeated("severities")

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
                    if not math.isnan(value):  # the mean of no example is no number of a table
                        yield Result(severity, repeat, metric, value, n)


def accuracies(data: Dataset) -> tuple[str, ...]:
    """The names of the accuracies: top-5 is always 100 % where there are no more classes."""
    return ("top1", f"top{TOP}") if data.classes > TOP else ("top1",)


def accuracies_of(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """All accuracies, in percent. logits: (n, classes); labels: (n,)."""
    return {f"top{k}": topk_accuracy(logits, labels, k) for k in (1, TOP)}
