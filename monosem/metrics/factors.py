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


def mutual_information(codes: Tensor, factor: Tensor) -> Tensor:
    """The mutual information of every column with a factor, in nats, without that of chance.

    I = H(codes) + H(factor) - H(codes, factor) from counts, less what chance alone gives to so many
    occupied cells, (cells - rows - columns + 1) / 2n (Miller & Madow, 1955); not below 0.

        codes     (n, d)
        factor    (n,)
        joint     (d, bins, levels)    counts of examples
        rows      (d, bins)            the same, of the codes alone
        columns   (d, levels)          the same, of the factor alone

    Returns (d,) float64.
    """
    n, d = codes.shape
    bins = int(codes.max()) + 1
    levels = int(factor.max()) + 1
    column = torch.arange(d, device=codes.device)
    cell = (column * bins + codes) * levels + factor[:, None]  # (n, d)
    joint = cell.flatten().bincount(minlength=d * bins * levels).reshape(d, bins, levels)
    rows, columns = joint.sum(2), joint.sum(1)
    information = (
        _entropy_of_counts(rows, n)
        + _entropy_of_counts(columns, n)
        - _entropy_of_counts(joint.flatten(1), n)
    )
    excess = _occupied(joint.flatten(1)) - _occupied(rows) - _occupied(columns) + 1
    return (information - excess.double() / (2 * n)).clamp(min=0)


def entropy(codes: Tensor) -> Tensor:
    """(n, d) codes -> (d,) entropy of each column in nats."""
    n, d = codes.shape
    bins = int(codes.max()) + 1
    cell = torch.arange(d, device=codes.device) * bins + codes
    counts = cell.flatten().bincount(minlength=d * bins).reshape(d, bins)
    return _entropy_of_counts(counts, n)


def _entropy_of_counts(counts: Tensor, n: int) -> Tensor:
    """(d, cells) counts of n examples -> (d,) entropy in nats."""
    shares = counts.double() / n
    return -torch.special.xlogy(shares, shares).sum(1)


def _occupied(counts: Tensor) -> Tensor:
    """(d, cells) -> (d,) how many cells hold an example."""
    return (counts > 0).sum(1)


@gin.register
@dataclass(frozen=True)
class FactorInformation(Metric):
    """How much of a dimension is a single one of the factors that made the examples.

    For a dimension and a factor f, from mutual information I and entropy H:

        u_f = I(dimension; f) / min(H(dimension), H(f)), in [0, 1]

    It is 1 where the dimension tells the factor, and where the factor tells the dimension, as it
    does of a detector of one level. A dimension that adds up several levels, or two factors, has
    less of all that follows.

    information_of_f: u_f, for every factor f.
    factor_information: the largest u_f.
    factor_gap: the largest u_f less the second; the mutual information gap of Chen et al.
        (arXiv:1802.04942), seen from the dimension.
    factor_share: the largest u_f over the sum of all.
    Valid: dimensions that vary. For factor_share only those whose factor_information is above
        `least`, as of noise the share means nothing.
    Without known factors there is no result.

    bins: parts that a dimension is cut into for its mutual information. Of dimensions that few
        examples activate it is overestimated, for all factors alike.
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
        ranked = torch.cat([information, nothing]).sort(0, descending=True).values
        largest, second = ranked[0], ranked[1]
        share = largest / information.sum(0).clamp(min=1e-12)
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
        entropy_of_codes = entropy(codes)
        rows = []
        for levels in factors.values():
            smaller = torch.minimum(entropy_of_codes, entropy(levels[:, None]))
            information = mutual_information(codes, levels) / smaller.clamp(min=1e-9)
            rows.append(torch.where(smaller > 1e-9, information, 0.0).clamp(max=1))
        return torch.stack(rows)
