"""Optimisers and schedules against the reference (golden e, f) and against their own laws."""

from __future__ import annotations

import json

import pytest
import torch
from torch.testing import assert_close

from monosem.core.fields import FieldError
from monosem.core.identity import generator
from monosem.learning.optimizers import LARS, SGD, Adam, Constant, Steps, WarmupCosine
from monosem.specs.load import load


def test_impossible_optimisers_are_refused():
    with pytest.raises(FieldError, match="SGD.lr must be above 0, got 0"):
        SGD(lr=0)
    with pytest.raises(FieldError, match="Adam.betas must hold 2 values, got 1"):
        Adam(betas=(0.9,))


@pytest.mark.parametrize("optimizer", [SGD, LARS])
def test_nesterov_s_momentum_is_refused_without_momentum(optimizer):
    with pytest.raises(FieldError, match="nesterov must be False without momentum"):
        optimizer(nesterov=True, momentum=0.0)


def test_a_warm_up_that_a_training_never_leaves_is_told():
    assert "WarmupCosine.warmup = 5 lasts as long" in WarmupCosine(warmup=5).caution(5)
    assert WarmupCosine(warmup=4.5).caution(5) is None
    assert Constant().caution(1) is None
    tiny = load(["gin/ncl.gin"], ["Pretrain.epochs = 3"]).experiment
    assert [text.partition(":")[0] for text in tiny.cautions] == ["Pretrain"]


def test_a_learning_rate_for_a_batch_grows_with_the_batch():
    assert LARS(lr=0.3, lr_per=256).for_batches(128) == LARS(lr=0.15)
    assert SGD(lr=0.3).for_batches(128) == SGD(lr=0.3)


def lars_of_case(g, case):
    """LARS as the reference had it in this case."""
    arguments = json.loads(str(g[f"{case}_kwargs"]))
    return LARS(
        nesterov=arguments.pop("nesterov", False),
        clip=arguments.pop("clip_lr", False),
        momentum=arguments.pop("momentum", 0.9),
        exclude_bias_and_norm=arguments.pop("exclude_bias_n_norm", False),
        **arguments,
    )


@pytest.mark.parametrize("case", ["cfg", "zero", "default", "nesterov"])
def test_lars_equals_the_reference_step_for_step(golden, case):
    g = golden("e_lars")
    before = f"{case}_before_"
    names = [name.removeprefix(before) for name in g if name.startswith(before)]
    weights = {name: g[before + name].clone().requires_grad_() for name in names}
    optimizer = lars_of_case(g, case).build(weights.values())
    for step in range(5):
        for name, weight in weights.items():
            weight.grad = g[f"{case}_grad{step}_{name}"]
        optimizer.step()
        if step in (0, 4):
            for name, weight in weights.items():
                expected = g[f"{case}_after{step + 1}_{name}"]
                assert_close(weight.detach(), expected, rtol=1e-10, atol=1e-14)


def test_lars_on_a_stack_of_layers_is_lars_on_each_layer():
    stack = torch.randn(3, 5, 2, 4, generator=generator("s"))
    gradient = torch.randn(3, 5, 2, 4, generator=generator("g"))
    stack[1, :, 0] = 0  # this layer alone has no norm
    stacked = stack.clone().requires_grad_()
    layers = {(i, j): stack[i, :, j].clone().requires_grad_() for i in range(3) for j in range(2)}
    of_stack = LARS(weight_decay=0.1).build([{"params": [stacked], "layer": (1, 3)}])
    of_layers = LARS(weight_decay=0.1).build(layers.values())
    for _ in range(3):
        stacked.grad = gradient
        for (i, j), layer in layers.items():
            layer.grad = gradient[i, :, j]
        of_stack.step()
        of_layers.step()
    for (i, j), layer in layers.items():
        assert_close(stacked[i, :, j], layer)


def test_lars_leaves_biases_of_a_stack_without_trust_and_decay():
    biases = torch.randn(3, 4, generator=generator("b"))
    gradient = torch.randn(3, 4, generator=generator("g"))
    stacked, plain = biases.clone().requires_grad_(), biases.clone().requires_grad_()
    group = {"params": [stacked], "layer": (1,), "bias": True}
    lars = LARS(lr=0.1, weight_decay=0.1).build([group])
    sgd = SGD(lr=0.1).build([plain])
    for _ in range(3):
        stacked.grad, plain.grad = gradient, gradient
        lars.step()
        sgd.step()
    assert_close(stacked, plain)


def test_warmup_cosine_equals_the_reference(golden):
    g = golden("f_schedule")
    schedule = WarmupCosine(10.0, start=float(g["warmup_start_lr"]))
    for group, base in enumerate(g["base_lrs"].tolist()):
        rates = [schedule.rate(base, step, 100, 1) for step in range(101)]
        assert rates == pytest.approx(g["lr100"][:, group].tolist(), rel=1e-10, abs=1e-15)
        rates = [schedule.rate(base, min(step, 39000), 39000, 195) for step in range(0, 39050, 50)]
        expected = g["cifar_pretrain_every50"][:, group].tolist()
        assert rates == pytest.approx(expected, rel=1e-10, abs=1e-15)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0, 7.0, 1000.0])
def test_a_schedule_stays_between_zero_and_the_base_rate(warmup):
    rates = [WarmupCosine(warmup, start=0.0).rate(0.4, step, 28, 4) for step in range(28)]
    assert all(0 <= rate <= 0.4 + 1e-12 for rate in rates)
    assert max(rates) == pytest.approx(0.4)


def test_a_constant_schedule_keeps_the_base_rate():
    assert Constant().rate(0.4, 17, 28, 4) == 0.4


def test_steps_change_the_rate_at_their_epochs():
    rates = [Steps((2.0, 3.5), 0.1).rate(1.0, step, 16, 4) for step in range(16)]
    assert rates == pytest.approx([1.0] * 8 + [0.1] * 6 + [0.01] * 2)
