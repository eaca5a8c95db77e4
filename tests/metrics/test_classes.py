"""Class metrics against plain loops of the papers' definitions and the reference (golden d, g)."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from sample_features import DEAD, FEATURES, LABELS, batch_of, draw
from torch.testing import assert_close

from monosem.metrics.classes import (
    ClassConsistency,
    ClassSelectivity,
    ClassSpread,
    class_consistency,
    class_counts,
    class_entropy,
)


def labels_that_activate(dimension):
    labels = []
    for row, label in zip(FEATURES, LABELS, strict=True):
        if row[dimension] / row.norm() > 1e-5:
            labels.append(int(label))
    return labels


LIVE = [dimension for dimension in range(9) if dimension != DEAD]


def test_class_consistency_equals_a_plain_loop():
    result = ClassConsistency()(batch_of(FEATURES))["class_consistency"]
    for dimension in LIVE:
        labels = labels_that_activate(dimension)
        most_frequent = max(labels.count(c) for c in range(4))
        assert result.values[dimension].item() == pytest.approx(most_frequent / len(labels))
    assert result.mean == pytest.approx(sum(result.values.tolist()) / 8)


def test_class_entropy_equals_a_plain_loop():
    result = ClassConsistency()(batch_of(FEATURES))["class_entropy"]
    for dimension in LIVE:
        labels = labels_that_activate(dimension)
        shares = [labels.count(c) / len(labels) for c in range(4)]
        expected = -sum(p * math.log(p + 1e-5) for p in shares)
        assert result.values[dimension].item() == pytest.approx(expected)


def test_a_dimension_that_no_image_activates_has_no_class_consistency():
    for result in ClassConsistency()(batch_of(FEATURES)).values():
        assert result.values[DEAD] == 0
        assert result.valid.tolist() == [dimension in LIVE for dimension in range(9)]


def test_class_selectivity_equals_a_plain_loop():
    signed = FEATURES - 0.3 * (torch.arange(9) == 4)
    values = ClassSelectivity()(batch_of(signed))["class_selectivity"].values
    for dimension in LIVE:
        means = [signed[c == LABELS, dimension].abs().mean().item() for c in range(4)]
        best = max(means)
        rest = (sum(means) - best) / 3
        expected = (best - rest) / (best + rest)
        assert values[dimension].item() == pytest.approx(expected, rel=1e-6)
    assert values[DEAD] == 0


def test_a_dimension_of_one_class_is_consistent_and_has_no_entropy():
    batch = batch_of(F.one_hot(LABELS, 4).float())
    results = ClassConsistency()(batch)
    assert results["class_consistency"].mean == 1
    assert results["class_entropy"].mean == pytest.approx(0, abs=1e-4)
    assert ClassSelectivity()(batch)["class_selectivity"].mean == 1


def test_signed_features_are_active_nearly_everywhere_and_not_consistent():
    dense = torch.randn(50, 9, generator=draw(3))
    largest = LABELS.bincount().max().item() / 50
    result = ClassConsistency()(batch_of(dense))["class_consistency"]
    assert result.mean == pytest.approx(largest)


@pytest.mark.parametrize(("suffix", "epsilon"), [("", 0.1), ("_eps1e5", 1e-5)])
def test_cluster_accuracy_equals_the_reference_metric(golden, suffix, epsilon):
    g = golden("d_stats")
    counts = class_counts(g["features"], g["labels"], epsilon)
    active = counts.sum(0) > 0
    accuracy = 100 * class_consistency(counts)[active]
    expected = g[f"metric_cluster_acc_per_dim{suffix}"]
    assert_close(accuracy.float(), expected, rtol=1e-5, atol=1e-5)
    entropy = class_entropy(counts, epsilon)[active]
    assert_close(entropy.float(), g[f"metric_cluster_ent_per_dim{suffix}"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tag", ["signed", "relu"])
def test_class_consistency_and_entropy_equal_the_ncl_code(golden, tag):
    g = golden("g_main_eval")
    features, labels = g[f"{tag}_features"], g["labels"]
    sometimes_positive = features.relu().sum(0) > 0
    counts = class_counts(features, labels, 1e-5)
    consistency = 100 * class_consistency(counts)[sometimes_positive]
    expected = g[f"{tag}_class_consistency_pct_per_dim"]
    assert_close(consistency.float(), expected, rtol=1e-5, atol=1e-5)
    entropy = class_entropy(counts, 1e-5)[sometimes_positive]
    assert_close(entropy.float(), g[f"{tag}_entropy_per_dim"], rtol=1e-5, atol=1e-5)


def test_class_spread_and_coverage_equal_plain_loops():
    found = ClassSpread()(batch_of(FEATURES))
    spreads, covered = [], []
    means = {c: FEATURES[c == LABELS].abs().double().mean(0) for c in range(4)}
    for c, own in means.items():
        spreads.append(float(own.sum()) ** 2 / float((own**2).sum()))
        rest = sum(means[other] for other in range(4) if other != c) / 3
        best = max(range(9), key=lambda at, own=own, rest=rest: own[at] - rest[at])
        rows = [row for row, label in zip(FEATURES, LABELS, strict=True) if label == c]
        covered.append(sum(bool(row[best] / row.norm() > 1e-5) for row in rows) / len(rows))
    assert found["class_spread"] == pytest.approx(sum(spreads) / 4, rel=1e-5)
    assert found["class_coverage"] == pytest.approx(sum(covered) / 4)


@pytest.mark.parametrize("shared", [1, 2, 5])
def test_a_class_that_takes_turns_among_dimensions_is_spread_over_as_many(shared):
    """Each image of a class activates one of them: all are perfectly consistent."""
    labels = torch.arange(40 * shared) % 4
    turn = torch.arange(40 * shared) // 4 % shared
    features = torch.zeros(len(labels), 4 * shared)
    features[torch.arange(len(labels)), labels * shared + turn] = 1.0
    batch = batch_of(features)._replace(labels=labels)
    assert ClassConsistency()(batch)["class_consistency"].mean == 1
    found = ClassSpread()(batch)
    assert found["class_spread"] == pytest.approx(shared)
    assert found["class_coverage"] == pytest.approx(1 / shared)
