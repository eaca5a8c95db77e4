"""Monosemanticity in matrix form against plain loops and the reference (golden d, g)."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from monosem import metrics
from monosem.metrics import ClassConsistency, Dimensions, EffectiveRank, Orthogonality, Sparsity, by_activity, precision_at

LABELS = torch.randint(0, 4, (50,), generator=torch.Generator().manual_seed(1))
FEATURES = torch.randn(50, 9, generator=torch.Generator().manual_seed(0)).relu() * (torch.arange(9) != 2)


def test_class_consistency_and_entropy_equal_plain_loops():
    consistency, entropy = metrics.class_consistency(FEATURES, LABELS), metrics.class_entropy(FEATURES, LABELS)
    for d in range(9):
        active = [int(label) for row, label in zip(FEATURES, LABELS, strict=True) if row[d] / row.norm() > 1e-5]
        counts = [active.count(c) for c in range(4)]
        if not active:
            assert d == 2 and consistency[d] == 0
            continue
        assert consistency[d].item() == pytest.approx(max(counts) / len(active))
        shares = [count / len(active) for count in counts]
        assert entropy[d].item() == pytest.approx(-sum(p * math.log(p + 1e-5) for p in shares))


def test_a_dimension_of_one_class_is_consistent_and_has_no_entropy():
    features = F.one_hot(LABELS, 4).float()
    assert ClassConsistency()(features, LABELS)["class_consistency"] == 1
    assert ClassConsistency()(features, LABELS)["class_entropy"] == pytest.approx(0, abs=1e-4)
    assert Orthogonality()(features, LABELS)["correlation"] == pytest.approx(0, abs=1e-7)
    assert EffectiveRank()(F.one_hot(torch.arange(8) % 4, 4).float(), LABELS)["effective_rank"] == pytest.approx(4, rel=1e-4)


@pytest.mark.parametrize("case", ["stats_on_normalised", "stats_on_signed", "stats"])
def test_statistics_equal_the_reference(golden, case):
    g = golden("d_stats")
    features = g["signed_features" if case == "stats_on_signed" else "features"]
    if case == "stats_on_normalised":
        features = F.normalize(features, dim=1)
    expected = dict(zip(g["stat_names"].tolist(), g[case].tolist(), strict=True))
    measures = (ClassConsistency(), Sparsity(), Dimensions(), EffectiveRank(), Orthogonality())
    ours = {name: value for measure in measures for name, value in measure(features, g["labels"]).items()}
    close = {"rel": 1e-5}
    assert ours["live_dimensions"] == expected["num_active_dim"]
    assert ours["sparsity"] == pytest.approx(expected["sparse_vals_ratio"], abs=1e-6)
    assert ours["spectral_entropy"] == pytest.approx(expected["effective_rank"], **close)
    assert ours["effective_rank"] == pytest.approx(math.exp(expected["effective_rank"]), **close)
    assert ours["class_consistency"] == pytest.approx(expected["semantic_consistency"], **close)
    assert ours["correlation"] == pytest.approx(expected["orthogonality"], **close)


@pytest.mark.parametrize(("suffix", "epsilon"), [("", 0.1), ("_eps1e5", 1e-5)])
def test_cluster_accuracy_equals_the_reference_metric(golden, suffix, epsilon):
    g = golden("d_stats")
    active = metrics.class_counts(g["features"], g["labels"], epsilon).sum(0) > 0
    ours = 100 * metrics.class_consistency(g["features"], g["labels"], epsilon)[active]
    assert_close(ours.float(), g[f"metric_cluster_acc_per_dim{suffix}"], rtol=1e-5, atol=1e-5)
    entropy = metrics.class_entropy(g["features"], g["labels"], epsilon)[active]
    assert_close(entropy.float(), g[f"metric_cluster_ent_per_dim{suffix}"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tag", ["signed", "relu"])
def test_the_ncl_code_s_evaluation_is_equalled(golden, tag):
    g = golden("g_main_eval")
    features, labels = g[f"{tag}_features"], g["labels"]
    kept = features.relu().sum(0) > 0
    consistency = 100 * metrics.class_consistency(features, labels)[kept]
    assert_close(consistency.float(), g[f"{tag}_class_consistency_pct_per_dim"], rtol=1e-5, atol=1e-5)
    assert_close(metrics.class_entropy(features, labels)[kept].float(), g[f"{tag}_entropy_per_dim"], rtol=1e-5, atol=1e-5)
    error = metrics.correlation_error(features[:, features.sum(0) > 10])
    assert_close(error.median().item(), float(g[f"{tag}_orth_median_err"]), rtol=1e-5, atol=1e-6)
    share = [100 * Sparsity(epsilon=1e-2)(row[None], labels[:1])["sparsity"] for row in features]
    assert_close(torch.tensor(share), g[f"{tag}_sparsity_per_sample_pct"].double(), rtol=1e-5, atol=1e-5, check_dtype=False)


@pytest.mark.parametrize("metric", [ClassConsistency(), Sparsity(), Dimensions(), EffectiveRank(), Orthogonality()], ids=repr)
@pytest.mark.parametrize(
    "features", [torch.zeros(6, 3), torch.ones(6, 3), torch.eye(6)[:, :1], -torch.eye(6)], ids=["zeros", "ones", "one", "minus"]
)
def test_dead_constant_and_negative_features_are_never_nan(metric, features):
    values = metric(features, torch.tensor([0, 1, 2, 0, 1, 2]))
    assert values and all(math.isfinite(value) for value in values.values())


def test_signed_features_are_active_nearly_everywhere_and_not_consistent():
    dense = torch.randn(50, 9, generator=torch.Generator().manual_seed(3))
    largest = LABELS.bincount().max().item() / 50
    assert ClassConsistency()(dense, LABELS)["class_consistency"] == pytest.approx(largest)
    assert Sparsity()(dense, LABELS) == {"sparsity": 0, "l0": 9}


@pytest.mark.parametrize("tag", ["signed", "relu"])
def test_retrieval_precision_equals_the_ncl_code(golden, tag):
    g = golden("g_main_eval")
    rows = torch.nn.functional.normalize(g[f"{tag}_features"], dim=1)
    order = by_activity(g[f"{tag}_features"])
    for count, expected in zip(g["precision_ks"].tolist()[1:], g[f"{tag}_precision_at_10"].tolist()[1:], strict=True):
        assert precision_at(rows[:, order[:count]], g["labels"], 10, chunk=70) == pytest.approx(expected, rel=1e-6)
