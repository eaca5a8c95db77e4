"""Does robustness go with a measure of monosemanticity over many encoders?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import gin

from monosem.core.fields import Range
from monosem.questions.question import RANK, Asked, Finding
from monosem.results.correlation import Correlation, correlate, encoder_points
from monosem.results.rows import Row

NORMAL_95 = 1.959964  # half of a 95 % interval, in standard errors


@gin.register
@dataclass(frozen=True, kw_only=True)
class GoesWith(Asked):
    """Spearman's correlation of measures with the area under curves, clean accuracy held equal.

    A point is an encoder of the sweep. The interval is a bootstrap over lines (`Claim`); p is that
    of a normal law of Fisher's z whose 95 % interval is as wide as that one.

    measures: of monosemanticity, larger for more.
    least_clean: in percent; encoders of less clean accuracy are left out.
    """

    measures: tuple[str, ...]
    least_clean: Annotated[float, Range(0, 100)] = 0.0

    def validate(self) -> None:
        super().validate()
        if not self.measures:
            self.refuse("measures", "must hold at least one, got ()")
        self.refuse_repeated("measures")

    def numbers(self, rows: Sequence[Row]) -> list[Finding]:
        from monosem.results.table import Table  # pandas: a Gin file is read without it

        points = encoder_points(Table(rows), self.curves)
        able = points.able(self.least_clean)
        found = []
        for curve in self.curves:
            for measure in (name for name in self.measures if name in able.metrics):
                x, y, held = able.metrics[measure], able.robustness[curve], able.clean[curve]
                value = correlate(able.lines, x, y, [held])
                what = f"{curve}, {measure} over {len(able.lines)} encoders"
                found.append(
                    Finding(
                        self.sweep, what, RANK, value.value, value.low, value.high, p_value(value)
                    )
                )
        return found


def p_value(correlation: Correlation) -> float:
    """Two-sided, of a correlation of 0; nan where there is no interval.

    z = artanh(r), its standard error (artanh(high) - artanh(low)) / (2 * 1.96)
    """
    inner = 1 - 1e-9
    low, value, high = (
        math.atanh(max(-inner, min(inner, each)))
        for each in (correlation.low, correlation.value, correlation.high)
    )
    if math.isnan(low) or high <= low:
        return math.nan
    return math.erfc(abs(value) / ((high - low) / (2 * NORMAL_95)) / math.sqrt(2))
