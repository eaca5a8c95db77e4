"""Progress on stderr: of one experiment, and of a sweep.

Both are callbacks: they hear of stages and know nothing of folders, Ray or TensorBoard.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from statistics import fmean

from torch import Tensor
from tqdm import tqdm

from monosem.core.stage import Stage, key, title
from monosem.core.store import Callback, LogEntry, Store
from monosem.models.training import Learning
from monosem.robustness.measurement import Series

TERMINAL_SECONDS = 0.3  # between two updates on a terminal
PLAIN_SECONDS = 10  # between two lines elsewhere
ENOUGH = 0.1  # the share of a stage after which its duration can be guessed
CLEAR_LINE = "\r\x1b[K"


def stage_label(stage: Stage) -> str:
    """A stage as people read it; a curve with its name first."""
    return f"{stage.name}: {title(stage)}" if isinstance(stage, Series) else title(stage)


class _Updates:
    """Says when it is time for another update.

    on_terminal: whether stderr is a terminal, where updates are frequent as they leave no line.
    """

    def __init__(self) -> None:
        self.on_terminal = sys.stderr.isatty()
        self.pause = TERMINAL_SECONDS if self.on_terminal else PLAIN_SECONDS
        self.restart(0.0)

    def restart(self, now: float) -> None:
        self.last = now

    def is_due(self, now: float) -> bool:
        return now - self.last >= self.pause


class ConsoleProgress(Callback):
    """Of one experiment: a bar with loss and inputs/s on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self.updates = _Updates()
        self.bar: tqdm[None] | None = None
        self.started = 0.0

    def on_start(self, stage: Stage) -> None:
        self.started = time.monotonic()
        self.updates.restart(self.started)

    def on_step(self, stage: Stage, step: int, of: int, inputs: int, loss: Tensor) -> None:
        now = time.monotonic()
        if not self.updates.is_due(now):
            return  # reading the loss waits for the device, so it is done rarely
        self.updates.restart(now)
        rate = f"loss {float(loss):.4f}, {inputs / (now - self.started):,.0f} inputs/s"
        if self.updates.on_terminal:
            self._move_bar(type(stage).__name__, step, of, rate)
        else:
            print(f"{stage_label(stage)}: step {step} of {of}, {rate}", file=sys.stderr, flush=True)

    def _move_bar(self, name: str, step: int, of: int, rate: str) -> None:
        if self.bar is None:
            self.bar = tqdm(desc=name, total=of, unit="step", leave=False, dynamic_ncols=True)
        self.bar.set_postfix_str(rate, refresh=False)
        self.bar.update(step - self.bar.n)

    def on_end(self, stage: Stage) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        seconds = time.monotonic() - self.started
        print(f"{stage_label(stage)}: {seconds:.1f} s", file=sys.stderr, flush=True)


class SweepProgress(Callback):
    """Of a sweep: cells done, running and failed, what is being trained, and the time left.

    One line that is rewritten on a terminal, a plain line every ten seconds elsewhere.

    cells: by name, the stages that a cell needs.
    missing: the stages that have to be computed.
    store: knows what such stages took before, which is a first guess of how long they take.
    """

    def __init__(
        self, cells: Mapping[str, Sequence[Stage]], missing: Sequence[Stage], store: Store
    ):
        self.needs = {name: set(map(key, stages)) for name, stages in cells.items()}
        self.missing = {key(stage): stage for stage in missing}
        kinds = {type(stage) for stage in missing}
        self.seconds = {kind: store.durations(kind) for kind in kinds}
        self.began: dict[str, float] = {}  # the running stages by key
        self.shares: dict[str, float] = {}  # of a running stage, how much is done
        self.failed: set[str] = set()
        self.updates = _Updates()
        self.started = time.monotonic()

    def on_start(self, stage: Stage) -> None:
        self.failed.discard(key(stage))  # it is tried again
        self.began[key(stage)] = time.monotonic()
        self.shares[key(stage)] = 0.0
        self.update()

    def on_log(self, stage: Stage, entry: LogEntry) -> None:
        if key(stage) in self.began:
            self.shares[key(stage)] = entry.step / entry.of
        self.update()

    def on_end(self, stage: Stage) -> None:
        self.began.pop(key(stage), None)
        self.shares.pop(key(stage), None)
        self.update()

    def on_finish(self, stage: Stage) -> None:
        self.missing.pop(key(stage), None)
        if key(stage) in self.began:
            self.seconds[type(stage)].append(time.monotonic() - self.began[key(stage)])

    def on_failure(self, stage: Stage, reason: str) -> None:
        self.failed.add(key(stage))
        self.update(f"{stage_label(stage)} failed: {reason}")

    def update(self, news: str = "") -> None:
        """Print the present state if it is time for that, or if there are news."""
        now = time.monotonic()
        if not news and not self.updates.is_due(now):
            return
        self.updates.restart(now)
        state = self._describe(now)
        if not self.updates.on_terminal:
            print(f"{news}\n{state}" if news else state, file=sys.stderr, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        above = f"{CLEAR_LINE}{news}\n" if news else CLEAR_LINE
        print(above, state[:width], sep="", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.updates.on_terminal:
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)

    def _describe(self, now: float) -> str:
        done, running, failed = self.count_cells()
        left = self.seconds_left(now)
        time_left = "time left not known yet" if left is None else f"about {minutes(left)} left"
        state = (
            f"{minutes(now - self.started)}: {done} of {len(self.needs)} cells done, "
            f"{running} running, {failed} failed, {time_left}"
        )
        stages = [
            f"{type(self.missing[name]).__name__} {share:.0%}"
            for name, share in self.shares.items()
            if name in self.missing
        ]
        if not stages:
            return state
        more = ", ..." if len(stages) > 3 else ""
        return f"{state} ({', '.join(stages[:3])}{more})"

    def count_cells(self) -> tuple[int, int, int]:
        """Cells that are done, running and failed."""
        done = running = failed = 0
        for stages in self.needs.values():
            if stages & self.failed:
                failed += 1
            elif not stages & self.missing.keys():
                done += 1
            elif stages & self.began.keys():
                running += 1
        return done, running, failed

    def seconds_left(self, now: float) -> float | None:
        """What the missing stages will take, as many at once as now; None: not known yet."""
        total = 0.0
        for name in self.missing.keys() - self.failed:
            duration = self._expected_seconds(type(self.missing[name]), now)
            if duration is None:
                return None
            elapsed = now - self.began.get(name, now)
            total += max(duration - elapsed, 0)
        return total / max(len(self.began), 1)

    def _expected_seconds(self, kind: type[Stage], now: float) -> float | None:
        """The mean of stages of a kind; a training of which nothing is known is like another."""
        durations = self._durations(kind, now)
        if not durations and issubclass(kind, Learning):
            for other in self.seconds:
                durations += self._durations(other, now) if issubclass(other, Learning) else []
        if durations:
            return fmean(durations)
        return None if issubclass(kind, Learning) else 0.0  # what does not learn takes little

    def _durations(self, kind: type[Stage], now: float) -> list[float]:
        """Seconds that stages of a kind took, or else what the running ones are heading for."""
        if self.seconds[kind]:
            return list(self.seconds[kind])
        return [
            (now - self.began[name]) / share
            for name, share in self.shares.items()
            if share > ENOUGH and type(self.missing.get(name)) is kind
        ]


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"
