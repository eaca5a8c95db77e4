"""Information of known factors against scikit-learn, and what it says of features made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from sample_features import FACTORS, FEATURES, batch_of, draw
from sklearn.metrics import mutual_info_score
from torch.testing import assert_close

from monosem.metrics import factors
from monosem.metrics.factors import FactorInformation, binned, mutual_information


def test_bins_keep_equal_values_together():
    column = torch.tensor([0.0, 0, 0, 0, 0, 0, 5, 1, 3, 2])[:, None]
    assert binned(column, 5).flatten().tolist() == [0, 0, 0, 0, 0, 0, 4, 1, 3, 2]
    assert binned(column, 2).flatten().tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 1, 0]
    assert binned(torch.ones(5, 2), 20).unique().tolist() == [0]


def test_bins_cut_different_values_evenly():
    column = torch.randn(1000, 1, dtype=torch.float64, generator=draw(0))
    assert binned(column, 20).flatten().bincount().tolist() == [50] * 20


def test_mutual_information_equals_scikit_learn_s_less_the_correction_for_chance():
    codes, hue = binned(FEATURES, 6), FACTORS["hue"]
    information = mutual_information(codes, hue)
    for dimension in range(9):
        column = codes[:, dimension]
        cells = len(set(zip(column.tolist(), hue.tolist(), strict=True)))
        chance = (cells - len(column.unique()) - 3 + 1) / 100
        expected = max(mutual_info_score(column, hue) - chance, 0)
        assert information[dimension].item() == pytest.approx(expected, abs=1e-9)


def test_the_correction_leaves_nothing_of_chance():
    generator = draw(0)
    noise = torch.randn(2000, 40, generator=generator)
    factor = torch.randint(0, 10, (2000,), generator=generator)
    assert mutual_information(binned(noise, 20), factor).mean() < 0.006


def test_the_correction_leaves_all_of_what_is_not_chance():
    factor = torch.randint(0, 10, (2000,), generator=draw(0))
    information = mutual_information(factor[:, None], factor).item()
    assert information == pytest.approx(math.log(10), abs=0.01)


def information_of_dimensions_made_by_hand():
    """Dimensions: hue; size; hue and size; noise; constant; dead."""
    generator = draw(1)
    hue = torch.randint(0, 4, (2000,), generator=generator)
    size = torch.randint(0, 2, (2000,), generator=generator)
    noise = torch.randn(2000, generator=generator)
    columns = [hue, size, hue + 10.0 * size, noise, torch.ones(2000), torch.zeros(2000)]
    features = torch.stack([column.float() for column in columns], 1)
    labels = torch.zeros(2000, dtype=torch.long)
    return FactorInformation()(batch_of(features, labels, factors={"hue": hue, "size": size}))


def test_a_dimension_of_one_factor_has_the_full_gap_and_share():
    results = information_of_dimensions_made_by_hand()
    assert results["factor_gap"].values[:2].tolist() == pytest.approx([1, 1], abs=0.01)
    assert results["factor_share"].values[:2].tolist() == pytest.approx([1, 1], abs=0.01)


def test_a_dimension_of_two_factors_and_noise_have_no_gap():
    results = information_of_dimensions_made_by_hand()
    assert results["factor_gap"].values[2:4].tolist() == pytest.approx([0, 0], abs=0.02)
    assert results["factor_share"].values[2].item() == pytest.approx(0.5, abs=0.01)
    size_information = results["information_of_size"].values[:3].tolist()
    assert size_information == pytest.approx([0, 1, 1], abs=0.01)


def test_only_dimensions_that_vary_have_a_gap_and_only_informative_ones_a_share():
    results = information_of_dimensions_made_by_hand()
    assert results["factor_gap"].valid.tolist() == [True, True, True, True, False, False]
    assert results["factor_share"].valid.tolist() == [True, True, True, False, False, False]


def test_nothing_is_found_where_no_factor_is_known():
    assert FactorInformation()(batch_of(FEATURES)) == {}
    assert FactorInformation().declares() == ()


def test_a_detector_of_one_level_is_as_monosemantic_as_a_dimension_that_tells_all_levels():
    generator = draw(2)
    hue = torch.randint(0, 10, (4000,), generator=generator)
    size = torch.randint(0, 2, (4000,), generator=generator)
    two_levels_and_size = ((hue == 3) | (hue == 4)) + 3.0 * size
    features = torch.stack([(hue == 3).float(), hue.float(), two_levels_and_size], 1)
    labels = torch.zeros(4000, dtype=torch.long)
    batch = batch_of(features, labels, factors={"hue": hue, "size": size})
    gap = FactorInformation()(batch)["factor_gap"].values
    assert gap[:2].tolist() == pytest.approx([1, 1], abs=0.01)
    assert gap[2] < 0.6


def test_chunks_of_dimensions_change_nothing(monkeypatch):
    batch = batch_of(FEATURES, factors=FACTORS)
    at_once = FactorInformation()(batch)
    monkeypatch.setattr(factors, "CHUNK", 24)  # 3 dimensions at a time
    in_chunks = FactorInformation()(batch)
    for name, result in at_once.items():
        assert_close(in_chunks[name].values, result.values, rtol=1e-6, atol=1e-7)
