"""Linear probes on augmented views: fresh ones, whose stages share work, and cached ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from conftest import ROOT, tiny_pretrain
from torch.testing import assert_close

from monosem.core.device import BatchLoader
from monosem.core.fields import FieldError
from monosem.core.stage import StageError, closure, group_shared, key, plan
from monosem.core.store import Callback, LogEntry, Store
from monosem.corruptions.base import Corruption
from monosem.corruptions.few_shot import FewShot
from monosem.corruptions.input_noise import GaussianNoise, UniformNoise
from monosem.corruptions.label_noise import LabelNoise
from monosem.data.augment import RandomResizedCrop
from monosem.data.packed import Packed
from monosem.datasets.digits import Digits
from monosem.evaluation.experiment import Experiment
from monosem.learning.objectives import Contrastive
from monosem.learning.optimizers import SGD, Adam, Constant
from monosem.models.features import Features, encode_views, view_draw
from monosem.models.representation import Embedding
from monosem.probes import linear
from monosem.probes.batched_probes import EarlyStopping, fit_probes, topk_accuracy
from monosem.probes.linear import FittedProbes, LinearProbe
from monosem.robustness.curves import Curve
from monosem.specs import load as loading

DATA = Digits(size=8)
PRETRAIN = tiny_pretrain(objective=Contrastive())
IMAGES = 1437  # in the training split
VIEWS = (RandomResizedCrop(scale=(0.5, 1.0)),)
FRESH = LinearProbe(SGD(lr=2.0), Constant(), epochs=3, batch_size=32, views=VIEWS)
REGULARISED = replace(FRESH, optimizer=Adam(lr=0.01), dropout=0.2, stopping=EarlyStopping(0.2))


def curve(corruption: Corruption, *severities: float, probe: LinearProbe = FRESH) -> Curve:
    return Curve(
        name=type(corruption).__name__,
        encoder=Embedding(PRETRAIN),
        data=DATA,
        probe=probe,
        corruption=corruption,
        severities=severities,
        repeats=2,
    )


def fitted_stages(*curves: Curve) -> list[FittedProbes]:
    return [stage for stage in closure(curves) if isinstance(stage, FittedProbes)]


def three_stages(probe: LinearProbe = FRESH) -> list[FittedProbes]:
    """Of the clean training set, of wrong labels and of few shots."""
    return fitted_stages(
        curve(LabelNoise(), 0.0, 0.5, probe=probe), curve(FewShot(), 1, 5, probe=probe)
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def new_store(store: Store, tmp_path: Path) -> Store:
    """One that has the encoder, but no probes yet."""
    store.get(PRETRAIN)
    empty = Store(tmp_path / "store")
    folder = empty.folder(PRETRAIN)
    folder.parent.mkdir(parents=True)
    folder.symlink_to(store.folder(PRETRAIN))
    return empty


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of views in every pass of an encoder over the training split."""
    counts: list[int] = []
    original = encode_views

    def counted(*arguments):
        views = original(*arguments)
        counts.append(len(views))
        return views

    monkeypatch.setattr(linear, "encode_views", counted)
    return counts


# Which stages


def test_a_curve_on_fresh_views_needs_one_stage_of_clean_and_one_of_corrupted_training_sets():
    clean, wrong = fitted_stages(curve(LabelNoise(), 0.0, 0.3, 0.5))
    assert (clean.corruption, clean.severities) == (None, ())
    assert (wrong.corruption, wrong.severities) == (LabelNoise(), (0.3, 0.5))


@pytest.mark.parametrize(
    "other",
    [
        curve(UniformNoise(), 0.3),
        curve(LabelNoise(), 0.0),
        curve(FewShot("fraction"), 1.0),
    ],
    ids=lambda curve: type(curve.corruption).__name__,
)
def test_curves_share_the_probes_of_the_clean_training_set(other):
    assert fitted_stages(curve(GaussianNoise(), 0.0, 0.5)) == fitted_stages(other)


