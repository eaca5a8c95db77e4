"""What looks at finished runs: --gather, which draws them again, several over one another."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from monosem.cli.outcomes import DONE, UsageError
from monosem.cli.settings import usable_folder

if TYPE_CHECKING:
    from monosem.results.rows import Row


def gather(flags: argparse.Namespace) -> int:
    """Draws the curves of finished runs again from their tables, several over one another."""
    from monosem.results.rows import join, read_table
    from monosem.results.summary import overview, tables
    from monosem.results.table import Table

    folders = [Path(name) for name in flags.gather]
    try:
        rows = join([read_table(folder / "curves.csv") for folder in folders])
        written = (
            _redraw(folders[0], rows) if len(folders) == 1 else _lay_over(folders, rows, flags)
        )
    except (ValueError, OSError) as error:
        raise UsageError(f"--gather: {error}") from None
    is_sweep = any(row.swept for row in rows)
    print(overview(Table(rows)) if is_sweep else tables(Table(rows)))
    print(f"written: {written}")
    return DONE


def _redraw(folder: Path, rows: Sequence[Row]) -> str:
    """The figures alone, as the summary says more than the table knows."""
    from monosem.results.table import Table
    from monosem.running import run_folder

    figures = run_folder.draw_figures(folder, Table(rows))
    return ", ".join(map(str, figures))


def _lay_over(folders: Sequence[Path], rows: Sequence[Row], flags: argparse.Namespace) -> str:
    """A run folder of several runs together."""
    from monosem.figures.gallery_page import write_gallery
    from monosem.running import run_folder

    encoders = run_folder.joined_gallery(folders)
    name = "+".join(folder.name for folder in folders)
    folder = usable_folder(Path(flags.runs, name), "--runs")
    run_folder.write_table(folder, rows, run_folder.summarise(rows))
    for file in ("gallery.json", "gallery.html"):
        (folder / file).unlink(missing_ok=True)  # of an earlier time
    if encoders is not None:
        write_gallery(folder, encoders)
    return str(folder)
