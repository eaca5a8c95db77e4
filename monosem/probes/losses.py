"""Losses of probes: of each example by itself. Two of them are made for wrong labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import gin
import torch.nn.functional as F
from torch import Tensor

from monosem.core.fields import AtLeastZero, Part, Range


@dataclass(frozen=True)
class ProbeLoss(Part):
    """What a probe minimises, example by example."""

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """logits: (m, classes), labels: (m,). Returns (m,)."""
        raise NotImplementedError

    def mean(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over the examples, ()."""
        return self(logits, labels).mean()


@gin.register
@dataclass(frozen=True)
class CrossEntropy(ProbeLoss):
    """-log p of the label."""

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none")

    def mean(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels)  # torch's own mean has other last bits


@gin.register
@dataclass(frozen=True)
class SymmetricCrossEntropy(ProbeLoss):
    """alpha * cross-entropy + beta * reverse cross-entropy (Wang et al. 2019, arXiv:1908.06112).

    The reverse one exchanges prediction and label, with log 0 := A: it is -A (1 - p of the label).

    alpha: of the cross-entropy, 0 or more. Published: 0.1 for CIFAR-10, 6 for CIFAR-100.
    beta: of the reverse one, 0 or more. Published: 1 for CIFAR-10, 0.1 for CIFAR-100.
    A: what log 0 counts as, below 0. The authors' code has log 1e-4, which is -9.21.
    """

    alpha: AtLeastZero = 0.1
    beta: AtLeastZero = 1.0
    A: float = -4.0

    def validate(self) -> None:
        if self.A >= 0:
            self.refuse("A", f"must be below 0, as log 0 is, got {self.A:g}")
        if self.alpha == self.beta == 0:
            self.refuse("beta", "must be above 0 where alpha is 0, got 0: nothing is learned")

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = _log_of_label(logits, labels)
        return -self.alpha * log_p - self.beta * self.A * (1 - log_p.exp())


@gin.register
@dataclass(frozen=True)
class GeneralisedCrossEntropy(ProbeLoss):
    """(1 - p^q) / q of the label (Zhang and Sabuncu 2018, arXiv:1805.07836, equation 6).

    q: from 0, where it becomes the cross-entropy, to 1, the mean absolute error.
    """

    q: Annotated[float, Range(0, 1, open=True)] = 0.7

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return -(self.q * _log_of_label(logits, labels)).expm1() / self.q


@gin.register
@dataclass(frozen=True)
class LabelSmoothing(ProbeLoss):
    """Cross-entropy with softened labels (Szegedy et al. 2016, arXiv:1512.00567, section 7).

    epsilon: the share of a label that is spread evenly over all classes, from 0 to 1.
    """

    epsilon: Annotated[float, Range(0, 1)] = 0.1

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = F.log_softmax(logits, dim=1)
        of_label = log_p.gather(1, labels[:, None])[:, 0]
        return -(1 - self.epsilon) * of_label - self.epsilon * log_p.mean(1)


def _log_of_label(logits: Tensor, labels: Tensor) -> Tensor:
    """(m,) log p of the label."""
    return F.log_softmax(logits, dim=1).gather(1, labels[:, None])[:, 0]
