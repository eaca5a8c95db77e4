"""Intervals, tests, areas, crossings and ranks against scipy, simulation and plain sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from monosem.results.stats import (
    area,
    areas,
    crossing,
    estimate,
    estimate_over,
    holm,
    is_logarithmic,
    rank_correlation,
    ranks,
    residual_ranks,
)

# Estimates


def over_repeats(values):
    return {("s", repeat): value for repeat, value in enumerate(values)}


def over_seeds(values):
    return {(seed, 0): value for seed, value in enumerate(values)}


def crossed(random, seeds, repeats, seed_spread, repeat_spread, rest):
    """A sample about 0 with effects of seeds and of repeats."""
    values = (
        seed_spread * random.standard_normal((seeds, 1))
        + repeat_spread * random.standard_normal((1, repeats))
        + rest * random.standard_normal((seeds, repeats))
    )
    return {
        (seed, repeat): values[seed, repeat] for seed in range(seeds) for repeat in range(repeats)
    }


@pytest.mark.parametrize("values", [[1.0, 2.0], [97.1, 97.3, 96.9, 97.4, 97.0], [-3.0, 0.5, 2.0]])
@pytest.mark.parametrize("sample_of", [over_repeats, over_seeds])
def test_over_one_thing_alone_the_interval_and_the_p_value_are_student_s(values, sample_of):
    point = estimate(sample_of(values))
    low, high = scipy.stats.t.interval(
        0.95, len(values) - 1, loc=np.mean(values), scale=scipy.stats.sem(values)
    )
    assert (point.mean - point.half, point.mean + point.half) == pytest.approx((low, high))
    assert point.p == pytest.approx(scipy.stats.ttest_1samp(values, 0).pvalue)


def test_it_says_over_how_many_seeds_and_repeats_it_is():
    assert estimate(over_repeats([1.0, 2.0, 3.0]))[3:] == (1, 3)
    assert estimate(over_seeds([1.0, 2.0, 3.0]))[3:] == (3, 1)


def test_a_single_value_has_neither_interval_nor_p_value():
    point = estimate(over_repeats([97.0]))
    assert point.mean == 97
    assert math.isnan(point.half)
    assert math.isnan(point.p)


def test_values_that_do_not_differ_have_neither_interval_nor_p_value():
    value = 1.9444444444444429  # whose mean over 15 is rounded
    point = estimate({(seed, repeat): value for seed in range(3) for repeat in range(5)})
    assert point.mean == pytest.approx(1.9444444444)
    assert math.isnan(point.half)
    assert math.isnan(point.p)


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
    covered = 0
    for _ in range(rounds):
        point = estimate(crossed(random, *size, *spreads))
        covered += abs(point.mean) <= point.half
    assert covered / rounds > 0.935  # three standard errors below 0.95
    # With two of something Student's t has one degree of freedom, and is wide.
    assert covered / rounds < 0.995 or 2 in size


def test_the_interval_is_wider_than_that_of_seeds_and_repeats_thrown_together():
    sample = crossed(np.random.default_rng(1), 3, 5, 2.0, 0.2, 0.5)
    assert estimate(sample).half > 2 * estimate(over_repeats(sample.values())).half


def test_where_seeds_and_repeats_explain_next_to_nothing_the_interval_is_that_of_one_of_them():
    """The crossed variance is then close to 0 with hardly any degree of freedom.

    Its t would be in the hundreds.
    """
    values = np.array([[1.0, 2.0, 1.4], [2.1, 1.0, 1.6], [1.4, 1.7, 1.3]])
    sample = {(seed, repeat): values[seed, repeat] for seed in range(3) for repeat in range(3)}
    errors = [scipy.stats.sem(values.mean(axis)) for axis in (0, 1)]
    assert estimate(sample).half == pytest.approx(scipy.stats.t.ppf(0.975, 2) * max(errors))


def test_where_both_differ_the_interval_is_that_of_the_crossed_model_by_hand():
    values = np.array([[10.0, 13.0, 11.5, 12.0], [14.0, 17.5, 15.0, 16.5], [7.0, 10.5, 9.0, 9.5]])
    s, r = values.shape
    grand, rows, columns = values.mean(), values.mean(1, keepdims=True), values.mean(0)
    ms_seeds = r * ((rows - grand) ** 2).sum() / (s - 1)
    ms_repeats = s * ((columns - grand) ** 2).sum() / (r - 1)
    ms_rest = ((values - rows - columns + grand) ** 2).sum() / ((s - 1) * (r - 1))
    variance = ms_seeds + ms_repeats - ms_rest
    freedom = variance**2 / (
        ms_seeds**2 / (s - 1) + ms_repeats**2 / (r - 1) + ms_rest**2 / ((s - 1) * (r - 1))
    )
    halves = [
        scipy.stats.t.ppf(0.975, degrees) * math.sqrt(square / (s * r))
        for square, degrees in ((ms_seeds, s - 1), (ms_repeats, r - 1), (variance, freedom))
    ]
    sample = {(seed, repeat): values[seed, repeat] for seed in range(s) for repeat in range(r)}
    assert estimate(sample).mean == pytest.approx(grand)
    assert estimate(sample).half == pytest.approx(max(halves))


def test_the_p_value_and_the_interval_agree():
    random = np.random.default_rng(2)
    for shift in (0.0, 0.5, 1.0, 2.0, 4.0):
        sample = crossed(random, 3, 5, 0.5, 0.5, 0.5)
        point = estimate({unit: value + shift for unit, value in sample.items()})
        assert (point.p < 0.05) == (abs(point.mean) > point.half)


def test_repeats_that_some_seed_lacks_are_left_out():
    point = estimate({("a", 0): 1.0, ("a", 1): 2.0, ("b", 0): 3.0, ("b", 2): 100.0})
    assert (point.mean, point.seeds, point.repeats) == (2.0, 2, 1)


def test_holm_is_holm():
    corrected = holm([0.01, 0.04, 0.03, math.nan])
    assert corrected == pytest.approx([0.03, 0.06, 0.06, math.nan], nan_ok=True)
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


# Areas


def test_the_area_is_that_of_trapezoids():
    curve = {0.0: 90.0, 0.1: 80.0, 0.9: 10.0}
    assert area(curve) == pytest.approx((0.1 * 85 + 0.8 * 45) / 0.9)
    assert area(dict(reversed(curve.items()))) == area(curve)
    assert math.isnan(area({0.5: 3.0}))


def test_the_area_is_on_the_scale_of_the_figure():
    assert is_logarithmic([1, 10, 50])
    assert not is_logarithmic([0.0, 1.0])
    assert not is_logarithmic([1, 10])
    shots = {1: 50.0, 10: 80.0, 50: 90.0}
    assert area(shots) == pytest.approx((math.log(10) * 65 + math.log(5) * 85) / math.log(50))


def test_areas_are_of_the_units_that_are_there_at_every_severity():
    samples = {0.0: {("s", 0): 4.0, ("s", 1): 2.0}, 1.0: {("s", 0): 2.0}}
    assert areas(samples) == {("s", 0): 3.0}
    assert areas({0.0: {("s", 0): 4.0}}) == {}


# Crossings


def differences(curve, spread=0.0, seeds=5):
    random = np.random.default_rng(0)
    units = [(seed, repeat) for seed in range(seeds) for repeat in (0, 1)]
    samples = {}
    for severity, value in curve.items():
        samples[severity] = {unit: value + spread * random.normal() for unit in units}
    return samples


@pytest.mark.parametrize(
    ("curve", "at"),
    [
        ({0.0: -4.0, 0.2: -1.0, 0.4: 3.0}, 0.25),
        ({0.0: -4.0, 0.2: 0.0, 0.4: 3.0}, 0.2),  # differences in steps of an image are often 0
        ({0.0: -4.0, 0.2: 0.0, 0.3: 0.0, 0.4: 3.0}, 0.25),
    ],
)
def test_a_crossing_is_where_straight_lines_meet_zero(curve, at):
    assert crossing(differences(curve)).at == pytest.approx(at)


@pytest.mark.parametrize(
    "curve", [{}, {0.1: 1.0}, {0.0: 1.0, 0.5: 2.0}, {0.0: 1.0, 0.2: 0.0, 0.5: 2.0}]
)
def test_without_a_change_of_sign_there_is_no_crossing(curve):
    assert math.isnan(crossing(differences(curve)).at)


def test_the_interval_of_a_crossing_is_wider_where_seeds_differ_more_and_holds_it():
    curve = {0.0: -4.0, 0.2: -1.0, 0.4: 3.0}
    narrow, wide = crossing(differences(curve, 0.1)), crossing(differences(curve, 1.0))
    assert narrow.low <= narrow.at <= narrow.high
    assert narrow.high - narrow.low < wide.high - wide.low


def test_a_crossing_of_too_few_seeds_has_no_interval():
    few = crossing(differences({0.0: -4.0, 0.2: -1.0, 0.4: 3.0}, 1.0, seeds=4))
    assert math.isnan(few.low)
    assert math.isnan(few.high)


# Ranks


@pytest.mark.parametrize("n", [4, 30, 700])
def test_rank_correlation_equals_scipy_s_with_ties(n):
    random = np.random.default_rng(n)
    x, y = random.integers(0, 9, n).astype(float), random.normal(size=n)
    assert np.array_equal(ranks(x), scipy.stats.rankdata(x))
    assert float(rank_correlation(x, y)) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)


@pytest.mark.parametrize("controls", [0, 2])
def test_resamples_by_their_counts_are_the_resamples_themselves(controls):
    random = np.random.default_rng(0)
    x, y = random.normal(size=20), random.integers(0, 5, 20)
    given = random.normal(size=(controls, 20)) if controls else None
    resamples = random.integers(20, size=(6, 25))
    one_by_one = []
    for resample in resamples:
        held = None if given is None else given[:, resample]
        one_by_one.append(float(rank_correlation(x[resample], y[resample], held)))
    counts = np.stack([np.bincount(resample, minlength=20) for resample in resamples])
    assert rank_correlation(x, y, given, counts).tolist() == pytest.approx(one_by_one)


def test_partial_rank_correlation_is_that_of_the_residuals_of_ranks():
    z, x, y = np.random.default_rng(2).normal(size=(3, 400))
    x, y = z + x, z + y
    z_ranks = scipy.stats.rankdata(z)
    residuals = []
    for variable in (x, y):
        own_ranks = scipy.stats.rankdata(variable)
        fit = np.polyfit(z_ranks, own_ranks, 1)
        residuals.append(own_ranks - np.polyval(fit, z_ranks))
    partial = float(rank_correlation(x, y, z[None]))
    assert partial == pytest.approx(scipy.stats.pearsonr(*residuals).statistic)
    assert abs(partial) < 0.1
    assert float(rank_correlation(x, y)) > 0.4


def test_nothing_is_told_of_what_does_not_vary_or_is_held_equal_to_itself():
    x, y = np.random.default_rng(0).normal(size=(2, 9))
    assert np.isnan(rank_correlation(x, np.ones(9)))
    assert np.isnan(rank_correlation(x, y, x[None]))
    assert not residual_ranks(x, np.stack([x, x])).any()


# A third crossed factor


def test_one_sample_is_estimated_as_ever_and_alike_samples_as_one():
    sample = {(seed, repeat): seed + 0.3 * repeat**2 for seed in range(3) for repeat in range(4)}
    assert estimate_over([sample]) == estimate(sample)
    assert estimate_over([sample] * 3) == estimate(sample)


def test_a_single_unit_has_student_s_interval_over_the_third_factor():
    samples = [{(("0",), 0): value} for value in (1.0, 2.0, 4.5)]
    expected = scipy.stats.ttest_1samp([1.0, 2.0, 4.5], 0)
    found = estimate_over(samples)
    assert found.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.95)
    assert found.half == pytest.approx((high - low) / 2)


def third_factor(random, size, spreads):
    """Samples about 0 with effects of three factors and of the pair of the first two.

    spreads: of each factor, of the pair, and of the rest.
    """
    t, s, r = size
    shapes = [(t, 1, 1), (s, 1), (r,), (t, s, 1), size]
    effects = [
        spread * random.standard_normal(shape)
        for spread, shape in zip(spreads, shapes, strict=True)
    ]
    units = list(np.ndindex(s, r))
    return [{(("s", str(i)), j): float(one[i, j]) for i, j in units} for one in sum(effects)]


@pytest.mark.parametrize(
    "spreads",
    [
        (1, 0, 0, 0, 0.3),
        (0.5, 0.5, 0.5, 0, 0.3),
        (0, 1, 0.2, 0, 0.3),
        (0, 0, 0, 1, 0.3),
        (0, 0, 0, 0, 1.0),
    ],
    ids=str,
)
def test_intervals_over_a_third_crossed_factor_hold_the_truth_and_stay_finite(spreads):
    """With three rotations, five seeds and three draws: at least 19 in 20, and none is absurd.

    The pair is that of rotation and seed: another rotation is another one for every encoder. Where
    nothing but the rest differs, the variance of any factor is the difference of small numbers.
    """
    random, halves, held = np.random.default_rng(0), [], 0
    for _ in range(300):
        found = estimate_over(third_factor(random, (3, 5, 3), spreads))
        held += abs(found.mean) <= found.half
        halves.append(found.half)
    assert held >= 0.93 * 300
    assert max(halves) < 12 * np.median(halves)


def test_of_three_factors_the_interval_is_that_of_the_crossed_model_by_hand():
    values = np.add.outer(np.add.outer([0.0, 4.0], [0.0, 3.0, 5.0]), [0.0, 2.0, 7.0])
    values[1, 2, 0] += 1.5
    _, s, r = values.shape
    grand = values.mean()

    def spread_of(*kept):
        others = tuple(axis for axis in range(3) if axis not in kept)
        return values.mean(others, keepdims=True)

    def square(part, freedom):
        return (np.broadcast_to(part, values.shape) ** 2).sum() / freedom

    of_t, of_s, of_r = (spread_of(axis) - grand for axis in range(3))
    ts = spread_of(0, 1) - grand - of_t - of_s
    tr = spread_of(0, 2) - grand - of_t - of_r
    sr = spread_of(1, 2) - grand - of_s - of_r
    rest = values - grand - of_t - of_s - of_r - ts - tr - sr
    parts = [(1, of_t, 1), (1, of_s, 2), (1, of_r, 2), (-1, ts, 2), (-1, tr, 2), (-1, sr, 4)]
    squares = [(sign, square(part, n), n) for sign, part, n in [*parts, (1, rest, 4)]]
    variance = sum(sign * value for sign, value, _ in squares)
    freedom = variance**2 / sum(value**2 / n for _, value, n in squares)
    variances = [(value, n) for _, value, n in squares[:3]] + [(variance, freedom)]
    expected = max(
        scipy.stats.t.ppf(0.975, n) * math.sqrt(value / values.size) for value, n in variances
    )
    samples = [{(i, j): one[i, j] for i in range(s) for j in range(r)} for one in values]
    assert estimate_over(samples).half == pytest.approx(expected)
    assert estimate_over(samples).mean == pytest.approx(grand)
