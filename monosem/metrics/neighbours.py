"""TODO."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import gin
import torch
import torch.nn.functional as F
from torch import Tensor

from monosem.core.fields import Count
from monosem.core.identity import generator
from monosem.metrics.base import (
    Declaration,
    FeatureBatch,
    Metric,
    MetricResult,
    per_dimension,
    rows_of,
)

# ------------------------------------------------------------------------------------------------ images alike


def pair_similarity(reference_features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(n, e) and (n, d), not negative -> (d,) the mean cosine of all pairs of different images, a pair weighted by the product of the
    two weights; and (d,) the total weight of pairs, 0 where no two images have any. In one pass over rows, O(n e d):

        sum_{n != m} a_n a_m cos(n, m) / sum_{n != m} a_n a_m = (|E^T a|^2 - sum_n a_n^2 |E_n|^2) / ((sum_n a_n)^2 - sum_n a_n^2)

    with E the rows at unit length. An image that the judge sees nothing in has a row of zeros, and cosines of 0.
    """
    together = torch.zeros(
        reference_features.shape[1], weights.shape[1], dtype=torch.float64, device=weights.device
    )
    total, squares, own = torch.zeros(
        3, weights.shape[1], dtype=torch.float64, device=weights.device
    )
    for rows in rows_of(len(weights)):
        unit, weight = (
            F.normalize(reference_features[rows].double(), dim=1),
            weights[rows].double(),
        )  # differences of what is nearly equal follow
        together += unit.T @ weight
        total += weight.sum(0)
        squares += weight.square().sum(0)
        own += (weight.square() * unit.square().sum(1, keepdim=True)).sum(
            0
        )  # 1 a row, but 0 where the judge sees nothing
    pairs = total.square() - squares
    pairs = torch.where(
        pairs > 1e-12 * total.square(), pairs, 0.0
    )  # one image alone leaves what rounding leaves
    return (together.square().sum(0) - own) / pairs.clamp(min=1e-300) * (pairs > 0), pairs


@gin.register
@dataclass(frozen=True)
class MonosemanticityScore(Metric):
    """How alike the images are that activate a dimension (Pach et al., arXiv:2504.02821, section 3.2): the mean cosine, as a judge sees
    images, of all pairs of them, weighted by the product of their activations, in [-1, 1], that is divided by the sum of these weights.
    Activations are brought to [0, 1] by the smallest and the largest of the dimension, as there. The judge is `Experiment.judge`; Pach et
    al. have DINOv2.

    Of dimensions that vary and are above their smallest value on two images or more. Beside it the same with a judge that sees classes
    alone: the chance that two images drawn by activation share their class; and the score of a dimension that is alike on all images.
    """

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        return (
            Declaration("monosemanticity_score", per_dimension=True, better="high"),
            Declaration("monosemanticity_score_of_classes", per_dimension=True, better="high"),
            Declaration("monosemanticity_score_of_all_images"),
        )

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        low, high = batch.features.amin(0), batch.features.amax(0)
        found: dict[str, MetricResult] = {}
        classes = F.one_hot(batch.labels).to(batch.features.dtype)
        for name, reference_features in (
            ("monosemanticity_score", batch.reference_features),
            ("monosemanticity_score_of_classes", classes),
        ):
            scores, pairs = pair_similarity(
                reference_features, (batch.features - low) / (high - low).clamp(min=1e-30)
            )
            found[name] = per_dimension(scores.clamp(-1, 1), (pairs > 0) & (high > low))
        everyone, _ = pair_similarity(
            batch.reference_features, torch.ones_like(batch.features[:, :1])
        )
        return {**found, "monosemanticity_score_of_all_images": float(everyone[0])}


def distances(features: Tensor, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(n, d) -> which rows (m,), and their squared distances to all rows (m, n), infinite to themselves; a chunk at a time."""
    energy = features.square().sum(1)
    for rows in torch.arange(len(features), device=features.device).split(chunk):
        distance = energy[rows, None] + energy - 2 * features[rows] @ features.T
        distance[torch.arange(len(rows), device=rows.device), rows] = torch.inf
        yield rows, distance


def precision_at(features: Tensor, labels: Tensor, k: int, chunk: int = 1000) -> float:
    """The share, among the k rows nearest to a row (squared distance, itself left out), of those with its label, over all rows."""
    n, right = len(features), 0.0
    k = min(k, n - 1)
    if k < 1:
        return 0.0
    for rows, distance in distances(features, chunk):
        nearest = distance.topk(k, largest=False).indices
        right += float((labels[nearest] == labels[rows, None]).double().sum())
    return right / (n * k)


def mean_average_precision(features: Tensor, labels: Tensor, chunk: int = 500) -> float:
    """mAP in [0, 1]: for every row, all others by ascending squared distance, and the mean, over those with its label, of the share
    of its label up to them. Ties by index; rows whose label nobody else has are left out."""
    places, total, asked = torch.arange(1, len(features), device=features.device), 0.0, 0
    for rows, distance in distances(features, chunk):
        others = distance.argsort(dim=1, stable=True)[:, :-1]  # the row itself comes last
        right = (labels[others] == labels[rows, None]).double()
        found = right.sum(1)
        total += float(((right.cumsum(1) / places * right).sum(1) / found.clamp(min=1)).sum())
        asked += int((found > 0).sum())
    return total / max(asked, 1)


@gin.register
@dataclass(frozen=True)
class RetrievalPrecision(Metric):
    """Whether images of a class are neighbours (NCL, section 4.3): for every image, precision among its k nearest, and the mean average
    precision over all others (both in [0, 1]), by the distance of rows at unit length. Images are shuffled first, as those of a class may
    lie together and sparse codes tie. NCL's "map" is its precision@10, not mAP."""

    k: Count = 10

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        return (Declaration(f"precision_at_{self.k}"), Declaration("mean_average_precision"))

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        n = len(batch.labels)
        shuffled = torch.randperm(n, generator=generator("ties of neighbours", n)).to(
            batch.labels.device
        )
        rows, labels = F.normalize(batch.features[shuffled], dim=1), batch.labels[shuffled]
        return {
            f"precision_at_{self.k}": precision_at(rows, labels, self.k),
            "mean_average_precision": mean_average_precision(rows, labels),
        }
