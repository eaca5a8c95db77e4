"""A bank of autoencoders on one stream of features: each one is what it is alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_sae import tiny_sae
from torch import nn

from monosem.autoencoders.errors import SquaredError
from monosem.autoencoders.gated import L1
from monosem.autoencoders.jumprelu import JumpReLU
from monosem.autoencoders.revival import AuxK
from monosem.autoencoders.starts import GeometricMedian, TransposedDecoder, UnitColumns
from monosem.autoencoders.topk import BatchTopK, TopK
from monosem.core.stage import StageError, group_shared
from monosem.core.store import Callback, Store
from monosem.data.augment import ColorJitter
from monosem.datasets.digits import Digits
from monosem.learning.optimizers import SGD, Constant
from monosem.models.baselines import Pixels

DATA = Digits(size=8)
IMAGES = 5 * 256  # in an epoch


def sae(**fields):
    """Of a quarter of a second."""
    return tiny_sae(**{"encoder": Pixels(DATA), "views": (ColorJitter(),), **fields})


def bank():
    """Other kinds, starts, errors, rates and lengths on the same stream."""
    return [
        sae(),
        sae(sparsity=L1(0.01), latents=48, optimizer=SGD(lr=0.02)),
        sae(sparsity=BatchTopK(4), error=SquaredError(), decoder_columns=UnitColumns()),
        sae(sparsity=JumpReLU(), epochs=3, schedule=Constant(), weights=TransposedDecoder()),
        sae(sparsity=TopK(2), epochs=1, revival=AuxK(), centre=GeometricMedian()),
    ]


def diverging():
    return sae(sparsity=L1(0.0), optimizer=SGD(lr=1e30), epochs=3)


def assert_same_in(store, other, stages):
    for stage in stages:
        artifact, expected = store.get(stage), other.get(stage)
        assert artifact.keys() == expected.keys()
        assert all(torch.equal(artifact[name], expected[name]) for name in expected), stage
        assert store.history(stage) == other.history(stage)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A store in which every one of the bank was trained by itself."""
    store = Store(tmp_path_factory.mktemp("alone"))
    for stage in bank():
        store.get(stage)
    return store


class Stopper(Callback):
    """Ends the process, as it were, when a stage has logged an epoch."""

    def __init__(self, stage, epoch):
        self.stage, self.epoch = stage, epoch

    def on_log(self, stage, entry):
        if stage == self.stage and entry.step == self.epoch:
            raise KeyboardInterrupt


def test_kinds_rates_and_lengths_share_a_stream_and_other_views_or_orders_do_not():
    apart = [
        sae(seed=1),
        sae(batch_size=128),
        sae(views=()),
        sae(cached=1),
        sae(encoder=Pixels(Digits(size=16)), data=Digits(size=16)),
    ]
    groups = group_shared([*bank(), *apart])
    assert groups == [tuple(bank()), *((stage,) for stage in apart)]


def test_autoencoders_have_the_same_bits_and_logs_whether_trained_alone_or_together(
    tmp_path, alone
):
    together = Store(tmp_path)
    together.get_together(bank())
    assert_same_in(together, alone, bank())


def test_every_view_passes_the_encoder_once_for_the_whole_bank(tmp_path, monkeypatch):
    passed = []

    class Counting(nn.Module):
        def forward(self, inputs):
            passed.append(len(inputs))
            return inputs.flatten(1)

    monkeypatch.setattr(Pixels, "network", lambda self, get: Counting())
    stages = [sae(sparsity=TopK(k), epochs=1) for k in (1, 2, 3)]
    Store(tmp_path).get_together(stages)
    assert sum(passed) == 2 * IMAGES


@pytest.mark.parametrize("stopped", [0, 3])
def test_a_bank_that_was_killed_at_different_epochs_goes_on_together_with_the_same_bits(
    tmp_path, alone, stopped, capsys
):
    store, stages = Store(tmp_path), bank()
    store.callbacks = (Stopper(stages[stopped], 2),)
    with pytest.raises(KeyboardInterrupt):
        store.get_together(stages)
    store.callbacks = ()
    store.get_together(stages)
    assert "goes on after 1 of" in capsys.readouterr().err
    assert_same_in(store, alone, stages)


def test_one_that_was_killed_in_a_bank_goes_on_alone(tmp_path, alone):
    store, stages = Store(tmp_path), bank()
    store.callbacks = (Stopper(stages[1], 2),)
    with pytest.raises(KeyboardInterrupt):
        store.get_together(stages)
    store.callbacks = ()
    assert_same_in(store, alone, stages[:2])


def test_one_that_diverges_fails_by_itself_and_takes_none_along(tmp_path, alone):
    store, stages = Store(tmp_path), bank()
    with pytest.raises(StageError, match="not a finite number|not finite numbers"):
        store.get_together([stages[0], diverging(), *stages[1:]])
    assert all(map(store.has, stages)) and not store.has(diverging())
    assert_same_in(store, alone, stages)


def test_halves_are_shared_as_halves(tmp_path):
    stages = [replace(stage, precision="bfloat16", epochs=1) for stage in bank()[:2]]
    together, each_alone = Store(tmp_path / "a"), Store(tmp_path / "b")
    together.get_together(stages)
    assert_same_in(together, each_alone, stages)
