"""Progress on stderr: of one experiment, and of a sweep.

Both are callbacks: they hear of stages and know nothing of folders, Ray or TensorBoard. On a
terminal a stage has one line; elsewhere, as in a log, there is at most one line a minute.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from torch import Tensor
from tqdm import tqdm

from monosem.core.stage import Stage, key, title
from monosem.core.store import Callback, LogEntry, Store
from monosem.models.training import Learning
from monosem.robustness.measurement import Series

TERMINAL_SECONDS = 0.3  # between two updates on a terminal
PLAIN_SECONDS = 60  # between two lines elsewhere
VERBOSE_SECONDS = 10
ENOUGH = 0.1  # the share of a stage after which its duration can be guessed
CLEAR_LINE = "\r\x1b[K"


def stage_label(stage: Stage) -> str:
    """A stage as people read it; a curve with its name first."""
    return f"{stage.name}: {title(stage)}" if isinstance(stage, Series) else title(stage)


class Voice(NamedTuple):
    """How much is said on stderr while something is computed; errors are said in any case.

    quiet: nothing at all.
    verbose: every stage with its key when it ends, and a line every ten seconds.
    """

    quiet: bool = False
    verbose: bool = False

    def note(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)


USUAL = Voice()


class _Updates:
    """Says when it is time for another update.

    on_terminal: whether stderr is a terminal, where updates are frequent as they leave no line.
    """

    def __init__(self, voice: Voice) -> None:
        self.on_terminal = sys.stderr.isatty()
        plain = VERBOSE_SECONDS if voice.verbose else PLAIN_SECONDS
        self.pause = TERMINAL_SECONDS if self.on_terminal else plain
        self.restart(0.0)

    def restart(self, now: float) -> None:
        self.last = now

    def is_due(self, now: float) -> bool:
        return now - self.last >= self.pause


class StageProgress(Callback):
    """Which stages are missing and running, and what they will take.

    missing: the stages that have to be computed.
    store: knows what such stages took before, which is a first guess of how long they take.
    """

    def __init__(self, missing: Sequence[Stage], store: Store, voice: Voice):
        self.missing = {key(stage): stage for stage in missing}
        kinds = {type(stage) for stage in missing}
        self.seconds = {kind: store.durations(kind) for kind in kinds}
        self.began: dict[str, float] = {}  # the running stages by key
        self.shares: dict[str, float] = {}  # of a running stage, how much is done
        self.failed: set[str] = set()
        self.voice, self.updates = voice, _Updates(voice)
        self.started = time.monotonic()

    def begin(self, stage: Stage) -> None:
        self.began[key(stage)] = time.monotonic()
        self.shares[key(stage)] = 0.0

    def end(self, stage: Stage) -> None:
        self.began.pop(key(stage), None)
        self.shares.pop(key(stage), None)

    def finish(self, stage: Stage) -> None:
        """Its artifact is there."""
        self.missing.pop(key(stage), None)
        if key(stage) in self.began:
            took = time.monotonic() - self.began[key(stage)]
            self.seconds.setdefault(type(stage), []).append(took)

    def move(self, stage: Stage, step: int, of: int) -> None:
        if key(stage) in self.began:
            self.shares[key(stage)] = step / of

    def seconds_left(self, now: float) -> float | None:
        """What the missing stages will take, as many at once as now; None: not known yet."""
        total = 0.0
        for name in self.missing.keys() - self.failed:
            duration = self._expected_seconds(type(self.missing[name]), now)
            if duration is None:
                return None
            elapsed, share = now - self.began.get(name, now), self.shares.get(name, 0.0)
            if share > ENOUGH:  # its own pace says more than that of others
                duration = elapsed / share
            total += max(duration - elapsed, 0)
        return total / max(len(self.began), 1)

    def time_left(self, now: float) -> str:
        left = self.seconds_left(now)
        return "time left not known yet" if left is None else f"about {minutes(left)} left"

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


class ConsoleProgress(StageProgress):
    """Of one experiment: a bar with loss and inputs/s on a terminal, plain lines elsewhere."""

    def __init__(self, missing: Sequence[Stage], store: Store, voice: Voice = USUAL):
        super().__init__(missing, store, voice)
        self.count = len(self.missing)
        self.bar: tqdm[None] | None = None
        self.updates.restart(self.started)

    def on_start(self, stage: Stage) -> None:
        self.begin(stage)
        self._update(stage, "")

    def on_log(self, stage: Stage, entry: LogEntry) -> None:
        self.move(stage, entry.step, entry.of)
        self._update(stage, "")

    def on_step(self, stage: Stage, step: int, of: int, inputs: int, loss: Tensor) -> None:
        self.move(stage, step, of)
        now = time.monotonic()
        if not self.updates.is_due(now):
            return  # reading the loss waits for the device, so it is done rarely
        took = now - self.began.get(key(stage), self.started)
        rate = f"loss {float(loss):.4f}, {inputs / took:,.0f} inputs/s"
        if self.updates.on_terminal:
            self.updates.restart(now)
            self._move_bar(type(stage).__name__, step, of, f"{rate}; all: {self.time_left(now)}")
        else:
            self._update(stage, f", step {step} of {of}, {rate}")

    def on_end(self, stage: Stage) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        took = time.monotonic() - self.began.get(key(stage), self.started)
        self.finish(stage)
        self.end(stage)
        if self.voice.verbose:
            self.voice.note(f"{stage_label(stage)}: {took:.1f} s, {key(stage)}")
        elif self.updates.on_terminal:
            self.voice.note(f"{stage_label(stage)}: {took:.1f} s")

    def _update(self, stage: Stage, details: str) -> None:
        """A line of a log, if it is time for one. details: of the stage."""
        now = time.monotonic()
        if self.updates.on_terminal or not self.updates.is_due(now):
            return
        self.updates.restart(now)
        done = self.count - len(self.missing)
        self.voice.note(
            f"{minutes(now - self.started)}: {done} of {self.count} stages done, "
            f"{stage_label(stage)}{details}, {self.time_left(now)}"
        )

    def _move_bar(self, name: str, step: int, of: int, rate: str) -> None:
        if self.bar is None:
            self.bar = tqdm(desc=name, total=of, unit="step", leave=False, dynamic_ncols=True)
        self.bar.set_postfix_str(rate, refresh=False)
        self.bar.update(step - self.bar.n)


class SweepProgress(StageProgress):
    """Of a sweep: cells done, running and failed, what is being computed, and the time left.

    One line that is rewritten on a terminal, at most a line a minute elsewhere.

    cells: by name, the stages that a cell needs.
    """

    def __init__(
        self,
        cells: Mapping[str, Sequence[Stage]],
        missing: Sequence[Stage],
        store: Store,
        voice: Voice = USUAL,
    ):
        super().__init__(missing, store, voice)
        self.needs = {name: set(map(key, stages)) for name, stages in cells.items()}
        self.cell_of: dict[str, str] = {}  # the first cell that needs a stage
        for name, needed in self.needs.items():
            self.cell_of |= {stage: name for stage in needed if stage not in self.cell_of}

    def on_start(self, stage: Stage) -> None:
        self.failed.discard(key(stage))  # it is tried again
        self.begin(stage)
        self.update()

    def on_log(self, stage: Stage, entry: LogEntry) -> None:
        self.move(stage, entry.step, entry.of)
        self.update()

    def on_end(self, stage: Stage) -> None:
        self.end(stage)
        self.update()

    def on_finish(self, stage: Stage) -> None:
        self.finish(stage)
        if self.voice.verbose:
            self.update(f"{stage_label(stage)} of {self.cell_of[key(stage)]}, {key(stage)}")

    def on_failure(self, stage: Stage, reason: str) -> None:
        self.failed.add(key(stage))
        self.update(f"{stage_label(stage)} failed: {reason}")

    def update(self, news: str = "") -> None:
        """Print the present state if it is time for that, or if there are news."""
        now = time.monotonic()
        if self.voice.quiet or (not news and not self.updates.is_due(now)):
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
        """Leave the terminal's line free."""
        if self.updates.on_terminal and not self.voice.quiet:
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)

    def _describe(self, now: float) -> str:
        done, running, failed = self.count_cells()
        state = (
            f"{minutes(now - self.started)}: {done} of {len(self.needs)} cells done, "
            f"{running} running, {failed} failed, {self.time_left(now)}"
        )
        stages = [
            f"{type(self.missing[name]).__name__} of {self.cell_of[name]} {share:.0%}"
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


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"
