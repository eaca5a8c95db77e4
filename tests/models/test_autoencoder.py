"""Sparse autoencoders as stages, and the reference's traps 2, 10 and 11."""

from __future__ import annotations

import pytest
import torch
from conftest import tiny_pretrain
from tiny_sae import groups_in_training, tiny_sae
from torch.testing import assert_close

from monosem.autoencoders.base import Autoencoder
from monosem.autoencoders.gated import L1, Gated
from monosem.autoencoders.jumprelu import JumpReLU
from monosem.autoencoders.matryoshka import Matryoshka
from monosem.autoencoders.revival import AuxK
from monosem.autoencoders.starts import GeometricMedian, Times, TransposedDecoder, UnitColumns
from monosem.autoencoders.topk import BatchTopK, TopK
from monosem.core.fields import FieldError
from monosem.core.stage import key
from monosem.core.store import Callback, Store
from monosem.datasets.shapes import Shapes
from monosem.learning.optimizers import SGD
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.checkpoint import Latents
from monosem.models.representation import Embedding, backbone_of

KINDS = (
    TopK(4), BatchTopK(4), L1(0.1), Gated(0.1, warmup=3), JumpReLU(), Matryoshka((8,), BatchTopK(4))
)  # fmt: skip
STEPS_PER_EPOCH = 1437 // 256  # training images of the digits, batch size


def test_batch_norm_of_the_frozen_encoder_never_moves(tmp_path, monkeypatch):
    store, sae = Store(tmp_path), tiny_sae()
    before = store.get(sae.encoder.encoder)
    networks = []
    build = Embedding.network

    def network(self, get):
        networks.append(build(self, get))
        return networks[-1]

    monkeypatch.setattr(Embedding, "network", network)
    store.get(sae)
    after = backbone_of(networks[0]).state_dict()
    assert all(torch.equal(before[f"backbone.{name}"], tensor) for name, tensor in after.items())


def test_the_autoencoder_is_trained_on_unit_projections(tmp_path, monkeypatch):
    inputs = []
    losses = SparseAutoencoder.losses

    def recorded(self, autoencoder, batch, *told):
        inputs.append(batch)
        return losses(self, autoencoder, batch, *told)

    monkeypatch.setattr(SparseAutoencoder, "losses", recorded)
    Store(tmp_path).get(tiny_sae())
    norms = torch.cat(inputs).norm(dim=1)
    assert_close(norms, torch.ones(len(norms)))


def test_the_autoencoder_sees_at_probe_time_what_it_was_trained_on(tmp_path, monkeypatch):
    store, sae = Store(tmp_path), tiny_sae()
    images = sae.data.prepare(sae.data.load("test").inputs[:9])
    network = sae.network(store.get)
    inputs = []
    encode = Autoencoder.encode

    def recorded(self, batch):
        inputs.append(batch)
        return encode(self, batch)

    monkeypatch.setattr(Autoencoder, "encode", recorded)
    latents = network(images)
    assert_close(inputs[0], sae.encoder.network(store.get)(images))
    assert latents.shape == (9, 32)
    assert (latents >= 0).all() and ((latents > 0).sum(1) <= 4).all()
    assert_close(latents, sae.network(store.get)(images))


def test_dead_latents_are_counted():
    sae = tiny_sae()
    autoencoder = sae.build()
    with torch.no_grad():
        autoencoder.latent_bias[:5] = -100.0
    inputs = torch.eye(16).repeat(32, 1)
    counts = [
        sae.losses(autoencoder, inputs)["dead_latents"].item() for _ in range(STEPS_PER_EPOCH)
    ]
    dead = 32 - (autoencoder.encode(inputs) > 0).any(0).sum()
    assert counts == [0] * (STEPS_PER_EPOCH - 1) + [dead] and dead >= 5


def test_sparsity_is_logged_at_every_epoch(tmp_path):
    store, sae = Store(tmp_path), tiny_sae()
    store.get(sae)
    history = store.history(sae)
    assert len(history) == sae.epochs
    assert all(set(entry.scalars) >= {"lr", "loss", "l0", "dead_latents"} for entry in history)


def test_changing_the_autoencoder_reuses_the_encoder():
    one, other = tiny_sae(), tiny_sae(sparsity=TopK(8))
    assert key(one) != key(other)
    assert one.upstream() == other.upstream() == (one.encoder.encoder,)


@pytest.mark.parametrize(
    ("fields", "rates"),
    [
        ({"decoder_lr": 0.3, "optimizer": SGD(lr=0.4, lr_per=128)}, (0.8, 0.3)),
        ({}, (0.05, 0.05)),
    ],
    ids=["own", "shared"],
)
def test_the_decoder_may_have_a_learning_rate_of_its_own(monkeypatch, fields, rates):
    others, decoder = groups_in_training(tiny_sae(**fields), monkeypatch)
    assert (others["lr"], decoder["lr"]) == rates
    assert (len(others["params"]), len(decoder["params"])) == (3, 1)


