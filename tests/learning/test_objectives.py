"""Losses against plain loops of the papers' equations and the reference's numbers (golden a, b)."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from monosem.learning.objectives import (
    ACTIVATIONS,
    Contrastive,
    NonNegative,
    OnlineClassifier,
    Supervised,
    contrastive_loss,
)

GOLDEN_NAMES = {"identity": "None", "leaky_relu": "leakyrelu"}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def unit_rows(n, d, seed):
    return F.normalize(torch.randn(n, d, dtype=torch.float64, generator=generator(seed)), dim=1)


def loss_by_loops(z: torch.Tensor, index: list[int], temperature: float) -> float:
    """SimCLR's equation 1, one pair at a time, positives summed."""
    losses = []
    for i, row in enumerate(z):
        positive = negative = 0.0
        for j, other in enumerate(z):
            similarity = math.exp(float(row @ other) / temperature)
            if index[j] != index[i]:
                negative += similarity
            elif j != i:
                positive += similarity
        if positive > 0:
            losses.append(-math.log(positive / (positive + negative)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("images", [1, 2, 5])
@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_contrastive_loss_equals_plain_loops(images, d, temperature):
    z = unit_rows(2 * images, d, seed=d)
    index = torch.arange(images).repeat(2)
    expected = loss_by_loops(z, index.tolist(), temperature)
    loss = contrastive_loss(z, index, temperature).item()
    assert loss == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_rows_without_a_positive_are_left_out_of_the_mean():
    z = unit_rows(5, 4, seed=0)
    index = [0, 1, 0, 2, 3]
    loss = contrastive_loss(z, torch.tensor(index), 0.2).item()
    assert loss == pytest.approx(loss_by_loops(z, index, 0.2), rel=1e-12)


def test_without_any_pair_the_loss_and_its_gradient_are_zero():
    z = torch.eye(3, dtype=torch.float64, requires_grad=True)
    loss = contrastive_loss(z, torch.arange(3), 0.2)
    loss.backward()
    assert loss.item() == 0
    assert z.grad.eq(0).all()


@pytest.mark.parametrize("case", ["unsup", "sup", "noisy"])
def test_contrastive_loss_and_gradient_equal_the_reference(golden, case):
    g = golden("a_simclr_loss")
    z = g["z"].clone().requires_grad_()
    loss = contrastive_loss(z, g[f"{case}_indexes"], float(g["temperature"]))
    loss.backward()
    assert_close(loss.item(), float(g[f"{case}_loss"]), rtol=1e-10, atol=0)
    assert_close(z.grad, g[f"{case}_grad"], rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_equals_the_reference_step(golden, activation):
    g = golden("b_ncl_step")
    name = GOLDEN_NAMES.get(activation, activation)
    raw = g["raw"].clone().requires_grad_()
    objective = NonNegative(float(g["temperature"]), activation)
    if activation == "identity":
        objective = Contrastive(float(g["temperature"]))
    loss = objective(raw.flatten(0, 1), g["img_indexes"].repeat(2))
    loss.backward()
    assert_close(loss.item(), float(g[f"{name}_total"]), rtol=1e-10, atol=0)
    assert_close(raw.grad, g[f"{name}_grad"], rtol=1e-10, atol=1e-15)


def test_the_regulariser_is_a_field_and_can_be_left_out(golden):
    g = golden("b_ncl_step")
    objective = NonNegative(float(g["temperature"]), "relu", regulariser=0.0)
    loss = objective(g["raw"].flatten(0, 1), g["img_indexes"].repeat(2))
    assert_close(loss.item(), float(g["relu_nce"]), rtol=1e-10, atol=0)


def test_rep_relu_has_the_value_of_relu_and_the_gradient_of_gelu():
    z = torch.linspace(-3, 3, 13, dtype=torch.float64, requires_grad=True)
    value = ACTIVATIONS["rep_relu"](z)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    (gelu,) = torch.autograd.grad(F.gelu(z).sum(), z)
    assert_close(value, z.detach().relu())
    assert_close(gradient, gelu)


@pytest.mark.parametrize("joint", [False, True])
def test_a_detached_classifier_only_watches_and_a_joint_one_trains_the_features(joint):
    features = torch.randn(6, 4, generator=generator(0)).requires_grad_()
    online = OnlineClassifier(joint=joint)
    loss, accuracy = online.loss(online.build(4, 3), features, torch.tensor([0, 1, 2, 0, 1, 2]))
    loss.backward()
    assert (features.grad is not None) == joint
    assert 0 <= accuracy <= 1


def test_supervised_contrast_equals_the_reference_on_labels(golden):
    g = golden("a_simclr_loss")
    loss = Supervised(float(g["temperature"]))(g["z"], g["sup_indexes"])
    assert_close(loss.item(), float(g["sup_loss"]), rtol=1e-10, atol=0)
    rectified = Supervised(float(g["temperature"]), "relu").embed(g["z"])
    assert_close(rectified, F.normalize(g["z"].relu(), dim=1))


def test_label_noise_of_supervised_contrast_redraws_just_that_share_of_the_rows_at_every_step():
    labels, draw = torch.full((400,), 7), generator(0)
    objective = Supervised(label_noise=0.55)
    first = objective.targets(torch.arange(400), labels, 100, draw)
    second = objective.targets(torch.arange(400), labels, 100, draw)
    for noisy_labels in (first, second):
        changed = int((noisy_labels != 7).sum())
        assert abs(changed - 220 * 0.99) < 10  # one in a hundred is drawn as it was
        assert noisy_labels.min() >= 0
        assert noisy_labels.max() < 100
    assert not torch.equal(first, second)
    assert labels.eq(7).all()


def test_targets_are_labels_of_supervised_contrast_and_images_without():
    index, labels, draw = torch.arange(400), torch.full((400,), 7), generator(0)
    assert torch.equal(Supervised().targets(index, labels, 100, draw), labels)
    assert torch.equal(Contrastive().targets(index, labels, 100, draw), index)


@pytest.mark.parametrize(
    ("activation", "same"),
    [
        ("relu", True),
        ("rep_relu", True),
        ("leaky_relu", True),
        ("gelu", False),
        ("softplus", False),
    ],
)
def test_normalising_before_the_rectifier_changes_values_where_its_slope_depends_on_size(
    activation, same
):
    raw = 3 * torch.randn(8, 5, generator=generator(0))
    before = NonNegative(activation=activation, unit_first=True).embed(raw)
    after = NonNegative(activation=activation, unit_first=False).embed(raw)
    assert torch.allclose(before, after, atol=1e-6) == same


def test_normalising_before_rep_relu_changes_its_gradient():
    gradients = []
    for unit_first in (True, False):
        raw = 3 * torch.randn(8, 5, generator=generator(0))
        raw.requires_grad_()
        objective = NonNegative(activation="rep_relu", unit_first=unit_first)
        objective(raw, torch.arange(4).repeat(2)).backward()
        gradients.append(raw.grad)
    assert not torch.allclose(*gradients)
