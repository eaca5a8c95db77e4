"""Docstrings of parts, taken apart: the opening sentence, the text, and a line for each field.

    TopK keeps the k largest pre-activations of each row.      <- the opening

    From Gao et al.                                            <- the text

    k: latents that may be active at once;                     <- a field; its later lines are
        fewer where one is negative.                              indented

A field of a base class may be described there.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator
from dataclasses import fields
from typing import Any, NamedTuple

FIELD_LINE = re.compile(r"(\w+(?:(?:, | and )\w+)*): (.*)")


class Docstring(NamedTuple):
    """A docstring of a part.

    opening: its first paragraph, in one line.
    text: what follows, with its own lines; '' if nothing does.
    fields: what is said of each field, in one line.
    """

    opening: str
    text: str
    fields: dict[str, str]


def docstring_of(cls: Any) -> Docstring:
    """Of a dataclass; fields that it does not describe itself are looked up in its bases."""
    names = [field.name for field in fields(cls)]
    own = _parse(_written_doc(cls), names)
    described: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        described |= _parse(_written_doc(base), names).fields
    return own._replace(fields={name: described[name] for name in names if name in described})


def _written_doc(cls: type) -> str:
    """What a person wrote; dataclass makes up a signature where nobody did."""
    doc = vars(cls).get("__doc__") or ""
    return "" if doc.startswith(f"{cls.__name__}(") else inspect.cleandoc(doc)


def _parse(doc: str, names: Collection[str]) -> Docstring:
    """names: of fields; a line that begins with another word and a colon is plain text."""
    described: dict[str, str] = {}
    rest: list[str] = []
    current: list[str] = []  # the fields that an indented line goes on about
    for line in doc.splitlines():
        if line.startswith(" ") and current:
            for name in current:
                described[name] += f" {line.strip()}"
            continue
        current = list(_fields_of_line(line, names))
        if current:
            described |= dict.fromkeys(current, _text_of_line(line))
        else:
            rest.append(line)
    paragraphs = "\n".join(rest).strip().split("\n\n", 1)
    opening = " ".join(paragraphs[0].split())
    text = paragraphs[1].strip("\n") if len(paragraphs) > 1 else ""
    return Docstring(opening, text, described)


def _fields_of_line(line: str, names: Collection[str]) -> Iterator[str]:
    """The fields that a line describes: `grace: ...`, or `low and high: ...`."""
    begins = FIELD_LINE.match(line)
    found = re.split(", | and ", begins[1]) if begins else []
    return iter(found if set(found) <= set(names) else [])


def _text_of_line(line: str) -> str:
    begins = FIELD_LINE.match(line)
    return begins[2] if begins else ""
