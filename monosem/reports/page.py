"""index.html: a run folder in one page that opens alone and offline, on a phone and on paper.

It is made of the files that lie there: summary.md, the figures, the gallery, and the Gin file that
gives the same numbers. What is absent is left out. Figures are at the top, but those that the
summary shows itself.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator
from pathlib import Path
from string import Template

from monosem.core.files import write_text
from monosem.reports.markdown_html import figures_of, to_html

PAGE = "index.html"
TEMPLATE = Path(__file__).with_name("page.html")
FIRST = "curves.png"  # of the figures
LAST = ("space.png", "histograms.png", "gallery.png")
CONFIGS = ("config.gin", "sweep.gin", "report.gin")


def write_page(folder: Path) -> Path:
    """Leave index.html in a run folder; its path."""
    write_text(folder / PAGE, page_text(folder))
    return folder / PAGE


def page_text(folder: Path) -> str:
    """The page of a run folder, with everything inside."""
    summary = _text(folder / "summary.md")
    title, _, rest = summary.partition("\n") if summary.startswith("# ") else ("", "", summary)
    heading = title.removeprefix("# ") or folder.name
    return Template(TEMPLATE.read_text("utf-8")).substitute(
        title=html.escape(heading),
        figures="\n".join(
            _figure(path) for path in _figures(folder) if path.name not in figures_of(summary)
        ),
        summary=_summary(rest, folder),
        gallery=_gallery(folder),
        config="\n".join(_configs(folder)),
    )


def _summary(text: str, folder: Path) -> str:
    """The tables first, and then the list of what was done, where the summary begins with it."""
    start = text.find("\n|")
    notes, results = text[: start + 1], text[start + 1 :]
    lines = [line for line in notes.splitlines() if line.strip()]
    if not lines or not all(line.lstrip().startswith("- ") for line in lines):
        return to_html(text, lambda caption, name: _figure(folder / name, caption))
    return f"{to_html(results)}\n<h2>What was trained and probed</h2>\n{to_html(notes)}"


def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""


def _figures(folder: Path) -> list[Path]:
    """All curves first; what is about single dimensions last."""
    order = {FIRST: 0, **{name: 2 + place for place, name in enumerate(LAST)}}
    paths = sorted(folder.glob("*.png"))
    return sorted(paths, key=lambda path: order.get(path.name, 1))


def _figure(path: Path, caption: str = "") -> str:
    name = html.escape(caption or path.stem.replace("_", " "))
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{name}" src="data:image/png;base64,{data}">'
        f"<figcaption>{name}</figcaption></figure>"
    )


def _gallery(folder: Path) -> str:
    """The gallery page as it is, in a frame that holds its text."""
    if not (text := _text(folder / "gallery.html")):
        return ""
    return (
        "<details><summary>Gallery: what activates each dimension most</summary>\n"
        f'<iframe title="gallery" loading="lazy" srcdoc="{html.escape(text)}"></iframe></details>'
    )


def _configs(folder: Path) -> Iterator[str]:
    for name in CONFIGS:
        if text := _text(folder / name):
            yield (
                f'<details class="print"><summary>{name}</summary>\n'
                f"<pre>{html.escape(text)}</pre></details>"
            )
