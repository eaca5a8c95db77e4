"""Accuracy by the number of chosen dimensions, against the classifier of that many alone."""

from __future__ import annotations

import pytest
import torch
from conftest import tiny_curve

from monosem.classifiers.best_dimensions import (
    AnovaF,
    BestDimensions,
    FirstDimensions,
    MostActive,
)
from monosem.classifiers.logistic import LogisticRegression
from monosem.core.fields import FieldError
from monosem.core.store import Store
from monosem.corruptions.few_shot import FewShot
from monosem.corruptions.input_noise import GaussianNoise
from monosem.corruptions.label_noise import LabelNoise
from monosem.datasets.digits import Digits
from monosem.metrics.neighbours import precision_at
from monosem.models.baselines import Pixels
from monosem.models.features import Features
from monosem.models.fitted import PCA
from monosem.robustness.dimensions import ChosenDimensions

DATA = Digits(size=8)
PIXELS = Pixels(DATA)
CLASSIFIER = LogisticRegression((1e-2,))


def chosen(**fields):
    usual = {
        "name": "few",
        "encoder": PIXELS,
        "data": DATA,
        "corruption": FewShot(),
        "level": 5.0,
        "classifier": CLASSIFIER,
        "severities": (2, 32),
        "repeats": 2,
    }
    return ChosenDimensions(**{**usual, **fields})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("rule", [AnovaF(), MostActive()], ids=repr)
def test_every_m_is_the_classifier_of_the_m_best_dimensions(rule, store):
    found = store.get(chosen(rule=rule))["top1"]
    for row, m in enumerate((2, 32)):
        curve = tiny_curve(
            encoder=PIXELS,
            corruption=FewShot(),
            severities=(5,),
            probe=BestDimensions(m, rule, CLASSIFIER),
        )
        assert torch.equal(found[row], store.get(curve)["top1"][0])


def test_retrieval_is_in_the_same_dimensions_and_all_of_them_are_the_features(store):
    stage = chosen(severities=(4, 64), corruption=LabelNoise(), level=0.6)
    precision = store.get(stage)["precision_at_10"]
    test = store.get(Features(PIXELS, DATA, "test"))["features"]
    labels = DATA.split("test").labels
    whole = 100 * precision_at(test, labels, 10)
    assert precision[1].tolist() == pytest.approx([whole] * 2)
    assert (precision[0] < precision[1]).all()


def test_the_first_dimensions_of_principal_components_are_those_of_most_variance(store):
    components = PCA(encoder=PIXELS, features=16, data=DATA)
    train = store.get(Features(components, DATA, "train"))["features"].double()
    order = FirstDimensions().order(train, torch.zeros(len(train)), 10)
    assert order.tolist() == list(range(16))
    assert (train.var(0)[order].diff() <= 1e-6).all()
    top1 = store.get(chosen(encoder=components, rule=FirstDimensions(), severities=(1, 16)))["top1"]
    assert (top1[1] > top1[0]).all()


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"severities": (65,)}, "dimensions between 1 and 64, got 65"),
        ({"corruption": LabelNoise(), "level": 1.5}, "ChosenDimensions.level must be"),
        ({"corruption": GaussianNoise()}, "must be of training labels or examples"),
    ],
    ids=["wide", "level", "inputs"],
)
def test_impossible_questions_are_refused_before_any_work(fields, complaint):
    with pytest.raises(FieldError, match=complaint):
        chosen(**fields).preflight()
