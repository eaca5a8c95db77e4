"""JumpReLU: a learnt threshold for each latent, and three prices on how many are on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import gin
import torch
from torch import Tensor, nn

from monosem.autoencoders.base import Autoencoder, Code, Rule, Sparsifier
from monosem.autoencoders.gated import Ramp, StepCount
from monosem.core.fields import AtLeastZero, Part, Positive


class Thresholded(NamedTuple):
    """The activation of a JumpReLU, and what prices look at.

    pre, latents: (n, latents).
    share: (latents,), of the rows for which each latent is on: mean_rows [pre > threshold].
    l0: (n,), sum_j [pre_j > threshold_j].
    """

    pre: Tensor
    latents: Tensor
    share: Tensor
    l0: Tensor

    def fired(self) -> Tensor:
        """(latents,) int64: how many rows each latent is on for."""
        return (self.share.detach() * len(self.pre)).round().long()


@dataclass(frozen=True)
class Price(Part):
    """What active latents cost."""

    def __call__(self, active: Thresholded, decoder: Tensor) -> Tensor:
        """A scalar. decoder: (d, latents), its weights."""
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

    def __call__(self, active: Thresholded, decoder: Tensor) -> Tensor:
        return self.penalty * _by_frequency(active.share, self.frequency)


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

    def __call__(self, active: Thresholded, decoder: Tensor) -> Tensor:
        share = torch.tanh(active.latents * (self.scale * decoder.norm(dim=0))).mean(0)
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

    def __call__(self, active: Thresholded, decoder: Tensor) -> Tensor:
        return self.penalty * 2 / self.target * ((active.l0 - self.target) ** 2).mean()


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

    def jump(self, pre: Tensor, threshold: Tensor) -> Thresholded:
        """pre: (n, latents). threshold: (latents,)."""
        return Thresholded(pre, *_Jump.apply(pre, threshold, self.bandwidth, self.to_encoder))


class JumpReLURule(Rule):
    """JumpReLU with its thresholds.

    threshold: (latents,), 0 or more.
    """

    sparsity: JumpReLU

    def __init__(self, sparsity: JumpReLU, latents: int):
        super().__init__(sparsity)
        self.threshold = nn.Parameter(torch.full((latents,), sparsity.threshold))
        self.ramp = Ramp(sparsity.warmup)

    def forward(self, pre: Tensor, bias: Tensor) -> Thresholded:
        if self.training:
            with torch.no_grad():
                self.threshold.clamp_(min=0)
        threshold = self.threshold.clamp(min=0)  # the last step may have left one below 0
        return self.sparsity.jump(pre, threshold)

    @property
    def turn_on(self) -> Tensor:
        return self.threshold

    def cost(self, autoencoder: Autoencoder, x: Tensor, code: Code) -> Tensor:
        assert isinstance(code.activation, Thresholded), "it is what this rule gives"
        return self.sparsity.price(code.activation, autoencoder.decoder.weight) * self.ramp()


class _Jump(torch.autograd.Function):
    """pre, threshold -> latents, share and l0 of Thresholded.

    In one function, as each of its tensors (n, latents) is a pass over memory, which is what a step
    costs besides its products.
    """

    @staticmethod
    def forward(
        ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float, to_encoder: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.bandwidth, ctx.to_encoder = bandwidth, to_encoder
        is_on = pre > threshold
        ctx.save_for_backward(pre, threshold, is_on)
        share = is_on.sum(0).to(pre.dtype) / max(len(pre), 1)
        return pre * is_on, share, is_on.sum(1).to(pre.dtype)

    @staticmethod
    def backward(
        ctx: Any, for_latents: Tensor | None, for_share: Tensor | None, for_l0: Tensor | None
    ) -> tuple[Tensor, Tensor, None, None]:
        pre, threshold, is_on = ctx.saved_tensors
        half, rows = ctx.bandwidth / 2, max(len(pre), 1)
        if for_latents is None:
            for_latents = torch.zeros_like(pre)
        if for_share is None:
            for_share = torch.zeros_like(threshold)
        # what it changes the loss by that a latent turns on at an entry; then only where it is near
        change = torch.addcmul(for_share / rows, for_latents, threshold)
        if for_l0 is not None:
            change += for_l0[:, None]
        change *= (pre > threshold - half) & (pre < threshold + half)
        for_pre = for_latents * is_on
        if ctx.to_encoder:
            for_pre.add_(change, alpha=1 / ctx.bandwidth)
        return for_pre, -change.sum(0) / ctx.bandwidth, None, None
