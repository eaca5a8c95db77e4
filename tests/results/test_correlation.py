"""The claim over the encoders of a table: correlations against what was put into the table."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import here
from matplotlib.image import imread

from monosem.results.correlation import Claim, correlate, correlation_report, encoder_points
from monosem.results.rows import MONOSEMANTICITY, Line, Row
from monosem.results.table import Table
from monosem.running import run_folder

CLAIM = Claim(measure="class_consistency", curves=("label_noise",), controls=("l0",), draws=300)

SPREAD_OUT = [(0.1 * k, float((7 * k) % 10)) for k in range(10)]  # (consistency, l0) of ten lines


def made_table(lines, noise=1.0, slope=20.0):
    """Three encoders a line; robustness is `slope` times the consistency, and noise.

    lines: their (consistency, l0).
    """
    random = np.random.default_rng(1)
    rows = []
    for k, (consistency, l0) in enumerate(lines):
        for seed in range(3):
            swept = (("TopK.k", str(k)), ("Pretrain.seed", str(seed)))
            own_consistency = consistency + 0.01 * random.normal()
            own_l0 = l0 + 0.1 * random.normal()
            rows += measured(swept, class_consistency=own_consistency, l0=own_l0, flat=1.0)
            robustness = 50 + slope * own_consistency + noise * random.normal()
            rows += accuracies(swept, robustness)
    return Table(rows)


def measured(swept, **metrics):
    return [
        Row(
            "sae",
            MONOSEMANTICITY,
            0.0,
            0,
            metric,
            value,
            360,
            "clean test images",
            "",
            "images",
            swept,
        )
        for metric, value in metrics.items()
    ]


def accuracies(swept, clean):
    """Two repeats that differ by 2 at each of three severities, whose area is 5 below clean."""
    return [
        Row(
            "sae", "label_noise", severity, repeat, "top1", value, 360, "share", "", "images", swept
        )
        for severity in (0.0, 0.5, 1.0)
        for repeat, value in enumerate((clean - 10 * severity + 1, clean - 10 * severity - 1))
    ]


def named_accuracies(swept, clean):
    """Two repeats that differ by 2, clean and at two named points whose mean is 5 below it."""
    return [
        Row("sae", "sets", 0.0, repeat, "top1", value, 360, "set", name, "images", swept)
        for name, lost in (("clean", 0), ("mnist", 2), ("usps", 8))
        for repeat, value in enumerate((clean - lost + 1, clean - lost - 1))
    ]


def test_of_named_points_robustness_is_the_mean_without_the_clean_one():
    rows = []
    for k in range(5):
        swept = (("TopK.k", str(k)),)
        rows += measured(swept, class_consistency=0.1 * k, l0=1.0 * k)
        rows += named_accuracies(swept, 60.0 + k)
    points = encoder_points(Table(rows), ("sets",))
    assert points.clean["sets"] == pytest.approx([60, 61, 62, 63, 64])
    assert points.robustness["sets"] == pytest.approx([55, 56, 57, 58, 59])
    claim = Claim(curves=("sets",), controls=())
    report = correlation_report(Table(rows), claim)
    assert "The area of sets is the mean over all named points but the clean." in report.text


# Correlations


def lines_of(count):
    return [Line("a", (("k", str(k)),)) for k in range(count)]


def test_intervals_are_over_lines_so_seeds_that_agree_make_them_no_narrower():
    x = np.linspace(0, 1, 12)
    y = x + 0.5 * np.random.default_rng(3).normal(size=12)
    single = correlate(lines_of(12), x, y)
    three_seeds = [line for line in lines_of(12) for _ in range(3)]
    tripled = correlate(three_seeds, x.repeat(3), y.repeat(3))
    assert single.value == pytest.approx(tripled.value)
    assert single.low < single.value < single.high
    assert tripled.high - tripled.low == pytest.approx(single.high - single.low, abs=0.05)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rho, trials, n = 0.5, 120, 40
    truth = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's of a bivariate normal
    covered = 0
    for trial in range(trials):
        x, noise = np.random.default_rng(trial).normal(size=(2, n))
        y = rho * x + (1 - rho**2) ** 0.5 * noise
        correlation = correlate(lines_of(n), x, y, draws=300)
        covered += correlation.low <= truth <= correlation.high
    assert 0.86 <= covered / trials <= 1


def test_of_too_few_lines_there_is_no_interval():
    x = np.arange(7.0)
    correlation = correlate(lines_of(7), x, x)
    assert correlation.value == 1
    assert math.isnan(correlation.low)


# Encoders of a table


def test_every_encoder_is_one_point():
    points = encoder_points(made_table(SPREAD_OUT), ("label_noise",))
    assert len(points.lines) == 30
    assert len(set(points.lines)) == 10
    assert set(points.seeds) == {("0",), ("1",), ("2",)}


def test_its_robustness_is_the_mean_area_and_its_clean_accuracy_that_of_severity_0():
    points = encoder_points(made_table(SPREAD_OUT, noise=0.0), ("label_noise",))
    consistency = points.metrics["class_consistency"]
    assert points.robustness["label_noise"] == pytest.approx(45 + 20 * consistency)
    assert points.clean["label_noise"] == pytest.approx(50 + 20 * consistency)


def test_an_encoder_that_lacks_a_number_is_left_out():
    rows = made_table(SPREAD_OUT).rows
    first = (("TopK.k", "0"), ("Pretrain.seed", "0"))
    fewer = [row for row in rows if row.swept != first or row.metric != "l0"]
    assert len(encoder_points(Table(fewer), ("label_noise",)).lines) == 29


def test_an_encoder_with_a_number_that_is_nan_is_not_left_out():
    rows = [
        row._replace(value=math.nan) if row.metric == "flat" else row
        for row in made_table(SPREAD_OUT).rows
    ]
    assert len(encoder_points(Table(rows), ("label_noise",)).lines) == 30


def test_without_a_metric_of_monosemanticity_there_is_no_encoder():
    rows = [row for row in made_table(SPREAD_OUT).rows if row.curve != MONOSEMANTICITY]
    assert encoder_points(Table(rows), ("label_noise",)).lines == []


# The report


def test_what_was_put_in_comes_out():
    text = correlation_report(made_table(SPREAD_OUT), CLAIM).text
    assert "class_consistency, 30 encoders on 10 lines" in text
    assert "training seed held equal" in text
    assert "| label_noise" in text
    assert "+0.9" in text
    assert "flat" not in text  # what does not vary correlates with nothing


def test_a_control_that_explains_a_correlation_takes_it_away():
    explained = made_table([(0.1 * k, float(k)) for k in range(10)], noise=0.3)
    _, lines, (panels,) = correlation_report(explained, CLAIM)
    raw, l0, clean, seed, _ = panels
    assert (raw.held, l0.held, clean.held) == ("nothing", "l0", "clean accuracy")
    assert len(lines) == 30
    assert raw.correlation.value > 0.9 > 0.75 > l0.correlation.value
    assert seed.held == "training seed"
    assert seed.correlation.value > 0.9
    # Here the area is the clean accuracy less a constant.
    assert str(clean.correlation) == "cannot be told"


def test_what_seeds_share_is_taken_away_by_holding_them_equal():
    rows = []
    for row in made_table(SPREAD_OUT).rows:
        shift = 60 * int(dict(row.swept)["Pretrain.seed"]) if row.curve == "label_noise" else 0
        rows.append(row._replace(value=row.value + shift))
    ((raw, _, _, seed, _),) = correlation_report(Table(rows), CLAIM).panels
    assert raw.correlation.value < 0.5
    assert seed.correlation.value > 0.8


def test_lines_of_one_spec_that_are_alike_are_told_by_holding_the_spec_equal():
    low = made_table([(0.1, 1.0)] * 5, noise=3.0).rows
    high = made_table([(0.9, 2.0)] * 5, noise=3.0).rows
    both = Table([*low, *(row._replace(experiment="ncl") for row in high)])
    ((raw, *_, spec),) = correlation_report(both, CLAIM).panels
    assert spec.held == "spec"
    assert raw.correlation.value > 0.6
    assert abs(spec.correlation.value) < 0.45


def test_encoders_that_have_learned_nothing_are_left_out_of_a_second_table():
    claim = Claim(
        measure="class_consistency",
        curves=("label_noise",),
        controls=(),
        least_clean=60.0,
        draws=100,
    )
    text = correlation_report(made_table(SPREAD_OUT), claim).text
    assert "30 encoders on 10 lines" in text
    assert "Without those whose clean accuracy is below 60 %" in text
    assert "on 5 lines" in text
    assert "Without those" not in correlation_report(made_table(SPREAD_OUT), CLAIM).text


def test_too_few_encoders_are_said_to_be_too_few_and_not_drawn(tmp_path):
    report = correlation_report(made_table(SPREAD_OUT[:1]), CLAIM)
    assert "too few" in report.text
    assert run_folder.draw_claim(tmp_path, report, CLAIM.measure) == []


def test_the_claim_is_drawn_as_claim_png(tmp_path):
    report = correlation_report(made_table(SPREAD_OUT), CLAIM)
    (path,) = run_folder.draw_claim(tmp_path, report, CLAIM.measure)
    assert path.name == "claim.png"
    assert imread(path).std() > 0.01


# What is refused


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("Claim.measure = 'class_consistancy'", "Claim.measure must be one of activity, "),
        (
            "Claim.curves = ('label_nose',)",
            "must be one of gaussian, label_noise, uniform, got 'label_nose'; did you mean",
        ),
        ("Claim.curves = ()", "Claim.curves must name at least one curve, got ()"),
        ("Claim.controls = ('L0',)", "Claim.controls must be one of activity, "),
        ("Claim.least_clean = 101", "Claim.least_clean must be between 0 and 100, got 101"),
        ("Claim.draws = 0", "Claim.draws must be between 100 and 100000, got 0"),
        (
            "Claim.curves = ('gaussian', 'gaussian')",
            "Claim.curves must name each thing once, got 'gaussian' twice",
        ),
        (
            "Claim.controls = ('class_consistency',)",
            "Claim.controls must name each thing once and not the measure",
        ),
    ],
)
def test_a_claim_about_what_is_not_measured_is_refused(capsys, tmp_path, binding, message):
    places = ("--runs", tmp_path / "runs", "--store", tmp_path / "store")
    out = here(capsys, "--gin", "sweeps/claim.gin", "--set", binding, *places, "--plan")
    assert out.returncode == 2
    assert message in out.stderr
    assert len(out.stderr.splitlines()) == 1