def curve_keys(file: str, curves: list[str]) -> dict[str, set[str]]:
    """Every curve of a Gin file with the keys of all stages that it needs, itself included."""
    references = ", ".join(f"@{name}/Curve()" for name in curves)
    bindings = [f"Experiment.curves = ({references},)"] if curves else []
    with (
        mock.patch.object(Packed, "content", lambda self: "content"),
        mock.patch.object(Experiment, "preflight", lambda self: None),
        mock.patch.object(loading, "closure", lambda stages: []),  # no look at the data
    ):
        experiment = loading.load([str(ROOT / file)], bindings).experiment
        return {
            curve.name: {key(stage) for stage in closure([curve])} for curve in experiment.curves
        }


@pytest.mark.parametrize("file", ["gin/ncl.gin", "gin/cifar100/ncl.gin"])
def test_adding_or_dropping_a_curve_changes_no_key_of_another(file):
    keys = curve_keys(file, [])
    for dropped in keys:
        others = [name for name in keys if name != dropped]
        assert curve_keys(file, others) == {name: keys[name] for name in others}


# One pass for all


def test_stages_on_the_same_views_share_their_work_and_others_do_not():
    stages = three_stages()
    other_probe = three_stages(replace(FRESH, epochs=2))
    assert group_shared([*stages, *other_probe]) == [tuple(stages), tuple(other_probe)]


def test_fresh_views_are_encoded_once_an_epoch_for_all_curves_of_an_experiment(new_store, encoded):
    curves = [
        curve(LabelNoise(), 0.0, 0.5),
        curve(FewShot(), 1, 5),
        curve(GaussianNoise(), 0.0, 0.5),
    ]
    for wave in plan(curves, new_store.has):
        for group in group_shared(wave):
            new_store.get_together(group)
    assert encoded == [IMAGES] * FRESH.epochs
    assert all(new_store.has(curve) for curve in curves)


def test_no_features_of_the_training_split_are_stored_for_fresh_views():
    stages = closure([curve(LabelNoise(), 0.0, 0.5), curve(GaussianNoise(), 0.5)])
    splits = [stage.split for stage in stages if isinstance(stage, Features)]
    assert splits == ["test"]


def test_the_images_that_were_encoded_are_counted_once(new_store):
    stages = three_stages()
    new_store.get_together(stages)
    last = [new_store.history(stage)[-1].scalars for stage in stages]
    passes = [scalars["encoder_passes"] for scalars in last if "encoder_passes" in scalars]
    assert passes == [FRESH.epochs * IMAGES]


def assert_same_bits(stages: list[FittedProbes], one: Store, other: Store) -> None:
    for stage in stages:
        first, second = one.get(stage), other.get(stage)
        assert first.keys() == second.keys() == {"weight", "bias"}
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("probe", [FRESH, REGULARISED], ids=["plain", "regularised"])
def test_probes_have_the_same_bits_whether_stages_are_fitted_alone_or_together(
    store, new_store, probe
):
    stages = three_stages(probe)
    new_store.get_together(stages)
    assert_same_bits(stages, store, new_store)  # the first store computes each when it is asked


class Killed(Exception):
    pass


class KillAt(Callback):
    """Ends the work when a stage logs a step; stages before it in a group are an epoch ahead."""

    def __init__(self, stage: FittedProbes, step: int):
        self.stage, self.step = stage, step

    def on_log(self, stage, entry: LogEntry) -> None:
        if stage == self.stage and entry.step == self.step:
            raise Killed


def kill(store: Store, stages: list[FittedProbes], at: KillAt) -> None:
    store.callbacks = (at,)
    with pytest.raises(Killed):
        store.get_together(stages)
    store.callbacks = ()
    assert not any(store.has(stage) for stage in stages)


@pytest.mark.parametrize("probe", [FRESH, REGULARISED], ids=["plain", "regularised"])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_stages_that_were_killed_at_different_epochs_go_on_together_with_the_same_bits(
    store, new_store, encoded, probe, step
):
    stages = three_stages(probe)
    for stage in stages:
        store.get(stage)
    _, second, _ = sorted(stages, key=key)  # the order in which a group is computed
    kill(new_store, stages, KillAt(second, step))
    encoded.clear()
    new_store.get_together(stages)
    assert len(encoded) == probe.epochs - (step - 1)  # the second stage has yet to learn from it
    assert_same_bits(stages, store, new_store)


def test_a_stage_that_was_killed_in_a_group_goes_on_alone(store, new_store, encoded):
    stages = three_stages()
    for stage in stages:
        store.get(stage)
    first, second, _ = sorted(stages, key=key)
    kill(new_store, stages, KillAt(second, 2))
    encoded.clear()
    new_store.get(first)
    assert len(encoded) == FRESH.epochs - 2
    assert_same_bits([first], store, new_store)


