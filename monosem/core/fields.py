"""Fields: what the parts of a spec may hold, and the part itself, checked when it is made.

The annotation of a field is the whole rule: `lr: Positive`, `stem: Literal["cifar", "imagenet"]`,
`views: tuple[Augmentation, ...]`. A value that breaks it is refused with a reason that begins with
a verb, as in "must be above 0, got -1"; the name of the field is put in front.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib.util
import math
import os
import re
import sys
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Union

UNIONS = (Union, types.UnionType)
PACKAGE = "package:"  # begins a path inside an installed package


class FieldError(ValueError):
    """A field that holds what it may not.

    owner: the name of the class.
    field: the name of the field.
    value: what it holds.
    reason: why not; begins with a verb, as in "must be above 0": "TopK.k" is put in front.
    others: errors of other fields that were found with it.
    """

    def __init__(self, owner: str, field: str, value: object, reason: str):
        super().__init__(f"{owner}.{field} {reason}")
        self.owner, self.field, self.value = owner, field, value
        self.others: tuple[FieldError, ...] = ()


def raise_together(errors: Sequence[FieldError]) -> None:
    """Raise the first error, with the others that have another cause as its `others`, if any.

    A path that parts of several kinds hold is one cause: it is told once.
    """
    found = [each for error in errors for each in (error, *error.others)]
    causes: dict[str, FieldError] = {}
    for each in found:
        told = [earlier for earlier in causes.values() if earlier.owner != each.owner]
        if not isinstance(each.value, str) or each.value not in [one.value for one in told]:
            causes.setdefault(str(each), each)
    if causes:
        first, *others = causes.values()
        first.others = tuple(others)
        raise first


# Annotations


@dataclass(frozen=True)
class Range:
    """The numbers that a field may hold.

    low: the least of them.
    high: the largest of them.
    open: whether `low` itself is left out.
    """

    low: float = -math.inf
    high: float = math.inf
    open: bool = False

    def __contains__(self, number: float) -> bool:
        is_high_enough = number > self.low if self.open else number >= self.low
        return is_high_enough and number <= self.high

    def __str__(self) -> str:
        if self.high < math.inf:
            excluded = f", {self.low:g} excluded" if self.open else ""
            return f"between {self.low:g} and {self.high:g}{excluded}"
        return f"above {self.low:g}" if self.open else f"{self.low:g} or more"


@dataclass(frozen=True)
class NotInKey:
    """Marks a field that stays out of the key.

    why: the reason, for whoever reads the annotation.
    path: whether it is a path, which is made absolute, as workers start in folders of their own.
    """

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
    NotInKey("where a file or folder is; what it holds counts, by `Part.content`", path=True),
]


def annotations_of(cls: Any) -> dict[str, Any]:
    """The annotations of a class, resolved, by field."""
    return _resolved_annotations(cls)


@functools.cache
def _resolved_annotations(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def is_in_key(annotation: Any) -> bool:
    """Whether a field of this annotation counts in the key; `PathField | None` does not either."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) in UNIONS:
        return all(map(is_in_key, arguments))
    return not any(isinstance(mark, NotInKey) for mark in arguments[1:])


# Values


def conform(value: Any, annotation: Any) -> Any:
    """`value` as `annotation` wants it: lists become tuples, whole numbers become floats.

    Raises ValueError that says what it must be.
    """
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _conform_annotated(value, annotation)
    if origin in UNIONS:
        return _conform_union(value, typing.get_args(annotation))
    if origin is tuple:
        return _conform_tuple(value, typing.get_args(annotation))
    if origin is Literal:
        return _conform_literal(value, typing.get_args(annotation))
    if annotation is float and type(value) in (int, float):
        return _conform_number(value)
    return _conform_class(value, annotation)


def _conform_annotated(value: Any, annotation: Any) -> Any:
    kind, *marks = typing.get_args(annotation)
    checked = conform(value, kind)
    for mark in marks:
        if isinstance(mark, Range) and checked not in mark:
            raise ValueError(f"must be {mark}, got {value!r}")
        if isinstance(mark, NotInKey) and mark.path:
            if not checked:
                raise ValueError("must be a path, got ''")
            checked = absolute_path(checked)
    return checked


def absolute_path(typed: str) -> str:
    """A path as it was typed, made absolute.

    'package:NAME/REST' is REST in the folder of an installed package, which is not imported. Where
    there is no such package, what was typed stays, and whoever looks for the file says so.
    """
    if not typed.startswith(PACKAGE):
        return os.path.abspath(os.path.expanduser(typed))
    name, _, rest = typed.removeprefix(PACKAGE).partition("/")
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(name)
        if spec and spec.submodule_search_locations:
            return os.path.join(next(iter(spec.submodule_search_locations)), rest)
    return typed


def package_hint(folder: str) -> str:
    """A hint about a folder in a package that is not installed."""
    if not folder.startswith(PACKAGE):
        return ""
    name = folder.removeprefix(PACKAGE).partition("/")[0]
    return f"; try: pip install {name.replace('_', '-')}"


