"""Somebody else's weights as an encoder: its features are theirs; what does not fit is refused."""

from __future__ import annotations

import shutil

import pytest
import torch
from checkpoint_files import assert_same
from conftest import tiny_pretrain
from tiny_sae import tiny_sae
from torch.testing import assert_close

from monosem.autoencoders.base import Autoencoder
from monosem.autoencoders.topk import TopK
from monosem.core.fields import FieldError
from monosem.core.stage import key
from monosem.core.store import Store
from monosem.datasets.digits import Digits
from monosem.datasets.shapes import Shapes
from monosem.learning.encoders import Projector, SmallConv
from monosem.learning.objectives import Contrastive, NonNegative
from monosem.models.checkpoint import Checkpoint, Latents
from monosem.models.representation import Embedding, Projection

DATA = Digits(size=8)
IMAGES = DATA.prepare(DATA.load("test").inputs[:7])


@pytest.fixture
def network():
    return tiny_pretrain().build()


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


@pytest.fixture
def sae_file(tmp_path, network):
    """As the authors leave a sparse autoencoder: beside the encoder. Gives the autoencoder too."""
    autoencoder = Autoencoder(16, 32, TopK(4))
    torch.nn.init.normal_(autoencoder.pre_bias)
    state = {**network.state_dict(), **autoencoder.state_dict()}
    torch.save({"state_dict": state}, tmp_path / "sae.ckpt")
    return tmp_path / "sae.ckpt", autoencoder


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
    expected = {
        stage: features,
        Projection(stage): raw,
        Projection(stage, "relu"): raw.relu(),
        Embedding(stage): NonNegative().embed(raw),
    }
    for representation, values in expected.items():
        assert representation.width == 16
        assert_close(representation.network(store.get)(IMAGES), values.detach())


def test_a_checkpoint_takes_images_of_its_channels(file):
    for representation in (checkpoint(file), Projection(checkpoint(file))):
        assert representation.incompatibility(DATA) is None
        assert "must have 1 channels" in representation.incompatibility(Shapes())


def test_an_artifact_outlives_the_file_that_it_was_read_from(file, network):
    artifact = checkpoint(file).run(None)
    file.write_bytes(b"\0" * file.stat().st_size)
    assert_same(artifact, network.state_dict())


def test_the_key_is_of_the_content_and_not_of_the_place(tmp_path, file, network):
    copied = shutil.copy(file, tmp_path / "copied.ckpt")
    assert key(checkpoint(file)) == key(checkpoint(copied))
    with torch.no_grad():
        network.projector[0].bias[0] += 1
    torch.save(network.state_dict(), tmp_path / "other.pth")
    assert key(checkpoint(tmp_path / "other.pth")) != key(checkpoint(file))


def test_an_autoencoder_in_the_file_reads_what_one_says(tmp_path, network, sae_file):
    path, autoencoder = sae_file
    stage = checkpoint(path, latents=32, sparsity=TopK(4), objective=Contrastive())
    store = Store(tmp_path / "store")
    raw = network.eval().projector(network.backbone(IMAGES))
    inputs = {Projection(stage): raw, Embedding(stage): Contrastive().embed(raw)}
    for encoder, values in inputs.items():
        latents = Latents(stage, encoder)
        assert latents.width == 32 and latents.stages == (stage, stage)
        assert_close(latents.network(store.get)(IMAGES), autoencoder.encode(values).detach())


def test_an_autoencoder_in_the_file_may_be_left(tmp_path, network, sae_file):
    path, _ = sae_file
    features = checkpoint(path).network(Store(tmp_path / "store").get)(IMAGES)
    assert_close(features, network.eval().backbone(IMAGES).detach())


def test_latents_of_our_own_autoencoder_may_read_raw_projections_as_in_the_reference(tmp_path):
    store, sae = Store(tmp_path), tiny_sae(epochs=1)
    pretrain = sae.encoder.encoder
    raw = Projection(pretrain).network(store.get)(IMAGES)
    expected = sae.autoencoder(store.get).encode(raw).detach()
    latents = Latents(sae, Projection(pretrain))
    assert_close(latents.network(store.get)(IMAGES), expected)
    assert set(latents.stages) == {sae, pretrain}


def test_latents_of_what_an_autoencoder_was_trained_on_are_its_own(tmp_path):
    store, sae = Store(tmp_path), tiny_sae(epochs=1)
    latents = Latents(sae, sae.encoder)
    assert_close(latents.network(store.get)(IMAGES), sae.network(store.get)(IMAGES))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"projector": Projector(hidden=16, features=8)}, "Projector.features = 16"),
        ({"latents": 8, "sparsity": TopK(2)}, "has no sparse autoencoder"),
        ({"channels": 3}, r"\(4, 1, 3, 3\) instead of \(4, 3, 3, 3\)"),
    ],
    ids=["projector", "autoencoder", "channels"],
)
def test_a_file_that_does_not_fit_is_refused_before_any_work(file, fields, complaint):
    with pytest.raises(FieldError, match=f"Checkpoint.path cannot be used: .*{complaint}"):
        checkpoint(file, **fields).preflight()


def test_a_file_that_is_not_there_has_no_key(tmp_path, file):
    complaint = (
        r"Checkpoint.path cannot be used: there is no file .*their.ckpt. Did you mean theirs.ckpt\?"
    )
    with pytest.raises(FieldError, match=complaint):
        key(checkpoint(tmp_path / "their.ckpt"))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (
            lambda path: checkpoint(path, latents=8),
            "Checkpoint.sparsity and Checkpoint.latents go together",
        ),
        (
            lambda path: checkpoint(path, latents=8, sparsity=TopK(2), projector=None),
            "Checkpoint.projector must be set",
        ),
        (
            lambda path: checkpoint(path, latents=8, sparsity=TopK(9)),
            "TopK.k must be at most the number of latents, 8",
        ),
        (
            lambda path: Projection(checkpoint(path, projector=None)),
            "Projection.encoder must have a projector",
        ),
        (lambda path: Embedding(checkpoint(path)), "Checkpoint.objective must be set"),
        (
            lambda path: Latents(checkpoint(path), Projection(checkpoint(path))),
            "Latents.autoencoder must have an autoencoder",
        ),
        (
            lambda path: Latents(checkpoint(path, latents=8, sparsity=TopK(2)), Projection),
            "Latents.encoder must be a Representation",
        ),
        (
            lambda path: Latents(
                checkpoint(path, latents=8, sparsity=TopK(2)),
                checkpoint(path, encoder=SmallConv(channels=4, features=8)),
            ),
            "Latents.encoder must have 16 features, which the autoencoder reads, got 8",
        ),
        (lambda path: checkpoint(""), "Checkpoint.path must be a path, got ''"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_impossible_checkpoints_are_refused(file, make, complaint):
    with pytest.raises(FieldError, match=complaint):
        make(file)
