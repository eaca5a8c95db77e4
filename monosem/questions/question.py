"""A question, what is taken of sweeps to answer it, and a report, which is several of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import gin

from monosem.core.fields import Label, Part, nearest
from monosem.results.rows import Row
from monosem.results.stats import Estimate

POINTS = "points of accuracy"
RANK = "rank correlation"


class Finding(NamedTuple):
    """One number that answers a question.

    sweep: where it was measured.
    what: for people: `ncl, label_noise, Ridge`.
    unit: POINTS or RANK.
    value: above 0 where the claim is right.
    low, high: its 95 % interval; nan where there is none.
    p: two-sided, of a value of 0; nan where it cannot be told.
    """

    sweep: str
    what: str
    unit: str
    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, kw_only=True)
class Asked(Part):
    """What is taken of one sweep, each number so that the claim predicts it above 0.

    sweep: its name.
    curves: of curves.csv, that the numbers are of.
    """

    sweep: str
    curves: tuple[str, ...]

    def validate(self) -> None:
        if not self.curves:
            self.refuse("curves", "must hold at least one, got ()")
        self.refuse_repeated("curves")

    @property
    def named(self) -> Mapping[str, Sequence[str]]:
        """The experiments that are named, by field."""
        return {}

    def numbers(self, rows: Sequence[Row]) -> list[Finding]:
        """Of the rows of its sweep. What is not there is left out."""
        raise NotImplementedError

    def check(self, sweeps: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Refuse names that are not there.

        sweeps: by name, the names of the curves of each experiment.
        """
        if self.sweep not in sweeps:
            self._refuse_unknown("sweep", self.sweep, list(sweeps), "a sweep of Report.sweeps")
        experiments = sweeps[self.sweep]
        for field, names in self.named.items():
            for name in names:
                if name not in experiments:
                    what = f"an experiment of the sweep {self.sweep}"
                    self._refuse_unknown(field, name, list(experiments), what)
        curves = sorted({curve for of_one in experiments.values() for curve in of_one})
        for curve in self.curves:
            if curve not in curves:
                self._refuse_unknown("curves", curve, curves, f"a curve of the sweep {self.sweep}")

    def _refuse_unknown(self, field: str, name: str, known: Sequence[str], what: str) -> None:
        hint = nearest(name, known, "; did you mean {}?") or f"; there are {', '.join(known)}"
        self.refuse(field, f"must name {what}, got {name!r}{hint}")

    def number(self, what: str, estimate: Estimate) -> Finding:
        """A mean in points of accuracy."""
        low, high = estimate.mean - estimate.half, estimate.mean + estimate.half
        return Finding(self.sweep, what, POINTS, estimate.mean, low, high, estimate.p)


@gin.register
@dataclass(frozen=True, kw_only=True)
class ReportQuestion(Part):
    """A question that is fixed before anything runs.

    text: as it stands in the report; it says what the claim predicts.
    asked: the numbers that answer it.
    """

    text: str
    asked: tuple[Asked, ...]

    def validate(self) -> None:
        if not self.asked:
            self.refuse("asked", "must hold at least one, got ()")


@gin.register
@dataclass(frozen=True, kw_only=True)
class Report(Part):
    """Questions, and the sweeps that answer them; `monosem --gin gin/report.gin` runs all of it.

    The p-values of all numbers are corrected together (Holm). Questions with the most against the
    claim come first.

    name: of the folder under runs/.
    title: of the report.
    sweeps: Gin files.
    questions: in the order in which they are told, where as much is against the claim.
    """

    name: Label
    title: str
    sweeps: tuple[str, ...]
    questions: tuple[ReportQuestion, ...]

    def validate(self) -> None:
        self.refuse_no_folder_name("name")
        for field in ("sweeps", "questions"):
            if not getattr(self, field):
                self.refuse(field, "must hold at least one, got ()")
            self.refuse_repeated(field)
