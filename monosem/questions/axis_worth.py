"""Is accuracy lost where the axes of features are turned?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gin

from monosem.axes.gains import AxisGains
from monosem.axes.turned import compared_encoders, paired_samples
from monosem.questions.question import Asked, Finding
from monosem.results.rows import Row
from monosem.results.stats import estimate_over


@gin.register
@dataclass(frozen=True, kw_only=True)
class GainByAxes(Asked):
    """Axis gains: accuracy on features as they are less that on rotated ones (`AxisGains`).

    Of every curve the mean over severities other than 0, and what is clean by itself. Learners that
    see no axes have a gain of exactly 0, without a spread that could be tested.

    pairs: experiments of features as they are, each with that of rotated ones.
    """

    pairs: tuple[tuple[str, str], ...]

    def validate(self) -> None:
        super().validate()
        AxisGains(pairs=self.pairs, curves=self.curves)

    @property
    def named(self) -> dict[str, Sequence[str]]:
        return {"pairs": [name for pair in self.pairs for name in pair]}

    def numbers(self, rows: Sequence[Row]) -> list[Finding]:
        from monosem.results.table import Table  # pandas: a Gin file is read without it

        table, asked = Table(rows), AxisGains(pairs=self.pairs, curves=self.curves)
        compared = [each for each in compared_encoders(table, asked) if each.rotated]
        samples = paired_samples(table, asked, compared)
        return [
            self.number(
                f"{place.kind}, {place.encoder}, {place.learner}", estimate_over(turned.gains)
            )
            for place, turned in samples.items()
            if place.severity is None
        ]
