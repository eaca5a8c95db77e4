"""Looking on: progress for the terminal, event files for TensorBoard."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import fmean

from matplotlib.image import imread
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from tqdm import tqdm

from monosem.curves import MONOSEMANTICITY, Row, Swept, Table
from monosem.evaluation import Experiment, Series
from monosem.probes import Features
from monosem.spec import Cell
from monosem.stage import Part, Stage, closure, key, title
from monosem.stats import estimate
from monosem.store import Entry, Store, Watcher
from monosem.training import Learning


def named(stage: Stage) -> str:
    """A stage as people read it; a curve with its name first."""
    return f"{stage.name}: {title(stage)}" if isinstance(stage, Series) else title(stage)


def slug(stage: Stage) -> str:
    """A stage as a word of a TensorBoard tag: label_noise, train_split, sparse_autoencoder."""
    if isinstance(stage, Series):
        return stage.name
    if isinstance(stage, Features):
        return f"{stage.split}_split"
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", type(stage).__name__).lower()


class Progress(Watcher):
    """On stderr: a bar with loss and images/s on a terminal, a plain line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.bar: tqdm[None] | None = None
        self.started = self.said = 0.0

    def begin(self, stage: Stage) -> None:
        self.started = self.said = time.monotonic()

    def tick(self, stage: Stage, step: int, of: int, images: int, loss: Tensor) -> None:
        now = time.monotonic()
        if now - self.said < (0.3 if self.terminal else 10):
            return  # reading the loss waits for the device, so it is done rarely
        self.said = now
        rate = f"loss {float(loss):.4f}, {images / (now - self.started):,.0f} images/s"
        if self.terminal:
            self.bar = self.bar or tqdm(desc=type(stage).__name__, total=of, unit="step", leave=False, dynamic_ncols=True)
            self.bar.set_postfix_str(rate, refresh=False)
            self.bar.update(step - self.bar.n)
        else:
            print(f"{named(stage)}: step {step} of {of}, {rate}", file=sys.stderr, flush=True)

    def end(self, stage: Stage) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        print(f"{named(stage)}: {time.monotonic() - self.started:.1f} s", file=sys.stderr, flush=True)


