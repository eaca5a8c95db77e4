"""Rules for the best dimensions against scikit-learn, and the classifier of those alone."""

from __future__ import annotations

import pytest
import sklearn.feature_selection
import sklearn.metrics
import torch
from conftest import tiny_curve
from planted import CLASSES, features, given, heads
from torch.testing import assert_close

from monosem.classifiers.best_dimensions import (
    AnovaF,
    BestDimensions,
    EachClass,
    MostActive,
    MutualInformation,
)
from monosem.classifiers.logistic import LogisticRegression
from monosem.core.fields import FieldError

VALUES, LABELS = features(codes=True)
HEADS = heads(LABELS)
FAST = LogisticRegression((1e-2,))


def test_the_f_statistic_is_scikit_learn_s():
    for head in HEADS:
        rows, labels = given(head, VALUES.double())
        expected, _ = sklearn.feature_selection.f_classif(rows.numpy(), labels.numpy())
        scores = AnovaF().scores(rows, labels, CLASSES)
        assert_close(scores, torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


def test_a_dimension_that_is_always_0_is_the_worst():
    rows = torch.cat([torch.zeros(len(VALUES), 1), VALUES], 1).double()
    for rule in (AnovaF(), MutualInformation(), MostActive()):
        assert rule.order(rows, LABELS, CLASSES)[-1] == 0


def test_mutual_information_is_scikit_learn_s_of_the_same_bins():
    """Bins by an own count: how many bounds are at most the value."""
    rows = VALUES.double()
    scores = MutualInformation(bins=4).scores(rows, LABELS, CLASSES)
    for dimension in range(rows.shape[1]):
        column = rows[:, dimension]
        ordered = column.sort().values
        bounds = [ordered[-(-share * (len(column) - 1) // 4)] for share in (1, 2, 3)]
        bins = sum((column >= bound).long() for bound in bounds)
        expected = sklearn.metrics.mutual_info_score(LABELS.numpy(), bins.numpy())
        assert float(scores[dimension]) == pytest.approx(expected, abs=1e-9)


def test_the_most_active_dimensions_have_the_largest_mean_of_unit_rows():
    rows = VALUES.double()
    means = (rows.abs() / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)).mean(0)
    assert torch.equal(MostActive().order(rows, LABELS, CLASSES), means.argsort(descending=True))


def test_each_class_takes_its_best_dimension_in_turn():
    """Planted: of every class its own dimension; then four that tell class 0 alone."""
    labels = torch.arange(200) % 4
    draw = torch.Generator().manual_seed(0)
    own = torch.eye(4)[labels] + 0.3 * torch.rand(200, 4, generator=draw)
    more = 5 * (labels == 0)[:, None] + 0.1 * torch.rand(200, 4, generator=draw)
    rows = torch.cat([more, own], 1).double()
    first = EachClass().order(rows, labels, 4)[:4].tolist()
    assert first[0] < 4 and sorted(first[1:]) == [5, 6, 7]
    assert sorted(EachClass().order(rows, labels, 4).tolist()) == list(range(8))
    assert set(AnovaF().order(rows, labels, 4)[:4].tolist()) == {0, 1, 2, 3}


def test_a_head_uses_the_dimensions_that_its_own_labels_choose_and_no_others():
    fitted = BestDimensions(3, AnovaF(), FAST).fit(VALUES, CLASSES, HEADS)
    for position, head in enumerate(HEADS):
        rows, labels = given(head, VALUES.double())
        chosen = AnovaF().order(rows, labels, CLASSES)[:3]
        used = fitted.weight[position].abs().sum(1).nonzero()[:, 0]
        assert sorted(chosen.tolist()) == used.tolist()
        alone = FAST.fit(VALUES[:, chosen], CLASSES, [head])
        assert torch.equal(fitted.weight[position, chosen], alone.weight[0])


def test_all_dimensions_are_plain_logistic_regression():
    some = BestDimensions(VALUES.shape[1], AnovaF(), FAST).fit(VALUES, CLASSES, HEADS[:1])
    everything = FAST.fit(VALUES, CLASSES, HEADS[:1])
    assert_close(some.weight, everything.weight, rtol=1e-3, atol=1e-4)


def test_more_best_dimensions_than_there_are_are_refused_before_any_work():
    complaint = "BestDimensions.dimensions must be at most 16, the features of the encoder, got 17"
    with pytest.raises(FieldError, match=complaint):
        tiny_curve(probe=BestDimensions(17)).preflight()
    tiny_curve(probe=BestDimensions(16)).preflight()
