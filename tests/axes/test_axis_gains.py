"""Axis gains and decompositions against the numbers that were put into a table."""

from __future__ import annotations

import csv
import io
import math

import pytest
import scipy.stats
from made_rows import row
from matplotlib.image import imread

from monosem.axes.gains import AxisGains, Place
from monosem.axes.report import axis_report
from monosem.core.fields import FieldError
from monosem.figures.axis_curves import draw_curves
from monosem.results.rows import MONOSEMANTICITY
from monosem.results.stats import holm
from monosem.results.table import Table
from monosem.running import run_folder

ASKED = AxisGains(
    pairs=(("simclr", "simclr_rotated"), ("ncl", "ncl_rotated")), curves=("label_noise",)
)
# (what a learner has of simclr, rotated; of ncl, rotated), before seeds and repeats
BLIND, TREE = (80.0, 80.0, 84.0, 84.0), (70.0, 71.0, 80.0, 73.0)


def made_rows(turns=("0", "1")):
    """Two severities beside 0. Rotation 0 costs a point less than the mean and 1 a point more.

    Gains of the tree grow with the seed, so that there is a spread.
    """
    rows = []
    for learner, (simclr, simclr_rotated, ncl, ncl_rotated) in (("Ridge", BLIND), ("Tree", TREE)):
        for name, value in (("simclr", simclr), ("ncl", ncl)):
            rows += accuracies(name, learner, lambda seed, value=value: value, {})
        for name, value in (("simclr_rotated", simclr_rotated), ("ncl_rotated", ncl_rotated)):
            for turn in turns:
                spread = (2 * int(turn) - 1) * (learner == "Tree")
                rows += accuracies(
                    name,
                    learner,
                    lambda seed, v=value, s=spread, t=learner: v - s - 0.1 * seed * (t == "Tree"),
                    {"rotation": turn},
                )
    return rows


def accuracies(experiment, learner, value_of, swept):
    return [
        row(
            value_of(seed) - 10 * severity + 3 * seed + repeat,
            {"Curve.probe": learner, **swept, "Pretrain.seed": str(seed)},
            experiment=experiment,
            curve="label_noise",
            severity=severity,
            repeat=repeat,
        )
        for seed in range(3)
        for severity in (0.0, 0.4, 0.8)
        for repeat in range(2)
    ]


@pytest.fixture(scope="module")
def report():
    return axis_report(Table(made_rows()), ASKED)


def place(kind, learner, encoder, severity=None):
    return Place(kind, severity, learner, encoder)


def test_a_gain_is_as_is_less_the_mean_of_all_rotations_paired_by_seed_and_draw(report):
    """Of the tree -1 and 7, and .1 more with each of the three seeds."""
    for kind in ("clean", "label_noise"):
        assert report.gains[place(kind, "Tree", "simclr")].mean == pytest.approx(-0.9)
        gain = report.gains[place(kind, "Tree", "ncl")]
        assert gain.mean == pytest.approx(7.1)
        assert (gain.seeds, gain.repeats) == (3, 2)
        # Means of the two rotations are 2 apart: the variance of their mean is 1, one degree of
        # freedom. Draws have no spread, so that nothing is added to it.
        assert gain.half == pytest.approx(scipy.stats.t.ppf(0.975, 1), rel=1e-6)


def test_one_rotation_adds_no_variance_and_several_alike_ones_add_none_either():
    for turns in (("0",), ("0", "0")):
        gain = axis_report(Table(made_rows(turns)), ASKED).gains[place("clean", "Tree", "ncl")]
        assert gain.half == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-3)


def test_a_learner_that_sees_no_axes_gains_exactly_nothing_and_has_no_p(report):
    for encoder in ("simclr", "ncl"):
        gain = report.gains[place("label_noise", "Ridge", encoder)]
        assert gain.mean == 0 and math.isnan(gain.p)


def test_clean_is_a_kind_of_its_own_and_a_curve_is_the_mean_of_its_other_severities(report):
    kinds = {(where.kind, where.severity) for where in report.gains}
    assert kinds == {
        ("clean", None),
        ("label_noise", None),
        ("label_noise", 0.4),
        ("label_noise", 0.8),
    }


def test_geometry_and_axes_add_up_to_the_difference(report):
    assert {where.encoder for where in report.parts} == {"ncl"}
    for part in report.parts.values():
        assert part.geometry.mean + part.axes.mean == pytest.approx(part.total.mean)
    tree = report.parts[place("label_noise", "Tree", "ncl")]
    assert tree.total.mean == pytest.approx(10)
    assert tree.geometry.mean == pytest.approx(2)
    assert tree.axes.mean == pytest.approx(8)
    ridge = report.parts[place("label_noise", "Ridge", "ncl")]
    assert (ridge.geometry.mean, ridge.axes.mean) == (4, 0)


def test_p_is_corrected_for_all_numbers_of_the_table_by_severities_and_means_apart():
    one = axis_report(Table(made_rows()), ASKED).gains
    means = {where: gain for where, gain in one.items() if where.severity is None}
    alone = {}
    for where in means:
        own = [each for each in made_rows() if dict(each.swept)["Curve.probe"] == where.learner]
        own = [each for each in own if each.experiment.startswith(where.encoder)]
        wanted = (0.0,) if where.kind == "clean" else (0.4, 0.8)
        own = [each for each in own if each.severity in wanted]
        pairs = ((where.encoder, f"{where.encoder}_rotated"),)
        single = axis_report(Table(own), AxisGains(pairs=pairs, curves=("label_noise",)))
        (alone[where],) = [
            gain.p for place_of, gain in single.gains.items() if place_of.severity is None
        ]
    corrected = holm(list(alone.values()))
    for gain, p in zip(means.values(), corrected, strict=True):
        assert gain.p == pytest.approx(p, nan_ok=True)


