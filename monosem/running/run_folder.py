"""A run folder: its files, written from finished experiments, tables and texts.

curves.csv, measures.csv, summary.md, config.gin, gallery.json, gallery.html, index.html and the
figures. Each is written whole or left as it is. TensorBoard's event files lie beside them, but only
tensorboard.py knows what is in them, and provenance.json, of which core/run_record.py knows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from monosem.axes.gains import AxisReport
from monosem.core.fields import Part
from monosem.core.files import atomic_write, write_text
from monosem.core.provenance import describe
from monosem.core.stage import Stage, closure
from monosem.core.store import Store
from monosem.data.counts import describe_splits
from monosem.data.dataset import Dataset
from monosem.evaluation.experiment import Experiment
from monosem.figures.gallery_page import ShownEncoderData, read_gallery, write_gallery
from monosem.metrics.base import PerDimension, from_artifact, numbers_from_artifact
from monosem.models.features import Features
from monosem.models.pretrain import Pretrain
from monosem.models.representation import Representation
from monosem.models.training import Training
from monosem.reports.page import PAGE, write_page
from monosem.results.correlation import CorrelationReport
from monosem.results.rows import MONOSEMANTICITY, Row, named_curves, table_text
from monosem.results.summary import tables
from monosem.results.table import Table
from monosem.robustness.measurement import Measurement, Panel
from monosem.running.gallery import gallery_encoders, gallery_files, write_experiment_gallery

EVENTS = "events.out.tfevents.*"
ALL_CURVES = "curves.png"
SMOOTHING = "it smooths curves unless Smoothing is set to 0, which misleads on a few points"


# What was done, for the reader of summary.md


def describe_experiment(experiment: Experiment, store: Store) -> str:
    """A Markdown list of what was trained and probed, how, and what it took."""
    stages = closure(experiment.stages)
    lines = [*_probed(experiment), *_probes(experiment)]
    for data in experiment.datasets:
        lines += describe_splits(data)
    for stage in stages:
        lines += _training(stage)
        lines += _encoder_passes(stage, store)
        if isinstance(stage, Measurement):
            lines += [f"{stage.name}: {remark}" for remark in stage.remarks(store.get(stage))]
    lines += _hardware(stages, store)
    return "\n".join(f"- {line}" for line in lines)


def describe_representation(part: Part) -> str:
    """What is measured and what it stands on: Embedding of Pretrain."""
    name = type(part).__name__
    upstream = getattr(part, "encoder", None) or getattr(part, "model", None)
    if not isinstance(upstream, Part):
        return name
    return f"{name} of {describe_representation(upstream)}"


def _probed(experiment: Experiment) -> list[str]:
    subjects = dict.fromkeys(curve.subject for curve in experiment.curves)
    return [f"probed: {describe_representation(subject)}" for subject in subjects]


def _probes(experiment: Experiment) -> list[str]:
    curves = [curve for curve in experiment.curves if hasattr(curve, "probe")]
    probes = dict.fromkeys(curve.probe for curve in curves)
    return [f"probe: {probe}" for probe in probes]


def _training(stage: Stage) -> Iterator[str]:
    """The settings of a training, in a list of their own."""
    if not isinstance(stage, Training):
        return
    lines = [type(stage).__name__]
    for field in fields(stage):
        value = getattr(stage, field.name)
        if not isinstance(value, Representation):
            lines.append(f"{field.name}: {value}")
    yield "\n  - ".join(lines)
    if isinstance(stage, Pretrain):
        yield f"online classifier: {_online_classifier(stage)}"


def _online_classifier(stage: Pretrain) -> str:
    if stage.classifier is None:
        return "absent"
    if stage.classifier.joint:
        return "joint, so clean labels train the encoder too"
    return "detached, it only watches"


def _encoder_passes(stage: Stage, store: Store) -> Iterator[str]:
    """How many inputs went through an encoder for a stage, where the stage logged it."""
    history = store.history(stage)
    if not history or "encoder_passes" not in history[-1].scalars:
        return
    purpose = describe_representation(stage)
    if isinstance(stage, Panel):
        purpose = f"curve {stage.name}"
    if isinstance(stage, Features):
        purpose += f", {stage.split} split"
    passes = history[-1].scalars["encoder_passes"]
    yield f"encoder passes for {purpose}: {passes:.0f} {_noun(stage)}"


def _noun(stage: Stage) -> str:
    """What its inputs are, in the plural."""
    data = getattr(stage, "data", None)
    return data.noun if isinstance(data, Dataset) else "inputs"


def _hardware(stages: list[Stage], store: Store) -> list[str]:
    """By which code, with what and on what: a line for all stages that were made alike."""
    lines = [f"computed by {describe(store.provenance(stage))}" for stage in stages]
    return list(dict.fromkeys(lines))


# Tables


class Measure(NamedTuple):
    """One row of measures.csv.

    representation: what was measured.
    measure: the name of what a metric finds.
    dimension: None: the value is of the whole representation.
    dimensions: over how many of them a mean is taken; None for what is no mean.
    n: how many test examples were looked at.
    """

    experiment: str
    representation: str
    measure: str
    dimension: int | None
    value: float
    dimensions: int | None
    n: int


def measures(experiment: Experiment, store: Store) -> list[Measure]:
    """What was measured of every representation, and of every dimension of it that counts."""
    rows = []
    for stage in experiment.monosemanticity:
        place = (experiment.name, describe_representation(stage.encoder))
        artifact = store.get(stage)
        results, numbers = from_artifact(artifact), numbers_from_artifact(artifact)
        n = len(stage.data.split("test").labels)
        for name, result in results.items():
            dimensions = int(result.valid.sum()) if isinstance(result, PerDimension) else None
            rows.append(Measure(*place, name, None, numbers[name], dimensions, n))
        for name, result in results.items():
            if not isinstance(result, PerDimension):
                continue
            for dimension in result.valid.nonzero().flatten().tolist():
                value = result.values[dimension].item()
                rows.append(Measure(*place, name, dimension, value, None, n))
    return rows


def measures_text(experiment: Experiment, store: Store) -> str:
    """measures.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Measure._fields)
    writer.writerows(measures(experiment, store))  # None is written as nothing
    return text.getvalue()


