"""Optimisation: optimisers, learning-rate schedules, and the one loop that every trained stage goes through."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import gin
import torch
from torch import Tensor, nn

from monosem.stage import AtLeastZero, Fraction, Job, Part, Positive, StageError, seed_for


@functools.cache
def device() -> torch.device:
    """The one place that says where tensors live: the first GPU that torch sees, else the CPU. Deterministic either way."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextlib.contextmanager
def seeded(*what: object) -> Iterator[None]:
    """Inside, torch's CPU generator (which nn.Module initialisers draw from) is seeded by `what`; outside it is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(*what))
        yield


# ------------------------------------------------------------------------------------------------ optimisers


@dataclass(frozen=True)
class Optimizer(Part):
    """lr: the learning rate that the schedule starts from. weight_decay: L2, added to the gradient."""

    lr: Positive = 0.1
    weight_decay: AtLeastZero = 0.0

    def build(self, parameters: Iterable[Tensor] | Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
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

    def build(self, parameters: Iterable[Tensor] | Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov)


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

    def build(self, parameters: Iterable[Tensor] | Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        kind = torch.optim.AdamW if self.decoupled else torch.optim.Adam
        return kind(parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)


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


# ------------------------------------------------------------------------------------------------ the loop


def train(
    job: Job,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    epochs: int,
    steps_per_epoch: int,
    batch_size: int,
    batches: Callable[[int], Iterator[tuple[Tensor, ...]]],
    losses: Callable[..., dict[str, Tensor]],
) -> None:
    """Train `module` in place, one checkpoint and one line of scalars an epoch.

    batches(epoch) yields the arguments of `losses`, whose answer holds the scalar to minimise as 'loss' and whatever else
    is worth watching; scalars are logged as their means over the epoch. Whatever is random must be drawn in batches(epoch)
    from a generator seeded by the epoch: then a run that was killed goes on from its last epoch with the same bits.
    """
    steps = epochs * steps_per_epoch
    bases = [group["lr"] for group in optimizer.param_groups]
    state = job.restore()
    if state is not None:
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
    images = 0
    for epoch in range(state["epoch"] if state is not None else 0, epochs):
        sums: dict[str, Tensor] = {}
        first_bad = torch.tensor(steps, device=device())  # kept on the device: asking after every step would stall a GPU
        for index, batch in enumerate(batches(epoch)):
            step = epoch * steps_per_epoch + index
            for group, base in zip(optimizer.param_groups, bases, strict=True):
                group["lr"] = schedule.rate(base, step, steps, steps_per_epoch)
            scalars = losses(*batch)
            optimizer.zero_grad(set_to_none=True)
            scalars["loss"].backward()
            optimizer.step()
            scalars = {name: value.detach() for name, value in scalars.items()}
            first_bad = torch.where(scalars["loss"].isfinite(), first_bad, first_bad.clamp(max=step))
            for name, value in scalars.items():
                sums[name] = sums.get(name, 0) + value
            images += batch_size
            job.tick(step + 1, steps, images, scalars["loss"])
        if (bad := int(first_bad)) < steps:
            rate = schedule.rate(bases[0], bad, steps, steps_per_epoch)
            raise StageError(
                f"the loss is not a finite number from step {bad} of {steps} on (epoch {epoch + 1}, learning rate {rate:.3g}). "
                "A lower learning rate, a longer warm-up or a higher temperature usually helps."
            )
        if not all(parameter.isfinite().all() for parameter in module.parameters()):
            raise StageError(f"some weights are not finite numbers after epoch {epoch + 1}, as the loss was. A lower learning rate helps.")
        means = {name: float(total) / steps_per_epoch for name, total in sums.items()}
        job.log(epoch + 1, epochs, lr=float(optimizer.param_groups[0]["lr"]), **means)
        job.save({"epoch": epoch + 1, "module": module.state_dict(), "optimizer": optimizer.state_dict()})
