"""Compressions and random codes, against other libraries and their definitions."""

from __future__ import annotations

import pytest
import sklearn.decomposition
import sklearn.preprocessing
import torch
from conftest import tiny_pretrain
from torch.testing import assert_close

from monosem.autoencoders.jumprelu import JumpReLU
from monosem.autoencoders.topk import TopK
from monosem.core.fields import FieldError
from monosem.core.store import Store
from monosem.datasets.digits import Digits
from monosem.datasets.shapes import Shapes
from monosem.models.baselines import Pixels, RandomProjection, Rotated, Sparsified
from monosem.models.features import Features
from monosem.models.fitted import ICA, PCA, Standardised, Whitened
from monosem.models.representation import Embedding

DATA = Digits(size=8)
PIXELS = Pixels(DATA)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def features(store, encoder, split="test"):
    return store.get(Features(encoder, DATA, split))["features"]


def test_pixels_are_the_normalised_images(store):
    images = DATA.prepare(DATA.split("test").inputs)
    assert PIXELS.width == 64
    assert_close(features(store, PIXELS), images.flatten(1))


def test_pixels_are_shrunk_by_means(store):
    images = DATA.prepare(DATA.split("test").inputs)
    small = Pixels(DATA, side=4)
    means = images.reshape(-1, 4, 2, 4, 2).mean((2, 4)).flatten(1)
    assert small.width == 16
    assert_close(features(store, small), means, rtol=1e-5, atol=1e-5)
    assert Pixels(Digits(size=16), side=100).width == 256


def test_principal_components_are_scikit_learn_s(store):
    stage = PCA(encoder=PIXELS, data=DATA, features=5)
    ours = features(store, stage)
    fitted = sklearn.decomposition.PCA(5).fit(features(store, PIXELS, "train").double().numpy())
    theirs = torch.from_numpy(fitted.transform(features(store, PIXELS).double().numpy())).float()
    assert_close(ours.abs(), theirs.abs(), rtol=1e-3, atol=1e-3)  # signs are free
    components = store.get(stage)["components"]
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()


def test_independent_components_have_unit_variance_and_are_uncorrelated(store):
    values = features(store, ICA(encoder=PIXELS, data=DATA, features=6), "train").double()
    zero, one = torch.zeros(6, dtype=torch.float64), torch.eye(6, dtype=torch.float64)
    assert_close(values.mean(0), zero, rtol=0, atol=1e-4)
    assert_close(values.T @ values / len(values), one, rtol=0, atol=1e-2)


def test_independent_components_are_the_same_every_time(store, tmp_path):
    stage = ICA(encoder=PIXELS, data=DATA, features=6)
    once, again = store.get(stage), Store(tmp_path).get(stage)
    assert torch.equal(once["components"], again["components"])


def test_independent_components_are_further_from_gaussian_than_principal_ones(store):
    independent = features(store, ICA(encoder=PIXELS, data=DATA, features=6), "train").double()
    principal = features(store, PCA(encoder=PIXELS, data=DATA, features=6), "train").double()
    assert total_kurtosis(independent) > total_kurtosis(principal / principal.std(0))


def total_kurtosis(values):
    """Of values (n, d) of unit variance: 0 if all are Gaussian."""
    return ((values**4).mean(0) - 3).abs().sum()


@pytest.mark.parametrize("method", [PCA, ICA])
def test_more_components_than_directions_are_zero(store, method):
    three_directions = PCA(encoder=PIXELS, data=DATA, features=3)
    wide = RandomProjection(three_directions, features=8, density=0.9)
    components = store.get(method(encoder=wide, data=DATA, features=8))["components"]
    assert components[:3].abs().amax(1).min() > 0
    assert not components[3:].any()


def test_a_random_projection_is_sparse_and_keeps_norms_on_average():
    matrix = RandomProjection(PIXELS, features=4000, density=0.1).matrix()
    assert matrix.shape == (4000, 64)
    assert abs((matrix != 0).float().mean() - 0.1) < 0.01
    assert_close(matrix.square().sum(0), torch.ones(64), rtol=0, atol=0.2)
    assert abs(matrix.mean()) < 1e-3


def test_a_random_projection_is_named_by_its_seed():
    matrix = RandomProjection(PIXELS, features=4000).matrix()
    assert torch.equal(matrix, RandomProjection(PIXELS, features=4000).matrix())
    assert not torch.equal(matrix, RandomProjection(PIXELS, features=4000, seed=1).matrix())
    assert RandomProjection(PIXELS, features=1).matrix().isfinite().all()


