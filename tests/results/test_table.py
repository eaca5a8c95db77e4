"""The table: its lines, its samples, its differences to a baseline, and the same for pandas."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT
from made_rows import REPEATS, SEEDS, SINGLE_RUN, named_study, row, study

from monosem.results.rows import Line
from monosem.results.stats import areas, estimate
from monosem.results.table import Table, to_frame


def test_a_frame_has_a_row_for_each_number_and_a_column_for_each_binding():
    rows = [*study("simclr"), *study("sae", values={"TopK.k": "4"})]
    frame = to_frame(rows)
    assert list(frame) == [
        "experiment", "curve", "severity", "repeat", "metric", "value", "n", "axis",
        "point", "noun", "Pretrain.seed", "TopK.k",
    ]  # fmt: skip
    assert frame["value"].tolist() == [row.value for row in rows]
    assert frame["TopK.k"].isna().tolist() == [row.experiment == "simclr" for row in rows]
    assert set(frame["TopK.k"].dropna()) == {"4"}


def test_samples_are_by_ascending_severity_over_repeats():
    samples = Table(reversed(SINGLE_RUN)).samples(Line("a", ()), "gaussian")
    assert list(samples) == [0.0, 0.1]
    assert estimate(samples[0.0]).mean == pytest.approx((90 + 91.5 + 1 / 3) / 3)


def test_samples_are_those_of_a_plain_loop_over_the_rows():
    rows = [*study("simclr"), *study("sae", values={"TopK.k": "4"})]
    rows += [one._replace(metric="top5", value=one.value + 5) for one in rows]
    table = Table(rows)
    for line in table.lines:
        for metric in ("top1", "top5"):
            expected: dict = {}
            for one in rows:
                if (one.experiment, one.metric) == (line.experiment, metric):
                    seeds = tuple(pair for pair in one.swept if pair[0] == "Pretrain.seed")
                    expected.setdefault(one.severity, {})[seeds, one.repeat] = one.value
            assert table.samples(line, "gaussian", metric) == expected


def test_seeds_are_averaged_over_and_other_swept_values_are_lines():
    table = Table([*study("sae", values={"TopK.k": "4"}), *study("sae", values={"TopK.k": "8"})])
    assert [line.label for line in table.lines] == ["sae, k 4", "sae, k 8"]
    point = estimate(table.samples(table.lines[0], "gaussian")[0.5])
    assert (point.seeds, point.repeats) == (3, 3)


def test_top_1_is_drawn_where_there_is_one_and_else_what_comes_first():
    rows = [
        row(metric="top5"),
        row(metric="top1"),
        row(curve="retrieval", metric="precision_at_10"),
        row(curve="retrieval", metric="recall"),
    ]
    assert Table(rows).metrics == {"gaussian": "top1", "retrieval": "precision_at_10"}


def test_a_line_is_compared_with_the_baseline_that_agrees_in_what_both_have():
    table = Table(
        [
            *study("simclr", values={"Pretrain.epochs": "5"}),
            *study("simclr", values={"Pretrain.epochs": "9"}),
            *study("sae", values={"Pretrain.epochs": "9", "TopK.k": "4"}),
        ]
    )
    first, second, sae = table.lines
    assert table.baseline_of(first) is None
    assert table.baseline_of(second) == first
    assert table.baseline_of(sae) == second


def test_a_named_baseline_that_is_not_there_is_not_replaced_by_another():
    table = Table([*study("b"), *study("c", shift=2.0)], baseline="a")
    assert not any(table.differences(line, "gaussian") for line in table.lines)


def test_differences_are_taken_seed_by_seed_and_draw_by_draw():
    sae = study("sae", shift=2.0, seed_bindings=("Pretrain.seed", "SparseAutoencoder.seed"))
    table = Table([*study("simclr"), *sae])
    differences = table.differences(table.lines[1], "gaussian")
    expected = [2 * (1 + 0.1 * int(seed) + 0.01 * repeat) for seed in SEEDS for repeat in REPEATS]
    assert list(differences) == [0.0, 0.5]
    assert sorted(differences[0.5].values()) == pytest.approx(sorted(expected))


def test_seeds_that_only_the_baseline_has_are_averaged_over_first():
    simclr = []
    for repeat in REPEATS:
        for seed, value in (("0", 70.0), ("1", 71.0)):
            swept = {"Pretrain.seed": "0", "Other.seed": seed}
            simclr.append(row(value, swept, experiment="simclr", repeat=repeat))
    table = Table([*simclr, *study("sae", shift=2.0, seeds=("0",))])
    differences = table.differences(table.lines[1], "gaussian")
    assert list(differences) == [0.5]
    assert len(differences[0.5]) == 3  # one encoder, three draws: not six pairs
    assert min(differences[0.5].values()) == pytest.approx(75 + 2 - 70.5)


def test_lines_that_share_no_seed_are_compared_over_draws_alone():
    table = Table([*study("a"), *study("b", shift=2.0, seed_bindings=("Other.seed",))])
    assert estimate(table.differences(table.lines[1], "gaussian")[0.5]).seeds == 1


def test_the_area_of_differences_is_the_difference_of_areas():
    table = Table([*study("a"), *study("b", shift=2.0)])
    base, line = table.lines
    own = estimate(areas(table.samples(line, "gaussian"))).mean
    of_base = estimate(areas(table.samples(base, "gaussian"))).mean
    difference = estimate(areas(table.differences(line, "gaussian"))).mean
    assert difference == pytest.approx(own - of_base)


def named_value(rows, experiment, name, seed, repeat):
    """The mean over severities, by a plain loop."""
    values = [
        one.value
        for one in rows
        if (one.experiment, one.point, one.repeat) == (experiment, name, repeat)
        and dict(one.swept)["Pretrain.seed"] == seed
    ]
    return sum(values) / len(values)


def test_named_points_are_by_name_in_order_of_appearance_and_means_over_their_severities():
    rows = [*study("a"), *named_study("a")]
    table = Table(rows)
    assert table.named == {"common": ["clean", "snow", "fog"]}
    samples = table.samples(table.lines[0], "common")
    assert list(samples) == ["clean", "snow", "fog"]
    for name, sample in samples.items():
        assert len(sample) == len(SEEDS) * len(REPEATS)
        for (seeds, repeat), value in sample.items():
            expected = named_value(rows, "a", name, dict(seeds)["Pretrain.seed"], repeat)
            assert value == pytest.approx(expected)
    assert list(table.samples(table.lines[0], "gaussian")) == [0.0, 0.5]


def test_a_unit_that_lacks_a_severity_of_a_name_has_no_mean_of_it():
    rows = named_study("a")
    last = rows.pop()
    sample = Table(rows).samples(Table(rows).lines[0], "common")["fog"]
    assert (last.swept, last.repeat) not in sample
    assert len(sample) == len(SEEDS) * len(REPEATS) - 1


def test_differences_of_names_are_paired_and_over_the_severities_that_both_have():
    rows = [*named_study("a"), *named_study("b", shift=2.0)]
    table = Table(rows)
    differences = table.differences(table.lines[1], "common")
    assert list(differences) == ["clean", "snow", "fog"]
    for (seeds, repeat), value in differences["fog"].items():
        seed = int(dict(seeds)["Pretrain.seed"])
        assert value == pytest.approx(2 * (1 + 0.1 * seed + 0.01 * repeat))
    fewer = [one for one in rows if one.experiment == "a" or one.severity != 5.0]
    table = Table(fewer)
    assert estimate(table.differences(table.lines[1], "common")["fog"]).mean == pytest.approx(2.22)


def test_the_area_of_named_points_is_their_mean_without_the_clean_one():
    rows = named_study("a")
    table = Table(rows)
    areas_of_units = areas(table.samples(table.lines[0], "common"))
    for (seeds, repeat), value in areas_of_units.items():
        seed = dict(seeds)["Pretrain.seed"]
        means = [named_value(rows, "a", name, seed, repeat) for name in ("snow", "fog")]
        assert value == pytest.approx(sum(means) / 2)
    only_clean = Table([one for one in rows if one.point == "clean"])
    assert areas(only_clean.samples(only_clean.lines[0], "common")) == {}


def test_reading_a_spec_does_not_import_pandas():
    command = "import sys, monosem.specs.load; assert 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", command], cwd=ROOT, check=True)
