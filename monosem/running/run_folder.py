"""A run folder: its files, written from finished experiments, tables and texts.

curves.csv, measures.csv, summary.md, config.gin, gallery.json, gallery.html and the figures. Each
is written whole or left as it is. TensorBoard's event files lie beside them, but only
tensorboard.py knows what is in them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from monosem.core.files import atomic_write, write_text
from monosem.core.store import Store
from monosem.evaluation.experiment import Experiment
from monosem.evaluation.gallery import gallery_encoders, gallery_files, write_experiment_gallery
from monosem.metrics.base import PerDimension, from_artifact, numbers_from_artifact
from monosem.results.correlation import CorrelationReport
from monosem.results.gallery_page import Encoder, read_gallery, write_gallery
from monosem.results.rows import Row, table_text
from monosem.results.summary import tables
from monosem.results.table import Table
from monosem.running.facts import describe_experiment, describe_representation

EVENTS = "events.out.tfevents.*"


# Tables


class Measure(NamedTuple):
    """One row of measures.csv.

    representation: what was measured.
    measure: the name of what a metric finds.
    dimension: None: the value is of the whole representation.
    dimensions: over how many of them a mean is taken; None for what is no mean.
    images: how many were looked at.
    """

    experiment: str
    representation: str
    measure: str
    dimension: int | None
    value: float
    dimensions: int | None
    images: int


def measures(experiment: Experiment, store: Store) -> list[Measure]:
    """What was measured of every representation, and of every dimension of it that counts."""
    rows = []
    for stage in experiment.monosemanticity:
        place = (experiment.name, describe_representation(stage.encoder))
        artifact = store.get(stage)
        results, numbers = from_artifact(artifact), numbers_from_artifact(artifact)
        images = len(stage.data.split("test").labels)
        for name, result in results.items():
            dimensions = int(result.valid.sum()) if isinstance(result, PerDimension) else None
            rows.append(Measure(*place, name, None, numbers[name], dimensions, images))
        for name, result in results.items():
            if not isinstance(result, PerDimension):
                continue
            for dimension in result.valid.nonzero().flatten().tolist():
                value = result.values[dimension].item()
                rows.append(Measure(*place, name, dimension, value, None, images))
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
    return [*figures, *write_experiment_gallery(experiment, store, folder)]


def write_table(folder: Path, rows: Sequence[Row], summary: str) -> list[Path]:
    """curves.csv, its figures and summary.md; the paths of the figures."""
    write_text(folder / "curves.csv", table_text(rows))
    figures = draw_curves(folder, Table(rows))
    write_text(folder / "summary.md", summary)
    return figures


def draw_curves(folder: Path, table: Table) -> list[Path]:
    """curves.png, a panel for each curve; of a sweep, each curve as a figure of its own too."""
    from monosem.results import figures

    panels: dict[str, list[str] | None] = {}
    if any(row.swept for row in table.rows):
        panels = {f"{curve}.png": [curve] for curve in table.axes}
    panels["curves.png"] = None  # all of them
    for name, curves in panels.items():
        with atomic_write(folder / name) as path:
            figures.draw_curves(table, path, curves)
    return [folder / name for name in panels]


def draw_claim(folder: Path, report: CorrelationReport, measure: str) -> list[Path]:
    """claim.png, if there are encoders enough; its path."""
    from monosem.results import figures

    if not report.panels:
        return []
    with atomic_write(folder / "claim.png") as path:
        figures.draw_claim(report.lines, report.panels, measure, path)
    return [folder / "claim.png"]


# Galleries


def write_joint_gallery(
    folder: Path, experiments: Sequence[tuple[str, Experiment]], store: Store
) -> None:
    """The gallery of several finished experiments, each with a name for people."""
    write_gallery(folder, gallery_encoders(experiments, store))


def joined_gallery(folders: Sequence[Path]) -> list[Encoder] | None:
    """The galleries of some folders, to compare representations side by side.

    None where one of the folders has none.
    Raises ValueError, with its name, where one is damaged.
    """
    encoders: list[Encoder] = []
    for folder in folders:
        try:
            encoders += read_gallery(folder / "gallery.json")
        except FileNotFoundError:
            return None
    return encoders


# Whether there is anything to write


def is_complete(folder: Path, experiment: Experiment, config: str | None, store: Store) -> bool:
    """Whether the folder of an experiment whose stages have all run needs no writing."""
    texts = {
        "curves.csv": table_text(experiment.rows(store.get)),
        "measures.csv": measures_text(experiment, store),
    }
    if config is not None:
        texts["config.gin"] = config
    others = [EVENTS, "curves.png", "summary.md", *gallery_files(experiment)]
    return holds(folder, texts, others)


def holds(folder: Path, texts: Mapping[str, str], patterns: Sequence[str] = ()) -> bool:
    """Whether a folder has just these texts, by name, and a file for each pattern."""
    try:
        unchanged = all((folder / name).read_text("utf-8") == text for name, text in texts.items())
    except (OSError, UnicodeDecodeError):
        return False
    return unchanged and all(any(folder.glob(pattern)) for pattern in patterns)
