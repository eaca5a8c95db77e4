"""The spine: what a spec may hold, what its key is, and in which order stages are computed.

A *part* is a frozen dataclass whose annotations say what may be written into it. A *stage* is a part with a `run` that
leaves an artifact. The key of a stage is the hash of everything that its artifact depends on. No particular part, no file
and no Gin is known here.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import math
import os
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Protocol, Union

import torch
from torch import Tensor

Artifact = dict[str, Tensor]


class FieldError(ValueError):
    """A field that holds what it may not. `owner` and `field` name it, `value` is what it holds, `reason` says why not."""

    def __init__(self, owner: str, field: str, value: object, reason: str):
        super().__init__(f"{owner}.{field} {reason}")
        self.owner, self.field, self.value = owner, field, value


class StageError(RuntimeError):
    """A stage that cannot go on: a loss that is no number, say. The message is for the person who ran it."""


# ------------------------------------------------------------------------------------------------ what fields may hold


@dataclass(frozen=True)
class Range:
    """The numbers a field may hold: at least `low` (above it if `open`) and at most `high`."""

    low: float = -math.inf
    high: float = math.inf
    open: bool = False

    def __contains__(self, number: float) -> bool:
        return (number > self.low if self.open else number >= self.low) and number <= self.high

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"between {self.low:g} and {self.high:g}" + (f", {self.low:g} excluded" if self.open else "")
        return f"above {self.low:g}" if self.open else f"{self.low:g} or more"


@dataclass(frozen=True)
class Aside:
    """Marks a field that stays out of the key, and says why. path: made absolute, as workers start in folders of their own."""

    why: str
    path: bool = False


Positive = Annotated[float, Range(0, open=True)]
AtLeastZero = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Count = Annotated[int, Range(1)]
Seed = Annotated[int, Range(0)]
Label = Annotated[str, Aside("a label: names a result without changing it")]
Place = Annotated[str, Aside("where a file or folder is; what it holds counts, through `Part.content`", path=True)]


def conform(value: Any, kind: Any) -> Any:
    """`value` as the annotation `kind` wants it (lists become tuples, whole numbers floats), or ValueError saying what it must be."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        checked = conform(value, args[0])
        for limit in args[1:]:
            if isinstance(limit, Range) and checked not in limit:
                raise ValueError(f"must be {limit}, got {value!r}")
            if isinstance(limit, Aside) and limit.path:
                if not checked:
                    raise ValueError("must be a path, got ''")
                checked = os.path.abspath(os.path.expanduser(checked))
        return checked
    if origin in (Union, types.UnionType):
        return _conform_any(value, [arg for arg in args if arg is not types.NoneType], types.NoneType in args)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            raise ValueError(f"must be a tuple such as (a, b), got {_say(value)}")
        if args[-1] is not Ellipsis and len(value) != len(args):
            raise ValueError(f"must hold {len(args)} values, got {len(value)}")
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(conform(item, each) for item, each in zip(value, kinds, strict=True))
    if origin is Literal:
        if type(value) not in {type(choice) for choice in args} or value not in args:
            raise ValueError(f"must be one of {', '.join(map(repr, args))}, got {_say(value)}")
        return value
    if kind is float and type(value) in (int, float):
        if not abs(value) <= sys.float_info.max:
            raise ValueError(f"must be a finite number, got {value!r:.20}")
        return float(value) + 0.0  # -0.0 becomes 0.0: equal specs have equal keys
    if kind is Any or not isinstance(kind, type) or issubclass(kind, list | dict | set):
        raise ValueError(f"is annotated {kind}; a field holds numbers, strings, parts or tuples of them, as it must be hashable")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise ValueError(f"must be {_NAMES.get(kind, f'{article} {kind.__name__}')}, got {_say(value)}")
    return value


def _conform_any(value: Any, kinds: Sequence[Any], optional: bool) -> Any:
    if optional and value is None:
        return None
    for kind in kinds[:-1]:
        with contextlib.suppress(ValueError):
            return conform(value, kind)
    return conform(value, kinds[-1])


_NAMES = {float: "a number", int: "a whole number", str: "a string", bool: "True or False"}


def _say(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__} (write @{value.__name__}() to make one)"
    return type(value).__name__ + "()" if isinstance(value, Part) else repr(value)


# ------------------------------------------------------------------------------------------------ parts and stages


@dataclass(frozen=True)
class Part:
    """A leaf of a spec: it describes one thing. Plain data, hashable, picklable; checked when it is made."""

    VERSION: ClassVar[int] = 1  # raised when code that a class calls changes what its fields mean

    def __post_init__(self) -> None:
        cls: Any = type(self)
        kinds = _kinds(cls)
        for field in fields(self):
            value = getattr(self, field.name)
            try:
                object.__setattr__(self, field.name, conform(value, kinds[field.name]))
            except ValueError as error:
                raise FieldError(type(self).__name__, field.name, value, str(error)) from None
        self.validate()

    def validate(self) -> None:
        """Refuse fields that contradict one another."""

    def content(self) -> str | None:
        """A digest of what the files hold that its fields point to, for a part that reads some. It counts in the key."""
        return None

    def refuse(self, field: str, reason: str) -> typing.NoReturn:
        raise FieldError(type(self).__name__, field, getattr(self, field), reason)


