"""The training loop of networks and autoencoders. Linear probes have their own, ProbeTrainer.

It knows a module, batches and losses, and saves its state through a job. It knows no dataset, no
objective and no stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from monosem.core.device import Precision, autocast_dtype, device, get_draws, set_draws
from monosem.core.signals import held_back
from monosem.core.stage import Job, StageError
from monosem.learning.optimizers import Schedule

Batch = tuple[Tensor, ...]


def _describes_nothing(*batch: Tensor) -> dict[str, float]:
    return {}


class Hooks:
    """What else is done on the way. Override the methods of interest."""

    def before_step(self) -> None:
        """Gradients are there, not yet clipped; they may be changed in place."""

    def after_step(self) -> None:
        """The weights have moved; they may be changed in place."""

    def after_epoch(self) -> dict[str, float]:
        """Scalars to log with those of the epoch."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """What is remembered of an epoch in the middle of it."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Remember that again."""


class BegunEpoch(NamedTuple):
    """What had been done of an epoch when somebody asked to end.

    steps: how many were taken.
    sums: of their scalars, by name, with `first_bad_step`.
    hooks: what they remember of it.
    description: as of `describe`.
    draws: the state of what layers draw from, on the CPU and on each GPU.
    """

    steps: int
    sums: dict[str, Tensor]
    hooks: dict[str, Tensor]
    description: dict[str, float]
    draws: list[Tensor]


