"""Ridge, centroids, neighbours and naive Bayes against scikit-learn and their definitions."""

from __future__ import annotations

import pytest
import sklearn.linear_model
import sklearn.naive_bayes
import sklearn.neighbors
import torch
from planted import CLASSES, features, given, heads
from torch.testing import assert_close

from monosem.classifiers.closed_form import NearestCentroid, Ridge, centre
from monosem.classifiers.naive_bayes import BernoulliNaiveBayes, GaussianNaiveBayes
from monosem.classifiers.neighbours import KNN
from monosem.core.fields import FieldError
from monosem.core.stage import StageError
from monosem.datasets.digits import Digits

VALUES, LABELS = features()
TEST, _ = features(seed=5)
HEADS = heads(LABELS)
DATA = Digits(size=8)


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 3.0])
def test_ridge_is_scikit_learn_s_on_one_hot_labels(penalty):
    fitted = Ridge((penalty,)).fit(VALUES, CLASSES, HEADS)
    for position, head in enumerate(HEADS):
        rows, labels = given(head, VALUES)
        centred = centre(rows)
        theirs = sklearn.linear_model.Ridge(alpha=penalty * len(rows))
        theirs.fit(centred.rows.numpy(), torch.eye(CLASSES)[labels].numpy())
        scaled = (TEST.double() - centred.mean) / centred.scale
        expected = torch.from_numpy(theirs.predict(scaled.numpy()))
        assert_close(fitted.logits(TEST, position).double(), expected, rtol=0, atol=1e-5)


def test_the_penalty_of_ridge_has_the_least_error_when_each_example_is_left_out_in_turn():
    """The left-out examples are really left out here; rows keep the mean and scale of all."""
    candidates = (1e-3, 0.1, 1.0, 10.0)
    chosen = Ridge(candidates).fit(VALUES, CLASSES, HEADS)
    for position, head in enumerate(HEADS):
        rows, labels = given(head, VALUES)
        centred, targets = centre(rows).rows.numpy(), torch.eye(CLASSES)[labels].numpy()
        errors = {}
        for penalty in candidates:
            total = 0.0
            for index in range(len(rows)):
                others = [other for other in range(len(rows)) if other != index]
                model = sklearn.linear_model.Ridge(alpha=penalty * len(rows))
                model.fit(centred[others], targets[others])
                total += ((model.predict(centred[[index]])[0] - targets[index]) ** 2).sum()
            errors[penalty] = total
        best = min(errors, key=errors.__getitem__)
        alone = Ridge((best,)).fit(VALUES, CLASSES, [head])
        assert_close(chosen.weight[position], alone.weight[0], rtol=1e-4, atol=1e-6)


def test_the_nearest_centroid_is_scikit_learn_s():
    fitted = NearestCentroid().fit(VALUES, CLASSES, HEADS)
    for position, head in enumerate(HEADS):
        rows, labels = given(head, VALUES)
        theirs = sklearn.neighbors.NearestCentroid().fit(rows.numpy(), labels.numpy())
        expected = torch.from_numpy(theirs.predict(TEST.numpy()))
        assert torch.equal(fitted.logits(TEST, position).argmax(1), expected)


def test_a_class_without_examples_is_never_predicted():
    head = HEADS[0]._replace(examples=(LABELS != 2).nonzero()[:, 0])
    for learner in (NearestCentroid(), GaussianNaiveBayes(), BernoulliNaiveBayes()):
        predicted = learner.fit(VALUES, CLASSES, [head]).logits(TEST, 0).argmax(1)
        assert set(predicted.tolist()) == {0, 1, 3}


@pytest.mark.parametrize("distance", ["euclidean", "cosine", "manhattan"])
@pytest.mark.parametrize("k", [1, 7])
def test_votes_of_neighbours_are_scikit_learn_s(distance, k):
    fitted = KNN(distance, (k,)).fit(VALUES, CLASSES, HEADS)
    for position, head in enumerate(HEADS):
        rows, labels = given(head, VALUES)
        theirs = sklearn.neighbors.KNeighborsClassifier(k, metric=distance)
        shares = theirs.fit(rows.numpy(), labels.numpy()).predict_proba(TEST.numpy())
        expected = torch.from_numpy(shares).float() * k
        assert_close(fitted.logits(TEST, position), expected, rtol=0, atol=1e-5)


