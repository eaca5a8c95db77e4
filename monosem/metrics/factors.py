"""TODO."""

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

# ------------------------------------------------------------------------------------------------ the truth


def binned(features: Tensor, bins: int) -> Tensor:
    """(n, d) -> (n, d) int64 codes from 0 to bins - 1, each column by itself: its different values, in order, are cut into `bins`
    equal lots. Equal values stay together, so the zeros of a sparse dimension, however many, are one value among the others."""
    ordered, order = features.sort(0)
    rank = torch.cat([torch.zeros_like(order[:1]), (ordered[1:] > ordered[:-1]).long()]).cumsum(0)
    return torch.empty_like(order).scatter_(0, order, rank * bins // (rank[-1] + 1))


def mutual_information(codes: Tensor, factor: Tensor) -> Tensor:
    """(n, d) codes and (n,) levels -> (d,) mutual information in nats, from counts, less what chance gives so many occupied cells
    (Miller & Madow, 1955): (cells - rows - columns + 1) / 2n; not below 0."""
    n, d = codes.shape
    bins, levels = int(codes.max()) + 1, int(factor.max()) + 1
    places = (torch.arange(d, device=codes.device) * bins + codes) * levels + factor[:, None]
    joint = places.flatten().bincount(minlength=d * bins * levels).reshape(d, bins, levels)
    rows, columns = joint.sum(2), joint.sum(1)
    information = _entropy(rows, n) + _entropy(columns, n) - _entropy(joint.flatten(1), n)
    cells = (joint > 0).sum((1, 2)) - (rows > 0).sum(1) - (columns > 0).sum(1) + 1
    return (information - cells.double() / (2 * n)).clamp(min=0)


def entropy(codes: Tensor) -> Tensor:
    """(n, d) codes -> (d,) entropy in nats of each column."""
    n, d = codes.shape
    most = int(codes.max()) + 1
    places = torch.arange(d, device=codes.device) * most + codes
    return _entropy(places.flatten().bincount(minlength=d * most).reshape(d, most), n)


def _entropy(counts: Tensor, n: int) -> Tensor:
    """(d, cells) -> (d,) entropy in nats of the shares of n."""
    share = counts.double() / n
    return -torch.special.xlogy(share, share).sum(1)


@gin.register
@dataclass(frozen=True)
class FactorInformation(Metric):
    """How much of a dimension is one factor of those that are known to have made the images. Of dimensions that vary; nothing where
    no factor is known.

    u_f = I(dimension; f) / min(H(dimension), H(f)), in [0, 1], for every factor f: 1 where the dimension tells the factor, and also where
    the factor tells the dimension, as it does of a detector of one level. information: the largest; gap: the largest less the second, the
    mutual information gap of Chen et al. (arXiv:1802.04942) seen from the dimension; share: the largest over their sum, of dimensions
    whose information is above `least` alone, as of noise it means nothing. What adds up several levels, or two factors, has less of all
    three.

    bins: a dimension is cut into so many lots for its mutual information. On dimensions that few images activate it is overestimated,
        of all factors alike.
    """

    bins: Annotated[int, Range(2, 1000)] = 20
    least: Annotated[float, Range(0, 1)] = 0.05

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        if not factors:
            return ()
        overall = ("factor_information", "factor_share", "factor_gap")
        single = [f"information_of_{name}" for name in factors]
        return (
            *(Declaration(name, per_dimension=True, better="high") for name in overall),
            *(Declaration(name, per_dimension=True) for name in single),
        )

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        if not batch.factors:
            return {}
        parts = [
            self._explained(part, batch.factors) for part in batch.features.split(CHUNK // 8, dim=1)
        ]
        explained, valid = torch.cat(parts, 1), varying(batch.features)  # (factors, d)
        top = (
            torch.cat([explained, torch.zeros_like(explained[:1])]).sort(0, descending=True).values
        )
        return {
            "factor_information": per_dimension(top[0], valid),
            "factor_share": per_dimension(
                top[0] / explained.sum(0).clamp(min=1e-12), valid & (top[0] > self.least)
            ),
            "factor_gap": per_dimension(top[0] - top[1], valid),
            **{
                f"information_of_{name}": per_dimension(each, valid)
                for name, each in zip(batch.factors, explained, strict=True)
            },
        }

    def _explained(self, features: Tensor, factors: Mapping[str, Tensor]) -> Tensor:
        codes = binned(features, self.bins)
        own, found = entropy(codes), []
        for levels in factors.values():
            least = torch.minimum(own, entropy(levels[:, None]))
            information = mutual_information(codes, levels)
            found.append(
                torch.where(least > 1e-9, information / least.clamp(min=1e-9), 0.0).clamp(max=1)
            )
        return torch.stack(found)


GROUND_TRUTH = "factor_gap"  # what other metrics are compared with where factors are known