@dataclass(kw_only=True)
class TrainingLoop:
    """Trains a module in place, with one checkpoint and one line of scalars an epoch.

    A run that was killed goes on after its last complete epoch, with the same bits. For that, all
    random draws must be made in `batches(epoch)`, from a generator that the epoch seeds. One that
    was asked to end, by SIGTERM or Ctrl+C, ends its step, saves, and goes on in that epoch: the
    batches before are made again, and no step is taken twice.

    module: what is trained, saved and restored.
    optimizer: of the module's parameters. The rates of its groups are the base rates of `schedule`.
    schedule: the learning rate at every step.
    epochs: how often `batches` is called.
    steps_per_epoch: how many batches a call gives.
    batch_size: inputs in a batch; the job is told how many inputs were seen.
    batches: epoch, from 0 -> the batches of that epoch.
    losses: the tensors of a batch -> scalars by name. 'loss' is minimised; the others are watched.
        Their means over the epoch are logged.
    describe: the tensors of a batch -> numbers that are expensive. It is called for the first batch
        of every epoch, before that step, and must change nothing.
    precision: of products, see `autocast_dtype`.
    clip: the largest norm of all gradients together; None leaves them as they are.
    hooks: what else is done.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    epochs: int
    steps_per_epoch: int
    batch_size: int
    batches: Callable[[int], Iterator[Batch]]
    losses: Callable[..., dict[str, Tensor]]
    describe: Callable[..., dict[str, float]] = _describes_nothing
    precision: Precision = "float32"
    clip: float | None = None
    hooks: Hooks = field(default_factory=Hooks)

    def __post_init__(self) -> None:
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self._dtype = autocast_dtype(self.precision)
        scales = self._dtype == torch.float16  # where small gradients would vanish
        self._scaler = torch.amp.GradScaler(device().type, enabled=scales)

    @property
    def steps(self) -> int:
        """The number of steps of the whole training."""
        return self.epochs * self.steps_per_epoch

    def run(self, job: Job) -> None:
        """Train to the end from where the job's saved state left off.

        Raises StageError where the loss or the weights stop being finite; nothing of that epoch is
        saved.
        """
        (error,) = train_together([self], [job])
        if error is not None:
            raise error

    def restore(self, job: Job) -> tuple[int, BegunEpoch | None]:
        """Load the saved state, if there is one.

        Returns the epoch to go on with, and what had been done of it.
        """
        state = job.restore()
        if state is None:
            return 0, None
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty where it was saved on a device that scales nothing
            self._scaler.load_state_dict(state["scaler"])
        begun = state.get("begun")
        return int(state["epoch"]), BegunEpoch(**begun) if begun else None

    def save(self, job: Job, epochs_done: int, begun: BegunEpoch | None = None) -> None:
        job.save(
            {
                "epoch": epochs_done,
                "begun": begun and begun._asdict(),
                "module": self.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self._scaler.state_dict(),
            }
        )

    def train_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """One step of the optimizer. Returns the scalars of the batch, before it."""
        for group, base_rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = self._rate(base_rate, step)
        with torch.autocast(device().type, self._dtype, enabled=self._dtype != torch.float32):
            scalars = self.losses(*batch)
        self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(scalars["loss"]).backward()
        self.hooks.before_step()
        if self.clip is not None:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.hooks.after_step()
        return {name: value.detach() for name, value in scalars.items()}

    def _rate(self, base_rate: float, step: int) -> float:
        return self.schedule.rate(base_rate, step, self.steps, self.steps_per_epoch)

    def check(self, first_bad_step: Tensor, epoch: int) -> None:
        """Raises StageError where the loss or the weights are not finite after an epoch."""
        self._check_loss(first_bad_step, epoch)
        self._check_weights(epoch)

    def _check_loss(self, first_bad_step: Tensor, epoch: int) -> None:
        step = int(first_bad_step)
        if step < self.steps:
            rate = self._rate(self._base_rates[0], step)
            raise StageError(
                f"the loss is not a finite number from step {step} of {self.steps} on "
                f"(epoch {epoch + 1}, learning rate {rate:.3g}). A lower learning rate, "
                f"a longer warm-up or a higher temperature usually helps."
            )

    def _check_weights(self, epoch: int) -> None:
        """The last step may break the weights although its loss, taken before it, was finite."""
        if not all(parameter.isfinite().all() for parameter in self.module.parameters()):
            raise StageError(
                f"some weights are not finite numbers after epoch {epoch + 1}, as the loss was. "
                f"A lower learning rate helps."
            )


def train_together(loops: Sequence[TrainingLoop], jobs: Sequence[Job]) -> list[StageError | None]:
    """Train several modules in place on the batches of the first loop; all have equal ones.

    Every batch is made once, for all loops that have not yet trained on its epoch. Each loop goes
    on where its own job's saved state left off, and takes the steps that it takes alone.

    Returns for every loop why it failed, if it did: from then on the others go on without it.
    """
    runs = [_Run(loop, job) for loop, job in zip(loops, jobs, strict=True)]
    for epoch in range(min(run.next_epoch for run in runs), max(loop.epochs for loop in loops)):
        _train_epoch(loops[0].batches, epoch, [run for run in runs if run.wants(epoch)])
    return [run.error for run in runs]


def _train_epoch(
    batches: Callable[[int], Iterator[Batch]], epoch: int, runs: Sequence[_Run]
) -> None:
    if not runs:  # no batch is made for nobody
        return
    for run in runs:
        run.start_epoch()
    with held_back() as asked_to_end:
        for batch in batches(epoch):
            for run in runs:
                run.take(batch)
            if asked_to_end():
                break
        for run in runs:
            run.end_epoch() if run.is_at_the_end else run.pause()


class _Run:
    """A loop on its way through the epochs.

    next_epoch: the one to go on with.
    inputs: how many were seen in this process.
    error: why it failed, if it did.
    """

    def __init__(self, loop: TrainingLoop, job: Job):
        self.loop, self.job = loop, job
        self.inputs = 0
        self.error: StageError | None = None
        self.next_epoch, self.begun = loop.restore(job)

    def wants(self, epoch: int) -> bool:
        return self.error is None and self.next_epoch == epoch < self.loop.epochs

    def start_epoch(self) -> None:
        self.step = self.next_epoch * self.loop.steps_per_epoch
        self.scalars = _EpochScalars(self.loop.steps)
        self.description: dict[str, float] | None = None
        self.taken_before = self.begun.steps if self.begun else 0

    @property
    def is_at_the_end(self) -> bool:
        """Whether all steps of the epoch are taken."""
        return self.step == (self.next_epoch + 1) * self.loop.steps_per_epoch

    def take(self, batch: Batch) -> None:
        """Take a step on a batch of the epoch, unless it was taken before the run was ended."""
        if self.taken_before:
            self._pass_over()
            return
        if self.description is None:
            self.description = self.loop.describe(*batch)
        scalars = self.loop.train_step(batch, self.step)
        self.scalars.add(scalars, self.step)
        self.step += 1
        self.inputs += self.loop.batch_size
        self.job.on_step(self.step, self.loop.steps, self.inputs, scalars["loss"])

    def _pass_over(self) -> None:
        """After the last of those steps, all is as it was when the run was ended."""
        self.step += 1
        self.taken_before -= 1
        if self.begun and not self.taken_before:
            self.scalars.restore(self.begun.sums)
            self.loop.hooks.restore(self.begun.hooks)
            self.description = self.begun.description
            set_draws(self.begun.draws)
            self.begun = None

    def pause(self) -> None:
        """Save in the middle of an epoch, unless what was saved there is not yet passed over."""
        if self.begun or self.description is None:
            return
        begun = BegunEpoch(
            steps=self.step - self.next_epoch * self.loop.steps_per_epoch,
            sums=self.scalars.state(),
            hooks=self.loop.hooks.state(),
            description=self.description,
            draws=get_draws(),
        )
        self.loop.save(self.job, self.next_epoch, begun)

    def end_epoch(self) -> None:
        """Log and save, or keep the error."""
        loop, epoch = self.loop, self.next_epoch
        try:
            loop.check(self.scalars.first_bad_step, epoch)
        except StageError as error:
            self.error = error
            return
        rate = float(loop.optimizer.param_groups[0]["lr"])
        means = self.scalars.means(loop.steps_per_epoch)
        scalars = {**(self.description or {}), **means, **loop.hooks.after_epoch()}
        self.next_epoch = epoch + 1
        self.job.log(self.next_epoch, loop.epochs, lr=rate, **scalars)
        loop.save(self.job, self.next_epoch)


class _EpochScalars:
    """Sums of the scalars of an epoch, and the first step whose loss was not finite.

    Both stay on the device: asking for them at every step would stall a GPU.

    first_bad_step: (), `steps` where the loss has been finite so far.
    """

    def __init__(self, steps: int):
        self.first_bad_step = torch.tensor(steps, device=device())
        self._sums: dict[str, Tensor] = {}

    def add(self, scalars: Mapping[str, Tensor], step: int) -> None:
        is_finite = scalars["loss"].isfinite()
        earlier = self.first_bad_step.clamp(max=step)
        self.first_bad_step = torch.where(is_finite, self.first_bad_step, earlier)
        for name, value in scalars.items():
            self._sums[name] = self._sums.get(name, 0) + value

    def state(self) -> dict[str, Tensor]:
        return {"first_bad_step": self.first_bad_step, **self._sums}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        sums = {name: value.to(device()) for name, value in state.items()}
        self.first_bad_step = sums.pop("first_bad_step")
        self._sums = sums

    def means(self, steps: int) -> dict[str, float]:
        return {name: float(total) / steps for name, total in self._sums.items()}
