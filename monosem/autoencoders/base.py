"""The autoencoder: a wide, sparse code of given features; and the sparsifier that makes it sparse.

A kind of autoencoder is a `Sparsifier`, which is plain data. It builds a `Rule`, a module that
keeps what the kind learns or counts besides the weights. All kinds share one `Autoencoder`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monosem.autoencoders.errors import ReconstructionError, RelativeError
from monosem.autoencoders.kept import LARGE, Kept, pays, project, reconstruct
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


class Activated(Protocol):
    """What a rule makes of n rows.

    pre: (n, latents), what it decided by: latents are on where this is large.
    latents: (n, latents), not negative.
    """

    @property
    def pre(self) -> Tensor: ...

    @property
    def latents(self) -> Tensor: ...

    def fired(self) -> Tensor:
        """(latents,) int64: how many rows each latent is on for."""
        ...


class Activation(NamedTuple):
    """What most rules make of n rows, see Activated."""

    pre: Tensor
    latents: Tensor

    def fired(self) -> Tensor:
        """(latents,) int64: how many rows each latent is on for."""
        return (self.latents.detach() > 0).sum(0)


class FewActive(NamedTuple):
    """The same where few latents are kept: no matrix of them is made unless it is asked for.

    pre: (n, latents), without a graph.
    values: (kept,), not negative.
    kept: where they lie.
    """

    pre: Tensor
    values: Tensor
    kept: Kept

    @property
    def latents(self) -> Tensor:
        places = self.kept.rows() * self.pre.shape[1] + self.kept.columns
        zeros = self.values.new_zeros(self.pre.numel())
        return zeros.scatter(0, places, self.values).view_as(self.pre)

    def fired(self) -> Tensor:
        on = self.kept.columns[self.values.detach() > 0]
        return torch.bincount(on, minlength=self.pre.shape[1])


class Code(NamedTuple):
    """The output of an autoencoder for n rows.

    activation: its pre-activations and latents.
    reconstructions: each (n, d); the last one is that of all latents. Most kinds have no others.
    """

    activation: Activated
    reconstructions: tuple[Tensor, ...]

    @property
    def pre(self) -> Tensor:
        return self.activation.pre

    @property
    def latents(self) -> Tensor:
        return self.activation.latents

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

    def forward(self, pre: Tensor, bias: Tensor) -> Activated:
        """pre: (n, latents), W_e (x - pre_bias) + bias. bias: (latents,), latent_bias."""
        return Activation(pre, self.sparsity.activate(pre))

    @property
    def few(self) -> int | None:
        """Latents that a row keeps in training, if their number is known; `keep` says which."""
        return None

    def keep(self, pre: Tensor) -> Kept:
        """Which latents are kept in training. pre: (n, latents), without a graph."""
        raise NotImplementedError

    @property
    def turn_on(self) -> Tensor:
        """Where latents turn on: above which pre-activation; (latents,), or () for all."""
        return torch.zeros(())

    @property
    def bounds(self) -> tuple[int, ...]:
        """How many of the first latents each of the reconstructions has, but for the last."""
        return ()

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

    def encode(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, latents)."""
        activation: Activated = self.rule(self._pre(x), self.latent_bias)
        return activation.latents

    def decode(self, latents: Tensor) -> Tensor:
        """(n, latents) -> (n, d)."""
        return self.decoder(latents) + self.pre_bias

    def forward(self, x: Tensor) -> Code:
        few = self.rule.few
        if self.training and few is not None and pays(x, len(self.idle), few):
            return self._code_of_few(x)
        activation: Activated = self.rule(self._pre(x), self.latent_bias)
        bounds = self.rule.bounds
        if not bounds:
            return Code(activation, (self.decode(activation.latents),))
        weight = self.decoder.weight

        def part(low: int, high: int) -> Tensor:
            return F.linear(activation.latents[:, low:high], weight[:, low:high])

        return Code(activation, self._sums(bounds, part))

    def _pre(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, latents), W_e (x - pre_bias) + latent_bias.

        Where there is much to do, the bias goes through W_e alone: no gradient of (n, d) is needed.
        """
        if len(x) * len(self.idle) < LARGE or x.requires_grad:
            return self.encoder(x - self.pre_bias) + self.latent_bias
        weight = self.encoder.weight
        return F.linear(x, weight, self.latent_bias - weight @ self.pre_bias)

    def _code_of_few(self, x: Tensor) -> Code:
        """The same where few latents are kept, see kept.py."""
        centred, weight = x - self.pre_bias, self.encoder.weight
        with torch.no_grad():
            pre = F.linear(centred, weight, self.latent_bias)
            kept = self.rule.keep(pre)
        values = F.relu(project(centred, weight, self.latent_bias, pre, kept))

        def part(low: int, high: int) -> Tensor:
            inside, places = kept.between(low, high)
            return reconstruct(values[places], inside, self.decoder.weight)

        bounds = self.rule.bounds
        if bounds:
            reconstructions = self._sums(bounds, part)
        else:
            reconstructions = (reconstruct(values, kept, self.decoder.weight) + self.pre_bias,)
        return Code(FewActive(pre, values, kept), reconstructions)

    def _sums(
        self, bounds: tuple[int, ...], part: Callable[[int, int], Tensor]
    ) -> tuple[Tensor, ...]:
        """Reconstructions of the first latents, up to each of the bounds and of all.

        part: what the latents from one to another bound contribute, (n, d).
        """
        total: Tensor = self.pre_bias
        reconstructions = []
        for low, high in pairwise((0, *bounds, len(self.idle))):
            total = part(low, high) + total
            reconstructions.append(total)
        return tuple(reconstructions)

    def loss(self, x: Tensor, code: Code) -> Tensor:
        """The error of every reconstruction, summed, and the price of sparsity.

        x: (n, d).
        code: the output of `forward` for it.
        """
        first, *others = (self.error(each - x, x) for each in code.reconstructions)
        return sum(others, first) + self.rule.cost(self, x, code)
