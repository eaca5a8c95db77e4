"""Figures of tables: they have room for what they show."""

from __future__ import annotations

import pytest
from made_rows import named_study, row, study
from matplotlib import pyplot
from matplotlib.image import imread

from monosem.figures import bars as bars_module
from monosem.figures.bars import draw_bars
from monosem.figures.curves import draw_curves
from monosem.results.table import Table


@pytest.mark.parametrize("lines", [1, 12])
def test_a_figure_has_room_for_every_line(tmp_path, lines):
    rows = []
    for k in range(lines):
        rows += study("sae", values={"TopK.k": str(k)})
    draw_curves(Table(rows), tmp_path / "figure.png", ["gaussian"])
    image = imread(tmp_path / "figure.png")
    assert image[..., :3].std() > 0.03
    assert image.shape[0] > 400


def test_curves_are_drawn_without_those_whose_points_have_names(tmp_path):
    draw_curves(Table(study("a")), tmp_path / "alone.png")
    draw_curves(Table([*study("a"), *named_study("a")]), tmp_path / "beside.png")
    alone, beside = (imread(tmp_path / f"{name}.png") for name in ("alone", "beside"))
    assert alone.shape == beside.shape


def bars(tmp_path, rows):
    draw_bars(Table(rows), "common", tmp_path / "bars.png")
    image = imread(tmp_path / "bars.png")[..., :3]
    assert image.std() > 0.03
    return image


def test_bars_have_a_second_panel_where_there_is_a_baseline(tmp_path):
    alone = bars(tmp_path, named_study("a"))
    compared = bars(tmp_path, [*named_study("a"), *named_study("b", shift=2.0)])
    assert compared.shape[1] > 1.3 * alone.shape[1]


def test_bars_have_room_for_every_point_and_line(tmp_path):
    few = bars(tmp_path, named_study("a"))
    many_points = [
        one._replace(point=f"{one.point}_{k}") for k in range(5) for one in named_study("a")
    ]
    assert bars(tmp_path, many_points).shape[0] > 2 * few.shape[0]
    many_lines = [one for name in "abcdefgh" for one in named_study(name)]
    assert bars(tmp_path, many_lines).shape[0] > 1.3 * few.shape[0]


def test_the_longest_bar_ends_inside_the_panel_whichever_line_it_is_of(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(bars_module, "save", lambda figure, *_: drawn.append(figure))
    for shifts in ((0.0, 20.0), (20.0, 0.0)):
        rows = [one for name, s in zip("ab", shifts, strict=True) for one in named_study(name, s)]
        draw_bars(Table(rows), "common", tmp_path / "bars.png")
    for figure in drawn:
        panel = figure.axes[0]
        longest = max(bar.get_width() for bar in panel.patches)
        assert panel.get_xlim()[0] == 0 and longest < panel.get_xlim()[1] <= 102
        pyplot.close(figure)


def test_bars_of_single_draws_and_of_lines_without_some_point_are_drawn(tmp_path):
    rows = [row(curve="common", point=name, severity=0.0) for name in ("clean", "mnist")]
    bars(tmp_path, [*rows, row(curve="common", point="usps", severity=0.0, experiment="b")])
