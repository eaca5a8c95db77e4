"""The stage behind the gallery: the examples that each dimension answers to, and the shape of the
space. It draws nothing and does not know what an example looks like."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from monosem.core.device import device
from monosem.core.fields import Count
from monosem.core.stage import Artifact, Job, Stage
from monosem.data.dataset import Dataset
from monosem.metrics.base import live, rows_of
from monosem.metrics.classes import class_means
from monosem.metrics.space import by_activity, correlations
from monosem.models.features import Features
from monosem.models.representation import Representation

BINS = 40  # of the histograms
MOST_CORRELATED = 256  # dimensions at most whose correlations are kept


@dataclass(frozen=True, kw_only=True)
class FeatureDashboard(Stage):
    """What there is to see of a representation's dimensions on the clean test split.

    encoder: the representation, of d dimensions.
    data: its test split is shown, of n examples in c classes.
    examples: how many of those that activate a dimension most are kept.

    Artifact:
        top          (examples, d)  which examples activate a dimension most, the most first
        activation   (examples, d)  how much they do
        class_map    (c, d)         mean activation on each class
        active       (d,)           share of the examples where a dimension is not 0
        low, high    (d,)           smallest and largest value of a dimension
        histogram    (2, BINS, d)   how often a dimension takes which value from low to high:
                                    on the class where its mean is largest, and on all others
        order        (m,)           m <= 256 live dimensions, the most active first
        correlation  (m, m)         cosines between these dimensions
    """

    encoder: Representation
    data: Dataset
    examples: Count

    def upstream(self) -> tuple[Stage, ...]:
        return (Features(self.encoder, self.data, "test"),)

    def run(self, job: Job) -> Artifact:
        (stage,) = self.upstream()
        features = job.get(stage)["features"].to(device())
        labels = self.data.split("test").labels.to(features.device)
        chunks = (features[rows] for rows in rows_of(len(features)))
        activation, top = most_activating(chunks, self.examples)
        means = class_means(features, labels)
        order = most_active_live(features, MOST_CORRELATED)
        return {
            "top": top,
            "activation": activation,
            "class_map": means,
            "active": (features != 0).double().mean(0),
            "low": features.amin(0),
            "high": features.amax(0),
            "histogram": histograms(features, labels[:, None] == means.argmax(0)),
            "order": order,
            "correlation": correlations(features[:, order]),
        }


def most_activating(chunks: Iterable[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The k largest activations of every dimension, and the rows that have them.

    chunks: (c, d) each, the rows of a split in order. A chunk and k rows are held at a time.
    Returns values and row indices, both (k, d), the largest first; the earlier row where two are
    equal. Of fewer than k rows there are fewer.
    """
    top_values, top_rows = torch.empty(0), torch.empty(0)
    seen = 0
    for chunk in chunks:
        if seen == 0:
            top_values, top_rows = chunk[:0], chunk[:0].long()
        indices = torch.arange(seen, seen + len(chunk), device=chunk.device)
        values = torch.cat((top_values, chunk))
        rows = torch.cat((top_rows, indices[:, None].expand_as(chunk)))
        values, order = values.sort(dim=0, descending=True, stable=True)
        top_values = values[:k].clone()  # a slice would hold the whole
        top_rows = rows.gather(0, order[:k])
        seen += len(chunk)
    return top_values, top_rows


def most_active_live(features: Tensor, most: int) -> Tensor:
    """(n, d) -> (m,) dimensions that are not 0 everywhere, the most active ones, these first."""
    order = by_activity(features)
    return order[live(features)[order]][:most]


def histograms(features: Tensor, own: Tensor) -> Tensor:
    """How often each dimension takes which value, between its smallest and its largest.

    features: (n, d).
    own: (n, d) booleans.
    Returns (2, BINS, d) counts: of the values where own is True, and of the others.
    """
    low, high = features.amin(0), features.amax(0)
    scaled = (features - low) / (high - low).clamp(min=1e-30)
    bins = (scaled * BINS).long().clamp(max=BINS - 1)
    counts = torch.zeros(2, BINS, features.shape[1], dtype=torch.int64, device=features.device)
    counts[0].scatter_add_(0, bins, own.long())
    counts[1].scatter_add_(0, bins, (~own).long())
    return counts
