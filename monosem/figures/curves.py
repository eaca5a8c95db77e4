"""Figures of a table of results: curves, and robustness against monosemanticity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot

from monosem.figures.style import (
    MANY_LINES,
    MARKERS,
    SCREEN,
    Look,
    line_color,
    line_marker,
    open_frame,
    save,
    sizes_title,
)
from monosem.results.correlation import NOTHING, ScatterPanel
from monosem.results.formatting import metric_label
from monosem.results.rows import Line
from monosem.results.stats import estimate, is_logarithmic, severities_only
from monosem.results.summary import common_metric_label
from monosem.results.table import Table


def draw_curves(
    table: Table, path: Path, curves: Sequence[str] | None = None, look: Look = SCREEN
) -> None:
    """A panel for each curve, in it a line for each line of the table.

    Means and their 95 % intervals over seeds and repeats.

    curves: those that are drawn, by default all whose points have no names.
    """
    shown = list(curves or [curve for curve in table.axes if curve not in table.named])
    many = len(table.lines) > MANY_LINES
    columns = panel_columns(len(shown), look)
    rows = math.ceil(len(shown) / columns)
    width = 3.6 * columns if columns > 1 else 5.0
    figure, grid = pyplot.subplots(
        rows,
        columns,
        figsize=(width + 2.2 * many, (3.4 if rows == 1 else 2.9 * rows) + 0.8 * many),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    panels = grid.flatten()[: len(shown)]
    for empty in grid.flatten()[len(shown) :]:
        empty.set_axis_off()
    drawn = common_metric_label(table, shown)
    for panel, curve in zip(panels, shown, strict=True):
        _draw_curve(panel, table, curve, interval_alpha=0.1 if many else 0.2)
        title = curve.replace("_", " ")
        if drawn == "value":
            title += f" ({metric_label(table.metrics[curve])})"
        panel.set_title(title)
    _limit_to_percent(panels[0])
    for first in grid[:, 0]:
        first.set_ylabel(f"{drawn} (%)")
    _add_legend(grid[0], beside=many)
    save(figure, sizes_title(table), path, look)


def panel_columns(panels: int, look: Look) -> int:
    """Panels beside one another; rows are as full as they can be: four are two by two."""
    if look.columns is None or panels <= look.columns:
        return panels
    rows = math.ceil(panels / look.columns)
    return math.ceil(panels / rows)


def _draw_curve(panel: Any, table: Table, curve: str, interval_alpha: float) -> None:
    for line in table.lines:
        samples = severities_only(table.samples(line, curve))
        if not samples:
            continue
        points = [estimate(sample) for sample in samples.values()]
        severities = list(samples)
        means = np.array([point.mean for point in points])
        halves = np.array([0 if math.isnan(point.half) else point.half for point in points])
        color = line_color(table.lines, line)
        marker = line_marker(table.lines, line)
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
    open_frame(panel)


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
    save(figure, title, path)


def _draw_points(panel: Any, lines: Sequence[Line], scatter: ScatterPanel) -> None:
    """A colour for each line, a marker for each experiment."""
    different = list(dict.fromkeys(lines))
    experiments = list(dict.fromkeys(line.experiment for line in different))
    for line in different:
        encoders = [index for index, other in enumerate(lines) if other == line]
        panel.scatter(
            scatter.x[encoders],
            scatter.y[encoders],
            color=line_color(different, line),
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
    panel.set_ylabel(f"mean under {scatter.curve.replace('_', ' ')}{y_unit}", fontsize=7)
    panel.tick_params(labelsize=6)
    panel.grid(alpha=0.3)
    open_frame(panel)
