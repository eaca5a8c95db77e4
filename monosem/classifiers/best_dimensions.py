"""A classifier of a few dimensions, and the rules by which they are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import gin
import torch
from torch import Tensor

from monosem.classifiers.kept import FeatureClassifier, one_hot
from monosem.classifiers.logistic import LogisticRegression
from monosem.core.fields import Count, Part
from monosem.data.dataset import Dataset
from monosem.probes.batched_probes import BatchedProbes, ProbeSpec


@dataclass(frozen=True)
class Ranking(Part):
    """Which dimensions are the best, by the labels that a head is given or without any."""

    def scores(self, rows: Tensor, labels: Tensor, classes: int) -> Tensor:
        """(m, d) float64, (m,) -> (d,), the best ones the largest."""
        raise NotImplementedError

    def order(self, rows: Tensor, labels: Tensor, classes: int) -> Tensor:
        """(d,) dimensions, the best first; of equal ones the first."""
        return self.scores(rows, labels, classes).argsort(descending=True, stable=True)


@gin.register
@dataclass(frozen=True)
class AnovaF(Ranking):
    """The F statistic: variance between the means of classes over variance inside classes."""

    def scores(self, rows: Tensor, labels: Tensor, classes: int) -> Tensor:
        centred = rows - rows.mean(0)
        members = one_hot(labels[None].cpu(), classes)[0].to(rows.device)
        count = members.sum(1)
        present = int((count > 0).sum())
        sums = members @ centred
        between = (sums.square() / count.clamp(min=1)[:, None]).sum(0)
        total = centred.square().sum(0)
        inside = (total - between).clamp(min=0) + 1e-12 * total.max() + 1e-300
        return between / inside * (len(rows) - present) / max(present - 1, 1)


@gin.register
@dataclass(frozen=True)
class MutualInformation(Ranking):
    """Between the label and the quantile of the feature, in nats, by counting.

    Equal features, as the zeros of a code, share a bin: the bounds of bins are quantiles, each
    once.

    bins: how many quantiles there are at most.
    """

    bins: Count = 8

    def scores(self, rows: Tensor, labels: Tensor, classes: int) -> Tensor:
        members = one_hot(labels[None].cpu(), classes)[0].to(rows.device)
        levels = torch.linspace(0, 1, self.bins + 1, dtype=rows.dtype, device=rows.device)[1:-1]
        bounds = torch.quantile(rows, levels, dim=0, interpolation="higher").T.contiguous()
        bin_of = torch.searchsorted(bounds, rows.T.contiguous(), right=True)  # (d, m)
        joint = torch.stack(
            [(bin_of == level).double() @ members.T for level in range(self.bins)], 2
        ) / len(rows)  # (d, classes, bins)
        of_bins, of_classes = joint.sum(1, keepdim=True), joint.sum(2, keepdim=True)
        ratio = joint / (of_bins * of_classes).clamp(min=1e-300)
        return (joint * ratio.clamp(min=1e-300).log()).sum((1, 2))


@gin.register
@dataclass(frozen=True)
class MostActive(Ranking):
    """The largest mean of |f| over rows of norm 1, without labels (arXiv:2403.12459, section 4.2).

    There features are not negative.
    """

    def scores(self, rows: Tensor, labels: Tensor, classes: int) -> Tensor:
        return torch.nn.functional.normalize(rows, dim=1).abs().mean(0)


@gin.register
@dataclass(frozen=True)
class FirstDimensions(Ranking):
    """The order that they come in: of principal components that of variance."""

    def scores(self, rows: Tensor, labels: Tensor, classes: int) -> Tensor:
        return -torch.arange(rows.shape[1], dtype=rows.dtype, device=rows.device)


@gin.register
@dataclass(frozen=True)
class EachClass(Ranking):
    """Equally many for each class: in turn, every class takes its best dimension that is left.

    rule: tells the best ones of a class, against all others.
    """

    rule: Ranking = field(default_factory=AnovaF)

    def order(self, rows: Tensor, labels: Tensor, classes: int) -> Tensor:
        orders = [
            iter(self.rule.order(rows, (labels == label).long(), 2).tolist())
            for label in labels.unique().tolist()
        ]
        taken: dict[int, None] = {}
        for _ in range(rows.shape[1]):
            for of_class in orders:
                best = next((dimension for dimension in of_class if dimension not in taken), None)
                if best is not None:
                    taken[best] = None
        return torch.tensor(list(taken), device=rows.device)


@gin.register
@dataclass(frozen=True)
class BestDimensions(FeatureClassifier):
    """Logistic regression on few dimensions, which every head chooses by the labels it is given.

    dimensions: how many are kept.
    rule: which are the best.
    classifier: of those that are kept.
    """

    dimensions: Count = 16
    rule: Ranking = field(default_factory=AnovaF)
    classifier: LogisticRegression = field(default_factory=LogisticRegression)

    def check_data(self, data: Dataset) -> None:
        self.classifier.check_data(data)

    def check_width(self, width: int) -> None:
        if self.dimensions > width:
            self.refuse(
                "dimensions",
                f"must be at most {width}, the features of the encoder, got {self.dimensions}",
            )

    def fit(self, features: Tensor, classes: int, heads: Sequence[ProbeSpec]) -> BatchedProbes:
        self.check_width(features.shape[1])
        weight = features.new_zeros(len(heads), features.shape[1], classes)
        bias = features.new_zeros(len(heads), classes)
        for index, head in enumerate(heads):
            examples = head.examples.to(features.device)
            rows, labels = features[examples].double(), head.labels[head.examples]
            order = self.rule.order(rows, labels.to(rows.device), classes)[: self.dimensions]
            fitted = self.classifier.fit(features[:, order], classes, [head])
            weight[index, order], bias[index] = fitted.weight[0], fitted.bias[0]
        return BatchedProbes(weight, bias)
