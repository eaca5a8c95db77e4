"""From flags to one of the things that can be done, and from its errors to an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from monosem.cli.about import describe, print_completion
from monosem.cli.finished import gather
from monosem.cli.flags import parse
from monosem.cli.outcomes import FAILED, INTERRUPTED, WRONG, RunError, UsageError
from monosem.cli.run import run, show_plan
from monosem.specs.errors import ClusterError, SpecError


def main(arguments: Sequence[str] | None = None, prog: str = "monosem") -> int:
    """Does what the flags ask for and returns the exit code.

    arguments: None takes those of this process.
    prog: the name that the person typed, for messages.
    """
    flags = parse(arguments, prog)
    try:
        return _do(flags)
    except KeyboardInterrupt:
        print(
            "\ninterrupted; the same command goes on from the last finished epoch", file=sys.stderr
        )
        return INTERRUPTED
    except (SpecError, UsageError, ClusterError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return WRONG
    except RunError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return FAILED


def _do(flags: argparse.Namespace) -> int:
    """The exit code of what is asked for."""
    if flags.describe is not None:
        return describe(flags)
    if flags.completion:
        return print_completion(flags)
    if flags.gather:
        return gather(flags)
    return show_plan(flags) if flags.plan else run(flags)
