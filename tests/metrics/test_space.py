"""Sparsity, rank and orthogonality against their definitions and the reference (golden d, g)."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from sample_features import FEATURES, LABELS, batch_of, draw
from torch.testing import assert_close

from monosem.metrics.base import as_number, measure
from monosem.metrics.classes import ClassConsistency
from monosem.metrics.space import (
    Dimensions,
    EffectiveRank,
    Orthogonality,
    Sparsity,
    correlation_error,
    spectral_entropy,
)


def test_sparsity_counts_what_is_zero():
    results = Sparsity()(batch_of(FEATURES))
    is_zero = FEATURES == 0
    assert results["sparsity"] == pytest.approx(is_zero.double().mean().item())
    assert results["l0"] == pytest.approx((~is_zero).sum(1).double().mean().item())
    activity = (~is_zero[:, 0]).double().mean().item()
    assert results["activity"].values[0].item() == pytest.approx(activity)


def test_signed_features_are_not_sparse():
    results = Sparsity()(batch_of(torch.randn(50, 9, generator=draw(3))))
    assert results["sparsity"] == 0
    assert results["l0"] == 9


def test_hoyer_s_sparsity_equals_its_definition():
    expected = [(3 - row.abs().sum() / row.norm()) / 2 for row in FEATURES if row.any()]
    result = Sparsity()(batch_of(FEATURES))["hoyer"]
    assert result == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)


def test_hoyer_s_sparsity_is_1_of_one_dimension_and_0_of_dimensions_that_are_all_alike():
    assert Sparsity()(batch_of(torch.eye(6)))["hoyer"] == 1
    alike = Sparsity()(batch_of(torch.ones(6, 4)))["hoyer"]
    assert alike == pytest.approx(0, abs=1e-6)


def test_dead_and_constant_dimensions_are_counted():
    columns = [torch.zeros(50), torch.ones(50), FEATURES[:, 0], -torch.ones(50)]
    assert Dimensions()(batch_of(torch.stack(columns, 1))) == {
        "live_dimensions": 3,
        "dead_dimensions": 1,
        "constant_dimensions": 2,
    }


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)], ids=["tall", "wide"])
def test_the_spectral_entropy_is_that_of_the_singular_values(shape):
    features = torch.randn(shape, generator=draw(5))
    singular = torch.linalg.svdvals(features.double())
    shares = singular / singular.sum()
    expected = -(shares * (shares + 1e-6).log()).sum()
    assert_close(spectral_entropy(features), expected, rtol=1e-9, atol=1e-9)


def test_four_directions_of_equal_size_have_an_effective_rank_of_4():
    directions = F.one_hot(torch.arange(8) % 4, 4).float()
    result = EffectiveRank()(batch_of(directions))["effective_rank"]
    assert result == pytest.approx(4, rel=1e-4)


def test_orthogonal_dimensions_have_no_correlation():
    one_hot = F.one_hot(LABELS, 4).float()
    assert Orthogonality()(batch_of(one_hot))["correlation"] == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("case", ["stats_on_normalised", "stats_on_signed", "stats"])
def test_statistics_equal_the_reference(golden, case):
    g = golden("d_stats")
    features = g["signed_features" if case == "stats_on_signed" else "features"]
    if case == "stats_on_normalised":
        features = F.normalize(features, dim=1)
    expected = dict(zip(g["stat_names"].tolist(), g[case].tolist(), strict=True))
    metrics = (ClassConsistency(), Sparsity(), Dimensions(), EffectiveRank(), Orthogonality())
    results = measure(metrics, batch_of(features, g["labels"]))
    ours = {name: as_number(result) for name, result in results.items()}
    close = {"rel": 1e-5}
    assert ours["live_dimensions"] == expected["num_active_dim"]
    assert ours["sparsity"] == pytest.approx(expected["sparse_vals_ratio"], abs=1e-6)
    assert ours["spectral_entropy"] == pytest.approx(expected["effective_rank"], **close)
    assert ours["effective_rank"] == pytest.approx(math.exp(expected["effective_rank"]), **close)
    assert ours["class_consistency"] == pytest.approx(expected["semantic_consistency"], **close)
    assert ours["correlation"] == pytest.approx(expected["orthogonality"], **close)


@pytest.mark.parametrize("tag", ["signed", "relu"])
def test_the_median_correlation_error_equals_the_ncl_code(golden, tag):
    g = golden("g_main_eval")
    features = g[f"{tag}_features"]
    error = correlation_error(features[:, features.sum(0) > 10])
    expected = float(g[f"{tag}_orth_median_err"])
    assert_close(error.median().item(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tag", ["signed", "relu"])
def test_the_sparsity_of_every_image_equals_the_ncl_code(golden, tag):
    g = golden("g_main_eval")
    metric = Sparsity(epsilon=1e-2)
    percent = [
        100 * metric(batch_of(row[None], g["labels"][:1]))["sparsity"]
        for row in g[f"{tag}_features"]
    ]
    expected = g[f"{tag}_sparsity_per_sample_pct"].double()
    assert_close(torch.tensor(percent), expected, rtol=1e-5, atol=1e-5, check_dtype=False)
