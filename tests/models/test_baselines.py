"""Compressions and random codes, against other libraries and their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.decomposition
import torch
from conftest import tiny_pretrain
from torch.testing import assert_close

from monosem.core.fields import FieldError
from monosem.core.stage import key
from monosem.core.store import Store
from monosem.data.digits import Digits
from monosem.learning.sparse import TopK
from monosem.models.baselines import ICA, PCA, Pixels, RandomProjection
from monosem.models.features import Features
from monosem.models.representation import Embedding

DATA = Digits(size=8)
PIXELS = Pixels(DATA)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def features(store, encoder, split="test"):
    return store.get(Features(encoder, DATA, split))["features"]


def test_pixels_are_the_normalised_images_shrunk_by_means(store):
    images = DATA.normalise(DATA.split("test").inputs.float() / 255)
    assert_close(features(store, PIXELS), images.flatten(1))
    assert Pixels(DATA, side=4).width == 16 and PIXELS.width == 64
    assert_close(
        features(store, Pixels(DATA, side=4)),
        images.reshape(-1, 4, 2, 4, 2).mean((2, 4)).flatten(1),
        rtol=1e-5,
        atol=1e-5,
    )
    assert Pixels(Digits(size=16), side=100).width == 256


def test_principal_components_are_scikit_learn_s(store):
    ours = features(store, PCA(encoder=PIXELS, data=DATA, features=5))
    fitted = sklearn.decomposition.PCA(5).fit(features(store, PIXELS, "train").double().numpy())
    theirs = torch.from_numpy(fitted.transform(features(store, PIXELS).double().numpy())).float()
    assert_close(ours.abs(), theirs.abs(), rtol=1e-3, atol=1e-3)  # signs are free
    components = store.get(PCA(encoder=PIXELS, data=DATA, features=5))["components"]
    assert (components.gather(1, components.abs().argmax(1, keepdim=True)) > 0).all()


def test_independent_components_have_unit_variance_are_uncorrelated_and_the_same_every_time(
    store, tmp_path
):
    stage = ICA(encoder=PIXELS, data=DATA, features=6)
    found = features(store, stage, "train").double()
    assert_close(found.mean(0), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-4)
    assert_close(found.T @ found / len(found), torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-2)
    assert torch.equal(store.get(stage)["components"], Store(tmp_path).get(stage)["components"])
    kurtosis = (found**4).mean(0) - 3
    whitened = features(store, PCA(encoder=PIXELS, data=DATA, features=6), "train").double()
    whitened = whitened / whitened.std(0)
    assert (
        kurtosis.abs().sum() > ((whitened**4).mean(0) - 3).abs().sum()
    )  # further from Gaussian than principal components


def test_more_independent_components_than_directions_are_zero(store):
    thin = PCA(encoder=PIXELS, data=DATA, features=3)
    wide = RandomProjection(thin, features=8, density=0.9)
    components = store.get(ICA(encoder=wide, data=DATA, features=8))["components"]
    assert components[:3].abs().amax(1).min() > 0 and not components[3:].any()
    principal = store.get(PCA(encoder=wide, data=DATA, features=8))["components"]
    assert principal[:3].abs().amax(1).min() > 0 and not principal[3:].any()


def test_a_random_projection_is_sparse_keeps_norms_on_average_and_is_named_by_its_seed():
    wide = RandomProjection(PIXELS, features=4000, density=0.1)
    matrix = wide.matrix()
    assert matrix.shape == (4000, 64) and abs((matrix != 0).float().mean() - 0.1) < 0.01
    assert_close(matrix.square().sum(0), torch.ones(64), rtol=0, atol=0.2)
    assert abs(matrix.mean()) < 1e-3
    assert torch.equal(matrix, wide.matrix()) and not torch.equal(
        matrix, RandomProjection(PIXELS, features=4000, seed=1).matrix()
    )


def test_a_random_code_has_as_many_latents_on_as_its_sparsity_says(store):
    code = features(store, RandomProjection(PIXELS, features=100, sparsity=TopK(k=7)))
    assert (
        code.shape == (360, 100)
        and (code >= 0).all()
        and ((code > 0).sum(1) <= 7).all()
        and (code > 0).sum(1).double().mean() > 6
    )


def test_a_projection_is_encoded_through_its_own_encoder_alone():
    below = Embedding(tiny_pretrain(epochs=1))
    stage = PCA(encoder=below, data=DATA, features=4)
    assert [key(each) for each in stage.stages] == [key(stage), key(below.encoder)]
    assert stage.upstream() == (Features(below, DATA, "train"),)
    assert RandomProjection(below, features=8).stages == (below.encoder,)


def test_impossible_projections_are_refused():
    with pytest.raises(
        FieldError, match="PCA.features must be at most 64, the features of the encoder, got 65"
    ):
        PCA(encoder=PIXELS, data=DATA, features=65)
    with pytest.raises(FieldError, match="TopK.k must be at most the number of latents, 8, got 9"):
        RandomProjection(PIXELS, features=8, sparsity=TopK(k=9))
    with pytest.raises(
        FieldError, match="RandomProjection.density must be between 0 and 1, 0 excluded, got 0.0"
    ):
        RandomProjection(PIXELS, features=8, density=0.0)
    assert np.isfinite(RandomProjection(PIXELS, features=1).matrix().numpy()).all()
