"""SIGTERM, as Slurm and others send it, ends a process as Ctrl+C does, but with its own exit code.

What was saved last is whole, so the same command goes on from there. Nothing here knows what runs.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
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


@contextlib.contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM and Ctrl+C wait for the end of the block, where what they raise is raised.

    So a training can end its step and save. A second signal of a kind ends the process at once.
    Outside the main thread, and where SIGTERM does not raise Terminated, nothing waits.

    Yields a function that says whether somebody has asked to end.
    """
    asked: list[type[KeyboardInterrupt]] = []
    kinds: dict[int, type[KeyboardInterrupt]] = {}
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGTERM) is _end:
            kinds[signal.SIGTERM] = Terminated
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            kinds[signal.SIGINT] = KeyboardInterrupt

    def note(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        asked.append(kinds[number])

    before = {number: signal.signal(number, note) for number in kinds}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise asked[0]
