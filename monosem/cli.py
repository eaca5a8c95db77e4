"""The command line: flags in, an experiment or a sweep computed and reported, an exit code out.

Exit codes: 0 done, 1 a stage failed, 2 the command or the spec is wrong, 130 interrupted. What is heavy is imported when
it is needed, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from monosem.specs.cells import Study
    from monosem.specs.load import Spec


DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


OF_A_SWEEP = ("address", "jobs", "cpus", "gpus")  # flags that a single experiment does not take


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(WRONG, f"{self.prog}: {message} (python {self.prog} --help lists the flags)\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="run.py",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Compute the experiment, or the sweep, that Gin files describe and leave its robustness curves under runs/.",
        epilog="examples:\n"
        "  python run.py --gin gin/ncl.gin\n"
        "  python run.py --gin gin/simclr.gin --set 'Pretrain.epochs = 3' --plan\n"
        "  python run.py --gin sweeps/label_noise.gin\n"
        "  python run.py --gather runs/simclr runs/ncl runs/sae\n"
        "  tensorboard --logdir runs",
    )
    add = parser.add_argument
    add(
        "--gin",
        "--gin_file",
        dest="files",
        metavar="FILE",
        action="append",
        default=[],
        help="a Gin file; repeatable, later files win",
    )
    add("--set", "--gin_bindings", dest="bindings", metavar="'NAME.x = VALUE'", action="append", default=[],
        help="a single binding; repeatable, wins over files")  # fmt: skip
    add(
        "--plan",
        action="store_true",
        help="print what would be computed and what is already there, and stop",
    )
    add(
        "--gather",
        metavar="DIR",
        nargs="+",
        help="draw the curves of finished runs again, several over one another, from their tables",
    )
    add("--runs", metavar="DIR", default="runs", help="where results go (default: runs)")
    add(
        "--store",
        metavar="DIR",
        default="store",
        help="where artifacts are kept and found again (default: store)",
    )
    add(
        "--compile",
        action="store_true",
        help="compile networks that are pre-trained: a tenth or more off long trainings, rounded otherwise",
    )
    how = parser.add_argument_group(
        "of a sweep",
        "how its trials are run; no result depends on it but for the number of threads",
    )
    how.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="a Ray cluster, or auto to find one on this machine (default: RAY_ADDRESS, else none)",
    )
    how.add_argument(
        "--jobs", metavar="N", type=positive(int), help="trials at a time (default: as many as fit)"
    )
    how.add_argument(
        "--cpus",
        metavar="X",
        type=positive(float),
        help="CPUs of a trial, and its torch threads (default: 1)",
    )
    how.add_argument(
        "--gpus",
        metavar="X",
        type=positive(float, zero=True),
        help="GPUs of a trial; .25 lets four share one (default: 1 where there are any)",
    )
    flags = parser.parse_args(arguments)
    others = (
        flags.files,
        flags.bindings,
        flags.plan,
        flags.compile,
        *(getattr(flags, name) is not None for name in OF_A_SWEEP),
    )
    if flags.gather and any(others):
        parser.error("--gather goes only with --runs: it reads tables alone")
    if not flags.gather and not flags.files:
        parser.error("--gin FILE is needed")
    return flags


def positive(kind: type[float] | type[int], zero: bool = False) -> Callable[[str], float]:
    """Reads a number above 0, or from 0 on."""

    def number(text: str) -> float:
        value = kind(text)
        if not (0 < value < 1e6 or (zero and value == 0)):
            raise argparse.ArgumentTypeError(
                f"must be {'0 or more' if zero else 'above 0'}, got {text}"
            )
        return value

    number.__name__ = (
        "whole number" if kind is int else "number"
    )  # argparse says it of what cannot be read
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    flags = parse(arguments)
    try:
        return gather(flags) if flags.gather else job(flags)
    except KeyboardInterrupt:
        print(
            "\ninterrupted; the same command goes on from the last finished epoch", file=sys.stderr
        )
        return INTERRUPTED


def job(flags: argparse.Namespace) -> int:
    from monosem.core.stage import StageError
    from monosem.specs.cells import Study
    from monosem.specs.study import study
    from monosem.specs.errors import SpecError
    from monosem.specs.load import Spec, load

    try:
        asked = study(flags.files, flags.bindings) or load(flags.files, flags.bindings)
        typed = [name for name in OF_A_SWEEP if getattr(flags, name) is not None]
        if typed and isinstance(asked, Spec):
            raise UsageError(f"--{typed[0]} goes with a sweep, and no file binds a Sweep")
        if flags.plan:
            return show_plan(asked, Path(flags.store))
        if flags.compile:
            if not shutil.which(os.environ.get("CXX", "g++")) and not shutil.which("clang++"):
                raise UsageError("--compile needs a C++ compiler, g++ or clang++, and finds none")
            os.environ["MONOSEM_COMPILE"] = "1"  # for the workers of a sweep too
        folder = usable_folder(Path(flags.runs, asked.name), "--runs")
        store = usable_folder(Path(flags.store), "--store")
    except (SpecError, UsageError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return WRONG

    from monosem.running.local import run_experiment
    from monosem.running.resources import RunOptions
    from monosem.running.sweep import run_sweep
    from monosem.specs.errors import ClusterError

    try:
        if isinstance(asked, Study):
            how = RunOptions(
                flags.address or os.environ.get("RAY_ADDRESS"), flags.cpus, flags.gpus, flags.jobs
            )
            return DONE if run_sweep(asked, folder, store, how) else FAILED
        run_experiment(asked, folder, store)
        return DONE
    except ClusterError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return WRONG
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


def show_plan(asked: Spec | Study, root: Path) -> int:
    """What would be computed, wave by wave, and what is there; of a sweep, with the first cell that needs it."""
    from monosem.core.stage import closure, key, plan
    from monosem.core.store import Store
    from monosem.running.progress import stage_label
    from monosem.specs.cells import Study

    cells = (
        [(cell.name, cell.experiment) for cell in asked.cells]
        if isinstance(asked, Study)
        else [("", asked.experiment)]
    )
    store, stages = Store(root), [stage for _, experiment in cells for stage in experiment.stages]
    owners: dict[str, str] = {}
    for cell, experiment in cells:
        for stage in closure(experiment.stages):
            owners.setdefault(key(stage), f"  {cell}" if cell else "")
    waves = plan(stages, store.has)
    for number, wave in enumerate(waves, 1):
        for stage in wave:
            print(f"wave {number}  to do  {key(stage)}  {stage_label(stage)}{owners[key(stage)]}")
    for stage in closure(stages):
        if store.has(stage):
            print(f"        there  {key(stage)}  {stage_label(stage)}{owners[key(stage)]}")
    missing = sum(map(len, waves))
    of = f", for {len(cells)} cells" if isinstance(asked, Study) else ""
    print(
        f"{asked.name}: {missing} to compute, in {len(waves)} waves{of}"
        if missing
        else f"{asked.name}: all there{of}"
    )
    return DONE


def gather(flags: argparse.Namespace) -> int:
    from monosem.core.files import write_text
    from monosem.results.rows import join, read_table
    from monosem.results.summary import overview, tables
    from monosem.results.table import Table
    from monosem.running import run_folder

    try:
        folders = [Path(name) for name in flags.gather]
        rows = join([read_table(folder / "curves.csv") for folder in folders])
        if (
            len(folders) == 1
        ):  # its summary says more than its table knows: only the figure is drawn again
            written = ", ".join(map(str, run_folder.draw_curves(folders[0], Table(rows))))
        else:
            shown = run_folder.joined_page(folders)
            folder = usable_folder(
                Path(flags.runs, "+".join(folder.name for folder in folders)), "--runs"
            )
            run_folder.write_table(folder, rows, run_folder.summarise(rows))
            (folder / "gallery.html").unlink(missing_ok=True)  # of an earlier time
            if shown is not None:
                write_text(folder / "gallery.html", shown)
            written = str(folder)
    except (ValueError, OSError) as error:
        print(f"run.py: --gather: {error}", file=sys.stderr)
        return WRONG
    print(overview(Table(rows)) if any(row.swept for row in rows) else tables(Table(rows)))
    print(f"written: {written}")
    return DONE
