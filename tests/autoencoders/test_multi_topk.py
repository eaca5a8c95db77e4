"""MultiTopK against plain loops of its equations."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from monosem.autoencoders.base import Autoencoder
from monosem.autoencoders.errors import SquaredError
from monosem.autoencoders.topk import MultiTopK, TopK
from monosem.core.fields import FieldError


def made() -> tuple[Autoencoder, torch.Tensor]:
    model = Autoencoder(3, 12, MultiTopK(2), SquaredError()).double()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.pre_bias += torch.randn(3, generator=draw)
        model.latent_bias += torch.randn(12, generator=draw)
    return model, torch.randn(5, 3, dtype=torch.float64, generator=draw)


@torch.no_grad()
def at(model: Autoencoder, row: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """sigma+(TopK(W_enc (x - b_pre) + b_enc)), and W_dec of it + b_pre."""
    pre = [float(w @ (row - model.pre_bias)) for w in model.encoder.weight]
    pre = [p + float(b) for p, b in zip(pre, model.latent_bias, strict=True)]
    kept = sorted(range(12), key=lambda j: -pre[j])[:k]
    z = torch.tensor([max(pre[j], 0) if j in kept else 0 for j in range(12)], dtype=torch.float64)
    rebuilt = model.pre_bias + sum(z[j] * model.decoder.weight[:, j] for j in range(12))
    return z, rebuilt


def test_the_loss_is_that_at_k_and_an_eighth_of_that_at_4k():
    model, x = made()
    expected = 0.0
    for row in x:
        _, at_k = at(model, row, 2)
        _, at_4k = at(model, row, 8)
        expected += float(((row - at_k) ** 2).sum() + ((row - at_4k) ** 2).sum() / 8)
    assert_close(model.loss(x, model(x)).item(), expected / 5)


def test_latents_and_reconstruction_are_those_of_top_k():
    model, x = made()
    code = model(x)
    assert torch.equal(code.latents, TopK(2).activate(code.pre))
    assert_close(code.latents, torch.stack([at(model, row, 2)[0] for row in x]))
    assert_close(code.reconstruction, torch.stack([at(model, row, 2)[1] for row in x]))


def test_more_latents_than_there_are_are_refused():
    complaint = "MultiTopK.multiple times k, 3, must be at most the number of latents, 8, got 4"
    with pytest.raises(FieldError, match=complaint):
        MultiTopK(3).check_width(8)
    with pytest.raises(FieldError, match="MultiTopK.k must be at most the number of latents, 8"):
        MultiTopK(9).check_width(8)
