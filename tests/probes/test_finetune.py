"""Fine-tuning: what learns, what is learned once, and going on after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import tiny_pretrain
from torch.testing import assert_close

from monosem.autoencoders.topk import TopK
from monosem.core.fields import FieldError
from monosem.core.store import Callback, Store
from monosem.corruptions.base import Corruption
from monosem.corruptions.few_shot import FewShot
from monosem.corruptions.input_noise import GaussianNoise, UniformNoise
from monosem.corruptions.label_noise import LabelNoise
from monosem.data.augment import RandomResizedCrop
from monosem.datasets.digits import Digits
from monosem.learning.adapters import MEASURES, Gaussian, LoRA, MonoLoRA
from monosem.learning.objectives import Contrastive
from monosem.learning.optimizers import SGD, Adam, Constant
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.representation import Embedding, Projection, Representation
from monosem.probes.base import Task
from monosem.probes.finetune import FineTune, Tuned
from monosem.robustness.curves import Curve

DATA = Digits(size=8)
PRETRAIN = tiny_pretrain(objective=Contrastive())
TUNE = FineTune(
    optimizer=Adam(lr=1e-2),
    schedule=Constant(),
    epochs=3,
    batch_size=32,
    views=(RandomResizedCrop(scale=(0.5, 1.0)),),
)

PROJECTION = Projection(PRETRAIN)
LORA = LoRA(targets=("then.0", "then.2"), dropout=0.5)  # the two layers of the projector
MONO = MonoLoRA(targets=("then.0", "then.2"), dropout=0.5, up=Gaussian(0.1))


def task(corruption: Corruption, *severities: float, encoder: Representation = PRETRAIN) -> Task:
    return Task(encoder=encoder, data=DATA, corruption=corruption, severities=severities, repeats=2)


def sparse_autoencoder() -> SparseAutoencoder:
    return SparseAutoencoder(
        data=DATA,
        encoder=Embedding(tiny_pretrain(epochs=1, objective=Contrastive())),
        sparsity=TopK(4),
        latents=32,
        optimizer=SGD(lr=0.05),
        schedule=Constant(),
        epochs=1,
        batch_size=256,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize(
    "encoder",
    [PRETRAIN, Projection(PRETRAIN, "relu"), sparse_autoencoder()],
    ids=lambda encoder: type(encoder).__name__,
)
def test_fine_tuning_learns_below_any_representation(store, encoder):
    curve = Curve(
        encoder=encoder,
        data=DATA,
        probe=TUNE,
        corruption=LabelNoise(),
        severities=(0.0, 0.5),
        repeats=1,
    )
    top1 = store.get(curve)["top1"][:, 0]
    assert top1.min() >= 0 and top1[0] > 30
    history = store.history(TUNE.tuned(curve.task, 0.0, 0))
    losses = [entry.scalars["loss"] for entry in history]
    assert len(losses) == 3 and losses[2] < losses[0]


@pytest.mark.parametrize(
    ("whole", "moved"), [(False, {"first.first"}), (True, {"first.first", "first.then"})]
)
def test_only_the_backbone_learns_unless_the_whole_does(store, whole, moved):
    encoder = Projection(PRETRAIN)
    before = encoder.network(store.get).state_dict()
    tuned = replace(TUNE, whole=whole).tuned(task(LabelNoise(), 0.0, encoder=encoder), 0.0, 0)
    after = tuned.network(store.get).features.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {".".join(name.split(".")[:2]) for name in changed} == moved
    assert any("running_mean" in name for name in changed)


def tuned_stages(*tasks: Task) -> set[Tuned]:
    return {TUNE.tuned(task, severity, repeat) for task in tasks for severity, repeat in task.draws}


def test_what_leaves_the_training_set_alone_is_learned_once():
    stages = tuned_stages(
        task(GaussianNoise(), 0.0, 0.5), task(UniformNoise(), 0.3), task(LabelNoise(), 0.0)
    )
    settings = {(stage.corruption, stage.severity, stage.repeat) for stage in stages}
    assert settings == {(None, 0.0, 0), (None, 0.0, 1)}


def test_all_of_the_examples_are_the_clean_training_set():
    stages = tuned_stages(task(FewShot("fraction"), 0.1, 1.0))
    assert {(stage.corruption, stage.severity) for stage in stages} == {
        (FewShot("fraction"), 0.1),
        (None, 0.0),
    }


def test_a_fine_tuned_network_learns_from_the_examples_and_labels_of_its_cell():
    noisy = task(LabelNoise(), 0.5)
    examples, labels = TUNE.tuned(noisy, 0.5, 1).training_set()
    assert torch.equal(labels, noisy.probe_spec(0.5, 1).labels) and len(examples) == 1437
    assert len(TUNE.tuned(task(FewShot(), 2), 2, 0).training_set().examples) == 20


def test_non_negative_cross_entropy_classifies_rectified_features(store):
    encoder = Projection(PRETRAIN)
    clean = task(LabelNoise(), 0.0, encoder=encoder)
    plain, rectified = (
        replace(TUNE, rectify=rectify).tuned(clean, 0.0, 0).learner(store.get)[0].eval()
        for rectify in (False, True)
    )
    images = DATA.prepare(DATA.split("test").inputs[:5])
    features = encoder.network(store.get)(images)
    assert (features < 0).any()
    assert_close(plain(images), plain.classifier(features))
    assert_close(rectified(images), plain.classifier(features.relu()))


class Killed(Exception):
    pass


class KillAtStep(Callback):
    def __init__(self, step: int):
        self.step = step

    def on_log(self, stage, entry) -> None:
        if isinstance(stage, Tuned) and entry.step == self.step:
            raise Killed


@pytest.mark.parametrize(("encoder", "adapter"), [(PRETRAIN, None), (PROJECTION, MONO)])
def test_a_killed_fine_tuning_goes_on_with_the_same_bits(store, tmp_path: Path, encoder, adapter):
    probe = replace(TUNE, adapter=adapter)
    tuned = Tuned(probe=probe, encoder=encoder, data=DATA, corruption=None, severity=0.0, repeat=5)
    whole = store.get(tuned)
    other = Store(tmp_path, callbacks=(KillAtStep(3),))
    with pytest.raises(Killed):
        other.get(tuned)
    assert not other.has(tuned)
    other.callbacks = ()
    resumed = other.get(tuned)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_batches_of_one_image_are_refused():
    with pytest.raises(FieldError, match=r"FineTune.batch_size must be 2 or more"):
        replace(TUNE, batch_size=1)


def test_batches_larger_than_the_training_split_are_refused():
    with pytest.raises(
        FieldError, match=r"FineTune.batch_size must be at most 1437, the training images"
    ):
        replace(TUNE, batch_size=2000).check_data(Digits())


# With an adapter


def adapted_curve(adapter, encoder=PROJECTION):
    probe = replace(TUNE, adapter=adapter, epochs=2, batch_size=128)
    corruption = LabelNoise()
    return Curve(
        encoder=encoder,
        data=DATA,
        probe=probe,
        corruption=corruption,
        severities=(0.0,),
        repeats=1,
    )


@pytest.mark.parametrize("adapter", [LORA, MONO], ids=lambda adapter: type(adapter).__name__)
def test_an_adapter_learns_and_its_measures_are_in_history_and_tables(store, adapter):
    curve = adapted_curve(adapter)
    curve.preflight()
    rows = {row.metric: row.value for row in curve.results(store.get(curve))}
    assert {*MEASURES} < rows.keys()
    assert 0 <= rows["dead_ranks"] <= 100 and rows["update_norm"] > 0
    if adapter is LORA:
        assert rows["adapter_sparsity"] < 0.1
    else:
        assert 5 < rows["adapter_sparsity"] < 95
    history = store.history(curve.probe.tuned(curve.task, 0.0, 0))
    assert all({*MEASURES} < entry.scalars.keys() for entry in history)
    assert history[-1].scalars["loss"] < history[0].scalars["loss"]
    assert history[-1].scalars["update_norm"] > history[0].scalars["update_norm"]


def test_with_an_adapter_everything_else_stays_and_is_not_in_the_artifact(store):
    curve = adapted_curve(MONO)
    tuned = curve.probe.tuned(curve.task, 0.0, 0)
    artifact = store.get(tuned)
    assert {name.split(".")[0] for name in artifact} == {"learns", "classifier"}
    assert {name.split(".")[-2] for name in artifact} == {"down", "up", "classifier"}
    adapted = tuned.network(store.get).features.state_dict()
    for name, before in PROJECTION.network(store.get).state_dict().items():
        layer, _, leaf = name.rpartition(".")
        name = f"{layer}.layer.{leaf}" if ".then." in name else name
        assert torch.equal(adapted[name], before)


def test_what_an_adapter_adds_depends_on_no_other_draw(store, tmp_path: Path):
    curve = adapted_curve(LORA)
    first = store.get(curve)
    torch.manual_seed(1)
    torch.rand(7)
    before = torch.get_rng_state()
    second = Store(tmp_path).get(curve)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("adapter", "encoder", "complaint"),
    [
        (replace(LORA, targets=("then.1",)), PROJECTION, "LoRA.targets has 'then.1', which is no"),
        (replace(LORA, targets=("than.0",)), PROJECTION, "did you mean 'then.0'"),
        (replace(LORA, rank=17), PROJECTION, "LoRA.rank must be at most 16, the smaller side of"),
        (LORA, PRETRAIN, "LoRA.targets must name linear layers, and the encoder has none"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_before_anything_is_trained(
    adapter, encoder, complaint
):
    (tuned,) = adapted_curve(adapter, encoder).upstream()[-1:]
    with pytest.raises(FieldError, match=complaint):
        tuned.preflight()


def test_an_adapter_in_a_whole_that_learns_is_refused():
    with pytest.raises(FieldError, match="FineTune.whole must be False with an adapter"):
        replace(TUNE, whole=True, adapter=LORA)
