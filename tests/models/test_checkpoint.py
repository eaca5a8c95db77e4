"""Somebody else's weights as an encoder: features as they would be in their own code, and what is said of files that do not fit."""

from __future__ import annotations

import shutil

import pytest
import torch
from conftest import tiny_pretrain
from torch.testing import assert_close

from monosem.core.fields import FieldError
from monosem.core.stage import key
from monosem.core.store import Store
from monosem.data.digits import Digits
from monosem.learning.encoders import Projector, SmallConv
from monosem.learning.objectives import Contrastive, NonNegative
from monosem.learning.sparse import Autoencoder, TopK
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.checkpoint import Checkpoint, Latents
from monosem.models.representation import Embedding, Projection

PRETRAIN = tiny_pretrain()
IMAGES = Digits(size=8).prepare(Digits(size=8).load("test").inputs[:7])


@pytest.fixture
def network():
    return PRETRAIN.build()


@pytest.fixture
def file(tmp_path, network):
    """As Lightning would leave it, with a classifier that nobody needs."""
    weights = {
        **network.state_dict(),
        "classifier.weight": torch.zeros(10, 16),
        "classifier.bias": torch.zeros(10),
    }
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "theirs.ckpt")
    return tmp_path / "theirs.ckpt"


def checkpoint(path, **fields):
    standard = {
        "encoder": SmallConv(channels=4, features=16),
        "projector": Projector(hidden=16, features=16),
        "channels": 1,
    }
    return Checkpoint(path=str(path), **{**standard, **fields})


def test_a_checkpoint_gives_the_features_of_the_network_that_was_saved(tmp_path, file, network):
    store, stage = Store(tmp_path / "store"), checkpoint(file, objective=NonNegative())
    features = network.eval().backbone(IMAGES)
    raw = network.projector(features)
    for ours, expected in (
        (stage, features),
        (Projection(stage), raw),
        (Projection(stage, "relu"), raw.relu()),
        (Embedding(stage), NonNegative().embed(raw)),
    ):
        assert_close(ours.network(store.get)(IMAGES), expected.detach())
        assert ours.width == 16 and ours.incompatibility(Digits(size=8)) is None


def test_the_key_is_of_the_content_and_not_of_the_place(tmp_path, file, network):
    copied = shutil.copy(file, tmp_path / "copied.ckpt")
    assert key(checkpoint(file)) == key(checkpoint(copied))
    with torch.no_grad():
        network.projector[0].bias[0] += 1
    torch.save(network.state_dict(), tmp_path / "other.pth")
    assert key(checkpoint(tmp_path / "other.pth")) != key(checkpoint(file))


def test_an_autoencoder_in_the_file_reads_what_one_says(tmp_path, network):
    autoencoder = Autoencoder(16, 32, TopK(4))
    torch.nn.init.normal_(autoencoder.pre_bias)
    torch.save(
        {"state_dict": {**network.state_dict(), **autoencoder.state_dict()}}, tmp_path / "sae.ckpt"
    )
    with_it = checkpoint(
        tmp_path / "sae.ckpt", latents=32, sparsity=TopK(4), objective=Contrastive()
    )
    store = Store(tmp_path / "store")
    raw = network.eval().projector(network.backbone(IMAGES))
    for encoder, inputs in (
        (Projection(with_it), raw),
        (Embedding(with_it), Contrastive().embed(raw)),
    ):
        latents = Latents(with_it, encoder)
        assert latents.width == 32 and latents.stages == (with_it, with_it)
        assert_close(latents.network(store.get)(IMAGES), autoencoder.encode(inputs).detach())
    assert_close(
        checkpoint(tmp_path / "sae.ckpt").network(store.get)(IMAGES),
        network.backbone(IMAGES).detach(),
    )  # without it too


def test_latents_of_our_own_autoencoder_may_read_raw_projections_as_in_the_reference(tmp_path):
    store, encoder = Store(tmp_path), tiny_pretrain(epochs=1, objective=Contrastive())
    sae = SparseAutoencoder(
        data=Digits(size=8), encoder=Embedding(encoder), sparsity=TopK(4), latents=32, optimizer=encoder.optimizer,
        schedule=encoder.schedule, epochs=1, batch_size=256,
    )  # fmt: skip
    raw = Projection(encoder).network(store.get)(IMAGES)
    assert_close(
        Latents(sae, Projection(encoder)).network(store.get)(IMAGES),
        sae.autoencoder(store.get).encode(raw).detach(),
    )
    assert_close(
        Latents(sae, Embedding(encoder)).network(store.get)(IMAGES), sae.network(store.get)(IMAGES)
    )
    assert set(Latents(sae, Projection(encoder)).stages) == {sae, encoder}


def test_a_file_that_does_not_fit_is_refused_before_any_work(tmp_path, file):
    for fields, words in (
        ({"projector": Projector(hidden=16, features=8)}, "Projector.features = 16"),
        ({"latents": 8, "sparsity": TopK(2)}, "has no sparse autoencoder"),
        ({"channels": 3}, r"\(4, 1, 3, 3\) instead of \(4, 3, 3, 3\)"),
    ):
        with pytest.raises(FieldError, match="Checkpoint.path cannot be used: .*" + words):
            checkpoint(file, **fields).preflight()
    with pytest.raises(
        FieldError,
        match=r"Checkpoint.path cannot be used: there is no file .*their.ckpt. Did you mean theirs.ckpt\?",
    ):
        key(checkpoint(tmp_path / "their.ckpt"))


def test_impossible_checkpoints_are_refused(file):
    for make, words in (
        (
            lambda: checkpoint(file, latents=8),
            "Checkpoint.sparsity and Checkpoint.latents go together",
        ),
        (
            lambda: checkpoint(file, latents=8, sparsity=TopK(2), projector=None),
            "Checkpoint.projector must be set",
        ),
        (
            lambda: checkpoint(file, latents=8, sparsity=TopK(9)),
            "TopK.k must be at most the number of latents, 8",
        ),
        (
            lambda: Projection(checkpoint(file, projector=None)),
            "Projection.encoder must have a projector",
        ),
        (lambda: Embedding(checkpoint(file)), "Checkpoint.objective must be set"),
        (
            lambda: Latents(checkpoint(file), Projection(checkpoint(file))),
            "Latents.autoencoder must have an autoencoder",
        ),
        (
            lambda: Latents(checkpoint(file, latents=8, sparsity=TopK(2)), PRETRAIN.__class__),
            "Latents.encoder must be a Representation",
        ),
        (lambda: checkpoint(""), "Checkpoint.path must be a path, got ''"),
    ):
        with pytest.raises(FieldError, match=words):
            make()
