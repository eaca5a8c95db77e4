"""The classes that Gin can bind, as data: kind, sentence, fields, and what they can be bound to."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from monosem.core.fields import annotations_of, nearest
from monosem.core.stage import Stage
from monosem.describing.docstrings import docstring_of
from monosem.describing.kinds import KINDS, OTHER, PartKind, kind_of
from monosem.describing.values import default_of, kind_of_value, parts_in
from monosem.specs import gin_state, load
from monosem.specs.errors import SpecError

PACKAGE = Path(load.__file__).parent.parent


class FieldDescription(NamedTuple):
    """A field of a class.

    takes: what it may hold, in words: `whole number, 1 or more`.
    default: as it is typed into Gin; None where it must be set.
    about: what the docstring says of it; '' if nothing.
    """

    name: str
    takes: str
    default: str | None
    about: str


class PartDescription(NamedTuple):
    """A class that Gin can bind.

    about: the opening of its docstring.
    text: what follows there.
    fields: in their order.
    is_stage: whether the store keeps what it computes.
    file: where it is written, `autoencoders/topk.py`, or the path of a file outside monosem.
    cls: the class itself.
    """

    name: str
    kind: PartKind
    about: str
    text: str
    fields: tuple[FieldDescription, ...]
    is_stage: bool
    file: str
    cls: type

    @property
    def is_own(self) -> bool:
        """Whether it comes with monosem."""
        return self.cls.__module__.startswith("monosem.")


def catalog() -> list[PartDescription]:
    """Every class that is registered: by kind, then by file, and there as they are written."""
    classes = [cls for cls in gin_state.registered_classes() if is_dataclass(cls)]
    order = [*KINDS, OTHER]
    described = [describe(cls) for cls in classes]
    return sorted(described, key=lambda part: (order.index(part.kind), part.file))


def describe(cls: Any) -> PartDescription:
    """A registered class in words."""
    doc, annotations = docstring_of(cls), annotations_of(cls)
    described = tuple(
        FieldDescription(
            field.name,
            kind_of_value(annotations[field.name]),
            default_of(field),
            doc.fields.get(field.name, ""),
        )
        for field in fields(cls)
    )
    is_stage = issubclass(cls, Stage)
    file = _file(cls)
    return PartDescription(
        cls.__name__, kind_of(cls), doc.opening, doc.text, described, is_stage, file, cls
    )


def _file(cls: type) -> str:
    try:
        path = Path(inspect.getfile(cls))
    except (OSError, TypeError):  # typed into a shell
        return ""
    return path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else str(path)


def places(bound: Sequence[type], parts: Sequence[PartDescription]) -> list[list[str]]:
    """The fields that take an object of one of these classes: `Pretrain.objective`.

    Those that are inherited from one class are a list of their own, in alphabetical order.
    """
    found: dict[tuple[str, type], list[str]] = {}
    for part in parts:
        for name, annotation in annotations_of(part.cls).items():
            if any(_takes(annotation, cls) for cls in bound):
                owner = _first_with(part.cls, name)
                found.setdefault((name, owner), []).append(f"{part.name}.{name}")
    return list(map(sorted, found.values()))


def _takes(annotation: Any, cls: type) -> bool:
    return any(issubclass(cls, wanted) for wanted in parts_in(annotation))


def _first_with(cls: type, field: str) -> type:
    """The class of the family that declares a field for the first time."""
    family = reversed(cls.__mro__)
    return next(base for base in family if field in inspect.get_annotations(base))


# By name


def find(name: str, parts: Sequence[PartDescription]) -> list[PartDescription]:
    """The class of a name, or the classes of a kind; capital letters do not matter.

    name: `TopK`, `TopK.k` or `corruption`.
    Raises SpecError, with the nearest name, where there is neither.
    """
    wanted = name.partition(".")[0].lstrip("@").removesuffix("()").casefold()
    by_name = {part.name.casefold(): part for part in parts}
    if wanted in by_name:
        part = by_name[wanted]
        field = name.partition(".")[2]
        return [_with_field(part, field) if field else part]
    of_kind = [part for part in parts if part.kind.name == wanted.replace("_", " ")]
    if of_kind:
        return of_kind
    known = {key: part.name for key, part in by_name.items()}
    known |= {part.kind.name: part.kind.name for part in parts}
    alike = nearest(wanted, known, "{}")
    hint = f"; did you mean {known[alike]}?" if alike else "; --describe alone lists all"
    raise SpecError(f"--describe: there is nothing called {name}{hint}")


def _with_field(part: PartDescription, field: str) -> PartDescription:
    chosen = tuple(each for each in part.fields if each.name == field)
    if not chosen:
        names = [each.name for each in part.fields]
        hint = nearest(field, names, "; did you mean {}?") or f"; it has {', '.join(names)}"
        raise SpecError(f"--describe: {part.name} has no parameter {field!r}{hint}")
    return part._replace(fields=chosen)
