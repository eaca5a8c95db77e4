"""The Markdown of summary.md as HTML: headings, lists of two levels, tables, figures, paragraphs.

No more than what monosem writes itself. All text is escaped, so nothing in a name becomes markup.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

HEADING = re.compile(r"(#{1,4}) (.*)")
ITEM = re.compile(r"( *)- (.*)")
FIGURE = re.compile(r"!\[(.*)\]\(([\w.-]+)\)")

Show = Callable[[str, str], str]  # a caption and the name of a file -> HTML


def linked(caption: str, name: str) -> str:
    """A figure in a file beside the page."""
    return f'<img alt="{html.escape(caption)}" src="{html.escape(name)}">'


def to_html(text: str, show: Show = linked) -> str:
    """The blocks of a text, one after the other.

    show: a figure of the text, `![caption](name.png)` on a line of its own.
    """
    lines = text.splitlines()
    blocks = [(kind, list(group)) for kind, group in groupby(lines, key=_kind)]
    return "\n".join(
        "\n".join(_block(kind, group, show)) for kind, group in blocks if kind != "blank"
    )


def figures_of(text: str) -> list[str]:
    """The names of the files of the figures of a text."""
    return [found[2] for line in text.splitlines() if (found := FIGURE.fullmatch(line))]


def _kind(line: str) -> str:
    if not line.strip():
        return "blank"
    if HEADING.match(line):
        return "heading"
    if FIGURE.fullmatch(line):
        return "figure"
    if line.startswith("|"):
        return "table"
    return "list" if ITEM.match(line) else "paragraph"


def _block(kind: str, lines: Sequence[str], show: Show) -> Iterator[str]:
    if kind == "heading":
        yield from map(_heading, lines)
    elif kind == "figure":
        yield from (FIGURE.sub(lambda found: show(found[1], found[2]), line) for line in lines)
    elif kind == "table":
        yield _table(lines)
    elif kind == "list":
        yield from _list(lines)
    else:
        yield f"<p>{inline(' '.join(lines))}</p>"


def inline(text: str) -> str:
    """Escaped text with `code` and **bold**."""
    escaped = html.escape(text, quote=False)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", escaped)


def _heading(line: str) -> str:
    found = HEADING.match(line)
    assert found is not None
    level = len(found[1])
    return f"<h{level}>{inline(found[2])}</h{level}>"


def _table(lines: Sequence[str]) -> str:
    """The second line is the rule below the headings."""
    header, _, *body = (
        [_cells(line) for line in lines] if len(lines) > 1 else [_cells(lines[0]), []]
    )
    head = "".join(f"<th>{cell}</th>" for cell in header)
    rows = "\n".join(f"<tr>{_row(cells)}</tr>" for cells in body)
    return (
        f'<div class="table"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _cells(line: str) -> list[str]:
    return [inline(cell.strip()) for cell in line.strip().strip("|").split("|")]


def _row(cells: Sequence[str]) -> str:
    first, *others = cells
    return f"<th>{first}</th>" + "".join(f"<td>{cell}</td>" for cell in others)


def _list(lines: Sequence[str]) -> Iterator[str]:
    """Indented items are a list inside the item above."""
    yield "<ul>"
    is_deep = False
    for line in lines:
        found = ITEM.match(line)
        assert found is not None
        if bool(found[1]) != is_deep:
            is_deep = not is_deep
            yield "<ul>" if is_deep else "</ul>"
        yield f"<li>{inline(found[2])}"
    yield "</ul></ul>" if is_deep else "</ul>"
