"""The space that features span: sparsity, dead dimensions, rank and orthogonality.

BI is Beyond Interpretability (arXiv:2410.21331), whose code has these numbers in `log_stats`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gin
import torch
import torch.nn.functional as F
from torch import Tensor

from monosem.core.fields import Positive
from monosem.metrics.base import (
    Declaration,
    FeatureBatch,
    Metric,
    MetricResult,
    live,
    mean_or_zero,
    per_dimension,
    varying,
)


def hoyer_sparsity(features: Tensor) -> Tensor:
    """(sqrt(d) - |f|_1 / |f|_2) / (sqrt(d) - 1) of rows (Hoyer, JMLR 2004).

    features: (n, d).
    Returns (m,), in [0, 1], for the m rows that are not zero; 1 is a single dimension, and d = 1.
    """
    norms = torch.linalg.vector_norm(features, dim=1)
    root = features.shape[1] ** 0.5
    ratio = features.abs().sum(1)[norms > 0] / norms[norms > 0]  # from 1 to root
    if root == 1:
        return torch.ones_like(ratio)
    return ((root - ratio) / (root - 1)).clamp(0, 1)


@gin.register
@dataclass(frozen=True)
class Sparsity(Metric):
    """How few dimensions are active on an example, and on how many examples a dimension is active.

    sparsity: share of entries with |f| <= epsilon (BI), in [0, 1].
    l0: mean number of active dimensions of an example, in [0, d].
    hoyer: mean of `hoyer_sparsity` over examples that are not all zero, in [0, 1].
    activity: share of examples on which a dimension is active, in [0, 1]. Valid: live dimensions.

    epsilon: a dimension is active on an example where |f| is above it.
    """

    epsilon: Positive = 1e-5

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        return (
            Declaration("sparsity"),
            Declaration("l0"),
            Declaration("hoyer"),
            Declaration("activity", per_dimension=True),
        )

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        features = batch.features
        active = (features.abs() > self.epsilon).to(features.dtype)
        activity = active.mean(0, dtype=torch.float64)
        return {
            "sparsity": 1 - mean_or_zero(active),
            "l0": float(active.sum(1).double().mean()),
            "hoyer": mean_or_zero(hoyer_sparsity(features)),
            "activity": per_dimension(activity, live(features)),
        }


@gin.register
@dataclass(frozen=True)
class Dimensions(Metric):
    """How many dimensions are live, dead and constant.

    live_dimensions: other than 0 on some example.
    dead_dimensions: 0 on every example.
    constant_dimensions: among the live ones, those that hold one value on every example.
    """

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        names = ("live_dimensions", "dead_dimensions", "constant_dimensions")
        return tuple(Declaration(name) for name in names)

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        is_live = live(batch.features)
        return {
            "live_dimensions": int(is_live.sum()),
            "dead_dimensions": int((~is_live).sum()),
            "constant_dimensions": int((is_live & ~varying(batch.features)).sum()),
        }


def spectral_entropy(features: Tensor) -> Tensor:
    """Entropy in nats of the singular values, which are scaled to a sum of 1.

    - sum_i s_i log(s_i + 1e-6), which BI calls effective rank. The singular values come from the
    eigenvalues of the smaller Gram matrix. Those below 1e-8 of the largest are lost in rounding;
    they would not change the sum.

    features: (n, d).
    Returns a scalar, from 0 to log min(n, d).
    """
    rows = features.double()
    gram = rows.T @ rows if rows.shape[0] >= rows.shape[1] else rows @ rows.T
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    shares = singular / singular.sum().clamp(min=1e-300)
    entropy = -(shares * (shares + 1e-6).log()).sum()
    return entropy.clamp(min=0)  # a single direction gives a little less than 0


@gin.register
@dataclass(frozen=True)
class EffectiveRank(Metric):
    """How many directions the features use.

    effective_rank: exp of the spectral entropy (Roy & Vetterli, EUSIPCO 2007), in [1, min(n, d)].
    spectral_entropy: in nats; BI reports it under the name of effective rank.
    """

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        return (Declaration("effective_rank"), Declaration("spectral_entropy"))

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        entropy = spectral_entropy(batch.features)
        return {"effective_rank": float(entropy.exp()), "spectral_entropy": float(entropy)}


def correlations(features: Tensor) -> Tensor:
    """(n, d) -> (live, live) the cosines between live dimensions, in [-1, 1].

    The columns are not centred, as in NCL and BI.
    """
    columns = F.normalize(features[:, live(features)], dim=0)
    return columns.T @ columns


def correlation_error(features: Tensor) -> Tensor:
    """(n, d) -> (live, live) |C - I|, with C the cosines between live dimensions; in [0, 1]."""
    cosines = correlations(features)
    identity = torch.eye(len(cosines), dtype=cosines.dtype, device=cosines.device)
    return (cosines - identity).abs()


@gin.register
@dataclass(frozen=True)
class Orthogonality(Metric):
    """How far dimensions are from being orthogonal (NCL; BI).

    correlation: mean |C - I| over live dimensions, with C the cosines between columns; in [0, 1],
        0 is orthogonal.
    """

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        return (Declaration("correlation"),)

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        return {"correlation": mean_or_zero(correlation_error(batch.features))}


def by_activity(features: Tensor) -> Tensor:
    """(n, d) -> (d,) dimensions by falling activity: the column sums of features with unit rows."""
    activity = F.normalize(features, dim=1).double().sum(0)
    return activity.argsort(descending=True, stable=True)
