"""Rotated and permuted features: laws of orthogonal matrices, and of what they leave alone."""

from __future__ import annotations

from unittest import mock

import pytest
import scipy.stats
import torch
from conftest import tiny_curve, tiny_pretrain
from torch.testing import assert_close

from monosem.core.fields import FieldError
from monosem.core.stage import closure
from monosem.core.store import Store
from monosem.datasets.digits import Digits
from monosem.metrics.classes import active_dimensions, class_consistency, class_counts
from monosem.models import baselines, features
from monosem.models.baselines import Permuted, Pixels, Rotated
from monosem.models.features import Features
from monosem.models.pretrain import Pretrain
from monosem.models.representation import Embedding

DATA = Digits(size=8)
PIXELS = Pixels(DATA)
EMBEDDING = Embedding(tiny_pretrain(epochs=1))
TURNS = pytest.mark.parametrize("turned", [Rotated(EMBEDDING), Permuted(EMBEDDING)])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def kept(store, encoder, split="test"):
    return store.get(Features(encoder, DATA, split))["features"]


def test_a_rotation_is_orthogonal_in_double_precision():
    matrix = Rotated(Pixels(Digits(size=16)), seed=3).matrix()
    assert matrix.dtype == torch.float64 and matrix.shape == (256, 256)
    assert_close(matrix @ matrix.T, torch.eye(256, dtype=torch.float64), rtol=0, atol=1e-13)


def test_rotations_are_haar_distributed():
    """An entry of a uniform orthogonal matrix of 4 x 4 has a density in proportion to
    sqrt(1 - x^2): its square is Beta(1/2, 3/2). Without the signs of R, Q of numpy and LAPACK has
    a diagonal that leans to one side. Half of the determinants are -1."""
    four = Pixels(DATA, side=2)
    matrices = torch.stack([Rotated(four, seed).matrix() for seed in range(1000)])
    for row, column in [(0, 0), (1, 2), (3, 3)]:
        entries = matrices[:, row, column].numpy()
        assert scipy.stats.kstest(entries**2, scipy.stats.beta(0.5, 1.5).cdf).pvalue > 1e-3
        assert abs((entries > 0).mean() - 0.5) < 0.06
    assert abs((torch.linalg.det(matrices) > 0).double().mean() - 0.5) < 0.06


def test_a_rotation_is_named_by_its_seed():
    assert torch.equal(Rotated(PIXELS, 1).matrix(), Rotated(PIXELS, 1).matrix())
    assert not torch.equal(Rotated(PIXELS, 1).matrix(), Rotated(PIXELS, 2).matrix())
    assert not torch.equal(Permuted(PIXELS, 1).order(), Permuted(PIXELS, 2).order())


def test_inner_products_stay_where_features_are_rotated(store):
    before, after = kept(store, EMBEDDING).double(), kept(store, Rotated(EMBEDDING)).double()
    assert (before - after).abs().max() > 0.1
    assert_close(after @ after.T, before @ before.T, rtol=0, atol=1e-5)


def test_a_permutation_only_reorders(store):
    before, after = kept(store, EMBEDDING), kept(store, Permuted(EMBEDDING))
    order = Permuted(EMBEDDING).order()
    assert sorted(order.tolist()) == list(range(EMBEDDING.width))
    for dimension, source in enumerate(order.tolist()):
        assert torch.equal(after[:, dimension], before[:, source])


@TURNS
def test_the_network_gives_what_is_kept(store, turned):
    inputs = DATA.split("test").inputs
    encoded = features.encode(turned.network(store.get), DATA, inputs)
    assert_close(encoded, kept(store, turned), rtol=0, atol=1e-6)


@TURNS
def test_kept_features_are_turned_without_a_pass_of_the_encoder(store, turned, tmp_path):
    kept(store, EMBEDDING)
    stage = Features(turned, DATA, "test")
    assert stage.upstream() == (Features(EMBEDDING, DATA, "test"),)
    with mock.patch.object(Pretrain, "network", side_effect=AssertionError("a pass")):
        artifact = Store(store.root).get(Features(type(turned)(EMBEDDING, seed=7), DATA, "test"))
    assert artifact["passes"] == 0


def test_a_turn_of_a_turn_is_made_of_kept_features_too(store):
    there_and_back = Permuted(Rotated(EMBEDDING))
    stages = closure([Features(there_and_back, DATA, "test")])
    encoders = [stage.encoder for stage in stages if isinstance(stage, Features)]
    assert encoders == [EMBEDDING, Rotated(EMBEDDING), there_and_back]


@TURNS
def test_a_curve_takes_turned_features(store, turned):
    artifact = store.get(tiny_curve(encoder=turned))
    assert artifact["top1"].shape == (2, 2)


def test_class_consistency_falls_under_rotation_and_stays_under_permutation():
    """Planted features: a dimension for every class, and noise a hundred times smaller."""
    labels = torch.arange(200) % 8
    planted = torch.eye(8)[labels] + 0.01 * torch.rand(200, 8)

    def consistency(values):
        active = active_dimensions(values, 0.1)
        assert active.any(0).all()
        return class_consistency(class_counts(values, labels, 0.1)).mean()

    eight = Pixels(Digits(size=8), side=8)
    with mock.patch.object(Pixels, "width", 8):
        rotated, permuted = Rotated(eight).mapping()(planted), Permuted(eight).mapping()(planted)
    assert consistency(planted) == 1
    assert consistency(permuted) == 1
    assert consistency(rotated) < 0.4


def test_a_rotation_that_does_not_fit_memory_is_refused_with_what_it_takes():
    message = (
        r"Rotated.encoder must have fewer features: a rotation of 64 takes .* GB of memory, "
        "and there are 0 GB"
    )
    with (
        mock.patch.object(baselines, "memory_of_machine", lambda: 1000),
        pytest.raises(FieldError, match=message),
    ):
        Rotated(PIXELS)


def test_a_rotation_of_1024_dimensions_is_orthogonal():
    with mock.patch.object(Pixels, "width", 1024):
        matrix = Rotated(PIXELS).matrix()
    some = matrix[:50]
    assert_close(some @ some.T, torch.eye(50, dtype=torch.float64), rtol=0, atol=1e-12)