def test_a_random_code_has_as_many_latents_on_as_its_sparsity_says(store):
    code = features(store, RandomProjection(PIXELS, features=100, sparsity=TopK(k=7)))
    latents_on = (code > 0).sum(1)
    assert code.shape == (360, 100) and (code >= 0).all()
    assert (latents_on <= 7).all() and latents_on.double().mean() > 6


def test_a_projection_is_encoded_through_its_own_encoder_alone():
    embedding = Embedding(tiny_pretrain(epochs=1))
    stage = PCA(encoder=embedding, data=DATA, features=4)
    assert stage.stages == (stage, embedding.encoder)
    assert stage.upstream() == (Features(embedding, DATA, "train"),)
    assert RandomProjection(embedding, features=8).stages == (embedding.encoder,)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (
            lambda: PCA(encoder=PIXELS, data=DATA, features=65),
            "PCA.features must be at most 64, the features of the encoder, got 65",
        ),
        (
            lambda: RandomProjection(PIXELS, features=8, sparsity=TopK(k=9)),
            "TopK.k must be at most the number of latents, 8, got 9",
        ),
        (
            lambda: RandomProjection(PIXELS, features=8, density=0.0),
            "RandomProjection.density must be between 0 and 1, 0 excluded, got 0.0",
        ),
    ],
    ids=["features", "sparsity", "density"],
)
def test_impossible_projections_are_refused(make, complaint):
    with pytest.raises(FieldError, match=complaint):
        make()


def test_data_that_the_encoder_cannot_take_is_refused():
    with pytest.raises(FieldError, match="PCA.data must have 1 channels"):
        PCA(encoder=PIXELS, data=Shapes(train=100, test=100), features=4).preflight()


def test_standardised_features_are_scikit_learn_s(store):
    scaler = sklearn.preprocessing.StandardScaler().fit(features(store, PIXELS, "train").double())
    theirs = torch.from_numpy(scaler.transform(features(store, PIXELS).double())).float()
    ours = features(store, Standardised(encoder=PIXELS, data=DATA))
    varies = features(store, PIXELS, "train").std(0) > 1e-4
    assert (~varies).any()
    assert_close(ours[:, varies], theirs[:, varies], rtol=1e-4, atol=1e-4)
    assert (ours[:, ~varies] == 0).all()


def test_whitened_features_are_uncorrelated_and_nearest_to_their_axes(store):
    """The map is symmetric and positive: C^(-1/2) is the one such root (Kessy et al.)."""
    stage = Whitened(encoder=PIXELS, data=DATA)
    values = features(store, stage, "train").double()
    covariance = torch.cov(values.T, correction=0)
    whitened = torch.linalg.eigvalsh(covariance)
    rank = int(torch.linalg.matrix_rank(torch.cov(features(store, PIXELS, "train").double().T)))
    assert_close(whitened[-rank:], torch.ones(rank).double(), rtol=0, atol=1e-3)
    assert_close(whitened[:-rank], torch.zeros(64 - rank).double(), rtol=0, atol=1e-6)
    components = store.get(stage)["components"]
    assert_close(components, components.T)
    assert torch.linalg.eigvalsh(components.double()).min() > -1e-5


def test_sparsified_features_are_rectified_or_cut_to_the_largest(store):
    rotated = Rotated(PIXELS, seed=1)
    values = features(store, rotated)
    assert torch.equal(features(store, Sparsified(rotated)), values.clamp(min=0))
    cut = features(store, Sparsified(rotated, TopK(4)))
    for row, kept in zip(values[:20], cut[:20], strict=True):
        largest = row.sort(descending=True).indices[:4]
        expected = torch.zeros(64)
        expected[largest] = row[largest].clamp(min=0)
        assert torch.equal(kept, expected)


def test_a_rule_that_must_be_trained_or_keeps_too_many_is_refused():
    with pytest.raises(FieldError, match="Sparsified.sparsity must need no training, as TopK, got"):
        Sparsified(PIXELS, JumpReLU())
    with pytest.raises(
        FieldError, match="TopK.k must be at most the number of latents, 64, got 65"
    ):
        Sparsified(PIXELS, TopK(65))
