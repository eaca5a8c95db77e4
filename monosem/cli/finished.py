"""What looks at finished runs: --list, --diff, --gather, which draws them again, and what
--table and --figures take along.
"""

from __future__ import annotations

import argparse
import sys
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
    if not flags.table:  # its tables are printed in place of these
        is_sweep = any(row.swept for row in rows)
        print(overview(Table(rows)) if is_sweep else tables(Table(rows)))
    print(f"written: {', '.join(map(str, written))}", file=sys.stderr if flags.table else None)
    take_along(flags, _folder_of(folders, flags))
    return DONE


def list_runs(flags: argparse.Namespace) -> int:
    """Prints what has been run."""
    from monosem.keeping.listing import list_runs as listed

    try:
        print(listed(Path(flags.runs)))
    except OSError as error:
        raise UsageError(f"--list: {error}") from None
    except ValueError as error:
        raise UsageError(f"--runs: {error}") from None
    return DONE


def show_differences(flags: argparse.Namespace) -> int:
    """Prints in what two runs differ."""
    from monosem.keeping.differences import difference_report

    first, second = map(Path, flags.diff)
    if first.resolve() == second.resolve():
        raise UsageError(f"--diff: {second} is named twice")
    try:
        print(difference_report(first, second))
    except (ValueError, OSError) as error:
        raise UsageError(f"--diff: {error}") from None
    return DONE


def take_along(flags: argparse.Namespace, folder: Path) -> None:
    """What --table and --figures ask for, of a run folder: written under paper/, tables printed."""
    source = folder / "curves.csv"
    if not (flags.table or flags.figures) or not source.exists():
        return
    from monosem.core.files import write_text
    from monosem.figures.paper import draw_paper_figures
    from monosem.reports.formats import FORMATS
    from monosem.reports.paper_tables import paper_tables
    from monosem.results.rows import read_table
    from monosem.results.table import Table
    from monosem.running.run_folder import figure_names

    table = Table(read_table(source))
    paper = usable_folder(folder / "paper", "--runs")
    written: list[Path] = []
    for kind in flags.figures:
        written += draw_paper_figures(paper, table, figure_names(table.rows), kind)
    if flags.table:
        name, write = FORMATS[flags.table]
        text = write(paper_tables(table))
        write_text(paper / name, text)
        written.append(paper / name)
        print(text, end="")
    print(f"written: {', '.join(map(str, written))}", file=sys.stderr)


def _folder_of(folders: Sequence[Path], flags: argparse.Namespace) -> Path:
    """Where what is gathered goes: a folder of its own where there are several."""
    if len(folders) == 1:
        return folders[0]
    return Path(flags.runs, "+".join(folder.name for folder in folders))


def _redraw(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """The figures and the page, as the summary says more than the table knows."""
    from monosem.reports.page import write_page
    from monosem.results.table import Table
    from monosem.running import run_folder

    figures = run_folder.draw_figures(folder, Table(rows))
    return [*figures, write_page(folder)]


def _lay_over(
    folders: Sequence[Path], rows: Sequence[Row], flags: argparse.Namespace
) -> list[Path]:
    """A run folder of several runs together."""
    from monosem.figures.gallery_page import write_gallery
    from monosem.reports.page import write_page
    from monosem.running import run_folder

    encoders = run_folder.joined_gallery(folders)
    folder = usable_folder(_folder_of(folders, flags), "--runs")
    run_folder.write_table(folder, rows, run_folder.summarise(rows))
    for file in ("gallery.json", "gallery.html"):
        (folder / file).unlink(missing_ok=True)  # of an earlier time
    if encoders is not None:
        write_gallery(folder, encoders)
    write_page(folder)
    return [folder]
