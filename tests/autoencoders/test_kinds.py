"""The autoencoder against the reference (golden c), and every kind against plain loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from monosem.autoencoders.base import Autoencoder
from monosem.autoencoders.errors import SquaredError
from monosem.autoencoders.gated import L1, Gated
from monosem.autoencoders.jumprelu import JumpReLU, StepPrice, TargetL0
from monosem.autoencoders.matryoshka import Matryoshka
from monosem.autoencoders.topk import BatchTopK, TopK
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


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=draw)


def test_batch_top_k_keeps_the_largest_of_the_whole_batch():
    model = Autoencoder(3, 5, BatchTopK(2)).double()
    pre = normal(4, 5)
    latents = model.rule(pre, model.latent_bias).latents
    kept = sorted((value for row in pre.tolist() for value in row), reverse=True)[: 2 * 4]
    expected = [
        [value if value in kept and value > 0 else 0 for value in row] for row in pre.tolist()
    ]
    assert latents.tolist() == expected


def test_the_threshold_of_batch_top_k_is_the_mean_of_the_smallest_values_kept():
    """The first batches count alike, as in the paper's mean over batches; then it goes slowly."""
    rule = BatchTopK(2, momentum=0.25).build(5)
    smallest, thresholds = [], []
    for seed in range(6):
        latents = rule(normal(4, 5, seed=seed), torch.zeros(5)).latents
        smallest.append(min(value for row in latents.tolist() for value in row if value > 0))
        thresholds.append(rule.threshold.item())
    mean = [sum(smallest[:count]) / count for count in range(1, 5)]
    assert thresholds[:4] == pytest.approx(mean)
    fifth = mean[3] + 0.25 * (smallest[4] - mean[3])
    assert thresholds[4:] == pytest.approx([fifth, fifth + 0.25 * (smallest[5] - fifth)])
    pre = torch.tensor([[thresholds[-1] - 0.01, thresholds[-1] + 0.01, -1.0, 0.0, 3.0]])
    on = rule.eval()(pre.double(), torch.zeros(5)).latents > 0
    assert on.tolist() == [[False, True, False, False, True]]


def test_a_batch_that_keeps_nothing_leaves_the_threshold():
    rule = BatchTopK(2).build(3)
    rule(-torch.ones(4, 3), torch.zeros(3))
    assert rule.threshold == 0 and rule.batches == 0


def test_jump_relu_is_off_up_to_its_threshold_and_learns_from_what_is_near_it():
    """The equations of the paper, entry by entry."""
    kind = JumpReLU(StepPrice(0.5), bandwidth=0.4)
    threshold = torch.tensor([0.5, 0.3, 0.05, 1.0], dtype=torch.float64, requires_grad=True)
    pre = (normal(30, 4) / 2).requires_grad_()
    seen, bounds = pre.detach().tolist(), threshold.detach().tolist()
    weights = normal(30, 4, seed=1)
    active = kind.jump(pre, threshold)
    latents, price = active.latents, kind.price(active, torch.ones(3, 4))
    ((latents * weights).sum() + price).backward()
    l0 = 0.0
    for_threshold = [0.0] * 4
    for i in range(30):
        for j in range(4):
            z, t = seen[i][j], bounds[j]
            assert latents[i, j].item() == (z if z > t else 0.0)
            assert pre.grad[i, j].item() == (weights[i, j].item() if z > t else 0.0)
            l0 += (z > t) / 30
            if abs(z - t) < 0.4 / 2:
                for_threshold[j] -= t / 0.4 * (weights[i, j]).item() + 0.5 / 0.4 / 30
    assert price.item() == pytest.approx(0.5 * l0)
    assert threshold.grad.tolist() == pytest.approx(for_threshold)


def test_a_price_on_frequent_latents_equals_plain_loops():
    kind = JumpReLU(StepPrice(0.5, frequency=0.2))
    pre, threshold = normal(30, 4), torch.full((4,), 0.3)
    price = kind.price(kind.jump(pre, threshold), torch.ones(3, 4))
    shares = [sum((pre[i, j]).item() > 0.3 for i in range(30)) / 30 for j in range(4)]
    assert price.item() == pytest.approx(0.5 * sum(p * (1 + p / 0.2) for p in shares))


def test_thresholds_stay_at_zero_or_above():
    rule = JumpReLU().build(3)
    with torch.no_grad():
        rule.threshold.fill_(-1.0)
    rule(torch.ones(2, 3), torch.zeros(3))
    assert rule.threshold.tolist() == [0, 0, 0]


def test_a_price_grows_over_its_warm_up():
    model = Autoencoder(3, 5, Gated(1.0, warmup=4)).double()
    without = Autoencoder(3, 5, Gated(0.0)).double()
    without.load_state_dict(model.state_dict())
    x = normal(6, 3)
    prices = [(model.loss(x, model(x)) - without.loss(x, without(x))).item() for _ in range(6)]
    assert prices == pytest.approx([prices[-1] * share for share in (0.25, 0.5, 0.75, 1, 1, 1)])


def test_gates_learn_through_a_second_reconstruction_that_leaves_the_decoder_alone():
    model = Autoencoder(3, 5, Gated(0.2), SquaredError()).double()
    x = normal(6, 3)
    code = model(x)
    total = 0.0
    for row in range(6):
        gates = code.pre[row].clamp(min=0)
        second = sum((gates[j] * model.decoder.weight[:, j] for j in range(5)), model.pre_bias)
        price = sum(gates[j] * model.decoder.weight[:, j].norm() for j in range(5))
        total += (((second - x[row]) ** 2).sum() + 0.2 * price).item() / 6
    assert model.rule.cost(model, x, code).item() == pytest.approx(total)
    free = Autoencoder(3, 5, Gated(0.0), SquaredError()).double()
    free.rule.cost(free, x, free(x)).backward()
    assert not free.decoder.weight.grad.any()
    assert free.encoder.weight.grad.any()


@pytest.mark.parametrize("sizes", [(2, 5), (2, 5, 7)])
def test_matryoshka_adds_the_error_of_every_prefix(sizes):
    model = Autoencoder(3, 7, Matryoshka(sizes, TopK(3)), SquaredError()).double()
    x = normal(6, 3)
    code = model(x)
    total = 0.0
    for size in (2, 5, 7):
        for row in range(6):
            prefix = model.pre_bias + sum(
                code.latents[row, j] * model.decoder.weight[:, j] for j in range(size)
            )
            total += ((prefix - x[row]) ** 2).sum().item() / 6
    assert model.loss(x, code).item() == pytest.approx(total)
    assert_close(code.reconstruction, model.decode(code.latents))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: BatchTopK(9), "BatchTopK.k must be at most the number of latents, 8, got 9"),
        (
            lambda: Matryoshka((4, 9), TopK(2)),
            "Matryoshka.sizes must be at most the number of latents, 8, got 9",
        ),
        (lambda: Matryoshka((4,), TopK(9)), "TopK.k must be at most the number of latents, 8"),
        (lambda: Matryoshka((4, 4), TopK(2)), r"Matryoshka.sizes must increase, got \(4, 4\)"),
        (lambda: Matryoshka((), TopK(2)), "Matryoshka.sizes must hold at least one"),
        (lambda: TargetL0(target=0), "TargetL0.target must be above 0, got 0"),
    ],
)
def test_what_does_not_go_together_is_refused(make, complaint):
    with pytest.raises(FieldError, match=complaint):
        make().check_width(8)
