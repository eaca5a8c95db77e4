"""Descriptions as text: for a terminal, and as the tables of docs/parts.md.

The page has prose of its own. A table stands between two marks and is written anew as a whole:

    <!-- corruption -->
    | class | what it is | fields |
    <!-- end -->
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from monosem.describing.catalog import FieldDescription, PartDescription, places
from monosem.describing.kinds import PartKind

WIDTH = 96
MOST_PLACES = 3  # that are named of fields that come from one class
TABLE = re.compile(r"<!-- ([a-z ]+) -->\n.*?<!-- end -->", re.DOTALL)
HEADER = "| class | what it is | fields |\n|---|---|---|"


# For a terminal


def overview_text(parts: Sequence[PartDescription]) -> str:
    """Every class in a line, by kind."""
    blocks = []
    for kind in dict.fromkeys(part.kind for part in parts):
        own = [part for part in parts if part.kind == kind]
        width = max(len(part.name) for part in own)
        lines = [_cut(f"  {part.name:{width}}  {part.about}") for part in own]
        blocks.append("\n".join([f"{kind.name}: {kind.about}", *lines]))
    return "\n\n".join(blocks)


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[:WIDTH].rpartition(' ')[0]} ..."


def part_text(part: PartDescription, parts: Sequence[PartDescription]) -> str:
    """One class: what it is, where it is bound, what each of its fields takes."""
    stage = "; a stage: the store keeps its result" if part.is_stage else ""
    lines = [f"{part.name} ({part.kind.name}{stage})", "", textwrap.fill(part.about, WIDTH), ""]
    if part.text:
        lines += [part.text, ""]
    if bound := places([part.cls], parts):
        lines += [*_wrapped(f"goes into {_shortened(bound)}", ""), ""]
    for field in part.fields:
        lines += _field_lines(field)
    lines.append(f"file: {'monosem/' if part.is_own else ''}{part.file}")
    return "\n".join(lines)


def _field_lines(field: FieldDescription) -> Iterator[str]:
    default = "must be set" if field.default is None else f"default {field.default}"
    yield from _wrapped(f"{field.name}: {field.takes}; {default}", "    ")
    if field.about:
        yield from (f"    {line}" for line in textwrap.wrap(field.about, WIDTH - 4))
    yield ""


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False)


def _shortened(families: Sequence[Sequence[str]], quote: str = "") -> str:
    """The first places of each family, and how many more there are."""
    named = [place for family in families for place in family[:MOST_PLACES]]
    more = sum(map(len, families)) - len(named)
    shown = ", ".join(f"{quote}{place}{quote}" for place in named)
    return f"{shown} and {more} more" if more else shown


# For docs/parts.md


def renewed(page: str, parts: Sequence[PartDescription]) -> str:
    """The page with all of its tables written anew."""

    def table(found: re.Match[str]) -> str:
        return f"<!-- {found[1]} -->\n{kind_table(found[1], parts)}\n<!-- end -->"

    return TABLE.sub(table, page)


def tables_of(page: str) -> list[str]:
    """The kinds that a page has tables of."""
    return [found[1] for found in TABLE.finditer(page)]


def kind_table(name: str, parts: Sequence[PartDescription]) -> str:
    """The table of a kind in Markdown, and above it what takes objects of that kind.

    Raises ValueError where there is no such kind.
    """
    own = [part for part in parts if part.kind.name == name]
    if not own:
        raise ValueError(f"there is no kind of parts called {name!r}")
    rows = [f"| {_class_cell(part)} | {_cell(part.about)} | {_fields_cell(part)} |" for part in own]
    return "\n".join([_places_line(own[0].kind, parts), "", HEADER, *rows])


def _places_line(kind: PartKind, parts: Sequence[PartDescription]) -> str:
    about = f"{kind.about[0].upper()}{kind.about[1:]}."
    bound = places(kind.bases, parts)
    return f"{about} Goes into {_shortened(bound, '`')}." if bound else about


def _class_cell(part: PartDescription) -> str:
    return f"`{part.name}`<br>`{part.file}`"


def _fields_cell(part: PartDescription) -> str:
    return "<br>".join(map(_field_text, part.fields)) or "none"


def _field_text(field: FieldDescription) -> str:
    value = "" if field.default is None else f" = {field.default}"
    ending = ", must be set" if field.default is None else ""
    return f"{_code(field.name + value)}: {_cell(field.takes)}{ending}"


def _code(text: str) -> str:
    return "`" + text.replace("|", r"\|") + "`"


def _cell(text: str) -> str:
    """Text of a cell: no bar may end it, and no sign of an equation may become Markdown."""
    pieces = text.split("`")  # every other one is code
    plain = [re.sub(r"([|*_<>\[\]])", r"\\\1", piece) for piece in pieces]
    return "`".join(
        piece.replace("|", r"\|") if index % 2 else plain[index]
        for index, piece in enumerate(pieces)
    )
