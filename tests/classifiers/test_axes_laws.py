"""Which learners see axes: the law of Ng (ICML 2004) on features as they are, turned and reordered.

A rotation-invariant learner answers the same on rotated features, to rounding. Every learner
answers the same on permuted ones, but for ties and for what trees draw.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

import pytest
import torch
from planted import CLASSES, features, heads
from torch.testing import assert_close

from monosem.classifiers.best_dimensions import (
    AnovaF,
    BestDimensions,
    EachClass,
    MostActive,
    MutualInformation,
)
from monosem.classifiers.closed_form import NearestCentroid, Ridge
from monosem.classifiers.logistic import LogisticRegression, SparseLogisticRegression
from monosem.classifiers.naive_bayes import BernoulliNaiveBayes, GaussianNaiveBayes
from monosem.classifiers.neighbours import KNN
from monosem.classifiers.trees import Boosting, DecisionTree, RandomForest
from monosem.datasets.digits import Digits
from monosem.models.baselines import Permuted, Pixels, Rotated

SEES_NO_AXES = [Ridge(), NearestCentroid(), KNN(), KNN("cosine")]
SEES_AXES = [
    KNN("manhattan"),
    GaussianNaiveBayes(),
    BernoulliNaiveBayes(),
    SparseLogisticRegression((0.03, 0.3), folds=2),
    BestDimensions(4, AnovaF(), LogisticRegression((1e-2,))),
    BestDimensions(4, EachClass(), LogisticRegression((1e-2,))),
    BestDimensions(4, MutualInformation(), LogisticRegression((1e-2,))),
    BestDimensions(4, MostActive(), LogisticRegression((1e-2,))),
]
TREES = [DecisionTree(), RandomForest(), Boosting(leaf=(5,), rounds=5)]

VALUES, LABELS = features(codes=True)
TEST, TRUTH = features(seed=5, codes=True)
HEADS = heads(LABELS)


def turned(values, kind):
    """Values (n, 12) as a representation of twelve pixels would turn them."""

    class Twelve(Pixels):
        width = values.shape[1]

    return kind(Twelve(Digits(size=8))).mapping()(values)


def logits(learner, kind=None):
    """(heads, n, classes) of the test rows."""
    train, test = (VALUES, TEST) if kind is None else (turned(VALUES, kind), turned(TEST, kind))
    fitted = learner.fit(train, CLASSES, HEADS)
    return torch.stack([fitted.logits(test, position) for position in range(len(HEADS))])


def name(learner):
    rule = getattr(learner, "rule", None)
    return f"{type(learner).__name__}-{getattr(learner, 'distance', type(rule).__name__)}"


@pytest.mark.parametrize("learner", SEES_NO_AXES, ids=name)
def test_a_rotation_changes_no_answer_of_an_exact_rotation_invariant_learner(learner):
    assert_close(logits(learner, Rotated), logits(learner), rtol=1e-4, atol=1e-4)


def test_a_rotation_changes_an_l2_logistic_regression_by_its_tolerance_alone():
    """The penalties that are chosen are the same as well."""
    learner = LogisticRegression()
    before, after = logits(learner).softmax(2), logits(learner, Rotated).softmax(2)
    assert_close(after, before, rtol=0, atol=1e-3)


@pytest.mark.parametrize("learner", [*SEES_AXES, DecisionTree()], ids=name)
def test_a_rotation_changes_what_a_learner_answers_that_sees_axes(learner):
    before, after = logits(learner).argmax(2), logits(learner, Rotated).argmax(2)
    assert (before != after).double().mean() > 0.01


@pytest.mark.parametrize("learner", [*SEES_NO_AXES, *SEES_AXES], ids=name)
def test_a_permutation_changes_no_answer(learner):
    assert_close(logits(learner, Permuted), logits(learner), rtol=1e-2, atol=5e-3)


@pytest.mark.parametrize("learner", TREES, ids=name)
def test_a_permutation_changes_trees_by_their_draws_alone(learner):
    """Over several seeds the mean accuracy on all examples is the same."""
    train, labels = features(400)
    test, truth = features(400, seed=5)
    base = heads(labels)[0]
    trees = replace(learner, leaf=(10,))

    def accuracy(turn):
        own = [base._replace(seed=seed) for seed in range(4)]
        fitted = trees.fit(turn(train), CLASSES, own)
        return mean(
            float((fitted.logits(turn(test), position).argmax(1) == truth).double().mean())
            for position in range(len(own))
        )

    as_is = accuracy(lambda values: values)
    assert accuracy(lambda values: turned(values, Permuted)) == pytest.approx(as_is, abs=0.04)


@pytest.mark.parametrize("learner", [*SEES_NO_AXES, *SEES_AXES, *TREES], ids=name)
def test_every_learner_learns_and_clean_labels_are_better_than_wrong_ones(learner):
    accuracy = (logits(learner).argmax(2) == TRUTH).double().mean(1)
    assert accuracy[0] > 0.4  # chance is .25
    assert accuracy[0] > accuracy[2] - 0.05
