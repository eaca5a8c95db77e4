"""The command line: flags in, an experiment computed and reported, an exit code out.

Exit codes: 0 done, 1 a stage failed, 2 the command or the spec is wrong, 130 interrupted. What is heavy is imported when
it is needed, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from monosem.spec import Spec

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(WRONG, f"{self.prog}: {message} (python {self.prog} --help lists the flags)\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="run.py",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Compute the experiment that Gin files describe and leave its robustness curves under runs/.",
        epilog="examples:\n"
        "  python run.py --gin gin/ncl.gin\n"
        "  python run.py --gin gin/simclr.gin --set 'Pretrain.epochs = 3' --plan\n"
        "  python run.py --gather runs/simclr runs/ncl runs/sae\n"
        "  tensorboard --logdir runs",
    )
    add = parser.add_argument
    add("--gin", "--gin_file", dest="files", metavar="FILE", action="append", default=[], help="a Gin file; repeatable, later files win")
    add("--set", "--gin_bindings", dest="bindings", metavar="'NAME.x = VALUE'", action="append", default=[],
        help="a single binding; repeatable, wins over files")  # fmt: skip
    add("--plan", action="store_true", help="print what would be computed and what is already there, and stop")
    add("--gather", metavar="DIR", nargs="+", help="draw the curves of finished runs again, several over one another, from their tables")
    add("--runs", metavar="DIR", default="runs", help="where results go (default: runs)")
    add("--store", metavar="DIR", default="store", help="where artifacts are kept and found again (default: store)")
    flags = parser.parse_args(arguments)
    if flags.gather and (flags.files or flags.bindings or flags.plan):
        parser.error("--gather goes without --gin, --set and --plan: it reads tables alone")
    if not flags.gather and not flags.files:
        parser.error("--gin FILE is needed")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    flags = parse(arguments)
    try:
        return gather(flags) if flags.gather else experiment(flags)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from the last finished epoch", file=sys.stderr)
        return INTERRUPTED


def experiment(flags: argparse.Namespace) -> int:
    from monosem import spec
    from monosem.stage import StageError

    try:
        loaded = spec.load(flags.files, flags.bindings)
        if flags.plan:
            return show_plan(loaded, Path(flags.store))
        folder = usable_folder(Path(flags.runs, loaded.experiment.name), "--runs")
        store = usable_folder(Path(flags.store), "--store")
    except (spec.SpecError, UsageError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return WRONG
    try:
        return compute(loaded, folder, store)
    except (StageError, OSError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return FAILED


class UsageError(ValueError):
    """A flag that cannot be meant."""


def usable_folder(path: Path, flag: str) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{flag}: the folder {path} cannot be made: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(f"{flag}: the folder {path} cannot be written to")
    return path


def show_plan(loaded: Spec, root: Path) -> int:
    from monosem.stage import closure, key, plan
    from monosem.store import Store
    from monosem.watch import named

    store = Store(root)
    waves = plan(loaded.experiment.stages, store.has)
    for number, wave in enumerate(waves, 1):
        for stage in wave:
            print(f"wave {number}  to do  {key(stage)}  {named(stage)}")
    for stage in closure(loaded.experiment.stages):
        if store.has(stage):
            print(f"        there  {key(stage)}  {named(stage)}")
    missing = sum(map(len, waves))
    print(f"{loaded.experiment.name}: {missing} to compute, in {len(waves)} waves" if missing else f"{loaded.experiment.name}: all there")
    return DONE


def compute(loaded: Spec, folder: Path, root: Path) -> int:
    from monosem import report
    from monosem.curves import tables
    from monosem.stage import closure, plan
    from monosem.store import Store, held

    experiment, stages, store = loaded.experiment, closure(loaded.experiment.stages), Store(root)
    waves = plan(experiment.stages, store.has)
    print(f"{experiment.name}: {sum(map(len, waves))} of {len(stages)} stages to compute", file=sys.stderr)
    if (folder / "config.gin").exists() and (folder / "config.gin").read_text(encoding="utf-8") != loaded.config:
        print(f"{folder} holds another spec's results: replaced when these are there; artifacts stay in {store.root}", file=sys.stderr)
    rows = [] if waves else report.collect(experiment, store)
    if waves or not report.written(folder, rows, loaded.config):
        from monosem.watch import Board, Progress  # TensorBoard and matplotlib take a second to import

        with held(folder), contextlib.closing(Board(folder, stages)) as board:
            board.replay(store, stages)
            store.watchers = (Progress(), board)
            for wave in waves:
                for stage in wave:
                    store.get(stage)
            board.replay(store, stages)  # what another process was faster with
            rows = report.collect(experiment, store)
            report.write(folder, rows, report.facts(experiment, store), loaded.config)
            board.report(experiment, rows, folder / "curves.png")
    print(tables(rows))
    print(f"{folder}/ has curves.png, curves.csv, summary.md and config.gin; compare runs with\n  tensorboard --logdir {folder.parent}")
    return DONE


def gather(flags: argparse.Namespace) -> int:
    from monosem import report
    from monosem.curves import join, read_table, tables

    try:
        folders = [Path(name) for name in flags.gather]
        rows = join([read_table(folder / "curves.csv") for folder in folders])
        if len(folders) == 1:  # its summary says more than its table knows: only the figure is drawn again
            report.redraw(folders[0], rows)
            written = folders[0] / "curves.png"
        else:
            written = usable_folder(Path(flags.runs, "+".join(folder.name for folder in folders)), "--runs")
            report.write(written, rows)
    except (ValueError, OSError) as error:
        print(f"run.py: --gather: {error}", file=sys.stderr)
        return WRONG
    print(tables(rows))
    print(f"written: {written}")
    return DONE
