"""Starts, unit columns, dead latents and what is watched, against plain loops and scipy."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import minimize
from torch.testing import assert_close

from monosem.autoencoders.base import Autoencoder
from monosem.autoencoders.errors import SquaredError
from monosem.autoencoders.jumprelu import JumpReLU
from monosem.autoencoders.revival import AuxK, PreActivationLoss
from monosem.autoencoders.starts import GeometricMedian, Times, TransposedDecoder, UnitColumns
from monosem.autoencoders.topk import TopK
from monosem.metrics.firing import Firing, densities, explained_variance

N, D, LATENTS = 9, 4, 12
THREE = TopK(3)
DEAD = torch.arange(LATENTS) >= 7


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=draw)


def autoencoder(kind=THREE) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(D, LATENTS, kind, SquaredError()).double()


# Starts


def test_the_encoder_starts_as_the_decoder_transposed_with_columns_of_the_norm():
    model = autoencoder()
    TransposedDecoder(0.1)(model)
    assert torch.equal(model.encoder.weight, model.decoder.weight.T)
    assert_close(model.decoder.weight.norm(dim=0), torch.full((LATENTS,), 0.1).double())


def test_the_geometric_median_has_the_smallest_sum_of_distances():
    rows = normal(40, 3) + 5 * (torch.arange(40) < 5)[:, None]  # some outliers
    bias = torch.zeros(3, dtype=torch.float64)
    GeometricMedian().place(bias, lambda: rows)
    best = minimize(lambda point: (rows - torch.tensor(point)).norm(dim=1).sum().item(), [0, 0, 0])
    assert_close(bias, torch.tensor(best.x), rtol=0, atol=1e-4)


def test_a_multiple_of_a_width_is_a_whole_number_of_at_least_one():
    assert [Times(8).of(512), Times(0.5).of(9), Times(0.01).of(4)] == [4096, 4, 1]


# Unit columns


def test_columns_keep_their_norm_and_the_gradient_has_no_part_along_them():
    model, columns = autoencoder(), UnitColumns()
    columns.normalise(model)
    x = normal(N, D)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model.loss(x, model(x)).backward()
        columns.project(model)
        for j in range(LATENTS):
            gradient, column = model.decoder.weight.grad[:, j], model.decoder.weight[:, j]
            assert abs((gradient @ column).item()) < 1e-12
        optimizer.step()
        columns.normalise(model)
        assert_close(model.decoder.weight.norm(dim=0), torch.ones(LATENTS).double())


# Dead latents


def test_aux_k_equals_plain_loops():
    model, x = autoencoder(), normal(N, D)
    code = model(x)
    total = 0.0
    for row in range(N):
        residual = x[row] - code.reconstruction[row]
        order = sorted(range(7, LATENTS), key=lambda j: -(code.pre[row, j]).item())
        estimate = sum(code.pre[row, j] * model.decoder.weight[:, j] for j in order[:2])
        total += (((estimate - residual) ** 2).sum()).item() / N
    assert AuxK(0.25, k=2)(model, x, code, DEAD).item() == pytest.approx(0.25 * total)
    assert_close(AuxK(0.25)(model, x, code, DEAD), AuxK(0.25, k=D // 2)(model, x, code, DEAD))


def test_with_fewer_dead_than_wanted_all_are_taken_and_the_price_is_less():
    model, x = autoencoder(), normal(N, D)
    code = model(x)
    all_five = AuxK(0.3, k=5)(model, x, code, DEAD)
    assert_close(AuxK(0.3, k=10)(model, x, code, DEAD), all_five / 2)


def test_no_gradient_of_aux_k_reaches_latents_that_live():
    model, x = autoencoder(), normal(N, D)
    AuxK(1.0)(model, x, model(x), DEAD).backward()
    for gradient in (
        model.encoder.weight.grad,
        model.decoder.weight.grad.T,
        model.latent_bias.grad,
    ):
        assert not gradient[~DEAD].any() and gradient[DEAD].any()


def test_a_coefficient_of_zero_or_no_dead_latent_turns_aux_k_off():
    model, x = autoencoder(), normal(N, D)
    code = model(x)
    for revival, dead in ((AuxK(0.0), DEAD), (AuxK(1.0), torch.zeros(LATENTS, dtype=torch.bool))):
        cost = revival(model, x, code, dead)
        assert cost == 0 and not cost.requires_grad


@pytest.mark.parametrize("kind", [TopK(3), JumpReLU(threshold=0.7)], ids=["zero", "threshold"])
def test_dead_latents_are_pulled_to_where_they_turn_on(kind):
    model, x = autoencoder(kind), normal(N, D)
    code = model(x)
    start = 0.7 if isinstance(kind, JumpReLU) else 0.0
    below = [
        max(start - (code.pre[i, j]).item(), 0) * (model.decoder.weight[:, j].norm()).item() / N
        for i in range(N)
        for j in range(7, LATENTS)
    ]
    cost = PreActivationLoss(0.5)(model, x, code, DEAD)
    assert cost.item() == pytest.approx(0.5 * sum(below), rel=1e-6)


# What is watched


def test_explained_variance_is_one_minus_error_over_variance():
    x, reconstruction = normal(N, D), normal(N, D, seed=1)
    error = (((x - reconstruction) ** 2).sum()).item() / (((x - x.mean(0)) ** 2).sum()).item()
    assert explained_variance(x, reconstruction).item() == pytest.approx(1 - error)
    assert explained_variance(x, x) == 1
    assert explained_variance(x, x.mean(0).expand_as(x)).item() == pytest.approx(0)


def test_latents_are_counted_by_the_decade_of_how_often_they_fire():
    counts = torch.tensor([0, 0, 1, 10, 99, 100, 999, 1000, 9999, 10_000, 100_000, 3])
    shares = densities(counts, 100_000)
    bins = [0] * 6
    for count in counts.tolist():
        share = count / 100_000
        bins[0 if not count else 1 + sum(share >= bound for bound in (1e-4, 1e-3, 1e-2, 1e-1))] += 1
    assert list(shares.values()) == pytest.approx([number / 12 for number in bins])
    assert list(shares) == ["never_fire", *(f"fire_1e-{power}" for power in (5, 4, 3, 2, 1))]


def test_an_epoch_s_counts_are_forgotten_after_it():
    firing = Firing()
    firing.add(torch.tensor([0, 4]), 8)
    firing.add(torch.tensor([0, 4]), 8)
    assert firing.take()["fire_1e-1"] == 0.5
    firing.add(torch.tensor([1, 0]), 8)
    assert firing.take()["never_fire"] == 0.5
    assert firing.take() == {}
