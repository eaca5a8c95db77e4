"""Damage to the features of test examples: failed dimensions, few bits, few dimensions sent.

A probe learns from features as they are and is tested on damaged ones. Nothing is encoded anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gin
import torch
from torch import Generator, Tensor

from monosem.core.fields import Fraction
from monosem.corruptions.base import Corruption

MOST_BITS = 12  # of a dimension; beyond, accuracy is that of features as they are
VALUE_BITS = 32  # of a feature in single precision


@dataclass(frozen=True)
class FeatureDamage(Corruption):
    """A change of the features of every test example; it overrides the hook `features`."""


@gin.register
@dataclass(frozen=True)
class DroppedDimensions(FeatureDamage):
    """A share of the dimensions fails at test time and is 0 for all examples.

    severity: that share; of d dimensions it is round(severity * d), drawn at random. Those that
        fail at a severity fail at every larger one.
    """

    severities: ClassVar[Any] = Fraction

    @property
    def axis(self) -> str:
        return "dimensions that fail at test time (share)"

    def features(
        self, features: Tensor, training: Tensor, severity: float, generator: Generator
    ) -> Tensor:
        width = features.shape[1]
        failed = torch.randperm(width, generator=generator)[: round(severity * width)]
        damaged = features.clone()
        damaged[:, failed.to(features.device)] = 0
        return damaged


@dataclass(frozen=True)
class Compressed(FeatureDamage):
    """Damage that makes an example smaller: it is known what storing or sending one takes.

    bits: what an example takes where all are stored alike.
    coded_bits: the same where what is frequent is short, a bound that good codes come near to.
    """

    measures: ClassVar[tuple[str, ...]] = ("bits", "coded_bits")


@gin.register
@dataclass(frozen=True)
class RoundedFeatures(Compressed):
    """Every dimension is rounded to b bits.

    The range of a dimension on the training examples is cut into 2^b cells of equal width, and a
    feature is read as the mean of the training features in its cell, or as the middle of a cell
    that has none. A cell at b + 1 bits is half of one at b bits. Test features beyond the range
    are in the first or last cell.

    severity: b, a whole number from 1 to 12.
    bits: b times the number of dimensions.
    coded_bits: the sum over dimensions of the entropy of their cells on the test examples.
    """

    @property
    def axis(self) -> str:
        return "bits of a dimension"

    def check_severity(self, severity: float, labels: Tensor) -> None:
        if not (severity.is_integer() and 1 <= severity <= MOST_BITS):
            raise ValueError(
                f"must be whole numbers of bits between 1 and {MOST_BITS}, got {severity:g}"
            )

    def features(
        self, features: Tensor, training: Tensor, severity: float, generator: Generator
    ) -> Tensor:
        cells = 2 ** int(severity)
        low, high = training.double().aminmax(dim=0)
        width = ((high - low) / cells).clamp(min=1e-300)

        def cell_of(values: Tensor) -> Tensor:
            return ((values.double() - low) / width).floor().clamp(0, cells - 1).long()

        of_training = cell_of(training)
        shape = cells, features.shape[1]
        total = torch.zeros(shape, dtype=torch.float64, device=features.device)
        total.scatter_add_(0, of_training, training.double())
        count = torch.zeros_like(total).scatter_add_(
            0, of_training, torch.ones_like(training, dtype=torch.float64)
        )
        middle = low + width * (torch.arange(cells, device=features.device)[:, None] + 0.5)
        read_as = torch.where(count > 0, total / count.clamp(min=1), middle)
        return read_as.gather(0, cell_of(features)).to(features.dtype)

    def measure(self, features: Tensor, severity: float) -> Mapping[str, float]:
        n, width = features.shape
        entropy = 0.0
        for column in features.T:
            shares = column.unique(return_counts=True)[1].double() / n
            entropy -= float((shares * shares.log2()).sum())
        return {"bits": severity * width, "coded_bits": entropy}


@gin.register
@dataclass(frozen=True)
class LargestOnly(Compressed):
    """Of every example only the m features of largest absolute value are kept, the others are 0.

    Those that are kept at a severity are kept at every larger one.

    severity: m, a whole number from 1 to the number of dimensions d.
    bits: 32 for each of the m values, and log2 of d choose m for which they are.
    coded_bits: the same of those that are not 0, which need not be sent; the mean over examples.
    """

    @property
    def axis(self) -> str:
        return "dimensions of an example that are kept"

    def check_severity(self, severity: float, labels: Tensor) -> None:
        if not (severity.is_integer() and severity >= 1):
            raise ValueError(f"must be whole numbers of dimensions, at least 1, got {severity:g}")

    def check_width(self, severity: float, width: int) -> None:
        if severity > width:
            raise ValueError(
                f"must be at most {width}, the features of the encoder, got {severity:g}"
            )

    def features(
        self, features: Tensor, training: Tensor, severity: float, generator: Generator
    ) -> Tensor:
        order = features.abs().argsort(dim=1, descending=True, stable=True)
        kept = order[:, : int(severity)]
        return torch.zeros_like(features).scatter_(1, kept, features.gather(1, kept))

    def measure(self, features: Tensor, severity: float) -> Mapping[str, float]:
        n, width = features.shape
        sent = (features != 0).sum(1).bincount().tolist()
        coded = sum(count * _sent_bits(m, width) for m, count in enumerate(sent)) / n
        return {"bits": _sent_bits(int(severity), width), "coded_bits": coded}


def _sent_bits(m: int, width: int) -> float:
    """Of m values of some of `width` dimensions, and of which dimensions they are."""
    return m * VALUE_BITS + math.log2(math.comb(width, m))
