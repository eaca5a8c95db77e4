"""The votes of nearest neighbours; by two of three distances it cannot see axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import gin
import torch
import torch.nn.functional as F
from torch import Tensor

from monosem.classifiers.kept import FeatureClassifier, group_by_examples, labels_of
from monosem.core.fields import Count
from monosem.data.dataset import Dataset
from monosem.probes.batched_probes import ProbeSpec

Distance = Literal["euclidean", "cosine", "manhattan"]


@gin.register
@dataclass(frozen=True)
class KNN(FeatureClassifier):
    """The class that most of the k nearest training examples have; the first of equal ones.

    k is the one of least leave-one-out error on the labels that a head is given, the smallest of
    equal ones, among those that are fewer than its examples.

    distance: 'euclidean' and 'cosine' stay where features are rotated, 'manhattan', the sum of
        absolute differences, does not.
    neighbours: the k to choose from; a single one is taken as it is.
    """

    distance: Distance = "euclidean"
    neighbours: tuple[Count, ...] = (1, 3, 10, 30, 100)

    def validate(self) -> None:
        if not self.neighbours:
            self.refuse("neighbours", "must hold at least one number, got ()")

    def check_data(self, data: Dataset) -> None:
        images, most = len(data.split("train").labels), max(self.neighbours)
        if most > images:
            self.refuse("neighbours", f"must be at most {images}, the training images, got {most}")

    def fit(self, features: Tensor, classes: int, heads: Sequence[ProbeSpec]) -> FittedNeighbours:
        memories: list[StoredExamples | None] = [None] * len(heads)
        for group in group_by_examples(heads):
            chosen = [heads[index] for index in group]
            rows = features[chosen[0].examples.to(features.device)]
            labels = labels_of(chosen).to(rows.device)
            best = self._best(rows, labels, classes)
            for index, of_head, k in zip(group, labels, best, strict=True):
                memories[index] = StoredExamples(rows, of_head, k)
        return FittedNeighbours(self.distance, classes, [memory for memory in memories if memory])

    def _best(self, rows: Tensor, labels: Tensor, classes: int) -> list[int]:
        """The k of every head of these examples.

        rows: (m, d)
        labels: (heads, m)
        """
        possible = sorted(k for k in set(self.neighbours) if k < len(rows))
        if len(possible) < 2:
            k = possible[0] if possible else len(rows)
            return [min(k, len(rows))] * len(labels)
        order = nearest(rows, rows, self.distance, max(possible), without_itself=True)
        right = []
        for k in possible:
            voted = torch.stack([votes(head[order[:, :k]], classes).argmax(1) for head in labels])
            right.append((voted == labels).sum(1))
        return [possible[index] for index in torch.stack(right).argmax(0).tolist()]


class StoredExamples(NamedTuple):
    """The examples of one head.

    rows: (m, d)
    labels: (m,)
    k: how many neighbours vote.
    """

    rows: Tensor
    labels: Tensor
    k: int


class FittedNeighbours(NamedTuple):
    """Fitted classifiers.

    memories: of every head.
    """

    distance: Distance
    classes: int
    memories: list[StoredExamples]

    def logits(self, features: Tensor, position: int) -> Tensor:
        """(n, d) -> (n, classes), the votes."""
        memory = self.memories[position]
        order = nearest(features, memory.rows, self.distance, memory.k)
        return votes(memory.labels[order], self.classes)


def votes(labels: Tensor, classes: int) -> Tensor:
    """(n, k) labels of neighbours -> (n, classes) how many have each."""
    counts = torch.zeros(len(labels), classes, device=labels.device)
    return counts.scatter_add_(1, labels, torch.ones_like(labels, dtype=counts.dtype))


def nearest(
    features: Tensor, rows: Tensor, distance: Distance, k: int, without_itself: bool = False
) -> Tensor:
    """(n, d), (m, d) -> (n, k): the positions of the k nearest rows, the nearest first.

    without_itself: row i is not among the nearest of feature i.
    """
    if distance == "cosine":
        features, rows = F.normalize(features, dim=1), F.normalize(rows, dim=1)
    norm = 1.0 if distance == "manhattan" else 2.0
    found = []
    for start in range(0, len(features), 1000):  # it bounds memory and changes nothing
        some = features[start : start + 1000].double()
        distances = torch.cdist(some, rows.double(), norm, "use_mm_for_euclid_dist")
        if without_itself:
            distances.diagonal(start)[:] = torch.inf
        found.append(distances.topk(k, dim=1, largest=False).indices)
    return torch.cat(found)
