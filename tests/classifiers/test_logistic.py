"""Logistic regressions against scikit-learn, and the choice of their penalties."""

from __future__ import annotations

import pytest
import sklearn.linear_model
import sklearn.metrics
import torch
from planted import CLASSES, features, given, heads
from torch.testing import assert_close

from monosem.classifiers import logistic
from monosem.classifiers.closed_form import centre
from monosem.classifiers.kept import fold_of_examples
from monosem.classifiers.logistic import LogisticRegression, SparseLogisticRegression
from monosem.classifiers.solvers import Stop
from monosem.core.fields import FieldError

VALUES, LABELS = features()
TEST, _ = features(seed=5)
HEADS = heads(LABELS)


def scaled(rows, of):
    """(n, d) float64 on the scale on which penalties are meant."""
    centred = centre(of)
    return ((rows.double() - centred.mean) / centred.scale).numpy()


@pytest.fixture
def exact(monkeypatch):
    """Solvers go on until nothing moves."""
    monkeypatch.setattr(logistic, "FINAL", Stop(1e-9, 20_000))


@pytest.mark.parametrize("penalty", [1e-3, 1e-1])
def test_l2_is_scikit_learn_s_to_four_digits(penalty, exact):
    fitted = LogisticRegression((penalty,)).fit(VALUES, CLASSES, HEADS)
    for position, head in enumerate(HEADS):
        rows, labels = given(head, VALUES)
        theirs = sklearn.linear_model.LogisticRegression(
            C=1 / (len(rows) * penalty), tol=1e-9, max_iter=10_000
        )
        theirs.fit(scaled(rows, rows), labels.numpy())
        expected = torch.from_numpy(theirs.predict_proba(scaled(TEST, rows)))
        ours = fitted.logits(TEST, position).double().softmax(1)
        assert_close(ours, expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize(("penalty", "mix"), [(0.1, 1.0), (0.03, 0.5)])
def test_l1_and_elastic_net_are_scikit_learn_s_to_four_digits(penalty, mix, exact):
    """lambda is a share of the one that leaves no weight: the largest gradient where W is 0."""
    fitted = SparseLogisticRegression((penalty,), mix=mix).fit(VALUES, CLASSES, HEADS)
    for position, head in enumerate(HEADS):
        rows, labels = given(head, VALUES)
        targets = torch.eye(CLASSES, dtype=torch.float64)[labels]
        x = torch.from_numpy(scaled(rows, rows))
        largest = (x.T @ (targets.mean(0) - targets)).abs().max() / len(rows)
        strength = penalty * float(largest) / mix
        theirs = sklearn.linear_model.LogisticRegression(
            C=1 / (len(rows) * strength), l1_ratio=mix, solver="saga", tol=1e-9, max_iter=20_000
        )
        theirs.fit(x.numpy(), labels.numpy())
        expected = torch.from_numpy(theirs.predict_proba(scaled(TEST, rows)))
        ours = fitted.logits(TEST, position).double().softmax(1)
        assert_close(ours, expected, rtol=0, atol=5e-5)
        kept = (fitted.weight[position] != 0).sum()
        assert abs(int(kept) - int((theirs.coef_ != 0).sum())) <= 1


@pytest.mark.parametrize("learner", [LogisticRegression((1e-3,)), SparseLogisticRegression((0.1,))])
def test_where_a_solver_stops_probabilities_have_two_digits(learner, monkeypatch):
    usual = learner.fit(VALUES, CLASSES, HEADS)
    monkeypatch.setattr(logistic, "FINAL", Stop(1e-9, 20_000))
    exact = learner.fit(VALUES, CLASSES, HEADS)
    for position in range(len(HEADS)):
        stopped, final = (one.logits(TEST, position).softmax(1) for one in (usual, exact))
        assert_close(stopped, final, rtol=0, atol=5e-3)


def test_close_to_the_largest_penalty_hardly_a_dimension_is_left_and_nothing_breaks():
    fitted = SparseLogisticRegression((0.999,)).fit(VALUES, CLASSES, HEADS)
    assert ((fitted.weight != 0).sum((1, 2)) <= 2).all()
    assert fitted.logits(TEST, 0).isfinite().all()


def test_the_penalty_has_the_least_loss_on_held_out_labels_as_they_are_given():
    candidates = (1e-3, 1e-2, 1e-1, 1.0)
    fitted = LogisticRegression(candidates, folds=4).fit(VALUES, CLASSES, HEADS)
    for position, head in enumerate(HEADS):
        rows, labels = given(head, VALUES)
        x, folds = scaled(rows, rows), fold_of_examples(labels, 4)
        losses = {}
        for penalty in candidates:
            total = 0.0
            for fold in range(4):
                held = (folds == fold).numpy()
                count = int((~held).sum())
                model = sklearn.linear_model.LogisticRegression(
                    C=1 / (count * penalty), tol=1e-8, max_iter=10_000
                )
                model.fit(x[~held], labels.numpy()[~held])
                shares = model.predict_proba(x[held])
                total += sklearn.metrics.log_loss(
                    labels.numpy()[held], shares, labels=range(CLASSES)
                )
            losses[penalty] = total
        best = min(losses, key=losses.__getitem__)
        alone = LogisticRegression((best,)).fit(VALUES, CLASSES, [head])
        assert_close(fitted.weight[position], alone.weight[0], rtol=1e-3, atol=1e-4)


def test_wrong_labels_are_answered_by_a_larger_penalty():
    fitted = LogisticRegression((1e-4, 1e-1)).fit(VALUES, CLASSES, HEADS)
    sizes = fitted.weight.flatten(1).norm(dim=1)
    assert sizes[2] < sizes[0]


@pytest.mark.parametrize("learner", [LogisticRegression(), SparseLogisticRegression()])
def test_a_head_is_fitted_alike_alone_and_among_others(learner):
    together = learner.fit(VALUES, CLASSES, HEADS)
    for position, head in enumerate(HEADS):
        alone = learner.fit(VALUES, CLASSES, [head])
        assert_close(together.weight[position], alone.weight[0], rtol=1e-2, atol=2e-3)


def test_with_one_example_of_each_class_the_smallest_penalty_is_taken():
    one_shot = HEADS[0]._replace(examples=torch.arange(CLASSES))
    chosen = LogisticRegression().fit(VALUES, CLASSES, [one_shot])
    smallest = LogisticRegression((1e-4,)).fit(VALUES, CLASSES, [one_shot])
    assert torch.equal(chosen.weight, smallest.weight)


def test_folds_are_stratified_and_cover_every_example_once():
    labels = torch.tensor([0] * 10 + [1] * 7 + [2] * 4)
    folds = fold_of_examples(labels, 3)
    for label in (0, 1, 2):
        sizes = folds[labels == label].bincount(minlength=3)
        assert sizes.max() - sizes.min() <= 1
    assert fold_of_examples(labels, 9).max() == 3  # the smallest class has four
    assert fold_of_examples(torch.tensor([0, 0, 1]), 2) is None


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: LogisticRegression((-1.0,)), "LogisticRegression.penalties must be above 0"),
        (lambda: LogisticRegression(folds=1), "LogisticRegression.folds must be 2 or more, got 1"),
        (
            lambda: SparseLogisticRegression((1.0,)),
            "SparseLogisticRegression.penalties must be between 1e-06 and 0.999, got 1.0",
        ),
        (
            lambda: SparseLogisticRegression(mix=0.0),
            "SparseLogisticRegression.mix must be between 0 and 1, 0 excluded, got 0.0",
        ),
    ],
    ids=["penalty", "folds", "none left", "mix"],
)
def test_impossible_settings_of_logistic_regressions_are_refused(make, complaint):
    with pytest.raises(FieldError, match=complaint):
        make()
