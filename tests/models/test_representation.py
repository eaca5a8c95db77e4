"""Representations: what is probed, and which stages it stands on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from conftest import tiny_pretrain
from tiny_sae import tiny_sae
from torch import nn
from torch.testing import assert_close

from monosem.core.store import Store
from monosem.models.representation import (
    Composed,
    Embedding,
    Projection,
    Representation,
    backbone_of,
)


def test_what_is_probed_is_raw_rectified_or_embedded(tmp_path):
    store, pretrain = Store(tmp_path), tiny_pretrain()
    images = pretrain.data.prepare(pretrain.data.load("test").inputs[:9])
    features = pretrain.network(store.get)(images)
    raw = Projection(pretrain).network(store.get)(images)
    rectified = Projection(pretrain, "relu").network(store.get)(images)
    embedded = Embedding(pretrain).network(store.get)(images)
    assert features.shape == (9, pretrain.width)
    assert (raw < 0).any() and torch.equal(rectified, raw.relu())
    assert_close(embedded, F.normalize(raw.relu(), dim=1))


def test_a_network_is_frozen_and_in_evaluation_mode(tmp_path):
    store, sae = Store(tmp_path), tiny_sae(epochs=1)
    for representation in (sae.encoder.encoder, sae.encoder, sae):
        network = representation.network(store.get)
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_representation_names_all_stages_that_its_network_asks_for():
    sae = tiny_sae()
    pretrain = sae.encoder.encoder
    assert pretrain.stages == (pretrain,)
    assert sae.encoder.stages == (pretrain,)
    assert sae.stages == (sae, pretrain)


def test_a_representation_may_stand_on_several():
    @dataclass(frozen=True)
    class Concatenated(Representation):
        encoders: tuple[Representation, ...]

    one, other = tiny_pretrain(), tiny_pretrain(seed=1)
    assert Concatenated((one, Embedding(other))).stages == (one, other)


def test_the_backbone_is_what_sees_the_inputs():
    backbone = nn.Linear(2, 2)
    assert backbone_of(backbone) is backbone
    assert backbone_of(Composed(Composed(backbone, nn.ReLU()), torch.abs)) is backbone
