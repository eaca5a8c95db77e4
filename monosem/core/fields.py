"""TODO."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Union


class FieldError(ValueError):
    """A field that holds what it may not. `owner` and `field` name it, `value` is what it holds, `reason` says why not."""

    def __init__(self, owner: str, field: str, value: object, reason: str):
        super().__init__(f"{owner}.{field} {reason}")
        self.owner, self.field, self.value = owner, field, value


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
            return f"between {self.low:g} and {self.high:g}" + (
                f", {self.low:g} excluded" if self.open else ""
            )
        return f"above {self.low:g}" if self.open else f"{self.low:g} or more"


@dataclass(frozen=True)
class NotInKey:
    """Marks a field that stays out of the key, and says why. path: made absolute, as workers start in folders of their own."""

    why: str
    path: bool = False


Positive = Annotated[float, Range(0, open=True)]


AtLeastZero = Annotated[float, Range(0)]


Fraction = Annotated[float, Range(0, 1)]


Count = Annotated[int, Range(1)]


Seed = Annotated[int, Range(0)]


Label = Annotated[str, NotInKey("a label: names a result without changing it")]


PathField = Annotated[
    str,
    NotInKey("where a file or folder is; what it holds counts, through `Part.content`", path=True),
]


def conform(value: Any, kind: Any) -> Any:
    """`value` as the annotation `kind` wants it (lists become tuples, whole numbers floats), or ValueError saying what it must be."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        checked = conform(value, args[0])
        for limit in args[1:]:
            if isinstance(limit, Range) and checked not in limit:
                raise ValueError(f"must be {limit}, got {value!r}")
            if isinstance(limit, NotInKey) and limit.path:
                if not checked:
                    raise ValueError("must be a path, got ''")
                checked = os.path.abspath(os.path.expanduser(checked))
        return checked
    if origin in (Union, types.UnionType):
        return _conform_any(
            value, [arg for arg in args if arg is not types.NoneType], types.NoneType in args
        )
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
        raise ValueError(
            f"is annotated {kind}; a field holds numbers, strings, parts or tuples of them, as it must be hashable"
        )
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise ValueError(
            f"must be {_NAMES.get(kind, f'{article} {kind.__name__}')}, got {_say(value)}"
        )
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
        kinds = annotations_of(cls)
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


def is_not_in_key(kind: Any) -> bool:
    """Whether a field of this annotation stays out of the key: `Place`, and `Place | None` as well."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return any(map(is_not_in_key, args))
    return any(isinstance(each, NotInKey) for each in args[1:])


@functools.cache
def annotations_of(cls: type) -> dict[str, Any]:
    """The annotations of a class, resolved."""
    return typing.get_type_hints(cls, include_extras=True)
