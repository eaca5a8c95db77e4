"""Figures of features as they are beside rotated ones, severity by severity or by bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib import pyplot
from matplotlib.lines import Line2D

from monosem.axes.gains import AS_IS, DrawnLine
from monosem.figures.axis_gains import SHADES, encoder_handles, legend_beside
from monosem.figures.style import MARKERS, open_frame, save
from monosem.results.stats import is_logarithmic

# as they are, rotated, and what else is compared
STYLES: tuple[Literal["-", "--", ":"], ...] = ("-", "--", ":")


def draw_curves(lines: Sequence[DrawnLine], path: Path) -> None:
    """A row of panels for each curve, a panel for each learner, a colour for each encoder.

    Full lines are of features as they are, broken ones of rotated ones, dotted ones of what else
    was named. A line that has no learner is in every panel. Bars are 95 % intervals.
    """
    curves = list(dict.fromkeys(line.curve for line in lines))
    learners = list(dict.fromkeys(line.learner for line in lines if line.learner)) or [""]
    encoders = list(dict.fromkeys(line.encoder for line in lines))
    turns = list(dict.fromkeys(line.turn for line in lines))
    figure, grid = pyplot.subplots(
        len(curves),
        len(learners),
        figsize=(1.8 + 2.4 * len(learners), 0.9 + 2.2 * len(curves)),
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for panels, curve in zip(grid, curves, strict=True):
        for panel, learner in zip(panels, learners, strict=True):
            shown = [
                line for line in lines if line.curve == curve and line.learner in ("", learner)
            ]
            _draw_panel(panel, shown, encoders, turns)
            panel.set_title(f"{curve.replace('_', ' ')}: {learner}".strip(": "), fontsize="small")
        panels[0].set_ylabel("top-1 (%)")
    _legend(grid[0][-1], encoders, turns)
    save(figure, "Features as they are and rotated", path)


def _draw_panel(
    panel: Any, lines: Sequence[DrawnLine], encoders: Sequence[str], turns: Sequence[str]
) -> None:
    for line in lines:
        _draw_line(panel, line, encoders.index(line.encoder), STYLES[turns.index(line.turn)])
    every_x = [x for line in lines for x, _ in line.points]
    if every_x and is_logarithmic(every_x):
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:g}")
    has_bits = any(line.bits for line in lines)
    panel.set_xlabel("bits an example" if has_bits else "severity", fontsize="small")
    panel.grid(alpha=0.25)
    open_frame(panel)


def _draw_line(panel: Any, line: DrawnLine, encoder: int, style: str) -> None:
    color = SHADES[encoder % len(SHADES)]
    values = [value for _, value in line.points]
    panel.errorbar(
        [x for x, _ in line.points],
        [value.mean for value in values],
        yerr=[0 if math.isnan(value.half) else value.half for value in values],
        color=color,
        linestyle=style,
        marker=MARKERS[encoder % len(MARKERS)],
        markersize=3.5,
        markerfacecolor=color if line.turn == AS_IS else "white",
        linewidth=1.2,
        elinewidth=0.6,
    )


def _legend(panel: Any, encoders: Sequence[str], turns: Sequence[str]) -> None:
    handles = encoder_handles(encoders, 4)
    handles += [
        Line2D([], [], color="#555555", linestyle=style, label=turn)
        for turn, style in zip(turns, STYLES, strict=False)
    ]
    legend_beside(panel, handles)
