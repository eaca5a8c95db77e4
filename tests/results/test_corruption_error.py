"""Mean corruption error against plain loops over the rows, and where nothing can be a ratio."""

from __future__ import annotations

import pytest
from made_rows import REPEATS, SEEDS, named_study, row, study

from monosem.results.corruption_error import (
    corruption_error,
    corruption_error_table,
    rated_curves,
)
from monosem.results.stats import estimate
from monosem.results.summary import tables
from monosem.results.table import Table


def error_of(rows, experiment, name, severity, seed, repeat):
    """100 % minus the accuracy of one row."""
    (value,) = [
        one.value
        for one in rows
        if (one.experiment, one.point, one.severity) == (experiment, name, severity)
        and (dict(one.swept)["Pretrain.seed"], one.repeat) == (seed, repeat)
    ]
    return 100 - value


def by_hand(rows, seed, repeat, relative):
    """(Relative) mCE of b against a in percent, straight from the paper's equations."""
    ratios = []
    for name in ("snow", "fog"):
        sums = []
        for experiment in ("b", "a"):
            clean = error_of(rows, experiment, "clean", 0.0, seed, repeat) if relative else 0.0
            sums.append(
                sum(
                    error_of(rows, experiment, name, severity, seed, repeat) - clean
                    for severity in (1.0, 5.0)
                )
            )
        ratios.append(sums[0] / sums[1])
    return 100 * sum(ratios) / len(ratios)


def test_it_is_the_paper_s_equation_for_each_encoder_and_draw():
    rows = [*named_study("a"), *named_study("b", shift=2.0)]
    table = Table(rows)
    error = corruption_error(table, table.lines[1], "common")
    for sample, relative in ((error.mean.sample, False), (error.relative.sample, True)):
        assert len(sample) == len(SEEDS) * len(REPEATS)
        for (seeds, repeat), value in sample.items():
            seed = dict(seeds)["Pretrain.seed"]
            assert value == pytest.approx(by_hand(rows, seed, repeat, relative))
    assert error.mean.left_out == error.relative.left_out == []


def test_an_equal_line_has_100_percent_and_a_better_one_less():
    table = Table([*named_study("a"), *named_study("b"), *named_study("c", shift=2.0)])
    equal, better = (corruption_error(table, line, "common") for line in table.lines[1:])
    for sample, _ in equal:
        assert list(sample.values()) == pytest.approx([100] * len(sample))
    assert all(max(sample.values()) < 100 for sample, _ in better)


def test_what_the_baseline_does_not_lose_is_left_out_of_the_relative_one_and_named():
    easy = [
        row(95.0, {"Pretrain.seed": seed}, experiment=experiment, repeat=repeat, severity=1.0,
            curve="common", point="brightness")
        for experiment in "ab" for seed in SEEDS for repeat in REPEATS
    ]  # fmt: skip
    rows = [*named_study("a"), *named_study("b", shift=2.0)]
    table = Table([*rows, *easy])
    error = corruption_error(table, table.lines[1], "common")
    without = corruption_error(Table(rows), table.lines[1], "common")
    assert error.relative.left_out == ["brightness"] and not error.mean.left_out
    assert error.relative.sample == pytest.approx(without.relative.sample)
    # errors of 5 % and 5 %: one more ratio of 1
    assert error.mean.sample != pytest.approx(without.mean.sample)
    assert "from relative mCE, brightness of common for b" in corruption_error_table(table)


def test_a_severity_that_one_of_the_two_lacks_does_not_count():
    fewer = [one for one in named_study("b", shift=2.0) if one.severity != 5.0]
    table = Table([*named_study("a"), *fewer])
    both = [one for one in named_study("a") if one.severity != 5.0]
    expected = corruption_error(Table([*both, *fewer]), table.lines[1], "common")
    assert corruption_error(table, table.lines[1], "common") == expected


def test_curves_without_a_clean_point_or_without_severities_have_none():
    rows = [*study("a"), *named_study("a"), *named_study("a", curve="no_clean")]
    rows = [one for one in rows if (one.curve, one.point) != ("no_clean", "clean")]
    for name in ("clean", "mnist"):
        rows.append(row(curve="sets", point=name, severity=0.0))
    assert rated_curves(Table(rows)) == ["common"]


def test_the_summary_has_it_where_there_is_a_baseline():
    table = Table([*named_study("a"), *named_study("b", shift=2.0)])
    error = estimate(corruption_error(table, table.lines[1], "common").mean.sample)
    text = tables(table)
    assert f"| common | b against a | {error.mean:.1f} ± {error.half:.1f} |" in text
    assert "mCE" not in tables(Table(named_study("a")))
