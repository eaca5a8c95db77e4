"""Pre-training: the reference's whole step (golden k), and what a seed names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import tiny_pretrain
from tiny_sae import groups_in_training
from torch import nn
from torch.testing import assert_close

from monosem.core.fields import FieldError
from monosem.core.stage import key
from monosem.core.store import Store
from monosem.datasets.digits import Digits
from monosem.learning.encoders import Network, Projector, ResNet, SmallConv
from monosem.learning.objectives import Contrastive, NonNegative, OnlineClassifier
from monosem.learning.optimizers import LARS, SGD
from monosem.models.pretrain import Pretrain


def filled_network(golden) -> Network:
    """The reference model with the weights of golden/README.md's rule."""
    backbone = ResNet(18, "cifar", stem_padding=2).build((3, 32, 32))
    network = Network(backbone, Projector(32, 16).build(512), nn.Linear(512, 100)).double()
    ours = network.state_dict()
    for index, name in enumerate(golden("l_state_dict_shapes.json")):
        tensor = ours[name]
        if not tensor.is_floating_point():
            continue
        draw = np.random.default_rng(1000 + index).standard_normal(tensor.shape)
        tensor.copy_(filling(name, torch.from_numpy(draw)))
    return network


def filling(name, draw):
    if name.endswith("running_var"):
        return 1 + 0.1 * draw.abs()
    if name.endswith(("running_mean", "bias")):
        return 0.1 * draw
    if draw.ndim == 1:
        return 1 + 0.1 * draw
    return draw / np.sqrt(np.prod(draw.shape[1:]))


@pytest.mark.parametrize("tag", ["None", "relu"])
@pytest.mark.parametrize("joint", [True, False])
def test_a_whole_training_step_equals_the_reference_with_either_classifier(golden, tag, joint):
    g, network = golden("k_encoder_and_step"), filled_network(golden)
    with torch.no_grad():
        features = network.eval().backbone(g["X"][0])
    assert_close(features, g[f"{tag}_eval_feats_view0"], rtol=1e-10, atol=1e-12)

    objective = Contrastive() if tag == "None" else NonNegative()
    stage = tiny_pretrain(objective=objective, classifier=OnlineClassifier(joint=joint))
    index, labels = g["img_indexes"].repeat(2), g["targets"].repeat(2)
    scalars = stage.losses(network.train(), g["X"].flatten(0, 1), index, labels)
    scalars["loss"].backward()
    regulariser = float(g[f"{tag}_var"]) if tag == "relu" else 0.0
    expected = float(g[f"{tag}_nce"]) + regulariser
    assert_close(scalars["objective"].item(), expected, rtol=1e-10, atol=0)
    assert_close(scalars["loss"].item(), float(g[f"{tag}_total_loss"]), rtol=1e-10, atol=0)

    norms = torch.stack([parameter.grad.norm() for parameter in network.backbone.parameters()])
    expected = float(g[f"{tag}_{'' if joint else 'detached_'}backbone_grad_norm"])
    assert_close(norms.norm().item(), expected, rtol=1e-9, atol=0)
    if joint:
        assert_update_equals_the_reference(network, g, tag)


def assert_update_equals_the_reference(network, g, tag):
    """The gradient of every parameter, and how far LARS moves it."""
    names = [str(name) for name in g[f"{tag}_param_names"]]
    parameters = dict(network.named_parameters())
    norms = torch.stack([parameters[name].grad.norm() for name in names])
    assert_close(norms, g[f"{tag}_grad_norms"], rtol=1e-8, atol=1e-12)

    before = {name: parameters[name].detach().clone() for name in names}
    encoder = {"params": [*network.backbone.parameters(), *network.projector.parameters()]}
    classifier = {"params": [*network.classifier.parameters()], "lr": 0.1, "weight_decay": 0.0}
    LARS(weight_decay=1e-4).build([encoder, classifier]).step()
    moved = torch.stack([(parameters[name].detach() - before[name]).norm() for name in names])
    assert_close(moved, g[f"{tag}_update_norms"], rtol=1e-8, atol=1e-12)


def test_a_detached_classifier_leaves_the_encoder_as_it_is_and_a_joint_one_does_not(tmp_path):
    store = Store(tmp_path)
    without = store.get(tiny_pretrain())
    watching = store.get(tiny_pretrain(classifier=OnlineClassifier()))
    joint = store.get(tiny_pretrain(classifier=OnlineClassifier(joint=True)))
    assert all(torch.equal(without[name], watching[name]) for name in without)
    assert not all(torch.equal(without[name], joint[name]) for name in without)
    assert set(watching) - set(without) == {"classifier.weight", "classifier.bias"}


def test_two_objectives_with_one_seed_start_from_the_same_weights():
    first = tiny_pretrain(objective=Contrastive()).build().state_dict()
    second = tiny_pretrain(objective=NonNegative()).build().state_dict()
    other = tiny_pretrain(seed=1).build().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["projector.0.weight"], other["projector.0.weight"])


def test_the_classifier_has_a_learning_rate_of_its_own(monkeypatch):
    optimizer, classifier = SGD(lr=0.4, lr_per=512), OnlineClassifier(lr=0.1)
    stage = tiny_pretrain(optimizer=optimizer, classifier=classifier)
    encoder, online = groups_in_training(stage, monkeypatch)
    # both rates are for batches of 512, of which 256 are half
    assert (encoder["lr"], online["lr"]) == (0.2, 0.05)


def test_compiling_is_asked_for_by_a_flag_and_changes_no_key(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    stage = tiny_pretrain(epochs=1)
    plain = key(stage)
    Store(tmp_path / "plain").get(stage)
    assert not compiled
    monkeypatch.setenv("MONOSEM_COMPILE", "1")
    Store(tmp_path / "compiled").get(stage)
    assert len(compiled) == 1
    key.cache_clear()
    assert key(tiny_pretrain(epochs=1)) == plain


def test_impossible_pre_trainings_are_refused():
    with pytest.raises(FieldError, match="Pretrain.batch_size must be 2 or more: a single image"):
        tiny_pretrain(batch_size=1)
    with pytest.raises(FieldError, match="Pretrain.objective must be an Objective"):
        tiny_pretrain(objective=Digits())
    complaint = (
        r"Pretrain.encoder must be an Encoder, got the class SmallConv \(write @SmallConv\(\)"
    )
    with pytest.raises(FieldError, match=complaint):
        tiny_pretrain(encoder=SmallConv)
    with pytest.raises(TypeError):
        Pretrain()
