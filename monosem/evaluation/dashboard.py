"""What there is to see of a representation: the images that each dimension answers to, and the shape of the space."""

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


CORRELATED = 256  # dimensions at most whose correlations are kept


def most_activating(chunks: Iterable[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Chunks (c, d) of the rows of a split, in order -> the k largest activations of every dimension, (k, d), the largest first, and which
    rows have them; the earlier row where two are equal. No more than a chunk and k rows are held; of fewer rows there are fewer."""
    values, rows, start = torch.empty(0), torch.empty(0), 0
    for chunk in chunks:
        index = torch.arange(start, start + len(chunk), device=chunk.device)[:, None].expand_as(
            chunk
        )
        values, rows = (
            torch.cat(pair) if start else pair[1] for pair in ((values, chunk), (rows, index))
        )
        values, order = values.sort(dim=0, descending=True, stable=True)
        values, rows, start = values[:k].clone(), rows.gather(0, order[:k]), start + len(chunk)
    return values, rows


@dataclass(frozen=True, kw_only=True)
class FeatureDashboard(Stage):
    """What pictures of a representation are drawn from, on the clean test split.

    images: of those that activate a dimension most. Artifact, for n images, d dimensions and c classes:
    top, activation: (images, d), which images activate a dimension most and how much; class_map: (c, d), mean activations;
    active: (d,), the share of images where a dimension is not 0; low, high: (d,), its range;
    histogram: (2, bins, d), how often it takes which value from low to high, on images of the class with the largest mean and on
    all others; order: (m,), at most 256 live dimensions, the most active ones; correlation: (m, m), their cosines.
    """

    encoder: Representation
    data: Dataset
    images: Count

    def upstream(self) -> tuple[Stage, ...]:
        return (Features(self.encoder, self.data, "test"),)

    def run(self, job: Job) -> Artifact:
        (stage,) = self.upstream()
        features = job.get(stage)["features"].to(device())
        labels = self.data.split("test").labels.to(features.device)
        activation, top = most_activating(
            (features[rows] for rows in rows_of(len(features))), self.images
        )
        alive = live(features)
        order = torch.tensor(
            [each for each in by_activity(features).tolist() if alive[each]][:CORRELATED],
            dtype=torch.int64,
        )
        means = class_means(features, labels)
        return {
            "top": top, "activation": activation, "class_map": means,
            "active": (features != 0).double().mean(0), "low": features.amin(0), "high": features.amax(0),
            "histogram": histograms(features, labels[:, None] == means.argmax(0)), "order": order,
            "correlation": correlations(features[:, order.to(features.device)]),
        }  # fmt: skip


def histograms(features: Tensor, own: Tensor) -> Tensor:
    """(n, d) and (n, d) booleans -> (2, bins, d) counts of the values of a dimension, between its smallest and largest, where own is
    True and where it is not."""
    low, high = features.amin(0), features.amax(0)
    place = ((features - low) / (high - low).clamp(min=1e-30) * BINS).long().clamp(max=BINS - 1)
    counts = torch.zeros(2, BINS, features.shape[1], dtype=torch.int64, device=features.device)
    for number, where in enumerate((own, ~own)):
        counts[number].scatter_add_(0, place, where.long())
    return counts
