"""Information of known factors against scikit-learn, and what it says of features made by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from sample_features import FACTORS, FEATURES, batch_of, draw
from sklearn.metrics import adjusted_mutual_info_score, mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.metrics.cluster import expected_mutual_information as scikit_expectation
from torch.testing import assert_close

from monosem.metrics import factors
from monosem.metrics.factors import (
    FactorInformation,
    adjusted_information,
    binned,
    expected_mutual_information,
    joint_counts,
    mutual_information,
)


def test_bins_keep_equal_values_together():
    column = torch.tensor([0.0, 0, 0, 0, 0, 0, 5, 1, 3, 2])[:, None]
    assert binned(column, 5).flatten().tolist() == [0, 0, 0, 0, 0, 0, 4, 1, 3, 2]
    assert binned(column, 2).flatten().tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 1, 0]
    assert binned(torch.ones(5, 2), 20).unique().tolist() == [0]


def test_bins_cut_different_values_evenly():
    column = torch.randn(1000, 1, dtype=torch.float64, generator=draw(0))
    assert binned(column, 20).flatten().bincount().tolist() == [50] * 20


def sparse_dimensions(n, active, d=200):
    """(n, d) float: every dimension is above 0 on so many of n examples, drawn by chance."""
    generator = draw(n + active)
    values = 0.1 + torch.rand(n, d, generator=generator)
    rank = torch.rand(n, d, generator=generator).argsort(0).argsort(0)
    return values * (rank < active)


def rows_and_columns(codes, factor):
    joint = joint_counts(codes, factor)
    return joint.sum(2), joint[0].sum(0)


def test_mutual_information_equals_scikit_learn_s():
    codes, hue = binned(FEATURES, 6), FACTORS["hue"]
    information = mutual_information(joint_counts(codes, hue))
    for dimension in range(9):
        expected = mutual_info_score(codes[:, dimension], hue)
        assert information[dimension].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("active", "bins"), [(1, 20), (3, 2), (30, 20), (300, 7)])
def test_what_chance_gives_is_scikit_learn_s_expectation(active, bins):
    codes = binned(sparse_dimensions(300, active, d=4), bins)
    factor = torch.randint(0, 7, (300,), generator=draw(0)) ** 2 // 4  # levels 3, 5, 7, 8 are empty
    expected = expected_mutual_information(*rows_and_columns(codes, factor))
    for dimension in range(4):
        table = contingency_matrix(codes[:, dimension], factor, sparse=True)
        judged = scikit_expectation(table, 300)
        assert expected[dimension].item() == pytest.approx(judged, abs=1e-12)


def test_what_chance_gives_is_the_mean_over_all_orders_of_a_factor():
    codes = torch.tensor([[0, 0], [0, 1], [1, 2], [2, 0], [0, 1]])
    factor = (0, 0, 1, 1, 2)
    orders = torch.tensor(list(itertools.permutations(factor)))
    every = torch.stack([mutual_information(joint_counts(codes, order)) for order in orders])
    expected = expected_mutual_information(*rows_and_columns(codes, torch.tensor(factor)))
    assert_close(expected, every.mean(0), rtol=0, atol=1e-12)


def test_adjusted_information_is_scikit_learn_s_adjusted_score():
    for active in (5, 40, 300):
        codes = binned(sparse_dimensions(300, active, d=5), 20)
        factor = torch.randint(0, 5, (300,), generator=draw(active))
        factor = torch.where(codes[:, 0] > 3, 2, factor)  # so that something can be told
        adjusted = adjusted_information(codes, factor)
        for dimension in range(5):
            judged = adjusted_mutual_info_score(codes[:, dimension], factor, average_method="min")
            assert adjusted[dimension].item() == pytest.approx(judged, abs=1e-9)


@pytest.mark.parametrize("active", [1, 2, 5, 14, 28, 90, 360])
def test_a_factor_of_pure_chance_is_not_known_by_dimensions_however_sparse(active):
    """360 images as in the digits' test split; dimensions of NCL are on for 28 of them."""
    factor = torch.arange(360) % 5
    adjusted = adjusted_information(binned(sparse_dimensions(360, active), 20), factor)
    assert abs(adjusted.mean()) < 0.01


@pytest.mark.parametrize("active", [1, 5, 28, 90])
def test_a_planted_factor_is_known_whole_however_sparse_the_dimension(active):
    factor = torch.arange(360) % 4
    detector = (torch.arange(360) < active)[:, None].long()
    assert adjusted_information(detector, detector[:, 0] * (1 + factor)) == pytest.approx(1)
    assert adjusted_information(factor[:, None] * detector, factor * detector[:, 0]) == (
        pytest.approx(1 if active > 1 else 0)
    )


def test_nothing_is_known_where_nothing_can_be_told():
    some, none, every = torch.arange(30) % 3, torch.zeros(30).long(), torch.arange(30)
    for codes, factor in [(none, some), (some, none), (none, none), (every, every)]:
        assert adjusted_information(codes[:, None], factor).item() == 0


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
