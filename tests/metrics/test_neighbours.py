"""Alike images and neighbours against sums over pairs, scikit-learn and the NCL code (golden g)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sample_features import DEAD, FEATURES, LABELS, REFERENCE_FEATURES, batch_of, draw
from sklearn.metrics import average_precision_score
from torch.testing import assert_close

from monosem.metrics import base
from monosem.metrics.neighbours import (
    MonosemanticityScore,
    RetrievalPrecision,
    pair_similarity,
    precision_at,
)
from monosem.metrics.space import by_activity

ONE_HOT = F.one_hot(LABELS).float()


def score_by_pairs(activations, reference_features):
    """Pach et al., section 3.2, pair by pair."""
    low, high = activations.min(), activations.max()
    a = ((activations - low) / (high - low)).tolist()
    weighted_cosines = total_weight = 0.0
    for n, m in itertools.permutations(range(len(a)), 2):
        one, other = reference_features[n], reference_features[m]
        cosine = float(one @ other / one.norm() / other.norm())
        weighted_cosines += a[n] * a[m] * cosine
        total_weight += a[n] * a[m]
    return weighted_cosines / total_weight


@pytest.mark.parametrize("shift", [0.0, -0.7], ids=["rectified", "signed"])
@pytest.mark.parametrize(
    ("name", "reference_features"),
    [
        ("monosemanticity_score", REFERENCE_FEATURES),
        ("monosemanticity_score_of_classes", ONE_HOT),
    ],
)
def test_the_monosemanticity_score_equals_the_sum_over_all_pairs(name, reference_features, shift):
    is_dead = torch.arange(9) == DEAD
    features = torch.where(is_dead, FEATURES, FEATURES + shift)
    batch = batch_of(features, reference_features=REFERENCE_FEATURES)
    result = MonosemanticityScore()(batch)[name]
    for dimension in range(9):
        if dimension != DEAD:
            expected = score_by_pairs(features[:, dimension], reference_features)
            assert result.values[dimension].item() == pytest.approx(expected, abs=1e-6)
    assert result.valid.tolist() == (~is_dead).tolist()


def test_the_score_of_all_images_is_the_mean_cosine_of_all_pairs():
    batch = batch_of(FEATURES, reference_features=REFERENCE_FEATURES)
    cosines = [
        float(F.cosine_similarity(REFERENCE_FEATURES[n], REFERENCE_FEATURES[m], dim=0))
        for n, m in itertools.combinations(range(50), 2)
    ]
    result = MonosemanticityScore()(batch)["monosemanticity_score_of_all_images"]
    assert result == pytest.approx(np.mean(cosines), abs=1e-6)


def test_a_dimension_of_one_class_has_the_full_score_where_classes_are_what_is_seen():
    result = MonosemanticityScore()(batch_of(F.one_hot(LABELS, 4).float()))
    assert result["monosemanticity_score"].mean == pytest.approx(1)


def test_a_dimension_that_one_image_activates_has_no_monosemanticity_score():
    batch = batch_of(torch.eye(50), reference_features=REFERENCE_FEATURES)
    score = MonosemanticityScore()(batch)["monosemanticity_score"]
    assert not score.valid.any()
    assert score.mean == 0


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5, 1e-7])
def test_the_monosemanticity_score_is_exact_where_one_image_outweighs_all_others(epsilon):
    weights = torch.tensor([1.0, epsilon, epsilon, 0.0])
    reference_features = torch.randn(4, 5, generator=draw(7))
    unit = F.normalize(reference_features.double(), dim=1)
    a = weights.double()
    pair_weights = torch.outer(a, a).fill_diagonal_(0)
    expected = float((pair_weights * (unit @ unit.T)).sum() / pair_weights.sum())
    score, _ = pair_similarity(reference_features, weights[:, None])
    assert score.item() == pytest.approx(expected, abs=1e-6)


def test_chunks_of_rows_change_nothing(monkeypatch):
    at_once = pair_similarity(REFERENCE_FEATURES, FEATURES)
    monkeypatch.setattr(base, "CHUNK", 24)
    in_chunks = pair_similarity(REFERENCE_FEATURES, FEATURES)
    assert_close(in_chunks, at_once, rtol=1e-6, atol=1e-7)


def test_precision_and_mean_average_precision_equal_scikit_learn_s():
    # signed, as rows of few active dimensions tie
    features = torch.randn(50, 9, dtype=torch.float64, generator=draw(6))
    rows = F.normalize(features, dim=1)
    precisions, average_precisions = [], []
    for query in range(50):
        others = [index for index in range(50) if index != query]
        distance = np.array([float((rows[query] - rows[i]).square().sum()) for i in others])
        is_hit = np.array([bool(LABELS[i] == LABELS[query]) for i in others])
        precisions.append(is_hit[np.argsort(distance)[:10]].mean())
        average_precisions.append(average_precision_score(is_hit, -distance))
    results = RetrievalPrecision()(batch_of(features))
    assert results["precision_at_10"] == pytest.approx(np.mean(precisions), abs=1e-6)
    expected = np.mean(average_precisions)
    assert results["mean_average_precision"] == pytest.approx(expected, abs=1e-6)


def test_neighbours_of_a_sorted_split_that_all_tie_are_at_chance():
    labels = torch.arange(5).repeat_interleave(40)
    results = RetrievalPrecision()(batch_of(torch.ones(200, 3), labels))
    assert results["mean_average_precision"] == pytest.approx(0.2, abs=0.04)
    assert results["precision_at_10"] == pytest.approx(0.2, abs=0.15)


def test_a_single_image_has_no_neighbours():
    results = RetrievalPrecision()(batch_of(torch.ones(1, 3), LABELS[:1]))
    assert results["precision_at_10"] == 0


@pytest.mark.parametrize("tag", ["signed", "relu"])
def test_retrieval_precision_equals_the_ncl_code(golden, tag):
    g = golden("g_main_eval")
    rows = F.normalize(g[f"{tag}_features"], dim=1)
    order = by_activity(g[f"{tag}_features"])
    dimensions = g["precision_ks"].tolist()[1:]
    expected = g[f"{tag}_precision_at_10"].tolist()[1:]
    for count, precision in zip(dimensions, expected, strict=True):
        most_active = rows[:, order[:count]]
        ours = precision_at(most_active, g["labels"], 10, chunk=70)
        assert ours == pytest.approx(precision, rel=1e-6)
