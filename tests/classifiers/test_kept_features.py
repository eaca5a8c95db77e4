"""Classifiers of kept features in a curve: where features are from, and what is fitted once."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from conftest import tiny_curve, tiny_pretrain
from torch.testing import assert_close

from monosem.classifiers.closed_form import NearestCentroid, Ridge
from monosem.classifiers.kept import CorruptedFeatures, corrupted_features
from monosem.classifiers.trees import DecisionTree
from monosem.core.stage import closure
from monosem.core.store import Store
from monosem.corruptions.base import Corruption
from monosem.corruptions.few_shot import FewShot
from monosem.corruptions.input_noise import GaussianNoise
from monosem.corruptions.label_noise import LabelNoise
from monosem.datasets.digits import Digits
from monosem.models.baselines import Rotated
from monosem.models.features import Features, encode
from monosem.models.pretrain import Pretrain
from monosem.models.representation import Embedding
from monosem.probes.batched_probes import topk_accuracy

DATA = Digits(size=8)
EMBEDDING = Embedding(tiny_pretrain(epochs=1))
NOISE = (0.0, 0.3, 0.6)


def curve(corruption, severities, probe=NearestCentroid(), encoder=EMBEDDING):  # noqa: B008
    return tiny_curve(
        name=type(corruption).__name__,
        corruption=corruption,
        severities=severities,
        probe=probe,
        encoder=encoder,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize(
    ("corruption", "severities"),
    [(LabelNoise(), (0.0, 0.5)), (FewShot(), (1, 5)), (GaussianNoise(), NOISE)],
    ids=lambda value: type(value).__name__,
)
def test_a_curve_takes_a_classifier_of_kept_features(store, corruption, severities):
    artifact = store.get(curve(corruption, severities))
    assert artifact["top1"].shape == (len(severities), 2)
    assert (artifact["top1"] > 10).all() and (artifact["top5"] >= artifact["top1"]).all()


def test_the_accuracy_is_that_of_a_plain_loop_over_draws(store):
    stage = curve(LabelNoise(), (0.0, 0.6))
    top1 = store.get(stage)["top1"]
    train, test = (
        store.get(Features(EMBEDDING, DATA, split))["features"].double()
        for split in ("train", "test")
    )
    truth = DATA.split("test").labels
    for row, severity in enumerate(stage.severities):
        for repeat in range(2):
            head = stage.task.probe_spec(severity, repeat)
            means = torch.stack([train[head.labels == label].mean(0) for label in range(10)])
            logits = -torch.cdist(test, means)
            assert float(top1[row, repeat]) == pytest.approx(topk_accuracy(logits, truth, 1))


def test_corrupted_inputs_meet_the_noise_that_every_other_probe_meets(store):
    task = curve(GaussianNoise(), NOISE).task
    stage = corrupted_features(task)
    assert stage.severities == (0.3, 0.6)
    kept = store.get(stage)["features"]
    inputs, network = DATA.split("test").inputs, EMBEDDING.network(store.get)
    draws = [draw for draw in task.draws if draw[0] > 0]
    for features, (severity, repeat) in zip(kept, draws, strict=True):
        draw = GaussianNoise().draw(repeat, DATA)

        def noisy(prepared, severity=severity, draw=draw):
            return GaussianNoise().inputs(prepared, DATA, severity, draw)

        assert torch.equal(features, encode(network, DATA, inputs, noisy))


class Negative(Corruption):
    """Images are turned into their negatives as they are stored, as words of texts are changed."""

    def stored_inputs(self, data, severity, generator):
        return 255 - data.split("test").inputs


def test_classifiers_of_kept_features_meet_inputs_that_are_corrupted_as_they_are_stored(
    store,
):
    task = curve(Negative(), (0.0, 1.0)).task
    (kept, again) = store.get(corrupted_features(task))["features"]
    inputs, network = DATA.split("test").inputs, EMBEDDING.network(store.get)
    expected = encode(network, DATA, 255 - inputs)
    assert torch.equal(kept, expected) and torch.equal(again, expected)
    assert not torch.equal(expected, encode(network, DATA, inputs))


def test_corrupted_inputs_are_encoded_once_for_all_learners_and_rotations(store):
    stages = []
    for encoder in (EMBEDDING, Rotated(EMBEDDING), Rotated(EMBEDDING, seed=1)):
        for probe in (NearestCentroid(), Ridge(), DecisionTree()):
            stages.append(curve(GaussianNoise(), NOISE, probe, encoder))
    corrupted = [stage for stage in closure(stages) if isinstance(stage, CorruptedFeatures)]
    assert len(corrupted) == 3 and sum(stage.source is None for stage in corrupted) == 1
    store.get(stages[0])
    with mock.patch.object(Pretrain, "trained", side_effect=AssertionError("a pass")):
        for stage in stages:
            store.get(stage)


def test_a_rotation_changes_no_number_of_a_curve_of_a_rotation_invariant_learner(store):
    for corruption, severities in ((LabelNoise(), (0.0, 0.5)), (GaussianNoise(), NOISE)):
        own = store.get(curve(corruption, severities, Ridge()))
        turned = store.get(curve(corruption, severities, Ridge(), Rotated(EMBEDDING)))
        assert_close(turned["top1"], own["top1"], rtol=0, atol=0.3)  # one image of 360


def test_equal_training_sets_are_fitted_once_unless_the_learner_draws(store):
    counts = {}
    for probe in (NearestCentroid(), DecisionTree(leaf=(20,))):
        with mock.patch.object(
            type(probe), "fit", autospec=True, side_effect=type(probe).fit
        ) as fit:
            curve(GaussianNoise(), NOISE, probe).run(_job(store))
        counts[type(probe)] = len(fit.call_args.args[3])
    assert counts == {NearestCentroid: 1, DecisionTree: 2}


def _job(store):
    return mock.Mock(get=store.get)


def test_a_classifier_of_a_draw_can_be_attacked_and_asked_about_another_set(store):
    stage = curve(LabelNoise(), (0.0, 0.5), Ridge())
    job = _job(store)
    classifiers = list(stage.probe.classifiers(stage.task, job))
    inputs = DATA.prepare(DATA.split("test").inputs)
    expected = list(stage.probe.predictions(stage.task, job))
    other = stage.probe.test_logits(stage.task, classifiers, DATA, job)
    for classifier, prediction, logits in zip(classifiers, expected, other, strict=True):
        assert_close(classifier.network(job)(inputs), prediction.logits, rtol=1e-4, atol=1e-4)
        assert torch.equal(logits, prediction.logits)
