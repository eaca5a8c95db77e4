"""Looking on: progress for the terminal, event files for TensorBoard."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from statistics import fmean

from torch import Tensor
from tqdm import tqdm

from monosem.core.stage import Stage, closure, key, title
from monosem.core.store import Callback, LogEntry, Store
from monosem.evaluation.curves import SeverityCurve
from monosem.models.training import Learning
from monosem.specs.cells import Cell


def named(stage: Stage) -> str:
    """A stage as people read it; a curve with its name first."""
    return f"{stage.name}: {title(stage)}" if isinstance(stage, SeverityCurve) else title(stage)


class ConsoleProgress(Callback):
    """On stderr: a bar with loss and images/s on a terminal, a plain line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.bar: tqdm[None] | None = None
        self.started = self.last_update = 0.0

    def on_start(self, stage: Stage) -> None:
        self.started = self.last_update = time.monotonic()

    def on_step(self, stage: Stage, step: int, of: int, images: int, loss: Tensor) -> None:
        now = time.monotonic()
        if now - self.last_update < (0.3 if self.terminal else 10):
            return  # reading the loss waits for the device, so it is done rarely
        self.last_update = now
        rate = f"loss {float(loss):.4f}, {images / (now - self.started):,.0f} images/s"
        if self.terminal:
            self.bar = self.bar or tqdm(
                desc=type(stage).__name__, total=of, unit="step", leave=False, dynamic_ncols=True
            )
            self.bar.set_postfix_str(rate, refresh=False)
            self.bar.update(step - self.bar.n)
        else:
            print(f"{named(stage)}: step {step} of {of}, {rate}", file=sys.stderr, flush=True)

    def on_end(self, stage: Stage) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        print(
            f"{named(stage)}: {time.monotonic() - self.started:.1f} s", file=sys.stderr, flush=True
        )


class SweepProgress(Callback):
    """On stderr, for a sweep: how many cells are done, running and failed, what is being trained, how long it will take. One line
    that is rewritten on a terminal, a plain line every ten seconds elsewhere."""

    def __init__(self, cells: Sequence[Cell], store: Store, missing: Sequence[Stage]):
        self.needs = {
            cell.name: {key(stage) for stage in closure(cell.experiment.stages)} for cell in cells
        }
        self.missing = {key(stage): stage for stage in missing}
        self.seconds: dict[str, list[float]] = {}  # a stage took, by kind
        for kind in {
            type(stage) for stage in missing
        }:  # what such stages took before is a first guess
            self.seconds[kind.__name__] = store.durations(kind)
        self.trainings = {
            kind.__name__
            for kind in {type(stage) for stage in missing}
            if issubclass(kind, Learning)
        }
        self.running: dict[
            str, tuple[float, float]
        ] = {}  # when it began, which share of it is done
        self.failed: set[str] = set()
        self.terminal = sys.stderr.isatty()
        self.started = time.monotonic()
        self.last_update = 0.0

    def on_start(self, stage: Stage) -> None:
        self.failed.discard(key(stage))  # it is tried again
        self.running[key(stage)] = (time.monotonic(), 0.0)
        self.tell()

    def on_log(self, stage: Stage, entry: LogEntry) -> None:
        began, _ = self.running.get(key(stage), (time.monotonic(), 0.0))
        self.running[key(stage)] = (began, entry.step / entry.of)
        self.tell()

    def on_end(self, stage: Stage) -> None:
        self.running.pop(key(stage), None)
        self.tell()

    def on_finish(self, stage: Stage) -> None:
        self.missing.pop(key(stage), None)
        if key(stage) in self.running:
            self.seconds[type(stage).__name__].append(
                time.monotonic() - self.running[key(stage)][0]
            )

    def on_failure(self, stage: Stage, reason: str) -> None:
        self.failed.add(key(stage))
        self.tell(f"{named(stage)} failed: {reason}")

    def left(self) -> float | None:
        """Seconds: what the missing stages will take by the mean of their kind, at as many at once as now. A kind of training of
        which nothing is known is taken for one that is; None if there is none."""
        now, total = time.monotonic(), 0.0
        trainings = [
            fmean(took) for name, took in self.seconds.items() if took and name in self.trainings
        ]
        for name, (began, share) in self.running.items():
            if share > 0.1 and isinstance(self.missing.get(name), Learning):
                trainings.append((now - began) / share)
        for name in self.missing.keys() - self.failed:
            stage, (began, share) = self.missing[name], self.running.get(name, (now, 0.0))
            known = self.seconds[type(stage).__name__] or (
                trainings if isinstance(stage, Learning) else [0.0]
            )
            if share > 0.1:
                total += (now - began) / share * (1 - share)
            elif known:
                total += max(fmean(known) - (now - began), 0)
            else:
                return None
        return total / max(len(self.running), 1)

    def counts(self) -> tuple[int, int, int]:
        """Cells that are done, running and failed."""
        failed = sum(bool(need & self.failed) for need in self.needs.values())
        done = sum(not need & (self.missing.keys() | self.failed) for need in self.needs.values())
        running = sum(
            bool(need & self.running.keys()) and not need & self.failed
            for need in self.needs.values()
        )
        return done, running, failed

    def tell(self, news: str = "") -> None:
        now = time.monotonic()
        if not news and now - self.last_update < (0.3 if self.terminal else 10):
            return
        self.last_update = now
        done, running, failed = self.counts()
        left = self.left()
        time_left = "time left not known yet" if left is None else f"about {minutes(left)} left"
        words = f"{minutes(now - self.started)}: {done} of {len(self.needs)} cells done, {running} running, {failed} failed, {time_left}"
        trained = [
            f"{type(self.missing[name]).__name__} {share:.0%}"
            for name, (_, share) in self.running.items()
            if name in self.missing
        ]
        words += (
            f" ({', '.join(trained[:3])}{', ...' if len(trained) > 3 else ''})" if trained else ""
        )
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            print(
                f"\r\x1b[K{news}\n" if news else "\r\x1b[K",
                words[:width],
                sep="",
                end="",
                file=sys.stderr,
                flush=True,
            )
        else:
            print(*filter(None, (news, words)), sep="\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"


class Together(Callback):
    """Several callbacks as one."""

    def __init__(self, *callbacks: Callback):
        self.callbacks = callbacks

    def on_start(self, stage: Stage) -> None:
        for callback in self.callbacks:
            callback.on_start(stage)

    def on_log(self, stage: Stage, entry: LogEntry) -> None:
        for callback in self.callbacks:
            callback.on_log(stage, entry)

    def on_end(self, stage: Stage) -> None:
        for callback in self.callbacks:
            callback.on_end(stage)

    def on_finish(self, stage: Stage) -> None:
        for callback in self.callbacks:
            callback.on_finish(stage)

    def on_failure(self, stage: Stage, reason: str) -> None:
        for callback in self.callbacks:
            callback.on_failure(stage, reason)