def test_the_number_of_neighbours_is_chosen_by_leaving_out_each_example():
    fitted = KNN(neighbours=(1, 5, 15)).fit(VALUES, CLASSES, HEADS)
    for memory, head in zip(fitted.memories, HEADS, strict=True):
        rows, labels = given(head, VALUES)
        right = {}
        for k in (1, 5, 15):
            hits = 0
            for index in range(len(rows)):
                others = torch.tensor([other for other in range(len(rows)) if other != index])
                model = sklearn.neighbors.KNeighborsClassifier(k)
                model.fit(rows[others].numpy(), labels[others].numpy())
                hits += int(model.predict(rows[[index]].numpy())[0] == labels[index])
            right[k] = hits
        assert memory.k == max(right, key=right.__getitem__)
    assert fitted.memories[2].k > fitted.memories[0].k or fitted.memories[2].k == 15


def test_with_one_example_of_each_class_one_neighbour_votes():
    one_shot = HEADS[0]._replace(examples=torch.arange(CLASSES))
    assert KNN().fit(VALUES, CLASSES, [one_shot]).memories[0].k == 1


def test_gaussian_naive_bayes_is_scikit_learn_s():
    fitted = GaussianNaiveBayes((1e-3,)).fit(VALUES, CLASSES, HEADS)
    for position, head in enumerate(HEADS):
        rows, labels = given(head, VALUES.double())
        theirs = sklearn.naive_bayes.GaussianNB(var_smoothing=1e-3)
        theirs.fit(rows.numpy(), labels.numpy())
        expected = torch.from_numpy(theirs.predict_log_proba(TEST.double().numpy()))
        ours = fitted.logits(TEST, position).log_softmax(1)
        assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_the_smoothing_is_chosen_on_held_out_labels_as_noisy_as_the_given_ones():
    choices = (10.0, 1e-4)
    chosen = GaussianNaiveBayes(choices).fit(VALUES, CLASSES, HEADS)
    for position, head in enumerate(HEADS):
        alone = [GaussianNaiveBayes((choice,)).fit(VALUES, CLASSES, [head]) for choice in choices]
        same = [torch.allclose(chosen.variance[position], one.variance[0]) for one in alone]
        assert sum(same) == 1


def test_bernoulli_naive_bayes_is_scikit_learn_s_on_what_is_active():
    codes, labels = features(codes=True)
    test, _ = features(seed=5, codes=True)
    made = heads(labels)
    fitted = BernoulliNaiveBayes().fit(codes, CLASSES, made)
    for position, head in enumerate(made):
        rows, given_labels = given(head, codes)
        theirs = sklearn.naive_bayes.BernoulliNB().fit(rows.numpy(), given_labels.numpy())
        expected = torch.from_numpy(theirs.predict_log_proba(test.numpy()))
        ours = fitted.logits(test, position).log_softmax(1)
        assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_bernoulli_says_so_where_nothing_is_ever_inactive():
    with pytest.raises(StageError, match="nothing to learn from: no dimension is above 0"):
        BernoulliNaiveBayes().fit(VALUES.abs() + 1, CLASSES, HEADS)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Ridge(()), "Ridge.penalties must hold at least one penalty"),
        (lambda: Ridge((0.0,)), "Ridge.penalties must be above 0, got 0.0"),
        (lambda: KNN(neighbours=(0,)), "KNN.neighbours must be 1 or more, got 0"),
        (lambda: KNN("manhatan"), "KNN.distance must be one of 'euclidean', 'cosine', 'manhattan'"),
        (
            lambda: KNN(neighbours=(1, 1438)).check_data(DATA),
            "KNN.neighbours must be at most 1437, the training images, got 1438",
        ),
        (
            lambda: GaussianNaiveBayes(folds=200).check_data(DATA),
            "folds must be at most 139, the training images of the smallest class, got 200",
        ),
    ],
    ids=["none", "penalty", "neighbours", "distance", "too many neighbours", "folds"],
)
def test_impossible_settings_are_refused(make, complaint):
    with pytest.raises(FieldError, match=complaint):
        make()
