"""Steps that touch kept latents alone: the same numbers as products with all of them."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from monosem.autoencoders import base, kept
from monosem.autoencoders.base import Autoencoder, FewActive
from monosem.autoencoders.kept import largest_of_all, largest_of_rows
from monosem.autoencoders.matryoshka import Matryoshka
from monosem.autoencoders.revival import AuxK
from monosem.autoencoders.topk import BatchTopK, TopK

N, D, LATENTS = 20, 6, 40
KINDS = [TopK(4), BatchTopK(4), Matryoshka((8, 16), BatchTopK(4)), Matryoshka((5,), TopK(3))]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=draw)


def step(kind, x):
    """The code, the loss and all gradients of a step; some latents are dead and revived."""
    torch.manual_seed(0)
    model = Autoencoder(D, LATENTS, kind).double()
    with torch.no_grad():
        model.pre_bias.copy_(normal(D, seed=1))
        model.latent_bias.copy_(normal(LATENTS, seed=2) / 4)
    code = model(x)
    dead = torch.arange(LATENTS) % 3 == 0
    loss = model.loss(x, code) + AuxK(0.5)(model, x, code, dead)
    loss.backward()
    return model, code, loss, {name: value.grad for name, value in model.named_parameters()}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_step_on_kept_latents_is_the_step_on_all(kind, monkeypatch):
    x = normal(N, D)
    dense_model, dense, dense_loss, dense_gradients = step(kind, x)
    monkeypatch.setattr(kept, "LARGE", 1)
    model, code, loss, gradients = step(kind, x)
    assert isinstance(code.activation, FewActive) and not isinstance(dense.activation, FewActive)
    assert_close(code.latents, dense.latents)
    assert_close(code.reconstructions, dense.reconstructions)
    assert_close(loss, dense_loss)
    assert torch.equal(code.activation.fired(), dense.activation.fired())
    for name, gradient in gradients.items():
        assert_close(gradient, dense_gradients[name])
    assert_close(model.rule.state_dict(), dense_model.rule.state_dict())


def test_dense_steps_have_the_same_gradients_where_the_bias_goes_through_the_encoder(monkeypatch):
    kind = TopK(30)  # too many to be summed one by one
    x = normal(N, D)
    _, _, loss, gradients = step(kind, x)
    monkeypatch.setattr(base, "LARGE", 1)
    _, _, other_loss, other_gradients = step(kind, x)
    assert_close(other_loss, loss)
    assert_close(other_gradients, gradients)


def dense_of(found, values, shape):
    out = torch.zeros(shape, dtype=values.dtype)
    out[found.rows(), found.columns] = values[found.rows(), found.columns]
    return out


@pytest.mark.parametrize("count", [1, 7, 150, 400, 800])
def test_the_largest_of_a_batch_are_those_of_a_sort(count):
    pre = normal(N, LATENTS)
    found = largest_of_all(pre, count)
    positive = pre.flatten().sort(descending=True).values[:count].clamp(min=0)
    assert_close(
        pre[found.rows(), found.columns].sort(descending=True).values, positive[positive > 0]
    )
    assert (found.rows().diff() >= 0).all() and found.starts[0] == 0


def test_the_largest_of_a_batch_are_found_where_the_sample_misleads():
    pre = torch.full((1000, 1000), -1.0)
    pre.view(-1)[1:3000:16] = 1.0  # between the sampled places
    found = largest_of_all(pre, 5000)
    assert len(found.columns) == len(range(1, 3000, 16))


def test_a_batch_without_positive_numbers_keeps_nothing():
    found = largest_of_all(-torch.ones(3, 5), 4)
    assert len(found.columns) == 0 and found.starts.tolist() == [0, 0, 0]


def test_entries_between_two_latents_lie_row_by_row():
    pre = normal(N, LATENTS)
    found = largest_of_rows(pre, 5)
    inside, places = found.between(10, 20)
    whole = dense_of(found, pre, pre.shape)
    assert torch.equal(dense_of(inside, pre, pre.shape)[:, 10:20], whole[:, 10:20])
    assert torch.equal(found.columns[places], inside.columns)


def test_in_evaluation_a_row_does_not_depend_on_others(monkeypatch):
    monkeypatch.setattr(kept, "LARGE", 1)
    x = normal(N, D)
    for kind in KINDS:
        model = step(kind, x)[0].eval()
        for name, buffer in model.named_buffers():
            if name.endswith("threshold"):
                buffer += 1e-3  # or the smallest value that was kept would lie on it
        together = model(x).latents
        one_by_one = torch.cat([model(row[None]).latents for row in x])
        assert_close(together, one_by_one)