def _conform_union(value: Any, kinds: tuple[Any, ...]) -> Any:
    """The first kind that takes the value. If none does, the error is that of the last one."""
    if value is None and types.NoneType in kinds:
        return None
    *others, last = [kind for kind in kinds if kind is not types.NoneType]
    for kind in others:
        with contextlib.suppress(ValueError):
            return conform(value, kind)
    return conform(value, last)


def _conform_tuple(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise ValueError(f"must be a tuple such as (a, b), got {describe_value(value)}")
    if kinds[-1] is Ellipsis:
        return tuple(conform(item, kinds[0]) for item in value)
    if len(value) != len(kinds):
        raise ValueError(f"must hold {len(kinds)} values, got {len(value)}")
    return tuple(conform(item, kind) for item, kind in zip(value, kinds, strict=True))


def _conform_literal(value: Any, choices: tuple[Any, ...]) -> Any:
    types_of_choices = {type(choice) for choice in choices}  # or True would pass for 1
    if type(value) not in types_of_choices or value not in choices:
        allowed = ", ".join(map(repr, choices))
        raise ValueError(f"must be one of {allowed}, got {describe_value(value)}")
    return value


def _conform_number(value: float) -> float:
    if not abs(value) <= sys.float_info.max:
        raise ValueError(f"must be a finite number, got {value!r:.20}")
    return float(value) + 0.0  # -0.0 becomes 0.0: equal specs have equal keys


def _conform_class(value: Any, kind: Any) -> Any:
    if kind is Any or not isinstance(kind, type) or issubclass(kind, list | dict | set):
        raise ValueError(
            f"is annotated {kind}; a field holds numbers, strings, parts or tuples of them, "
            "as it must be hashable"
        )
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"must be {_describe_kind(kind)}, got {describe_value(value)}")
    return value


_PLAIN_KINDS = {float: "a number", int: "a whole number", str: "a string", bool: "True or False"}


def _describe_kind(kind: type) -> str:
    if kind in _PLAIN_KINDS:
        return _PLAIN_KINDS[kind]
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    return f"{article} {kind.__name__}"


def describe_value(value: object) -> str:
    """A value as a person would type it into Gin."""
    if isinstance(value, type):
        return f"the class {value.__name__} (write @{value.__name__}() to make one)"
    return f"{type(value).__name__}()" if isinstance(value, Part) else repr(value)


# Parts


@dataclass(frozen=True)
class Part:
    """A leaf of a spec: it describes one thing. Plain data, hashable, picklable.

    VERSION: raised when code that a class calls changes what its fields mean; it is in the key.
    """

    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        annotations = annotations_of(type(self))
        errors: list[FieldError] = []
        for field in fields(self):
            value = getattr(self, field.name)
            try:
                checked = conform(value, annotations[field.name])
            except ValueError as error:
                errors.append(FieldError(type(self).__name__, field.name, value, str(error)))
            else:
                object.__setattr__(self, field.name, checked)
        raise_together(errors)
        self.validate()

    def validate(self) -> None:
        """Refuse fields that contradict one another."""

    def content(self) -> str | None:
        """A digest of the files that its fields point to; None where it reads no file.

        It is in the key.
        """
        return None

    def refuse_repeated(self, field: str) -> None:
        """Refuse a tuple that holds something twice."""
        values = getattr(self, field)
        if len(set(values)) < len(values):
            self.refuse(field, f"must differ from one another, got {values!r}")

    def refuse_no_folder_name(self, field: str) -> None:
        """Refuse a text that cannot be the name of a folder under runs/."""
        name = getattr(self, field)
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
            letters = "letters, digits and . _ + -"
            self.refuse(field, f"must be a folder's name of {letters}, got {name!r}")

    def refuse(self, field: str, reason: str) -> typing.NoReturn:
        """Raise a FieldError of one of its fields.

        reason: begins with a verb, as in "must be above 0": "TopK.k" is put in front.
        """
        raise FieldError(type(self).__name__, field, getattr(self, field), reason)


def parts_in(value: object) -> list[Part]:
    """Every part in a part or a tuple, itself too, each once and the innermost first."""
    found: dict[Part, None] = {}

    def visit(value: object) -> None:
        if isinstance(value, tuple):
            for item in value:
                visit(item)
        elif isinstance(value, Part) and value not in found:
            for field in fields(value):
                visit(getattr(value, field.name))
            found[value] = None

    visit(value)
    return list(found)


# Names


def nearest(word: str, candidates: Iterable[str], phrase: str, cutoff: float = 0.6) -> str:
    """`phrase`, with {} replaced by the candidate that looks most like `word`; '' if none does.

    cutoff: how alike they must be, from 0 to 1.
    """
    matches = difflib.get_close_matches(word, list(candidates), n=1, cutoff=cutoff)
    return phrase.format(matches[0]) if matches else ""
