"""Run folders as they are found: what they say of themselves, and which artifacts they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monosem.core.fields import nearest
from monosem.core.run_record import RECORD, UNFINISHED, place_of, read_record
from monosem.core.stage import closure
from monosem.results.rows import Row, cell_name, read_table
from monosem.specs.errors import SpecError

TABLE, CONFIG, CELLS, MEASURES = "curves.csv", "config.gin", "cells.txt", "measures.csv"
SIGNS = (RECORD, UNFINISHED, TABLE, CONFIG, CELLS)  # a folder with one of these is a run's


class RunFolder(NamedTuple):
    """A run folder.

    record: of the run whose results are there; None of runs from before there were records.
    unfinished: of a run that has begun and has not ended; None where there is none.
    """

    path: Path
    record: dict[str, Any] | None
    unfinished: dict[str, Any] | None

    @property
    def made(self) -> dict[str, Any]:
        """What is known of how it was made; may be empty."""
        return self.record or self.unfinished or {}

    @property
    def cells(self) -> list[str]:
        """The names of a sweep's cells; of an experiment none."""
        try:
            return (self.path / CELLS).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return []

    @property
    def configs(self) -> list[Path]:
        """The resolved Gin files of the experiment, or of the finished cells."""
        folders = [self.path / cell for cell in self.cells] or [self.path]
        return [folder / CONFIG for folder in folders if (folder / CONFIG).is_file()]


def look_at(path: Path) -> RunFolder:
    return RunFolder(path, read_record(path / RECORD), read_record(path / UNFINISHED))


def find_runs(runs: Path) -> list[RunFolder]:
    """The run folders right under a folder, by name."""
    folders = sorted(path for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else []
    return [look_at(path) for path in folders if any((path / sign).exists() for sign in SIGNS)]


def table_of(folder: Path) -> list[Row]:
    """The rows of a run; of a cell, those of the sweep's table that are its own.

    Raises ValueError where there is no table, with the nearest name.
    """
    sweep = folder.parent
    if (folder / TABLE).is_file() or not (sweep / CELLS).is_file():
        _check_is_there(folder)
        return read_table(folder / TABLE)
    rows = [row for row in read_table(sweep / TABLE) if _cell_of(row) == folder.name]
    if not rows:
        raise ValueError(f"{sweep / TABLE} has no rows of a cell {folder.name}")
    return rows


def _cell_of(row: Row) -> str:
    return cell_name(row.experiment, row.swept)


def _check_is_there(folder: Path) -> None:
    if folder.is_dir():
        return
    siblings = [run.path.name for run in find_runs(folder.parent)]
    near = nearest(folder.name, siblings, "{}")
    advice = f"; did you mean {folder.parent / near}?" if near else ""
    raise ValueError(f"there is no folder {folder}{advice}")


# What they need


def places_needed(run: RunFolder, there: set[str]) -> set[str] | None:
    """The artifacts that a run needs, as `<Stage>/<key>`; None where it cannot be told.

    Its records say it. A run from before there were records is read from its config.gin, which is
    believed only where something of what it names is there: keys change with the code.

    there: the artifacts of the store.
    """
    records = [record for record in (run.record, run.unfinished) if record is not None]
    needed = {place for record in records for place in record["stages"]}
    if run.record is not None or _holds_no_results(run):
        return needed
    if not run.configs:
        # several runs laid over one another need nothing; one that was made in Python might
        return None if (run.path / MEASURES).exists() or run.cells else needed
    named = _places_named(run.configs)
    return needed | named if named and named & there else None


def _holds_no_results(run: RunFolder) -> bool:
    """Nothing at all, or a sweep whose first cells are being computed."""
    signs = (TABLE, CONFIG) if run.unfinished and not run.configs else (TABLE, CONFIG, CELLS)
    return not any((run.path / sign).exists() for sign in signs)


def _places_named(configs: Sequence[Path]) -> set[str] | None:
    """The stages of experiments in Gin files, upstream too; None where one cannot be read."""
    try:
        return set(_read_places(configs))
    except (SpecError, OSError, UnicodeDecodeError):
        return None


def _read_places(configs: Sequence[Path]) -> Iterator[str]:
    from monosem.datasets.cifar import no_downloads
    from monosem.specs.study import read  # heavy, and only for old runs

    with no_downloads():
        for config in configs:
            for experiment in read([str(config)]).experiments.values():
                yield from map(place_of, closure(experiment.stages))
