"""The tables of a summary as numbers, before anybody decides how they are written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from monosem.results.formatting import format_key, metric_label
from monosem.results.rows import MONOSEMANTICITY, Line
from monosem.results.stats import Estimate, Key, areas, estimate
from monosem.results.summary import comparisons, shared_keys
from monosem.results.table import Table

NumberKind = Literal["mean", "difference", "score"]
MARKS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
MARKS_NOTE = "* p < .05, ** p < .01, *** p < .001"


class Number(NamedTuple):
    """A number of a table.

    kind: `mean` in percent, `difference` in points with its sign, `score` of any size.
    """

    point: Estimate
    kind: NumberKind

    @property
    def mark(self) -> str:
        """Stars of a difference that is significant."""
        if self.kind != "difference" or math.isnan(self.point.p):
            return ""
        return next((mark for bound, mark in MARKS if self.point.p < bound), "")


class PaperRow(NamedTuple):
    """A row: what it is about, and under every heading the numbers there, none to two."""

    labels: tuple[str, ...]
    cells: tuple[tuple[Number, ...], ...]


class PaperTable(NamedTuple):
    """A table.

    name: accuracy, differences, areas or monosemanticity.
    caption: what the numbers are, with the test behind the stars.
    stub: the headings of the labels.
    columns: the headings of the cells.
    """

    name: str
    caption: str
    stub: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]


def paper_tables(table: Table) -> list[PaperTable]:
    """The tables that have any row."""
    made = (_accuracy(table), _differences(table), _areas(table), _monosemanticity(table))
    return [each for each in made if each.rows and each.columns]


def _accuracy(table: Table) -> PaperTable:
    columns = {curve: [_means(table, line, curve) for line in table.lines] for curve in table.axes}
    metrics = ", ".join(dict.fromkeys(map(metric_label, table.metrics.values())))
    caption = f"{metrics} in percent: mean and half of the 95 % interval over seeds and draws."
    labels = tuple(line.label for line in table.lines)
    rows = tuple(_severity_rows(table, columns))
    return PaperTable("accuracy", caption, ("curve", "severity"), labels, rows)


def _means(table: Table, line: Line, curve: str) -> dict[Key, Number]:
    samples = table.samples(line, curve).items()
    return {key: Number(estimate(sample), "mean") for key, sample in samples}


def _severity_rows(
    table: Table, columns: Mapping[str, Sequence[Mapping[Key, Number]]]
) -> Iterator[PaperRow]:
    """A row for every severity or name of every curve."""
    for curve, of_curve in columns.items():
        keys: set[Key] = set().union(*of_curve)
        for key in table.in_order(curve, keys):
            cells = tuple((column[key],) if key in column else () for column in of_curve)
            yield PaperRow((curve, format_key(key)), cells)


def _differences(table: Table) -> PaperTable:
    compared = comparisons(table)
    base_of = {comparison.line: comparison.base for comparison in compared}
    numbers: dict[tuple[Line, str], dict[Key, Number]] = {}
    for comparison in compared:
        points = comparison.points.items()
        numbers[comparison.line, comparison.curve] = {
            key: Number(point, "difference") for key, point in points
        }
    columns = {curve: [numbers.get((line, curve), {}) for line in base_of] for curve in table.axes}
    caption = (
        "Paired differences in points, seed by seed and draw by draw, with half of the 95 % "
        f"interval. {MARKS_NOTE}, corrected for the severities of a curve (Holm)."
    )
    labels = tuple(f"{line.label} - {base.label}" for line, base in base_of.items())
    rows = tuple(_severity_rows(table, columns)) if base_of else ()
    return PaperTable("differences", caption, ("curve", "severity"), labels, rows)


def _areas(table: Table) -> PaperTable:
    shared = shared_keys(table)
    rows = tuple(
        PaperRow(
            (line.label,),
            tuple(tuple(_area(table, line, curve, keys)) for curve, keys in shared.items()),
        )
        for line in table.lines
    )
    caption = "Mean under each curve in percent with half of the 95 % interval."
    if len(table.lines) > 1:
        caption += f" Behind it the paired difference to the baseline. {MARKS_NOTE}, uncorrected."
    return PaperTable("areas", caption, ("mean under",), tuple(shared), rows)


def _area(table: Table, line: Line, curve: str, keys: set[Key]) -> Iterator[Number]:
    own = {key: s for key, s in table.samples(line, curve).items() if key in keys}
    if own_area := areas(own):
        yield Number(estimate(own_area), "mean")
    differences = {key: s for key, s in table.differences(line, curve).items() if key in keys}
    if difference := areas(differences):
        yield Number(estimate(difference), "difference")


def _monosemanticity(table: Table) -> PaperTable:
    scores: dict[str, dict[str, Number]] = {}  # by metric and heading
    headings: dict[str, None] = {}
    for line, contents in table.contents.items():
        for curve, metric in contents:
            if not curve.startswith(MONOSEMANTICITY):
                continue
            heading = f"{line.label} {curve.removeprefix(MONOSEMANTICITY).lstrip('/')}".strip()
            headings[heading] = None
            point = estimate(table.samples(line, curve, metric)[0.0])
            scores.setdefault(metric, {})[heading] = Number(point, "score")
    rows = tuple(
        PaperRow((metric,), tuple(_one(of.get(heading)) for heading in headings))
        for metric, of in scores.items()
    )
    caption = "Monosemanticity of clean features: mean and half of the 95 % interval over seeds."
    return PaperTable("monosemanticity", caption, ("metric",), tuple(headings), rows)


def _one(number: Number | None) -> tuple[Number, ...]:
    return () if number is None else (number,)
