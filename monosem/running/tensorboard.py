"""TODO."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from matplotlib.image import imread
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from monosem.core.fields import Part
from monosem.core.stage import Stage, closure, key
from monosem.core.store import Callback, LogEntry, Store
from monosem.evaluation.curves import SeverityCurve
from monosem.evaluation.experiment import Experiment
from monosem.models.features import Features
from monosem.models.training import Learning
from monosem.results.rows import MONOSEMANTICITY, Row, Swept
from monosem.results.stats import estimate
from monosem.results.table import Table
from monosem.specs.cells import Cell


def slug(stage: Stage) -> str:
    """A stage as a word of a TensorBoard tag: label_noise, train_split, sparse_autoencoder."""
    if isinstance(stage, SeverityCurve):
        return stage.name
    if isinstance(stage, Features):
        return f"{stage.split}_split"
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", type(stage).__name__).lower()


class LiveTensorBoard(Callback):
    """For a sweep: every training live in TensorBoard, under the first of the cells that need it."""

    def __init__(self, folder: Path, cells: Sequence[Cell], store: Store):
        self.folder, self.store = folder, store
        self.owners: dict[str, Cell] = {}
        for cell in cells:
            for stage in closure(cell.experiment.stages):
                self.owners.setdefault(key(stage), cell)
        self.open: dict[str, TensorBoardWriter] = {}

    def on_start(self, stage: Stage) -> None:
        if isinstance(stage, Learning):
            cell = self.owners[key(stage)]
            stages = closure(cell.experiment.stages)
            (self.folder / cell.name / "config.gin").unlink(
                missing_ok=True
            )  # the folder is not whole any more
            board = self.open[key(stage)] = TensorBoardWriter(self.folder / cell.name, stages)
            board.replay(self.store, stages)
            board.on_start(stage)

    def on_log(self, stage: Stage, entry: LogEntry) -> None:
        if key(stage) in self.open:
            self.open[key(stage)].on_log(stage, entry)
            self.open[key(stage)].writer.flush()

    def on_end(self, stage: Stage) -> None:
        if key(stage) in self.open:
            self.open.pop(key(stage)).close()

    def close(self) -> None:
        for board in self.open.values():
            board.close()


class TensorBoardWriter(Callback):
    """One event file a run: what its stages logged, live or from the store, then the curves, the figure and the hparams.

    A run that is done again replaces its event file; `purge_step` tells a TensorBoard that has the old one open.
    """

    def __init__(self, folder: Path, stages: Sequence[Stage]):
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self.writer = SummaryWriter(str(folder), purge_step=0)
        self.told: set[str] = set()
        self.words: dict[str, str] = {}
        for (
            stage
        ) in stages:  # the same in every run, so that TensorBoard lays runs over one another
            word = slug(stage)
            taken = sum(other.rsplit("~")[0] == word for other in self.words.values())
            self.words[key(stage)] = f"{word}~{taken + 1}" if taken else word

    def on_start(self, stage: Stage) -> None:
        self.told.add(key(stage))

    def on_log(self, stage: Stage, entry: LogEntry) -> None:
        word = self.words[key(stage)]
        for name, value in entry.scalars.items():
            tag = (
                f"{word}/{name}" if isinstance(stage, Learning) else f"{name}/{word}"
            )  # a section a training, or a section a measure
            self.writer.add_scalar(tag, value, entry.step)

    def replay(self, store: Store, stages: Sequence[Stage]) -> None:
        """Tell what finished stages logged when they ran, in another run or another process; each is told once."""
        for stage in stages:
            if key(stage) in self.told or not store.has(stage):
                continue
            self.on_start(stage)
            for entry in store.history(stage):
                self.on_log(stage, entry)

    def report(self, experiment: Experiment, rows: Sequence[Row], swept: Swept = ()) -> None:
        """Curves as series whose step is the severity in thousandths; hyperparameters with what came of them."""
        table = Table(rows)
        (line,) = table.lines
        outcomes = {
            f"{MONOSEMANTICITY}/{row.metric}": row.value
            for row in rows
            if row.curve == MONOSEMANTICITY
        }
        for curve in table.axes:
            for metric in dict.fromkeys(row.metric for row in rows if row.curve == curve):
                means = {
                    severity: estimate(sample).mean
                    for severity, sample in table.samples(line, curve, metric).items()
                }
                for severity, mean in means.items():
                    self.writer.add_scalar(
                        f"accuracy_{metric}/{curve}", mean, round(1000 * severity)
                    )
                outcomes[f"mean_{metric}/{curve}"] = sum(means.values()) / len(means)
        for name, value in outcomes.items():
            self.writer.add_scalar(name, value, 0)
        for summary in hparams(
            hyperparameters(experiment, swept), outcomes
        ):  # add_hparams would make a sub-run of its own
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
    found |= {
        "representation": top,
        "experiment": experiment.name,
        "swept": ", ".join(f"{name} = {value}" for name, value in swept),
    }
    words = {
        name: type(value).__name__ if isinstance(value, Part) else value
        for name, value in found.items()
    }
    return {
        name: kind(words[name]) if words.get(name) is not None else kind()
        for name, kind in HYPERPARAMETERS.items()
    }
