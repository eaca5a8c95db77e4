"""The figures of a table once more, for a paper: at text width, with small letters, as vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

from monosem.core.files import atomic_write
from monosem.figures.bars import draw_bars
from monosem.figures.curves import draw_curves
from monosem.figures.style import PAPER
from monosem.results.table import Table

KINDS = ("png", "svg", "pdf")
SETTINGS: dict[Any, Any] = {  # of matplotlib, whose type of the names is private
    "font.size": PAPER.font,
    "lines.linewidth": 1.0,
    "axes.linewidth": 0.6,
    "svg.fonttype": "none",  # letters stay letters, which a paper's own font may take over
    "svg.hashsalt": "monosem",  # equal figures are equal files
    "pdf.fonttype": 42,
}


def draw_paper_figures(
    folder: Path, table: Table, names: Mapping[str, str], kind: str
) -> list[Path]:
    """The figures at text width; their paths.

    names: the file of each figure, with any ending, and the curve that it is of; '' for all that
        share one.
    kind: one of KINDS.
    """
    drawn = []
    with matplotlib.rc_context(SETTINGS):
        for name, curve in names.items():
            target = folder / Path(name).with_suffix(f".{kind}").name
            with atomic_write(target) as path:
                if curve in table.named:
                    draw_bars(table, curve, path, PAPER)
                else:
                    draw_curves(table, path, [curve] if curve else None, PAPER)
            drawn.append(target)
    return drawn
