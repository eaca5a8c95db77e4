"""Which cell of a sweep is the best: a goal, bounds on what a cell may cost, the ranking.

Knows the names of cells and rows, no stage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import gin

from monosem.core.fields import Part
from monosem.results.formatting import markdown_table
from monosem.results.rows import MONOSEMANTICITY, Row, Swept, place_text


@gin.register
@dataclass(frozen=True, kw_only=True)
class Bound(Part):
    """A condition on a cell, in the words of curves.csv.

    metric: measured on clean features.
    at_most: the largest value that is within the bound.
    """

    metric: str
    at_most: float


@gin.register
@dataclass(frozen=True, kw_only=True)
class Goal(Part):
    """Which cell of a sweep is the best, in the words of curves.csv.

    Cells are ranked by one number, its mean over repeats.

    curve: that the number is on.
    point: at which it is taken, where the points of the curve have names.
    severity: at which it is taken.
    metric: that it is a value of.
    mode: whether more is better, or less.
    bounds: a cell outside one of them is never the best.
    """

    curve: str
    point: str = ""
    severity: float = 0.0
    metric: str = "top1"
    mode: Literal["min", "max"] = "max"
    bounds: tuple[Bound, ...] = ()


CellKey = tuple[str, Swept]  # of every row of a cell: its experiment and its swept values
Quantity = tuple[str, str, float, str]  # curve, point, severity, metric


class _Candidate(NamedTuple):
    """A cell and its numbers.

    name: of the cell.
    score: the number that cells are ranked by; None where it is not there yet.
    sizes: the numbers that the bounds are on; None for one that is not there yet.
    within: whether there is a score and the cell is within all bounds.
    """

    name: str
    score: float | None
    sizes: tuple[float | None, ...]
    within: bool


def search(cells: Mapping[str, CellKey], rows: Sequence[Row], goal: Goal) -> str:
    """The cells of a sweep by its goal, the best first, as a Markdown table and a verdict.

    Those beyond a bound, and those that did not finish, are last.

    cells: the name of each and what its rows have in common.
    """
    means = _means(rows, _quantities(goal))
    candidates = [_candidate(name, means.get(cell, {}), goal) for name, cell in cells.items()]
    ranked = sorted(candidates, key=lambda candidate: _rank(candidate, goal.mode))
    return f"{_ranking_table(ranked, goal)}\n\n{_verdict(ranked)}"


def _quantities(goal: Goal) -> list[Quantity]:
    """The number that cells are ranked by, then those that the bounds are on."""
    return [
        (goal.curve, goal.point, goal.severity, goal.metric),
        *((MONOSEMANTICITY, "", 0.0, bound.metric) for bound in goal.bounds),
    ]


def _means(
    rows: Sequence[Row], quantities: Sequence[Quantity]
) -> dict[CellKey, dict[Quantity, float]]:
    """The means over repeats that each cell has of these quantities."""
    values: dict[CellKey, dict[Quantity, list[float]]] = {}
    for row in rows:
        quantity = row.curve, row.point, row.severity, row.metric
        if quantity in quantities:
            of_cell = values.setdefault((row.experiment, row.swept), {})
            of_cell.setdefault(quantity, []).append(row.value)
    return {
        cell: {quantity: sum(drawn) / len(drawn) for quantity, drawn in of_cell.items()}
        for cell, of_cell in values.items()
    }


def _candidate(name: str, means: Mapping[Quantity, float], goal: Goal) -> _Candidate:
    score, *sizes = (means.get(quantity) for quantity in _quantities(goal))
    within = score is not None and all(
        size is not None and size <= bound.at_most
        for size, bound in zip(sizes, goal.bounds, strict=True)
    )
    return _Candidate(name, score, tuple(sizes), within)


def _rank(candidate: _Candidate, mode: str) -> tuple[bool, float, str]:
    """The smallest is best."""
    if candidate.score is None:
        order = math.inf
    else:
        order = -candidate.score if mode == "max" else candidate.score
    return not candidate.within, order, candidate.name


def _ranking_table(ranked: Sequence[_Candidate], goal: Goal) -> str:
    header = [
        "cell",
        f"{goal.metric} of {goal.curve} at {place_text(goal.point, goal.severity)}",
        *(f"{bound.metric} (at most {bound.at_most:g})" for bound in goal.bounds),
    ]
    body = []
    for candidate in ranked:
        sizes = ["" if size is None else f"{size:.4g}" for size in candidate.sizes]
        body.append([candidate.name, _format_score(candidate), *sizes])
    return markdown_table(header, body)


def _format_score(candidate: _Candidate) -> str:
    if candidate.score is None:
        return "not finished"
    return f"{candidate.score:.2f}{'' if candidate.within else ' (out of bounds)'}"


def _verdict(ranked: Sequence[_Candidate]) -> str:
    best = ranked[0] if ranked and ranked[0].within else None
    verdict = f"Best within bounds: {best.name}" if best else "No cell is within the bounds"
    return (
        f"{verdict}. It was picked by the test split that it is measured on, which flatters it; "
        "p-values know nothing of the search."
    )
