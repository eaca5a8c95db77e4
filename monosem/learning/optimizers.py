"""Optimisers and learning-rate schedules, as parts of a spec that build torch's objects."""

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

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]


@dataclass(frozen=True)
class Optimizer(Part):
    """How parameters follow their gradients.

    lr: the base rate of the schedule.
    weight_decay: L2, added to the gradient.
    lr_per: lr is for a batch of so many inputs, and grows in proportion to the batch (Goyal et al.,
        arXiv:1706.02677; the authors' code has 256). None takes lr as it is.
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

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """torch's optimiser of these parameters.

        A tensor may stack many layers that are trained side by side. Optimisers that take norms of
        layers, as LARS does, must know which axes make up a layer. Probes that are fitted together:

            weight    (groups, d, probes, classes)    'layer': (1, 3)
            bias      (groups, 1, probes, classes)    'layer': (1, 3), 'bias': True
            norms     (groups, 1, probes, 1)          one for every probe

        parameters: tensors, or dictionaries with tensors as 'params' and settings of their own:
            'lr', 'weight_decay': instead of those of this part.
            'layer': the axes that make up a layer; without it a tensor is one layer.
            'bias': whether they are biases; without it those with one axis are.
        """
        raise NotImplementedError


@gin.register
@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as torch has it.

        b = momentum * b + g + weight_decay * p
        p -= lr * b

    momentum: 0 is plain gradient descent.
    nesterov: p -= lr * (g + weight_decay * p + momentum * b) instead.
    """

    momentum: Fraction = 0.9
    nesterov: bool = False

    def validate(self) -> None:
        if self.nesterov and not self.momentum:
            self.refuse("nesterov", "must be False without momentum")

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
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
    """Adam (Kingma & Ba, arXiv:1412.6980).

    betas: decay of the running means of the gradient and of its square; below 1.
    decoupled: weight decay outside of these means, as in AdamW (arXiv:1711.05101).
    """

    lr: Positive = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    decoupled: bool = False

    def validate(self) -> None:
        if 1.0 in self.betas:
            self.refuse("betas", f"must be below 1, got {self.betas}")

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        adam = torch.optim.AdamW if self.decoupled else torch.optim.Adam
        return adam(parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)


@gin.register
@dataclass(frozen=True)
class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You et al., arXiv:1708.03888), as solo-learn has it.

    For every layer p with gradient g:

        trust = eta * |p| / (|g| + weight_decay * |p| + 1e-8)
        d = trust * (g + weight_decay * p); d = g where |p| or |g| is 0
        b = momentum * b + d; b = d at the first step
        p -= lr * b

    momentum: 0 leaves b = d.
    nesterov: p -= lr * (d + momentum * b) instead.
    eta: the size of a step in relation to that of the layer.
    clip: trust is at most lr, so that no step is larger than SGD's: min(trust / lr, 1) is taken
        instead.
    exclude_bias_and_norm: parameters with one axis get SGD's step without decay.
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

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        return _LARS(parameters, self)


class _LARS(torch.optim.Optimizer):
    def __init__(self, parameters: Parameters, settings: LARS):
        defaults = {
            "lr": settings.lr,
            "weight_decay": settings.weight_decay,
            "layer": None,
            "bias": False,
        }
        super().__init__(parameters, defaults)
        self.settings = settings

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        momentum, lr = self.settings.momentum, group["lr"]
        trust, decay = self._trust_and_decay(p, g, group)
        b = self._buffer(p)
        # in place, as what this costs are passes over memory
        b.mul_(momentum).addcmul_(g, trust).addcmul_(p, decay)
        if self.settings.nesterov:
            p.sub_(lr * (g * trust + p * decay + momentum * b))
        else:
            p.add_(b, alpha=-lr)

    def _trust_and_decay(
        self, p: Tensor, g: Tensor, group: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """The factors of g and of p in d, one for every layer, so that they broadcast with p.

        They are tensors all along: asking the device for a norm would stall a GPU.
        """
        settings, weight_decay = self.settings, group["weight_decay"]
        is_bias = p.ndim == 1 or group["bias"]
        if settings.exclude_bias_and_norm and is_bias:
            return p.new_ones(1), p.new_zeros(1)
        p_norm = torch.linalg.vector_norm(p, dim=group["layer"], keepdim=True)
        g_norm = torch.linalg.vector_norm(g, dim=group["layer"], keepdim=True)
        trust = settings.eta * p_norm / (g_norm + weight_decay * p_norm + 1e-8)
        if settings.clip:
            trust = (trust / group["lr"]).clamp(max=1)
        has_norms = (p_norm > 0) & (g_norm > 0)
        trust = torch.where(has_norms, trust, 1)
        return trust, torch.where(has_norms, trust * weight_decay, 0)

    def _buffer(self, p: Tensor) -> Tensor:
        """b of the step before; zeros at first, and always where there is no momentum."""
        if not self.settings.momentum:
            return torch.zeros_like(p)
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        return state["momentum"]


@dataclass(frozen=True)
class Schedule(Part):
    """The learning rate at every step."""

    def rate(self, base: float, step: int, steps: int, steps_per_epoch: int) -> float:
        """The learning rate of one step.

        base: the base rate of a group of parameters.
        step: from 0 to steps - 1.
        steps: of the whole training.
        steps_per_epoch: for what is given in epochs.
        """
        raise NotImplementedError

    def caution(self, epochs: int) -> str | None:
        """What somebody who trains so many epochs hardly means, if anything."""
        return None


@gin.register
@dataclass(frozen=True)
class Constant(Schedule):
    """The base rate throughout."""

    def rate(self, base: float, step: int, steps: int, steps_per_epoch: int) -> float:
        return base


@gin.register
@dataclass(frozen=True)
class WarmupCosine(Schedule):
    """Linear from `start` to the base rate, then a half cosine to 0, step by step.

    As lightning-bolts has it: the base rate is reached one step before the warm-up ends.

    warmup: epochs of the linear part; may be a fraction.
    start: the rate of the very first step, the same for every group.
    """

    warmup: AtLeastZero = 10.0
    start: AtLeastZero = 3e-5

    def rate(self, base: float, step: int, steps: int, steps_per_epoch: int) -> float:
        warm = min(round(self.warmup * steps_per_epoch), steps)
        if step >= warm:
            return base * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1))) / 2
        if warm == 1:
            return base
        return self.start + (base - self.start) * step / (warm - 1)

    def caution(self, epochs: int) -> str | None:
        if self.warmup < epochs:
            return None
        return (
            f"WarmupCosine.warmup = {self.warmup:g} lasts as long as all its epochs, {epochs}: "
            "the learning rate rises to the end and never falls"
        )


@gin.register
@dataclass(frozen=True)
class Steps(Schedule):
    """The base rate, times `factor` once more from each of the milestones on.

    milestones: epochs.
    factor: in [0, 1].
    """

    milestones: tuple[AtLeastZero, ...] = (60.0, 80.0)
    factor: Fraction = 0.1

    def rate(self, base: float, step: int, steps: int, steps_per_epoch: int) -> float:
        passed = [milestone * steps_per_epoch <= step for milestone in self.milestones]
        return base * self.factor ** sum(passed)
