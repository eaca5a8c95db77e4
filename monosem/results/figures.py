"""Every figure: of tables, of dimensions and the images that activate them, of the space. The only place that draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.colors import to_rgb

from monosem.results.correlation import ScatterPanel
from monosem.results.rows import label
from monosem.results.stats import estimate, is_logarithmic
from monosem.results.summary import common_metric_label, metric_label, sample_sizes
from monosem.results.table import Line, Table

matplotlib.use("Agg")


# ------------------------------------------------------------------------------------------------ curves


def _color(lines: Sequence[Line], line: Line) -> tuple[float, ...]:
    """A colour for each line; where there are more lines than colours, one for each experiment, its lines paler and paler."""
    if len(lines) <= 10:
        return to_rgb(f"C{lines.index(line)}")
    experiments = list(dict.fromkeys(each.experiment for each in lines))
    siblings = [each for each in lines if each.experiment == line.experiment]
    paler = 0.7 * siblings.index(line) / len(siblings)
    return tuple(
        paler + (1 - paler) * part for part in to_rgb(f"C{experiments.index(line.experiment)}")
    )


def draw_curves(table: Table, path: Path, curves: Sequence[str] | None = None) -> None:
    """One panel per curve, one line per line of the table: the mean and its 95 % interval over seeds and repeats."""
    shown = list(curves or table.axes)
    many = len(table.lines) > 5
    width = 3.6 * len(shown) if len(shown) > 1 else 5.0
    figure, panels = pyplot.subplots(
        1,
        len(shown),
        figsize=(width + 2.2 * many, 3.4 + 0.8 * many),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, curve in zip(panels[0], shown, strict=True):
        for number, line in enumerate(table.lines):
            points = {
                severity: estimate(sample)
                for severity, sample in table.samples(line, curve).items()
            }
            if not points:
                continue
            x, mean = list(points), [p.mean for p in points.values()]
            half = [0 if math.isnan(p.half) else p.half for p in points.values()]
            color = _color(list(table.lines), line)
            panel.plot(
                x,
                mean,
                color=color,
                marker="osD^vP*X"[number % 8],
                markersize=4,
                label=line.label,
            )
            panel.fill_between(x, [m - h for m, h in zip(mean, half, strict=True)], [m + h for m, h in zip(mean, half, strict=True)],
                               color=color, alpha=0.1 if many else 0.2, linewidth=0)  # fmt: skip
            if is_logarithmic(x):
                panel.set_xscale("log")
                panel.set_xticks(x, [f"{value:g}" for value in x], minor=False)
                panel.minorticks_off()
        panel.set_title(
            curve.replace("_", " ")
            + f" ({metric_label(table.metrics[curve])})"
            * (common_metric_label(table, shown) == "value")
        )
        panel.set_xlabel(table.axes[curve].replace(" (", "\n("))
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    bottom, top = panels[0][0].get_ylim()
    panels[0][0].set_ylim(
        max(bottom, -2), min(top, 102)
    )  # an interval of few seeds may be wider than what there is
    panels[0][0].set_ylabel(f"{common_metric_label(table, shown)} (%)")
    if many:
        panels[0][-1].legend(
            frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small"
        )
    else:
        panels[0][0].legend(frameon=False, loc="best")
    seeds, repeats = sample_sizes(table)
    words = " x ".join(
        word
        for word in (f"{seeds} seeds" * (seeds != "1"), f"{repeats} draws" * (repeats != "1"))
        if word
    )
    _finish(figure, f"Mean and 95 % interval over {words}" if words else "Single draws", path)


# ------------------------------------------------------------------------------------------------ the claim


def draw_claim(
    lines: Sequence[Line], rows: Sequence[Sequence[ScatterPanel]], measure: str, path: Path
) -> None:
    """Robustness against a measure of monosemanticity, a point for each encoder: a row of panels for each curve, a panel for each
    thing that is held equal."""
    figure, panels = pyplot.subplots(
        len(rows),
        len(rows[0]),
        figsize=(3.1 * len(rows[0]) + 2.4, 2.9 * len(rows) + 0.4),
        squeeze=False,
        layout="constrained",
    )
    different = list(dict.fromkeys(lines))
    colors = [_color(different, line) for line in lines]
    experiments = list(dict.fromkeys(line.experiment for line in different))
    for row, own in zip(panels, rows, strict=True):
        for panel, cloud in zip(row, own, strict=True):
            for line in different:
                mine = [number for number, each in enumerate(lines) if each == line]
                marker = "osD^vP*X"[experiments.index(line.experiment) % 8]
                panel.scatter(
                    cloud.x[mine],
                    cloud.y[mine],
                    color=colors[mine[0]],
                    marker=marker,
                    s=18,
                    label=label(*line),
                )
            left = cloud.held != "nothing"
            panel.set_title(
                f"{cloud.held} held equal\n{cloud.correlation}" if left else f"{cloud.correlation}",
                fontsize=8,
            )
            panel.set_xlabel(
                f"{measure.replace('_', ' ')}{' (rank, what is left)' * left}", fontsize=7
            )
            panel.set_ylabel(
                f"area under {cloud.curve.replace('_', ' ')}{' (rank, what is left)' if left else ' (%)'}",
                fontsize=7,
            )
            panel.tick_params(labelsize=6)
            panel.grid(alpha=0.3)
            panel.spines[["top", "right"]].set_visible(False)
    panels[0][-1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize="x-small")
    _finish(
        figure,
        "Rank correlation (95 % bootstrap interval) of robustness with monosemanticity",
        path,
    )


# ------------------------------------------------------------------------------------------------ dimensions


class Shown(NamedTuple):
    """A dimension and what activates it. title: lines beside its images; images: (k, side, side, 3) uint8; captions: one each.

    histogram: (2, bins), how often it takes which value from low to high, on images of its class `best` and on others.
    """

    title: str
    images: np.ndarray[Any, Any]
    captions: Sequence[str]
    histogram: np.ndarray[Any, Any]
    low: float
    high: float
    best: str


def draw_gallery(shown: Mapping[str, Sequence[Shown]], title: str, path: Path) -> None:
    """A contact sheet: a row for each dimension, its images from left to right, under a heading for each group."""
    rows = [each for group in shown.values() for each in group]
    columns = max((len(each.images) for each in rows), default=1)
    cell, gap = 1.0, 0.42  # an image is one unit, captions stand in the gap below it
    height = len(rows) * (cell + gap) + 0.7 * len(shown)
    figure, axes = pyplot.subplots(
        figsize=(0.62 * (1.08 * columns + 4), 0.62 * height + 0.5), layout="constrained"
    )
    y = 0.0
    for heading, group in shown.items():
        axes.text(-4, y + 0.45, heading, fontsize=10, weight="bold", va="center")
        y += 0.7
        for each in group:
            axes.text(-4, y + cell / 2, each.title, fontsize=7, va="center")
            for number, (image, caption) in enumerate(zip(each.images, each.captions, strict=True)):
                left = number * 1.08
                axes.imshow(image, extent=(left, left + cell, y + cell, y), interpolation="nearest")
                axes.text(
                    left + cell / 2, y + cell + 0.05, caption, fontsize=5, ha="center", va="top"
                )
            y += cell + gap
    axes.set_xlim(-4, columns * 1.08)
    axes.set_ylim(y, 0)
    axes.set_axis_off()
    _finish(figure, title, path)


def draw_histograms(shown: Mapping[str, Sequence[Shown]], title: str, path: Path) -> None:
    """How often a dimension takes which value: on images of the class it answers to most, and on all others."""
    groups = [(heading, group) for heading, group in shown.items() if group]
    columns = max((len(group) for _, group in groups), default=1)
    figure, panels = pyplot.subplots(
        max(len(groups), 1),
        columns,
        figsize=(1.7 * columns + 0.6, 2.1 * max(len(groups), 1) + 0.4),
        squeeze=False,
        layout="constrained",
    )
    for panel in panels.flat:
        panel.set_visible(False)
    for (heading, group), row in zip(
        groups, panels, strict=False
    ):  # one row even where there is no group
        row[0].set_ylabel(f"{heading}\nimages", fontsize=7)
        for each, panel in zip(group, row, strict=False):
            panel.set_visible(True)
            edges = np.linspace(
                each.low,
                each.high if each.high > each.low else each.low + 1,
                each.histogram.shape[1] + 1,
            )
            for counts, words, color in zip(
                each.histogram[::-1], ("others", f"class {each.best}"), ("0.7", "C3"), strict=True
            ):
                panel.stairs(counts, edges, fill=words == "others", color=color, label=words)
            panel.set_yscale("log")
            panel.set_ylim(bottom=0.7)
            panel.tick_params(labelsize=5)
            panel.set_title(each.title.split("\n")[0], fontsize=7)
            panel.legend(fontsize=5, frameon=False)
            panel.spines[["top", "right"]].set_visible(False)
    _finish(figure, title, path)


# ------------------------------------------------------------------------------------------------ the space


def draw_space(
    means: np.ndarray[Any, Any],
    cosines: np.ndarray[Any, Any],
    classes: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """means: (classes, m), the mean of each dimension on each class; cosines: (m, m), between the same dimensions. Both are shown with
    the dimensions sorted by the class with the largest mean, and each column of the map by its largest value."""
    order = np.lexsort((-means.max(0, initial=0), means.argmax(0))) if means.size else np.arange(0)
    means, cosines = means[:, order], cosines[np.ix_(order, order)]
    scale = np.abs(means).max(0, initial=0, keepdims=True)
    shares = np.divide(means, scale, out=np.zeros_like(means), where=scale > 0)
    signed = bool((means < 0).any())
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5), layout="constrained")
    if not means.size:
        left.text(0.5, 0.5, "no dimension is live", ha="center")
        _finish(figure, title, path)
        return
    colours = (
        {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
        if signed
        else {"cmap": "magma", "vmin": 0, "vmax": 1}
    )
    shown = left.imshow(shares, aspect="auto", interpolation="nearest", **colours)
    figure.colorbar(shown, ax=left, label="mean activation, over the dimension's largest")
    if len(classes) <= 20:
        left.set_yticks(range(len(classes)), classes, fontsize=7)
    left.set_ylabel("class")
    left.set_title("what each dimension answers to")
    shown = right.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    figure.colorbar(shown, ax=right, label="cosine")
    right.set_title("which dimensions go together")
    for panel in (left, right):
        panel.set_xlabel(f"{len(order)} live dimensions, by the class that they answer to most")
    _finish(figure, title, path)


def _finish(figure: Any, title: str, path: Path) -> None:
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
