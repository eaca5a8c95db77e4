"""Event files for TensorBoard: the only place that knows it.

The writers are callbacks: they hear of stages, live or from the store, and are told what to draw.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.image import imread
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from monosem.core.fields import Part
from monosem.core.stage import Stage, key
from monosem.core.store import Callback, LogEntry, Store
from monosem.evaluation.experiment import Experiment
from monosem.metrics.firing import DENSITIES, LOG10_EDGES
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.features import Features
from monosem.models.training import Learning
from monosem.results.rows import MONOSEMANTICITY, Row, Swept
from monosem.results.stats import areas, estimate
from monosem.results.table import Table
from monosem.robustness.measurement import Panel

ACCURACIES = ("top1", "top5", "precision_at_10")
SEVERITY_STEPS = 1000  # TensorBoard's steps are whole: a severity is told in thousandths

# One fixed set, each of one type: TensorBoard's HParams tab takes its columns from the first run
# that it reads. An experiment without such a thing (SimCLR has no latents) gets the empty value of
# the type.
HYPERPARAMETERS: Mapping[str, type] = {
    "experiment": str,
    "swept": str,
    "representation": str,
    "encoder": str,
    "objective": str,
    "activation": str,
    "classifier": str,
    "sparsity": str,
    "temperature": float,
    "k": float,
    "penalty": float,
    "latents": float,
    "epochs": float,
    "batch_size": float,
    "seed": float,
}


class TensorBoardWriter(Callback):
    """One event file a run: what its stages logged, then curves, figures and hyperparameters.

    A run that is done again replaces its event file; `purge_step` tells a TensorBoard that has the
    old one open.

    folder: of the run.
    stages: that may log. Their tags depend on nothing else, so that TensorBoard lays runs over
        one another.
    """

    def __init__(self, folder: Path, stages: Sequence[Stage]):
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self.writer = SummaryWriter(str(folder), purge_step=0)
        self.tags = _tags(stages)
        self.written: set[str] = set()  # keys of the stages whose history is in the file

    def on_start(self, stage: Stage) -> None:
        self.written.add(key(stage))

    def on_log(self, stage: Stage, entry: LogEntry) -> None:
        tag = self.tags[key(stage)]
        for name, value in entry.scalars.items():
            # A section for each training; of all else, a section for each scalar.
            full_tag = f"{tag}/{name}" if isinstance(stage, Learning) else f"{name}/{tag}"
            self.writer.add_scalar(full_tag, value, entry.step)
        if isinstance(stage, SparseAutoencoder) and entry.scalars.keys() >= set(DENSITIES):
            counts = [stage.width * entry.scalars[name] for name in DENSITIES]
            full_tag = f"{tag}/log10_of_firing_rate"
            self.writer.add_histogram_raw(
                full_tag, **histogram(counts, LOG10_EDGES), global_step=entry.step
            )

    def replay(self, store: Store, stages: Sequence[Stage]) -> None:
        """Write what finished stages logged in another run or process; each once."""
        for stage in stages:
            if key(stage) in self.written or not store.has(stage):
                continue
            self.on_start(stage)
            for entry in store.history(stage):
                self.on_log(stage, entry)

    def report(self, experiment: Experiment, rows: Sequence[Row], swept: Swept = ()) -> None:
        """Curves as series over the severity, and hyperparameters with what came of them."""
        table = Table(rows)
        outcomes = {
            f"{MONOSEMANTICITY}/{row.metric}": row.value
            for row in rows
            if row.curve == MONOSEMANTICITY
        }
        for curve in table.axes:
            outcomes |= self._write_curve(table, curve)
        for name, value in outcomes.items():
            self.writer.add_scalar(name, value, 0)
        # SummaryWriter.add_hparams would make a sub-run of its own.
        for summary in hparams(hyperparameters(experiment, swept), outcomes):
            self.writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]

    def _write_curve(self, table: Table, curve: str) -> dict[str, float]:
        """The means over a curve's severities, or over its named points but the clean, by metric.

        A named point is a series of its own, over the severities that it has.
        """
        (line,) = table.lines
        outcomes = {}
        metrics = dict.fromkeys(row.metric for row in table.rows if row.curve == curve)
        for metric in metrics:
            samples = table.at_places(line, curve, metric)
            means = {place: estimate(sample).mean for place, sample in samples.items()}
            tag = f"accuracy_{metric}" if metric in ACCURACIES else metric
            for (name, severity), mean in means.items():
                full_tag = f"{tag}/{curve}/{name}" if name else f"{tag}/{curve}"
                self.writer.add_scalar(full_tag, mean, round(SEVERITY_STEPS * severity))
            outcome = sum(means.values()) / len(means)
            if curve in table.named:
                outcome = estimate(areas(table.samples(line, curve, metric))).mean
            outcomes[f"mean_{metric}/{curve}"] = outcome
        return outcomes

    def picture(self, path: Path) -> None:
        self.writer.add_image(path.stem, imread(path)[..., :3], 0, dataformats="HWC")

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class LiveTensorBoard(Callback):
    """Every training of a sweep, live: in the event file of the first run that needs it.

    runs: the folder of each run and the stages that it needs, upstream first.
    store: knows what the other stages of the run logged.
    """

    def __init__(self, runs: Mapping[Path, Sequence[Stage]], store: Store):
        self.runs, self.store = runs, store
        self.owners: dict[str, Path] = {}
        for folder, stages in runs.items():
            for stage in stages:
                self.owners.setdefault(key(stage), folder)
        self.open: dict[str, TensorBoardWriter] = {}

    def on_start(self, stage: Stage) -> None:
        if not isinstance(stage, Learning):
            return
        folder = self.owners[key(stage)]
        stages = self.runs[folder]
        writer = self.open[key(stage)] = TensorBoardWriter(folder, stages)
        writer.replay(self.store, stages)
        writer.on_start(stage)

    def on_log(self, stage: Stage, entry: LogEntry) -> None:
        if key(stage) in self.open:
            self.open[key(stage)].on_log(stage, entry)
            self.open[key(stage)].flush()

    def on_end(self, stage: Stage) -> None:
        if key(stage) in self.open:
            self.open.pop(key(stage)).close()

    def close(self) -> None:
        for writer in self.open.values():
            writer.close()


def histogram(counts: Sequence[float], edges: Sequence[float]) -> dict[str, Any]:
    """What SummaryWriter.add_histogram_raw asks for.

    TensorBoard draws from the least to the largest value; of values that are known by their bins
    alone, these are the outer edges of the bins that hold some, and sums are over the middles.

    counts: (bins,) of the values, not all 0. edges: (bins + 1,), ascending.
    """
    intervals = list(pairwise(edges))
    held = [interval for count, interval in zip(counts, intervals, strict=True) if count > 0]
    middles = [
        (count, (low + high) / 2) for count, (low, high) in zip(counts, intervals, strict=True)
    ]
    return {
        "min": held[0][0],
        "max": held[-1][1],
        "num": sum(counts),
        "sum": sum(count * middle for count, middle in middles),
        "sum_squares": sum(count * middle**2 for count, middle in middles),
        "bucket_limits": list(edges[1:]),
        "bucket_counts": list(counts),
    }


def hyperparameters(experiment: Experiment, swept: Swept = ()) -> dict[str, str | float]:
    """What the first curve is about as the columns of the HParams tab."""
    representation = experiment.curves[0].subject
    values = _nested_fields(representation)
    values["representation"] = representation
    values["experiment"] = experiment.name
    values["swept"] = ", ".join(f"{name} = {value}" for name, value in swept)
    return {name: _as_column(values.get(name), kind) for name, kind in HYPERPARAMETERS.items()}


def _nested_fields(part: Part) -> dict[str, object]:
    """The fields of a part and of all parts inside it; where names repeat, the innermost counts."""
    values: dict[str, object] = {field.name: getattr(part, field.name) for field in fields(part)}
    for value in list(values.values()):
        if isinstance(value, Part):
            values |= _nested_fields(value)
    return values


def _as_column(value: object, kind: type) -> str | float:
    if value is None or (isinstance(value, Part) and kind is not str):  # as latents = @Times()
        return kind()
    return kind(type(value).__name__ if isinstance(value, Part) else value)


def _tags(stages: Sequence[Stage]) -> dict[str, str]:
    """A tag for each stage by key; of stages with one name, the later ones have a number."""
    tags: dict[str, str] = {}
    uses: dict[str, int] = {}
    for stage in stages:
        name = _tag_name(stage)
        uses[name] = uses.get(name, 0) + 1
        tags[key(stage)] = name if uses[name] == 1 else f"{name}~{uses[name]}"
    return tags


def _tag_name(stage: Stage) -> str:
    """A stage as a part of a tag: label_noise, train_split, sparse_autoencoder."""
    if isinstance(stage, Panel):
        return stage.name
    if isinstance(stage, Features):
        return f"{stage.split}_split"
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", type(stage).__name__).lower()
