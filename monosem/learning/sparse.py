"""Sparse autoencoders: a wide, sparse code of somebody else's features, and what makes it sparse."""

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
    """What keeps latents sparse: a rule that switches them off, a price on those that are on, or both."""

    def check_width(self, latents: int) -> None:
        """Refuse what does not go with so many latents."""

    def activate(self, pre: Tensor) -> Tensor:
        """(n, latents) pre-activations -> (n, latents) non-negative latents."""
        return F.relu(pre)

    def cost(self, latents: Tensor, decoder: Tensor) -> Tensor:
        """What to add to the reconstruction loss. decoder: (d, latents)."""
        return latents.new_zeros(())


@gin.register
@dataclass(frozen=True)
class TopK(Sparsifier):
    """Keep the k largest pre-activations of each row and rectify them (Makhzani & Frey, arXiv:1312.5663; Gao et al., arXiv:2406.04093).

    k: latents that may be on at once; the reference has 256 of 2048. Fewer are on where one of the k is negative.
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

    The column norms make the price that of the contribution to the reconstruction, so that shrinking latents and growing
    the decoder, which changes nothing else, gains nothing (Anthropic, Circuits Updates, April 2024).
    """

    penalty: AtLeastZero = 1e-3

    def cost(self, latents: Tensor, decoder: Tensor) -> Tensor:
        return self.penalty * (latents @ decoder.norm(dim=0)).mean()


class Code(NamedTuple):
    """latents: (n, latents), non-negative; reconstruction: (n, d)."""

    latents: Tensor
    reconstruction: Tensor


class Autoencoder(nn.Module):
    """latents = sparsity(W_e (x - pre_bias) + latent_bias), reconstruction = W_d latents + pre_bias, W_d untied.

    Biases start at zero and weights at nn.Linear's default, as in the reference. x: (n, d).
    idle: (latents,) training steps since each latent was last on; the count of dead latents comes from it.
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
        return self.sparsity.activate(self.encoder(x - self.pre_bias) + self.latent_bias)

    def forward(self, x: Tensor) -> Code:
        latents = self.encode(x)
        return Code(latents, self.decoder(latents) + self.pre_bias)

    def loss(self, x: Tensor, code: Code) -> Tensor:
        """mean_rows( mean_d (reconstruction - x)^2 / mean_d x^2 ) + the price of sparsity. Rows of zeros have no scale: left out."""
        energy = (x**2).mean(-1)
        error = ((code.reconstruction - x) ** 2).mean(-1)[energy > 0] / energy[energy > 0]
        return error.sum() / max(len(error), 1) + self.sparsity.cost(
            code.latents, self.decoder.weight
        )
