"""The grid of a sweep: its axes, and the spaces that values are drawn from. Reads no Gin."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import gin

from monosem.core.fields import Part, Positive
from monosem.core.identity import is_seed


@dataclass(frozen=True)
class Space(Part):
    """Values to draw from instead of a list: Ray Tune's search spaces by name and meaning."""

    def draw(self, source: random.Random) -> object:
        raise NotImplementedError


@gin.register
@dataclass(frozen=True)
class Uniform(Space):
    """Even between low and high, to four significant digits.

    low: the least value that may be drawn.
    high: the largest value that may be drawn.
    """

    low: float
    high: float

    def validate(self) -> None:
        if self.low >= self.high:
            self.refuse("high", f"must be above low, {self.low:g}, got {self.high:g}")

    def draw(self, source: random.Random) -> float:
        return _rounded(source.uniform(self.low, self.high), self.low, self.high)


@gin.register
@dataclass(frozen=True)
class LogUniform(Uniform):
    """Even between low and high on a logarithmic scale, to four significant digits."""

    low: Positive
    high: Positive

    def draw(self, source: random.Random) -> float:
        exponent = source.uniform(math.log(self.low), math.log(self.high))
        return _rounded(math.exp(exponent), self.low, self.high)


@gin.register
@dataclass(frozen=True)
class RandInt(Space):
    """A whole number from low up to, but not including, high.

    low: the least number that may be drawn.
    high: one more than the largest number that may be drawn.
    """

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
    """Any of the values.

    values: numbers, strings, True, False, None or tuples of them.
    """

    values: tuple[object, ...]

    def validate(self) -> None:
        if not self.values or not all(map(is_plain, self.values)):
            self.refuse(
                "values",
                "must hold numbers, strings, True, False, None or tuples of them, "
                f"got {self.values!r}",
            )

    def draw(self, source: random.Random) -> object:
        return source.choice(self.values)


def _rounded(value: float, low: float, high: float) -> float:
    """To four significant digits, so that a drawn value can be read in a table and typed again."""
    return min(max(float(f"{value:.4g}"), low), high)


@dataclass(frozen=True)
class TypedReference:
    """An @scope/Name() among the values of an axis. Every cell builds it by its own bindings.

    text: as it is typed.
    """

    text: str

    def __repr__(self) -> str:
        return self.text

    def __str__(self) -> str:
        """For tables and folders: the scope, or else the name."""
        scope, _, name = self.text.removeprefix("@").removesuffix("()").rpartition("/")
        return scope or name


def is_plain(value: object) -> bool:
    """Whether a value can be typed into a binding again and means the same."""
    if isinstance(value, TypedReference):
        return True
    if isinstance(value, tuple | list):
        return all(map(is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | bool | int)


@dataclass(frozen=True)
class Axis(Part):
    """One direction of a grid.

    names: bindings that always share one value.
    values: those that they take in turn, or a space to draw from.
    """

    names: tuple[str, ...]
    values: tuple[object, ...] | Space


def axes(grid: object) -> tuple[Axis, ...]:
    """The axes of {'Pretrain.seed': (0, 1), ('pretrain/Adam.lr', 'sae/Adam.lr'): @LogUniform()}.

    Raises ValueError that says what is wrong.
    """
    if not isinstance(grid, Mapping) or not grid:
        example = "{'Pretrain.seed': (0, 1, 2)}"
        raise ValueError(f"must hold bindings and their values, such as {example}, got {grid!r}")
    made = [Axis(_axis_names(key), _axis_values(key, values)) for key, values in grid.items()]
    _check_each_name_is_there_once(made)
    _check_seeds_are_one_axis(made)
    return tuple(made)


def _axis_names(key: object) -> tuple[str, ...]:
    names = key if isinstance(key, tuple) else (key,)
    for name in names or (None,):
        if not isinstance(name, str) or not re.fullmatch(r"[\w./]*\w", name):
            raise ValueError(
                f"must have names of bindings, or tuples of them, as its keys, got {key!r}"
            )
    return names


def _axis_values(key: object, values: object) -> tuple[object, ...] | Space:
    if isinstance(values, Space):
        return values
    if not isinstance(values, tuple | list) or not values:
        choices = "a tuple of one or more values or a space to draw from"
        raise ValueError(f"must give {key!r} {choices}, got {values!r}")
    for value in values:
        if not is_plain(value):
            kinds = "numbers, strings, True, False, None, objects as @Name() or tuples of them"
            raise ValueError(f"must give {key!r} {kinds}, got {value!r}")
    if any(_same(one, other) for one, other in itertools.combinations(values, 2)):
        raise ValueError(f"must give {key!r} different values, got {values!r}")
    references = [value for value in values if isinstance(value, TypedReference)]
    if len(set(map(str, references))) < len(references):
        raise ValueError(f"must give {key!r} objects of different scopes, got {values!r}")
    return tuple(values)


def _same(one: object, other: object) -> bool:
    """Equal, though 1 and True are not the same value."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _check_each_name_is_there_once(made: Sequence[Axis]) -> None:
    uses = Counter(name for axis in made for name in axis.names)
    for name, count in uses.items():
        if count > 1:
            raise ValueError(f"must name each binding once, got {name!r} twice")


def _check_seeds_are_one_axis(made: Sequence[Axis]) -> None:
    over_seeds = [axis for axis in made if any(map(is_seed, axis.names))]
    if len(over_seeds) > 1:
        example = "{('Pretrain.seed', 'SparseAutoencoder.seed'): (0, 1)}"
        raise ValueError(f"must have all its seeds in one axis, {example}, to be independent")
