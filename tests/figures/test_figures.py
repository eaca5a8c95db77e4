"""Figures of tables: they have room for what they show."""

from __future__ import annotations

import pytest
from made_rows import study
from matplotlib.image import imread

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
