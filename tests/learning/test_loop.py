"""Schedules against the reference (golden f), and the loop: NaN, resumption, determinism."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monosem.core.device import BatchLoader, autocast_dtype, device, seeded
from monosem.core.fields import FieldError
from monosem.core.identity import generator
from monosem.core.stage import StageError
from monosem.learning.loop import train
from monosem.learning.optimizers import LARS, SGD, Adam, Constant, Steps, WarmupCosine


class Notes:
    """A job that remembers in memory, and can be interrupted after an epoch."""

    def __init__(self, stop_after: int | None = None):
        self.state: dict[str, Any] | None = None
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.stop_after = stop_after

    def log(self, step, of, **scalars):
        self.lines.append((step, scalars))

    def on_step(self, step, of, images, loss):
        pass

    def save(self, state):
        import copy

        self.state = copy.deepcopy(state)
        if state["epoch"] == self.stop_after:
            raise KeyboardInterrupt

    def restore(self):
        return self.state


def descend(job, optimizer=None, poison=None, epochs=4):
    with seeded("test"):
        module = nn.Linear(3, 1)
    x = torch.randn(20, 3, generator=generator("x"))

    def batches(epoch):
        yield from (
            (batch,) for batch in x[torch.randperm(20, generator=generator(epoch))].split(5)
        )

    seen = []

    def losses(batch):
        seen.append(1)
        loss = (module(batch) - batch.sum(1, keepdim=True)).square().mean()
        return {"loss": loss * float("nan") if len(seen) - 1 == poison else loss}

    train(
        job,
        module,
        (optimizer or Adam(lr=0.1)).build(module.parameters()),
        WarmupCosine(1.0),
        epochs,
        4,
        5,
        batches,
        losses,
    )
    return module.state_dict()


@pytest.mark.parametrize(
    "optimizer",
    [SGD(lr=0.05), Adam(lr=0.1), Adam(lr=0.1, decoupled=True, weight_decay=0.1)],
    ids=repr,
)
@pytest.mark.parametrize("stop", [1, 3])
def test_an_interrupted_training_goes_on_with_the_same_bits(optimizer, stop):
    whole, broken = Notes(), Notes(stop_after=stop)
    expected = descend(whole, optimizer)
    with pytest.raises(KeyboardInterrupt):
        descend(broken, optimizer)
    broken.stop_after = None
    resumed = descend(broken, optimizer)
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    assert broken.lines == whole.lines


def test_a_loss_that_turns_nan_stops_with_step_and_learning_rate_and_saves_nothing_of_that_epoch():
    job = Notes()
    with pytest.raises(
        StageError,
        match=r"from step 6 of 16 on \(epoch 2, learning rate 0\.09\d*\).*lower learning rate",
    ):
        descend(job, poison=6)
    assert job.state["epoch"] == 1 and len(job.lines) == 1


def test_weights_that_turn_nan_under_a_finite_loss_are_not_saved():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

    job, module = Notes(), Root()
    with pytest.raises(StageError, match="some weights are not finite numbers after epoch 1"):
        train(job, module, SGD(lr=0.1).build(module.parameters()), Constant(), 1, 1, 1,
              lambda epoch: iter([(torch.zeros(1),)]), lambda x: {"loss": (module.weight * x).sqrt().sum()})  # fmt: skip
    assert job.state is None


def test_training_reduces_the_loss_and_logs_every_epoch():
    job = Notes()
    descend(job)
    assert [step for step, _ in job.lines] == [1, 2, 3, 4]
    assert job.lines[-1][1]["loss"] < 0.5 * job.lines[0][1]["loss"]


def test_warmup_cosine_equals_the_reference(golden):
    g, schedule = (
        golden("f_schedule"),
        WarmupCosine(10.0, start=float(golden("f_schedule")["warmup_start_lr"])),
    )
    for group, base in enumerate(g["base_lrs"].tolist()):
        ours = [schedule.rate(base, step, 100, 1) for step in range(101)]
        assert ours == pytest.approx(g["lr100"][:, group].tolist(), rel=1e-10, abs=1e-15)
        ours = [schedule.rate(base, min(step, 39000), 39000, 195) for step in range(0, 39050, 50)]
        assert ours == pytest.approx(
            g["cifar_pretrain_every50"][:, group].tolist(), rel=1e-10, abs=1e-15
        )


@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0, 7.0, 1000.0])
def test_a_schedule_stays_between_zero_and_the_base_rate(warmup):
    rates = [WarmupCosine(warmup, start=0.0).rate(0.4, step, 28, 4) for step in range(28)]
    assert all(0 <= rate <= 0.4 + 1e-12 for rate in rates) and max(rates) == pytest.approx(0.4)
    assert Constant().rate(0.4, 17, 28, 4) == 0.4


def test_seeding_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    with seeded("a"):
        first = torch.rand(3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    with seeded("a"):
        assert torch.equal(first, torch.rand(3))


def test_impossible_optimisers_are_refused():
    with pytest.raises(FieldError, match="SGD.lr must be above 0, got 0"):
        SGD(lr=0)
    with pytest.raises(FieldError, match="Adam.betas must hold 2 values, got 1"):
        Adam(betas=(0.9,))


@pytest.mark.parametrize("case", ["cfg", "zero", "default", "nesterov"])
def test_lars_equals_the_reference_step_for_step(golden, case):
    g = golden("e_lars")
    valid = json.loads(str(g[f"{case}_kwargs"]))
    settings = {
        "nesterov": valid.pop("nesterov", False),
        "clip": valid.pop("clip_lr", False),
        "momentum": valid.pop("momentum", 0.9),
    }
    optimizer = LARS(
        exclude_bias_and_norm=valid.pop("exclude_bias_n_norm", False), **settings, **valid
    )
    names = [
        name.removeprefix(f"{case}_before_") for name in g if name.startswith(f"{case}_before_")
    ]
    weights = {name: g[f"{case}_before_{name}"].clone().requires_grad_() for name in names}
    built = optimizer.build(weights.values())
    for step in range(5):
        for name, weight in weights.items():
            weight.grad = g[f"{case}_grad{step}_{name}"]
        built.step()
        if step in (0, 4):
            for name, weight in weights.items():
                assert_close(
                    weight.detach(), g[f"{case}_after{step + 1}_{name}"], rtol=1e-10, atol=1e-14
                )


def test_lars_on_a_stack_of_layers_is_lars_on_each_layer():
    stack, gradient = (
        torch.randn(3, 5, 2, 4, generator=generator("s")),
        torch.randn(3, 5, 2, 4, generator=generator("g")),
    )
    stack[1, :, 0] = 0  # this layer alone has no norm
    together = stack.clone().requires_grad_()
    alone = {(i, j): stack[i, :, j].clone().requires_grad_() for i in range(3) for j in range(2)}
    bank = LARS(weight_decay=0.1).build([{"params": [together], "layer": (1, 3)}])
    single = LARS(weight_decay=0.1).build(alone.values())
    for _ in range(3):
        together.grad = gradient
        for (i, j), layer in alone.items():
            layer.grad = gradient[i, :, j]
        bank.step()
        single.step()
    for (i, j), layer in alone.items():
        assert_close(together[i, :, j], layer)


def test_a_learning_rate_for_a_batch_grows_with_the_batch():
    assert LARS(lr=0.3, lr_per=256).for_batches(128) == LARS(lr=0.15)
    assert SGD(lr=0.3).for_batches(128) == SGD(lr=0.3)


def test_steps_change_the_rate_at_their_epochs():
    rates = [Steps((2.0, 3.5), 0.1).rate(1.0, step, 16, 4) for step in range(16)]
    assert rates == pytest.approx([1.0] * 8 + [0.1] * 6 + [0.01] * 2)


def test_gradients_are_clipped_to_the_norm_that_is_given():
    module = nn.Linear(3, 1)
    before = module.weight.detach().clone()

    def losses(x):
        return {"loss": 1e3 * module(x).sum()}

    optimizer = SGD(lr=1.0, momentum=0.0).build(module.parameters())
    train(
        Notes(),
        module,
        optimizer,
        Constant(),
        1,
        1,
        1,
        lambda epoch: iter([(torch.ones(1, 3),)]),
        losses,
        clip=0.5,
    )
    norms = [p.grad.norm() for p in module.parameters()]
    assert torch.stack(norms).norm().item() == pytest.approx(0.5)
    assert not torch.equal(before, module.weight)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_learns_where_there_is_such_a_thing(precision):
    dtype = autocast_dtype(precision)
    if dtype == torch.float32:
        pytest.skip("torch sees no GPU, and the CPU has no instructions for bfloat16")
    module = nn.Linear(3, 1).to(device())
    x = torch.randn(64, 3, generator=generator("x")).to(device())
    job, seen = Notes(), []

    def losses(batch):
        seen.append(module(batch).dtype)
        return {"loss": (module(batch) - batch.sum(1, keepdim=True)).float().square().mean()}

    optimizer = SGD(lr=0.05).build(module.parameters())
    train(
        job,
        module,
        optimizer,
        Constant(),
        20,
        4,
        16,
        lambda epoch: ((b,) for b in x.split(16)),
        losses,
        precision,
    )
    assert set(seen) == {dtype} and job.lines[-1][1]["loss"] < 0.2 * job.lines[0][1]["loss"]


def test_half_precision_on_a_cpu_is_bfloat16_where_it_has_instructions_for_it(monkeypatch):
    if device().type == "cuda":
        pytest.skip("a GPU does what it is asked for")
    for there, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda there=there: there)
        assert (
            autocast_dtype("float16") == autocast_dtype("bfloat16") == dtype
            and autocast_dtype("float32") == torch.float32
        )


def test_images_that_do_not_fit_are_streamed_in_the_same_order():
    images = torch.arange(60, dtype=torch.uint8).reshape(20, 3, 1, 1)
    order = torch.randperm(20, generator=generator("o")).split(6)
    kept, streamed = BatchLoader(images), BatchLoader(images)
    streamed.streams = True
    for one, other, index in zip(kept(order), streamed(order), order, strict=True):
        assert torch.equal(one, other) and torch.equal(one.cpu(), images[index])
    assert list(streamed([])) == []
