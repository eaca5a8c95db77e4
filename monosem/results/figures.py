"""Every figure: of tables, of correlations, of dimensions and their images, of the space.

The only place that draws, and that imports matplotlib to do so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.colors import to_rgb

from monosem.results.correlation import NOTHING, ScatterPanel
from monosem.results.formatting import metric_label
from monosem.results.rows import Line
from monosem.results.stats import Array, estimate, is_logarithmic
from monosem.results.summary import common_metric_label, sample_sizes
from monosem.results.table import Table

matplotlib.use("Agg")

Color = tuple[float, ...]

MARKERS = "osD^vP*X"
MANY_LINES = 5  # more have a legend beside the panels and paler intervals
COLORS = 10  # of matplotlib's cycle


def _line_color(lines: Sequence[Line], line: Line) -> Color:
    """A colour for each line; where there are more lines than colours, one for each experiment, its
    lines paler and paler."""
    if len(lines) <= COLORS:
        return to_rgb(f"C{lines.index(line)}")
    experiments = list(dict.fromkeys(other.experiment for other in lines))
    siblings = [other for other in lines if other.experiment == line.experiment]
    paler = 0.7 * siblings.index(line) / len(siblings)
    color = to_rgb(f"C{experiments.index(line.experiment)}")
    return tuple(paler + (1 - paler) * part for part in color)


def _open_frame(panel: Any) -> None:
    """Hide the top and the right side of the frame."""
    panel.spines[["top", "right"]].set_visible(False)


def _save(figure: Any, title: str, path: Path) -> None:
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


# Curves


def draw_curves(table: Table, path: Path, curves: Sequence[str] | None = None) -> None:
    """A panel for each curve, in it a line for each line of the table.

    Means and their 95 % intervals over seeds and repeats.

    curves: those that are drawn, by default all.
    """
    shown = list(curves or table.axes)
    many = len(table.lines) > MANY_LINES
    width = 3.6 * len(shown) if len(shown) > 1 else 5.0
    figure, grid = pyplot.subplots(
        1,
        len(shown),
        figsize=(width + 2.2 * many, 3.4 + 0.8 * many),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    panels = grid[0]
    drawn = common_metric_label(table, shown)
    for panel, curve in zip(panels, shown, strict=True):
        _draw_curve(panel, table, curve, interval_alpha=0.1 if many else 0.2)
        title = curve.replace("_", " ")
        if drawn == "value":
            title += f" ({metric_label(table.metrics[curve])})"
        panel.set_title(title)
    _limit_to_percent(panels[0])
    panels[0].set_ylabel(f"{drawn} (%)")
    _add_legend(panels, beside=many)
    _save(figure, _curves_title(table), path)


def _draw_curve(panel: Any, table: Table, curve: str, interval_alpha: float) -> None:
    for position, line in enumerate(table.lines):
        samples = table.samples(line, curve)
        if not samples:
            continue
        points = [estimate(sample) for sample in samples.values()]
        severities = list(samples)
        means = np.array([point.mean for point in points])
        halves = np.array([0 if math.isnan(point.half) else point.half for point in points])
        color = _line_color(table.lines, line)
        marker = MARKERS[position % len(MARKERS)]
        panel.plot(severities, means, color=color, marker=marker, markersize=4, label=line.label)
        panel.fill_between(
            severities,
            means - halves,
            means + halves,
            color=color,
            alpha=interval_alpha,
            linewidth=0,
        )
        if is_logarithmic(severities):
            _set_logarithmic(panel, severities)
    panel.set_xlabel(table.axes[curve].replace(" (", "\n("))
    panel.grid(alpha=0.3)
    _open_frame(panel)


def _set_logarithmic(panel: Any, severities: Sequence[float]) -> None:
    """With a tick at each severity, in its own digits."""
    panel.set_xscale("log")
    panel.set_xticks(severities, [f"{severity:g}" for severity in severities], minor=False)
    panel.minorticks_off()


def _limit_to_percent(panel: Any) -> None:
    """An interval of few seeds may be wider than what there is."""
    bottom, top = panel.get_ylim()
    panel.set_ylim(max(bottom, -2), min(top, 102))


def _add_legend(panels: Sequence[Any], beside: bool) -> None:
    if beside:
        panels[-1].legend(
            frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small"
        )
    else:
        panels[0].legend(frameon=False, loc="best")


def _curves_title(table: Table) -> str:
    seeds, repeats = sample_sizes(table)
    sizes = []
    if seeds != "1":
        sizes.append(f"{seeds} seeds")
    if repeats != "1":
        sizes.append(f"{repeats} draws")
    return f"Mean and 95 % interval over {' x '.join(sizes)}" if sizes else "Single draws"


# Correlation


def draw_claim(
    lines: Sequence[Line], rows: Sequence[Sequence[ScatterPanel]], metric: str, path: Path
) -> None:
    """Robustness against a metric of monosemanticity, a point for each encoder.

    lines: of each encoder, (n,).
    rows: of panels, one for each curve; a panel for each thing that is held equal.
    """
    figure, grid = pyplot.subplots(
        len(rows),
        len(rows[0]),
        figsize=(3.1 * len(rows[0]) + 2.4, 2.9 * len(rows) + 0.4),
        squeeze=False,
        layout="constrained",
    )
    for panels, scatters in zip(grid, rows, strict=True):
        for panel, scatter in zip(panels, scatters, strict=True):
            _draw_points(panel, lines, scatter)
            _label_scatter(panel, scatter, metric)
    grid[0][-1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize="x-small")
    title = "Rank correlation (95 % bootstrap interval) of robustness with monosemanticity"
    _save(figure, title, path)


def _draw_points(panel: Any, lines: Sequence[Line], scatter: ScatterPanel) -> None:
    """A colour for each line, a marker for each experiment."""
    different = list(dict.fromkeys(lines))
    experiments = list(dict.fromkeys(line.experiment for line in different))
    for line in different:
        encoders = [index for index, other in enumerate(lines) if other == line]
        panel.scatter(
            scatter.x[encoders],
            scatter.y[encoders],
            color=_line_color(different, line),
            marker=MARKERS[experiments.index(line.experiment) % len(MARKERS)],
            s=18,
            label=line.label,
        )


def _label_scatter(panel: Any, scatter: ScatterPanel, metric: str) -> None:
    title, x_unit, y_unit = f"{scatter.correlation}", "", " (%)"
    if scatter.held != NOTHING:
        title = f"{scatter.held} held equal\n{title}"
        x_unit = y_unit = " (rank, what is left)"
    panel.set_title(title, fontsize=8)
    panel.set_xlabel(f"{metric.replace('_', ' ')}{x_unit}", fontsize=7)
    panel.set_ylabel(f"area under {scatter.curve.replace('_', ' ')}{y_unit}", fontsize=7)
    panel.tick_params(labelsize=6)
    panel.grid(alpha=0.3)
    _open_frame(panel)


# Dimensions


class FigureRow(NamedTuple):
    """A dimension and what activates it.

    title: lines beside its images.
    images: (k, side, side, 3) uint8.
    captions: k, one under each image.
    histogram: (2, bins), how often it takes which value: on images of the class `best`, and on
        others.
    low: the value at the left end of the histogram.
    high: the value at its right end.
    best: the class that it answers to most.
    """

    title: str
    images: Array
    captions: Sequence[str]
    histogram: Array
    low: float
    high: float
    best: str


# A contact sheet is drawn in units of one image, from left to right and downwards.
PITCH = 1.08  # from image to image
GAP = 0.42  # under an image, for its caption
TEXT_WIDTH = 4  # left of the images
HEADING_HEIGHT = 0.7
INCHES = 0.62  # of an image


def draw_gallery(groups: Mapping[str, Sequence[FigureRow]], title: str, path: Path) -> None:
    """A contact sheet: a row for each dimension, its images from left to right.

    groups: dimensions under their headings.
    """
    dimensions = [dimension for group in groups.values() for dimension in group]
    columns = max((len(dimension.images) for dimension in dimensions), default=1)
    height = len(dimensions) * (1 + GAP) + HEADING_HEIGHT * len(groups)
    size = INCHES * (PITCH * columns + TEXT_WIDTH), INCHES * height + 0.5
    figure, sheet = pyplot.subplots(figsize=size, layout="constrained")
    y = 0.0
    for heading, group in groups.items():
        sheet.text(-TEXT_WIDTH, y + 0.45, heading, fontsize=10, weight="bold", va="center")
        y += HEADING_HEIGHT
        for dimension in group:
            _draw_images(sheet, dimension, y)
            y += 1 + GAP
    sheet.set_xlim(-TEXT_WIDTH, columns * PITCH)
    sheet.set_ylim(y, 0)
    sheet.set_axis_off()
    _save(figure, title, path)


def _draw_images(sheet: Any, dimension: FigureRow, y: float) -> None:
    """A row whose upper end is at y."""
    sheet.text(-TEXT_WIDTH, y + 0.5, dimension.title, fontsize=7, va="center")
    pairs = zip(dimension.images, dimension.captions, strict=True)
    for column, (image, caption) in enumerate(pairs):
        x = column * PITCH
        sheet.imshow(image, extent=(x, x + 1, y + 1, y), interpolation="nearest")
        sheet.text(x + 0.5, y + 1.05, caption, fontsize=5, ha="center", va="top")


def draw_histograms(groups: Mapping[str, Sequence[FigureRow]], title: str, path: Path) -> None:
    """How often a dimension takes which value, a panel for each and a row for each group.

    On images of the class that it answers to most, and on all others.
    """
    filled = {heading: group for heading, group in groups.items() if group}
    rows = max(len(filled), 1)
    columns = max((len(group) for group in filled.values()), default=1)
    size = 1.7 * columns + 0.6, 2.1 * rows + 0.4
    figure, grid = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for panel in grid.flat:
        panel.set_visible(False)
    # There is one row even where there is no group, and columns for the longest group.
    for (heading, group), panels in zip(filled.items(), grid, strict=False):
        panels[0].set_ylabel(f"{heading}\nimages", fontsize=7)
        for dimension, panel in zip(group, panels, strict=False):
            _draw_histogram(panel, dimension)
    _save(figure, title, path)


def _draw_histogram(panel: Any, dimension: FigureRow) -> None:
    panel.set_visible(True)
    bins = dimension.histogram.shape[1]
    high = dimension.high if dimension.high > dimension.low else dimension.low + 1
    edges = np.linspace(dimension.low, high, bins + 1)
    of_class, of_others = dimension.histogram
    panel.stairs(of_others, edges, fill=True, color="0.7", label="others")
    panel.stairs(of_class, edges, fill=False, color="C3", label=f"class {dimension.best}")
    panel.set_yscale("log")
    panel.set_ylim(bottom=0.7)
    panel.tick_params(labelsize=5)
    panel.set_title(dimension.title.split("\n")[0], fontsize=7)
    panel.legend(fontsize=5, frameon=False)
    _open_frame(panel)


# Space


def draw_space(
    means: Array, cosines: Array, classes: Sequence[str], title: str, path: Path
) -> None:
    """What each of m live dimensions answers to, and which of them go together.

    Both with the dimensions sorted by the class with the largest mean.

    means: (classes, m), of each dimension on each class; each column is shown by its largest value.
    cosines: (m, m), between the same dimensions.
    """
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5), layout="constrained")
    if not means.size:
        left.text(0.5, 0.5, "no dimension is live", ha="center")
        _save(figure, title, path)
        return
    order = np.lexsort((-means.max(0), means.argmax(0)))
    _draw_class_map(figure, left, means[:, order], classes)
    image = right.imshow(
        cosines[np.ix_(order, order)], cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest"
    )
    figure.colorbar(image, ax=right, label="cosine")
    right.set_title("which dimensions go together")
    for panel in (left, right):
        panel.set_xlabel(f"{len(order)} live dimensions, by the class that they answer to most")
    _save(figure, title, path)


def _draw_class_map(figure: Any, panel: Any, means: Array, classes: Sequence[str]) -> None:
    """Means (classes, m), as shares of the largest of each dimension."""
    largest = np.abs(means).max(0, keepdims=True)
    shares = np.divide(means, largest, out=np.zeros_like(means), where=largest > 0)
    signed = bool((means < 0).any())
    image = panel.imshow(
        shares,
        aspect="auto",
        interpolation="nearest",
        cmap="RdBu_r" if signed else "magma",
        vmin=-1 if signed else 0,
        vmax=1,
    )
    figure.colorbar(image, ax=panel, label="mean activation, over the dimension's largest")
    if len(classes) <= 20:
        panel.set_yticks(range(len(classes)), classes, fontsize=7)
    panel.set_ylabel("class")
    panel.set_title("what each dimension answers to")
