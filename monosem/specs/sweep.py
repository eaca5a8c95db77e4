"""Sweeps: which specs, which bindings take which values, how long the bad ones are tried and which cell is the best.

Plain data throughout: nothing here reads Gin or knows Ray, and no key depends on it. A *cell* of a sweep is one spec with
one assignment of values; monosem.spec makes its experiment.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import gin

from monosem.core.fields import AtLeastZero, Count, FieldError, Label, Part, Positive, Range, Seed
from monosem.core.identity import is_seed, seed_for
from monosem.results.correlation import Claim
from monosem.results.search import Goal

# ------------------------------------------------------------------------------------------------ values


@dataclass(frozen=True)
class Space(Part):
    """Values to draw from instead of a list of them. The classes are Ray Tune's search spaces by name and meaning."""

    def draw(self, source: random.Random) -> object:
        raise NotImplementedError


def _short(number: float, low: float, high: float) -> float:
    """Four significant digits: a drawn value can be read in a table and typed again."""
    return min(max(float(f"{number:.4g}"), low), high)


@gin.register
@dataclass(frozen=True)
class Uniform(Space):
    """Even between low and high."""

    low: float
    high: float

    def validate(self) -> None:
        if self.low >= self.high:
            self.refuse("high", f"must be above low, {self.low:g}, got {self.high:g}")

    def draw(self, source: random.Random) -> float:
        return _short(source.uniform(self.low, self.high), self.low, self.high)


@gin.register
@dataclass(frozen=True)
class LogUniform(Uniform):
    """Even between low and high on a logarithmic scale."""

    low: Positive
    high: Positive

    def draw(self, source: random.Random) -> float:
        return _short(
            math.exp(source.uniform(math.log(self.low), math.log(self.high))), self.low, self.high
        )


@gin.register
@dataclass(frozen=True)
class RandInt(Space):
    """A whole number from low up to, but not including, high."""

    low: int
    high: int

    def validate(self) -> None:
        if self.low >= self.high:
            self.refuse("high", f"must be above low, {self.low}, got {self.high}")

    def draw(self, source: random.Random) -> int:
        return source.randrange(self.low, self.high)


@gin.register
@dataclass(frozen=True)
class Choice(Space):
    """Any of some values."""

    values: tuple[object, ...]

    def validate(self) -> None:
        if not self.values or not all(map(plain, self.values)):
            self.refuse(
                "values",
                f"must hold numbers, strings, True, False, None or tuples of them, got {self.values!r}",
            )

    def draw(self, source: random.Random) -> object:
        return source.choice(self.values)


def plain(value: object) -> bool:
    """Whether a value can be typed into a binding again and means the same."""
    if isinstance(value, tuple | list):
        return all(map(plain, value))
    return (
        value is None
        or isinstance(value, str | bool | int)
        or (isinstance(value, float) and math.isfinite(value))
    )


@dataclass(frozen=True)
class Axis(Part):
    """One direction of a grid: `names` are bindings that take the same value at a time."""

    names: tuple[str, ...]
    values: tuple[object, ...] | Space


def axes(grid: object) -> tuple[Axis, ...]:
    """The axes of {'Pretrain.seed': (0, 1), ('pretrain/Adam.lr', 'sae/Adam.lr'): @LogUniform()}. ValueError says what is wrong."""
    if not isinstance(grid, Mapping) or not grid:
        raise ValueError(
            f"must hold bindings and their values, such as {{'Pretrain.seed': (0, 1, 2)}}, got {grid!r}"
        )
    made = []
    for key, values in grid.items():
        names = key if isinstance(key, tuple) else (key,)
        if not names or not all(
            isinstance(name, str) and re.fullmatch(r"[\w./]*\w", name) for name in names
        ):
            raise ValueError(
                f"must have names of bindings, or tuples of them, as its keys, got {key!r}"
            )
        if not isinstance(values, Space):
            if not isinstance(values, tuple | list) or not values:
                raise ValueError(
                    f"must give {key!r} a tuple of one or more values or a space to draw from, got {values!r}"
                )
            if odd := [value for value in values if not plain(value)]:
                message = type(odd[0]).__name__ + "()" if isinstance(odd[0], Part) else repr(odd[0])
                raise ValueError(
                    f"must give {key!r} plain data (numbers, strings, True, False, None or tuples of them), got {message}"
                )
            if any(
                value == other and isinstance(value, bool) == isinstance(other, bool)
                for value, other in itertools.combinations(values, 2)
            ):
                raise ValueError(f"must give {key!r} different values, got {values!r}")
            values = tuple(values)
        made.append(Axis(names, values))
    if twice := [name for name, count in _count(made) if count > 1]:
        raise ValueError(f"must name each binding once, got {twice[0]!r} twice")
    if len([axis for axis in made if any(map(is_seed, axis.names))]) > 1:
        raise ValueError(
            "must have all its seeds in one axis, {('Pretrain.seed', 'SparseAutoencoder.seed'): (0, 1)}, to be independent"
        )
    return tuple(made)


def _count(made: list[Axis]) -> list[tuple[str, int]]:
    names = [name for axis in made for name in axis.names]
    return [(name, names.count(name)) for name in names]


# ------------------------------------------------------------------------------------------------ schedulers


