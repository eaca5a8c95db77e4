"""From flags to one of the things that can be done, and from its errors to an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from monosem.cli.about import describe, print_completion
from monosem.cli.finished import gather, list_runs, show_differences
from monosem.cli.flags import command, parse
from monosem.cli.housekeeping import prune, store_info
from monosem.cli.outcomes import (
    FAILED,
    INTERRUPTED,
    TERMINATED,
    WRONG,
    RunError,
    UsageError,
)
from monosem.cli.run import run, show_plan
from monosem.core.signals import Terminated, ended_by_sigterm
from monosem.specs.errors import ClusterError, SpecError

ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "describe": describe,
    "completion": print_completion,
    "gather": gather,
    "list": list_runs,
    "diff": show_differences,
    "store_info": store_info,
    "prune": prune,
    "plan": show_plan,
}  # by the flag that asks for it; without any it is a run


def main(arguments: Sequence[str] | None = None, prog: str = "monosem") -> int:
    """Does what the flags ask for and returns the exit code.

    arguments: None takes those of this process.
    prog: the name that the person typed, for messages.
    """
    flags = parse(arguments, prog)
    typed = sys.argv[1:] if arguments is None else arguments
    try:
        with ended_by_sigterm():
            return _do(flags, [*command(prog).split(), *typed])
    except KeyboardInterrupt as error:
        is_terminated = isinstance(error, Terminated)
        word = "terminated" if is_terminated else "interrupted"
        print(f"\n{word}; the same command goes on from there", file=sys.stderr)
        return TERMINATED if is_terminated else INTERRUPTED
    except (SpecError, UsageError, ClusterError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return WRONG
    except RunError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return FAILED


def _do(flags: argparse.Namespace, words: Sequence[str]) -> int:
    """The exit code of what is asked for.

    words: the command as it was typed, for the records of a run.
    """
    for flag, action in ACTIONS.items():
        if getattr(flags, flag) not in (None, False):
            return action(flags)
    from monosem.core.provenance import remember_command  # heavy, as all of core

    remember_command(words)
    return run(flags)
