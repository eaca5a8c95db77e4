"""Optimisation: optimisers, learning-rate schedules, and the one loop that every trained stage goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from monosem.core.device import Precision, autocast_dtype, device
from monosem.core.stage import Job, StageError
from monosem.learning.optimizers import Schedule


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
    kind, dtype = device().type, autocast_dtype(precision)
    scaler = torch.amp.GradScaler(
        kind, enabled=dtype == torch.float16
    )  # small gradients vanish in float16
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
        first_bad = torch.tensor(
            steps, device=device()
        )  # kept on the device: asking after every step would stall a GPU
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
            first_bad = torch.where(
                scalars["loss"].isfinite(), first_bad, first_bad.clamp(max=step)
            )
            for name, value in scalars.items():
                sums[name] = sums.get(name, 0) + value
            images += batch_size
            job.on_step(step + 1, steps, images, scalars["loss"])
        if (bad := int(first_bad)) < steps:
            rate = schedule.rate(bases[0], bad, steps, steps_per_epoch)
            raise StageError(
                f"the loss is not a finite number from step {bad} of {steps} on (epoch {epoch + 1}, learning rate {rate:.3g}). "
                "A lower learning rate, a longer warm-up or a higher temperature usually helps."
            )
        if not all(parameter.isfinite().all() for parameter in module.parameters()):
            raise StageError(
                f"some weights are not finite numbers after epoch {epoch + 1}, as the loss was. A lower learning rate helps."
            )
        means = {name: float(total) / steps_per_epoch for name, total in sums.items()}
        job.log(epoch + 1, epochs, lr=float(optimizer.param_groups[0]["lr"]), **{**told, **means})
        states = {
            "module": module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
        }
        job.save({"epoch": epoch + 1, **states})
