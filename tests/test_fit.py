"""Schedules against the reference (golden f), and the loop: NaN, resumption, determinism."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from monosem.fit import SGD, Adam, Constant, WarmupCosine, seeded, train
from monosem.stage import FieldError, StageError, generator


class Notes:
    """A job that remembers in memory, and can be interrupted after an epoch."""

    def __init__(self, stop_after: int | None = None):
        self.state: dict[str, Any] | None = None
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.stop_after = stop_after

    def log(self, step, of, **scalars):
        self.lines.append((step, scalars))

    def tick(self, step, of, images, loss):
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
        yield from ((batch,) for batch in x[torch.randperm(20, generator=generator(epoch))].split(5))

    seen = []

    def losses(batch):
        seen.append(1)
        loss = (module(batch) - batch.sum(1, keepdim=True)).square().mean()
        return {"loss": loss * float("nan") if len(seen) - 1 == poison else loss}

    train(job, module, (optimizer or Adam(lr=0.1)).build(module.parameters()), WarmupCosine(1.0), epochs, 4, 5, batches, losses)
    return module.state_dict()


@pytest.mark.parametrize("optimizer", [SGD(lr=0.05), Adam(lr=0.1), Adam(lr=0.1, decoupled=True, weight_decay=0.1)], ids=repr)
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
    with pytest.raises(StageError, match=r"from step 6 of 16 on \(epoch 2, learning rate 0\.09\d*\).*lower learning rate"):
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
    g, schedule = golden("f_schedule"), WarmupCosine(10.0, start=float(golden("f_schedule")["warmup_start_lr"]))
    for group, base in enumerate(g["base_lrs"].tolist()):
        ours = [schedule.rate(base, step, 100, 1) for step in range(101)]
        assert ours == pytest.approx(g["lr100"][:, group].tolist(), rel=1e-10, abs=1e-15)
        ours = [schedule.rate(base, min(step, 39000), 39000, 195) for step in range(0, 39050, 50)]
        assert ours == pytest.approx(g["cifar_pretrain_every50"][:, group].tolist(), rel=1e-10, abs=1e-15)


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
