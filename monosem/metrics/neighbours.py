"""How alike the examples of a dimension are, and whether those of a class are neighbours.

The first asks a reference encoder which examples are alike, the second the features themselves.
"""

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


def pair_similarity(reference_features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The mean cosine of all pairs of different examples, each pair weighted by two weights.

    For a dimension with weight a_n on example n, and E_n the unit reference features of example n:

        sum_{n != m} a_n a_m E_n.E_m       |E^T a|^2 - sum_n a_n^2 |E_n|^2
        ----------------------------   =   -------------------------------
            sum_{n != m} a_n a_m             (sum_n a_n)^2 - sum_n a_n^2

    The right side takes one pass over rows, O(n e d). Where the reference encoder sees nothing in
    an example, its row is zero and so are its cosines.

        E          (n, e)    unit rows
        a          (n, d)
        E^T a      (e, d)
        the rest   (d,)

    reference_features: (n, e).
    weights: (n, d), not negative.
    Returns the mean cosines (d,), and the total weights of all pairs (d,), which are 0 where fewer
    than two examples have a weight.
    """
    dims, where = weights.shape[1], weights.device
    projected = torch.zeros(reference_features.shape[1], dims, dtype=torch.float64, device=where)
    total, squares, self_similarity = torch.zeros(3, dims, dtype=torch.float64, device=where)
    for rows in rows_of(len(weights)):
        # float64, as nearly equal numbers are subtracted later
        unit = F.normalize(reference_features[rows].double(), dim=1)
        weight = weights[rows].double()
        unit_squared = unit.square().sum(1, keepdim=True)  # 1, or 0 for a row of zeros
        projected += unit.T @ weight
        total += weight.sum(0)
        squares += weight.square().sum(0)
        self_similarity += (weight.square() * unit_squared).sum(0)
    pair_weight = total.square() - squares
    # of a single example only a rounding error is left
    pair_weight = torch.where(pair_weight > 1e-12 * total.square(), pair_weight, 0.0)
    similarity = projected.square().sum(0) - self_similarity
    return similarity / pair_weight.clamp(min=1e-300) * (pair_weight > 0), pair_weight


@gin.register
@dataclass(frozen=True)
class MonosemanticityScore(Metric):
    """How alike the examples are that activate a dimension: their mean cosine by activation.

    From Pach et al., arXiv:2504.02821, section 3.2. Cosines are those of the reference encoder's
    features: DINOv2 there, `Experiment.reference_encoder` here. A pair weighs the product of its
    activations, which are first brought to [0, 1] by the smallest and the largest activation of the
    dimension, as there.

    monosemanticity_score: in [-1, 1]; 1 is monosemantic.
    monosemanticity_score_of_classes: the same where a reference encoder sees classes alone. It is
        the chance that two examples drawn by activation share their class, in [0, 1].
    monosemanticity_score_of_all_images: the score of a dimension that is alike on all examples.
    Valid: dimensions that vary and are above their smallest value on two examples or more.
    """

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        return (
            Declaration("monosemanticity_score", per_dimension=True, better="high"),
            Declaration("monosemanticity_score_of_classes", per_dimension=True, better="high"),
            Declaration("monosemanticity_score_of_all_images"),
        )

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        low, high = batch.features.amin(0), batch.features.amax(0)
        weights = (batch.features - low) / (high - low).clamp(min=1e-30)
        varies = high > low

        def score(reference_features: Tensor) -> MetricResult:
            cosines, pair_weight = pair_similarity(reference_features, weights)
            return per_dimension(cosines.clamp(-1, 1), (pair_weight > 0) & varies)

        classes = F.one_hot(batch.labels).to(batch.features.dtype)
        alike_on_all = torch.ones_like(batch.features[:, :1])
        cosine_of_all, _ = pair_similarity(batch.reference_features, alike_on_all)
        return {
            "monosemanticity_score": score(batch.reference_features),
            "monosemanticity_score_of_classes": score(classes),
            "monosemanticity_score_of_all_images": float(cosine_of_all[0]),
        }


def distances(features: Tensor, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Squared distances between all rows, `chunk` rows at a time.

    features: (n, d).
    Yields the indices of m rows (m,), and their distances to all rows (m, n); infinity to itself.
    """
    energy = features.square().sum(1)
    for rows in torch.arange(len(features), device=features.device).split(chunk):
        distance = energy[rows, None] + energy - 2 * features[rows] @ features.T
        distance[torch.arange(len(rows), device=rows.device), rows] = torch.inf
        yield rows, distance


def precision_at(features: Tensor, labels: Tensor, k: int, chunk: int = 1000) -> float:
    """The share of its own label among the k nearest of an example, over all examples.

    features: (n, d), compared by squared distance.
    labels: (n,).
    k: at most n - 1 neighbours are taken. The example itself is left out.
    Returns a number in [0, 1]; 0 for a single example.
    """
    n = len(features)
    k = min(k, n - 1)
    if k < 1:
        return 0.0
    hits = 0.0
    for rows, distance in distances(features, chunk):
        nearest = distance.topk(k, largest=False).indices
        hits += float((labels[nearest] == labels[rows, None]).double().sum())
    return hits / (n * k)


def highest_precision_at(labels: Tensor, k: int) -> float:
    """What `precision_at` is where every neighbour of its label comes first.

    An example whose class has m examples has m - 1 neighbours of its label.
    """
    k = min(k, len(labels) - 1)
    if k < 1:
        return 0.0
    counts = labels.unique(return_counts=True)[1].double()
    return float((counts * (counts - 1).clamp(max=k)).sum() / (len(labels) * k))


def mean_average_precision(features: Tensor, labels: Tensor, chunk: int = 500) -> float:
    """mAP: how early those with the label of an example come when all are sorted by distance.

    For an example, with all others by ascending squared distance (ties by index), the average
    precision is the mean, over the others with its label, of the share of its label up to them.

    features: (n, d).
    labels: (n,). Examples whose label no other example has are left out.
    Returns the mean average precision, in [0, 1].
    """
    ranks = torch.arange(1, len(features), device=features.device)
    total, queries = 0.0, 0
    for rows, distance in distances(features, chunk):
        others = distance.argsort(dim=1, stable=True)[:, :-1]  # the row itself comes last
        is_hit = (labels[others] == labels[rows, None]).double()
        hits = is_hit.sum(1)
        precision = is_hit.cumsum(1) / ranks
        average_precision = (precision * is_hit).sum(1) / hits.clamp(min=1)
        total += float(average_precision.sum())
        queries += int((hits > 0).sum())
    return total / max(queries, 1)


@gin.register
@dataclass(frozen=True)
class RetrievalPrecision(Metric):
    """Whether examples of a class are neighbours (NCL, Wang et al., arXiv:2403.12459, section 4.3).

    precision_at_k: the share of its class among the k nearest of an example, in [0, 1]. NCL calls
        its precision@10 "map". Where a class has k examples or fewer, 1 is out of reach: the
        summary says how high it can be.
    mean_average_precision: over all other examples, in [0, 1].
    Both by the distance of rows at unit length.

    k: neighbours that count.
    """

    k: Count = 10

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        return (Declaration(f"precision_at_{self.k}"), Declaration("mean_average_precision"))

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        # shuffled, as examples of a class may lie side by side and sparse codes tie
        n = len(batch.labels)
        order = torch.randperm(n, generator=generator("ties of neighbours", n))
        order = order.to(batch.labels.device)
        rows = F.normalize(batch.features[order], dim=1)
        labels = batch.labels[order]
        return {
            f"precision_at_{self.k}": precision_at(rows, labels, self.k),
            "mean_average_precision": mean_average_precision(rows, labels),
        }

    def cautions(self, labels: Tensor) -> Iterator[str]:
        highest = highest_precision_at(labels, self.k)
        if highest < 1:
            yield (
                f"precision_at_{self.k} can be {highest:.3g} at most: "
                f"a class has too few test examples for {self.k} neighbours"
            )
