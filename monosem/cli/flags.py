"""The flags: which there are, and which of them go together."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

from monosem.cli.outcomes import WRONG

LANGUAGE_FLAGS = {
    "half": "their weights in bfloat16, half the memory",
    "checkpointing": "compute activations of a training twice, to keep fewer of them",
    "shard": "spread their layers over all GPUs and the CPU (by accelerate)",
}
ALONE = {
    "describe": ((), "it tells what can be bound"),
    "completion": ((), "it prints a script"),
    "gather": (("runs", "table", "figures"), "it reads tables alone"),
    "list": (("runs",), "it looks at what is there"),
    "diff": ((), "it compares the two folders that it names"),
    "store_info": (("stores", "runs"), "it looks at what is there"),
    "prune": (("stores", "runs", "older", "forget", "yes"), "it computes nothing"),
}  # what is asked for without a spec: the flags that go with it, and why no others
OF_PRUNE = {"older", "forget", "yes"}
SWEEP_FLAGS = ("address", "jobs", "cpus", "gpus")  # that a single experiment does not take
SHELLS = ("bash", "zsh")
TABLES = ("latex", "markdown", "csv")
FIGURES = ("png", "svg", "pdf")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        advice = f"{command(self.prog)} --help lists the flags"
        self.exit(WRONG, f"{self.prog}: {message} ({advice})\n")


def command(prog: str) -> str:
    """What a person types to run the program."""
    return f"python {prog}" if prog.endswith(".py") else prog


def parse(arguments: Sequence[str] | None, prog: str) -> argparse.Namespace:
    parser = parser_of(prog)
    flags = parser.parse_args(arguments)
    _check_together(parser, flags)
    return flags


def parser_of(prog: str) -> Parser:
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
    _add_finished_flags(parser)
    _add_store_flags(parser)
    _add_how_flags(parser)
    _add_along(parser)
    _add_questions(parser)
    return parser


def _check_together(parser: Parser, flags: argparse.Namespace) -> None:
    """Refuse flags that do not go with what is asked for."""
    values = vars(flags)
    typed = [name for name in values if values[name] != parser.get_default(name)]
    for action in [name for name in ALONE if name in typed]:
        _check_company(parser, action, set(typed) - {action})
    if flags.plan and (flags.table or flags.figures):
        parser.error("--table and --figures go with results, and --plan has none")
    if not flags.prune:
        _refuse(parser, OF_PRUNE & {*typed}, "goes only with --prune")
    if not flags.files and not set(typed) & ALONE.keys():
        parser.error("--gin FILE is needed")


def _check_company(parser: Parser, action: str, others: set[str]) -> None:
    """Refuse other flags beside what is asked for without a spec."""
    allowed, reason = ALONE[action]
    if others - {*allowed}:
        wanted = f"only with {_listed(allowed)}" if allowed else "with no other flag"
        parser.error(f"{_flag(action)} goes {wanted}: {reason}")


def _refuse(parser: Parser, names: set[str], reason: str) -> None:
    for name in sorted(names):
        parser.error(f"{_flag(name)} {reason}")


def _listed(names: Sequence[str]) -> str:
    """As they are typed: --a, --b and --c."""
    *first, last = map(_flag, names)
    return f"{', '.join(first)} and {last}" if first else last


def _flag(name: str) -> str:
    """As it is typed."""
    typed = {"files": "gin", "bindings": "set", "stores": "store"}.get(name, name)
    return f"--{typed.replace('_', '-')}"


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
        dest="stores",
        metavar="DIR",
        action="append",
        help="where artifacts are kept and found again (default: store); repeatable: all are read "
        "from, the first is written to",
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


def _add_finished_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("to look at finished runs", "without a spec")
    group.add_argument(
        "--list",
        action="store_true",
        help="what has been run: when, by which commit, with which accuracies",
    )
    group.add_argument(
        "--diff",
        metavar="RUN",
        nargs=2,
        help="the bindings and numbers in which two run folders differ",
    )


def _add_store_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("to look after the store", "without a spec")
    group.add_argument(
        "--store-info",
        action="store_true",
        help="how large it is by kind of stage, and which run folders need what",
    )
    group.add_argument(
        "--prune",
        action="store_true",
        help="show what no folder of --runs needs, ask, and free it",
    )
    group.add_argument(
        "--older",
        metavar="DAYS",
        type=from_zero,
        help="with --prune: free what was made longer ago instead, whoever needs it",
    )
    group.add_argument(
        "--forget",
        metavar="RUN",
        action="append",
        default=[],
        help="with --prune: keep nothing for this run folder; repeatable",
    )
    group.add_argument("--yes", action="store_true", help="with --prune: do not ask")


def _add_language_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "of language models",
        "how they are computed, which no key knows; results differ by rounding",
    )
    for flag, text in LANGUAGE_FLAGS.items():
        group.add_argument(f"--{flag}", action="store_true", help=text)


def _add_sweep_flags(parser: argparse.ArgumentParser) -> None:
    axes = parser.add_argument_group("a sweep without a file", "its name is Sweep.name, or theirs")
    axes.add_argument(
        "--grid",
        dest="grids",
        metavar="'NAME.x = (VALUE, VALUE)'",
        action="append",
        default=[],
        help="an axis: every file that is an experiment, times these values; repeatable",
    )
    axes.add_argument(
        "--seeds",
        metavar="N",
        type=job_count,
        help="every seed that the files read takes the values 0 to N - 1, all of them together",
    )
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
        type=from_zero,
        help="GPUs of a trial; .25 lets four share one (default: 1 where there are any)",
    )


def _add_how_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it is computed", "which no key knows")
    group.add_argument(
        "--device",
        metavar="D",
        type=device_name,
        help="cpu, cuda or a certain GPU: cuda:1 (default: the first GPU, else cpu)",
    )
    group.add_argument(
        "--threads",
        metavar="N",
        type=job_count,
        help="torch threads of an experiment (default: all cores; of a sweep, see --cpus)",
    )
    loudness = group.add_mutually_exclusive_group()
    loudness.add_argument(
        "--quiet", action="store_true", help="no progress: tables and errors are printed alone"
    )
    loudness.add_argument(
        "--verbose", action="store_true", help="a line for every stage, and one every ten seconds"
    )


def _add_along(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "to take along", "with a run or --gather: files in the folder paper/ of the run"
    )
    group.add_argument(
        "--table",
        metavar="FORMAT",
        choices=TABLES,
        help="the tables as latex (booktabs), markdown or csv, with intervals and stars; printed",
    )
    group.add_argument(
        "--figures",
        metavar="KIND",
        nargs="+",
        choices=FIGURES,
        default=[],
        help="the figures at the text width of a paper, as png, svg or pdf",
    )


def _add_questions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("about monosem itself")
    group.add_argument(
        "--describe",
        metavar="NAME",
        nargs="?",
        const="",
        help="what can be bound: all classes, a kind, or one class with its fields",
    )
    group.add_argument(
        "--completion",
        metavar="SHELL",
        choices=SHELLS,
        help="a script for bash or zsh that completes flags, files and names",
    )


def device_name(text: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"must be cpu, cuda or cuda:N, got {text!r}")
    return text


def job_count(text: str) -> int:
    count = int(text)
    _check_amount(0 < count < 1e6, f"above 0, got {text}")
    return count


def cpu_count(text: str) -> float:
    count = float(text)
    _check_amount(0 < count < 1e6, f"above 0, got {text}")
    return count


def from_zero(text: str) -> float:
    """GPUs, or days."""
    number = float(text)
    _check_amount(0 <= number < 1e6, f"0 or more, got {text}")
    return number


job_count.__name__ = "whole number"  # argparse says it of text that is none
cpu_count.__name__ = from_zero.__name__ = "number"


def _check_amount(is_allowed: bool, wanted: str) -> None:
    if not is_allowed:
        raise argparse.ArgumentTypeError(f"must be {wanted}")


def typed_sweep_flags(flags: argparse.Namespace) -> list[str]:
    """The flags of a sweep that were typed."""
    return [name for name in SWEEP_FLAGS if getattr(flags, name) is not None]


def typed_language_flags(flags: argparse.Namespace) -> list[str]:
    """The flags of language models that were typed."""
    return [name for name in LANGUAGE_FLAGS if getattr(flags, name)]
