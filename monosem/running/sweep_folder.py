"""The folder of a sweep: its manifest, its table, and the folders of its cells. Knows no Ray."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from monosem.axes.gains import AxisReport
from monosem.axes.report import axis_report
from monosem.core.files import write_text
from monosem.core.stage import Stage, closure, key
from monosem.core.store import Store
from monosem.models.training import Learning
from monosem.reports.page import PAGE, write_page
from monosem.results.correlation import CorrelationReport, correlation_report
from monosem.results.rows import Row, table_text
from monosem.results.search import search
from monosem.results.summary import overview, tables
from monosem.results.table import Table
from monosem.running import run_folder
from monosem.running.progress import USUAL, Voice
from monosem.running.run_folder import EVENTS, SMOOTHING, describe_experiment
from monosem.specs.cells import Cell
from monosem.specs.study import Study


class FailedStage(NamedTuple):
    """A stage that cannot be computed in this run.

    reason: why.
    log: the file with the tracebacks; None where the stage was not tried.
    """

    stage: Stage
    reason: str
    log: Path | None


class Reports(NamedTuple):
    """The answers to what a sweep asks of all its cells; None where it does not ask.

    claimed: Sweep.claim.
    gained: Sweep.axis_gains.
    """

    claimed: CorrelationReport | None
    gained: AxisReport | None

    @property
    def text(self) -> str:
        """In Markdown."""
        text = f"## Claim\n\n{self.claimed.text}\n\n" if self.claimed else ""
        return text + (f"## Axis gains\n\n{self.gained.text}\n\n" if self.gained else "")

    @property
    def figures(self) -> list[str]:
        """The names of their files."""
        names = ["claim.png"] if self.claimed and self.claimed.panels else []
        if self.gained and self.gained.gains:
            names.append("axis_gains.png")
        if self.gained and self.gained.parts:
            names.append("decomposition.png")
        if self.gained and self.gained.lines:
            names.append("axis_curves.png")
        return names


class FinishedCells(NamedTuple):
    """The cells whose stages have all run, and the rows of each by its name."""

    cells: list[Cell]
    rows: dict[str, list[Row]]

    @property
    def all_rows(self) -> list[Row]:
        return [row for rows in self.rows.values() for row in rows]

    def first_of_each_spec(self) -> list[Cell]:
        first: dict[str, Cell] = {}
        for cell in self.cells:
            first.setdefault(cell.experiment.name, cell)
        return list(first.values())


def finished_cells(study: Study, store: Store) -> FinishedCells:
    """Those of a sweep."""
    cells = [cell for cell in study.cells if all(map(store.has, cell.experiment.stages))]
    rows = {cell.name: cell.experiment.rows(store.get, cell.swept) for cell in cells}
    return FinishedCells(cells, rows)


def write(
    study: Study,
    folder: Path,
    store: Store,
    failed: Mapping[str, FailedStage],
    stopped: Mapping[str, tuple[int, int]],
) -> bool:
    """Write and print the results of the finished cells.

    failed: stages by key.
    stopped: by key of a stage, after which step of how many.

    Returns whether no cell failed.
    """
    finished = finished_cells(study, store)
    failures = {cell.name: _failures_of(cell, failed) for cell in study.cells}
    remarks = _absent_cells(study, finished, failures, stopped)
    if finished.all_rows:
        _write_finished(study, folder, store, finished, remarks)
    else:
        print(remarks)
    return not any(failures.values())


def _failures_of(cell: Cell, failed: Mapping[str, FailedStage]) -> list[FailedStage]:
    stages = closure(cell.experiment.stages)
    return [failed[key(stage)] for stage in stages if key(stage) in failed]


def _absent_cells(
    study: Study,
    finished: FinishedCells,
    failures: Mapping[str, list[FailedStage]],
    stopped: Mapping[str, tuple[int, int]],
) -> str:
    """The cells that are not in the table, and why."""
    lines = []
    for cell in study.cells:
        if failures[cell.name]:
            for failure in failures[cell.name]:
                if failure.log:
                    lines.append(f"- {cell.name} failed: {failure.reason} (log: {failure.log})")
        elif cell.name not in finished.rows:
            lines.append(f"- {cell.name} was stopped by the scheduler{_when(cell, stopped)}")
    if not lines:
        return ""
    return "\n".join(["Cells that are not in the table:", "", *lines, "", ""])


def _when(cell: Cell, stopped: Mapping[str, tuple[int, int]]) -> str:
    text = ""
    for stage in closure(cell.experiment.stages):
        if key(stage) in stopped:
            step, of = stopped[key(stage)]
            text += f" after epoch {step} of {of}"
    return text


def _write_finished(
    study: Study, folder: Path, store: Store, finished: FinishedCells, remarks: str
) -> None:
    """The table, the figures, the summary and TensorBoard's files of all finished cells."""
    rows = finished.all_rows
    table = Table(rows, study.cells[0].experiment.name)
    sweep = study.sweep
    if sweep.goal:
        cells = {cell.name: (cell.experiment.name, cell.swept) for cell in study.cells}
        remarks += f"## Search\n\n{search(cells, rows, sweep.goal)}\n\n"
    reports = Reports(
        correlation_report(table, sweep.claim) if sweep.claim else None,
        axis_report(table, sweep.axis_gains) if sweep.axis_gains else None,
    )
    remarks += reports.text
    specs = "\n\n".join(
        f"## {cell.name}\n\n{describe_experiment(cell.experiment, store)}"
        for cell in finished.first_of_each_spec()
    )
    summary = f"# {sweep.name}\n\n{remarks}{tables(table)}\n{specs}\n"
    _write_changed(study, folder, store, finished, summary, reports)
    print(f"{remarks}{overview(table)}\n")
    print(
        f"{folder}/ has index.html, a figure for each curve, curves.csv and summary.md; "
        f"compare cells with\n  tensorboard --logdir {folder}\n({SMOOTHING})"
    )


