"""TODO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import gin

from monosem.core.fields import Part
from monosem.results.rows import MONOSEMANTICITY, Row, Swept
from monosem.results.summary import markdown

# ------------------------------------------------------------------------------------------------ the best cell


@gin.register
@dataclass(frozen=True, kw_only=True)
class Bound(Part):
    """A condition on a cell, in the words of curves.csv: `metric`, measured on clean features, is at most that."""

    metric: str
    at_most: float


@gin.register
@dataclass(frozen=True, kw_only=True)
class Goal(Part):
    """Which cell of a sweep is the best, in the words of curves.csv: by `metric` at `severity` of `curve`, within bounds."""

    curve: str
    severity: float = 0.0
    metric: str = "top1"
    mode: Literal["min", "max"] = "max"
    bounds: tuple[Bound, ...] = ()


def search(cells: Mapping[str, tuple[str, Swept]], rows: Sequence[Row], goal: Goal) -> str:
    """The cells of a sweep by its goal, the best first; those beyond a bound, and those that did not finish, are last."""
    values: dict[tuple[str, Swept], dict[tuple[str, float, str], list[float]]] = {}
    for row in rows:
        values.setdefault((row.experiment, row.swept), {}).setdefault(
            (row.curve, row.severity, row.metric), []
        ).append(row.value)
    ranked = []
    for name, place in cells.items():
        found = values.get(place, {})
        score, *sizes = (
            sum(some) / len(some) if (some := found.get(place)) else None
            for place in [
                (goal.curve, goal.severity, goal.metric),
                *((MONOSEMANTICITY, 0.0, bound.metric) for bound in goal.bounds),
            ]
        )
        within = all(
            size is not None and size <= bound.at_most
            for size, bound in zip(sizes, goal.bounds, strict=True)
        )
        order = float("inf") if score is None else -score if goal.mode == "max" else score
        ranked.append((not within or score is None, order, name, score, sizes))
    ranked.sort(key=lambda each: each[:3])
    header = [
        "cell",
        f"{goal.metric} of {goal.curve} at {goal.severity:g}",
        *(f"{bound.metric} (at most {bound.at_most:g})" for bound in goal.bounds),
    ]
    body = [
        [
            name,
            "not finished" if score is None else f"{score:.2f}{' (out of bounds)' if out else ''}",
            *("" if s is None else f"{s:.4g}" for s in sizes),
        ]
        for out, _, name, score, sizes in ranked
    ]
    best = next((name for out, _, name, _, _ in ranked if not out), None)
    words = f"Best within bounds: {best}" if best else "No cell is within the bounds"
    words += ". It was picked by the images that it is measured on, which flatters it; p-values know nothing of the search."
    return f"{markdown(header, body)}\n\n{words}"
