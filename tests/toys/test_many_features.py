"""The toy of the paper's figure: its labels, its two maps, and what training a tied map ends in."""

from __future__ import annotations

import pytest
import torch
from conftest import ROOT
from torch.testing import assert_close

from monosem.core.fields import FieldError
from monosem.datasets.digits import Digits
from monosem.specs.load import load
from monosem.specs.study import read
from monosem.toys.many_features import (
    FirstFeatures,
    LargestFeature,
    TrainedDirections,
    first_largest,
)

DATA = LargestFeature(features=8, density=0.5, train=3000, test=500)


def test_the_label_is_the_first_of_the_largest_features():
    images, labels, factors = DATA.split("train")
    rows = DATA.prepare(images).flatten(1)
    assert images.shape == (3000, 1, 1, 8) and DATA.problem() is None
    for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
        assert row.index(max(row)) == label
    assert torch.equal(torch.stack([*factors.values()], 1), (rows > 0).long())
    assert_close((rows > 0).double().mean(0), torch.full((8,), 0.5).double(), atol=0.05, rtol=0)


def test_of_equal_features_the_first_counts():
    assert first_largest(torch.tensor([[0, 0, 0], [1, 9, 9], [9, 1, 9]])).tolist() == [0, 1, 0]


def test_first_features_are_kept_and_others_are_not():
    inputs = DATA.prepare(DATA.split("test").inputs)
    hidden = FirstFeatures(8, 3).network(lambda stage: {})(inputs)
    assert_close(hidden[:, :3], inputs.flatten(1)[:, :3])
    assert (hidden[:, 3:] == 0).all()


def test_trained_directions_are_orthonormal_hold_the_mean_and_are_named_by_their_seed():
    weight = TrainedDirections(8, 3, seed=1).weight()
    ones = torch.ones(8, dtype=torch.float64)
    assert_close(weight @ weight.T, torch.eye(3, dtype=torch.float64))
    assert_close(weight.T @ weight @ ones, ones)
    assert not torch.equal(weight, TrainedDirections(8, 3, seed=2).weight())


def test_training_a_tied_map_ends_where_the_directions_are():
    """Its loss is that of any such directions, less than that of the first features alone."""
    x = DATA.prepare(DATA.split("train").inputs).flatten(1).double()

    def loss(weight):
        return (x - x @ weight.T @ weight).square().sum(1).mean()

    trained = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).double() / 4
    trained.requires_grad_()
    optimizer = torch.optim.Adam([trained], lr=0.03)
    for _ in range(400):
        optimizer.zero_grad()
        loss(trained).backward()
        optimizer.step()
    ones = torch.ones(8, dtype=torch.float64)
    assert_close(trained.T @ trained @ ones, ones, atol=0.05, rtol=0)
    ideal = loss(TrainedDirections(8, 3).weight())
    assert loss(trained).item() == pytest.approx(ideal.item(), rel=0.03)
    assert ideal < 0.8 * loss(FirstFeatures(8, 3).weight())


def test_too_many_dimensions_and_other_data_are_refused():
    with pytest.raises(FieldError, match="dimensions must be at most 8, the number of features"):
        FirstFeatures(8, 9)
    assert FirstFeatures(8, 3).incompatibility(DATA) is None
    complaint = "must have images of 40 pixels in a row, as LargestFeature"
    assert TrainedDirections().incompatibility(Digits()) == complaint


def test_the_files_are_the_two_maps_at_both_densities(monkeypatch):
    monkeypatch.chdir(ROOT)
    mono, poly = (
        load([f"gin/toy/figure_{name}.gin"]).experiment for name in ("monosemantic", "polysemantic")
    )
    assert {curve.encoder for curve in mono.curves} == {FirstFeatures()}
    assert {curve.encoder for curve in poly.curves} == {TrainedDirections()}
    cells = read(["gin/toy/figure.gin"], []).cells
    assert len(cells) == 20
    assert {cell.experiment.curves[0].data.density for cell in cells} == {0.8, 0.2}
