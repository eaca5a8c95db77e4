"""Optimisation: optimisers, learning-rate schedules, and the one loop that every trained stage goes through."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import gin
import torch
from torch import Tensor, nn

from monosem.stage import AtLeastZero, Count, Fraction, Job, Part, Positive, StageError, seed_for


@functools.cache
def device() -> torch.device:
    """The one place that says where tensors live: the first GPU that torch sees, else the CPU. Deterministic either way."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # torch would also fill memory that nobody has written yet, a twentieth of a step; nothing here reads such memory
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


M = TypeVar("M", bound=nn.Module)


def placed(module: M) -> M:
    """The module on the device; on a GPU with channels last, which its convolutions want."""
    module.to(device())
    if device().type == "cuda":
        module.to(memory_format=torch.channels_last)
    return module


def compiled(module: M) -> M:
    """The module, compiled where MONOSEM_COMPILE is set, as run.py --compile does: quicker after most of a minute, and rounded
    otherwise. How and not what, so no key knows of it."""
    if not os.environ.get("MONOSEM_COMPILE"):
        return module
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # where there is no GPU it warns of that
    return cast(M, torch.compile(module))


class Feed:
    """Images by index, on the device: kept there if they take up at most half of what is free, else gathered where they are,
    a memory map say, by a thread that is one batch ahead, and sent from pinned memory.

    images: (n, c, h, w) uint8.
    """

    def __init__(self, images: Tensor):
        self.streams = device().type == "cuda" and images.nbytes > torch.cuda.mem_get_info()[0] / 2
        self.images = images if self.streams else images.to(device())

    def __call__(self, order: Sequence[Tensor]) -> Iterator[Tensor]:
        """order: for every batch, which images -> the batches, on the device."""
        if not self.streams:
            yield from (self.images[index] for index in order)
            return
        with ThreadPoolExecutor(1) as thread:
            indices = iter(order)
            ahead = thread.submit(self._gather, first) if (first := next(indices, None)) is not None else None
            while ahead is not None:
                batch = ahead.result()
                ahead = thread.submit(self._gather, index) if (index := next(indices, None)) is not None else None
                yield batch.to(device(), non_blocking=True)

    def _gather(self, index: Tensor) -> Tensor:
        batch = self.images[index.cpu()]
        return batch.pin_memory() if torch.cuda.is_available() else batch


@contextlib.contextmanager
def seeded(*what: object) -> Iterator[None]:
    """Inside, torch's CPU generator (which nn.Module initialisers draw from) is seeded by `what`; outside it is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(*what))
        yield


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

    def build(self, parameters: Iterable[Tensor] | Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
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

    def build(self, parameters: Iterable[Tensor] | Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        return _LARS(parameters, self)


class _LARS(torch.optim.Optimizer):
    def __init__(self, parameters: Iterable[Tensor] | Iterable[dict[str, Any]], recipe: LARS):
        super().__init__(parameters, {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "layer": None, "bias": False})
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
            size, slope = (torch.linalg.vector_norm(each, dim=group["layer"], keepdim=True) for each in (p, g))
            trust = recipe.eta * size / (slope + decay * size + 1e-8)
            if recipe.clip:
                trust = (trust / lr).clamp(max=1)
            trust = torch.where((size > 0) & (slope > 0), trust, 1)  # tensors all along: asking the device would stall a GPU
            decayed = torch.where((size > 0) & (slope > 0), trust * decay, 0)
        state = self.state[p]
        momentum = state.setdefault("momentum", torch.zeros_like(p)) if recipe.momentum else torch.zeros_like(p)
        momentum.mul_(recipe.momentum).addcmul_(g, trust).addcmul_(p, decayed)  # a pass over memory is what this costs
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
        return base * self.factor ** sum(step >= milestone * steps_per_epoch for milestone in self.milestones)


# ------------------------------------------------------------------------------------------------ the loop

Precision = Literal["float32", "float16", "bfloat16"]


def products(precision: Precision) -> torch.dtype:
    """What products are made in: what is asked for on a GPU; for either half on a CPU bfloat16 where it has instructions for
    that (AVX-512 BF16, AMX), which halves the time of a step, else float32."""
    if device().type == "cuda" or precision == "float32":
        return getattr(torch, precision)
    quick = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return torch.bfloat16 if quick else torch.float32


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
    precision: Precision = "float32",
    clip: float | None = None,
    describe: Callable[..., dict[str, float]] = lambda *batch: {},
) -> None:
    """Train `module` in place, one checkpoint and one line of scalars an epoch.

    batches(epoch) yields the arguments of `losses`, whose answer holds the scalar to minimise as 'loss' and whatever else
    is worth watching; scalars are logged as their means over the epoch. Whatever is random must be drawn in batches(epoch)
    from a generator seeded by the epoch: then a run that was killed goes on from its last epoch with the same bits.
    describe: scalars that cost more, of the arguments of the first step of every epoch alone, before it; it changes nothing.
    precision: see `products`. clip: the largest norm of all gradients together.
    """
    steps = epochs * steps_per_epoch
    bases = [group["lr"] for group in optimizer.param_groups]
    kind, dtype = device().type, products(precision)
    scaler = torch.amp.GradScaler(kind, enabled=dtype == torch.float16)  # small gradients vanish in float16
    state = job.restore()
    if state is not None:
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty where it was saved on a device that scales nothing
            scaler.load_state_dict(state["scaler"])
    images = 0
    for epoch in range(state["epoch"] if state is not None else 0, epochs):
        sums: dict[str, Tensor] = {}
        told: dict[str, float] = {}
        first_bad = torch.tensor(steps, device=device())  # kept on the device: asking after every step would stall a GPU
        for index, batch in enumerate(batches(epoch)):
            step = epoch * steps_per_epoch + index
            if index == 0:
                told = describe(*batch)
            for group, base in zip(optimizer.param_groups, bases, strict=True):
                group["lr"] = schedule.rate(base, step, steps, steps_per_epoch)
            with torch.autocast(kind, dtype, enabled=dtype != torch.float32):
                scalars = losses(*batch)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(scalars["loss"]).backward()
            if clip is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(module.parameters(), clip)
            scaler.step(optimizer)
            scaler.update()
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
        job.log(epoch + 1, epochs, lr=float(optimizer.param_groups[0]["lr"]), **{**told, **means})
        states = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
        job.save({"epoch": epoch + 1, **states})
