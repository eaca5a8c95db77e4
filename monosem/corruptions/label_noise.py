"""Wrong labels in the training set of a probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gin
import torch
from torch import Generator, Tensor

from monosem.core.fields import Fraction
from monosem.corruptions.base import Corruption


@gin.register
@dataclass(frozen=True)
class LabelNoise(Corruption):
    """Symmetric label noise: exactly the given share of the training labels is wrong.

    That is round(severity * n) labels. A wrong label is uniform over the other classes and never
    the true one.
    """

    severities: ClassVar[Any] = Fraction

    @property
    def axis(self) -> str:
        return "wrong training labels (share)"

    def labels(self, labels: Tensor, classes: int, severity: float, generator: Generator) -> Tensor:
        n = len(labels)
        wrong = torch.randperm(n, generator=generator)[: round(severity * n)]
        shift = torch.randint(1, max(classes, 2), (n,), generator=generator)
        noisy_labels = labels.clone()
        noisy_labels[wrong] = (labels[wrong] + shift[wrong]) % classes
        return noisy_labels
