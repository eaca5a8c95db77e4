"""TODO."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from monosem.core.files import lock, write_text
from monosem.core.stage import closure, plan
from monosem.core.store import Store
from monosem.results.rows import table_text
from monosem.results.summary import tables
from monosem.results.table import Table
from monosem.running import run_folder as report
from monosem.running.sweep import EVENTS
from monosem.specs.load import Spec


def experiment(loaded: Spec, folder: Path, root: Path) -> None:
    """Whatever is missing, then the run folder. StageError where a stage cannot go on."""
    experiment, stages, store = loaded.experiment, closure(loaded.experiment.stages), Store(root)
    waves = plan(experiment.stages, store.has)
    print(
        f"{experiment.name}: {sum(map(len, waves))} of {len(stages)} stages to compute",
        file=sys.stderr,
    )
    if (folder / "config.gin").exists() and (folder / "config.gin").read_text(
        encoding="utf-8"
    ) != loaded.config:
        print(
            f"{folder} holds another spec's results: replaced when these are there; artifacts stay in {store.root}",
            file=sys.stderr,
        )
    rows = [] if waves else report.collect(experiment, store)
    texts = (
        {}
        if waves
        else {
            "config.gin": loaded.config,
            "curves.csv": table_text(rows),
            "measures.csv": report.measures(experiment, store),
        }
    )
    if waves or not report.written(folder, texts, [EVENTS, *report.FILES]):
        from monosem.running.progress import ConsoleProgress
        from monosem.running.tensorboard import TensorBoardWriter

        with lock(folder), contextlib.closing(TensorBoardWriter(folder, stages)) as board:
            board.replay(store, stages)
            store.callbacks = (ConsoleProgress(), board)
            for wave in waves:
                for stage in wave:
                    store.get(stage)
            board.replay(store, stages)  # what another process was faster with
            rows = report.collect(experiment, store)
            figures = report.write(
                folder, rows, report.summary(rows, report.facts(experiment, store)), loaded.config
            )
            write_text(folder / "measures.csv", report.measures(experiment, store))
            board.report(experiment, rows)
            for figure in [*figures, *report.show(experiment, store, folder)]:
                board.picture(figure)
    print(tables(Table(rows)))
    print(
        f"{folder}/ has curves.png, curves.csv, measures.csv, summary.md and config.gin, and gallery.html to look at dimensions"
    )
    print(f"compare runs with\n  tensorboard --logdir {folder.parent}")