@dataclass(frozen=True, kw_only=True)
class Scheduler(Part):
    """Stops trainings that do badly. A stage reports every epoch; only stages of one kind are compared with one another.

    metric: one of the scalars that a training logs, as in TensorBoard: loss, online_accuracy, l0 and so on.
    mode: whether small or large values of it are good.
    """

    metric: str
    mode: Literal["min", "max"]

    def build(self, schedulers: Any, epochs: int) -> Any:
        """The scheduler of ray.tune.schedulers, the module that is handed in, for trainings of at most so many epochs."""
        raise NotImplementedError


@gin.register
@dataclass(frozen=True, kw_only=True)
class ASHA(Scheduler):
    """Asynchronous successive halving (Li et al., arXiv:1810.05934): at epochs grace * reduction ** i the best
    1 / reduction go on."""

    grace: Count = 1
    reduction: Annotated[float, Range(1, open=True)] = 4.0

    def build(self, schedulers: Any, epochs: int) -> Any:
        return schedulers.ASHAScheduler(
            time_attr="step", metric=self.metric, mode=self.mode, grace_period=self.grace, reduction_factor=self.reduction,
            max_t=max(epochs + 1, self.grace + 1),  # a training that comes to its own end is finished, not stopped
        )  # fmt: skip


@gin.register
@dataclass(frozen=True, kw_only=True)
class MedianStopping(Scheduler):
    """Stops a training whose best value is worse than the median of the others' running means (Golovin et al., 2017, Vizier).

    grace: epochs that every training has. others: trainings that must have been seen before one is stopped.
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


# ------------------------------------------------------------------------------------------------ the sweep


class ClusterError(RuntimeError):
    """There is no such cluster, or it has not what is asked of it."""


@dataclass(frozen=True)
class Resources(Part):
    """What one trial gets: CPUs, which are also its torch threads, and GPUs, of which a fraction is shared."""

    cpu: Positive = 1.0
    gpu: AtLeastZero = 0.0


Assignment = tuple[tuple[Axis, object], ...]  # one value for each axis


@gin.register
@dataclass(frozen=True, kw_only=True)
class Sweep(Part):
    """Specs times a grid over any of their bindings.

    An axis multiplies the specs that read one of its bindings; the others do not have it (SimCLR has no TopK.k).
    name: of the folder under runs/. specs: Gin files of experiments, each with a name of its own.
    grid: bindings and the values that each takes, in turn with one another: {'Pretrain.seed': (0, 1, 2)}. A tuple of
        bindings takes one value at a time; a space such as @LogUniform() is drawn from.
    num_samples: draws from the spaces, at every point of the rest of the grid. seed: names the draws; more samples keep the first.
    baseline: the name of the spec that the others are compared with, pair by pair; the first one if there is none.
    scheduler: stops trainings that do badly. goal: picks the best cell. claim: what is asked of all of them.
    retries: how often a stage that fails is tried again. resources: of a kind of stage, {'Pretrain': {'cpu': 2, 'gpu': 0.5}};
        the others get what --cpus and --gpus say.
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
    retries: Annotated[int, Range(0)] = 2
    resources: tuple[tuple[str, Resources], ...] = ()

    def __post_init__(self) -> None:
        if self.grid is not None and not (
            isinstance(self.grid, tuple)
            and self.grid
            and all(isinstance(a, Axis) for a in self.grid)
        ):
            self._put("grid", axes)
        if self.resources != ():
            self._put("resources", _resources)
        super().__post_init__()

    def _put(self, field: str, made: Any) -> None:
        value = getattr(self, field)
        try:
            object.__setattr__(self, field, made(value))
        except FieldError as error:  # of a part inside
            raise FieldError("Sweep", field, value, f"holds {error}") from None
        except ValueError as error:
            raise FieldError("Sweep", field, value, str(error)) from None

    def validate(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", self.name):
            self.refuse(
                "name", f"must be a folder's name of letters, digits and . _ + -, got {self.name!r}"
            )
        if not self.specs:
            self.refuse("specs", "must name at least one Gin file, got ()")
        if len(set(self.specs)) < len(self.specs):
            self.refuse("specs", f"must differ from one another, got {self.specs!r}")
        if self.scheduler and any(is_seed(name) for axis in self.grid or () for name in axis.names):
            self.refuse(
                "scheduler",
                "does not go with a grid over seeds: it would stop the bad ones, and means be over the good ones",
            )
        if self.num_samples > 1 and not any(
            isinstance(axis.values, Space) for axis in self.grid or ()
        ):
            self.refuse(
                "num_samples",
                f"must be 1 where the grid has no space to draw from, got {self.num_samples}",
            )

    def assignments(self) -> Iterator[Assignment]:
        """Every point of the grid, the last axis fastest, and at each of them the draws."""
        for sample in range(self.num_samples):
            choices = [
                [axis.values.draw(random.Random(seed_for(self.seed, sample, *axis.names)))]
                if isinstance(axis.values, Space)
                else axis.values
                for axis in self.grid or ()
            ]
            for values in itertools.product(*choices):
                yield tuple(zip(self.grid or (), values, strict=True))


def _resources(asked: object) -> tuple[tuple[str, Resources], ...]:
    made = []
    for kind, amounts in asked.items() if isinstance(asked, Mapping) else [("resources", asked)]:
        if (
            not isinstance(kind, str)
            or not isinstance(amounts, Mapping)
            or not set(amounts) <= {"cpu", "gpu"}
        ):
            raise ValueError(
                f"must map kinds of stages to amounts, such as {{'Pretrain': {{'cpu': 2, 'gpu': 0.5}}}}, got {kind!r}: {amounts!r}"
            )
        made.append((kind, Resources(**amounts)))
    return tuple(made)
