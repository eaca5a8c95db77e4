"""Curves of features as they are, rotated, and of what else is compared, to be drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from monosem.axes.gains import AS_IS, BITS, ROTATED, AxisGains, DrawnLine
from monosem.axes.turned import ComparedEncoder, by_severity
from monosem.results.rows import Line
from monosem.results.stats import Estimate, estimate_over

if TYPE_CHECKING:
    from monosem.results.table import Table


def drawn_lines(table: Table, asked: AxisGains, each: ComparedEncoder) -> Iterator[DrawnLine]:
    """As they are, rotated, and what else is compared."""
    other = [[each.other]] if each.other else []
    lines_of = [[each.own], list(each.rotated.values()), *other]
    for curve in asked.drawn:
        for turn, lines in zip((AS_IS, ROTATED, asked.third), lines_of, strict=False):
            points, has_bits = _points(table, lines, curve)
            if points:
                yield DrawnLine(curve, each.learner, each.label, turn, has_bits, points)


def _points(
    table: Table, lines: Sequence[Line], curve: str
) -> tuple[tuple[tuple[float, Estimate], ...], bool]:
    """x and accuracy by severity; x is the mean of the bits where they are told."""
    of_lines = [by_severity(table, line, curve) for line in lines]
    bits = [by_severity(table, line, curve, BITS) for line in lines]
    has_bits = any(bits)
    points = []
    for severity in of_lines[0] if of_lines else ():
        samples = [of_line[severity] for of_line in of_lines if severity in of_line]
        told = [value for each in bits for value in each.get(severity, {}).values()]
        x = sum(told) / len(told) if told else severity
        points.append((x, estimate_over(samples)))
    return tuple(sorted(points, key=lambda point: point[0])), has_bits
