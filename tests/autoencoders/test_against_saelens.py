"""Every kind against the training classes of SAELens 6.54 (golden m): losses and gradients.

They differ in one place: SAELens lets the gradient of Gated's second reconstruction reach the
decoder, which the paper freezes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from monosem.autoencoders.base import Autoencoder, Code, Sparsifier
from monosem.autoencoders.errors import SquaredError
from monosem.autoencoders.gated import L1, Gated
from monosem.autoencoders.jumprelu import JumpReLU, Price, StepPrice, TanhPrice, TargetL0
from monosem.autoencoders.matryoshka import Matryoshka
from monosem.autoencoders.revival import AuxK, PreActivationLoss, Revival
from monosem.autoencoders.topk import BatchTopK, TopK

EXACT = {"rtol": 1e-10, "atol": 1e-13}
SINGLE = {"rtol": 1e-6, "atol": 1e-6}  # SAELens keeps thresholds in float32
NAMES = {  # ours -> theirs
    "encoder.weight": "W_enc",
    "decoder.weight": "W_dec",
    "pre_bias": "b_dec",
    "latent_bias": "b_enc",
    "rule.threshold": "threshold",
    "rule.magnitude_bias": "b_mag",
    "rule.magnitude_scale": "r_mag",
}
MORE_PASSES = 1000  # batches that a threshold has seen: its running mean is one with fixed weights


def jump(price: Price, to_encoder: bool = False) -> JumpReLU:
    return JumpReLU(price, bandwidth=0.5, to_encoder=to_encoder)


class Kind(NamedTuple):
    sparsity: Sparsifier
    revival: Revival | None = None


BATCH_TOP_K = BatchTopK(3, momentum=0.125)
AUX_K, PULL = AuxK(0.25), PreActivationLoss(0.2)
KINDS = {
    "l1": Kind(L1(0.3)),
    "top_k": Kind(TopK(3), AUX_K),
    "batch_top_k": Kind(BATCH_TOP_K, AUX_K),
    "matryoshka": Kind(Matryoshka((4, 8), BatchTopK(3)), AUX_K),
    "gated": Kind(Gated(0.3)),
    "step": Kind(jump(StepPrice(0.3)), PULL),
    "tanh": Kind(jump(TanhPrice(0.3), to_encoder=True), PULL),
    "target": Kind(jump(TargetL0(0.3, 3.0), to_encoder=True), PULL),
}


class Step(NamedTuple):
    """A step on their weights, before the optimiser, with what they computed."""

    theirs: dict[str, Any]
    model: Autoencoder
    x: Tensor
    code: Code
    loss: Tensor


@pytest.fixture
def step_of(golden):
    g = golden("m_saelens")

    def step(kind: str) -> Step:
        sparsity, revival = KINDS[kind]
        x, dead = g["x"], torch.from_numpy(g["dead"])
        model = Autoencoder(x.shape[1], len(dead), sparsity, SquaredError()).double()
        model.load_state_dict(our_weights(g, kind), strict=False)  # counts are no weights
        code = model(x)
        loss = model.loss(x, code)
        if revival is not None:
            loss = loss + revival(model, x, code, dead)
        loss.backward()
        prefix = f"{kind}/"
        theirs = {name.removeprefix(prefix): g[name] for name in g if name.startswith(prefix)}
        return Step(theirs, model, x, code, loss)

    return step


def our_weights(g: dict[str, Any], kind: str) -> dict[str, Tensor]:
    weights = {ours: g[theirs] for ours, theirs in NAMES.items()}
    weights |= {name: weights[name].T for name in ("encoder.weight", "decoder.weight")}
    if kind == "gated":
        weights["latent_bias"] = g["b_gate"]
    count, threshold = torch.tensor(MORE_PASSES), torch.tensor(float(g["topk_threshold"])).double()
    if kind == "batch_top_k":
        weights |= {"rule.threshold": threshold, "rule.batches": count}
    if kind == "matryoshka":
        weights |= {"rule.inner.threshold": threshold, "rule.inner.batches": count}
    return weights


def gradient_in_theirs(theirs: dict[str, Any], parameter: str, leave_out: str = "") -> Tensor:
    """The sum over their losses, in our layout."""
    parts = [
        value
        for name, value in theirs.items()
        if name.endswith(f"/{parameter}") and not (leave_out and name.startswith(leave_out))
    ]
    total = torch.stack(parts).sum(0)
    return total.T if total.ndim == 2 else total


@pytest.mark.parametrize("kind", KINDS)
def test_latents_reconstruction_and_loss_are_theirs(step_of, kind):
    theirs, _, _, code, loss = step_of(kind)
    assert_close(code.latents, theirs["latents"], **EXACT)
    assert_close(code.reconstruction, theirs["reconstruction"], **EXACT)
    assert_close(loss.item(), float(theirs["loss"]), **EXACT)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "gated"])
def test_gradients_are_theirs(step_of, kind):
    theirs, model, *_ = step_of(kind)
    for name, parameter in model.named_parameters():
        expected = gradient_in_theirs(theirs, NAMES[name])
        tolerance = SINGLE if name == "rule.threshold" else EXACT
        assert parameter.grad is not None, name
        assert_close(parameter.grad, expected.double(), **tolerance)


def test_gradients_of_gates_are_theirs_but_for_the_frozen_decoder(step_of):
    theirs, model, x, code, _ = step_of("gated")
    for name in ("encoder.weight", "rule.magnitude_bias", "rule.magnitude_scale"):
        expected = gradient_in_theirs(theirs, NAMES[name])
        assert_close(model.get_parameter(name).grad, expected, **EXACT)
    assert_close(model.latent_bias.grad, gradient_in_theirs(theirs, "b_gate"), **EXACT)
    second = "auxiliary_reconstruction_loss"
    without = gradient_in_theirs(theirs, "W_dec", leave_out=second)
    assert_close(model.decoder.weight.grad, without, **EXACT)
    frozen = model.decode(F.relu(code.pre))
    through_decoder = 2 * (frozen - x).mean(0)
    expected = gradient_in_theirs(theirs, "b_dec") - through_decoder
    assert_close(model.pre_bias.grad, expected, **EXACT)


def test_the_threshold_of_batch_top_k_moves_as_theirs(step_of):
    theirs, model, *_ = step_of("batch_top_k")
    assert_close(model.rule.threshold.item(), float(theirs["topk_threshold"]), **EXACT)
