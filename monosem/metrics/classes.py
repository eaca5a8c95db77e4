"""How much a dimension belongs to one class, from counts and means of the classes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import gin
import torch
from torch import Tensor

from monosem.core.fields import Range
from monosem.metrics.base import (
    Declaration,
    FeatureBatch,
    Metric,
    MetricResult,
    live,
    per_dimension,
)


def rows_by_class(labels: Tensor) -> Sequence[Tensor]:
    """(n,) -> the indices of the rows of every class, from class 0 on.

    Adding up the rows of a class is quicker than a product with a one-hot matrix, which is mostly
    zeros.
    """
    return labels.argsort(stable=True).split(labels.bincount().tolist())


def active_dimensions(features: Tensor, epsilon: float) -> Tensor:
    """(n, d) -> (n, d) whether |f| / |row| > epsilon."""
    norms = torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=1e-12)
    return features.abs() > epsilon * norms


def class_counts(features: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """On how many examples of each class a dimension is active: |f| / |row| > epsilon.

    features: (n, d).
    labels: (n,).
    Returns (classes, d) float64.
    """
    counts = []
    for rows in rows_by_class(labels):
        active = active_dimensions(features[rows], epsilon)
        counts.append(active.sum(0, dtype=torch.int32))
    return torch.stack(counts).double()


def class_consistency(counts: Tensor) -> Tensor:
    """(classes, d) -> (d,) the share of the most frequent class, in [0, 1]; 0 without examples."""
    return counts.amax(0) / counts.sum(0).clamp(min=1)


def class_entropy(counts: Tensor, epsilon: float) -> Tensor:
    """(classes, d) -> (d,) the entropy of the classes in nats: - sum_c p_c log(p_c + epsilon)."""
    shares = counts / counts.sum(0).clamp(min=1)
    return -(shares * (shares + epsilon).log()).sum(0)


def class_means(features: Tensor, labels: Tensor) -> Tensor:
    """(n, d) -> (classes, d) float64, the mean over the examples of a class; 0 without examples."""
    means = []
    for rows in rows_by_class(labels):
        total = features[rows].sum(0, dtype=torch.float64)
        means.append(total / max(len(rows), 1))
    return torch.stack(means)


@gin.register
@dataclass(frozen=True)
class ClassConsistency(Metric):
    """How few classes activate a dimension: the share of the most frequent one, and the entropy.

    Both are of the examples that activate the dimension (NCL, Wang et al., arXiv:2403.12459,
    section 4.1, and its code).

    class_consistency: in [1/classes, 1]; 1 is monosemantic.
    class_entropy: in nats, from 0 to log classes; 0 is monosemantic.
    Valid: dimensions that some example activates. One that a single example activates has a
    consistency of 1 and counts like any other: look at its activity too.

    epsilon: a dimension is active on an example where |f| is above this share of the row's norm.
        Signed features are active nearly everywhere and score near the share of the largest
        class, which is what 'polysemantic' means here.
    """

    epsilon: Annotated[float, Range(0, 1, open=True)] = 1e-5

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        return (
            Declaration("class_consistency", per_dimension=True, better="high"),
            Declaration("class_entropy", per_dimension=True, better="low"),
        )

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        counts = class_counts(batch.features, batch.labels, self.epsilon)
        active = counts.sum(0) > 0
        return {
            "class_consistency": per_dimension(class_consistency(counts), active),
            "class_entropy": per_dimension(class_entropy(counts, self.epsilon), active),
        }


@gin.register
@dataclass(frozen=True)
class ClassSelectivity(Metric):
    """How much more its best class activates a dimension than the others do: (m - r) / (m + r).

    From Morcos et al., arXiv:1803.06959, section 2.3.

    m: the mean activation over the class that has the largest one.
    r: the mean of the mean activations of all other classes.
    class_selectivity: in [0, 1]; 0 is the same for all classes, 1 is silent but for one.
    Valid: live dimensions.

    Their activations are rectified. Here |f| stands for them, so that signed features have a
    selectivity too.
    """

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        return (Declaration("class_selectivity", per_dimension=True, better="high"),)

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        means = class_means(batch.features.abs(), batch.labels)
        classes_present = int((batch.labels.bincount() > 0).sum())
        best = means.amax(0)
        rest = (means.sum(0) - best) / max(classes_present - 1, 1)
        selectivity = (best - rest) / (best + rest).clamp(min=1e-300)
        return {"class_selectivity": per_dimension(selectivity, live(batch.features))}


@gin.register
@dataclass(frozen=True)
class ClassSpread(Metric):
    """Over how many dimensions a class is spread, and whether one of them is enough for it.

    A dimension may be about one class and silent on most of its examples, as where many dimensions
    share the class. That is monosemantic, and little use to a classifier of few dimensions.

    m_d: the mean of |f_d| over a class.
    class_spread: (sum_d m_d)^2 / sum_d m_d^2, the mean over classes: the number of equally strong
        dimensions that would have the same ratio, from 1 to d.
    class_coverage: the share of a class that activates its best dimension, in [0, 1], the mean over
        classes. The best one has the largest m_d less the mean of m_d over the other classes.

    epsilon: as in ClassConsistency.
    """

    epsilon: Annotated[float, Range(0, 1, open=True)] = 1e-5

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        return Declaration("class_spread"), Declaration("class_coverage")

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        sizes = batch.labels.bincount()
        present = sizes > 0
        means = class_means(batch.features.abs(), batch.labels)[present]
        strength = means.sum(1).square() / means.square().sum(1).clamp(min=1e-300)
        others = (means.sum(0) - means) / max(len(means) - 1, 1)
        best = (means - others).argmax(1)
        counts = class_counts(batch.features, batch.labels, self.epsilon)[present]
        active = counts.gather(1, best[:, None])[:, 0] / sizes[present]
        return {"class_spread": float(strength.mean()), "class_coverage": float(active.mean())}
