"""The claim over the encoders of a table: correlations against another library, and against what was put into the table."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from conftest import here
from matplotlib.image import imread

from monosem.results.correlation import Claim, correlate, correlation_report, encoder_points
from monosem.results.rows import MONOSEMANTICITY, Row
from monosem.results.stats import Crossing, crossing, rank_correlation, ranks, residual_ranks
from monosem.results.table import Line, Table
from monosem.running import run_folder

CLAIM = Claim(measure="class_consistency", curves=("label_noise",), controls=("l0",), draws=300)
DRAW = np.random.default_rng(0)


def table(lines, seeds=3, repeats=2, noise=1.0, slope=20.0):
    """Encoders of (consistency, l0) a line; robustness is `slope` times the consistency, and noise."""
    draw, rows = np.random.default_rng(1), []
    for number, (consistency, l0) in enumerate(lines):
        for seed in range(seeds):
            swept = (("TopK.k", str(number)), ("Pretrain.seed", str(seed)))
            own = consistency + 0.01 * draw.normal()
            for name, value in (
                ("class_consistency", own),
                ("l0", l0 + 0.1 * draw.normal()),
                ("flat", 1.0),
            ):
                rows.append(
                    Row(
                        "sae", MONOSEMANTICITY, 0.0, 0, name, value, 360, "clean test images", swept
                    )
                )
            robust = 50 + slope * own + noise * draw.normal()
            for severity in (0.0, 0.5, 1.0):
                for repeat in range(repeats):
                    value = robust - 10 * severity + (-1) ** repeat
                    rows.append(
                        Row(
                            "sae",
                            "label_noise",
                            severity,
                            repeat,
                            "top1",
                            value,
                            360,
                            "share",
                            swept,
                        )
                    )
    return Table(rows)


LINES = [(0.1 * i, float((7 * i) % 10)) for i in range(10)]


# ------------------------------------------------------------------------------------------------ correlations


@pytest.mark.parametrize("n", [4, 30, 700])
def test_rank_correlation_equals_scipy_s_with_ties(n):
    x, y = DRAW.integers(0, 9, n).astype(float), DRAW.normal(size=n)
    assert np.array_equal(ranks(x), scipy.stats.rankdata(x))
    assert float(rank_correlation(x, y)) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)


def test_resamples_by_their_counts_are_the_resamples_themselves():
    x, y, given = DRAW.normal(size=20), DRAW.integers(0, 5, 20), DRAW.normal(size=(2, 20))
    lots = DRAW.integers(20, size=(6, 25))
    counts = np.stack([np.bincount(lot, minlength=20) for lot in lots])
    for held in (None, given):
        one_by_one = [
            float(rank_correlation(x[lot], y[lot], None if held is None else held[:, lot]))
            for lot in lots
        ]
        assert rank_correlation(x, y, held, counts).tolist() == pytest.approx(one_by_one)


def test_partial_rank_correlation_is_that_of_the_residuals_of_ranks():
    z, x, y = np.random.default_rng(2).normal(size=(3, 400))
    x, y = z + x, z + y
    rx, ry, rz = (scipy.stats.rankdata(each) for each in (x, y, z))
    left = [each - np.polyval(np.polyfit(rz, each, 1), rz) for each in (rx, ry)]
    assert float(rank_correlation(x, y, z[None])) == pytest.approx(
        scipy.stats.pearsonr(*left).statistic
    )
    assert float(rank_correlation(x, y)) > 0.4 and abs(float(rank_correlation(x, y, z[None]))) < 0.1


def test_nothing_is_told_of_what_does_not_vary_or_is_held_equal_to_itself():
    x = DRAW.normal(size=9)
    assert np.isnan(rank_correlation(x, np.ones(9))) and np.isnan(
        rank_correlation(x, DRAW.normal(size=9), x[None])
    )
    assert not residual_ranks(x, np.stack([x, x])).any()


def test_intervals_are_over_lines_so_seeds_that_agree_make_them_no_narrower():
    x = np.linspace(0, 1, 12)
    y = x + 0.5 * np.random.default_rng(3).normal(size=12)
    single = correlate([Line("a", (("k", str(i)),)) for i in range(12)], x, y)
    tripled = correlate(
        [Line("a", (("k", str(i)),)) for i in range(12) for _ in range(3)], x.repeat(3), y.repeat(3)
    )
    assert single.value == pytest.approx(tripled.value) and single.low < single.value < single.high
    assert tripled.high - tripled.low == pytest.approx(single.high - single.low, abs=0.05)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    hits, rho = 0, 0.5
    truth = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's of a bivariate normal
    lines = [Line("a", (("k", str(i)),)) for i in range(40)]
    for trial in range(120):
        x, e = np.random.default_rng(trial).normal(size=(2, 40))
        found = correlate(lines, x, rho * x + (1 - rho**2) ** 0.5 * e, draws=300)
        hits += found.low <= truth <= found.high
    assert 0.86 <= hits / 120 <= 1


# ------------------------------------------------------------------------------------------------ from a table


def test_every_encoder_is_one_point_its_robustness_the_mean_area_over_repeats():
    seen = encoder_points(table(LINES, noise=0.0), ("label_noise",))
    assert len(seen.lines) == 30 and len(set(seen.lines)) == 10
    assert seen.robustness["label_noise"] == pytest.approx(
        45 + 20 * seen.metrics["class_consistency"]
    )
    assert seen.clean["label_noise"] == pytest.approx(50 + 20 * seen.metrics["class_consistency"])


def test_an_encoder_that_lacks_a_number_is_left_out():
    whole = table(LINES)
    first = ("TopK.k", "0"), ("Pretrain.seed", "0")
    less = Table([row for row in whole.rows if row.swept != first or row.metric != "l0"])
    assert len(encoder_points(less, ("label_noise",)).lines) == 29


def test_what_was_put_in_comes_out_and_a_control_that_explains_it_takes_it_away():
    plain = correlation_report(table(LINES), CLAIM).text
    assert (
        "class_consistency, 30 encoders on 10 lines" in plain
        and "training seed held equal" in plain
        and "| label_noise" in plain
        and "+0.9" in plain
    )
    explained = table([(0.1 * i, float(i)) for i in range(10)], noise=0.3)
    _, lines, ((raw, held, clean, seed, _),) = correlation_report(explained, CLAIM)
    assert (raw.held, held.held, clean.held) == ("nothing", "l0", "clean accuracy") and len(
        lines
    ) == 30
    assert raw.correlation.value > 0.9 > 0.75 > held.correlation.value
    assert seed.held == "training seed" and seed.correlation.value > 0.9
    assert (
        str(clean.correlation) == "cannot be told"
    )  # here the area is the clean accuracy less a constant
    assert "flat" not in plain  # what does not vary correlates with nothing


def test_what_seeds_share_is_taken_away_by_holding_them_equal():
    shifted = [row._replace(value=row.value + 60 * int(dict(row.swept)["Pretrain.seed"])) if row.curve == "label_noise" else row
               for row in table(LINES).rows]  # fmt: skip
    ((raw, _, _, seed, _),) = correlation_report(Table(shifted), CLAIM).panels
    assert raw.correlation.value < 0.5 and seed.correlation.value > 0.8


def test_lines_of_one_spec_that_are_alike_are_told_by_holding_the_spec_equal():
    first, second = table([(0.1, 1.0)] * 5, noise=3.0), table([(0.9, 2.0)] * 5, noise=3.0)
    both = Table([*first.rows, *(row._replace(experiment="ncl") for row in second.rows)])
    ((raw, *_, spec),) = correlation_report(both, CLAIM).panels
    assert (
        spec.held == "spec" and raw.correlation.value > 0.6 and abs(spec.correlation.value) < 0.45
    )


def test_encoders_that_have_learned_nothing_are_left_out_of_a_second_table():
    text = correlation_report(
        table(LINES),
        Claim(
            measure="class_consistency",
            curves=("label_noise",),
            controls=(),
            least_clean=60.0,
            draws=100,
        ),
    ).text
    assert (
        "30 encoders on 10 lines" in text
        and "Without those whose clean accuracy is below 60 %" in text
        and "on 5 lines" in text
    )
    assert "Without those" not in correlation_report(table(LINES), CLAIM).text


def test_too_few_encoders_are_said_to_be_too_few(tmp_path):
    few = table(LINES[:1])
    assert (
        "too few" in correlation_report(few, CLAIM).text
        and run_folder.draw_claim(tmp_path, correlation_report(few, CLAIM), CLAIM.measure) == []
    )


def test_the_claim_is_drawn_a_panel_for_each_curve_and_control(tmp_path):
    (path,) = run_folder.draw_claim(tmp_path, correlation_report(table(LINES), CLAIM), CLAIM.measure)
    assert path.name == "claim.png" and imread(path).std() > 0.01


@pytest.mark.parametrize(
    ("binding", "words"),
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
def test_a_claim_about_what_is_not_measured_is_refused(capsys, tmp_path, binding, words):
    out = here(
        capsys,
        "--gin",
        "sweeps/claim.gin",
        "--set",
        binding,
        "--runs",
        tmp_path / "runs",
        "--store",
        tmp_path / "store",
        "--plan",
    )
    assert out.returncode == 2 and words in out.stderr and len(out.stderr.splitlines()) == 1


# ------------------------------------------------------------------------------------------------ crossings


def differences(curve, spread=0.0, seeds=5):
    draw = np.random.default_rng(0)
    return {
        s: {(seed, r): v + spread * draw.normal() for seed in range(seeds) for r in (0, 1)}
        for s, v in curve.items()
    }


def test_a_crossing_is_where_straight_lines_meet_zero():
    assert crossing(differences({0.0: -4.0, 0.2: -1.0, 0.4: 3.0})).at == pytest.approx(0.25)
    assert crossing(differences({0.0: -4.0, 0.2: 0.0, 0.4: 3.0})).at == pytest.approx(
        0.2
    )  # differences in steps of an image are often 0
    assert crossing(differences({0.0: -4.0, 0.2: 0.0, 0.3: 0.0, 0.4: 3.0})).at == pytest.approx(
        0.25
    )
    assert np.isnan(crossing(differences({0.0: 1.0, 0.5: 2.0})).at) and np.isnan(
        crossing(differences({0.0: 1.0, 0.2: 0.0, 0.5: 2.0})).at
    )
    assert np.isnan(crossing({}).at) and np.isnan(crossing(differences({0.1: 1.0})).at)


def test_its_interval_is_wider_where_seeds_differ_more_and_holds_it():
    curve = {0.0: -4.0, 0.2: -1.0, 0.4: 3.0}
    narrow, wide = (crossing(differences(curve, spread)) for spread in (0.1, 1.0))
    assert isinstance(wide, Crossing) and narrow.low <= narrow.at <= narrow.high
    assert narrow.high - narrow.low < wide.high - wide.low
    assert np.isnan(crossing(differences(curve, 1.0, seeds=4)).low)  # too few to draw from
