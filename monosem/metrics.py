"""Monosemanticity of features, in matrix form.

Every metric maps features (n, d) and labels (n,) to named numbers. A dimension is *live* when it is not zero on every
image, else *dead*; dead dimensions are counted and left out of means. Where nothing is live, a mean is 0.
Sources: NCL is Wang et al., arXiv:2403.12459 (main_eval.py of its code); BI is the paper's own log_stats.
"""

from __future__ import annotations

from dataclasses import dataclass

import gin
import torch
import torch.nn.functional as F
from torch import Tensor

from monosem.stage import Part, Positive


@dataclass(frozen=True)
class Metric(Part):
    """Something measured on the features of a split."""

    def __call__(self, features: Tensor, labels: Tensor) -> dict[str, float]:
        raise NotImplementedError


def live(features: Tensor) -> Tensor:
    """(n, d) -> (d,) booleans: dimensions that are not zero everywhere."""
    return features.abs().sum(0) > 0


def class_counts(features: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """(classes, d): on how many images of each class a dimension is active, |f| > epsilon after normalising every row."""
    active = (F.normalize(features, dim=1).abs() > epsilon).double()
    return F.one_hot(labels).double().T @ active


def class_consistency(features: Tensor, labels: Tensor, epsilon: float = 1e-5) -> Tensor:
    """(d,) share of the most frequent class among the images that activate a dimension, in [0, 1]; 0 where none does."""
    counts = class_counts(features, labels, epsilon)
    return counts.amax(0) / counts.sum(0).clamp(min=1)


def class_entropy(features: Tensor, labels: Tensor, epsilon: float = 1e-5) -> Tensor:
    """(d,) entropy in nats of the classes among the images that activate a dimension: - sum_c p log(p + epsilon)."""
    counts = class_counts(features, labels, epsilon)
    share = counts / counts.sum(0).clamp(min=1)
    return -(share * (share + epsilon).log()).sum(0)


def spectral_entropy(features: Tensor) -> Tensor:
    """Entropy in nats of the normalised singular values, - sum s log(s + 1e-6): what BI's log_stats calls effective rank."""
    values = torch.linalg.svdvals(features.double())
    share = values / values.sum().clamp(min=1e-300)
    return -(share * (share + 1e-6).log()).sum()


def correlation_error(features: Tensor) -> Tensor:
    """|C - I| over the live dimensions, C the cosines between columns (not centred, as in NCL and BI): (live, live) in [0, 1]."""
    columns = F.normalize(features[:, live(features)], dim=0)
    return (columns.T @ columns - torch.eye(columns.shape[1], dtype=columns.dtype, device=columns.device)).abs()


def by_activity(features: Tensor) -> Tensor:
    """(n, d) -> (d,) dimensions, the most active first: by the column sums of features with unit rows."""
    return F.normalize(features, dim=1).double().sum(0).argsort(descending=True, stable=True)


def precision_at(features: Tensor, labels: Tensor, k: int, chunk: int = 1000) -> float:
    """The share, among the k rows nearest to a row (squared distance, itself left out), of those with its label, over all rows."""
    n, right = len(features), 0.0
    k = min(k, n - 1)
    energy = features.square().sum(1)
    for rows in torch.arange(n, device=features.device).split(chunk):
        distance = energy[rows, None] + energy - 2 * features[rows] @ features.T
        distance[torch.arange(len(rows), device=rows.device), rows] = torch.inf
        nearest = distance.topk(k, largest=False).indices
        right += float((labels[nearest] == labels[rows, None]).double().sum())
    return right / (n * k)


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if values.numel() else 0.0


@gin.register
@dataclass(frozen=True)
class ClassConsistency(Metric):
    """How much one class owns a dimension (NCL, section 4.1): mean over active dimensions of the share of the most frequent
    class among the images that activate it, in [1/classes, 1], 1 is monosemantic; and the mean entropy of those classes in nats.

    epsilon: a dimension is active on an image where its share of the row's norm exceeds this, in absolute value. Signed features are active
    nearly everywhere and score near the largest class share, which is what 'polysemantic' means here.
    """

    epsilon: Positive = 1e-5

    def __call__(self, features: Tensor, labels: Tensor) -> dict[str, float]:
        active = class_counts(features, labels, self.epsilon).sum(0) > 0
        return {
            "class_consistency": _mean(class_consistency(features, labels, self.epsilon)[active]),
            "class_entropy": _mean(class_entropy(features, labels, self.epsilon)[active]),
        }


@gin.register
@dataclass(frozen=True)
class Sparsity(Metric):
    """Share of entries that are zero, |f| <= epsilon (BI log_stats), in [0, 1]; and L0, how many dimensions are not zero on an
    image, on average."""

    epsilon: Positive = 1e-5

    def __call__(self, features: Tensor, labels: Tensor) -> dict[str, float]:
        on = (features.abs() > self.epsilon).double()
        return {"sparsity": 1 - _mean(on), "l0": float(on.sum(1).mean())}


@gin.register
@dataclass(frozen=True)
class Dimensions(Metric):
    """Live dimensions (not zero on every image of the split) and dead ones."""

    def __call__(self, features: Tensor, labels: Tensor) -> dict[str, float]:
        alive = int(live(features).sum())
        return {"live_dimensions": alive, "dead_dimensions": features.shape[1] - alive}


@gin.register
@dataclass(frozen=True)
class EffectiveRank(Metric):
    """exp of the spectral entropy (Roy & Vetterli, EUSIPCO 2007), in [1, min(n, d)]. BI reports the entropy itself, in nats."""

    def __call__(self, features: Tensor, labels: Tensor) -> dict[str, float]:
        entropy = spectral_entropy(features)
        return {"effective_rank": float(entropy.exp()), "spectral_entropy": float(entropy)}


@gin.register
@dataclass(frozen=True)
class Orthogonality(Metric):
    """mean |C - I| over live dimensions, C the cosines between columns (BI log_stats), in [0, 1]; 0 is orthogonal."""

    def __call__(self, features: Tensor, labels: Tensor) -> dict[str, float]:
        return {"correlation": _mean(correlation_error(features))}
