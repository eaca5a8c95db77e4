"""The feature monosemanticity score against trees of scikit-learn, grown and cut one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sample_features import FEATURES, LABELS, batch_of
from sklearn.metrics import balanced_accuracy_score
from sklearn.tree import DecisionTreeClassifier

from monosem.metrics.trees import FeatureMonosemanticity


def accuracy_and_root(table, is_class, depth):
    """The balanced accuracy of a tree of this depth, and the dimension of its root."""
    tree = DecisionTreeClassifier(max_depth=depth, class_weight="balanced", random_state=0)
    tree.fit(table, is_class)
    return balanced_accuracy_score(is_class, tree.predict(table)), tree.tree_.feature[0]


def score_of_class(label, p, n):
    table, is_class = FEATURES.numpy().copy(), (label == LABELS).numpy()
    root_accuracy, _ = accuracy_and_root(table, is_class, 1)
    deeper = [accuracy_and_root(table, is_class, 1 + depth)[0] for depth in range(1, n + 1)]
    for _ in range(p):
        _, root = accuracy_and_root(table, is_class, 1)
        table[:, root] = 0
    accuracy_without, _ = accuracy_and_root(table, is_class, 1)
    local = 2 * (root_accuracy - accuracy_without)
    overall = 1 - sum(accuracy - root_accuracy for accuracy in deeper) / n
    return root_accuracy * (local + overall) / 2


@pytest.mark.parametrize(("p", "n"), [(1, 2), (2, 1), (3, 3)])
def test_the_feature_monosemanticity_score_equals_trees_grown_and_cut_one_by_one(p, n):
    expected = np.mean([score_of_class(label, p, n) for label in range(4)])
    results = FeatureMonosemanticity(p=p, n=n)(batch_of(FEATURES))
    assert results["fms"] == pytest.approx(expected, rel=1e-6)


def test_one_dimension_a_class_has_full_capacity_and_nothing_to_gain_from_depth():
    labels = torch.arange(40) % 4
    results = FeatureMonosemanticity()(batch_of(F.one_hot(labels, 4).float(), labels))
    assert results["fms_capacity"] == pytest.approx(1)
    assert results["fms_global"] == pytest.approx(1)
    # without it, another class's dimension still tells a third of the rest from this class
    assert results["fms_local"] == pytest.approx(2 / 3)


def test_two_dimensions_alike_lose_locality():
    labels = torch.arange(40) % 4
    twice = F.one_hot(labels, 4).float().repeat(1, 2)
    results = FeatureMonosemanticity()(batch_of(twice, labels))
    assert results["fms_local"] == pytest.approx(0)
    assert results["fms"] == pytest.approx(0.5)


def test_scores_of_a_class_do_not_depend_on_how_features_lie_in_memory():
    metric, is_class = FeatureMonosemanticity(p=2), (LABELS == 1).numpy()
    by_image = np.ascontiguousarray(FEATURES.numpy())
    by_dimension = np.asfortranarray(by_image)
    assert metric.class_scores(by_dimension, is_class) == metric.class_scores(by_image, is_class)
