"""Sparse autoencoders: a wide, sparse code of given features, and what makes it sparse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import gin
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monosem.core.fields import AtLeastZero, Count, Part


@dataclass(frozen=True)
class Sparsifier(Part):
    """What makes latents sparse: a rule that sets some to 0, a cost of active ones, or both."""

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


@gin.register
@dataclass(frozen=True)
class TopK(Sparsifier):
    """Keep the k largest pre-activations of each row and rectify them.

    From Makhzani & Frey (arXiv:1312.5663) and Gao et al. (arXiv:2406.04093).

    k: latents that may be active at once; the authors' code has 256 of 2048. Fewer are active where
        one of the k is negative.
    """

    k: Count = 256

    def check_width(self, latents: int) -> None:
        if self.k > latents:
            self.refuse("k", f"must be at most the number of latents, {latents}, got {self.k}")

    def activate(self, pre: Tensor) -> Tensor:
        top, where = pre.topk(self.k, dim=-1)
        return torch.zeros_like(pre).scatter(-1, where, F.relu(top))


@gin.register
@dataclass(frozen=True)
class L1(Sparsifier):
    """A price on activity: penalty * mean_rows sum_j latent_j * ||decoder column j||.

    The column norms make it the price of what a latent contributes to the reconstruction. So
    nothing is gained by smaller latents and a larger decoder, which change nothing else (Anthropic,
    Circuits Updates, April 2024).

    penalty: the price of a unit of activity.
    """

    penalty: AtLeastZero = 1e-3

    def cost(self, latents: Tensor, decoder: Tensor) -> Tensor:
        return self.penalty * (latents @ decoder.norm(dim=0)).mean()


class Code(NamedTuple):
    """The output of an autoencoder for n rows.

    latents: (n, latents), not negative.
    reconstruction: (n, d).
    """

    latents: Tensor
    reconstruction: Tensor


class Autoencoder(nn.Module):
    """A sparse autoencoder with weights of its own for the decoder.

        latents = sparsity(W_e (x - pre_bias) + latent_bias)
        reconstruction = W_d latents + pre_bias

        x            (n, d)
        W_e          (latents, d)
        W_d          (d, latents)

    Biases start at zero and weights at nn.Linear's default, as in the authors' code.

    idle: (latents,) int64, training steps since each latent was last active. It is used to count
        dead latents.
    """

    idle: Tensor

    def __init__(self, d: int, latents: int, sparsity: Sparsifier):
        super().__init__()
        self.sparsity = sparsity
        self.pre_bias = nn.Parameter(torch.zeros(d))
        self.latent_bias = nn.Parameter(torch.zeros(latents))
        self.encoder = nn.Linear(d, latents, bias=False)
        self.decoder = nn.Linear(latents, d, bias=False)
        self.register_buffer("idle", torch.zeros(latents, dtype=torch.int64))

    def encode(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, latents)."""
        return self.sparsity.activate(self.encoder(x - self.pre_bias) + self.latent_bias)

    def forward(self, x: Tensor) -> Code:
        latents = self.encode(x)
        return Code(latents, self.decoder(latents) + self.pre_bias)

    def loss(self, x: Tensor, code: Code) -> Tensor:
        """mean_rows( mean_d (reconstruction - x)^2 / mean_d x^2 ) + the price of sparsity.

        Rows of zeros have no scale and are left out.

        x: (n, d).
        code: the output of `forward` for it.
        """
        energy = (x**2).mean(-1)
        error = ((code.reconstruction - x) ** 2).mean(-1)
        relative_error = error[energy > 0] / energy[energy > 0]
        reconstruction_loss = relative_error.sum() / max(len(relative_error), 1)
        return reconstruction_loss + self.sparsity.cost(code.latents, self.decoder.weight)
