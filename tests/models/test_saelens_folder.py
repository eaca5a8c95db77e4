"""Autoencoders of SAELens as latents of any features, and ours as a folder of theirs."""

from __future__ import annotations

import shutil

import pytest
import torch
from conftest import GOLDEN, tiny_pretrain
from safetensors.torch import load_file
from tiny_sae import tiny_sae
from torch.testing import assert_close

import monosem
from monosem.core.fields import FieldError
from monosem.core.stage import key
from monosem.core.store import Store
from monosem.datasets.digits import Digits
from monosem.learning.encoders import Projector
from monosem.models.baselines import Pixels
from monosem.models.checkpoint import Latents, SAELensFolder
from monosem.models.representation import Projection

DATA = Digits(size=8)
IMAGES = DATA.prepare(DATA.load("test").inputs[:7])


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(GOLDEN / "saelens_folders" / "gated_uncentred", tmp_path / "theirs")


@pytest.fixture
def encoder():
    return Projection(tiny_pretrain(projector=Projector(hidden=16, features=6), epochs=1))


def test_latents_of_a_folder_are_those_of_the_features_that_one_names(tmp_path, folder, encoder):
    store, stage = Store(tmp_path / "store"), SAELensFolder(str(folder))
    latents = Latents(stage, encoder)
    assert latents.width == 12 and set(latents.stages) == {stage, encoder.encoder}
    autoencoder = stage.autoencoder(store.get).eval()
    expected = autoencoder.encode(encoder.network(store.get)(IMAGES)).detach()
    assert (expected > 0).any()
    assert_close(latents.network(store.get)(IMAGES), expected)
    assert latents.skeleton() is not None
    assert latents.incompatibility(DATA) is None


def test_the_key_of_a_folder_is_of_its_content_and_not_of_its_place(tmp_path, folder):
    copied = shutil.copytree(folder, tmp_path / "copied")
    assert key(SAELensFolder(str(folder))) == key(SAELensFolder(str(copied)))
    other = shutil.copytree(folder, tmp_path / "other")
    config = (other / "cfg.json").read_text()
    (other / "cfg.json").write_text(config.replace('_input": false', '_input": true'))
    assert key(SAELensFolder(str(other))) != key(SAELensFolder(str(folder)))


def test_features_of_another_width_are_refused(folder):
    with pytest.raises(FieldError, match="Latents.encoder must have 6 features, .* got 64"):
        Latents(SAELensFolder(str(folder)), Pixels(DATA))


@pytest.mark.parametrize(
    ("gone", "complaint"),
    [("cfg.json", "there is no file"), ("sae_weights.safetensors", "there is no file")],
)
def test_a_folder_that_is_not_whole_has_no_key(folder, gone, complaint):
    (folder / gone).unlink()
    with pytest.raises(FieldError, match=f"SAELensFolder.path cannot be used: {complaint}"):
        key(SAELensFolder(str(folder)))


def test_weights_that_do_not_fit_are_refused_before_any_work(folder):
    shutil.copy(GOLDEN / "saelens_folders" / "topk" / "sae_weights.safetensors", folder)
    with pytest.raises(FieldError, match="does not fit the cfg.json beside it. missing: b_gate"):
        SAELensFolder(str(folder)).preflight()


def test_our_autoencoder_goes_to_a_folder_and_comes_back(tmp_path):
    store, sae = Store(tmp_path / "store"), tiny_sae(epochs=1)
    monosem.export_saelens(sae, tmp_path / "ours", store.root)
    back = Latents(SAELensFolder(str(tmp_path / "ours")), sae.encoder)
    assert torch.equal(back.network(store.get)(IMAGES), sae.network(store.get)(IMAGES))
    weights = load_file(tmp_path / "ours" / "sae_weights.safetensors")
    assert torch.equal(weights["W_enc"], store.get(sae)["encoder.weight"].T)


def test_what_is_no_autoencoder_is_not_exported(tmp_path):
    with pytest.raises(TypeError, match="takes a sparse autoencoder, got Pixels"):
        monosem.export_saelens(Pixels(DATA), tmp_path)
