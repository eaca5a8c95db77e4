"""The autoencoder against plain loops and the reference (golden c), and the price of sparsity."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from monosem.autoencoders.base import Autoencoder
from monosem.autoencoders.gated import L1
from monosem.autoencoders.topk import TopK
from monosem.core.fields import FieldError


@pytest.fixture
def reference(golden):
    """The golden numbers, and the autoencoder with their weights."""
    g = golden("c_sae")
    d, latents = g["encoder_weight"].shape[1], len(g["latent_bias"])
    model = Autoencoder(d, latents, TopK(int(g["k"]))).double()
    weights = {
        "encoder.weight": g["encoder_weight"],
        "decoder.weight": g["decoder_weight"],
        "pre_bias": g["pre_bias"],
        "latent_bias": g["latent_bias"],
    }
    model.load_state_dict(weights, strict=False)  # `idle` is no weight
    return g, model


def test_top_k_autoencoder_equals_the_reference_forward_loss_and_gradients(reference):
    g, model = reference
    x = F.normalize(g["raw"], dim=-1).flatten(0, 1)
    assert_close(x, g["z_normalised"].flatten(0, 1), rtol=1e-10, atol=0)
    code = model(x)
    loss = model.loss(x, code)
    loss.backward()
    assert_close(code.latents, g["latents"].flatten(0, 1), rtol=1e-10, atol=1e-14)
    assert_close(code.reconstruction, g["reconstruction"].flatten(0, 1), rtol=1e-10, atol=1e-14)
    assert_close(loss.item(), float(g["mse_loss"]), rtol=1e-10, atol=0)
    for parameter, name in (
        (model.pre_bias, "grad_pre_bias"),
        (model.encoder.weight, "grad_encoder"),
        (model.latent_bias, "grad_latent_bias"),
        (model.decoder.weight, "grad_decoder"),
    ):
        assert_close(parameter.grad, g[name], rtol=1e-10, atol=1e-13)


def test_fed_raw_projections_it_gives_what_the_reference_probes(reference):
    g, model = reference
    assert_close(model.encode(g["raw"][0]), g["probe_latents_view0"], rtol=1e-10, atol=1e-14)


def test_top_k_keeps_the_largest_and_rectifies_them():
    pre = torch.tensor([[3.0, -1.0, 2.0, 1.0], [-4.0, -3.0, -2.0, 0.5]])
    assert TopK(2).activate(pre).tolist() == [[3, 0, 2, 0], [0, 0, 0, 0.5]]


def test_l1_equals_plain_loops():
    model = Autoencoder(3, 5, L1(0.1)).double()
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    code = model(x)
    errors, prices = [], []
    for row, latents in zip(x, code.latents, strict=True):
        rebuilt = sum((latents[j] * model.decoder.weight[:, j] for j in range(5)), model.pre_bias)
        errors.append(((rebuilt - row) ** 2).mean() / (row**2).mean())
        prices.append(sum(latents[j] * model.decoder.weight[:, j].norm() for j in range(5)))
    assert_close(model.loss(x, code), sum(errors) / 4 + 0.1 * sum(prices) / 4)


def test_rescaling_latents_against_the_decoder_does_not_change_the_l1_price():
    model = Autoencoder(3, 5, L1(0.1)).double()
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = model.loss(x, model(x))
    with torch.no_grad():
        model.encoder.weight /= 100
        model.decoder.weight *= 100
    assert_close(model.loss(x, model(x)), before)


def test_rows_of_zeros_have_no_scale_and_are_left_out_of_the_reconstruction_error():
    model = Autoencoder(3, 5, TopK(2)).double()
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with_zeros = torch.cat([x, torch.zeros(2, 3, dtype=torch.float64)])
    assert_close(model.loss(with_zeros, model(with_zeros)), model.loss(x, model(x)))
    assert model.loss(with_zeros[4:], model(with_zeros[4:])) == 0


def test_k_above_the_number_of_latents_is_refused():
    with pytest.raises(FieldError, match="TopK.k must be at most the number of latents, 8, got 9"):
        TopK(9).check_width(8)
