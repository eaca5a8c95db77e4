"""TODO."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import gin
import torch
from torch import Tensor

from monosem.core.fields import AtLeastZero, Count, Fraction, Part, Positive

# ------------------------------------------------------------------------------------------------ optimisers


@dataclass(frozen=True)
class Optimizer(Part):
    """lr: the learning rate that the schedule starts from. weight_decay: L2, added to the gradient.

    lr_per: lr is for a batch of so many images and grows with the batch (Goyal et al., arXiv:1706.02677; the reference has
        256); None takes it as it is.
    """

    lr: Positive = 0.1
    weight_decay: AtLeastZero = 0.0
    lr_per: Count | None = None

    def scale(self, batch_size: int) -> float:
        """What learning rates are multiplied by for batches of this size."""
        return batch_size / self.lr_per if self.lr_per else 1.0

    def for_batches(self, batch_size: int) -> Optimizer:
        """The same with the learning rate for batches of this size."""
        return dataclasses.replace(self, lr=self.lr * self.scale(batch_size), lr_per=None)

    def build(
        self, parameters: Iterable[Tensor] | Iterable[dict[str, Any]]
    ) -> torch.optim.Optimizer:
        """parameters: tensors, or groups of them with settings of their own. A group may say that its tensors stack many
        layers ('layer': the dimensions that make up one) or that they are biases though not one-dimensional ('bias': True)."""
        raise NotImplementedError


@gin.register
@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, torch's formula: b = momentum * b + g + weight_decay * p, p -= lr * b."""

    momentum: Fraction = 0.9
    nesterov: bool = False

    def validate(self) -> None:
        if self.nesterov and not self.momentum:
            self.refuse("nesterov", "must be False without momentum")

    def build(
        self, parameters: Iterable[Tensor] | Iterable[dict[str, Any]]
    ) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )


@gin.register
@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma & Ba, arXiv:1412.6980). decoupled: weight decay outside the moments, AdamW (arXiv:1711.05101)."""

    lr: Positive = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    decoupled: bool = False

    def validate(self) -> None:
        if 1.0 in self.betas:
            self.refuse("betas", f"must be below 1, got {self.betas}")

    def build(
        self, parameters: Iterable[Tensor] | Iterable[dict[str, Any]]
    ) -> torch.optim.Optimizer:
        kind = torch.optim.AdamW if self.decoupled else torch.optim.Adam
        return kind(parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)


@gin.register
@dataclass(frozen=True)
class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You et al., arXiv:1708.03888), step for step as solo-learn has it.

    d = trust * (g + weight_decay * p), trust = eta * |p| / (|g| + weight_decay * |p| + 1e-8) for every layer, neither trust
    nor decay where |p| or |g| is 0; b = momentum * b + d, with b = d at the first step; p -= lr * b, or with Nesterov's momentum
    p -= lr * (d + momentum * b).

    clip: trust is at most lr, so that the step of a layer is never larger than SGD's: min(trust / lr, 1) takes its place.
    exclude_bias_and_norm: one-dimensional parameters get SGD's step without decay.
    """

    lr: Positive = 0.4
    momentum: Fraction = 0.9
    nesterov: bool = False
    eta: Positive = 0.02
    clip: bool = True
    exclude_bias_and_norm: bool = True

    def validate(self) -> None:
        if self.nesterov and not self.momentum:
            self.refuse("nesterov", "must be False without momentum")

    def build(
        self, parameters: Iterable[Tensor] | Iterable[dict[str, Any]]
    ) -> torch.optim.Optimizer:
        return _LARS(parameters, self)


class _LARS(torch.optim.Optimizer):
    def __init__(self, parameters: Iterable[Tensor] | Iterable[dict[str, Any]], recipe: LARS):
        super().__init__(
            parameters,
            {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "layer": None, "bias": False},
        )
        self.recipe = recipe

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, parameter.grad, group)

    def _step(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        recipe, lr, decay = self.recipe, group["lr"], group["weight_decay"]
        trust, decayed = p.new_ones(1), p.new_zeros(1)
        if not (recipe.exclude_bias_and_norm and (p.ndim == 1 or group["bias"])):
            size, slope = (
                torch.linalg.vector_norm(each, dim=group["layer"], keepdim=True) for each in (p, g)
            )
            trust = recipe.eta * size / (slope + decay * size + 1e-8)
            if recipe.clip:
                trust = (trust / lr).clamp(max=1)
            trust = torch.where(
                (size > 0) & (slope > 0), trust, 1
            )  # tensors all along: asking the device would stall a GPU
            decayed = torch.where((size > 0) & (slope > 0), trust * decay, 0)
        state = self.state[p]
        momentum = (
            state.setdefault("momentum", torch.zeros_like(p))
            if recipe.momentum
            else torch.zeros_like(p)
        )
        momentum.mul_(recipe.momentum).addcmul_(g, trust).addcmul_(
            p, decayed
        )  # a pass over memory is what this costs
        if recipe.nesterov:
            p.sub_(lr * (g * trust + p * decayed + recipe.momentum * momentum))
        else:
            p.add_(momentum, alpha=-lr)


# ------------------------------------------------------------------------------------------------ schedules


@dataclass(frozen=True)
class Schedule(Part):
    """The learning rate at every step."""

    def rate(self, base: float, step: int, steps: int, steps_per_epoch: int) -> float:
        """The learning rate of step `step` (from 0) of `steps`, for a group whose base rate is `base`."""
        raise NotImplementedError


@gin.register
@dataclass(frozen=True)
class Constant(Schedule):
    """The base rate throughout."""

    def rate(self, base: float, step: int, steps: int, steps_per_epoch: int) -> float:
        return base


@gin.register
@dataclass(frozen=True)
class WarmupCosine(Schedule):
    """Linear from `start` to the base rate over the warm-up, then a half cosine to 0, per step (as lightning-bolts has it).

    warmup: epochs, may be a fraction. start: the rate of the very first step, the same for every group. The rate reaches
    its base one step before the warm-up ends.
    """

    warmup: AtLeastZero = 10.0
    start: AtLeastZero = 3e-5

    def rate(self, base: float, step: int, steps: int, steps_per_epoch: int) -> float:
        warm = min(round(self.warmup * steps_per_epoch), steps)
        if step < warm:
            return self.start + (base - self.start) * step / (warm - 1) if warm > 1 else base
        return base * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1))) / 2


@gin.register
@dataclass(frozen=True)
class Steps(Schedule):
    """The base rate times `factor` from each of the milestones on, which are epochs."""

    milestones: tuple[AtLeastZero, ...] = (60.0, 80.0)
    factor: Fraction = 0.1

    def rate(self, base: float, step: int, steps: int, steps_per_epoch: int) -> float:
        return base * self.factor ** sum(
            step >= milestone * steps_per_epoch for milestone in self.milestones
        )
