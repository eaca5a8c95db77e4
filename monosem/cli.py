"""The command line: flags, then a spec, then a run or a plan of it, then an exit code.

Exit codes: 0 done, 1 a stage failed, 2 the command or the spec is wrong, 130 interrupted, 143 ended
by SIGTERM, as Slurm sends it.
What is heavy is imported where it is needed, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from monosem.core.signals import Terminated, ended_by_sigterm
from monosem.specs.errors import ClusterError, SpecError

if TYPE_CHECKING:
    from monosem.results.rows import Row
    from monosem.specs.load import Spec
    from monosem.specs.study import Study

DONE, FAILED, WRONG, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143

LANGUAGE_FLAGS = {
    "half": "their weights in bfloat16, half the memory",
    "checkpointing": "compute activations of a training twice, to keep fewer of them",
    "shard": "spread their layers over all GPUs and the CPU (by accelerate)",
}
SWEEP_FLAGS = ("address", "jobs", "cpus", "gpus")  # that a single experiment does not take


class UsageError(ValueError):
    """A flag that cannot be meant."""


class RunError(RuntimeError):
    """A run that cannot go on."""


def main(arguments: Sequence[str] | None = None, prog: str = "monosem") -> int:
    """Does what the flags ask for and returns the exit code.

    arguments: None takes those of this process.
    prog: the name that the person typed, for messages.
    """
    flags = parse(arguments, prog)
    try:
        with ended_by_sigterm():
            if flags.gather:
                return gather(flags)
            return show_plan(flags) if flags.plan else run(flags)
    except KeyboardInterrupt as error:
        is_terminated = isinstance(error, Terminated)
        word = "terminated" if is_terminated else "interrupted"
        print(f"\n{word}; the same command goes on from the last finished epoch", file=sys.stderr)
        return TERMINATED if is_terminated else INTERRUPTED
    except (SpecError, UsageError, ClusterError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return WRONG
    except RunError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return FAILED


# Flags


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        advice = f"{command(self.prog)} --help lists the flags"
        self.exit(WRONG, f"{self.prog}: {message} ({advice})\n")


def command(prog: str) -> str:
    """What a person types to run the program."""
    return f"python {prog}" if prog.endswith(".py") else prog


def parse(arguments: Sequence[str] | None, prog: str) -> argparse.Namespace:
    parser = Parser(
        prog=prog,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Compute the experiment, or the sweep, that Gin files describe and leave its "
        "robustness curves under runs/.",
        epilog="examples:\n"
        f"  {command(prog)} --gin gin/ncl.gin\n"
        f"  {command(prog)} --gin gin/simclr.gin --set 'Pretrain.epochs = 3' --plan\n"
        f"  {command(prog)} --gin sweeps/label_noise.gin\n"
        f"  {command(prog)} --gather runs/simclr runs/ncl runs/sae\n"
        "  tensorboard --logdir runs",
    )
    _add_flags(parser)
    _add_language_flags(parser)
    _add_sweep_flags(parser)
    flags = parser.parse_args(arguments)
    if flags.gather and _asks_for_a_run(flags):
        parser.error("--gather goes only with --runs: it reads tables alone")
    if not flags.gather and not flags.files:
        parser.error("--gin FILE is needed")
    return flags


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gin",
        "--gin_file",
        dest="files",
        metavar="FILE",
        action="append",
        default=[],
        help="a Gin file, by its path or by its name; repeatable, later files win",
    )
    parser.add_argument(
        "--set",
        "--gin_bindings",
        dest="bindings",
        metavar="'NAME.x = VALUE'",
        action="append",
        default=[],
        help="a single binding; repeatable, wins over files",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print what would be computed and what is already there, and stop",
    )
    parser.add_argument(
        "--gather",
        metavar="DIR",
        nargs="+",
        help="draw the curves of finished runs again, several over one another, from their tables",
    )
    parser.add_argument(
        "--runs", metavar="DIR", default="runs", help="where results go (default: runs)"
    )
    parser.add_argument(
        "--store",
        metavar="DIR",
        default="store",
        help="where artifacts are kept and found again (default: store)",
    )
    parser.add_argument(
        "--safe",
        action="store_true",
        help="refuse Gin files that import code of their own: for files of somebody else",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile networks that are pre-trained: a tenth or more off long trainings, "
        "rounded otherwise",
    )


def _add_language_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "of language models",
        "how they are computed, which no key knows; results differ by rounding",
    )
    for flag, text in LANGUAGE_FLAGS.items():
        group.add_argument(f"--{flag}", action="store_true", help=text)


def _add_sweep_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "of a sweep",
        "how its trials are run; no result depends on it but for the number of threads",
    )
    group.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="a Ray cluster, or auto to find one on this machine (default: RAY_ADDRESS, else none)",
    )
    group.add_argument(
        "--jobs", metavar="N", type=job_count, help="trials at a time (default: as many as fit)"
    )
    group.add_argument(
        "--cpus",
        metavar="X",
        type=cpu_count,
        help="CPUs of a trial, and its torch threads (default: 1)",
    )
    group.add_argument(
        "--gpus",
        metavar="X",
        type=gpu_count,
        help="GPUs of a trial; .25 lets four share one (default: 1 where there are any)",
    )


def job_count(text: str) -> int:
    count = int(text)
    _check_amount(0 < count < 1e6, f"above 0, got {text}")
    return count


def cpu_count(text: str) -> float:
    count = float(text)
    _check_amount(0 < count < 1e6, f"above 0, got {text}")
    return count


def gpu_count(text: str) -> float:
    count = float(text)
    _check_amount(0 <= count < 1e6, f"0 or more, got {text}")
    return count


job_count.__name__ = "whole number"  # argparse says it of text that is none
cpu_count.__name__ = gpu_count.__name__ = "number"


def _check_amount(is_allowed: bool, wanted: str) -> None:
    if not is_allowed:
        raise argparse.ArgumentTypeError(f"must be {wanted}")


def _sweep_flags(flags: argparse.Namespace) -> list[str]:
    """The flags of a sweep that were typed."""
    return [name for name in SWEEP_FLAGS if getattr(flags, name) is not None]


def _asks_for_a_run(flags: argparse.Namespace) -> bool:
    switches = [flags.plan, flags.safe, flags.compile]
    typed = [flags.files, flags.bindings, *switches, _sweep_flags(flags)]
    return any([*typed, *_language_flags(flags)])


def _language_flags(flags: argparse.Namespace) -> list[str]:
    """The flags of language models that were typed."""
    return [name for name in LANGUAGE_FLAGS if getattr(flags, name)]


# What is asked for


def read_spec(flags: argparse.Namespace) -> Spec | Study:
    """The experiment or the sweep that the flags describe."""
    from monosem.specs.gin_reader import safe_imports
    from monosem.specs.load import Spec
    from monosem.specs.study import read

    set_language_flags(flags)
    with safe_imports() if flags.safe else contextlib.nullcontext():
        spec = read(flags.files, flags.bindings)
    if isinstance(spec, Spec) and _sweep_flags(flags):
        flag = _sweep_flags(flags)[0]
        raise UsageError(f"--{flag} goes with a sweep, and no file binds a Sweep")
    return spec


def usable_folder(path: Path, flag: str) -> Path:
    """The folder, made if it is not there. Raises UsageError where it cannot be written to."""
    check_folder(path, flag)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{flag}: the folder {path} cannot be made: {error.strerror}") from None
    return path


def check_folder(path: Path, flag: str) -> None:
    """Raises UsageError where the folder cannot be made or written to, as far as can be told."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not existing.is_dir():
        reason = f"{existing} is a file"
        raise UsageError(f"{flag}: the folder {path} cannot be made: {reason}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"{flag}: the folder {existing} cannot be written to")


def compile_networks() -> None:
    """For this process and for the workers of a sweep."""
    compilers = (os.environ.get("CXX", "g++"), "clang++")
    if not any(shutil.which(compiler) for compiler in compilers):
        raise UsageError("--compile needs a C++ compiler, g++ or clang++, and finds none")
    os.environ["MONOSEM_COMPILE"] = "1"


def set_language_flags(flags: argparse.Namespace) -> None:
    """For this process and for the workers of a sweep."""
    if flags.shard and importlib.util.find_spec("accelerate") is None:
        raise UsageError("--shard needs accelerate: pip install accelerate")
    for name in _language_flags(flags):
        os.environ[f"MONOSEM_{name.upper()}"] = "1"


# The three things that can be done


def run(flags: argparse.Namespace) -> int:
    """Computes what is missing and leaves the run folder."""
    spec = read_spec(flags)
    if flags.compile:
        compile_networks()
    folder = usable_folder(Path(flags.runs, spec.name), "--runs")
    store = usable_folder(Path(flags.store), "--store")

    from monosem.core.stage import StageError
    from monosem.running.local import run_experiment
    from monosem.specs.load import Spec

    try:
        if isinstance(spec, Spec):
            run_experiment(spec, folder, store)
            return DONE
        return _run_sweep(spec, folder, store, flags)
    except (StageError, OSError) as error:
        raise RunError(str(error)) from None


def _run_sweep(study: Study, folder: Path, store: Path, flags: argparse.Namespace) -> int:
    from monosem.running.sweep import run_sweep
    from monosem.running.trials import RunOptions

    address = flags.address or os.environ.get("RAY_ADDRESS")
    options = RunOptions(address, flags.cpus, flags.gpus, flags.jobs)
    return DONE if run_sweep(study, folder, store, options) else FAILED


def show_plan(flags: argparse.Namespace) -> int:
    """Prints the missing stages, wave by wave, and those that are there.

    Nothing is computed, downloaded or packed for good, and neither folder is made.
    """
    from monosem.core.stage import closure, key, plan
    from monosem.core.store import Store
    from monosem.data.packed import packs_not_kept
    from monosem.datasets.cifar import no_downloads
    from monosem.running.local import tell_data

    with (
        no_downloads(),
        packs_not_kept(),
    ):  # reading a spec opens its data, as what they hold is in the keys
        spec = read_spec(flags)
        check_folder(Path(flags.runs, spec.name), "--runs")
        check_folder(Path(flags.store), "--store")
        tell_data(spec.experiments.values())
    store = Store(Path(flags.store))
    lines = _stage_lines(spec)
    stages = [stage for cell in spec.experiments.values() for stage in cell.stages]
    waves = plan(stages, store.has)
    for position, wave in enumerate(waves, 1):
        for stage in wave:
            print(f"wave {position}  to do  {lines[key(stage)]}")
    for stage in closure(stages):
        if store.has(stage):
            print(f"        there  {lines[key(stage)]}")
    missing = sum(map(len, waves))
    total = f"{missing} to compute, in {len(waves)} waves" if missing else "all there"
    print(f"{spec.name}: {total}{_of_cells(spec)}")
    return DONE


def _stage_lines(spec: Spec | Study) -> dict[str, str]:
    """Key and title of every stage, by its key; of a sweep with the first cell that needs it."""
    from monosem.core.stage import closure, key
    from monosem.running.progress import stage_label

    lines: dict[str, str] = {}
    for cell, experiment in spec.experiments.items():
        for stage in closure(experiment.stages):
            line = f"{key(stage)}  {stage_label(stage)}"
            lines.setdefault(key(stage), f"{line}  {cell}" if cell else line)
    return lines


def _of_cells(spec: Spec | Study) -> str:
    from monosem.specs.study import Study

    return f", for {len(spec.cells)} cells" if isinstance(spec, Study) else ""


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


if __name__ == "__main__":
    sys.exit(main(prog="python -m monosem"))
