"""The numbers of a question, a row each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot

from monosem.figures.style import MARKERS, open_frame, save
from monosem.questions.answers import AGAINST, FOR, OPEN, Judged

COLORS = {AGAINST: "#b2182b", FOR: "#2166ac", OPEN: "#7a7a7a"}  # apart in lightness too
ROW, PANEL = 0.17, 5.5  # inches


def draw_answers(judged: Sequence[Judged], path: Path) -> None:
    """Values with their 95 % intervals, in the order given, one panel for each unit."""
    units = list(dict.fromkeys(one.number.unit for one in judged))
    groups = [[one for one in judged if one.number.unit == unit] for unit in units]
    sizes = [len(group) for group in groups]
    figure, panels = pyplot.subplots(
        len(units),
        1,
        figsize=(PANEL + 2.5, ROW * sum(sizes) + 1.1 * len(units)),
        height_ratios=[size + 2 for size in sizes],
        squeeze=False,
        layout="constrained",
    )
    for panel, unit, group in zip(panels[:, 0], units, groups, strict=True):
        for row, one in enumerate(group):
            number, color = one.number, COLORS[one.verdict]
            has_interval = not math.isnan(number.low)
            spread = [[number.value - number.low], [number.high - number.value]]
            panel.errorbar(
                number.value,
                row,
                xerr=spread if has_interval else None,
                color=color,
                marker=MARKERS[list(COLORS).index(one.verdict)],
                markersize=4,
                markerfacecolor="white" if one.verdict == OPEN else color,
                linewidth=1.1,
            )
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set_yticks(range(len(group)), _labels(group))
        panel.tick_params(axis="y", labelsize=6.5, length=0)
        panel.set_ylim(len(group) - 0.5, -0.5)
        panel.set_xlabel(unit)
        open_frame(panel)
    save(figure, "The claim says right of 0; filled where p < .05, corrected", path)


def _labels(judged: Sequence[Judged]) -> list[str]:
    """What each number is; with its sweep where there are several."""
    is_one = len({one.number.sweep for one in judged}) == 1
    return [
        one.number.what if is_one else f"{one.number.sweep}: {one.number.what}" for one in judged
    ]