def test_impossible_autoencoders_are_refused():
    complaint = "TopK.k must be at most the number of latents, 32, got 33"
    with pytest.raises(FieldError, match=complaint):
        tiny_sae(sparsity=TopK(33))
    encoder = Embedding(tiny_pretrain(data=Shapes(train=100, test=100)))
    with pytest.raises(FieldError, match="SparseAutoencoder.data must have 3 channels"):
        tiny_sae(encoder=encoder, views=())


def test_without_views_an_autoencoder_asks_its_encoder_once_and_learns_the_same(
    tmp_path, monkeypatch
):
    """As if each of its batches had passed through the encoder: images of the size of an evaluation
    are the same either way."""
    sae = tiny_sae(views=())
    store = Store(tmp_path)
    batches = []
    losses = SparseAutoencoder.losses

    def recorded(self, autoencoder, batch, *told):
        batches.append(batch)
        return losses(self, autoencoder, batch, *told)

    monkeypatch.setattr(SparseAutoencoder, "losses", recorded)
    state = store.get(sae)
    assert sae.upstream() == sae.training_features and len(sae.upstream()) == 1
    network = sae.encoder.network(store.get)
    features = network(sae.data.prepare(sae.data.split("train").inputs))
    distance, _ = torch.cdist(torch.cat(batches), features).min(1)
    assert float(distance.max()) < 1e-3
    assert all(len(batch) == sae.batch_size for batch in batches)
    assert set(state) == set(sae.build().state_dict())


def test_cached_views_are_encoded_once_and_taken_in_turn(tmp_path, monkeypatch):
    sae = tiny_sae(cached=2, epochs=3)
    first, second = sae.training_features
    assert sae.upstream() == (first, second) and first.views == sae.views
    assert len(tiny_sae(cached=9, epochs=3).training_features) == 3
    store, batches = Store(tmp_path), []
    losses = SparseAutoencoder.losses

    def recorded(self, autoencoder, batch, *told):
        batches.append(batch)
        return losses(self, autoencoder, batch, *told)

    monkeypatch.setattr(SparseAutoencoder, "losses", recorded)
    store.get(sae)
    for epoch, stage in enumerate((first, second, first)):
        seen = torch.cat(batches[epoch * STEPS_PER_EPOCH : (epoch + 1) * STEPS_PER_EPOCH])
        distance, _ = torch.cdist(seen, store.get(stage)["features"]).min(1)
        assert float(distance.max()) < 1e-3


def test_cached_views_need_views():
    with pytest.raises(FieldError, match="SparseAutoencoder.cached needs SparseAutoencoder.views"):
        tiny_sae(views=(), cached=2)


def test_latents_may_be_a_multiple_of_the_width(tmp_path):
    sae = tiny_sae(latents=Times(1.5))
    assert sae.width == sae.build().encoder.weight.shape[0] == 24
    assert Latents(sae, sae.encoder).width == 24
    with pytest.raises(FieldError, match="TopK.k must be at most the number of latents, 8, got 9"):
        tiny_sae(latents=Times(0.5), sparsity=TopK(9))
    with pytest.raises(FieldError, match="SparseAutoencoder.latents must be 1 or more, got 0"):
        tiny_sae(latents=0)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_every_kind_trains_goes_on_after_a_kill_with_the_same_bits_and_is_probed(tmp_path, kind):
    fields = {"weights": TransposedDecoder(), "centre": GeometricMedian(), "revival": AuxK()}
    sae = tiny_sae(sparsity=kind, decoder_columns=UnitColumns(), views=(), epochs=2, **fields)
    whole = Store(tmp_path / "whole")
    expected = whole.get(sae)
    killed = Store(tmp_path / "killed", (Killer(),))
    with pytest.raises(KeyboardInterrupt):
        killed.get(sae)
    state = Store(tmp_path / "killed").get(sae)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert torch.allclose(state["decoder.weight"].norm(dim=0), torch.ones(32))
    latents = sae.network(whole.get)(sae.data.prepare(sae.data.load("test").inputs[:9]))
    assert latents.shape == (9, 32) and (latents >= 0).all() and (latents > 0).any()
    scalars = whole.history(sae)[-1].scalars
    assert set(scalars) >= {"explained_variance", "never_fire", "fire_1e-1"}


class Killer(Callback):
    """Ends the process, as it were, after the first epoch."""

    def on_step(self, stage, step, of, images, loss):
        if isinstance(stage, SparseAutoencoder) and step > of // 2:
            raise KeyboardInterrupt