class Cells(Watcher):
    """On stderr, for a sweep: how many cells are done, running and failed, what is being trained, how long it will take. One line
    that is rewritten on a terminal, a plain line every ten seconds elsewhere."""

    def __init__(self, cells: Sequence[Cell], store: Store, missing: Sequence[Stage]):
        self.needs = {cell.name: {key(stage) for stage in closure(cell.experiment.stages)} for cell in cells}
        self.missing = {key(stage): stage for stage in missing}
        self.seconds: dict[str, list[float]] = {}  # a stage took, by kind
        for kind in {type(stage) for stage in missing}:  # what such stages took before is a first guess
            self.seconds[kind.__name__] = store.seconds(kind)
        self.trainings = {kind.__name__ for kind in {type(stage) for stage in missing} if issubclass(kind, Learning)}
        self.running: dict[str, tuple[float, float]] = {}  # when it began, which share of it is done
        self.failed: set[str] = set()
        self.terminal = sys.stderr.isatty()
        self.started = time.monotonic()
        self.said = 0.0

    def begin(self, stage: Stage) -> None:
        self.failed.discard(key(stage))  # it is tried again
        self.running[key(stage)] = (time.monotonic(), 0.0)
        self.tell()

    def log(self, stage: Stage, entry: Entry) -> None:
        began, _ = self.running.get(key(stage), (time.monotonic(), 0.0))
        self.running[key(stage)] = (began, entry.step / entry.of)
        self.tell()

    def end(self, stage: Stage) -> None:
        self.running.pop(key(stage), None)
        self.tell()

    def finish(self, stage: Stage) -> None:
        self.missing.pop(key(stage), None)
        if key(stage) in self.running:
            self.seconds[type(stage).__name__].append(time.monotonic() - self.running[key(stage)][0])

    def fail(self, stage: Stage, reason: str) -> None:
        self.failed.add(key(stage))
        self.tell(f"{named(stage)} failed: {reason}")

    def left(self) -> float | None:
        """Seconds: what the missing stages will take by the mean of their kind, at as many at once as now. A kind of training of
        which nothing is known is taken for one that is; None if there is none."""
        now, total = time.monotonic(), 0.0
        trainings = [fmean(took) for name, took in self.seconds.items() if took and name in self.trainings]
        for name, (began, share) in self.running.items():
            if share > 0.1 and isinstance(self.missing.get(name), Learning):
                trainings.append((now - began) / share)
        for name in self.missing.keys() - self.failed:
            stage, (began, share) = self.missing[name], self.running.get(name, (now, 0.0))
            known = self.seconds[type(stage).__name__] or (trainings if isinstance(stage, Learning) else [0.0])
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
        running = sum(bool(need & self.running.keys()) and not need & self.failed for need in self.needs.values())
        return done, running, failed

    def tell(self, news: str = "") -> None:
        now = time.monotonic()
        if not news and now - self.said < (0.3 if self.terminal else 10):
            return
        self.said = now
        done, running, failed = self.counts()
        left = self.left()
        time_left = "time left not known yet" if left is None else f"about {minutes(left)} left"
        words = f"{minutes(now - self.started)}: {done} of {len(self.needs)} cells done, {running} running, {failed} failed, {time_left}"
        trained = [f"{type(self.missing[name]).__name__} {share:.0%}" for name, (_, share) in self.running.items() if name in self.missing]
        words += f" ({', '.join(trained[:3])}{', ...' if len(trained) > 3 else ''})" if trained else ""
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{news}\n" if news else "\r\x1b[K", words[:width], sep="", end="", file=sys.stderr, flush=True)
        else:
            print(*filter(None, (news, words)), sep="\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"


class Boards(Watcher):
    """For a sweep: every training live in TensorBoard, under the first of the cells that need it."""

    def __init__(self, folder: Path, cells: Sequence[Cell], store: Store):
        self.folder, self.store = folder, store
        self.owners: dict[str, Cell] = {}
        for cell in cells:
            for stage in closure(cell.experiment.stages):
                self.owners.setdefault(key(stage), cell)
        self.open: dict[str, Board] = {}

    def begin(self, stage: Stage) -> None:
        if isinstance(stage, Learning):
            cell = self.owners[key(stage)]
            stages = closure(cell.experiment.stages)
            (self.folder / cell.name / "config.gin").unlink(missing_ok=True)  # the folder is not whole any more
            board = self.open[key(stage)] = Board(self.folder / cell.name, stages)
            board.replay(self.store, stages)
            board.begin(stage)

    def log(self, stage: Stage, entry: Entry) -> None:
        if key(stage) in self.open:
            self.open[key(stage)].log(stage, entry)
            self.open[key(stage)].writer.flush()

    def end(self, stage: Stage) -> None:
        if key(stage) in self.open:
            self.open.pop(key(stage)).close()

    def close(self) -> None:
        for board in self.open.values():
            board.close()


class Together(Watcher):
    """Several watchers as one."""

    def __init__(self, *watchers: Watcher):
        self.watchers = watchers

    def begin(self, stage: Stage) -> None:
        for watcher in self.watchers:
            watcher.begin(stage)

    def log(self, stage: Stage, entry: Entry) -> None:
        for watcher in self.watchers:
            watcher.log(stage, entry)

    def end(self, stage: Stage) -> None:
        for watcher in self.watchers:
            watcher.end(stage)

    def finish(self, stage: Stage) -> None:
        for watcher in self.watchers:
            watcher.finish(stage)

    def fail(self, stage: Stage, reason: str) -> None:
        for watcher in self.watchers:
            watcher.fail(stage, reason)


class Board(Watcher):
    """One event file a run: what its stages logged, live or from the store, then the curves, the figure and the hparams.

    A run that is done again replaces its event file; `purge_step` tells a TensorBoard that has the old one open.
    """

    def __init__(self, folder: Path, stages: Sequence[Stage]):
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self.writer = SummaryWriter(str(folder), purge_step=0)
        self.told: set[str] = set()
        self.words: dict[str, str] = {}
        for stage in stages:  # the same in every run, so that TensorBoard lays runs over one another
            word = slug(stage)
            taken = sum(other.rsplit("~")[0] == word for other in self.words.values())
            self.words[key(stage)] = f"{word}~{taken + 1}" if taken else word

    def begin(self, stage: Stage) -> None:
        self.told.add(key(stage))

    def log(self, stage: Stage, entry: Entry) -> None:
        word = self.words[key(stage)]
        for name, value in entry.scalars.items():
            tag = f"{word}/{name}" if isinstance(stage, Learning) else f"{name}/{word}"  # a section a training, or a section a measure
            self.writer.add_scalar(tag, value, entry.step)

    def replay(self, store: Store, stages: Sequence[Stage]) -> None:
        """Tell what finished stages logged when they ran, in another run or another process; each is told once."""
        for stage in stages:
            if key(stage) in self.told or not store.has(stage):
                continue
            self.begin(stage)
            for entry in store.history(stage):
                self.log(stage, entry)

    def report(self, experiment: Experiment, rows: Sequence[Row], swept: Swept = ()) -> None:
        """Curves as series whose step is the severity in thousandths; hyperparameters with what came of them."""
        table = Table(rows)
        (line,) = table.lines
        outcomes = {f"{MONOSEMANTICITY}/{row.metric}": row.value for row in rows if row.curve == MONOSEMANTICITY}
        for curve in table.axes:
            for metric in dict.fromkeys(row.metric for row in rows if row.curve == curve):
                means = {severity: estimate(sample).mean for severity, sample in table.samples(line, curve, metric).items()}
                for severity, mean in means.items():
                    self.writer.add_scalar(f"accuracy_{metric}/{curve}", mean, round(1000 * severity))
                outcomes[f"mean_{metric}/{curve}"] = sum(means.values()) / len(means)
        for name, value in outcomes.items():
            self.writer.add_scalar(name, value, 0)
        for summary in hparams(hyperparameters(experiment, swept), outcomes):  # add_hparams would make a sub-run of its own
            self.writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]

    def picture(self, path: Path) -> None:
        self.writer.add_image(path.stem, imread(path)[..., :3], 0, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


# One fixed set with one type each: TensorBoard's HParams tab takes its columns from the first run it reads. An experiment
# that has no such thing (SimCLR has no latents) gets the empty value of the type.
HYPERPARAMETERS: Mapping[str, type] = {
    "experiment": str, "swept": str,
    "representation": str, "encoder": str, "objective": str, "activation": str, "classifier": str, "sparsity": str,
    "temperature": float, "k": float, "penalty": float, "latents": float, "epochs": float, "batch_size": float, "seed": float,
}  # fmt: skip


def hyperparameters(experiment: Experiment, swept: Swept = ()) -> dict[str, str | float]:
    """The first curve's representation as columns. Of fields with one name, that nearest to the pre-training counts."""
    found: dict[str, object] = {}

    def visit(part: Part) -> None:
        values = {field.name: getattr(part, field.name) for field in fields(part)}
        found.update(values)
        for value in values.values():
            if isinstance(value, Part):
                visit(value)

    top = experiment.curves[0].encoder
    visit(top)
    found |= {"representation": top, "experiment": experiment.name, "swept": ", ".join(f"{name} = {value}" for name, value in swept)}
    words = {name: type(value).__name__ if isinstance(value, Part) else value for name, value in found.items()}
    return {name: kind(words[name]) if words.get(name) is not None else kind() for name, kind in HYPERPARAMETERS.items()}
