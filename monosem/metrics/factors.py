"""How much a dimension tells about the factors that made the examples, where they are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import gin
import torch
from torch import Tensor

from monosem.core.fields import Range
from monosem.metrics.base import (
    CHUNK,
    Declaration,
    FeatureBatch,
    Metric,
    MetricResult,
    per_dimension,
    varying,
)

GROUND_TRUTH = "factor_gap"  # what other metrics are compared with where factors are known


def binned(features: Tensor, bins: int) -> Tensor:
    """Codes from 0 to bins - 1 for every column by itself.

    The different values of a column, in order, are cut into `bins` parts of equal size. Equal
    values stay together: the zeros of a sparse dimension, however many, are one value among the
    others.

    features: (n, d).
    Returns (n, d) int64.
    """
    ordered, order = features.sort(0)
    is_new_value = (ordered[1:] > ordered[:-1]).long()
    rank = torch.cat([torch.zeros_like(order[:1]), is_new_value]).cumsum(0)  # of different values
    codes = rank * bins // (rank[-1] + 1)
    return torch.empty_like(order).scatter_(0, order, codes)


def joint_counts(codes: Tensor, factor: Tensor) -> Tensor:
    """On how many examples a column has a code where the factor has a level.

    codes: (n, d).
    factor: (n,).
    Returns (d, bins, levels) int64.
    """
    d = codes.shape[1]
    bins = int(codes.max()) + 1
    levels = int(factor.max()) + 1
    column = torch.arange(d, device=codes.device)
    cell = (column * bins + codes) * levels + factor[:, None]  # (n, d)
    return cell.flatten().bincount(minlength=d * bins * levels).reshape(d, bins, levels)


def entropy(counts: Tensor) -> Tensor:
    """(d, cells) counts -> (d,) entropy of each row in nats."""
    shares = counts.double() / counts.sum(1, keepdim=True)
    return -torch.special.xlogy(shares, shares).sum(1)


def mutual_information(joint: Tensor) -> Tensor:
    """(d, bins, levels) counts -> (d,) H(codes) + H(factor) - H(codes, factor) in nats."""
    return entropy(joint.sum(2)) + entropy(joint.sum(1)) - entropy(joint.flatten(1))


def expected_mutual_information(rows: Tensor, columns: Tensor) -> Tensor:
    """The mean of the mutual information, in nats, over all orders of the factor's levels.

    How often codes and levels occur stays, so a cell is hypergeometric (Vinh, Epps & Bailey, JMLR
    2010, theorem 2). With a examples in its row, b in its column and n in all, it gives

        sum_k  k/n log(n k / (a b)) P(k)      k from max(1, a + b - n) to min(a, b)
        P(k) = a! b! (n - a)! (n - b)! / (n! k! (a - k)! (b - k)! (n - a - b + k)!)

    It depends on a and b alone, so every different a is worked out once, for all dimensions.

    rows: (d, bins) counts of the codes.
    columns: (levels,) counts of the factor.
    Returns (d,) float64, exact up to the rounding of logarithms of factorials.
    """
    sizes, which = rows.unique(return_inverse=True)
    largest = int(torch.minimum(sizes.max(), columns.max()))
    at_once = max(1, CHUNK**2 // (len(columns) * largest))  # sizes, which bounds memory
    parts = [_expected_of_rows(some, columns) for some in sizes.split(at_once)]
    return torch.cat(parts)[which].sum(1)


def _expected_of_rows(sizes: Tensor, columns: Tensor) -> Tensor:
    """The sum above over k and over columns: (a,) sizes of rows, (levels,) -> (a,) float64.

    All that follows is (a, levels, k).
    """
    n = int(columns.sum())
    log_factorial = torch.arange(1, n + 2, device=columns.device).double().lgamma()
    a, b = sizes[:, None, None], columns[None, :, None]
    k = torch.arange(1, int(torch.minimum(a.max(), b.max())) + 1, device=columns.device)
    possible = (k <= a) & (k <= b) & (k >= a + b - n)
    left, above, rest = (count.clamp(0, n) for count in (a - k, b - k, n - a - b + k))
    log_chance = log_factorial[a] + log_factorial[n - a] + log_factorial[b] + log_factorial[n - b]
    log_chance = log_chance - log_factorial[n] - log_factorial[k] - log_factorial[left]
    log_chance = log_chance - log_factorial[above] - log_factorial[rest]
    shared = k.double() / n
    surprise = (shared * n**2 / (a * b).clamp(min=1)).log()
    return torch.where(possible, shared * surprise * log_chance.exp(), 0.0).sum((1, 2))


def adjusted_information(codes: Tensor, factor: Tensor) -> Tensor:
    """(I - E) / (min(H(codes), H(factor)) - E) of every column, E what chance alone gives to I.

    1 where one of the two tells the other, 0 on average where the factor is drawn by chance,
    however rare the codes are. 0 where nothing can be told: one of them is constant, or no two
    examples share a code or a level.

    codes: (n, d).
    factor: (n,).
    Returns (d,) float64, at most 1, and as much below 0 as chance has it.
    """
    joint = joint_counts(codes, factor)
    rows, columns = joint.sum(2), joint.sum(1)
    chance = expected_mutual_information(rows, columns[0])
    possible = torch.minimum(entropy(rows), entropy(columns)) - chance
    adjusted = (mutual_information(joint) - chance) / possible.clamp(min=1e-9)
    return torch.where(possible > 1e-9, adjusted, 0.0).clamp(max=1)


@gin.register
@dataclass(frozen=True)
class FactorInformation(Metric):
    """How much of a dimension is a single one of the factors that made the examples.

    For a dimension and a factor f, from mutual information I, entropy H and the mutual information
    E that chance gives to a dimension and a factor of such frequencies:

        u_f = (I(dimension; f) - E) / (min(H(dimension), H(f)) - E)

    (Vinh, Epps & Bailey, JMLR 2010, table 2). It is 1 where the dimension tells the factor, and
    where the factor tells the dimension, as it does of a detector of one level. A dimension that
    adds up several levels, or two factors, has less of all that follows. The mean of u_f is 0 for a
    factor of pure chance, however rarely a dimension is active.

    information_of_f: u_f, for every factor f; at most 1, and below 0 where it is less than chance.
    factor_information: the largest u_f, or 0 where all are below.
    factor_gap: the largest u_f less the second, neither of them below 0; the mutual information gap
        of Chen et al. (arXiv:1802.04942), seen from the dimension.
    factor_share: the largest u_f over the sum of those above 0.
    Valid: dimensions that vary. For factor_share only those whose factor_information is above
        `least`, as of noise the share means nothing.
    Without known factors there is no result.

    bins: parts that a dimension is cut into for its mutual information.
    least: see factor_share.
    """

    bins: Annotated[int, Range(2, 1000)] = 20
    least: Annotated[float, Range(0, 1)] = 0.05

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        if not factors:
            return ()
        overall = ("factor_information", "factor_share", "factor_gap")
        single = [f"information_of_{name}" for name in factors]
        return (
            *(Declaration(name, True, better="high", from_factors=True) for name in overall),
            *(Declaration(name, True, from_factors=True) for name in single),
        )

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        if not batch.factors:
            return {}
        information = self._information(batch.features, batch.factors)  # (factors, d)
        valid = varying(batch.features)
        nothing = torch.zeros_like(information[:1])  # the second where there is one factor
        above_chance = torch.cat([information, nothing]).clamp(min=0)
        largest, second = above_chance.sort(0, descending=True).values[:2]
        share = largest / above_chance.sum(0).clamp(min=1e-12)
        results: dict[str, MetricResult] = {
            "factor_information": per_dimension(largest, valid),
            "factor_share": per_dimension(share, valid & (largest > self.least)),
            "factor_gap": per_dimension(largest - second, valid),
        }
        for name, values in zip(batch.factors, information, strict=True):
            results[f"information_of_{name}"] = per_dimension(values, valid)
        return results

    def _information(self, features: Tensor, factors: Mapping[str, Tensor]) -> Tensor:
        """u_f of every factor and dimension: (factors, d), a chunk of dimensions at a time."""
        chunks = features.split(CHUNK // 8, dim=1)
        return torch.cat([self._information_of_chunk(chunk, factors) for chunk in chunks], 1)

    def _information_of_chunk(self, features: Tensor, factors: Mapping[str, Tensor]) -> Tensor:
        codes = binned(features, self.bins)
        return torch.stack([adjusted_information(codes, levels) for levels in factors.values()])
