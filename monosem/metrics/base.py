"""Monosemanticity of features, in matrix form over what was cached.

A metric maps what is seen of a split to named numbers: one for the representation, or one a dimension, of which the mean is then
the representation's. Dimensions are *dead* where they are 0 on every image, *constant* where they hold one other value on all of
them, else they vary. Each metric says of which dimensions it speaks; the others are left out of means, hold 0 and are never nan.
Where there is none to speak of, a mean is 0. Sources: NCL is Wang et al., arXiv:2403.12459 (main_eval.py of its code); BI is the
log_stats of the code of arXiv:2410.21331.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from monosem.core.fields import Part

CHUNK = 2048  # rows or columns at a time, which bounds memory


class FeatureBatch(NamedTuple):
    """What a metric sees. features: (n, d); labels: (n,); judged: (n, e), how a judge that had no part in the features sees the
    same images; factors: the level of each factor that made the images, (n,) by name, where that is known."""

    features: Tensor
    labels: Tensor
    reference_features: Tensor
    factors: Mapping[str, Tensor] = MappingProxyType({})


class PerDimension(NamedTuple):
    """values: (d,) float64, one a dimension; said: (d,) booleans, of which dimensions. The others hold 0."""

    values: Tensor
    valid: Tensor

    @property
    def mean(self) -> float:
        return _mean(self.values[self.valid])


MetricResult = float | PerDimension


@dataclass(frozen=True)
class Metric(Part):
    """Something measured on the features of a split.

    better: of what it finds dimension by dimension, whether 'high' or 'low' values are monosemantic; what is not named is neither.
    """

    better: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __call__(self, seen: FeatureBatch) -> dict[str, MetricResult]:
        raise NotImplementedError


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if values.numel() else 0.0


def per_dimension(values: Tensor, valid: Tensor) -> PerDimension:
    return PerDimension(torch.where(valid, values.double(), 0.0), valid)


def live(features: Tensor) -> Tensor:
    """(n, d) -> (d,) booleans: dimensions that are not zero everywhere."""
    return features.abs().amax(0) > 0


def varying(features: Tensor) -> Tensor:
    """(n, d) -> (d,) booleans: dimensions that are not the same on every image; neither dead nor constant."""
    return features.amax(0) > features.amin(0)


def rows_of(n: int) -> Iterator[slice]:
    return (slice(first, first + CHUNK) for first in range(0, n, CHUNK))
