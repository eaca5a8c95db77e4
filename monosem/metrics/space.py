"""TODO."""

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

# ------------------------------------------------------------------------------------------------ the space


@gin.register
@dataclass(frozen=True)
class Sparsity(Metric):
    """Share of entries that are zero, |f| <= epsilon (BI log_stats), in [0, 1]; L0, how many dimensions are not zero on an image, on
    average; and Hoyer's (sqrt(d) - |f|_1 / |f|_2) / (sqrt(d) - 1) (JMLR 2004), in [0, 1], 1 is one dimension (and d = 1), the mean over
    images that are not all zero. activity: the share of images on which a dimension is not zero, of live dimensions."""

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
        on = (features.abs() > self.epsilon).to(features.dtype)
        norm, root = torch.linalg.vector_norm(features, dim=1), features.shape[1] ** 0.5
        spread = (
            features.abs().sum(1)[norm > 0] / norm[norm > 0]
        )  # from 1, a single dimension, to the root, all alike
        hoyer = (root - spread) / (root - 1) if root > 1 else torch.ones_like(spread)
        return {
            "sparsity": 1 - mean_or_zero(on), "l0": float(on.sum(1).double().mean()), "hoyer": mean_or_zero(hoyer.clamp(0, 1)),
            "activity": per_dimension(on.mean(0, dtype=torch.float64), live(features)),
        }  # fmt: skip


@gin.register
@dataclass(frozen=True)
class Dimensions(Metric):
    """Live dimensions (not zero on every image of the split) and dead ones; and those of the live that are the same on every image."""

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        return (
            Declaration("live_dimensions"),
            Declaration("dead_dimensions"),
            Declaration("constant_dimensions"),
        )

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        alive = live(batch.features)
        return {
            "live_dimensions": int(alive.sum()),
            "dead_dimensions": int((~alive).sum()),
            "constant_dimensions": int((alive & ~varying(batch.features)).sum()),
        }


def spectral_entropy(features: Tensor) -> Tensor:
    """Entropy in nats of the normalised singular values, - sum s log(s + 1e-6): what BI's log_stats calls effective rank. From the
    eigenvalues of the smaller Gram matrix: singular values below 1e-8 of the largest are lost in rounding, and matter to nothing."""
    rows = features.double()
    gram = rows.T @ rows if rows.shape[0] >= rows.shape[1] else rows @ rows.T
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = values / values.sum().clamp(min=1e-300)
    return (-(share * (share + 1e-6).log()).sum()).clamp(
        min=0
    )  # of a single direction it would be just below


@gin.register
@dataclass(frozen=True)
class EffectiveRank(Metric):
    """exp of the spectral entropy (Roy & Vetterli, EUSIPCO 2007), in [1, min(n, d)]. BI reports the entropy itself, in nats."""

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        return (
            Declaration("effective_rank"),
            Declaration("spectral_entropy"),
        )

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        entropy = spectral_entropy(batch.features)
        return {"effective_rank": float(entropy.exp()), "spectral_entropy": float(entropy)}


def correlations(features: Tensor) -> Tensor:
    """The cosines between live dimensions (not centred, as in NCL and BI): (live, live) in [-1, 1]."""
    columns = F.normalize(features[:, live(features)], dim=0)
    return columns.T @ columns


def correlation_error(features: Tensor) -> Tensor:
    """|C - I| over the live dimensions, C their cosines: (live, live) in [0, 1]."""
    cosines = correlations(features)
    return (cosines - torch.eye(len(cosines), dtype=cosines.dtype, device=cosines.device)).abs()


@gin.register
@dataclass(frozen=True)
class Orthogonality(Metric):
    """mean |C - I| over live dimensions, C the cosines between columns (BI log_stats), in [0, 1]; 0 is orthogonal."""

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        return (Declaration("correlation"),)

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        return {"correlation": mean_or_zero(correlation_error(batch.features))}


def by_activity(features: Tensor) -> Tensor:
    """(n, d) -> (d,) dimensions, the most active first: by the column sums of features with unit rows."""
    return F.normalize(features, dim=1).double().sum(0).argsort(descending=True, stable=True)
