"""Figures of single dimensions: their images, their values, and the space that they make up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import pyplot
from matplotlib.ticker import NullLocator

from monosem.figures.style import open_frame, save
from monosem.results.stats import Array


class FigureRow(NamedTuple):
    """A dimension and what activates it.

    title: lines beside its images.
    images: (k, side, side, 3) uint8.
    captions: k, one under each image.
    histogram: (2, bins), how often it takes which value: on examples of the class `best`, and on
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
    save(figure, title, path)


def _draw_images(sheet: Any, dimension: FigureRow, y: float) -> None:
    """A row whose upper end is at y."""
    sheet.text(-TEXT_WIDTH, y + 0.5, dimension.title, fontsize=7, va="center")
    pairs = zip(dimension.images, dimension.captions, strict=True)
    for column, (image, caption) in enumerate(pairs):
        x = column * PITCH
        sheet.imshow(image, extent=(x, x + 1, y + 1, y), interpolation="nearest")
        sheet.text(x + 0.5, y + 1.05, caption, fontsize=5, ha="center", va="top")


def draw_histograms(
    groups: Mapping[str, Sequence[FigureRow]], noun: str, title: str, path: Path
) -> None:
    """How often a dimension takes which value, a panel for each and a row for each group.

    On examples of the class that it answers to most, and on all others.

    noun: what the examples are, in the plural.
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
        panels[0].set_ylabel(f"{heading}\n{noun}", fontsize=7)
        for dimension, panel in zip(group, panels, strict=False):
            _draw_histogram(panel, dimension)
    save(figure, title, path)


def _draw_histogram(panel: Any, dimension: FigureRow) -> None:
    panel.set_visible(True)
    bins = dimension.histogram.shape[1]
    high = dimension.high if dimension.high > dimension.low else dimension.low + 1
    edges = np.linspace(dimension.low, high, bins + 1)
    of_class, of_others = dimension.histogram
    panel.stairs(of_others, edges, fill=True, color="0.7", label="others")
    panel.stairs(of_class, edges, fill=False, color="C3", label=f"class {dimension.best}")
    panel.set_yscale("log")
    panel.yaxis.set_minor_locator(NullLocator())  # half of the time of the figure went there
    panel.set_ylim(bottom=0.7)
    panel.tick_params(labelsize=5)
    panel.set_title(dimension.title.split("\n")[0], fontsize=7)
    panel.legend(fontsize=5, frameon=False)
    open_frame(panel)


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
        save(figure, title, path)
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
    save(figure, title, path)


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
