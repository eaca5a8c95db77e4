"""Damage to features: what is left, that severities are nested, and what an example takes."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import tiny_curve
from torch.testing import assert_close

from monosem.classifiers.closed_form import NearestCentroid, Ridge
from monosem.core.fields import FieldError
from monosem.core.store import Store
from monosem.corruptions.feature_damage import (
    DroppedDimensions,
    LargestOnly,
    RoundedFeatures,
)
from monosem.datasets.digits import Digits
from monosem.learning.optimizers import SGD, Constant
from monosem.models.baselines import Pixels
from monosem.models.features import Features
from monosem.probes.linear import LinearProbe

DATA = Digits(size=8)
PIXELS = Pixels(DATA)
TRAINING = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
TEST = torch.randn(80, 16, generator=torch.Generator().manual_seed(1))


def damaged(damage, severity, repeat=0, features=TEST):
    return damage.features(features, TRAINING, severity, damage.draw(repeat, DATA))


# What is left


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_share_of_dimensions_is_0_for_all_examples_and_the_others_stay(share):
    left = damaged(DroppedDimensions(), share)
    failed = (left == 0).all(0)
    assert failed.sum() == round(share * 16)
    assert torch.equal(left[:, ~failed], TEST[:, ~failed])


def test_what_fails_at_a_share_fails_at_every_larger_one_and_is_drawn_by_the_repeat():
    failed = [(damaged(DroppedDimensions(), share) == 0).all(0) for share in (0.2, 0.5, 0.8)]
    assert (failed[0] <= failed[1]).all() and (failed[1] <= failed[2]).all()
    other = (damaged(DroppedDimensions(), 0.5, repeat=1) == 0).all(0)
    assert not torch.equal(other, failed[1])


def rounded_by_loops(bits):
    """Plain loops: cells of equal width, read as the mean of training features in them."""
    expected = torch.empty_like(TEST)
    for column in range(16):
        given = TRAINING[:, column].double()
        low, high = given.min(), given.max()
        width = (high - low) / 2**bits

        def cell(value, low=low, width=width):
            return min(max(math.floor((value - low) / width), 0), 2**bits - 1)

        cells = [cell(value) for value in given]
        for row in range(len(TEST)):
            own = cell(TEST[row, column].double())
            members = [value for value, of in zip(given, cells, strict=True) if of == own]
            read = sum(members) / len(members) if members else low + (own + 0.5) * width
            expected[row, column] = read
    return expected


@pytest.mark.parametrize("bits", [1, 3])
def test_rounded_features_are_means_of_training_features_in_equal_cells(bits):
    assert_close(damaged(RoundedFeatures(), float(bits)), rounded_by_loops(bits))


def test_more_bits_are_never_farther_by_more_than_their_cell_and_split_cells_in_two():
    inside = TEST.clamp(TRAINING.amin(0), TRAINING.amax(0))
    width = TRAINING.amax(0) - TRAINING.amin(0)
    before = None
    for bits in range(1, 9):
        values = damaged(RoundedFeatures(), float(bits), features=inside)
        assert ((values - inside).abs() <= width / 2**bits + 1e-5).all()
        for column in values.T:
            assert len(column.unique()) <= 2**bits
        if before is not None:  # what is told apart by fewer bits is told apart by more
            for coarse, fine in zip(before.T, values.T, strict=True):
                pairs = torch.stack([coarse, fine], 1).unique(dim=0)
                assert len(pairs) == len(fine.unique())
        before = values


def test_the_zeros_of_a_code_stay_near_0():
    """Half of the range would be read for them, were a cell read as its middle."""
    code = (TRAINING - 1).relu()
    read = RoundedFeatures().features(code, code, 1.0, torch.Generator())
    assert (read[code == 0].abs() < 0.5 * code.amax() / 4).all()


def test_only_the_m_largest_of_an_example_are_kept_and_they_are_nested():
    kept = {m: damaged(LargestOnly(), float(m)) for m in (1, 3, 16)}
    for row in range(len(TEST)):
        largest = sorted(range(16), key=lambda at: -abs(TEST[row, at]))[:3]
        assert set(kept[3][row].nonzero()[:, 0].tolist()) == set(largest)
    assert torch.equal(kept[16], TEST)
    assert ((kept[1] != 0) <= (kept[3] != 0)).all()


# Bits


def test_the_bits_of_rounded_features_are_those_of_all_cells_or_their_entropy():
    values = damaged(RoundedFeatures(), 3.0)
    bits = RoundedFeatures().measure(values, 3.0)
    assert bits["bits"] == 48
    entropy = 0.0
    for column in values.T.tolist():
        shares = [column.count(value) / len(column) for value in set(column)]
        entropy -= sum(share * math.log2(share) for share in shares)
    assert bits["coded_bits"] == pytest.approx(entropy)
    silent = RoundedFeatures().measure(torch.zeros(5, 16), 3.0)
    assert silent["coded_bits"] == 0


def test_zeros_need_not_be_sent():
    code = torch.tensor([[0.0, 0, 3, 0], [1, 0, 3, 2]])
    bits = LargestOnly().measure(LargestOnly().features(code, code, 2.0, torch.Generator()), 2.0)
    assert bits["bits"] == pytest.approx(64 + math.log2(6))
    assert bits["coded_bits"] == pytest.approx((32 + 2 + 64 + math.log2(6)) / 2)


# Curves


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def curve(damage, severities, probe):
    return tiny_curve(
        encoder=PIXELS, corruption=damage, severities=severities, probe=probe, repeats=2
    )


@pytest.mark.parametrize(
    "probe", [Ridge(), NearestCentroid(), LinearProbe(SGD(lr=1.0), Constant(), epochs=2)], ids=repr
)
def test_a_curve_of_any_probe_is_that_of_its_classifier_on_damaged_features(probe, store):
    stage = curve(LargestOnly(), (1.0, 8.0, 64.0), probe)
    found = store.get(stage)
    kept = {split: store.get(Features(PIXELS, DATA, split))["features"] for split in TWO}
    truth = DATA.split("test").labels
    for row, severity in enumerate(stage.severities):
        own = LargestOnly().features(kept["test"], kept["train"], severity, torch.Generator())
        fitted = probe.fit(kept["train"], 10, stage.task.probe_specs())
        for repeat in range(2):
            right = fitted.logits(own, row * 2 + repeat).argmax(1) == truth
            accuracy = 100 * right.double().mean()
            assert found["top1"][row, repeat] == pytest.approx(float(accuracy), abs=0.6)
    assert found["passes"] == 0


TWO = ("train", "test")


def test_a_curve_tells_the_bits_of_an_example_and_no_other_curve_has_them(store):
    stage = curve(RoundedFeatures(), (1.0, 4.0), NearestCentroid())
    assert stage.metrics == ("top1", "top5", "bits", "coded_bits")
    found = store.get(stage)
    assert found["bits"].tolist() == [[64, 64], [256, 256]]
    assert (found["coded_bits"] < found["bits"]).all()
    dropped = curve(DroppedDimensions(), (0.0, 0.5), NearestCentroid())
    assert dropped.metrics == ("top1", "top5")
    assert store.get(dropped)["top1"][0].unique().numel() == 1


@pytest.mark.parametrize(
    ("damage", "severity", "complaint"),
    [
        (DroppedDimensions(), 1.5, "Curve.severities must be between 0 and 1, got 1.5"),
        (RoundedFeatures(), 0.0, "whole numbers of bits between 1 and 12, got 0"),
        (RoundedFeatures(), 13.0, "whole numbers of bits between 1 and 12, got 13"),
        (RoundedFeatures(), 2.5, "whole numbers of bits between 1 and 12, got 2.5"),
        (LargestOnly(), 0.0, "whole numbers of dimensions, at least 1, got 0"),
        (LargestOnly(), 65.0, "at most 64, the features of the encoder, got 65"),
    ],
    ids=str,
)
def test_impossible_severities_are_refused_before_any_work(damage, severity, complaint):
    with pytest.raises(FieldError, match=complaint):
        curve(damage, (severity,), Ridge()).preflight()
