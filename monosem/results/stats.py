"""What repeated measurements say: means with intervals over seeds and draws, tests of paired differences, areas under curves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Sample = Mapping[tuple[Any, int], float]  # (seed, repeat) -> value


Array = np.ndarray[Any, Any]


class Estimate(NamedTuple):
    """A mean, half of its 95 % interval and the two-sided p-value of its being 0, over so many seeds (trained encoders) and repeats
    (draws of the corruption and of the probe). half and p are nan where there is no spread to tell from."""

    mean: float
    half: float
    p: float
    seeds: int
    repeats: int


def estimate(sample: Sample) -> Estimate:
    """The mean of a sample over seeds and repeats, each repeat being one draw that all seeds meet.

    With several of one only: Student's t over those. With several of both, value = mean + a[seed] + b[repeat] + e[seed, repeat],
    all random: the variance of the mean is (MS_seeds + MS_repeats - MS_rest) / (seeds * repeats) with Satterthwaite's (1946)
    degrees of freedom; but the interval is never narrower, nor p smaller, than Student's over the means of seeds or those of
    repeats, as with two or three seeds that variance can come out small by luck. Repeats that some seed lacks are left out.
    """
    seeds = list(dict.fromkeys(seed for seed, _ in sample))
    repeats = [
        r
        for r in dict.fromkeys(repeat for _, repeat in sample)
        if all((seed, r) in sample for seed in seeds)
    ]
    table = [[sample[seed, repeat] for repeat in repeats] for seed in seeds]
    s, r = len(seeds), len(repeats)
    if not r:
        return Estimate(math.nan, math.nan, math.nan, s, 0)
    mean = sum(map(sum, table)) / (s * r)
    rows = [sum(row) / r for row in table]
    columns = [sum(column) / s for column in zip(*table, strict=True)]
    by_seed = _Square(r * sum((m - mean) ** 2 for m in rows), s - 1)
    by_repeat = _Square(s * sum((m - mean) ** 2 for m in columns), r - 1)
    rest = sum(
        (value - row - column + mean) ** 2
        for each, row in zip(table, rows, strict=True)
        for value, column in zip(each, columns, strict=True)
    )
    variances = [(square.mean, square.freedom) for square in (by_seed, by_repeat) if square.freedom]
    if len(variances) == 2:
        within = _Square(rest, (s - 1) * (r - 1))
        squares = (by_seed, by_repeat, within)
        spread = by_seed.mean + by_repeat.mean - within.mean
        if spread > max(
            by_seed.mean, by_repeat.mean
        ):  # else a component's estimate is negative, that is none, and one of the two says it all
            variances.append(
                (spread, spread**2 / sum(square.mean**2 / square.freedom for square in squares))
            )
    ways = [_student(mean, variance / (s * r), freedom) for variance, freedom in variances]
    told = [(half, p) for half, p in ways if not math.isnan(p)] or [(math.nan, math.nan)]
    return Estimate(mean, max(half for half, _ in told), max(p for _, p in told), s, r)


class _Square(NamedTuple):
    """A sum of squares and its degrees of freedom."""

    total: float
    freedom: float

    @property
    def mean(self) -> float:
        return self.total / self.freedom


def _student(mean: float, variance: float, freedom: float) -> tuple[float, float]:
    """Half of the 95 % interval of a mean with that variance, and the two-sided p-value of its being 0."""
    from scipy.special import stdtr, stdtrit

    error = math.sqrt(variance)
    if error < 1e-12 * max(abs(mean), 1):  # what does not differ says nothing of how it would
        return math.nan, math.nan
    return float(stdtrit(freedom, 0.975)) * error, float(2 * stdtr(freedom, -abs(mean) / error))


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, 1979); nan stays nan and does not count."""
    order = sorted(
        (number for number, p in enumerate(ps) if not math.isnan(p)), key=lambda number: ps[number]
    )
    corrected, largest = list(ps), 0.0
    for rank, number in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * ps[number]))
        corrected[number] = largest
    return corrected


def logarithmic(severities: Sequence[float]) -> bool:
    """Whether an axis is better read on a logarithmic scale: numbers of shots, say."""
    return min(severities) > 0 and max(severities) >= 20 * min(severities)


def area(line: Mapping[float, float]) -> float:
    """The area under a curve {severity: value} by the trapezoid rule, divided by its width: a mean over severities, in the unit
    of the values. On the scale that the figure has."""
    x = sorted(line)
    place = [math.log(each) for each in x] if logarithmic(x) else x
    steps = [
        (b - a, (line[i] + line[j]) / 2)
        for a, b, i, j in zip(place, place[1:], x, x[1:], strict=False)
    ]
    return (
        sum(width * height for width, height in steps) / (place[-1] - place[0])
        if steps
        else math.nan
    )


