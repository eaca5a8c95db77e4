"""Looking on: progress for the terminal, event files for TensorBoard."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from matplotlib.image import imread
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from tqdm import tqdm

from monosem.curves import MONOSEMANTICITY, Row, names, points
from monosem.evaluation import Curve, Experiment, Features
from monosem.stage import Part, Stage, key, title
from monosem.store import Entry, Store, Watcher
from monosem.training import Training


def named(stage: Stage) -> str:
    """A stage as people read it; a curve with its name first."""
    return f"{stage.name}: {title(stage)}" if isinstance(stage, Curve) else title(stage)


def slug(stage: Stage) -> str:
    """A stage as a word of a TensorBoard tag: label_noise, train_split, sparse_autoencoder."""
    if isinstance(stage, Curve):
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
            tag = f"{word}/{name}" if isinstance(stage, Training) else f"{name}/{word}"  # a section a training, or a section a measure
            self.writer.add_scalar(tag, value, entry.step)

    def replay(self, store: Store, stages: Sequence[Stage]) -> None:
        """Tell what finished stages logged when they ran, in another run or another process; each is told once."""
        for stage in stages:
            if key(stage) in self.told or not store.has(stage):
                continue
            self.begin(stage)
            for entry in store.history(stage):
                self.log(stage, entry)

    def report(self, experiment: Experiment, rows: Sequence[Row], figure: Path) -> None:
        """Curves as series whose step is the severity in thousandths; the figure; hyperparameters with what came of them."""
        outcomes = {f"{MONOSEMANTICITY}/{row.metric}": row.value for row in rows if row.curve == MONOSEMANTICITY}
        for curve in names(rows)[1]:
            for metric in ("top1", "top5"):
                line = points(rows, experiment.name, curve, metric)
                for point in line:
                    self.writer.add_scalar(f"accuracy_{metric}/{curve}", point.mean, round(1000 * point.severity))
                outcomes[f"mean_{metric}/{curve}"] = sum(point.mean for point in line) / len(line)
        for name, value in outcomes.items():
            self.writer.add_scalar(name, value, 0)
        self.writer.add_image("curves", imread(figure)[..., :3], 0, dataformats="HWC")
        for summary in hparams(hyperparameters(experiment), outcomes):  # add_hparams would make a sub-run of its own
            self.writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]

    def close(self) -> None:
        self.writer.close()


# One fixed set with one type each: TensorBoard's HParams tab takes its columns from the first run it reads. An experiment
# that has no such thing (SimCLR has no latents) gets the empty value of the type.
HYPERPARAMETERS: Mapping[str, type] = {
    "representation": str, "encoder": str, "objective": str, "activation": str, "classifier": str, "sparsity": str,
    "temperature": float, "k": float, "penalty": float, "latents": float, "epochs": float, "batch_size": float, "seed": float,
}  # fmt: skip


def hyperparameters(experiment: Experiment) -> dict[str, str | float]:
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
    found["representation"] = top
    words = {name: type(value).__name__ if isinstance(value, Part) else value for name, value in found.items()}
    return {name: kind(words[name]) if words.get(name) is not None else kind() for name, kind in HYPERPARAMETERS.items()}
