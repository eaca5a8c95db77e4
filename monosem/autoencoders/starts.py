"""How an autoencoder starts and what keeps it in shape.

First weights, first bias, columns of norm 1, and controls, whose weights stay random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gin
import torch
from torch import Tensor

from monosem.autoencoders.base import Autoencoder
from monosem.core.fields import Count, Fraction, Part, Positive


@gin.register
@dataclass(frozen=True)
class Times(Part):
    """A number as a multiple of a width: Times(8) of 512 features is 4096.

    factor: of the width; the result is rounded, and 1 or more.
    """

    factor: Positive

    def of(self, width: int) -> int:
        return max(round(self.factor * width), 1)


@gin.register
@dataclass(frozen=True)
class InitialWeights(Part):
    """The weights that training starts from: nn.Linear's default, as in the authors' code."""

    def __call__(self, autoencoder: Autoencoder) -> None:
        """Change the weights in place; random numbers are drawn from torch's CPU generator."""


@gin.register
@dataclass(frozen=True)
class TransposedDecoder(InitialWeights):
    """Decoder columns point in random directions, and the encoder is the decoder transposed.

    From Anthropic (Circuits Updates, April 2024) and Gao et al. (arXiv:2406.04093, appendix A.1).

    norm: of the decoder's columns; Gao et al. have 1, Anthropic 0.1.
    """

    norm: Positive = 1.0

    @torch.no_grad()
    def __call__(self, autoencoder: Autoencoder) -> None:
        weight = autoencoder.decoder.weight
        columns = torch.randn(weight.shape)
        weight.copy_(self.norm * columns / columns.norm(dim=0))
        autoencoder.encoder.weight.copy_(weight.T)


@gin.register
@dataclass(frozen=True)
class Centre(Part):
    """What the bias of the decoder, which features are centred by, starts at: zero."""

    def place(self, bias: Tensor, sample: Callable[[], Tensor]) -> None:
        """Change the bias (d,) in place. sample: gives some of the training features, (n, d)."""


@gin.register
@dataclass(frozen=True)
class GeometricMedian(Centre):
    """The point with the smallest sum of distances to the features (Bricken et al., 2023).

    By Weiszfeld's algorithm from their mean.

    rounds: of the algorithm.
    """

    rounds: Count = 100

    @torch.no_grad()
    def place(self, bias: Tensor, sample: Callable[[], Tensor]) -> None:
        rows = sample().double()
        median = rows.mean(0)
        for _ in range(self.rounds):
            nearness = 1 / (rows - median).norm(dim=1).clamp(min=1e-12)
            median = nearness @ rows / nearness.sum()
        bias.copy_(median)


@gin.register
@dataclass(frozen=True)
class UnitColumns(Part):
    """Every column of the decoder has norm 1, after every step.

    What of the gradient would change a norm is taken out before the step, or Adam would take it for
    progress (Bricken et al., 2023; Gao et al., arXiv:2406.04093, appendix A.1).
    """

    @torch.no_grad()
    def project(self, autoencoder: Autoencoder) -> None:
        """Gradient of column j minus its part along column j, in place."""
        weight = autoencoder.decoder.weight
        if weight.grad is not None:
            along = (weight * weight.grad).sum(0) / (weight**2).sum(0)
            weight.grad -= along * weight

    @torch.no_grad()
    def normalise(self, autoencoder: Autoencoder) -> None:
        weight = autoencoder.decoder.weight
        weight /= weight.norm(dim=0)


@dataclass(frozen=True)
class Control(Part):
    """An autoencoder of which a part stays random: what training is worth, others are compared to.

    From Korznikov et al. (arXiv:2602.14111), who find that these come close to trained ones in
    interpretability, probing and causal edits. What is said below of weights holds for their first
    ones; all biases learn.
    """

    def freeze(self, autoencoder: Autoencoder) -> None:
        """Say which parameters do not learn, in place."""

    def keep(self, autoencoder: Autoencoder, first: Tensor) -> None:
        """Called after every step; may change weights in place. first: (d, latents), decoder's."""


@gin.register
@dataclass(frozen=True)
class FrozenEncoder(Control):
    """The encoder's weights never move: which inputs a latent answers to is random."""

    def freeze(self, autoencoder: Autoencoder) -> None:
        autoencoder.encoder.requires_grad_(False)


@gin.register
@dataclass(frozen=True)
class FrozenDecoder(Control):
    """The decoder's weights never move: the directions that latents stand for are random."""

    def freeze(self, autoencoder: Autoencoder) -> None:
        autoencoder.decoder.requires_grad_(False)


@gin.register
@dataclass(frozen=True)
class SoftFrozenDecoder(Control):
    """The decoder's columns stay near their first directions: cos(column, first) >= cosine.

    A column w that has turned further away from its first direction u is turned back in their plane
    after every step, and keeps its length:

        w <- |w| (cosine u + sqrt(1 - cosine^2) p),   p the unit part of w that is orthogonal to u

    cosine: .8 in the paper.
    """

    cosine: Fraction = 0.8

    @torch.no_grad()
    def keep(self, autoencoder: Autoencoder, first: Tensor) -> None:
        weight = autoencoder.decoder.weight
        norm = weight.norm(dim=0)
        u = first / first.norm(dim=0)
        along = (weight * u).sum(0)
        across = weight - along * u
        p = across / across.norm(dim=0).clamp(min=1e-12)
        nearest = norm * (self.cosine * u + (1 - self.cosine**2) ** 0.5 * p)
        weight.copy_(torch.where(along < self.cosine * norm, nearest, weight))