def summarise(rows: Sequence[Row], notes: str = "") -> str:
    """summary.md: the experiments' names, notes, and a table for each curve."""
    table = Table(rows)
    lines = ", ".join(line.label for line in table.lines)
    return f"# {lines}\n\n{notes}\n\n{tables(table)}"


# Writing


def write(folder: Path, experiment: Experiment, config: str | None, store: Store) -> list[Path]:
    """Everything of an experiment whose stages have all run; the paths of its figures.

    config: the Gin text that makes the experiment; None where it was made in Python.
    """
    rows = experiment.rows(store.get)
    if config is None:
        (folder / "config.gin").unlink(missing_ok=True)  # of another experiment of that name
    else:
        write_text(folder / "config.gin", config)
    figures = write_table(folder, rows, summarise(rows, describe_experiment(experiment, store)))
    write_text(folder / "measures.csv", measures_text(experiment, store))
    figures += write_experiment_gallery(experiment, store, folder)
    write_page(folder)
    return figures


def write_table(folder: Path, rows: Sequence[Row], summary: str) -> list[Path]:
    """curves.csv, its figures and summary.md; the paths of the figures."""
    write_text(folder / "curves.csv", table_text(rows))
    figures = draw_figures(folder, Table(rows))
    write_text(folder / "summary.md", summary)
    return figures


