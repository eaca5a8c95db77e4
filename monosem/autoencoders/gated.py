"""Kinds with a price on the size of latents: L1, and gates that are told from magnitudes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import gin
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monosem.autoencoders.base import Activation, Autoencoder, Code, Rule, Sparsifier
from monosem.core.fields import AtLeastZero, Range

StepCount = Annotated[int, Range(0)]


class Ramp(nn.Module):
    """A factor that grows from 0 to 1, linearly over the first steps of a training.

    step: () int64, how often it was asked in training mode.
    """

    step: Tensor

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self) -> Tensor:
        if self.training:
            self.step = self.step + 1
        return (self.step / self.steps if self.steps else self.step + 1).clamp(max=1)


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


@gin.register
@dataclass(frozen=True)
class Gated(Sparsifier):
    """Which latents are on, and how much, are two questions with one encoder.

    From Rajamanoharan et al. (arXiv:2404.16014), section 3.2. With p = W_e (x - pre_bias):

        gate = p + latent_bias
        magnitude = exp(magnitude_scale) p + magnitude_bias
        latents = [gate > 0] relu(magnitude)

        cost = penalty mean_rows sum_j relu(gate_j) ||W_d column j||
               + error(W_d relu(gate) + pre_bias - x),   W_d and pre_bias of the last line frozen

    The price is on the gates alone, so it does not shrink the latents. As [gate > 0] has no
    gradient, the second line trains the gates. The paper has columns of norm 1 (UnitColumns); their
    norms in the price make it right for others too.

    penalty: the price of an open gate.
    warmup: steps over which the price grows from 0.
    """

    penalty: AtLeastZero = 1e-3
    warmup: StepCount = 0

    def build(self, latents: int) -> Rule:
        return GatedRule(self, latents)


class GatedRule(Rule):
    """Gated with its second set of biases.

    magnitude_scale: (latents,), r_mag of the paper.
    magnitude_bias: (latents,), b_mag; b_gate is the latent_bias of the autoencoder.
    """

    sparsity: Gated

    def __init__(self, sparsity: Gated, latents: int):
        super().__init__(sparsity)
        self.magnitude_scale = nn.Parameter(torch.zeros(latents))
        self.magnitude_bias = nn.Parameter(torch.zeros(latents))
        self.ramp = Ramp(sparsity.warmup)

    def forward(self, pre: Tensor, bias: Tensor) -> Activation:
        scale = self.magnitude_scale.exp()
        magnitude = torch.addcmul(self.magnitude_bias - scale * bias, pre, scale)
        return Activation(pre, (pre > 0) * F.relu(magnitude))

    def cost(self, autoencoder: Autoencoder, x: Tensor, code: Code) -> Tensor:
        weight = autoencoder.decoder.weight
        gates = F.relu(code.pre)
        price = self.sparsity.penalty * (gates @ weight.norm(dim=0)).mean() * self.ramp()
        frozen = F.linear(gates, weight.detach()) + autoencoder.pre_bias.detach()
        return price + autoencoder.error(frozen - x, x)
