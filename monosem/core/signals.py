"""SIGTERM, as Slurm and others send it, ends a process as Ctrl+C does, but with its own exit code.

What was saved last is whole, so the same command goes on from there. Nothing here knows what runs.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """Somebody asked this process to end, by SIGTERM."""


def _end(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends it at once
    raise Terminated


def end_at_sigterm() -> None:
    """From now on SIGTERM raises Terminated in the main thread. Elsewhere nothing is changed."""
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _end)


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """As `end_at_sigterm`, as long as the block lasts."""
    before = signal.getsignal(signal.SIGTERM)
    end_at_sigterm()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError, TypeError):  # TypeError: it was set outside Python
            signal.signal(signal.SIGTERM, before)
