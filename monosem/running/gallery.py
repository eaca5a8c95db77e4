"""From a finished experiment to its gallery: which dimensions are shown, by which examples, and the
figures beside it. What an example looks like is asked of its dataset: a picture or a text."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from monosem.core.files import atomic_write
from monosem.core.stage import Artifact
from monosem.core.store import Store
from monosem.data.dataset import Dataset
from monosem.evaluation.experiment import Experiment
from monosem.evaluation.monosemanticity import (
    both_ends,
    per_dimension_results,
    sorted_dimensions,
)
from monosem.evaluation.occlusion import Marks, marks_by_row
from monosem.figures.gallery_page import write_gallery
from monosem.metrics.base import PerDimension
from monosem.results.formatting import without_rounding_error

if TYPE_CHECKING:
    from monosem.figures.dimensions import FigureRow

SMALL = 32  # pixels a side: up to here PNG is the smaller file, and it is exact
COLUMNS = 40  # of a sprite, at most
WIDEST_TITLE = 30  # characters of a line beside the images of a dimension
OF_ANY_GALLERY = ("gallery.json", "gallery.html", "gallery.png", "histograms.png", "space.png")
NO_PICTURES = np.zeros((0, 1, 1, 3), dtype=np.uint8)


# The files of an experiment


def write_experiment_gallery(experiment: Experiment, store: Store, folder: Path) -> list[Path]:
    """Leave the files of `gallery_files` of an experiment that has run.

    Returns the paths of the figures among them.
    """
    if experiment.gallery is None or not experiment.shown:
        for file in OF_ANY_GALLERY:  # of another experiment of that name
            (folder / file).unlink(missing_ok=True)
        return []
    encoders = shown_encoders(experiment, store, experiment.name)
    most = experiment.gallery.dimensions
    write_gallery(folder, [gallery_encoder(encoder, most) for encoder in encoders])
    figures = []
    for encoder, name in zip(encoders, experiment.shown, strict=True):
        figures += draw_encoder(encoder, experiment.gallery.rows, folder, _suffix(name))
    return figures


def gallery_files(experiment: Experiment) -> list[str]:
    """The names of the files that `write_experiment_gallery` leaves."""
    if not experiment.shown:
        return []
    names = ["gallery.json", "gallery.html"]
    for name, (_, data) in experiment.shown.items():
        names += [f"{figure}{_suffix(name)}.png" for figure in figures_of(data)]
    return names


def _suffix(name: str) -> str:
    return f"-{name}" if name else ""


def gallery_encoders(
    experiments: Sequence[tuple[str, Experiment]], store: Store
) -> list[dict[str, Any]]:
    """What `results.gallery_page` draws of several finished experiments, each with a title."""
    encoders = []
    for title, experiment in experiments:
        if experiment.gallery is None:
            continue
        for shown in shown_encoders(experiment, store, title):
            encoders.append(gallery_encoder(shown, experiment.gallery.dimensions))
    return encoders


# What is shown


class ShownEncoder(NamedTuple):
    """One representation of an experiment, as the gallery shows it.

    name: for people.
    data: its test split is shown.
    dashboard: the artifact of its `FeatureDashboard`.
    results: what was measured dimension by dimension, by name.
    better: which end of a result is monosemantic, 'high' or 'low', where it says so.
    about: what each result is.
    sorted_by: the result that dimensions are sorted by; '' where none says which end is better.
    order: the live dimensions, the most monosemantic first; by activity where `sorted_by` is ''.
    marks: by dimension and test example, [start, end, share] of the parts of the example that
        matter to the dimension; nothing where examples have no parts.
    """

    name: str
    data: Dataset
    dashboard: Artifact
    results: dict[str, PerDimension]
    better: dict[str, str]
    about: dict[str, str]
    sorted_by: str
    order: list[int]
    marks: Marks

    def both_ends(self, count: int) -> dict[str, list[int]]:
        """At most `count` dimensions, half of them from either end, under a heading each."""
        most, least = both_ends(self.order, count)
        quality = "monosemantic" if self.sorted_by else "active"
        return {f"most {quality}": most, f"least {quality}": least}

    def value(self, name: str, dimension: int) -> float | None:
        """What was measured of one dimension; None where the metric says nothing of it."""
        result = self.results[name]
        return float(result.values[dimension]) if result.valid[dimension] else None

    def top_examples(self, dimension: int) -> list[tuple[int, float]]:
        """Test examples that activate a dimension most, and how much; without those that do not."""
        indices = self.dashboard["top"][:, dimension].tolist()
        activations = self.dashboard["activation"][:, dimension].tolist()
        pairs = zip(indices, activations, strict=True)
        return [(index, activation) for index, activation in pairs if activation != 0]


def shown_encoders(experiment: Experiment, store: Store, title: str) -> list[ShownEncoder]:
    """One for every representation of an experiment whose stages have all run."""
    encoders = []
    measured = experiment.monosemanticity or (None,) * len(experiment.dashboards)
    stages = zip(
        experiment.shown, measured, experiment.dashboards, experiment.occlusions, strict=True
    )
    for curve, monosemanticity, dashboard, occlusion in stages:
        results: dict[str, PerDimension] = {}
        better: dict[str, str] = {}
        sorted_by = ""
        if monosemanticity is not None:
            results = per_dimension_results(store.get(monosemanticity))
            better = monosemanticity.better
            sorted_by = experiment.sorted_by(monosemanticity)
        artifact = store.get(dashboard)
        shown = ShownEncoder(
            name=f"{title}, {curve}" if curve else title,
            data=dashboard.data,
            dashboard=artifact,
            results=results,
            better=better,
            about={} if monosemanticity is None else monosemanticity.about,
            sorted_by=sorted_by,
            order=sorted_dimensions(artifact["active"], results, better, sorted_by),
            marks=marks_by_row(store.get(occlusion)) if occlusion else {},
        )
        encoders.append(shown)
    return encoders


# The page


def gallery_encoder(shown: ShownEncoder, count: int) -> dict[str, Any]:
    """The dictionary that `results.gallery_page` draws, of at most `count` dimensions."""
    dimensions = [dimension for end in shown.both_ends(count).values() for dimension in end]
    top = [shown.top_examples(dimension) for dimension in dimensions]
    indices = sorted({index for pairs in top for index, _ in pairs})
    place = {index: position for position, index in enumerate(indices)}
    labels = shown.data.split("test").labels
    # The page sorts by the first one.
    names = sorted(shown.results, key=lambda name: name != shown.sorted_by)
    return {
        "name": shown.name,
        "split": "test",
        "examples_total": len(labels),
        "width": len(shown.dashboard["active"]),
        "classes": list(shown.data.class_names),
        "examples": [{"index": index, "label": int(labels[index])} for index in indices],
        **shown_examples(shown.data, indices),
        "metrics": [
            {"name": name, "about": shown.about[name], "better": shown.better.get(name, "")}
            for name in names
        ],
        "dimensions": [shown_dimension(shown, dimension, place) for dimension in dimensions],
    }


def shown_dimension(
    shown: ShownEncoder, dimension: int, place: Mapping[int, int]
) -> dict[str, Any]:
    """A row of the page. place: where an example of the split is among those that are shown."""
    top = shown.top_examples(dimension)
    row = {
        "dimension": dimension,
        "metrics": {name: shown.value(name, dimension) for name in shown.results},
        "top": [[place[index], activation] for index, activation in top],
        "active": float(shown.dashboard["active"][dimension]),
    }
    if shown.marks:
        row["marks"] = [shown.marks.get((dimension, index), []) for index, _ in top]
    return row


def shown_examples(data: Dataset, indices: Sequence[int]) -> dict[str, Any]:
    """Test examples as a page shows them: one sprite of all pictures, or a list of texts."""
    examples = data.show(indices)
    if isinstance(examples, Tensor):
        return {"sprite": sprite(examples.numpy())}
    return {"texts": examples}


def sprite(pictures: np.ndarray[Any, Any]) -> dict[str, Any]:
    """(k, side, side, 3) uint8 -> all of them in one picture, row by row, as a data: address."""
    columns, side = max(1, min(len(pictures), COLUMNS)), pictures.shape[1]
    rows = max(1, -(-len(pictures) // columns))
    cells = np.zeros((rows * columns, side, side, 3), dtype=np.uint8)
    cells[: len(pictures)] = pictures
    # (rows, columns, y, x, 3) -> (rows, y, columns, x, 3)
    sheet = cells.reshape(rows, columns, side, side, 3).transpose(0, 2, 1, 3, 4)
    kind, options = ("png", {"optimize": True}) if side <= SMALL else ("jpeg", {"quality": 85})
    buffer = io.BytesIO()
    Image.fromarray(sheet.reshape(rows * side, columns * side, 3)).save(buffer, kind, **options)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return {"side": side, "columns": columns, "src": f"data:image/{kind};base64,{encoded}"}


# The figures


def draw_encoder(shown: ShownEncoder, rows: int, folder: Path, suffix: str) -> list[Path]:
    """gallery.png (where examples are pictures), histograms.png and space.png; returns the paths.

    rows: dimensions from either end.
    suffix: of the files' names.
    """
    from monosem.figures.dimensions import draw_gallery, draw_histograms, draw_space

    by = f"dimensions by {shown.sorted_by.replace('_', ' ') or 'activity'}"
    rows_by_end = {
        heading: [_figure_row(shown, dimension) for dimension in dimensions]
        for heading, dimensions in shown.both_ends(2 * rows).items()
    }
    paths = {name: folder / f"{name}{suffix}.png" for name in figures_of(shown.data)}
    if "gallery" in paths:
        title = f"{shown.name}: the test {shown.data.noun} that activate a dimension most, {by}"
        with atomic_write(paths["gallery"]) as path:
            draw_gallery(rows_by_end, title, path)
    title = f"{shown.name}: values of a dimension, {by}"
    with atomic_write(paths["histograms"]) as path:
        draw_histograms(rows_by_end, shown.data.noun, title, path)
    with atomic_write(paths["space"]) as path:
        draw_space(
            shown.dashboard["class_map"][:, shown.dashboard["order"]].numpy(),
            shown.dashboard["correlation"].numpy(),
            shown.data.class_names,
            shown.name,
            path,
        )
    return list(paths.values())


def figures_of(data: Dataset) -> tuple[str, ...]:
    """The figures of a representation, without suffix and ending."""
    common = ("histograms", "space")
    return ("gallery", *common) if shows_pictures(data) else common


def shows_pictures(data: Dataset) -> bool:
    """Whether examples are shown as pictures; else as texts."""
    return isinstance(data.show([0]), Tensor)


def _figure_row(shown: ShownEncoder, dimension: int) -> FigureRow:
    """What the figures show of a dimension."""
    from monosem.figures.dimensions import FigureRow

    dashboard, names = shown.dashboard, shown.data.class_names
    labels = shown.data.split("test").labels
    top = shown.top_examples(dimension)
    pictures = shown.data.show([index for index, _ in top]) if shows_pictures(shown.data) else None
    return FigureRow(
        title="\n".join(_title_lines(shown, dimension)),
        images=pictures.numpy() if isinstance(pictures, Tensor) else NO_PICTURES,
        captions=[f"{names[labels[index]]}  {activation:.2g}" for index, activation in top],
        histogram=dashboard["histogram"][:, :, dimension].numpy(),
        low=float(dashboard["low"][dimension]),
        high=float(dashboard["high"][dimension]),
        best=names[int(dashboard["class_map"][:, dimension].argmax())],
    )


def _title_lines(shown: ShownEncoder, dimension: int) -> list[str]:
    lines = [f"dimension {dimension}"]
    if shown.sorted_by:
        value = shown.value(shown.sorted_by, dimension)
        if value is not None:
            text = f"{shown.sorted_by.replace('_', ' ')} {without_rounding_error(value):.3f}"
            lines += textwrap.wrap(text, WIDEST_TITLE)
    lines.append(f"active {100 * float(shown.dashboard['active'][dimension]):.2g} %")
    return lines
