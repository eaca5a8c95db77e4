"""The ranking of a sweep's cells by its goal."""

from __future__ import annotations

import re

from made_rows import row

from monosem.results.rows import MONOSEMANTICITY
from monosem.results.search import Bound, Goal, search

GOAL = Goal(curve="gaussian", severity=0.5)


def cell(k, values, **metrics):
    """The rows of a cell: one repeat for each value, and what was measured on clean features."""
    swept = {"TopK.k": k}
    rows = [row(value, swept, repeat=repeat) for repeat, value in enumerate(values)]
    for metric, value in metrics.items():
        rows.append(row(value, swept, curve=MONOSEMANTICITY, severity=0.0, metric=metric))
    return rows


def cells(*ks):
    return {f"k={k}": ("a", (("TopK.k", k),)) for k in ks}


def ranking(text):
    return re.findall(r"^\| (k=\d+) ", text, re.MULTILINE)


def test_cells_are_ranked_by_the_mean_over_repeats():
    rows = [*cell("4", [80.0, 84.0]), *cell("8", [85.0, 83.0]), *cell("16", [90.0, 60.0])]
    text = search(cells("4", "8", "16"), rows, GOAL)
    assert ranking(text) == ["k=8", "k=4", "k=16"]
    assert "| 84.00 " in text
    assert "Best within bounds: k=8." in text


def test_less_is_better_where_the_goal_says_so():
    rows = [*cell("4", [80.0]), *cell("8", [85.0])]
    goal = Goal(curve="gaussian", severity=0.5, mode="min")
    assert ranking(search(cells("4", "8"), rows, goal)) == ["k=4", "k=8"]


def test_a_cell_beyond_a_bound_is_last_however_good_it_is():
    rows = [*cell("4", [80.0], l0=4.0), *cell("8", [85.0], l0=8.0)]
    goal = Goal(curve="gaussian", severity=0.5, bounds=(Bound(metric="l0", at_most=4.0),))
    text = search(cells("4", "8"), rows, goal)
    assert ranking(text) == ["k=4", "k=8"]
    assert "85.00 (out of bounds)" in text


def test_a_cell_that_is_not_finished_is_last_and_never_the_best():
    text = search(cells("4", "8"), cell("8", [20.0]), GOAL)
    assert ranking(text) == ["k=8", "k=4"]
    assert "not finished" in text
    assert "No cell is within the bounds" in search(cells("4"), [], GOAL)


def test_a_goal_may_be_a_named_point_at_a_severity():
    rows = []
    for k, values in (("4", (80.0, 60.0)), ("8", (75.0, 70.0))):
        for severity, value in zip((1.0, 5.0), values, strict=True):
            where = {"curve": "common", "point": "fog", "severity": severity}
            rows.append(row(value, {"TopK.k": k}, **where))
    goal = Goal(curve="common", point="fog", severity=5.0)
    text = search(cells("4", "8"), rows, goal)
    assert ranking(text) == ["k=8", "k=4"]
    assert "top1 of common at fog 5" in text
    assert "not finished" in search(cells("4"), rows, Goal(curve="common", severity=5.0))