def test_a_stage_that_was_killed_after_its_last_epoch_encodes_nothing(store, new_store, encoded):
    stages = three_stages()
    first, second, _ = sorted(stages, key=key)
    kill(new_store, stages, KillAt(second, FRESH.epochs))
    encoded.clear()
    artifact = new_store.get(first)
    assert encoded == []
    assert torch.equal(artifact["weight"], store.get(first)["weight"])


# What probes see


def test_every_epoch_has_its_own_views_and_encoders_share_them(store):
    network = PRETRAIN.network(store.get)
    loader = BatchLoader(DATA.split("train").inputs)
    first, again, second = (
        encode_views(network, DATA, loader, VIEWS, view_draw(epoch)) for epoch in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.allclose(first, second)


def cached_views(curve: Curve) -> list[Features]:
    stages = [stage for stage in curve.upstream() if isinstance(stage, Features)]
    return [stage for stage in stages if stage.split == "train"]


def test_cached_views_are_features_that_all_curves_share():
    probe = replace(FRESH, cached=2)
    views = cached_views(curve(LabelNoise(), 0.0, probe=probe))
    assert [stage.number for stage in views] == [0, 1]
    assert views == cached_views(curve(FewShot(), 1, probe=probe))


def test_probes_take_cached_views_in_turn_one_an_epoch(store):
    noisy = curve(LabelNoise(), 0.0, probe=replace(FRESH, cached=2))
    views = [store.get(stage)["features"] for stage in cached_views(noisy)]
    specs = noisy.task.probe_specs()
    expected = fit_probes(lambda epoch: views[epoch % 2], 10, specs, noisy.probe.settings)
    test_features = store.get(Features(noisy.encoder, DATA, "test"))["features"]
    labels = DATA.split("test").labels
    accuracies = [
        topk_accuracy(expected.logits(test_features, position), labels, 1)
        for position in range(noisy.repeats)
    ]
    assert store.get(noisy)["top1"][0].tolist() == accuracies


def test_as_many_cached_views_as_epochs_are_fresh_views(store):
    fresh = curve(LabelNoise(), 0.0)
    cached = curve(LabelNoise(), 0.0, probe=replace(FRESH, cached=FRESH.epochs))
    assert_close(store.get(fresh)["top1"], store.get(cached)["top1"])


def test_every_cell_of_a_curve_is_predicted_by_the_probe_of_its_severity_and_repeat(store):
    noisy = curve(LabelNoise(), 0.5, 0.0)
    test_features = store.get(Features(noisy.encoder, DATA, "test"))["features"]
    labels = DATA.split("test").labels
    clean, wrong = sorted(fitted_stages(noisy), key=lambda stage: len(stage.severities))
    for row, stage in enumerate((wrong, clean)):
        fitted = stage.fitted(store)
        for repeat in range(noisy.repeats):
            accuracy = topk_accuracy(fitted.logits(test_features, repeat), labels, 1)
            assert store.get(noisy)["top1"][row, repeat] == accuracy


def test_cached_views_without_augmentations_are_refused():
    with pytest.raises(FieldError, match=r"LinearProbe.cached needs LinearProbe.views"):
        LinearProbe(SGD(), Constant(), cached=3)


def test_batches_larger_than_the_training_split_are_refused():
    with pytest.raises(
        FieldError, match=r"LinearProbe.batch_size must be at most 1437, the training images"
    ):
        curve(LabelNoise(), 0.0, probe=replace(FRESH, batch_size=2000)).preflight()


def test_a_stage_whose_probes_diverge_takes_none_of_its_group_along(new_store, monkeypatch):
    error = StageError("the weights are no finite numbers")
    fitted = linear.ProbeTrainer.result
    calls = []

    def result(trainer):
        calls.append(trainer)
        if len(calls) == 2:  # of three
            raise error
        return fitted(trainer)

    monkeypatch.setattr(linear.ProbeTrainer, "result", result)
    stages = three_stages()
    with pytest.raises(StageError, match="no finite numbers"):
        new_store.get_together(stages)
    assert sorted(map(new_store.has, stages)) == [False, True, True]