def test_the_report_says_what_was_subtracted_from_what(report):
    assert "accuracy on features as they are less accuracy on rotated ones" in report.text
    assert "over 3 seeds x 2 draws x 2 rotations" in report.text
    assert "+10.0 = +2.0 geometry, +8.0 axes" in report.text
    assert "| Tree    | label_noise | -0.9 ±" in report.text


def test_every_number_is_in_the_csv(report):
    lines = list(csv.DictReader(io.StringIO(report.csv_text())))
    assert len(lines) == len(report.gains) + 3 * len(report.parts)
    gains = [line for line in lines if line["number"] == "axis_gain"]
    assert {float(line["mean"]) for line in gains if line["learner"] == "Ridge"} == {0.0}


def swept_rows():
    """Autoencoders of ten k, whose tree gains k points, with a measure that falls with k."""
    rows = []
    for k in map(str, range(1, 11)):
        for name, gain, turns in (("sae", int(k), ({},)), ("turned", 0, TWO_TURNS)):
            for turn in turns:
                value_of = lambda seed, gain=gain: 60.0 + gain + 0.01 * seed  # noqa: E731
                rows += accuracies(name, "Tree", value_of, {"TopK.k": k, **turn})
        rows += [
            row(
                1 / int(k),
                {"Curve.probe": "Tree", "TopK.k": k, "Pretrain.seed": str(seed)},
                experiment="sae",
                curve=MONOSEMANTICITY,
                severity=0.0,
                metric="purity",
            )
            for seed in range(3)
        ]
    return rows


TWO_TURNS = ({"rotation": "0"}, {"rotation": "1"})
SWEPT = AxisGains(
    pairs=(("sae", "turned"),),
    curves=("label_noise",),
    drawn=("label_noise",),
    measures=("purity",),
)


def test_every_value_of_another_swept_binding_is_an_encoder_with_rotations_of_its_own():
    gains = axis_report(Table(swept_rows()), SWEPT).gains
    for k in range(1, 11):
        assert gains[place("clean", "Tree", f"sae, k {k}")].mean == pytest.approx(k)


def test_gains_are_correlated_with_measures_over_all_encoders():
    text = axis_report(Table(swept_rows()), SWEPT).text
    assert "over 30 encoders of 10 kinds" in text
    assert "| -1.00 (" in text


def test_a_curve_is_drawn_by_severity_or_by_bits_as_it_is_and_rotated(tmp_path):
    drawn = axis_report(Table(swept_rows()), SWEPT)
    lines = {(line.encoder, line.turn): line for line in drawn.lines}
    assert len(lines) == 20
    assert [x for x, _ in lines["sae, k 3", "as they are"].points] == [0.0, 0.4, 0.8]
    bits = [
        each._replace(metric="coded_bits", value=100 - 50 * each.severity)
        for each in swept_rows()
        if each.curve == "label_noise"
    ]
    with_bits = axis_report(Table([*swept_rows(), *bits]), SWEPT)
    line = with_bits.lines[0]
    assert line.bits and [x for x, _ in line.points] == [60.0, 80.0, 100.0]
    draw_curves(with_bits.lines[:4], tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png").std() > 0.01


def test_a_third_experiment_of_a_pair_is_drawn_in_every_panel():
    rows = made_rows()
    rows += [
        each._replace(experiment="parts", swept=(("Pretrain.seed", "0"),))
        for each in rows
        if each.experiment == "ncl" and dict(each.swept)["Curve.probe"] == "Tree"
    ]
    asked = AxisGains(
        pairs=(("ncl", "ncl_rotated", "parts"),), curves=("label_noise",), drawn=("label_noise",)
    )
    thirds = [line for line in axis_report(Table(rows), asked).lines if line.turn == "third"]
    assert {line.encoder for line in thirds} == {"ncl"}
    assert {line.learner for line in thirds} == {"Ridge", "Tree"}


def test_experiments_without_a_rotated_one_are_left_out():
    rows = [each for each in made_rows() if each.experiment != "ncl_rotated"]
    gains = axis_report(Table(rows), ASKED).gains
    assert {where.encoder for where in gains} == {"simclr"}
    nothing = [each for each in rows if each.experiment == "ncl"]
    assert "no axis gain to tell" in axis_report(Table(nothing), ASKED).text


def test_both_figures_and_the_csv_are_written(report, tmp_path):
    figures = run_folder.write_axis_gains(tmp_path, report)
    assert [figure.name for figure in figures] == ["axis_gains.png", "decomposition.png"]
    for figure in figures:
        assert imread(figure).std() > 0.01
    assert (tmp_path / "axis_gains.csv").read_text() == report.csv_text()


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"pairs": ()}, "AxisGains.pairs must hold at least one, got"),
        ({"pairs": (("a", "a"),)}, "AxisGains.pairs must be of two or three experiments each, got"),
        ({"curves": ("x", "x")}, "AxisGains.curves must differ from one another"),
        ({"drawn": ("y",)}, "AxisGains.drawn must be among AxisGains.curves, got 'y'"),
    ],
    ids=["none", "itself", "twice", "elsewhere"],
)
def test_impossible_questions_are_refused(fields, complaint):
    with pytest.raises(FieldError, match=complaint):
        AxisGains(**{"pairs": (("a", "b"),), "curves": ("x",), **fields})
