"""What a sweep may say of itself, and its schedulers."""

from __future__ import annotations

import pytest

from monosem.specs.errors import SpecError
from monosem.specs.sweep import ASHA, MedianStopping

pytestmark = pytest.mark.usefixtures("in_root")

WRONG = [  # what is typed, and what is said
    (
        "Sweep.scheduler = @ASHA()\n"
        "ASHA.metric = 'loss'\n"
        "ASHA.mode = 'min'\n"
        "Sweep.grid = {'Pretrain.seed': (0, 1)}",
        "Sweep.scheduler does not go with a grid over seeds",
    ),
    (
        "Sweep.specs = ()",
        "Sweep.specs must name at least one Gin file, got ()",
    ),
    (
        "Sweep.specs = 'gin/ncl.gin'",
        "Sweep.specs must be a tuple such as (a, b), got 'gin/ncl.gin'",
    ),
    (
        "Sweep.specs = ('gin/ncl.gin', 'gin/ncl.gin')",
        "Sweep.specs must differ from one another",
    ),
    (
        "Sweep.name = 'a/b'",
        "Sweep.name must be a folder's name",
    ),
    (
        "Sweep.num_samples = 3",
        "Sweep.num_samples must be 1 where the grid has no space to draw from, got 3",
    ),
    (
        "Sweep.num_sample = 3",
        "Sweep has no parameter 'num_sample'",
    ),
    (
        "Sweep.retries = -1",
        "Sweep.retries must be 0 or more, got -1",
    ),
    (
        "Sweep.scheduler = 'asha'",
        "Sweep.scheduler must be a Scheduler, got 'asha'",
    ),
    (
        "Sweep.scheduler = @ASHA()",
        "ASHA.metric and ASHA.mode must be set",
    ),
    (
        "Sweep.grid = {'Sweep.name': ('a', 'b')}",
        "Sweep.name is of the sweep itself; an axis is a binding of its specs",
    ),
    (
        "Sweep.resources = 3",
        "Sweep.resources must map kinds of stages to amounts",
    ),
    (
        "Sweep.resources = {'Pretrain': {'cpus': 1}}",
        "must map kinds of stages to amounts",
    ),
    (
        "Sweep.resources = {'Pretrain': {'cpu': 0}}",
        "Sweep.resources holds Resources.cpu must be above 0, got 0",
    ),
    (
        "Sweep.resources = {'Pretrain': 2}",
        "must map kinds of stages to amounts",
    ),
    (
        "Sweep.grid = {'sae/Adam.lr': @LogUniform()}",
        "LogUniform.low and LogUniform.high must be set",
    ),
    (
        "Sweep.grid = {'sae/Adam.lr': @Uniform()}\nUniform.low = 2\nUniform.high = 1",
        "Uniform.high must be above low, 2, got 1",
    ),
]


@pytest.mark.parametrize(("typed", "said"), WRONG)
def test_a_sweep_that_cannot_be_meant_is_one_line(read_sweep, typed, said):
    with pytest.raises(SpecError) as info:
        read_sweep(typed)
    assert said in str(info.value)
    assert "\n" not in str(info.value)


def test_asha_never_stops_a_training_that_comes_to_its_own_end():
    class Schedulers:
        ASHAScheduler = dict

    assert ASHA(metric="loss", mode="min").build(Schedulers, epochs=30)["max_t"] == 31


@pytest.mark.parametrize(
    "scheduler", [ASHA(metric="loss", mode="min"), MedianStopping(metric="l0", mode="max", grace=2)]
)
def test_schedulers_are_ray_s_own(scheduler):
    made = scheduler.build(pytest.importorskip("ray.tune.schedulers"), epochs=30)
    assert made.metric == scheduler.metric
    assert type(made).__module__.startswith("ray.tune.schedulers")
