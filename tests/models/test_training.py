"""Training on views: what a batch holds, what is logged, and what is refused."""

from __future__ import annotations

import pytest
import torch
from conftest import tiny_pretrain
from tiny_sae import tiny_sae
from torch import nn

from monosem.core.fields import FieldError
from monosem.core.store import Store
from monosem.learning.objectives import Contrastive
from monosem.models import training

STEPS_PER_EPOCH = 1437 // 256  # training images of the digits, batch size


class Enough(Exception):
    """Ends a training."""


class Job:
    """One that keeps nothing."""

    def restore(self):
        return None

    def log(self, *values, **scalars):
        pass

    on_step = save = log


def first_batch(stage, epoch=0):
    """Views, index and labels of the first batch of an epoch."""
    module = nn.Linear(1, 1, bias=False)
    batches = []

    def losses(*batch):
        batches.append(batch)
        if len(batches) > epoch * STEPS_PER_EPOCH:
            raise Enough
        return {"loss": module.weight.sum()}

    groups = [{"params": [*module.parameters()]}]
    with pytest.raises(Enough):
        stage.train(Job(), module, groups, losses, lambda views: views.flatten(1))
    return batches[-1]


def clean_images(stage, index):
    return stage.data.prepare(stage.data.load("train").inputs[index])


def share_of_changed(some_images, other_images):
    """How many images differ by more than a twentieth of a deviation somewhere."""
    largest = (some_images - other_images).flatten(1).abs().amax(1)
    return largest.gt(0.05).float().mean()


def test_a_batch_holds_two_different_views_of_every_image():
    stage = tiny_pretrain()
    views, index, _ = first_batch(stage)
    first, second = views.chunk(2)
    clean = clean_images(stage, index[:256])
    assert torch.equal(index[:256], index[256:]) and len(index[:256].unique()) == 256
    for one, other in ((first, second), (first, clean), (second, clean)):
        assert share_of_changed(one, other) > 0.95


def test_a_batch_holds_the_labels_of_its_images():
    stage = tiny_pretrain()
    _, index, labels = first_batch(stage)
    assert torch.equal(labels, stage.data.load("train").labels[index])


def test_without_augmentations_views_are_the_clean_images():
    stage = tiny_pretrain(views=())
    views, index, _ = first_batch(stage)
    assert torch.equal(views, clean_images(stage, index))


def test_every_epoch_and_every_seed_has_an_order_of_its_own_and_one_seed_always_the_same():
    views, index, _ = first_batch(tiny_pretrain())
    again, _, _ = first_batch(tiny_pretrain())
    _, next_epoch, _ = first_batch(tiny_pretrain(), epoch=1)
    _, other_seed, _ = first_batch(tiny_pretrain(seed=1))
    assert torch.equal(views, again)
    assert not torch.equal(index, next_epoch) and not torch.equal(index, other_seed)


def test_two_objectives_with_one_seed_meet_the_same_views():
    views, _, _ = first_batch(tiny_pretrain())
    others, _, _ = first_batch(tiny_pretrain(objective=Contrastive()))
    assert torch.equal(views, others)


@pytest.mark.parametrize("make", [tiny_pretrain, tiny_sae], ids=["pretrain", "sae"])
def test_monosemanticity_is_logged_at_every_epoch_and_changes_no_weight(
    tmp_path, monkeypatch, make
):
    stage, store = make(), Store(tmp_path / "a")
    weights = store.get(stage)
    names = {"class_consistency", "class_selectivity", "sparsity", "hoyer", "effective_rank"}
    for entry in store.history(stage):
        assert names | {"correlation"} <= set(entry.scalars)
        assert 0.1 <= entry.scalars["class_consistency"] <= 1
    monkeypatch.setattr(training, "WATCHED", ())
    without = Store(tmp_path / "b").get(stage)
    assert all(torch.equal(weights[name], without[name]) for name in weights)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_left_to_the_loop_to_complain_of(value):
    views, labels = torch.ones(8, 4), torch.arange(8) % 2
    views[0, 0] = value
    assert training.measure_batch(nn.Identity(), lambda rows: rows, views, labels) == {}


def test_a_batch_larger_than_the_training_split_is_refused():
    complaint = "Pretrain.batch_size must be at most 1437, the training images, got 1438"
    with pytest.raises(FieldError, match=complaint):
        tiny_pretrain(batch_size=1438).preflight()