def draw_figures(folder: Path, table: Table) -> list[Path]:
    """The figures of `figure_names`, in their order."""
    from monosem.figures.bars import draw_bars
    from monosem.figures.curves import draw_curves

    names = figure_names(table.rows)
    for name, curve in names.items():
        with atomic_write(folder / name) as path:
            if curve in table.named:
                draw_bars(table, curve, path)
            else:
                draw_curves(table, path, [curve] if curve else None)
    if ALL_CURVES not in names:
        (folder / ALL_CURVES).unlink(missing_ok=True)  # of another experiment of that name
    return [folder / name for name in names]


def figure_names(rows: Sequence[Row]) -> dict[str, str]:
    """The files of the figures of a table, each with the curve that it is of.

    A curve whose points have names has bars of its own. The others share curves.png, of curve '',
    a panel for each; of a sweep, each is a figure of its own too.
    """
    curves = dict.fromkeys(row.curve for row in rows if not row.curve.startswith(MONOSEMANTICITY))
    named = named_curves(rows)
    alone = curves if any(row.swept for row in rows) else named
    names = {f"{curve}.png": curve for curve in curves if curve in alone}
    if len(named) < len(curves):
        names[ALL_CURVES] = ""
    return names


def draw_claim(folder: Path, report: CorrelationReport, measure: str) -> list[Path]:
    """claim.png, if there are encoders enough; its path."""
    from monosem.figures import curves as figures

    if not report.panels:
        return []
    with atomic_write(folder / "claim.png") as path:
        figures.draw_claim(report.lines, report.panels, measure, path)
    return [folder / "claim.png"]


def write_axis_gains(folder: Path, report: AxisReport) -> list[Path]:
    """axis_gains.csv, the figures of axis gains, and their paths."""
    from monosem.figures import axis_curves
    from monosem.figures import axis_gains as figures

    write_text(folder / "axis_gains.csv", report.csv_text())
    drawn = []
    if report.gains:
        with atomic_write(folder / "axis_gains.png") as path:
            figures.draw_gains(report.gains, path)
        drawn.append(folder / "axis_gains.png")
    if report.parts:
        with atomic_write(folder / "decomposition.png") as path:
            figures.draw_decomposition(report.parts, path)
        drawn.append(folder / "decomposition.png")
    if report.lines:
        with atomic_write(folder / "axis_curves.png") as path:
            axis_curves.draw_curves(report.lines, path)
        drawn.append(folder / "axis_curves.png")
    return drawn


# Galleries


def write_joint_gallery(
    folder: Path, experiments: Sequence[tuple[str, Experiment]], store: Store
) -> None:
    """The gallery of several finished experiments, each with a name for people.

    Nothing is written where they are about no representation.
    """
    if encoders := gallery_encoders(experiments, store):
        write_gallery(folder, encoders)


def joined_gallery(folders: Sequence[Path]) -> list[ShownEncoderData] | None:
    """The galleries of some folders, to compare representations side by side.

    None where one of the folders has none.
    Raises ValueError, with its name, where one is damaged.
    """
    encoders: list[ShownEncoderData] = []
    for folder in folders:
        try:
            encoders += read_gallery(folder / "gallery.json")
        except FileNotFoundError:
            return None
    return encoders


# Whether there is anything to write


def is_complete(folder: Path, experiment: Experiment, config: str | None, store: Store) -> bool:
    """Whether the folder of an experiment whose stages have all run needs no writing."""
    rows = experiment.rows(store.get)
    texts = {
        "curves.csv": table_text(rows),
        "measures.csv": measures_text(experiment, store),
    }
    if config is not None:
        texts["config.gin"] = config
    others = [EVENTS, *figure_names(rows), "summary.md", PAGE, *gallery_files(experiment)]
    return holds(folder, texts, others)


def holds(folder: Path, texts: Mapping[str, str], patterns: Sequence[str] = ()) -> bool:
    """Whether a folder has just these texts, by name, and a file for each pattern."""
    try:
        unchanged = all((folder / name).read_text("utf-8") == text for name, text in texts.items())
    except (OSError, UnicodeDecodeError):
        return False
    return unchanged and all(any(folder.glob(pattern)) for pattern in patterns)
