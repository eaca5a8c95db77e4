"""What all figures share: colours of lines, markers, the frame, and how a figure is saved.

Only this folder imports matplotlib to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib import pyplot
from matplotlib.colors import to_rgb

from monosem.results.rows import Line
from monosem.results.summary import sample_sizes
from monosem.results.table import Table

matplotlib.use("Agg")

Color = tuple[float, ...]


class Look(NamedTuple):
    """What a figure is drawn for.

    width: in inches; None: as wide as its panels want.
    columns: panels beside one another, at the most; None: all of them.
    font: in points.
    dpi: of a PNG.
    """

    width: float | None = None
    columns: int | None = None
    font: float = 10.0
    dpi: int = 150


SCREEN = Look()
PAPER = Look(width=5.5, columns=3, font=7.0, dpi=300)  # the text width of ICLR, in inches

MARKERS = "osD^vP*X"
MANY_LINES = 5  # more have a legend beside the panels and paler intervals
COLORS = 10  # of matplotlib's cycle


def line_color(lines: Sequence[Line], line: Line) -> Color:
    """A colour for each line; where there are more lines than colours, one for each experiment, its
    lines paler and paler."""
    if len(lines) <= COLORS:
        return to_rgb(f"C{lines.index(line)}")
    experiments = list(dict.fromkeys(other.experiment for other in lines))
    siblings = _siblings(lines, line)
    paler = 0.7 * siblings.index(line) / len(siblings)
    color = to_rgb(f"C{experiments.index(line.experiment)}")
    return tuple(paler + (1 - paler) * part for part in color)


def line_marker(lines: Sequence[Line], line: Line) -> str:
    """One for each line; where an experiment has one colour, in turn for its lines."""
    among = lines if len(lines) <= COLORS else _siblings(lines, line)
    return MARKERS[among.index(line) % len(MARKERS)]


def _siblings(lines: Sequence[Line], line: Line) -> list[Line]:
    """The lines of the same experiment."""
    return [other for other in lines if other.experiment == line.experiment]


def open_frame(panel: Any) -> None:
    """Hide the top and the right side of the frame."""
    panel.spines[["top", "right"]].set_visible(False)


def sizes_title(table: Table) -> str:
    """What the means and intervals of a table are over."""
    seeds, repeats = sample_sizes(table)
    sizes = []
    if seeds != "1":
        sizes.append(f"{seeds} seeds")
    if repeats != "1":
        sizes.append(f"{repeats} draws")
    return f"Mean and 95 % interval over {' x '.join(sizes)}" if sizes else "Single draws"


def save(figure: Any, title: str, path: Path, look: Look = SCREEN) -> None:
    """As PNG, SVG or PDF, by the ending of the path. Equal figures are equal files."""
    figure.suptitle(title, fontsize="medium")
    if look.width is not None:
        wide, high = figure.get_size_inches()
        figure.set_size_inches(look.width, high * look.width / wide)
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    figure.savefig(path, dpi=look.dpi, metadata=undated.get(path.suffix))
    pyplot.close(figure)
