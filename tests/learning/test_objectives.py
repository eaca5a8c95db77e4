"""The losses against plain loops of the papers' equations and against the reference's own numbers (golden a, b)."""

from __future__ import annotations

import math

import pytest
import torch
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


def loops(z: torch.Tensor, index: list[int], temperature: float) -> float:
    """SimCLR's equation 1, one pair at a time, positives summed."""
    rows = z.tolist()
    similar = [
        [math.exp(sum(a * b for a, b in zip(x, y, strict=True)) / temperature) for y in rows]
        for x in rows
    ]
    losses = []
    for i in range(len(rows)):
        positive = sum(similar[i][j] for j in range(len(rows)) if j != i and index[j] == index[i])
        negative = sum(similar[i][j] for j in range(len(rows)) if index[j] != index[i])
        if positive > 0:
            losses.append(-math.log(positive / (positive + negative)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("images", [1, 2, 5])
@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_contrastive_loss_equals_plain_loops(images, d, temperature):
    z = torch.nn.functional.normalize(
        torch.randn(2 * images, d, dtype=torch.float64, generator=torch.Generator().manual_seed(d)),
        dim=1,
    )
    index = torch.arange(images).repeat(2)
    assert contrastive_loss(z, index, temperature).item() == pytest.approx(
        loops(z, index.tolist(), temperature), rel=1e-12, abs=1e-12
    )


def test_rows_without_a_positive_are_left_out_of_the_mean():
    z = torch.nn.functional.normalize(
        torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    assert contrastive_loss(z, torch.tensor([0, 1, 0, 2, 3]), 0.2).item() == pytest.approx(
        loops(z, [0, 1, 0, 2, 3], 0.2), rel=1e-12
    )


def test_without_any_pair_the_loss_and_its_gradient_are_zero():
    z = torch.eye(3, dtype=torch.float64, requires_grad=True)
    loss = contrastive_loss(z, torch.arange(3), 0.2)
    loss.backward()
    assert loss.item() == 0 and z.grad.eq(0).all()


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
    g, name = golden("b_ncl_step"), GOLDEN_NAMES.get(activation, activation)
    raw = g["raw"].clone().requires_grad_()
    temperature = float(g["temperature"])
    objective = (
        Contrastive(temperature)
        if activation == "identity"
        else NonNegative(temperature, activation)
    )
    loss = objective(raw.flatten(0, 1), g["img_indexes"].repeat(2))
    loss.backward()
    assert_close(loss.item(), float(g[f"{name}_total"]), rtol=1e-10, atol=0)
    assert_close(raw.grad, g[f"{name}_grad"], rtol=1e-10, atol=1e-15)


def test_the_regulariser_is_a_field_and_can_be_left_out(golden):
    g = golden("b_ncl_step")
    loss = NonNegative(float(g["temperature"]), "relu", regulariser=0.0)(
        g["raw"].flatten(0, 1), g["img_indexes"].repeat(2)
    )
    assert_close(loss.item(), float(g["relu_nce"]), rtol=1e-10, atol=0)


def test_rep_relu_has_the_value_of_relu_and_the_gradient_of_gelu():
    z = torch.linspace(-3, 3, 13, dtype=torch.float64, requires_grad=True)
    value = ACTIVATIONS["rep_relu"](z)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    (gelu,) = torch.autograd.grad(torch.nn.functional.gelu(z).sum(), z)
    assert_close(value, z.detach().relu())
    assert_close(gradient, gelu)


@pytest.mark.parametrize("joint", [False, True])
def test_a_detached_classifier_only_watches_and_a_joint_one_trains_the_features(joint):
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
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
    assert_close(rectified, torch.nn.functional.normalize(g["z"].relu(), dim=1))


def test_label_noise_of_supervised_contrast_redraws_just_that_share_of_the_rows_at_every_step():
    labels, draw = torch.full((400,), 7), torch.Generator().manual_seed(0)
    told = [
        Supervised(label_noise=0.55).targets(torch.arange(400), labels, 100, draw) for _ in range(2)
    ]
    for each in told:
        assert (
            abs(int((each != 7).sum()) - 220 * 0.99) < 10 and each.min() >= 0 and each.max() < 100
        )  # a redrawn one may be right
    assert not torch.equal(*told) and labels.eq(7).all()
    assert torch.equal(Supervised().targets(torch.arange(400), labels, 100, draw), labels)
    assert torch.equal(
        Contrastive().targets(torch.arange(400), labels, 100, draw), torch.arange(400)
    )


def test_normalising_before_the_rectifier_changes_values_only_where_its_slope_depends_on_size():
    raw = 3 * torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    for activation, same in (
        ("relu", True),
        ("rep_relu", True),
        ("leaky_relu", True),
        ("gelu", False),
        ("softplus", False),
    ):
        first, later = (
            NonNegative(activation=activation, unit_first=each).embed(raw) for each in (True, False)
        )
        assert torch.allclose(first, later, atol=1e-6) == same
    gradients = []
    for unit_first in (True, False):
        z = raw.clone().requires_grad_()
        NonNegative(activation="rep_relu", unit_first=unit_first)(
            z, torch.arange(4).repeat(2)
        ).backward()
        gradients.append(z.grad)
    assert not torch.allclose(*gradients)
