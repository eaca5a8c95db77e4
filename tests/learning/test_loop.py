"""The training loop: resuming, losses that are not finite, logs, clipping, half precision."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from monosem.core.device import autocast_dtype, device, seeded
from monosem.core.identity import generator
from monosem.core.stage import StageError
from monosem.learning.loop import TrainingLoop
from monosem.learning.optimizers import SGD, Adam, Constant, WarmupCosine


class MemoryJob:
    """A job that keeps everything in memory, and can be interrupted after an epoch."""

    def __init__(self, stop_after: int | None = None):
        self.state: dict[str, Any] | None = None
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.steps: list[tuple[int, int, int]] = []
        self.stop_after = stop_after

    def log(self, step, of, **scalars):
        self.lines.append((step, scalars))

    def on_step(self, step, of, images, loss):
        self.steps.append((step, of, images))

    def save(self, state):
        self.state = copy.deepcopy(state)
        if state["epoch"] == self.stop_after:
            raise KeyboardInterrupt

    def restore(self):
        return self.state


def one_step(module, x, losses, **fields):
    """A loop of a single step on the batch x."""
    return TrainingLoop(
        module=module,
        optimizer=SGD(lr=1.0, momentum=0.0).build(module.parameters()),
        schedule=Constant(),
        epochs=1,
        steps_per_epoch=1,
        batch_size=len(x),
        batches=lambda epoch: iter([(x,)]),
        losses=losses,
        **fields,
    )


def learn_sums(job, optimizer=Adam(lr=0.1), nan_at_step=None, **fields):  # noqa: B008
    """Learn the sum of three numbers: 4 epochs of 4 steps of 5 rows. Returns the weights."""
    with seeded("test"):
        module = nn.Linear(3, 1)
    x = torch.randn(20, 3, generator=generator("x"))
    steps_done = 0

    def batches(epoch):
        for rows in torch.randperm(20, generator=generator(epoch)).split(5):
            yield (x[rows],)

    def losses(batch):
        nonlocal steps_done
        steps_done += 1
        loss = (module(batch) - batch.sum(1, keepdim=True)).square().mean()
        return {"loss": loss * float("nan") if steps_done - 1 == nan_at_step else loss}

    loop = TrainingLoop(
        module=module,
        optimizer=optimizer.build(module.parameters()),
        schedule=WarmupCosine(1.0),
        epochs=4,
        steps_per_epoch=4,
        batch_size=5,
        batches=batches,
        losses=losses,
        **fields,
    )
    loop.run(job)
    return module.state_dict()


@pytest.mark.parametrize(
    "optimizer",
    [SGD(lr=0.05), Adam(lr=0.1), Adam(lr=0.1, decoupled=True, weight_decay=0.1)],
    ids=repr,
)
@pytest.mark.parametrize("stop", [1, 3])
def test_an_interrupted_training_goes_on_with_the_same_bits(optimizer, stop):
    uninterrupted, interrupted = MemoryJob(), MemoryJob(stop_after=stop)
    expected = learn_sums(uninterrupted, optimizer)
    with pytest.raises(KeyboardInterrupt):
        learn_sums(interrupted, optimizer)
    interrupted.stop_after = None
    resumed = learn_sums(interrupted, optimizer)
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    assert interrupted.lines == uninterrupted.lines


def test_steps_count_over_the_whole_training_and_images_in_this_process():
    job = MemoryJob(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        learn_sums(job)
    job.stop_after, job.steps = None, []
    learn_sums(job)
    assert job.steps == [(13, 16, 5), (14, 16, 10), (15, 16, 15), (16, 16, 20)]


def test_a_loss_that_turns_nan_stops_with_step_and_learning_rate_and_saves_nothing_of_that_epoch():
    job = MemoryJob()
    message = r"from step 6 of 16 on \(epoch 2, learning rate 0\.09\d*\).*lower learning rate"
    with pytest.raises(StageError, match=message):
        learn_sums(job, nan_at_step=6)
    assert job.state["epoch"] == 1
    assert len(job.lines) == 1


def test_weights_that_turn_nan_under_a_finite_loss_are_not_saved():
    job, module = MemoryJob(), nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)

    def losses(x):  # 0, whose root has an infinite slope
        return {"loss": (module.weight * x).sqrt().sum()}

    with pytest.raises(StageError, match="some weights are not finite numbers after epoch 1"):
        one_step(module, torch.zeros(1), losses).run(job)
    assert job.state is None


def test_training_reduces_the_loss_and_logs_every_epoch():
    job = MemoryJob()
    learn_sums(job)
    assert [epoch for epoch, _ in job.lines] == [1, 2, 3, 4]
    assert job.lines[-1][1]["loss"] < 0.5 * job.lines[0][1]["loss"]


def test_the_first_batch_of_every_epoch_is_described_before_its_step():
    job, described = MemoryJob(), []

    def describe(batch):
        described.append(len(job.steps))
        return {"rows": float(len(batch))}

    learn_sums(job, describe=describe)
    assert described == [0, 4, 8, 12]
    assert [scalars["rows"] for _, scalars in job.lines] == [5, 5, 5, 5]


def test_gradients_are_clipped_to_the_norm_that_is_given():
    module = nn.Linear(3, 1)
    before = module.weight.detach().clone()

    def losses(x):
        return {"loss": 1e3 * module(x).sum()}

    one_step(module, torch.ones(1, 3), losses, clip=0.5).run(MemoryJob())
    norms = [parameter.grad.norm() for parameter in module.parameters()]
    assert torch.stack(norms).norm().item() == pytest.approx(0.5)
    assert not torch.equal(before, module.weight)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_learns_where_there_is_such_a_thing(precision):
    dtype = autocast_dtype(precision)
    if dtype == torch.float32:
        pytest.skip("torch sees no GPU, and the CPU has no instructions for bfloat16")
    module = nn.Linear(3, 1).to(device())
    x = torch.randn(64, 3, generator=generator("x")).to(device())
    job, dtypes = MemoryJob(), set()

    def losses(batch):
        predictions = module(batch)
        dtypes.add(predictions.dtype)
        errors = predictions - batch.sum(1, keepdim=True)
        return {"loss": errors.float().square().mean()}

    loop = TrainingLoop(
        module=module,
        optimizer=SGD(lr=0.05).build(module.parameters()),
        schedule=Constant(),
        epochs=20,
        steps_per_epoch=4,
        batch_size=16,
        batches=lambda epoch: ((batch,) for batch in x.split(16)),
        losses=losses,
        precision=precision,
    )
    loop.run(job)
    assert dtypes == {dtype}
    assert job.lines[-1][1]["loss"] < 0.2 * job.lines[0][1]["loss"]
