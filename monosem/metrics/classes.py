"""TODO."""

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

# ------------------------------------------------------------------------------------------------ classes


def by_class(labels: Tensor) -> Sequence[Tensor]:
    """(n,) -> for every class from 0 on, which rows are of it; quicker to add up than a product with what is mostly zeros."""
    return labels.argsort(stable=True).split(labels.bincount().tolist())


def class_counts(features: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """(classes, d) float64: on how many images of each class a dimension is active, |f| > epsilon after normalising every row."""
    least = epsilon * torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=1e-12)
    counts = [
        (features[rows].abs() > least[rows]).sum(0, dtype=torch.int32) for rows in by_class(labels)
    ]
    return torch.stack(counts).double()


def class_consistency(counts: Tensor) -> Tensor:
    """(classes, d) -> (d,) the share of the most frequent class, in [0, 1]; 0 where there is no image."""
    return counts.amax(0) / counts.sum(0).clamp(min=1)


def class_entropy(counts: Tensor, epsilon: float) -> Tensor:
    """(classes, d) -> (d,) the entropy of the classes in nats: - sum_c p log(p + epsilon)."""
    share = counts / counts.sum(0).clamp(min=1)
    return -(share * (share + epsilon).log()).sum(0)


def class_means(features: Tensor, labels: Tensor) -> Tensor:
    """(classes, d) float64: the mean of every dimension over the images of each class; 0 for a class without images."""
    sums = [
        features[rows].sum(0, dtype=torch.float64) / max(len(rows), 1) for rows in by_class(labels)
    ]
    return torch.stack(sums)


@gin.register
@dataclass(frozen=True)
class ClassConsistency(Metric):
    """How much one class owns a dimension (NCL, section 4.1): the share of the most frequent class among the images that activate it,
    in [1/classes, 1], 1 is monosemantic; and the entropy of those classes in nats. Of dimensions that some image activates.

    A dimension that a single image activates has a consistency of 1 and counts like any other: look at its activity too.
    epsilon: a dimension is active on an image where its share of the row's norm exceeds this, in absolute value. Signed features are active
    nearly everywhere and score near the largest class share, which is what 'polysemantic' means here.
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
    """(m - r) / (m + r): m the mean activation of a dimension over the class with the largest one, r the mean of those of all other classes
    (Morcos et al., arXiv:1803.06959, section 2.3), in [0, 1]; 0 is the same for all classes, 1 is silent but for one. No probe.

    Of live dimensions. There they are rectified; here |f| stands for the activation, so that signed features have one too.
    """

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        return (Declaration("class_selectivity", per_dimension=True, better="high"),)

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        means = class_means(batch.features.abs(), batch.labels)
        present = batch.labels.bincount() > 0
        best = means.amax(0)
        rest = (means.sum(0) - best) / max(int(present.sum()) - 1, 1)
        return {
            "class_selectivity": per_dimension(
                (best - rest) / (best + rest).clamp(min=1e-300), live(batch.features)
            )
        }
