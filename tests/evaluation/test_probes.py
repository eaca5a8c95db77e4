"""Probes on augmented views, fresh or kept, and on networks that go on learning."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import tiny_pretrain
from torch.testing import assert_close

from monosem.core.device import BatchLoader
from monosem.core.fields import FieldError
from monosem.core.stage import closure, key
from monosem.core.store import Store
from monosem.data.augment import RandomResizedCrop
from monosem.data.digits import Digits
from monosem.evaluation import probes
from monosem.evaluation.batched_probes import topk_accuracy, unique_probes
from monosem.evaluation.corruptions import FewShot, GaussianNoise, LabelNoise, UniformNoise
from monosem.evaluation.curves import Curve, FeatureSelection, Retrieval
from monosem.evaluation.experiment import Experiment
from monosem.evaluation.finetune import FineTune, Tuned
from monosem.evaluation.probes import FittedProbes, LinearProbe
from monosem.learning.objectives import Contrastive
from monosem.learning.optimizers import SGD, Adam, Constant
from monosem.learning.sparse import TopK
from monosem.metrics.neighbours import precision_at
from monosem.metrics.space import Dimensions, by_activity
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.features import Features, encode_views, view_draw
from monosem.models.representation import Embedding, Projection

DATA = Digits(size=8)
PRETRAIN = tiny_pretrain(objective=Contrastive())
VIEWS = (RandomResizedCrop(scale=(0.5, 1.0)),)
FRESH = LinearProbe(SGD(lr=2.0), Constant(), epochs=3, batch_size=32, views=VIEWS)


def curve(corruption, severities, **fields):
    return Curve(**{"encoder": Embedding(PRETRAIN), "data": DATA, "probe": FRESH, "repeats": 2, **fields, "corruption": corruption,
                    "severities": severities})  # fmt: skip


def experiment(*curves):
    return Experiment(
        name="x",
        curves=tuple(replace(each, name=f"c{i}") for i, each in enumerate(curves)),
        metrics=(Dimensions(),),
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def test_fresh_views_pass_the_encoder_once_an_image_and_epoch_for_all_heads_of_all_curves(
    store, monkeypatch
):
    seen = []
    original = probes.encode_views
    monkeypatch.setattr(
        probes, "encode_views", lambda *given: seen.append(len(given[2].images)) or original(*given)
    )
    whole = experiment(
        curve(LabelNoise(), (0.0, 0.5)),
        curve(FewShot(), (1, 5)),
        curve(GaussianNoise(), (0.0, 0.5)),
    )
    stages = closure(whole.stages)
    assert sum(isinstance(stage, FittedProbes) for stage in stages) == 1
    encoded = [
        (type(stage.encoder).__name__, stage.split)
        for stage in stages
        if isinstance(stage, Features)
    ]
    assert sorted(encoded) == [("Embedding", "test"), ("Pixels", "test")]
    for stage in whole.stages:
        store.get(stage)
    assert seen == [1437] * 3
    (fitted,) = (stage for stage in stages if isinstance(stage, FittedProbes))
    assert (
        len(store.get(fitted)["weight"]) == 2 + 2 + 4
    )  # clean and noisy labels, two numbers of shots, two repeats each
    assert store.history(fitted)[-1].scalars == {"encoder_passes": 3 * 1437}


def test_heads_fitted_in_company_equal_those_of_a_curve_alone(store):
    noisy, few = curve(LabelNoise(), (0.0, 0.5)), curve(FewShot(), (1, 5))
    together, alone = experiment(noisy, few).stages[0], experiment(noisy).stages[0]
    assert key(together) != key(alone)
    assert_close(
        store.get(together)["top1"], store.get(alone)["top1"], atol=0.3, rtol=0
    )  # one image of 360


def test_every_epoch_has_its_own_views_and_encoders_share_them(store):
    network, feed = PRETRAIN.network(store.get), BatchLoader(DATA.load("train").images)
    first, again, second = (
        encode_views(network, DATA, feed, VIEWS, view_draw(number)) for number in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.allclose(first, second)


def test_kept_views_are_features_that_all_curves_share(store):
    probe = replace(FRESH, cached=2)
    noisy, few = curve(LabelNoise(), (0.0,), probe=probe), curve(FewShot(), (1,), probe=probe)
    kept = [
        stage
        for stage in noisy.upstream()
        if isinstance(stage, Features) and stage.split == "train"
    ]
    assert [stage.number for stage in kept] == [0, 1] and set(kept) <= set(few.upstream())
    task = noisy.task
    heads, member = unique_probes(task.heads())
    views = [store.get(stage)["features"] for stage in kept]
    expected = probes.bank.fit(lambda epoch: views[epoch % 2], 10, heads, probe.recipe)
    got, where = probe._heads(task, (), type("Job", (), {"get": staticmethod(store.get)})())
    assert torch.equal(got.weight, expected.weight) and where == member
    tested, truth = (
        store.get(Features(noisy.encoder, DATA, "test"))["features"],
        DATA.load("test").labels,
    )
    accuracies = [topk_accuracy(expected.logits(tested, head), truth, 1) for head in member]
    assert store.get(experiment(noisy).stages[0])["top1"][0].tolist() == accuracies


def test_as_many_kept_views_as_epochs_are_fresh_views(store):
    fresh, kept = (
        store.get(experiment(curve(LabelNoise(), (0.0,), probe=each)).stages[0])["top1"]
        for each in (FRESH, replace(FRESH, cached=3))
    )
    assert_close(fresh, kept)


def test_kept_views_without_augmentations_are_refused():
    with pytest.raises(FieldError, match=r"LinearProbe.cached needs LinearProbe.views"):
        LinearProbe(SGD(), Constant(), cached=3)


# ------------------------------------------------------------------------------------------------ fine-tuning

TUNE = FineTune(optimizer=Adam(lr=1e-2), schedule=Constant(), epochs=3, batch_size=32, views=VIEWS)


def sae():
    return SparseAutoencoder(data=DATA, encoder=Embedding(tiny_pretrain(epochs=1, objective=Contrastive())), sparsity=TopK(4), latents=32,
                             optimizer=SGD(lr=0.05), schedule=Constant(), epochs=1, batch_size=256)  # fmt: skip


@pytest.mark.parametrize(
    "encoder", [PRETRAIN, Projection(PRETRAIN, "relu"), sae()], ids=lambda e: type(e).__name__
)
def test_fine_tuning_learns_below_any_representation(store, encoder):
    stage = curve(LabelNoise(), (0.0, 0.5), encoder=encoder, probe=TUNE, repeats=1)
    top1 = store.get(stage)["top1"][:, 0]
    assert top1.min() >= 0 and top1[0] > 30
    tuned = TUNE.tuned(stage.task, 0.0, 0)
    losses = [line.scalars["loss"] for line in store.history(tuned)]
    assert len(losses) == 3 and losses[2] < losses[0]


def test_only_the_backbone_learns_unless_the_whole_does(store):
    encoder = Projection(PRETRAIN)
    before = encoder.network(store.get).state_dict()
    for whole, moved in ((False, {"first.first"}), (True, {"first.first", "first.then"})):
        tuned = replace(TUNE, whole=whole).tuned(
            curve(LabelNoise(), (0.0,), encoder=encoder).task, 0.0, 0
        )
        after = tuned.network(store.get).features.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert {name[: len("first.first")].rstrip(".") for name in changed} == moved
        assert any("running_mean" in name for name in changed)


def test_what_leaves_the_training_set_alone_is_learnt_once():
    tasks = [
        curve(c, s, probe=TUNE).task
        for c, s in (
            (GaussianNoise(), (0.0, 0.5)),
            (UniformNoise(), (0.3,)),
            (LabelNoise(), (0.0,)),
        )
    ]
    tuned = {TUNE.tuned(task, *cell) for task in tasks for cell in task.cells}
    assert {(each.corruption, each.severity, each.repeat) for each in tuned} == {
        (None, 0.0, 0),
        (None, 0.0, 1),
    }
    few = curve(FewShot("fraction"), (0.1, 1.0), probe=TUNE).task
    assert {TUNE.tuned(few, *cell).severity for cell in few.cells} == {
        0.1,
        0.0,
    }  # all of the examples are the clean ones


def test_a_fine_tuned_network_learns_from_the_examples_and_labels_of_its_cell():
    task = curve(LabelNoise(), (0.5,), probe=TUNE).task
    examples, told = TUNE.tuned(task, 0.5, 1).examples()
    assert torch.equal(told, task.head(0.5, 1).labels) and len(examples) == 1437
    few = curve(FewShot(), (2,), probe=TUNE).task
    assert len(TUNE.tuned(few, 2, 0).examples()[0]) == 20


def test_non_negative_cross_entropy_classifies_rectified_features(store):
    encoder = Projection(PRETRAIN)
    task = curve(LabelNoise(), (0.0,), encoder=encoder).task
    plain, rectified = (
        replace(TUNE, rectify=each).tuned(task, 0.0, 0).learner(store.get)[0].eval()
        for each in (False, True)
    )
    images = DATA.normalise(DATA.load("test").images[:5].float() / 255)
    features = encoder.network(store.get)(images)
    assert (features < 0).any()
    assert_close(plain(images), plain.classifier(features))
    assert_close(rectified(images), plain.classifier(features.relu()))


def test_a_killed_fine_tuning_goes_on_with_the_same_bits(store, tmp_path):
    tuned = Tuned(
        probe=replace(TUNE, epochs=3),
        encoder=PRETRAIN,
        data=DATA,
        corruption=None,
        severity=0.0,
        repeat=5,
    )
    whole = store.get(tuned)

    class Killed(Exception):
        pass

    class Job:
        state, get = None, staticmethod(store.get)

        def restore(self):
            return self.state

        def log(self, *_, **__): ...

        on_step = log

        def save(self, state):
            Job.state = {**state, "module": {k: v.clone() for k, v in state["module"].items()}}
            if state["epoch"] == 2 and self.kill:
                raise Killed

    job = Job()
    job.kill = True
    with pytest.raises(Killed):
        tuned.run(job)
    job.kill = False
    resumed = tuned.run(job)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


# ------------------------------------------------------------------------------------------------ feature selection


def test_feature_selection_and_retrieval_are_curves_by_the_number_of_kept_dimensions(store):
    encoder = Embedding(PRETRAIN)
    plain = LinearProbe(SGD(lr=1.0), Constant(), epochs=5)
    selection = FeatureSelection(
        name="s", encoder=encoder, data=DATA, probe=plain, severities=(2, 16), repeats=2
    )
    retrieval = Retrieval(name="r", encoder=encoder, data=DATA, severities=(2, 16))
    rows = [row for stage in (selection, retrieval) for row in stage.results(store.get(stage))]
    assert {row.metric for row in rows} == {"top1", "top5", "precision_at_10"} and len(
        rows
    ) == 2 * 2 * 2 + 2
    value = {(row.metric, row.severity, row.repeat): row.value for row in rows}
    assert (
        value["top1", 16, 0] > value["top1", 2, 0]
        and value["precision_at_10", 16, 0] > value["precision_at_10", 2, 0]
    )
    features, labels = (
        store.get(Features(encoder, DATA, "test"))["features"],
        DATA.load("test").labels,
    )
    rows = torch.nn.functional.normalize(features, dim=1)
    rows = rows[
        :, by_activity(rows)
    ]  # in another order sums round otherwise, and neighbours that tie change places
    assert value["precision_at_10", 16, 0] == pytest.approx(100 * precision_at(rows, labels, 10))
    train = store.get(Features(encoder, DATA, "train"))["features"]
    clean = store.get(curve(LabelNoise(), (0.0,), encoder=encoder, probe=plain))[
        "top1"
    ]  # all dimensions, in another order
    assert abs(clean.mean() - store.get(selection)["top1"][1].mean()) < 15
    assert sorted(by_activity(train).tolist()) == list(range(16))


def test_impossible_numbers_of_dimensions_are_refused():
    for count in (0, 17, 1.5):
        with pytest.raises(
            FieldError,
            match=r"Retrieval.severities must be whole numbers of dimensions between 1 and 16",
        ):
            Retrieval(encoder=Embedding(PRETRAIN), data=DATA, severities=(count,)).preflight()
    with pytest.raises(
        FieldError, match=r"Experiment.curves say by themselves which of them are fitted together"
    ):
        experiment(
            replace(curve(LabelNoise(), (0.0,)), company=(curve(LabelNoise(), (0.0,)).task,))
        )
    with pytest.raises(FieldError, match=r"FineTune.batch_size must be 2 or more"):
        replace(TUNE, batch_size=1)
    with pytest.raises(
        FieldError,
        match=r"SparseAutoencoder.data must have 1 channels like the images of the encoder, got 3",
    ):
        replace(sae(), data=Digits(mean=(0.5, 0.5, 0.5), std=(1, 1, 1)))
    with pytest.raises(FieldError, match=r"FeatureSelection.probe must take images as they are"):
        FeatureSelection(
            encoder=Embedding(PRETRAIN), data=DATA, severities=(2,), probe=FRESH
        ).preflight()
