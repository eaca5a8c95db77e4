"""How features move, against plain loops; and what of it gets into the table of a curve."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import tiny_curve, tiny_pretrain
from torch.nn import functional as F

from monosem.core.store import Store
from monosem.corruptions.few_shot import FewShot
from monosem.corruptions.input_noise import GaussianNoise
from monosem.corruptions.label_noise import LabelNoise
from monosem.corruptions.label_record import WRONG_LABELS
from monosem.learning.optimizers import SGD, Constant
from monosem.models.features import Features
from monosem.models.representation import Embedding
from monosem.probes.finetune import FineTune
from monosem.robustness.code_movement import (
    by_outcome,
    code_movement,
    top_consistency,
    top_dimension,
)

FINE_TUNE = FineTune(optimizer=SGD(lr=0.01), schedule=Constant(), epochs=1)
MOVES = ("cosine", "stay_active", "same_top_dimension")
BY_OUTCOME = ("consistency_of_right", "consistency_of_wrong")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def sparse(n, d, seed):
    """Rectified features; the first row is silent."""
    rows = F.relu(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))
    rows[0] = 0
    return rows


def is_active(row, dimension):
    norm = math.sqrt(sum(value**2 for value in row))
    return abs(row[dimension]) > 1e-5 * norm


def test_the_movement_of_features_is_what_plain_loops_find():
    clean, moved = sparse(40, 7, 0), sparse(40, 7, 1)
    cosines, active, stay, same = [], 0, 0, 0
    for one, other in zip(clean.tolist(), moved.tolist(), strict=True):
        product = sum(a * b for a, b in zip(one, other, strict=True))
        norms = math.hypot(*one) * math.hypot(*other)
        cosines.append(product / norms if norms else 0.0)
        for dimension in range(7):
            if is_active(one, dimension):
                active += 1
                stay += is_active(other, dimension)
        same += one.index(max(one)) == other.index(max(other))
    movement = code_movement(clean, moved)
    assert movement["cosine"] == pytest.approx(100 * sum(cosines) / 40, abs=1e-4)
    assert movement["stay_active"] == pytest.approx(100 * stay / active)
    assert movement["same_top_dimension"] == pytest.approx(100 * same / 40)


def test_features_that_stay_do_not_move():
    rows = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    assert code_movement(rows, 3 * rows) == pytest.approx(dict.fromkeys(MOVES, 100.0))
    assert code_movement(rows, -rows)["cosine"] == pytest.approx(-100)


def test_silent_features_have_no_share_that_stays_active():
    assert math.isnan(code_movement(torch.zeros(3, 2), torch.ones(3, 2))["stay_active"])


def test_the_consistency_of_right_and_wrong_images_is_what_plain_loops_find():
    features = sparse(60, 6, 2)
    draw = torch.Generator().manual_seed(3)
    labels = torch.arange(60) % 4
    right = torch.rand(60, generator=draw) < 0.7
    sums, counts = {True: 0.0, False: 0.0}, {True: 0, False: 0}
    for image, row in enumerate(features.tolist()):
        top = row.index(max(row))
        by_class = [0] * 4
        for other, label in zip(features.tolist(), labels.tolist(), strict=True):
            by_class[label] += is_active(other, top)
        outcome = bool(right[image])
        sums[outcome] += max(by_class) / sum(by_class)
        counts[outcome] += 1
    measured = by_outcome(top_consistency(features, labels), right)
    assert measured["consistency_of_right"] == pytest.approx(100 * sums[True] / counts[True])
    assert measured["consistency_of_wrong"] == pytest.approx(100 * sums[False] / counts[False])


def test_the_most_active_dimension_is_that_of_the_largest_magnitude():
    assert top_dimension(torch.tensor([[1.0, -3.0], [2.0, 1.0]])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("fields", "metrics"),
    [
        ({"corruption": GaussianNoise()}, MOVES),
        ({"corruption": LabelNoise()}, (*BY_OUTCOME, WRONG_LABELS)),
        ({"corruption": FewShot(), "severities": (1, 5)}, ()),
        ({"corruption": GaussianNoise(), "severities": (0.0,)}, ()),
        ({"corruption": GaussianNoise(), "probe": FINE_TUNE}, ()),
        ({"corruption": LabelNoise(), "probe": FINE_TUNE}, (WRONG_LABELS,)),
    ],
)
def test_a_curve_measures_the_code_where_something_can_be_told_of_it(fields, metrics):
    assert tiny_curve(**fields).metrics == ("top1", "top5", *metrics)


def test_noise_moves_the_code_of_a_curve_and_no_noise_does_not(store):
    curve = tiny_curve(corruption=GaussianNoise(), severities=(0.0, 0.3, 3.0))
    artifact = store.get(curve)
    for metric in MOVES:
        clean, little, much = artifact[metric].mean(1).tolist()
        assert clean == pytest.approx(100)
        assert 100 > little > much, metric


def test_the_consistency_of_a_curve_is_that_of_its_features_and_its_probe(store):
    curve = tiny_curve(encoder=Embedding(tiny_pretrain()), severities=(0.5,), repeats=1)
    (predictions,) = curve.probe.predictions(curve.task, store)
    labels = curve.data.split("test").labels
    features = store.get(Features(curve.encoder, curve.data, "test"))["features"]
    assert torch.equal(predictions.features, features)
    right = predictions.logits.argmax(1) == labels
    expected = by_outcome(top_consistency(features, labels), right)
    artifact = store.get(curve)
    assert {name: artifact[name].item() for name in BY_OUTCOME} == pytest.approx(expected)


def test_the_mean_of_no_image_is_no_row_of_the_table():
    curve = tiny_curve(severities=(0.5,), repeats=1)
    number, nothing = torch.ones(1, 1), torch.full((1, 1), torch.nan)
    artifact = dict.fromkeys(curve.metrics, number) | {"consistency_of_wrong": nothing}
    results = {result.metric for result in curve.results(artifact)}
    assert results == {*curve.metrics} - {"consistency_of_wrong"}
