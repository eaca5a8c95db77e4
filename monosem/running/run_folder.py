"""A run folder: its files, written from finished experiments, tables and texts.

curves.csv, measures.csv, summary.md, config.gin, gallery.html, and the figures. Each is written
whole or left as it is. TensorBoard's event files lie beside them, but only tensorboard.py knows
what is in them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from monosem.core.files import atomic_write, write_text
from monosem.core.store import Store
from monosem.evaluation.experiment import Experiment
from monosem.evaluation.gallery import draw_view, encoder, views
from monosem.results.correlation import CorrelationReport
from monosem.results.gallery_page import encoders_of, page
from monosem.results.rows import Row, Swept, table_text
from monosem.results.summary import tables
from monosem.results.table import Table
from monosem.running.facts import describe_experiment, describe_representation

EVENTS = "events.out.tfevents.*"
OF_AN_EXPERIMENT = (  # beside the texts
    EVENTS,
    "curves.png",
    "summary.md",
    "gallery.html",
    "gallery*.png",
    "histograms*.png",
    "space*.png",
)
MEASURES_HEADER = (
    "experiment",
    "representation",
    "measure",
    "dimension",
    "value",
    "dimensions",
    "images",
)


# Rows


def collect(experiment: Experiment, store: Store, swept: Swept = ()) -> list[Row]:
    """The table of an experiment whose stages have all run."""
    return [
        Row(
            experiment.name,
            stage.name,
            result.severity,
            result.repeat,
            result.metric,
            result.value,
            result.n,
            stage.axis,
            swept,
        )
        for stage in experiment.measurements
        for result in stage.results(store.get(stage))
    ]


def measures(experiment: Experiment, store: Store) -> str:
    """measures.csv: what was measured of every representation, and of every dimension of it.

    Where `dimension` is empty, the value is of the whole representation. Then `dimensions` says
    over how many a mean is taken, and is empty for what is no mean.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(MEASURES_HEADER)
    for stage in experiment.measures:
        place = (experiment.name, describe_representation(stage.encoder))
        artifact = store.get(stage)
        images = len(stage.data.split("test").labels)
        names = [name for name, value in artifact.items() if value.ndim == 0]
        for name in names:
            valid = artifact.get(f"{name}/valid")
            dimensions = "" if valid is None else int(valid.sum())
            writer.writerow([*place, name, "", artifact[name].item(), dimensions, images])
        for name in names:
            values = artifact.get(f"{name}/dimensions")
            if values is None:
                continue
            for dimension in artifact[f"{name}/valid"].nonzero().flatten().tolist():
                value = values[dimension].item()
                writer.writerow([*place, name, dimension, value, "", images])
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
    rows = collect(experiment, store)
    if config is not None:
        write_text(folder / "config.gin", config)
    figures = write_table(folder, rows, summarise(rows, describe_experiment(experiment, store)))
    write_text(folder / "measures.csv", measures(experiment, store))
    return [*figures, *write_gallery(folder, experiment, store)]


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


def write_gallery(folder: Path, experiment: Experiment, store: Store) -> list[Path]:
    """gallery.html, and three figures of each representation; the paths of the figures."""
    shown = views(experiment, store, experiment.name)
    figures: list[Path] = []
    for view, name in zip(shown, experiment.probed, strict=True):
        figures += draw_view(view, experiment.gallery.rows, folder, f"-{name}" if name else "")
    encoders = [encoder(view, experiment.gallery.dimensions) for view in shown]
    write_text(folder / "gallery.html", page(encoders))
    return figures


def write_joint_gallery(
    folder: Path, experiments: Sequence[tuple[str, Experiment]], store: Store
) -> None:
    """One gallery.html of several finished experiments, each with a name for people."""
    encoders = []
    for name, experiment in experiments:
        for view in views(experiment, store, name):
            encoders.append(encoder(view, experiment.gallery.dimensions))
    write_text(folder / "gallery.html", page(encoders))


def joined_page(folders: Sequence[Path]) -> str | None:
    """One gallery.html of those in some folders, to compare representations side by side.

    None where one of the folders has none.
    Raises ValueError, with its name, where one is damaged.
    """
    encoders = []
    for folder in folders:
        path = folder / "gallery.html"
        try:
            encoders += encoders_of(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise ValueError(f"{path}: {error}") from None
    return page(encoders)


# Whether there is anything to write


def is_complete(folder: Path, experiment: Experiment, config: str | None, store: Store) -> bool:
    """Whether the folder of an experiment whose stages have all run needs no writing."""
    texts = {
        "curves.csv": table_text(collect(experiment, store)),
        "measures.csv": measures(experiment, store),
    }
    if config is not None:
        texts["config.gin"] = config
    return holds(folder, texts, OF_AN_EXPERIMENT)


def holds(folder: Path, texts: Mapping[str, str], patterns: Sequence[str] = ()) -> bool:
    """Whether a folder has just these texts, by name, and a file for each pattern."""
    try:
        unchanged = all((folder / name).read_text("utf-8") == text for name, text in texts.items())
    except (OSError, UnicodeDecodeError):
        return False
    return unchanged and all(any(folder.glob(pattern)) for pattern in patterns)
