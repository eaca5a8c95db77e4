"""Intervals, tests and areas against scipy, simulation and plain sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from monosem.results.stats import area, estimate, holm, is_logarithmic


def sample(values, seed="s"):
    return {(seed, repeat): value for repeat, value in enumerate(values)}


@pytest.mark.parametrize("values", [[1.0, 2.0], [97.1, 97.3, 96.9, 97.4, 97.0], [-3.0, 0.5, 2.0]])
@pytest.mark.parametrize("over", ["repeats", "seeds"])
def test_over_one_thing_alone_the_interval_and_the_p_value_are_student_s(values, over):
    point = estimate(
        sample(values)
        if over == "repeats"
        else {(seed, 0): value for seed, value in enumerate(values)}
    )
    low, high = stats.t.interval(
        0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values)
    )
    assert (point.mean - point.half, point.mean + point.half) == pytest.approx((low, high))
    assert point.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert (point.seeds, point.repeats) == (
        (1, len(values)) if over == "repeats" else (len(values), 1)
    )


def test_a_single_value_has_neither_interval_nor_p_value():
    point = estimate(sample([97.0]))
    assert point.mean == 97 and math.isnan(point.half) and math.isnan(point.p)


def test_values_that_do_not_differ_have_neither_interval_nor_p_value():
    point = estimate(
        {(seed, repeat): 1.9444444444444429 for seed in range(3) for repeat in range(5)}
    )
    assert (
        point.mean == pytest.approx(1.9444444444) and math.isnan(point.half) and math.isnan(point.p)
    )


def draws(random, seeds, repeats, seed_spread, repeat_spread, rest):
    table = (
        seed_spread * random.standard_normal((seeds, 1))
        + repeat_spread * random.standard_normal((1, repeats))
        + rest * random.standard_normal((seeds, repeats))
    )
    return {
        (seed, repeat): table[seed, repeat] for seed in range(seeds) for repeat in range(repeats)
    }


@pytest.mark.parametrize(
    "spreads",
    [
        (1.0, 1.0, 1.0),
        (2.0, 0.2, 0.5),
        (0.2, 2.0, 0.5),
        (0.0, 0.0, 1.0),
        (1.0, 0.0, 1.0),
        (3.0, 1.0, 0.3),
    ],
)
@pytest.mark.parametrize("size", [(2, 5), (3, 5), (5, 5), (4, 3), (5, 2)])
def test_with_seeds_and_repeats_crossed_the_interval_covers_the_truth_at_least_as_often_as_it_says(
    size, spreads
):
    random, rounds = np.random.default_rng(0), 2000
    covered = sum(
        abs((point := estimate(draws(random, *size, *spreads))).mean) <= point.half
        for _ in range(rounds)
    )
    assert covered / rounds > 0.935  # three standard errors below 0.95
    assert (
        covered / rounds < 0.995 or 2 in size
    )  # with two of something Student's t has one degree of freedom, and is wide


def test_the_interval_is_wider_than_that_of_seeds_and_repeats_thrown_together():
    together = draws(np.random.default_rng(1), 3, 5, 2.0, 0.2, 0.5)
    assert estimate(together).half > 2 * estimate(sample(list(together.values()))).half


def test_where_seeds_and_repeats_explain_next_to_nothing_the_interval_is_that_of_one_of_them():
    """The crossed variance is then close to 0 with hardly any degree of freedom, whose t would be in the hundreds."""
    values = {
        (0, 0): 1.0,
        (0, 1): 2.0,
        (1, 0): 2.1,
        (1, 1): 1.0,
        (2, 0): 1.4,
        (2, 1): 1.7,
        (0, 2): 1.4,
        (1, 2): 1.6,
        (2, 2): 1.3,
    }
    means = {
        "seeds": [np.mean([values[s, r] for r in range(3)]) for s in range(3)],
        "repeats": [np.mean([values[s, r] for s in range(3)]) for r in range(3)],
    }
    widest = max(stats.t.ppf(0.975, 2) * stats.sem(some) for some in means.values())
    assert estimate(values).half == pytest.approx(widest)


def test_the_p_value_and_the_interval_agree():
    random = np.random.default_rng(2)
    for shift in (0.0, 0.5, 1.0, 2.0, 4.0):
        point = estimate(
            {each: value + shift for each, value in draws(random, 3, 5, 0.5, 0.5, 0.5).items()}
        )
        assert (point.p < 0.05) == (abs(point.mean) > point.half)


def test_repeats_that_some_seed_lacks_are_left_out():
    point = estimate({("a", 0): 1.0, ("a", 1): 2.0, ("b", 0): 3.0, ("b", 2): 100.0})
    assert (point.mean, point.seeds, point.repeats) == (2.0, 2, 1)


def test_holm_is_holm():
    assert holm([0.01, 0.04, 0.03, math.nan]) == pytest.approx(
        [0.03, 0.06, 0.06, math.nan], nan_ok=True
    )
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_the_area_is_that_of_trapezoids_on_the_scale_of_the_figure():
    line = {0.0: 90.0, 0.1: 80.0, 0.9: 10.0}
    assert area(line) == pytest.approx((0.1 * 85 + 0.8 * 45) / 0.9)
    shots = {1: 50.0, 10: 80.0, 50: 90.0}
    assert (
        is_logarithmic([1, 10, 50])
        and not is_logarithmic([0.0, 1.0])
        and not is_logarithmic([1, 10])
    )
    assert area(shots) == pytest.approx((math.log(10) * 65 + math.log(5) * 85) / math.log(50))
    assert math.isnan(area({0.5: 3.0})) and area(dict(reversed(line.items()))) == area(line)
