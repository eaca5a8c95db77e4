"""From a spec to a finished run folder: one experiment in this process, or the cells of a sweep as trials of Ray Tune."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monosem.core.files import lock, write_text
from monosem.core.identity import digest
from monosem.core.stage import Stage, StageError, closure, key, plan
from monosem.core.store import Callback, LogEntry, Store
from monosem.models.training import Learning, Training
from monosem.results.correlation import CorrelationReport, correlation_report
from monosem.results.rows import Row, table_text
from monosem.results.search import search
from monosem.results.summary import overview, tables
from monosem.results.table import Table
from monosem.running import run_folder as report
from monosem.specs.cells import Cell, Study
from monosem.specs.sweep import Resources, Scheduler, Sweep

EVENTS = "events.out.tfevents.*"


# ------------------------------------------------------------------------------------------------ sweeps


class RunOptions(NamedTuple):
    """How a sweep is run, which no key depends on. address: of a Ray cluster; cpus, gpus: of a trial, None leaves it to what
    there is; jobs: trials at a time."""

    address: str | None = None
    cpus: float | None = None
    gpus: float | None = None
    jobs: int | None = None


class FailedStage(NamedTuple):
    """A stage that cannot be had in this run: why, and the file that tells the whole story, if it was tried."""

    stage: Stage
    reason: str
    log: Path | None


def sweep(study: Study, folder: Path, root: Path, how: RunOptions) -> bool:
    """Whatever is missing as trials, then the run folder; whether no cell failed. ClusterError before any trial
    where there is no such cluster or it is too small."""
    store = Store(root)
    with lock(folder):
        stopped = _Stopped(folder / "stopped.json", study.sweep)
        failed = _trials(study, folder, store, how, stopped)
        return _gather(study, folder, store, failed, stopped)


def waves(study: Study, store: Store) -> list[list[Stage]]:
    return plan([stage for cell in study.cells for stage in cell.experiment.stages], store.has)


def _trials(
    study: Study, folder: Path, store: Store, how: RunOptions, stopped: _Stopped
) -> dict[str, FailedStage]:
    """Run what is missing. What is lost, by key, comes back."""
    lost: dict[str, FailedStage] = {}
    tries: dict[str, int] = {}
    missing = [stage for wave in waves(study, store) for stage in wave]
    stages = {key(stage) for cell in study.cells for stage in closure(cell.experiment.stages)}
    print(
        f"{study.sweep.name}: {len(study.cells)} cells, {len(missing)} of {len(stages)} stages to compute",
        file=sys.stderr,
        flush=True,
    )
    if not _todo(study, store, lost, stopped):
        _enrol(study, folder)
        return lost
    from monosem.running import tune
    from monosem.running.progress import SweepProgress, Together
    from monosem.running.tensorboard import LiveTensorBoard

    if how.address is None:  # Ray takes seconds to start
        _amounts(study.sweep, how, missing, tune.this_machine())
    with tune.cluster(how.address, study.modules):
        amounts = _amounts(study.sweep, how, missing, tune.nodes())
        _enrol(study, folder)
        with (
            contextlib.closing(SweepProgress(study.cells, store, missing)) as cells,
            contextlib.closing(LiveTensorBoard(folder, study.cells, store)) as boards,
        ):
            callback: Callback = Together(cells, boards)
            while todo := _todo(study, store, lost, stopped):
                for group, scheduler in _groups(todo, study.sweep.scheduler):
                    outcome = tune.run(
                        group,
                        store.root,
                        folder / ".tune",
                        amounts,
                        how.jobs,
                        study.sweep.retries,
                        scheduler,
                        callback,
                    )
                    if not any(outcome):
                        raise StageError(
                            f"Ray ran none of {len(group)} trials; look at its logs in /tmp/ray/session_latest/logs"
                        )
                    stopped.add(outcome.stopped)
                    for stage in group:
                        if failure := outcome.failed.get(key(stage)):
                            tries[key(stage)] = tries.get(key(stage), 0) + failure.tries
                            if tries[key(stage)] > study.sweep.retries:
                                lost[key(stage)] = FailedStage(stage, failure.reason, failure.log)
                        elif key(stage) in outcome.finished:
                            (folder / "logs" / f"{type(stage).__name__}-{key(stage)}.log").unlink(
                                missing_ok=True
                            )  # of an earlier run
                            _await(stage, store)
    return lost


def _await(stage: Stage, store: Store) -> None:
    """Until this process sees what a worker has put into the store: NFS may take half a minute to show a new folder."""
    deadline = time.monotonic() + 90
    while not store.has(stage):
        if time.monotonic() > deadline:
            raise StageError(
                f"a worker finished {store.folder(stage)}, but it is not there; is the store on a folder that all nodes share?"
            )
        time.sleep(0.5)


def _todo(
    study: Study, store: Store, lost: dict[str, FailedStage], stopped: _Stopped
) -> list[Stage]:
    """What is missing and can be had, trainings first as they take longest. What needs a lost stage is lost too."""
    missing = [stage for wave in waves(study, store) for stage in wave]
    for stage in missing:
        for above in stage.upstream():
            if key(above) in lost:
                lost.setdefault(key(stage), FailedStage(stage, lost[key(above)].reason, None))
    gone = lost.keys() | stopped.below(missing)
    return sorted(
        (stage for stage in missing if key(stage) not in gone),
        key=lambda stage: not isinstance(stage, Learning),
    )


def _groups(
    todo: Sequence[Stage], scheduler: Scheduler | None
) -> list[tuple[list[Stage], Scheduler | None]]:
    """What goes into one run of Tune. Everything; but where a scheduler is to compare trainings, first those of one kind that
    need no other missing stage, then whatever else needs none."""
    if scheduler is None:
        return [(list(todo), None)]
    names = {key(stage) for stage in todo}
    kinds: dict[type | None, list[Stage]] = {}
    for stage in todo:
        if not any(key(above) in names for above in stage.upstream()):
            kinds.setdefault(type(stage) if isinstance(stage, Training) else None, []).append(stage)
    return [
        (group, scheduler if kind and len(group) > 1 else None) for kind, group in kinds.items()
    ]


def _amounts(
    sweep: Sweep, how: RunOptions, missing: Sequence[Stage], nodes: Sequence[Mapping[str, float]]
) -> Callable[[Stage], Resources]:
    """What a trial of a stage gets. ClusterError where no node has it."""
    from monosem.running import tune

    gpus = float(any(node.get("GPU") for node in nodes)) if how.gpus is None else how.gpus
    rest, named = Resources(1.0 if how.cpus is None else how.cpus, gpus), dict(sweep.resources)

    def amounts(stage: Stage) -> Resources:
        return named.get(type(stage).__name__, rest)

    tune.check({type(stage).__name__: amounts(stage) for stage in missing}, nodes)
    return amounts


class _Stopped:
    """The stages that a sweep's scheduler has stopped, kept in a file, so that the same command does not try them again."""

    def __init__(self, path: Path, sweep: Sweep):
        self.path, self.scheduler = path, digest(sweep.scheduler)
        self.steps: dict[str, tuple[int, int]] = {}
        try:
            kept: dict[str, Any] = (
                json.loads(path.read_text()) if path.exists() else {"scheduler": "", "stages": {}}
            )
            self.steps = (
                {name: (at[0], at[1]) for name, at in kept["stages"].items()}
                if kept["scheduler"] == self.scheduler
                else {}
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            print(f"{path} is damaged: what was stopped is tried again", file=sys.stderr)

    def add(self, stopped: Mapping[str, LogEntry]) -> None:
        self.steps |= {name: (entry.step, entry.of) for name, entry in stopped.items()}
        if stopped:
            write_text(
                self.path, json.dumps({"scheduler": self.scheduler, "stages": self.steps}, indent=1)
            )

    def below(self, missing: Sequence[Stage]) -> set[str]:
        """The keys of the stages that were stopped and of those that need one of them, upstream first in `missing`."""
        gone = set(self.steps)
        for stage in missing:
            if any(key(above) in gone for above in stage.upstream()):
                gone.add(key(stage))
        return gone & {key(stage) for stage in missing}


def _gather(
    study: Study, folder: Path, store: Store, lost: dict[str, FailedStage], stopped: _Stopped
) -> bool:
    """The table, the figures, the summary and TensorBoard's files of all cells that are finished."""
    finished = [cell for cell in study.cells if all(map(store.has, cell.experiment.stages))]
    tables_of = {cell.name: report.collect(cell.experiment, store, cell.swept) for cell in finished}
    rows = [row for each in tables_of.values() for row in each]
    broken = {
        cell.name: [
            lost[key(stage)] for stage in closure(cell.experiment.stages) if key(stage) in lost
        ]
        for cell in study.cells
    }
    remarks = _remarks(study, finished, broken, stopped)
    if study.sweep.goal and rows:
        remarks += f"## Search\n\n{search({cell.name: (cell.experiment.name, cell.swept) for cell in study.cells}, rows, study.sweep.goal)}\n\n"
    if rows:
        table = Table(rows, study.cells[0].experiment.name)
        claimed = correlation_report(table, study.sweep.claim) if study.sweep.claim else None
        if claimed:
            remarks += f"## Claim\n\n{claimed.text}\n\n"
        text = f"# {study.sweep.name}\n\n{remarks}{tables(table)}\n{_specs(finished, store)}"
        _write(study, folder, store, finished, tables_of, text, claimed)
        print(f"{remarks}{overview(table)}\n")
        print(
            f"{folder}/ has a figure for each curve, curves.csv and summary.md; compare cells with\n  tensorboard --logdir {folder}"
        )
    else:
        print(remarks)
    return not any(broken.values())


def _remarks(
    study: Study, finished: Sequence[Cell], broken: dict[str, list[FailedStage]], stopped: _Stopped
) -> str:
    """The cells that are not in the table, and why."""
    lines = []
    for cell in study.cells:
        if broken[cell.name]:
            lines += [
                f"- {cell.name} failed: {each.reason} (log: {each.log})"
                for each in broken[cell.name]
                if each.log
            ]
        elif cell not in finished:
            at = [
                stopped.steps[key(stage)]
                for stage in closure(cell.experiment.stages)
                if key(stage) in stopped.steps
            ]
            lines.append(
                f"- {cell.name} was stopped by the scheduler"
                + "".join(f" after epoch {step} of {of}" for step, of in at)
            )
    return "\n".join(["Cells that are not in the table:", "", *lines, "", ""]) if lines else ""


def _first(cells: Sequence[Cell]) -> list[Cell]:
    """The first cell of every spec."""
    first: dict[str, Cell] = {}
    for cell in cells:
        first.setdefault(cell.experiment.name, cell)
    return list(first.values())


def _specs(cells: Sequence[Cell], store: Store) -> str:
    """What was trained and probed, for the first cell of every spec."""
    return (
        "\n\n".join(
            f"## {cell.name}\n\n{report.facts(cell.experiment, store)}" for cell in _first(cells)
        )
        + "\n"
    )


def _write(
    study: Study,
    folder: Path,
    store: Store,
    finished: Sequence[Cell],
    rows: dict[str, list[Row]],
    summary: str,
    claimed: CorrelationReport | None,
) -> None:
    """What differs from what is there. A cell's event file is made anew, whole: its live one lacks what came later, and its
    config.gin, written last, says that it is whole."""
    everything = [row for each in rows.values() for row in each]
    stale = [
        cell
        for cell in finished
        if not report.written(folder / cell.name, {"config.gin": cell.config}, [EVENTS])
    ]
    figures = [
        "curves.png",
        *(f"{curve}.png" for curve in Table(everything).axes),
        *(["claim.png"] if claimed and claimed.clouds else []),
    ]
    texts = {"curves.csv": table_text(everything), "summary.md": summary}
    if not stale and report.written(folder, texts, [EVENTS, "gallery.html", *figures]):
        return
    from monosem.running.tensorboard import TensorBoardWriter

    for cell in stale:
        stages = closure(cell.experiment.stages)
        with contextlib.closing(TensorBoardWriter(folder / cell.name, stages)) as board:
            board.replay(store, stages)
            board.report(cell.experiment, rows[cell.name], cell.swept)
        write_text(folder / cell.name / "measures.csv", report.measures(cell.experiment, store))
        write_text(folder / cell.name / "config.gin", cell.config)
    write_text(
        folder / "gallery.html",
        report.page_of([(cell.name, cell.experiment) for cell in _first(finished)], store),
    )
    with contextlib.closing(TensorBoardWriter(folder, ())) as board:
        drawn = report.write(folder, everything, summary)
        if claimed and study.sweep.claim:
            drawn += report.show_claim(claimed, study.sweep.claim.measure, folder)
        for figure in drawn:
            board.picture(figure)


def _enrol(study: Study, folder: Path) -> None:
    """Note which folders are cells of this sweep. Those of cells that the grid had once lose what was written there, so that
    TensorBoard does not show them; the store still has it all."""
    names = [cell.name for cell in study.cells]
    manifest = folder / "cells.txt"
    if (folder / "config.gin").exists():
        print(
            f"{folder} holds the results of an experiment of that name: its curves.csv and figures are replaced",
            file=sys.stderr,
        )
    for name in manifest.read_text(encoding="utf-8").splitlines() if manifest.exists() else ():
        if name not in names:
            for path in (folder / name / "config.gin", *(folder / name).glob(EVENTS)):
                path.unlink(missing_ok=True)
            with contextlib.suppress(
                OSError
            ):  # somebody keeps something of their own in it, or it is gone
                (folder / name).rmdir()
    if not report.written(folder, {"cells.txt": "\n".join(names) + "\n"}, []):
        write_text(manifest, "\n".join(names) + "\n")
