"""Intervals and tests of repeated measurements, areas under curves, crossings, rank correlations.

Crossed random effects, Holm's correction and the partial rank correlation over weighted resamples
are implemented here because scipy lacks them. Knows samples and arrays, no table and no name but
that of the clean point.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Sample = Mapping[tuple[Any, int], float]  # (seeds, repeat) -> value
Key = float | str  # where on a curve: a severity, or the name of a point
CLEAN = "clean"  # the point where nothing is corrupted, on curves whose points have names

Array = np.ndarray[Any, Any]


class Estimate(NamedTuple):
    """The mean of a sample with its interval and a test.

    mean: in the unit of the values.
    half: half of its 95 % interval, in the same unit; nan where the values have no spread.
    p: two-sided p-value of a mean of 0, in [0, 1]; nan where half is nan.
    seeds: how many trained encoders the mean is over.
    repeats: how many draws of the corruption and of the probe it is over.
    """

    mean: float
    half: float
    p: float
    seeds: int
    repeats: int


def estimate(sample: Sample) -> Estimate:
    """The mean of a sample over seeds and repeats. A repeat is one draw, the same for all seeds.

        value[s, r] = mean + a[s] + b[r] + e[s, r]        a, b and e random with mean 0

    With several seeds and one repeat, or one seed and several repeats, the interval is Student's
    over the several. With several of both there are three intervals: Student's over the means of
    seeds, Student's over the means of repeats, and that of the crossed model. The widest is taken,
    and the largest p: with two or three seeds, the crossed one can be narrow by luck. Repeats that
    some seed lacks are left out.
    """
    return estimate_over([sample])


def estimate_over(samples: Sequence[Sample]) -> Estimate:
    """The mean over samples that differ in a third crossed factor, as in a random rotation.

        value[t, s, r] = mean + c[t] + a[s] + b[r] + ac[t, s] + bc[t, r] + ab[s, r] + e[t, s, r]

    As `estimate`, with Student's interval over the means of the t beside the others. With one
    sample it is that of the sample. Units that some sample lacks are left out.
    """
    units = _complete_units(dict(enumerate(samples)))
    tables = [_complete_table({unit: sample[unit] for unit in units}) for sample in samples]
    seeds = len(tables[0])
    repeats = len(tables[0][0]) if seeds else 0
    if not repeats:
        return Estimate(math.nan, math.nan, math.nan, seeds, 0)
    values = np.array(tables)
    mean = float(values.mean())
    candidates = [
        _student_interval(mean, variance / values.size, freedom)
        for variance, freedom in _variances(_mean_squares(values.squeeze()))
    ]
    intervals = [interval for interval in candidates if interval is not None]
    half = max((interval.half for interval in intervals), default=math.nan)
    p = max((interval.p for interval in intervals), default=math.nan)
    return Estimate(mean, half, p, seeds, repeats)


def _complete_table(sample: Sample) -> list[list[float]]:
    """The values (seeds, repeats) of the repeats that every seed has."""
    seeds = dict.fromkeys(seed for seed, _ in sample)
    every_repeat = dict.fromkeys(repeat for _, repeat in sample)
    repeats = [repeat for repeat in every_repeat if all((seed, repeat) in sample for seed in seeds)]
    return [[sample[seed, repeat] for repeat in repeats] for seed in seeds]


class _MeanSquare(NamedTuple):
    """A sum of squares over its degrees of freedom.

    factors: how many factors it is of: 1 for the means of one, 2 for an interaction of two.
    value: in the unit of the values, squared.
    freedom: its degrees of freedom, above 0.
    """

    factors: int
    value: float
    freedom: int


def _mean_squares(values: Array) -> list[_MeanSquare]:
    """Of a complete table without replication, for every set of its factors.

    The effect of a set is the mean over all other factors, less the effects of its subsets. Its
    degrees of freedom are the product of (levels - 1); a factor of one level has none.
    """
    factors = range(values.ndim)
    sets = [
        chosen
        for size in range(values.ndim + 1)
        for chosen in itertools.combinations(factors, size)
    ]
    effects: dict[tuple[int, ...], Array] = {}
    squares = []
    for chosen in sets:
        others = tuple(factor for factor in factors if factor not in chosen)
        smaller = (effect for subset, effect in effects.items() if set(subset) < set(chosen))
        effects[chosen] = values.mean(others, keepdims=True) - sum(smaller)
        freedom = math.prod(values.shape[factor] - 1 for factor in chosen)
        if chosen and freedom:
            total = np.broadcast_to(effects[chosen] ** 2, values.shape).sum()
            squares.append(_MeanSquare(len(chosen), float(total / freedom), freedom))
    return squares


def _variances(squares: Sequence[_MeanSquare]) -> list[tuple[float, float]]:
    """Estimates of the variance of the mean of n values, times n, with their degrees of freedom.

        over the means of one factor    its MS                                    levels - 1
        crossed                         MS of single factors - MS of pairs + MS of triples
                                                                               Satterthwaite's

    MS: a mean square. The sum has alternating signs as an interaction is in the MS of each of its
    factors, but in the mean once.
    """
    ways = [(square.value, float(square.freedom)) for square in squares if square.factors == 1]
    crossed = sum((-1) ** (square.factors + 1) * square.value for square in squares)
    # A negative variance component counts as 0; the largest mean square is then used alone.
    if len(ways) > 1 and crossed > max(value for value, _ in ways):
        freedom = crossed**2 / sum(square.value**2 / square.freedom for square in squares)
        # Of three factors it may fall below 1, where no variance is estimated at all.
        ways.append((crossed, max(freedom, 1.0)))
    return ways


class _Interval(NamedTuple):
    """Half of a 95 % interval, and the p-value of a mean of 0."""

    half: float
    p: float


def _student_interval(mean: float, variance: float, freedom: float) -> _Interval | None:
    """The 95 % interval of a mean and the two-sided p-value of a mean of 0.

    variance: of the mean.
    freedom: degrees of freedom of the variance.

    No spread, no interval: None where the values do not differ.
    """
    from scipy.special import stdtr, stdtrit  # here, as scipy takes long to import

    error = math.sqrt(variance)
    if error < 1e-12 * max(abs(mean), 1):
        return None
    half = float(stdtrit(freedom, 0.975)) * error
    return _Interval(half, float(2 * stdtr(freedom, -abs(mean) / error)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, 1979); nan stays nan and does not count."""
    tested = [index for index, p in enumerate(p_values) if not math.isnan(p)]
    ascending = sorted(tested, key=lambda index: p_values[index])
    corrected, largest = list(p_values), 0.0
    for rank, index in enumerate(ascending):
        largest = max(largest, min(1.0, (len(ascending) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def is_logarithmic(severities: Sequence[float]) -> bool:
    """Whether an axis is better read on a logarithmic scale, for example numbers of shots."""
    return min(severities) > 0 and max(severities) >= 20 * min(severities)


def area(curve: Mapping[float, float]) -> float:
    """The area under a curve {severity: value}, divided by its width, by the trapezoid rule.

    On a logarithmic axis where `is_logarithmic` says so. It is a mean over severities, in the unit
    of the values; nan for a single point.
    """
    severities = sorted(curve)
    positions = [math.log(s) for s in severities] if is_logarithmic(severities) else severities
    heights = [curve[severity] for severity in severities]
    trapezoids = [
        (right - left) * ((left_height + right_height) / 2)
        for (left, right), (left_height, right_height) in zip(
            itertools.pairwise(positions), itertools.pairwise(heights), strict=True
        )
    ]
    return sum(trapezoids) / (positions[-1] - positions[0]) if trapezoids else math.nan


def areas(samples: Mapping[Key, Sample]) -> Sample:
    """The area under the curve of each (seeds, repeat) that is present at every severity.

    Empty for a single severity. The area of differences is the difference of areas. Names have no
    distances: of named points it is the plain mean over those other than the clean one.
    """
    severities, names = severities_only(samples), names_only(samples)
    if names:
        return mean_sample([sample for name, sample in names.items() if name != CLEAN])
    if len(severities) < 2:
        return {}
    return {
        unit: area({severity: sample[unit] for severity, sample in severities.items()})
        for unit in _complete_units(severities)
    }


def severities_only(samples: Mapping[Key, Sample]) -> dict[float, Sample]:
    """Those whose key is a severity."""
    return {key: sample for key, sample in samples.items() if not isinstance(key, str)}


def names_only(samples: Mapping[Key, Sample]) -> dict[str, Sample]:
    """Those whose key is the name of a point."""
    return {key: sample for key, sample in samples.items() if isinstance(key, str)}


def mean_sample(samples: Sequence[Sample]) -> Sample:
    """The mean of several samples for each (seeds, repeat) that is present in all of them."""
    units = _complete_units(dict(enumerate(samples)))
    return {unit: sum(sample[unit] for sample in samples) / len(samples) for unit in units}


def _complete_units(samples: Mapping[float, Sample]) -> list[tuple[Any, int]]:
    """The (seeds, repeat) that are present at every severity."""
    first = next(iter(samples.values()), {})
    return [unit for unit in first if all(unit in sample for sample in samples.values())]


class Crossing(NamedTuple):
    """Where a difference changes its sign.

    at: the severity; nan where there is no change of sign.
    low: of its 95 % percentile bootstrap interval; nan where there is none.
    high: of the same interval.
    """

    at: float
    low: float
    high: float


MIN_UNITS = 5  # seeds or repeats; with fewer there is no bootstrap interval


def crossing(differences: Mapping[float, Sample], draws: int = 1000) -> Crossing:
    """Where the mean of paired differences first changes its sign.

    Differences are linearly interpolated between severities. The bootstrap draws seeds, or repeats
    where there is one seed. Draws without a crossing are left out. There is no interval with fewer
    than 5 seeds or repeats, or if half of the draws have no crossing.
    """
    severities = np.array(sorted(differences))
    curves = _curve_of_units(differences)
    units = len(curves)
    if len(severities) < 2 or not units:
        return Crossing(math.nan, math.nan, math.nan)
    resamples = np.random.default_rng(0).integers(units, size=(draws, units))
    resampled_curves = curves[resamples].mean(1)
    crossings = np.array([_sign_change(severities, curve) for curve in resampled_curves])
    low, high = percentile_interval(crossings) if units >= MIN_UNITS else (math.nan, math.nan)
    return Crossing(_sign_change(severities, curves.mean(0)), low, high)


def _curve_of_units(differences: Mapping[float, Sample]) -> Array:
    """(units, severities): the mean curve of each seed, or of each repeat of the only seed."""
    complete = _complete_units(differences)
    several_seeds = len({seeds for seeds, _ in complete}) > 1
    part = 0 if several_seeds else 1
    members: dict[Any, list[tuple[Any, int]]] = {}
    for unit in complete:
        members.setdefault(unit[part], []).append(unit)
    curves = []
    for units in members.values():
        values = [
            [differences[severity][unit] for unit in units] for severity in sorted(differences)
        ]
        curves.append([np.mean(row) for row in values])
    return np.array(curves)


def percentile_interval(draws: Array) -> tuple[float, float]:
    """The 95 % interval of the bootstrap draws that are not nan; nan where half or more are nan."""
    valid = draws[~np.isnan(draws)]
    if len(valid) <= len(draws) / 2:
        return math.nan, math.nan
    low, high = np.percentile(valid, [2.5, 97.5])
    return float(low), float(high)


def _sign_change(x: Array, y: Array) -> float:
    """Where y, linearly interpolated between x, first changes its sign; nan where it does not.

    It changes in the middle of a stretch of zeros.
    """
    nonzero = [index for index in range(len(x)) if y[index] != 0]
    for i, j in itertools.pairwise(nonzero):
        if y[i] * y[j] < 0:
            if j > i + 1:
                return float((x[i + 1] + x[j - 1]) / 2)
            return float(x[i] + (x[j] - x[i]) * y[i] / (y[i] - y[j]))
    return math.nan


def rank_correlation(
    x: Array, y: Array, given: Array | None = None, counts: Array | None = None
) -> Array:
    """Spearman's rank correlation of x (n,) and y (n,), in [-1, 1].

    nan where one of them does not vary, or where `given` explains all of it.

    given: (c, n), what is held equal: the part of both ranks that is linear in its ranks is
        subtracted first (the partial rank correlation).
    counts: (draws, n), how often each of the n is taken in each of several resamples; then there is
        one correlation for each draw.
    """
    x_ranks, y_ranks = residual_ranks(x, given, counts), residual_ranks(y, given, counts)
    weights = 1.0 if counts is None else counts
    products = (weights * x_ranks * y_ranks).sum(-1)
    sizes = np.sqrt((weights * x_ranks * x_ranks).sum(-1) * (weights * y_ranks * y_ranks).sum(-1))
    unknown = np.full(np.shape(products), math.nan)
    return np.divide(products, sizes, out=unknown, where=sizes > 0).clip(-1, 1)


def residual_ranks(x: Array, given: Array | None = None, counts: Array | None = None) -> Array:
    """The ranks minus their mean and minus what is linear in the ranks of `given`.

        x        (n,)             given    (c, n)
        counts   (draws, n)       result   (n,), or (draws, n) where there are counts

    Exactly 0 where nothing is left.
    """
    weights = np.ones(np.shape(x)) if counts is None else counts
    centred_ranks = _centred(ranks(x, counts), weights)
    residuals = centred_ranks
    if given is not None:
        given_ranks = [_centred(ranks(row, counts), weights) for row in given]
        residuals = _residuals(centred_ranks, np.stack(given_ranks, -2), weights)
    norms = np.linalg.norm(residuals, axis=-1, keepdims=True)
    own_norms = np.linalg.norm(centred_ranks, axis=-1, keepdims=True)
    return np.where(norms > 1e-9 * own_norms, residuals, 0.0)


def _residuals(y: Array, x: Array, weights: Array) -> Array:
    """The residuals (..., n) of a weighted least-squares fit.

    y        (..., n)        x    (..., c, n)
    weights  (..., n)
    """
    transposed = x.swapaxes(-1, -2)
    gram = (x * weights[..., None, :]) @ transposed  # (..., c, c)
    inverse = np.linalg.pinv(gram, rcond=1e-12, hermitian=True)
    fitted = (y * weights)[..., None, :] @ transposed @ inverse @ x  # (..., 1, n)
    return y - fitted[..., 0, :]


def _centred(values: Array, weights: Array) -> Array:
    """The values minus their weighted mean; exactly 0 where they do not vary."""
    means = (values * weights).sum(-1, keepdims=True) / weights.sum(-1, keepdims=True)
    deviations = values - means
    largest = (np.abs(deviations) * (weights > 0)).max(-1, keepdims=True)
    return np.where(largest > 1e-9, deviations, 0.0)  # ranks differ by halves at least


def ranks(x: Array, counts: Array | None = None) -> Array:
    """The ranks of x (n,), from 1 on; equal values share the mean of their ranks.

    counts: (draws, n), how often each is taken; then the ranks in every draw, (draws, n).
    """
    x = np.asarray(x, dtype=float)
    if counts is None:
        _, place, ties = np.unique(x, return_inverse=True, return_counts=True)
        return (ties.cumsum() - (ties - 1) / 2)[place]
    smaller = counts @ np.less(x, x[:, None]).T
    equal = counts @ np.equal(x, x[:, None]).T
    return smaller + (equal + 1) / 2
