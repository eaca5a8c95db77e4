"""Losses of codes against plain loops of their papers, and MonoLoss against the metric."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from monosem.code_losses.base import Rows, losses_of_code
from monosem.code_losses.contrast import CodeContrast
from monosem.code_losses.monosemanticity import MonoLoss
from monosem.metrics.base import FeatureBatch, as_number
from monosem.metrics.neighbours import MonosemanticityScore


def made(n: int, latents: int, on: float = 0.4, seed: int = 0) -> tuple[torch.Tensor, Rows]:
    """Sparse latents of which a share is on, and rows that are inputs of their own."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.rand(n, latents, generator=draw, dtype=torch.float64)
    is_on = torch.rand(n, latents, generator=draw) < on
    alike = torch.randn(n, 5, generator=draw, dtype=torch.float64)
    return values * is_on, Rows(torch.arange(n), alike)


def score_by_pairs(latents: torch.Tensor, alike: torch.Tensor) -> float:
    """The mean score over latents that have one, pair by pair."""
    pairs = [(n, m) for n in range(len(alike)) for m in range(n)]
    cosines = {(n, m): float(F.cosine_similarity(alike[n], alike[m], dim=0)) for n, m in pairs}
    scores = []
    for column in latents.T:
        low, high = column.min(), column.max()
        if low == high:
            continue
        a = ((column - low) / (high - low)).tolist()
        weight = sum(a[n] * a[m] for n, m in pairs)
        if weight > 0:
            scores.append(sum(a[n] * a[m] * cosines[n, m] for n, m in pairs) / weight)
    return float(sum(scores) / len(scores)) if scores else 0.0


@pytest.mark.parametrize(("n", "latents", "on"), [(7, 4, 0.9), (9, 6, 0.4), (6, 12, 0.2)])
def test_monoloss_is_one_minus_the_score_of_all_pairs(n, latents, on):
    code, rows = made(n, latents, on)
    assert_close(float(MonoLoss()(code, rows)), 1 - score_by_pairs(code, rows.alike))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("on", [0.02, 0.1, 1.0])
def test_monoloss_is_one_minus_the_metric_on_the_same_batch(dtype, on):
    code, rows = made(128, 64, on)
    code, rows = code.to(dtype), Rows(rows.which, rows.alike.to(dtype))
    batch = FeatureBatch(code, torch.zeros(128, dtype=torch.int64), rows.alike)
    metric = as_number(MonosemanticityScore()(batch)["monosemanticity_score"])
    assert_close(float(MonoLoss()(code, rows)), 1 - metric, rtol=0, atol=2e-5)


def test_latents_of_one_row_or_of_one_value_have_no_score_and_no_gradient():
    code = torch.zeros(6, 3)
    code[2, 0] = 0.7
    code[:, 1] = 0.3
    code.requires_grad_(True)
    _, rows = made(6, 1)
    loss = MonoLoss()(code, Rows(rows.which, rows.alike.float()))
    loss.backward()
    assert loss == 1 and not code.grad.any()


def test_the_gradient_of_monoloss_is_that_of_finite_differences():
    code, rows = made(6, 3, on=1.0)
    assert torch.autograd.gradcheck(lambda z: MonoLoss()(z, rows), code.requires_grad_(True))


def test_descending_monoloss_gathers_alike_rows_in_a_latent():
    code, rows = made(12, 4, on=1.0)
    alike = torch.eye(5, dtype=torch.float64)[torch.arange(12) % 3]
    rows = Rows(rows.which, alike)
    code.requires_grad_(True)
    step = torch.optim.Adam([code], lr=0.1)
    for _ in range(60):
        step.zero_grad()
        MonoLoss()(code.clamp(min=0), rows).backward()
        step.step()
    assert MonoLoss()(code.clamp(min=0), rows) < 0.05


def contrast_by_loops(latents: torch.Tensor, which: list[int], temperature: float) -> float:
    z = [row / row.norm() if row.any() else row for row in latents]
    losses = []
    for i in range(len(z)):
        similar = [math.exp(float(z[i] @ other) / temperature) for other in z]
        same = sum(s for s, other in zip(similar, which, strict=True) if other == which[i])
        losses.append(-math.log(same / sum(similar)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("which", [[0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2]], ids=["kept", "views"])
def test_the_contrast_of_codes_equals_plain_loops(which):
    latents, rows = made(6, 8)
    latents[4] = 0
    rows = Rows(torch.tensor(which), rows.alike)
    loss = CodeContrast(temperature=0.5)(latents, rows)
    assert_close(float(loss), contrast_by_loops(latents, which, 0.5))


def test_the_contrast_is_least_where_inputs_share_no_latent():
    apart, together = torch.eye(6).double(), torch.ones(6, 6).double()
    rows = Rows(torch.arange(6), apart)
    contrast = CodeContrast(temperature=0.2)
    least = math.log(1 + 5 * math.exp(-5))
    assert_close(float(contrast(apart, rows)), least)
    assert_close(float(contrast(together, rows)), math.log(6))
    for seed in range(5):
        latents, _ = made(6, 9, seed=seed)
        assert least < contrast(latents, rows) < math.log(6)


def test_losses_are_summed_by_their_coefficients_and_named_without_them():
    latents, rows = made(8, 6)
    losses = (MonoLoss(0.25), CodeContrast(3.0))
    total, by_name = losses_of_code(losses, latents, rows)
    mono, contrast = (loss(latents, rows) for loss in losses)
    assert_close(total, 0.25 * mono + 3 * contrast)
    assert by_name == {"mono_loss": mono, "code_contrast": contrast}
    assert losses_of_code((), latents, rows) == (0, {})


def test_losses_of_half_precision_latents_are_computed_in_single():
    latents, rows = made(8, 6)
    half = latents.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = losses_of_code((MonoLoss(1.0), CodeContrast()), half, rows)
    again, _ = losses_of_code((MonoLoss(1.0), CodeContrast()), half.float(), rows)
    assert total.dtype == torch.float32 and torch.equal(total, again)
