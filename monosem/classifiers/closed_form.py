"""Rotation-invariant classifiers in closed form: ridge regression and nearest centroids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import gin
import torch
from torch import Tensor

from monosem.classifiers.kept import (
    FeatureClassifier,
    group_by_examples,
    labels_of,
    one_hot,
)
from monosem.core.fields import Positive
from monosem.probes.batched_probes import BatchedProbes, ProbeSpec

Penalties = tuple[Positive, ...]


class Centred(NamedTuple):
    """Features of examples on a scale on which a penalty means the same for every encoder.

    rows: (m, d) float64, of mean 0 and of mean squared norm 1.
    mean: (d,).
    scale: (), what the rows were divided by.
    """

    rows: Tensor
    mean: Tensor
    scale: Tensor

    def unscaled(self, weight: Tensor, bias: Tensor) -> BatchedProbes:
        """(heads, d, classes), (heads, classes) of these rows -> of features as they are."""
        weight = weight / self.scale
        return BatchedProbes(weight.float(), (bias - self.mean @ weight).float())


def centre(features: Tensor) -> Centred:
    """features: (m, d)."""
    rows = features.double()
    mean = rows.mean(0)
    rows = rows - mean
    scale = rows.square().sum(1).mean().sqrt().clamp(min=1e-12)
    return Centred(rows / scale, mean, scale)


def fit_by_group(
    features: Tensor,
    heads: Sequence[ProbeSpec],
    fit: Callable[[Tensor, Tensor], BatchedProbes],
) -> BatchedProbes:
    """Linear classifiers in the order of heads; those of the same examples are fitted together.

    fit: rows (m, d) of examples and labels (heads, m), as each head is given them -> classifiers.
    """
    groups = group_by_examples(heads)
    fitted = []
    for group in groups:
        chosen = [heads[position] for position in group]
        rows = features[chosen[0].examples.to(features.device)]
        fitted.append(fit(rows, labels_of(chosen)))
    order = torch.tensor([position for group in groups for position in group]).argsort()
    weight = torch.cat([of_group.weight for of_group in fitted])
    bias = torch.cat([of_group.bias for of_group in fitted])
    return BatchedProbes(weight[order], bias[order])


@gin.register
@dataclass(frozen=True)
class Ridge(FeatureClassifier):
    """Ridge regression of one-hot labels, and the class of the largest value.

        mean over examples of |y - b - W^T x|^2   +   penalty * |W|^2

    x is centred and divided by one number, so that its mean squared norm is 1. The penalty of
    every head is the one with the least leave-one-out error on the labels that it is given. One
    decomposition serves all penalties, heads and left-out examples (Golub, Heath & Wahba 1979):

        left-out residual of example i = residual i / (1 - h_ii),   h the hat matrix.

    penalties: to choose from, above 0; a single one is taken as it is.
    """

    penalties: Penalties = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)

    def validate(self) -> None:
        if not self.penalties:
            self.refuse("penalties", "must hold at least one penalty, got ()")

    def fit(self, features: Tensor, classes: int, heads: Sequence[ProbeSpec]) -> BatchedProbes:
        return fit_by_group(
            features, heads, lambda rows, labels: self._fit_group(rows, labels, classes)
        )

    def _fit_group(self, rows: Tensor, labels: Tensor, classes: int) -> BatchedProbes:
        centred = centre(rows)
        left, singular, right = torch.linalg.svd(centred.rows, full_matrices=False)
        m = len(left)
        targets = one_hot(labels, classes).to(left.device)  # (heads, classes, m)
        bias = targets.mean(2)
        coefficients = (targets - bias[:, :, None]) @ left  # (heads, classes, r)
        errors, shrunken = [], []
        for penalty in self.penalties:
            kept = singular.square() / (singular.square() + m * penalty)
            hat = 1 / m + (left.square() * kept).sum(1)
            residuals = targets - bias[:, :, None] - (coefficients * kept) @ left.T
            left_out = residuals / (1 - hat).clamp(min=1e-9)
            errors.append(left_out.square().sum((1, 2)))
            shrunken.append(coefficients * singular / (singular.square() + m * penalty))
        best = torch.stack(errors).argmin(0)
        weight = torch.stack(shrunken)[best, torch.arange(len(labels), device=best.device)] @ right
        return centred.unscaled(weight.transpose(1, 2), bias)


@gin.register
@dataclass(frozen=True)
class NearestCentroid(FeatureClassifier):
    """The class whose mean feature is the nearest by Euclidean distance.

    |x - c|^2 = |x|^2 - 2 x c + |c|^2, so it is linear. What all classes share is taken off, or
    single precision would tell close centroids apart badly. A class without examples is never
    nearest.
    """

    def fit(self, features: Tensor, classes: int, heads: Sequence[ProbeSpec]) -> BatchedProbes:
        def fit(rows: Tensor, labels: Tensor) -> BatchedProbes:
            rows = rows.double()
            members = one_hot(labels, classes).to(rows.device)
            mean = rows.mean(0)
            centroids = members @ (rows - mean) / members.sum(2, keepdim=True).clamp(min=1)
            bias = -centroids.square().sum(2) / 2 - centroids @ mean
            bias[members.sum(2) == 0] = -torch.inf
            return BatchedProbes(centroids.transpose(1, 2).float(), bias.float())

        return fit_by_group(features, heads, fit)
