"""The autoencoder: a wide, sparse code of given features; and the sparsifier that makes it sparse.

A kind of autoencoder is a `Sparsifier`, which is plain data. It builds a `Rule`, a module that
keeps what the kind learns or counts besides the weights. All kinds share one `Autoencoder`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monosem.autoencoders.errors import ReconstructionError, RelativeError
from monosem.core.fields import Part


@dataclass(frozen=True)
class Sparsifier(Part):
    """What makes latents sparse: a rule that sets some to 0, a cost of active ones, or both.

    One that needs no state says `activate` or `cost` and has nothing to build.
    """

    def check_width(self, latents: int) -> None:
        """Refuse fields that do not go with that number of latents."""

    def activate(self, pre: Tensor) -> Tensor:
        """(n, latents) pre-activations -> (n, latents) non-negative latents."""
        return F.relu(pre)

    def cost(self, latents: Tensor, decoder: Tensor) -> Tensor:
        """A scalar that is added to the reconstruction loss.

        latents: (n, latents).
        decoder: (d, latents), its weights.
        """
        return latents.new_zeros(())

    def build(self, latents: int) -> Rule:
        """The rule with its first state."""
        return Rule(self)


class Activation(NamedTuple):
    """What a rule makes of n rows.

    pre: (n, latents), what it decided by: latents are on where this is large.
    latents: (n, latents), not negative.
    """

    pre: Tensor
    latents: Tensor


class Code(NamedTuple):
    """The output of an autoencoder for n rows.

    pre, latents: (n, latents), see `Activation`.
    reconstructions: each (n, d); the last one is that of all latents. Most kinds have no others.
    """

    pre: Tensor
    latents: Tensor
    reconstructions: tuple[Tensor, ...]

    @property
    def reconstruction(self) -> Tensor:
        return self.reconstructions[-1]


class Rule(nn.Module):
    """How latents come about, and what they cost: a sparsifier with the state that it needs.

    Parameters and buffers are saved with the weights of the autoencoder, under `rule`. In training
    mode it may look at the whole batch and count; in evaluation mode a row's latents depend on
    nothing but the row.
    """

    def __init__(self, sparsity: Sparsifier):
        super().__init__()
        self.sparsity = sparsity

    def forward(self, projected: Tensor, bias: Tensor) -> Activation:
        """projected: (n, latents), W_e (x - pre_bias). bias: (latents,), latent_bias."""
        pre = projected + bias
        return Activation(pre, self.sparsity.activate(pre))

    @property
    def turn_on(self) -> Tensor:
        """Where latents turn on: above which pre-activation; (latents,), or () for all."""
        return torch.zeros(())

    def reconstructions(self, autoencoder: Autoencoder, latents: Tensor) -> tuple[Tensor, ...]:
        """See `Code`."""
        return (autoencoder.decode(latents),)

    def cost(self, autoencoder: Autoencoder, x: Tensor, code: Code) -> Tensor:
        """A scalar: the price of sparsity and further losses of this kind.

        x: (n, d). code: the output of the autoencoder for it.
        """
        return self.sparsity.cost(code.latents, autoencoder.decoder.weight)


class Autoencoder(nn.Module):
    """A sparse autoencoder with weights of its own for the decoder.

        latents = rule(W_e (x - pre_bias) + latent_bias)
        reconstruction = W_d latents + pre_bias

        x            (n, d)
        W_e          (latents, d)
        W_d          (d, latents)

    Biases start at zero and weights at nn.Linear's default, as in the authors' code; see starts.py
    for others.

    idle: (latents,) int64, training steps since each latent was last active. It is used to count
        dead latents.
    """

    idle: Tensor

    def __init__(
        self,
        d: int,
        latents: int,
        sparsity: Sparsifier,
        error: ReconstructionError = RelativeError(),  # noqa: B008, frozen
    ):
        super().__init__()
        self.sparsity, self.error = sparsity, error
        self.pre_bias = nn.Parameter(torch.zeros(d))
        self.latent_bias = nn.Parameter(torch.zeros(latents))
        self.encoder = nn.Linear(d, latents, bias=False)
        self.decoder = nn.Linear(latents, d, bias=False)
        self.rule = sparsity.build(latents)
        self.register_buffer("idle", torch.zeros(latents, dtype=torch.int64))

    def activation(self, x: Tensor) -> Activation:
        """(n, d) -> pre-activations and latents, each (n, latents)."""
        activation: Activation = self.rule(self.encoder(x - self.pre_bias), self.latent_bias)
        return activation

    def encode(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, latents)."""
        return self.activation(x).latents

    def decode(self, latents: Tensor) -> Tensor:
        """(n, latents) -> (n, d)."""
        return self.decoder(latents) + self.pre_bias

    def forward(self, x: Tensor) -> Code:
        pre, latents = self.activation(x)
        return Code(pre, latents, self.rule.reconstructions(self, latents))

    def loss(self, x: Tensor, code: Code) -> Tensor:
        """The error of every reconstruction, summed, and the price of sparsity.

        x: (n, d).
        code: the output of `forward` for it.
        """
        first, *others = (self.error(each - x, x) for each in code.reconstructions)
        return sum(others, first) + self.rule.cost(self, x, code)
