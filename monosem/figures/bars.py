"""Bars: a figure of a curve whose points have names, and of what each line differs by there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot

from monosem.figures.style import SCREEN, Look, line_color, open_frame, save, sizes_title
from monosem.results.formatting import format_key, metric_label
from monosem.results.rows import Line
from monosem.results.stats import Key, Sample, estimate
from monosem.results.table import Table

GROUP = 0.8  # of the distance between points that the bars of one point take up
BAR_INCHES = 0.13
GAP_INCHES = 0.16  # between the bars of one point and of the next
NAME_INCHES = 0.095  # a letter beside the bars


def draw_bars(table: Table, curve: str, path: Path, look: Look = SCREEN) -> None:
    """The named points of a curve from top to bottom, at each a bar for every line.

    Means and their 95 % intervals over seeds and repeats. Where lines have a baseline, a second
    panel has the paired differences to it and their intervals, which are of one point each.
    """
    samples = {line: table.samples(line, curve) for line in table.lines}
    differences = {line: table.differences(line, curve) for line in table.lines}
    shown = [line for line in table.lines if samples[line]]
    compared = [line for line in shown if differences[line]]
    keys = table.in_order(curve, [key for line in shown for key in samples[line]])
    figure, panels = _panels(table, curve, len(shown), keys, beside=bool(compared))
    for line in shown:
        offset, height = _slot(shown, line)
        _draw_means(panels[0], table, line, keys, samples[line], offset, height)
    _limit(panels[0])
    panels[0].set_xlabel(_mean_label(table, shown, curve))
    if compared:
        panels[1].axvline(0, color="0.4", linewidth=0.8)
        for line in compared:
            offset, _ = _slot(shown, line)
            _draw_differences(panels[1], table, line, keys, differences[line], offset)
        panels[1].set_xlabel(_difference_label(table, compared))
    _label_points(panels, keys)
    if len(shown) > 1:
        panels[-1].legend(
            *panels[0].get_legend_handles_labels(),
            frameon=False,
            loc="upper left",
            bbox_to_anchor=(1, 1),
            fontsize="small",
        )
    save(figure, f"{curve.replace('_', ' ')}\n{sizes_title(table)}", path, look)


def _panels(
    table: Table, curve: str, lines: int, keys: Sequence[Key], beside: bool
) -> tuple[Any, Sequence[Any]]:
    """Bars are as thick wherever there are few or many of them: the figure grows."""
    height = len(keys) * (BAR_INCHES * max(lines, 1) + GAP_INCHES) + 1.4
    names = NAME_INCHES * max((len(format_key(key)) for key in keys), default=0)
    labels = NAME_INCHES * max(len(line.label) for line in table.lines)
    width = names + 3.6 + 3.2 * beside + (labels + 0.4 if lines > 1 else 0)
    figure, grid = pyplot.subplots(
        1,
        1 + beside,
        figsize=(max(width, 5.0), max(height, 2.4)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    return figure, grid[0]


def _slot(lines: Sequence[Line], line: Line) -> tuple[float, float]:
    """Where the bar of a line lies beside the middle of its point, and its thickness."""
    height = GROUP / len(lines)
    return (lines.index(line) - (len(lines) - 1) / 2) * height, height


def _estimates(
    keys: Sequence[Key], samples: Mapping[Key, Sample], offset: float
) -> tuple[list[float], list[float], list[float]]:
    """Heights in the panel, means and half intervals of the points that have a mean."""
    heights, means, halves = [], [], []
    for position, key in enumerate(keys):
        point = estimate(samples.get(key, {}))
        if not math.isnan(point.mean):
            heights.append(position + offset)
            means.append(point.mean)
            halves.append(0.0 if math.isnan(point.half) else point.half)
    return heights, means, halves


def _draw_means(
    panel: Any,
    table: Table,
    line: Line,
    keys: Sequence[Key],
    samples: Mapping[Key, Sample],
    offset: float,
    height: float,
) -> None:
    heights, means, halves = _estimates(keys, samples, offset)
    panel.barh(heights, means, height=height, color=line_color(table.lines, line), label=line.label)
    spread = [index for index, half in enumerate(halves) if half > 0]
    panel.errorbar(
        np.array(means)[spread],
        np.array(heights)[spread],
        xerr=np.array(halves)[spread],
        fmt="none",
        ecolor="0.15",
        elinewidth=0.9,
    )


def _limit(panel: Any) -> None:
    """Cut off what no percentage can be: an interval of few seeds may be wider than what there is.

    After all bars are drawn, as a limit that is set is the last one.
    """
    left, right = panel.get_xlim()
    is_positive = all(bar.get_width() >= 0 for bar in panel.patches)
    panel.set_xlim(max(left, 0) if is_positive else left, min(right, 102))


def _draw_differences(
    panel: Any,
    table: Table,
    line: Line,
    keys: Sequence[Key],
    differences: Mapping[Key, Sample],
    offset: float,
) -> None:
    heights, means, halves = _estimates(keys, differences, offset)
    panel.errorbar(
        means,
        heights,
        xerr=halves,
        fmt="o",
        markersize=3.5,
        elinewidth=1.2,
        color=line_color(table.lines, line),
    )


def _mean_label(table: Table, lines: Sequence[Line], curve: str) -> str:
    """What a bar is; of points with several severities it is a mean over them."""
    severities: dict[str, set[float]] = {}
    for line in lines:
        for name, severity in table.at_places(line, curve):
            severities.setdefault(name, set()).add(severity)
    label = f"{metric_label(table.metrics[curve])} (%)"
    several = any(len(of_name) > 1 for of_name in severities.values())
    return f"{label}, mean over severities" if several else label


def _difference_label(table: Table, compared: Sequence[Line]) -> str:
    bases = dict.fromkeys(base.label for line in compared if (base := table.baseline_of(line)))
    name = next(iter(bases)) if len(bases) == 1 else "its baseline"
    return f"difference to {name} (points)"


def _label_points(panels: Sequence[Any], keys: Sequence[Key]) -> None:
    """The first point is on top."""
    panels[0].set_yticks(range(len(keys)), [format_key(key).replace("_", " ") for key in keys])
    panels[0].set_ylim(len(keys) - 0.4, -0.6)
    for panel in panels:
        panel.grid(axis="x", alpha=0.3)
        panel.set_axisbelow(True)
        panel.tick_params(axis="y", length=0)
        open_frame(panel)
