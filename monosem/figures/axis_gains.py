"""Figures of what axes are worth: gains, and differences in two parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from matplotlib.artist import Artist
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from monosem.axes.gains import Decomposition, Place
from monosem.figures.style import MARKERS, open_frame, save
from monosem.results.stats import Estimate

SHADES = ("#1b1b1b", "#d95f02", "#4a90d9", "#7a7a7a", "#2f8f5b")  # differ in lightness too
SPREAD = 0.62  # of a learner's row that its encoders take


def draw_gains(gains: Mapping[Place, Estimate], path: Path) -> None:
    """A panel for each kind of robustness, learners down the side, a dot for each encoder.

    Dots are means, bars their 95 % intervals. A dot is filled where p, corrected, is below .05.
    """
    shown = {place: gain for place, gain in gains.items() if place.severity is None}
    kinds, learners, encoders = _names(shown)
    figure, panels = pyplot.subplots(
        1,
        len(kinds),
        figsize=(1.6 + 2.3 * len(kinds), 1.5 + 0.36 * len(learners)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, kind in zip(panels[0], kinds, strict=True):
        for index, encoder in enumerate(encoders):
            for row, learner in enumerate(learners):
                gain = shown.get(Place(kind, None, learner, encoder))
                if gain is not None:
                    height = row + SPREAD * _offset(index, len(encoders))
                    _draw_dot(panel, gain, height, index)
        _finish_panel(panel, kind, learners)
        panel.set_xlabel("axis gain (points)")
    legend_beside(panels[0][-1], encoder_handles(encoders, 4.5))
    save(figure, "Accuracy as it is less rotated; filled where p < .05, corrected", path)


def _draw_dot(panel: Any, gain: Estimate, height: float, encoder: int) -> None:
    color = SHADES[encoder % len(SHADES)]
    is_sure = gain.p < 0.05
    panel.errorbar(
        gain.mean,
        height,
        xerr=0 if math.isnan(gain.half) else gain.half,
        color=color,
        marker=MARKERS[encoder % len(MARKERS)],
        markersize=4.5,
        markerfacecolor=color if is_sure else "white",
        linewidth=1.1,
    )


def draw_decomposition(parts: Mapping[Place, Decomposition], path: Path) -> None:
    """A row of panels for each encoder: the difference to the first one, as two bars a learner.

    The upper bar is geometry, the lower one axes; the diamond is their sum.
    """
    shown = {place: part for place, part in parts.items() if place.severity is None}
    kinds, learners, encoders = _names(shown)
    figure, grid = pyplot.subplots(
        len(encoders),
        len(kinds),
        figsize=(1.6 + 2.3 * len(kinds), 0.9 + max(1.3, 0.36 * len(learners)) * len(encoders)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panels, encoder in zip(grid, encoders, strict=True):
        for panel, kind in zip(panels, kinds, strict=True):
            for row, learner in enumerate(learners):
                part = shown.get(Place(kind, None, learner, encoder))
                if part is not None:
                    _draw_parts(panel, part, row)
            _finish_panel(panel, kind, learners)
        panels[0].set_ylabel(encoder, fontsize="large")
    for panel in grid[-1]:
        panel.set_xlabel("difference (points)")
    handles: list[Artist] = [
        _patch("geometry (rotated)", "#b9b9b9", ""),
        _patch("axes", "#d95f02", "////"),
        Line2D([], [], color="#1b1b1b", marker="D", markersize=4, linestyle="", label="sum"),
    ]
    legend_beside(grid[0][-1], handles)
    save(figure, "What the difference to the first encoder is made of, 95 % intervals", path)


def _patch(label: str, color: str, hatch: str) -> Rectangle:
    return Rectangle((0, 0), 1, 1, facecolor=color, edgecolor="#1b1b1b", hatch=hatch, label=label)


def _draw_parts(panel: Any, part: Decomposition, row: int) -> None:
    for estimate, height, color, hatch in (
        (part.geometry, row - 0.18, "#b9b9b9", ""),
        (part.axes, row + 0.18, "#d95f02", "////"),
    ):
        panel.barh(
            height,
            estimate.mean,
            0.34,
            xerr=0 if math.isnan(estimate.half) else estimate.half,
            color=color,
            hatch=hatch,
            edgecolor="#1b1b1b",
            linewidth=0.5,
            error_kw={"linewidth": 0.9},
        )
    panel.plot(part.total.mean, row, color="#1b1b1b", marker="D", markersize=4)


def _finish_panel(panel: Any, kind: str, learners: Sequence[str]) -> None:
    panel.axvline(0, color="#1b1b1b", linewidth=0.8)
    panel.set_title(kind.replace("_", " "), fontsize="medium")
    panel.set_yticks(range(len(learners)), learners)
    panel.set_ylim(len(learners) - 0.4, -0.6)
    panel.grid(axis="x", alpha=0.3)
    for edge in range(1, len(learners)):
        panel.axhline(edge - 0.5, color="#1b1b1b", alpha=0.12, linewidth=0.5)
    open_frame(panel)


def _names(places: Mapping[Place, object]) -> tuple[list[str], list[str], list[str]]:
    """Kinds, learners and encoders in their order of appearance."""
    kinds = dict.fromkeys(place.kind for place in places)
    learners = dict.fromkeys(place.learner for place in places)
    encoders = dict.fromkeys(place.encoder for place in places)
    return list(kinds), list(learners), list(encoders)


def _offset(index: int, count: int) -> float:
    """From -1/2 to 1/2."""
    return (index + 0.5) / count - 0.5


def encoder_handles(encoders: Sequence[str], size: float) -> list[Line2D]:
    """For a legend: the colour and the marker of every encoder, as all figures of axes have them.

    size: of the markers, in points.
    """
    return [
        Line2D(
            [],
            [],
            color=SHADES[index % len(SHADES)],
            marker=MARKERS[index % len(MARKERS)],
            markersize=size,
            label=encoder,
        )
        for index, encoder in enumerate(encoders)
    ]


def legend_beside(panel: Any, handles: Sequence[Artist]) -> None:
    """A legend of labelled handles, to the right of a panel."""
    panel.legend(
        handles=handles, frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1)
    )
