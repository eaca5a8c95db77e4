"""The table, its intervals and what is said from it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from scipy import stats

from monosem.curves import MONOSEMANTICITY, Row, half_width, join, paired, points, read_table, table_text, tables


def row(value=90.0, experiment="a", curve="gaussian", severity=0.5, repeat=0, metric="top1", n=360, axis="x (units)"):
    return Row(experiment, curve, severity, repeat, metric, value, n, axis)


ROWS = [row(v, severity=s, repeat=r, metric=m) for s in (0.0, 0.1) for r, v in enumerate((90.0, 91.5, 1 / 3)) for m in ("top1", "top5")]
MEASURED = row(0.25, curve=MONOSEMANTICITY, severity=0.0, metric="class_consistency")


@pytest.mark.parametrize("values", [[1.0, 2.0], [97.1, 97.3, 96.9, 97.4, 97.0], [5.0, 5.0, 5.0]])
def test_the_interval_is_student_s(values):
    mean, error = sum(values) / len(values), stats.sem(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=error) if error else (mean, mean)
    assert mean - half_width(values) == pytest.approx(low) and mean + half_width(values) == pytest.approx(high)


def test_one_repeat_has_no_interval():
    assert math.isnan(half_width([97.0]))
    assert "| 90.0 " in tables([row()]) and "90.0 ±" not in tables([row()])


def test_a_table_that_is_written_and_read_has_the_same_bits(tmp_path: Path):
    (tmp_path / "curves.csv").write_text(table_text([*ROWS, MEASURED]))
    assert read_table(tmp_path / "curves.csv") == [*ROWS, MEASURED]


def test_points_are_means_over_repeats_by_ascending_severity():
    line = points(reversed(ROWS), "a", "gaussian", "top1")
    assert [(p.severity, p.repeats, p.n) for p in line] == [(0.0, 3, 360), (0.1, 3, 360)]
    assert line[0].mean == pytest.approx((90 + 91.5 + 1 / 3) / 3)


def test_several_experiments_stand_beside_one_another_with_gaps_where_one_has_no_such_point():
    text = tables([*ROWS, MEASURED, row(50.0, experiment="b", severity=0.3)])
    assert "| curve    | severity | top-1 of a, % | top-1 of b, % |" in text
    assert "| gaussian | 0.3      |               | 50.0          |" in text
    assert "over 1 to 3 draws" in text


def test_differences_are_taken_draw_by_draw():
    better = [r._replace(experiment="b", value=r.value + 2 + 0.1 * r.repeat) for r in ROWS]
    (line, _) = paired([*ROWS, *better], "b", "a", "gaussian")
    assert line.mean == pytest.approx(2.1) and line.half == pytest.approx(half_width([2.0, 2.1, 2.2]))
    text = tables([*ROWS, *better])
    assert "| curve    | severity | b - a      |" in text and "| gaussian | 0        | +2.1 ± 0.2 |" in text
    assert "Paired" not in tables(ROWS) and "Paired" not in tables([row(), row(experiment="b", severity=0.7)])


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([row()], "two of the tables hold an experiment called a"),
        ([row(experiment="b", axis="pixels")], "the severities of gaussian are x (units) in one table and pixels in another"),
    ],
)
def test_tables_that_do_not_go_together_are_refused(others, words):
    with pytest.raises(ValueError) as info:
        join([ROWS, others])
    assert words in str(info.value)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", table_text(ROWS).replace("90.0", "ninety"), table_text(ROWS)[:-20]])
def test_a_file_that_is_no_table_is_refused(tmp_path, text):
    (tmp_path / "curves.csv").write_text(text)
    with pytest.raises(ValueError, match="curves.csv|no curve"):
        join([read_table(tmp_path / "curves.csv")])
    with pytest.raises(ValueError, match="there is no"):
        read_table(tmp_path / "nothing.csv")
