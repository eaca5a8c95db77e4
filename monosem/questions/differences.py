"""Do some encoders have more accuracy under a corruption than another one?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gin

from monosem.questions.question import Asked, Finding
from monosem.results.rows import Line, Row
from monosem.results.stats import areas, estimate


@gin.register
@dataclass(frozen=True, kw_only=True)
class GainOver(Asked):
    """The area under a curve of an experiment less that of another, paired by seed and draw.

    A difference of two lines of a sweep: where more is swept than seeds, such as `Curve.probe`, of
    those that agree in it.

    experiments: that the claim says gain.
    over: the experiment that they gain over.
    without: swept values whose lines are left out, as curves.csv has them: 'LinearProbe'.
    """

    experiments: tuple[str, ...]
    over: str
    without: tuple[str, ...] = ()

    def validate(self) -> None:
        super().validate()
        if self.over in self.experiments:
            self.refuse("over", f"must not be among GainOver.experiments, got {self.over!r}")

    @property
    def named(self) -> dict[str, Sequence[str]]:
        return {"experiments": self.experiments, "over": (self.over,)}

    def numbers(self, rows: Sequence[Row]) -> list[Finding]:
        from monosem.results.table import Table  # pandas: a Gin file is read without it

        table = Table(rows, self.over)
        lines = [line for line in table.lines if line.experiment in self.experiments]
        lines = [
            line for line in lines if not {value for _, value in line.values} & {*self.without}
        ]
        found = [
            self.number(f"{curve}, {_short(line)} - {self.over}", estimate(difference))
            for curve in self.curves
            for line in lines
            if (difference := areas(table.differences(line, curve)))
        ]
        return found


def _short(line: Line) -> str:
    """`ncl, Ridge`: what it is by its values, without the names of the bindings."""
    return ", ".join([line.experiment, *(value for _, value in line.values)])
