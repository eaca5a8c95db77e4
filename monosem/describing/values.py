"""What a field may hold and what it holds by default, in the words of a person who types Gin."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field
from typing import Annotated, Any, Literal

from monosem.core.fields import UNIONS, NotInKey, Part, Range

PLAIN = {
    float: "number",
    int: "whole number",
    str: "string",
    bool: "True or False",
    object: "any value",
    types.NoneType: "None",
}


def kind_of_value(annotation: Any) -> str:
    """What an annotation takes: `number, 0 or more`, `'linf' or 'l2'`, `tuple of Metric`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _annotated(arguments)
    if origin in UNIONS:
        return _choice(list(dict.fromkeys(map(kind_of_value, arguments))))
    if origin is Literal:
        return _choice(list(map(repr, arguments)))
    if origin is tuple:
        return _tuple(arguments)
    if annotation in PLAIN:
        return PLAIN[annotation]
    return str(getattr(annotation, "__name__", annotation))


def _annotated(arguments: tuple[Any, ...]) -> str:
    kind, *marks = arguments
    words = kind_of_value(kind)
    if any(isinstance(mark, NotInKey) and mark.path for mark in marks):
        words = "path"
    return ", ".join([words, *(str(mark) for mark in marks if isinstance(mark, Range))])


def _choice(words: list[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _tuple(arguments: tuple[Any, ...]) -> str:
    if arguments[-1:] == (Ellipsis,):
        kind, comma, rest = kind_of_value(arguments[0]).partition(",")
        plural = f"{kind}s" if kind in (PLAIN[float], PLAIN[int], PLAIN[str]) else kind
        return f"tuple of {plural}{comma}{rest}"
    return f"tuple ({'; '.join(map(kind_of_value, arguments))})"


def default_of(field: Field[Any]) -> str | None:
    """The default of a field as it is typed into Gin; None where it must be set."""
    return None if field.default is MISSING else as_typed_in_gin(field.default)


def as_typed_in_gin(value: object) -> str:
    """A value: `256`, `'cifar'`, `@TopK()`; an object with settings of its own by its fields."""
    if isinstance(value, tuple):
        inside = ", ".join(map(as_typed_in_gin, value))
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if not isinstance(value, Part):
        return repr(value)
    try:
        is_plain = type(value)() == value
    except TypeError:  # it has a field that must be set
        is_plain = False
    return f"@{type(value).__name__}()" if is_plain else repr(value)


def parts_in(annotation: Any) -> Iterator[type]:
    """The classes of objects that an annotation takes, inside tuples and unions too."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from parts_in(argument)