class Job(Protocol):
    """What a running stage may ask of the world."""

    def get(self, stage: Stage) -> Artifact:
        """The artifact of an upstream stage."""

    def log(self, step: int, of: int, **scalars: float) -> None:
        """Scalars at `step` of `of`, kept with the artifact."""

    def tick(self, step: int, of: int, images: int, loss: Tensor) -> None:
        """A sign of life between logs: `images` seen so far in this process; nothing of it is kept."""

    def save(self, state: dict[str, Any]) -> None:
        """Keep a state of tensors and numbers from which `run` can go on."""

    def restore(self) -> dict[str, Any] | None:
        """The last state that was saved, or None."""


@dataclass(frozen=True)
class Stage(Part):
    """A part that leaves an artifact: a dictionary of tensors, a function of the fields alone."""

    def upstream(self) -> tuple[Stage, ...]:
        """The stages that `run` may ask for: those among the fields, however deep inside parts."""
        return tuple(stage for field in fields(self) for stage in _stages(getattr(self, field.name)))

    def preflight(self) -> None:
        """Refuse what only the data can tell to be wrong. Called for every stage before the first one runs."""

    def run(self, job: Job) -> Artifact:
        raise NotImplementedError


def is_seed(binding: str) -> bool:
    """Whether a binding, as it is typed, is a seed: then its values are draws of one thing and not different things."""
    return binding.rpartition(".")[2] == "seed"


def title(stage: Stage) -> str:
    """The stage, the classes of its parts and its words, for people: Features(Embedding, Digits, test)."""
    cls: Any = type(stage)
    values = [getattr(stage, field.name) for field in fields(stage) if not _aside(_kinds(cls)[field.name])]
    words = [type(value).__name__ if isinstance(value, Part) else value for value in values if isinstance(value, Part | str)]
    return f"{cls.__name__}({', '.join(words)})"


def _aside(kind: Any) -> bool:
    """Whether a field of this annotation stays out of the key: `Place`, and `Place | None` as well."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return any(map(_aside, args))
    return any(isinstance(each, Aside) for each in args[1:])


def _stages(value: object) -> Iterator[Stage]:
    if isinstance(value, Stage):
        yield value
    elif isinstance(value, Part):
        for field in fields(value):
            yield from _stages(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _stages(item)


@functools.cache
def _kinds(cls: type) -> dict[str, Any]:
    """The annotations of a class, resolved."""
    return typing.get_type_hints(cls, include_extras=True)


# ------------------------------------------------------------------------------------------------ identity


def spell(value: object) -> Any:
    """`value` as plain JSON data: class names, versions, all fields that count, and a digest of what is read from files."""
    if isinstance(value, Part):
        cls: Any = type(value)
        kinds = _kinds(cls)
        spelled = {f.name: spell(getattr(value, f.name)) for f in fields(value) if not _aside(kinds[f.name])}
        content = value.content()
        files = {} if content is None else {"content": content}
        return {"class": cls.__qualname__, "version": _version(cls), "fields": spelled, **files}
    if isinstance(value, tuple | list):
        return [spell(item) for item in value]
    return value


def _version(cls: Any) -> int | str:
    """VERSION; for a class from outside monosem, which is edited while it is tried out, its module and source as well."""
    return cls.VERSION if cls.__module__.startswith("monosem.") else f"{cls.VERSION} {cls.__module__} {_source(cls)}"


@functools.cache
def _source(cls: type) -> str:
    try:
        return hashlib.sha256(inspect.getsource(cls).encode()).hexdigest()[:20]
    except (OSError, TypeError):
        return "typed into a shell"


def digest(*values: object) -> str:
    """64 hex digits that are the same in every process and on every machine."""
    return hashlib.sha256(json.dumps(spell(values), sort_keys=True, allow_nan=False).encode()).hexdigest()


@functools.cache
def key(stage: Stage) -> str:
    """The identity of a stage's artifact. The upstream keys count too, for stages that are no field but derived from fields."""
    return digest(stage, [key(above) for above in stage.upstream()])[:20]


def seed_for(*what: object) -> int:
    """A seed named by what is drawn. Nothing here ever draws from global state."""
    return int(digest(*what)[:15], 16)


def generator(*what: object, on: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device=on).manual_seed(seed_for(*what))


# ------------------------------------------------------------------------------------------------ order


def closure(stages: Sequence[Stage]) -> list[Stage]:
    """Every stage that takes part, once each, upstream first."""
    found: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if key(stage) not in found:
            for above in stage.upstream():
                visit(above)
            found[key(stage)] = stage

    for stage in stages:
        visit(stage)
    return list(found.values())


def plan(stages: Sequence[Stage], done: Callable[[Stage], bool]) -> list[list[Stage]]:
    """Waves of missing, unique stages. What is done needs nothing above it; a wave needs only the waves before it."""
    depth: dict[str, int] = {}
    waves: list[list[Stage]] = []

    def visit(stage: Stage) -> int:
        if key(stage) not in depth:
            if done(stage):
                depth[key(stage)] = 0
            else:
                level = 1 + max((visit(above) for above in stage.upstream()), default=0)
                depth[key(stage)] = level
                waves.extend([] for _ in range(level - len(waves)))
                waves[level - 1].append(stage)
        return depth[key(stage)]

    for stage in stages:
        visit(stage)
    return waves