def _write_changed(
    study: Study,
    folder: Path,
    store: Store,
    finished: FinishedCells,
    summary: str,
    reports: Reports,
) -> None:
    """Write the files whose content would change."""
    stale = [cell for cell in finished.cells if not _is_whole(folder, cell)]
    if not stale and _is_complete(folder, finished, summary, reports):
        return
    for cell in stale:
        _write_cell(folder, cell, finished.rows[cell.name], store)
    first_cells = finished.first_of_each_spec()
    experiments = [(cell.name, cell.experiment) for cell in first_cells]
    run_folder.write_joint_gallery(folder, experiments, store)
    figures = run_folder.write_table(folder, finished.all_rows, summary)
    if reports.claimed and study.sweep.claim:
        figures += run_folder.draw_claim(folder, reports.claimed, study.sweep.claim.measure)
    if reports.gained:
        figures += run_folder.write_axis_gains(folder, reports.gained)
    write_page(folder)
    _show_figures(folder, figures)


def _is_complete(folder: Path, finished: FinishedCells, summary: str, reports: Reports) -> bool:
    rows = finished.all_rows
    texts = {"curves.csv": table_text(rows), "summary.md": summary}
    if reports.gained:
        texts["axis_gains.csv"] = reports.gained.csv_text()
    others = [EVENTS, PAGE, *run_folder.figure_names(rows), *reports.figures]
    if any(cell.experiment.shown for cell in finished.first_of_each_spec()):
        others += ["gallery.json", "gallery.html"]
    return run_folder.holds(folder, texts, others)


def _show_figures(folder: Path, figures: Sequence[Path]) -> None:
    from monosem.running.tensorboard import TensorBoardWriter

    with contextlib.closing(TensorBoardWriter(folder, ())) as board:
        for figure in figures:
            board.picture(figure)


# Cells


def _write_cell(folder: Path, cell: Cell, rows: Sequence[Row], store: Store) -> None:
    """Write the folder of a cell.

    Its event file is written again, as the live one lacks what came later. Its config.gin is
    written last: where it is there, the folder is complete.
    """
    from monosem.running.tensorboard import TensorBoardWriter

    stages = closure(cell.experiment.stages)
    with contextlib.closing(TensorBoardWriter(folder / cell.name, stages)) as board:
        board.replay(store, stages)
        board.report(cell.experiment, rows, cell.swept)
    write_text(
        folder / cell.name / "measures.csv", run_folder.measures_text(cell.experiment, store)
    )
    write_text(folder / cell.name / "config.gin", cell.config)


def _is_whole(folder: Path, cell: Cell) -> bool:
    return run_folder.holds(folder / cell.name, {"config.gin": cell.config}, [EVENTS])


def mark_unfinished(study: Study, folder: Path, missing: Sequence[Stage]) -> None:
    """Remove the config.gin of cells with missing trainings: their folders are not complete.

    The live TensorBoard is about to write there.
    """
    learning = {key(stage) for stage in missing if isinstance(stage, Learning)}
    for cell in study.cells:
        if learning & {key(stage) for stage in closure(cell.experiment.stages)}:
            (folder / cell.name / "config.gin").unlink(missing_ok=True)


def write_manifest(study: Study, folder: Path, voice: Voice = USUAL) -> None:
    """Note in cells.txt which folders are cells of this sweep, and in sweep.gin what it is.

    Folders of cells that are no longer in the grid are emptied, so that TensorBoard does not show
    them. Their artifacts stay in the store.
    """
    if (folder / "config.gin").exists():
        voice.note(
            f"{folder} holds the results of an experiment of that name: "
            "its curves.csv and figures are replaced"
        )
    write_text(folder / "sweep.gin", study.config)
    names = [cell.name for cell in study.cells]
    manifest = folder / "cells.txt"
    earlier = manifest.read_text(encoding="utf-8").splitlines() if manifest.exists() else []
    for name in earlier:
        if name not in names:
            _empty_cell(folder / name)
    if earlier != names:
        write_text(manifest, "\n".join(names) + "\n")


def _empty_cell(folder: Path) -> None:
    for path in (folder / "config.gin", folder / "measures.csv", *folder.glob(EVENTS)):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody keeps something of their own in it, or it is gone
        folder.rmdir()


def log_path(folder: Path, stage: Stage) -> Path:
    """The file with the tracebacks of a stage's failed tries."""
    return folder / "logs" / f"{type(stage).__name__}-{key(stage)}.log"
