"""JumpReLU: a learnt threshold for each latent, and three prices on how many are on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import gin
import torch
from torch import Tensor, nn

from monosem.autoencoders.base import Activation, Autoencoder, Code, Rule, Sparsifier
from monosem.autoencoders.gated import Ramp, StepCount
from monosem.core.fields import AtLeastZero, Part, Positive


class Thresholded(NamedTuple):
    """What a price looks at.

    pre, latents: (n, latents).
    threshold: (latents,).
    norms: (latents,), of the decoder's columns.
    """

    pre: Tensor
    latents: Tensor
    threshold: Tensor
    norms: Tensor


@dataclass(frozen=True)
class Price(Part):
    """What active latents cost."""

    def __call__(self, active: Thresholded, kind: JumpReLU) -> Tensor:
        """A scalar."""
        raise NotImplementedError


@gin.register
@dataclass(frozen=True)
class StepPrice(Price):
    """A price on being on: penalty sum_j p_j, p_j the share of rows with pre_j > threshold_j.

    That is penalty times L0 (Rajamanoharan et al., arXiv:2407.14435, section 4).

    penalty: of an active latent.
    frequency: where set, sum_j p_j (1 + p_j / frequency) instead: latents that are on for more than
        this share of rows cost more than twice (quadratic-frequency penalty, Smith et al., 2025).
    """

    penalty: AtLeastZero = 1e-3
    frequency: Positive | None = None

    def __call__(self, active: Thresholded, kind: JumpReLU) -> Tensor:
        share = kind.step(active.pre, active.threshold).mean(0)
        return self.penalty * _by_frequency(share, self.frequency)


@gin.register
@dataclass(frozen=True)
class TanhPrice(Price):
    """penalty mean_rows sum_j tanh(scale latent_j ||W_d column j||) (Anthropic, January 2025).

    It is near L0 where latents are large and has a slope where they are small.

    penalty: of an active latent.
    scale: of the tanh; Anthropic have 4, for features of a mean squared norm of d.
    frequency: as of StepPrice, p_j the mean of the tanh.
    """

    penalty: AtLeastZero = 1e-3
    scale: Positive = 4.0
    frequency: Positive | None = None

    def __call__(self, active: Thresholded, kind: JumpReLU) -> Tensor:
        share = torch.tanh(self.scale * active.latents * active.norms).mean(0)
        return self.penalty * _by_frequency(share, self.frequency)


@gin.register
@dataclass(frozen=True)
class TargetL0(Price):
    """A price on missing a wanted L0: penalty mean_rows 2 (L0 - target)^2 / target.

    As in Gemma Scope 2 (2025). L0 of a row is sum_j [pre_j > threshold_j].

    penalty: of being 1 away, times 2 / target.
    target: active latents of a row.
    """

    penalty: AtLeastZero = 1e-3
    target: Positive = 16.0

    def __call__(self, active: Thresholded, kind: JumpReLU) -> Tensor:
        l0 = kind.step(active.pre, active.threshold).sum(1)
        return self.penalty * 2 / self.target * ((l0 - self.target) ** 2).mean()


def _by_frequency(share: Tensor, frequency: float | None) -> Tensor:
    return share.sum() if frequency is None else (share * (1 + share / frequency)).sum()


@gin.register
@dataclass(frozen=True)
class JumpReLU(Sparsifier):
    """A latent is on where it is above its own threshold: latents = pre [pre > threshold].

    From Rajamanoharan et al. (arXiv:2407.14435). The jump has no gradient for the threshold; one is
    estimated from pre-activations that are near it. With e the bandwidth, K(u) = [|u| < 1/2]:

        d latents / d threshold        = - threshold / e  K((pre - threshold) / e)
        d [pre > threshold] / d threshold = - 1 / e  K((pre - threshold) / e)

    The paper learns the logarithm of thresholds. Here they are learnt themselves and kept at 0 or
    more before every step: Adam moves any number by about its learning rate a step, which for a
    logarithm is a share of it, and in short trainings thresholds would hardly move.

    price: of active latents.
    threshold: the first one, of all latents.
    bandwidth: the width in which pre-activations tell a threshold where to go. The paper has .001
        for both, for features of a mean squared norm of 1.
    warmup: steps over which the price grows from 0.
    to_encoder: whether the estimated gradient, with its sign turned, reaches the pre-activations
        too, as at Anthropic; in the paper it does not.
    """

    price: Price = StepPrice()
    threshold: AtLeastZero = 1e-3
    bandwidth: Positive = 1e-3
    warmup: StepCount = 0
    to_encoder: bool = False

    def build(self, latents: int) -> Rule:
        return JumpReLURule(self, latents)

    def jump(self, pre: Tensor, threshold: Tensor) -> Tensor:
        """pre [pre > threshold], (n, latents)."""
        jumped: Tensor = _Jump.apply(pre, threshold, self.bandwidth, self.to_encoder)
        return jumped

    def step(self, pre: Tensor, threshold: Tensor) -> Tensor:
        """[pre > threshold] as 0 and 1, (n, latents)."""
        stepped: Tensor = _Step.apply(pre, threshold, self.bandwidth, self.to_encoder)
        return stepped


class JumpReLURule(Rule):
    """JumpReLU with its thresholds.

    threshold: (latents,), 0 or more.
    """

    sparsity: JumpReLU

    def __init__(self, sparsity: JumpReLU, latents: int):
        super().__init__(sparsity)
        self.threshold = nn.Parameter(torch.full((latents,), sparsity.threshold))
        self.ramp = Ramp(sparsity.warmup)

    def forward(self, pre: Tensor, bias: Tensor) -> Activation:
        if self.training:
            with torch.no_grad():
                self.threshold.clamp_(min=0)
        threshold = self.threshold.clamp(min=0)  # the last step may have left one below 0
        return Activation(pre, self.sparsity.jump(pre, threshold))

    @property
    def turn_on(self) -> Tensor:
        return self.threshold

    def cost(self, autoencoder: Autoencoder, x: Tensor, code: Code) -> Tensor:
        norms = autoencoder.decoder.weight.norm(dim=0)
        active = Thresholded(code.pre, code.latents, self.threshold, norms)
        return self.sparsity.price(active, self.sparsity) * self.ramp()


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float, both: bool) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth, ctx.both = bandwidth, both
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        pre, threshold = ctx.saved_tensors
        near = _near(pre, threshold, ctx.bandwidth) * gradient
        for_threshold = -threshold / ctx.bandwidth * near.sum(0)
        for_pre = gradient * (pre > threshold)
        if ctx.both:
            for_pre = for_pre + threshold / ctx.bandwidth * near
        return for_pre, for_threshold, None, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float, both: bool) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth, ctx.both = bandwidth, both
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        pre, threshold = ctx.saved_tensors
        near = _near(pre, threshold, ctx.bandwidth) * gradient / ctx.bandwidth
        return near if ctx.both else None, -near.sum(0), None, None


def _near(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """K((pre - threshold) / bandwidth), (n, latents)."""
    return (pre - threshold).abs() < bandwidth / 2
