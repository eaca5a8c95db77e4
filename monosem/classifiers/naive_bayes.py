"""Naive Bayes classifiers: a distribution for every dimension and class, so they see axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import gin
import torch
from torch import Tensor

from monosem.classifiers.closed_form import fit_by_group
from monosem.classifiers.kept import (
    CrossValidated,
    FeatureClassifier,
    fold_of_examples,
    group_by_examples,
    labels_of,
    one_hot,
)
from monosem.core.fields import Positive
from monosem.core.stage import StageError
from monosem.probes.batched_probes import BatchedProbes, ProbeSpec


@dataclass(frozen=True)
class Densities:
    """Of every head, class and dimension, the Gaussian; a quadratic function of the features.

    mean: (heads, classes, d).
    variance: (heads, classes, d).
    prior: (heads, classes), its logarithm.
    """

    mean: Tensor
    variance: Tensor
    prior: Tensor

    def logits(self, features: Tensor, position: int) -> Tensor:
        """(n, d) -> (n, classes): log p(class) + log p(features | class)."""
        x = features.double()
        mean, precision = self.mean[position], 1 / self.variance[position]
        constant = (mean.square() * precision - precision.log()).sum(1) / 2
        constant = constant + x.shape[1] * math.log(2 * math.pi) / 2
        quadratic = x.square() @ precision.T / 2 - x @ (mean * precision).T
        return (self.prior[position] - constant) - quadratic


@dataclass(frozen=True)
class Sums:
    """What Gaussians are made of; those of held-out examples can be taken off.

    count: (heads, classes).
    first: (heads, classes, d), the sums of features.
    second: (heads, classes, d), the sums of their squares.
    """

    count: Tensor
    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, rows: Tensor, members: Tensor) -> Sums:
        """rows: (m, d); members: (heads, classes, m), 1 where an example is of a class."""
        first, second = (members @ torch.cat([rows, rows.square()], 1)).chunk(2, dim=2)
        return cls(members.sum(2), first, second)

    def of_head(self, head: int) -> Sums:
        """Those of one head, as of a single one."""
        return Sums(self.count[[head]], self.first[[head]], self.second[[head]])

    def minus(self, other: Sums) -> Sums:
        return Sums(self.count - other.count, self.first - other.first, self.second - other.second)

    def densities(self, added: float) -> Densities:
        """added: to every variance."""
        count = self.count.clamp(min=1)[:, :, None]
        mean = self.first / count
        variance = (self.second / count - mean.square()).clamp(min=0) + added
        return Densities(mean, variance, (self.count / self.count.sum(1, keepdim=True)).log())


@gin.register
@dataclass(frozen=True)
class GaussianNaiveBayes(CrossValidated):
    """Dimensions are independent Gaussians in every class.

    All sums of all heads are one product. The smoothing of every head is the one of least error in
    cross-validation on the labels that it is given, the largest of equal ones; where a class has
    one example, the largest.

    smoothing: to choose from, in units of the largest variance of a dimension, which is added to
        every variance; a single one is taken as it is. scikit-learn's is 1e-9.
    """

    smoothing: tuple[Positive, ...] = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)

    def validate(self) -> None:
        if not self.smoothing:
            self.refuse("smoothing", "must hold at least one number, got ()")

    def fit(self, features: Tensor, classes: int, heads: Sequence[ProbeSpec]) -> Densities:
        fitted: list[Densities | None] = [None] * len(heads)
        for group in group_by_examples(heads):
            chosen = [heads[index] for index in group]
            for index, densities in zip(
                group, self._fit_group(features, classes, chosen), strict=True
            ):
                fitted[index] = densities
        found = [densities for densities in fitted if densities]
        return Densities(
            torch.cat([densities.mean for densities in found]),
            torch.cat([densities.variance for densities in found]),
            torch.cat([densities.prior for densities in found]),
        )

    def _fit_group(
        self, features: Tensor, classes: int, heads: Sequence[ProbeSpec]
    ) -> list[Densities]:
        """Heads of the same examples; of each its densities, as of a single head."""
        rows = features[heads[0].examples.to(features.device)].double()
        mean = rows.mean(0)
        rows = rows - mean  # squares of small numbers keep their digits
        labels = labels_of(heads).to(rows.device)
        members = one_hot(labels.cpu(), classes).to(rows.device)
        unit = max(float(rows.var(0, unbiased=False).max()), 1e-12)
        sums = Sums.of(rows, members)
        fitted = []
        for head, smoothing in enumerate(self._best(rows, labels, members, sums, unit)):
            densities = sums.of_head(head).densities(smoothing * unit)
            fitted.append(Densities(densities.mean + mean, densities.variance, densities.prior))
        return fitted

    def _best(
        self, rows: Tensor, labels: Tensor, members: Tensor, sums: Sums, unit: float
    ) -> list[float]:
        """The smoothing of every head."""
        candidates = sorted(self.smoothing, reverse=True)
        right = torch.zeros(len(candidates), len(labels))
        if len(candidates) == 1:
            return candidates * len(labels)
        for head, of_head in enumerate(labels):
            fold_of = fold_of_examples(of_head.cpu(), self.folds)
            for fold in [] if fold_of is None else fold_of.unique():
                assert fold_of is not None, "there are folds"
                held = (fold_of == fold).to(rows.device)
                rest = sums.of_head(head).minus(Sums.of(rows[held], members[[head]][:, :, held]))
                for index, smoothing in enumerate(candidates):
                    voted = rest.densities(smoothing * unit).logits(rows[held], 0).argmax(1)
                    right[index, head] += (voted == of_head[held]).sum().cpu()
        return [candidates[index] for index in right.argmax(0).tolist()]


@gin.register
@dataclass(frozen=True)
class BernoulliNaiveBayes(FeatureClassifier):
    """Dimensions are active or not, independently in every class.

    A linear classifier of what is active, with one count added to either side (Laplace).

    above: a dimension is active where it is larger. Codes that were rectified are inactive at 0;
        of other features it is the sign that counts.
    """

    above: float = 0.0

    def fit(self, features: Tensor, classes: int, heads: Sequence[ProbeSpec]) -> OfActivity:
        is_active = features > self.above
        if bool((is_active == is_active[0]).all()):
            raise StageError(
                f"BernoulliNaiveBayes has nothing to learn from: no dimension is above "
                f"{self.above:g} for some training images and not for others"
            )

        def fit(rows: Tensor, labels: Tensor) -> BatchedProbes:
            members = one_hot(labels, classes).to(rows.device)
            count = members.sum(2)
            on = (members @ rows.double() + 1) / (count[:, :, None] + 2)
            prior = (count / count.sum(1, keepdim=True)).log()
            weight = on.log() - (1 - on).log()
            bias = prior + (1 - on).log().sum(2)
            return BatchedProbes(weight.transpose(1, 2), bias)

        return OfActivity(self.above, fit_by_group(is_active, heads, fit))


@dataclass(frozen=True)
class OfActivity:
    """Linear classifiers of whether dimensions are active."""

    above: float
    linear: BatchedProbes

    def logits(self, features: Tensor, position: int) -> Tensor:
        """(n, d) -> (n, classes)."""
        return self.linear.logits((features > self.above).double(), position)
