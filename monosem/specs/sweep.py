"""A sweep: which specs, which values of which bindings, when to stop a bad one, which is the best.

Plain data: nothing here reads Gin or knows Ray, and no key depends on it. A *cell* of a sweep is
one spec with one assignment of values; study.py makes its experiment.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import gin

from monosem.axes.gains import AxisGains
from monosem.core.fields import AtLeastZero, Count, FieldError, Label, Part, Positive, Range, Seed
from monosem.core.identity import is_seed, seed_for
from monosem.results.correlation import Claim
from monosem.results.search import Goal
from monosem.specs.grid import Axis, Space, axes

Assignment = tuple[tuple[Axis, object], ...]  # one value for each axis


@dataclass(frozen=True, kw_only=True)
class Scheduler(Part):
    """Stops trainings that do badly. A stage reports every epoch; one kind of stages is compared.

    metric: one of the scalars that a training logs, as in TensorBoard: loss, online_accuracy, l0.
    mode: whether small or large values of it are good.
    """

    metric: str
    mode: Literal["min", "max"]

    def build(self, schedulers: Any, epochs: int) -> Any:
        """One of Ray's schedulers, for trainings of at most `epochs`.

        schedulers: the module ray.tune.schedulers, handed in as this file does not know Ray.
        """
        raise NotImplementedError


@gin.register
@dataclass(frozen=True, kw_only=True)
class ASHA(Scheduler):
    """Asynchronous successive halving (Li et al., arXiv:1810.05934).

    At epochs grace * reduction ** i the best 1 / reduction go on.
    grace: epochs that every training has.
    reduction: above 1.
    """

    grace: Count = 1
    reduction: Annotated[float, Range(1, open=True)] = 4.0

    def build(self, schedulers: Any, epochs: int) -> Any:
        # above `epochs`: a training that comes to its own end is finished, not stopped
        longest = max(epochs, self.grace) + 1
        return schedulers.ASHAScheduler(
            time_attr="step",
            metric=self.metric,
            mode=self.mode,
            grace_period=self.grace,
            reduction_factor=self.reduction,
            max_t=longest,
        )


@gin.register
@dataclass(frozen=True, kw_only=True)
class MedianStopping(Scheduler):
    """Stops a training whose best value is worse than the median of the others' running means.

    Golovin et al., 2017, Vizier.
    grace: epochs that every training has.
    others: trainings that must have been seen before one is stopped.
    """

    grace: Count = 1
    others: Count = 3

    def build(self, schedulers: Any, epochs: int) -> Any:
        return schedulers.MedianStoppingRule(
            time_attr="step",
            metric=self.metric,
            mode=self.mode,
            grace_period=self.grace,
            min_samples_required=self.others,
        )


@dataclass(frozen=True)
class Resources(Part):
    """What one trial gets.

    cpu: CPUs, which are also its torch threads.
    gpu: GPUs; a fraction is shared.
    """

    cpu: Positive = 1.0
    gpu: AtLeastZero = 0.0


@gin.register
@dataclass(frozen=True, kw_only=True)
class Sweep(Part):
    """Specs times a grid over any of their bindings.

    An axis multiplies the specs that read one of its bindings; the others do not have it, as
    SimCLR has no TopK.k.

    name: of the folder under runs/.
    specs: Gin files of experiments, each with a name of its own.
    grid: bindings and the values that each takes in turn: {'Pretrain.seed': (0, 1, 2)}.
        A value may be an object, which every cell builds by its own bindings: @LabelSmoothing().
        A tuple of bindings takes one value at a time; a space such as @LogUniform() is drawn from.
    num_samples: draws from the spaces, at every point of the rest of the grid.
    seed: names the draws; more samples keep the first.
    baseline: the name of the spec that the others are compared with; None takes the first one.
    scheduler: stops trainings that do badly.
    goal: picks the best cell.
    claim: what is asked of all of them.
    axis_gains: what the axes of features are worth to each learner.
    retries: how often a stage that fails is tried again.
    resources: of kinds of stages, {'Pretrain': {'cpu': 2, 'gpu': 0.5}}.
        The others get what --cpus and --gpus say.
    """

    name: Label
    specs: tuple[str, ...]
    grid: tuple[Axis, ...] | None = None
    num_samples: Count = 1
    seed: Seed = 0
    baseline: str | None = None
    scheduler: Scheduler | None = None
    goal: Goal | None = None
    claim: Claim | None = None
    axis_gains: AxisGains | None = None
    retries: Annotated[int, Range(0)] = 2
    resources: tuple[tuple[str, Resources], ...] = ()

    def __post_init__(self) -> None:
        if self.grid is not None and not _are_axes(self.grid):
            self._convert("grid", axes)
        if self.resources != ():
            self._convert("resources", _resources)
        super().__post_init__()

    def _convert(self, field: str, conversion: Callable[[object], object]) -> None:
        """Gin gives dictionaries, which no key can hold: they become tuples of parts."""
        value = getattr(self, field)
        try:
            object.__setattr__(self, field, conversion(value))
        except FieldError as error:  # of a part inside
            raise FieldError("Sweep", field, value, f"holds {error}") from None
        except ValueError as error:
            raise FieldError("Sweep", field, value, str(error)) from None

    def validate(self) -> None:
        self.refuse_no_folder_name("name")
        if not self.specs:
            self.refuse("specs", "must name at least one Gin file, got ()")
        if len(set(self.specs)) < len(self.specs):
            self.refuse("specs", f"must differ from one another, got {self.specs!r}")
        self._validate_grid(self.grid or ())

    def _validate_grid(self, grid: tuple[Axis, ...]) -> None:
        if self.scheduler is not None and any(is_seed(name) for name in self.swept_names()):
            self.refuse(
                "scheduler",
                "does not go with a grid over seeds: "
                "it would stop the bad ones, and means be over the good ones",
            )
        has_space = any(isinstance(axis.values, Space) for axis in grid)
        if self.num_samples > 1 and not has_space:
            self.refuse(
                "num_samples",
                f"must be 1 where the grid has no space to draw from, got {self.num_samples}",
            )

    def swept_names(self) -> list[str]:
        """The names of all bindings of the grid, as they were typed."""
        return [name for axis in self.grid or () for name in axis.names]

    def assignments(self) -> Iterator[Assignment]:
        """Every point of the grid, the last axis fastest, and at each of them the draws."""
        grid = self.grid or ()
        for sample in range(self.num_samples):
            choices = [self._choices(axis, sample) for axis in grid]
            for values in itertools.product(*choices):
                yield tuple(zip(grid, values, strict=True))

    def _choices(self, axis: Axis, sample: int) -> tuple[object, ...]:
        """What an axis takes in turn; of a space one draw, seeded by the names it is for."""
        if not isinstance(axis.values, Space):
            return axis.values
        source = random.Random(seed_for(self.seed, sample, *axis.names))
        return (axis.values.draw(source),)


def _are_axes(grid: object) -> bool:
    """Whether a grid was made in Python instead of Gin."""
    return isinstance(grid, tuple) and bool(grid) and all(isinstance(axis, Axis) for axis in grid)


def _resources(amounts: object) -> tuple[tuple[str, Resources], ...]:
    """Of {'Pretrain': {'cpu': 2, 'gpu': 0.5}}."""
    pairs = amounts.items() if isinstance(amounts, Mapping) else [("resources", amounts)]
    return tuple((kind, _resources_of(kind, amount)) for kind, amount in pairs)


def _resources_of(kind: object, amounts: object) -> Resources:
    if not (
        isinstance(kind, str) and isinstance(amounts, Mapping) and set(amounts) <= {"cpu", "gpu"}
    ):
        example = "{'Pretrain': {'cpu': 2, 'gpu': 0.5}}"
        raise ValueError(
            f"must map kinds of stages to amounts, such as {example}, got {kind!r}: {amounts!r}"
        )
    return Resources(**amounts)
