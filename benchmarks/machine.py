"""What else the machine did while something was timed: no figure is quoted that was taken under it.

Every benchmark that is quoted makes an `OtherLoad` first and prints its verdict last.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

LARGEST_OTHER_LOAD = 0.25  # cores


class Clocks(NamedTuple):
    """Seconds: by the clock, of all CPUs since the machine started, and of this process's own work.

    own: of this process and of those that it started and that are over.
    """

    clock: float
    busy: float
    own: float


def read_clocks() -> Clocks:
    with open("/proc/stat") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    idle = ticks[3] + ticks[4]
    busy = (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK")
    return Clocks(time.perf_counter(), busy, sum(os.times()[:4]))


def other_cores(before: Clocks, after: Clocks) -> float:
    """How many cores other processes kept busy between two readings; 0 or more."""
    busy, own = after.busy - before.busy, after.own - before.own
    return max(busy - own, 0) / (after.clock - before.clock)


def verdict(cores: float) -> str:
    """A line on whether a figure may be quoted beside this much other work."""
    words = "quotable" if cores < LARGEST_OTHER_LOAD else "NOT quotable"
    return f"other work kept {cores:.2f} cores busy meanwhile: {words}"


class OtherLoad:
    """The work of other processes since it was made, by /proc/stat."""

    def __init__(self) -> None:
        self.start = read_clocks()

    def verdict(self) -> str:
        return verdict(other_cores(self.start, read_clocks()))