class Crossing(NamedTuple):
    """The severity at which a difference changes its sign, and the 95 % percentile bootstrap interval of it; nan where it does not."""

    at: float
    low: float
    high: float


def crossing(differences: Mapping[float, Sample], draws: int = 1000) -> Crossing:
    """Where the mean of paired differences first changes its sign, by straight lines between severities. The bootstrap draws seeds, or
    repeats where there is one seed; draws without a crossing are left out. No interval of fewer than 5, or if half have no crossing."""
    severities = np.array(sorted(differences))
    whole = [
        each
        for each in next(iter(differences.values()), {})
        if all(each in sample for sample in differences.values())
    ]
    place = 0 if len({seed for seed, _ in whole}) > 1 else 1
    units = list(dict.fromkeys(each[place] for each in whole))
    means = np.array(
        [
            [np.mean([differences[s][e] for e in whole if e[place] == unit]) for s in severities]
            for unit in units
        ]
    )
    if len(severities) < 2 or not units:
        return Crossing(math.nan, math.nan, math.nan)
    chosen = np.random.default_rng(0).integers(len(units), size=(draws, len(units)))
    found = np.array([_change(severities, curve) for curve in means[chosen].mean(1)])
    told = found[~np.isnan(found)]
    low, high = (
        np.percentile(told, [2.5, 97.5])
        if len(units) >= 5 and len(told) > draws / 2
        else (math.nan, math.nan)
    )
    return Crossing(_change(severities, means.mean(0)), float(low), float(high))


def _change(x: Array, y: Array) -> float:
    """Where y, straight between its points, first changes its sign, in the middle of a stretch of zeros; nan where it does not."""
    signs = [i for i in range(len(x)) if y[i] != 0]
    for i, j in itertools.pairwise(signs):
        if y[i] * y[j] < 0:
            if j > i + 1:
                return float((x[i + 1] + x[j - 1]) / 2)
            return float(x[i] + (x[j] - x[i]) * y[i] / (y[i] - y[j]))
    return math.nan


def rank_correlation(
    x: Array, y: Array, given: Array | None = None, counts: Array | None = None
) -> Array:
    """Spearman's rank correlation of x (n,) and y (n,), in [-1, 1]; nan where one of them does not vary or nothing is left of it.

    given: (c, n), what is held equal: the part of both ranks that is linear in its ranks is taken away first (the partial rank
    correlation). counts: (draws, n), how often each of the n is taken in each of several resamples; then there is one for each draw.
    """
    a, b = residual_ranks(x, given, counts), residual_ranks(y, given, counts)
    weights = 1.0 if counts is None else counts
    sizes = np.sqrt((weights * a * a).sum(-1) * (weights * b * b).sum(-1))
    autocast_dtype = (weights * a * b).sum(-1)
    return np.divide(
        autocast_dtype, sizes, out=np.full(np.shape(autocast_dtype), math.nan), where=sizes > 0
    ).clip(-1, 1)


def residual_ranks(x: Array, given: Array | None = None, counts: Array | None = None) -> Array:
    """(n,) -> the ranks about their mean, less what is linear in the ranks of given (c, n); exactly 0 where nothing is left.
    counts: as above; then (draws, n)."""
    weights = np.ones(np.shape(x)) if counts is None else counts
    own = _centred(ranks(x, counts), weights)
    left = own
    if given is not None:
        known = np.stack(
            [_centred(ranks(each, counts), weights) for each in given], -2
        )  # (..., c, n)
        across = known.swapaxes(-1, -2)
        inverse = np.linalg.pinv(
            (known * weights[..., None, :]) @ across, rcond=1e-12, hermitian=True
        )
        left = own - ((own * weights)[..., None, :] @ across @ inverse @ known)[..., 0, :]
    kept = np.linalg.norm(left, axis=-1, keepdims=True) > 1e-9 * np.linalg.norm(
        own, axis=-1, keepdims=True
    )
    return np.where(kept, left, 0.0)


def _centred(values: Array, weights: Array) -> Array:
    """Less their mean; exactly 0 where they do not vary."""
    left = values - (values * weights).sum(-1, keepdims=True) / weights.sum(-1, keepdims=True)
    return np.where(
        (np.abs(left) * (weights > 0)).max(-1, keepdims=True) > 1e-9, left, 0.0
    )  # ranks differ by halves at least


def ranks(x: Array, counts: Array | None = None) -> Array:
    """(n,) -> from 1 on; what is equal shares the mean of its places. counts: (draws, n), how often each is taken -> (draws, n)."""
    x = np.asarray(x, dtype=float)
    if counts is None:
        _, place, lot = np.unique(x, return_inverse=True, return_counts=True)
        return (lot.cumsum() - (lot - 1) / 2)[place]
    below, equal = (counts @ compare(x, x[:, None]).T for compare in (np.less, np.equal))
    return below + (equal + 1) / 2
