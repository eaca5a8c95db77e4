"""In which order trials may start, and what they get. No Ray."""

from __future__ import annotations

from typing import Any

import pytest
from made_up import Broken, Double, Leaf, Together

from monosem.core.stage import Stage
from monosem.running.trials import ReadyQueue, RunOptions, TrialResources, name_of
from monosem.specs.errors import ClusterError
from monosem.specs.sweep import Resources, Sweep

ONE, TWO = (Leaf(value=value, diary="") for value in (1, 2))
ON_ONE, ON_TWO = (Double(leaf=leaf, diary="") for leaf in (ONE, TWO))


def drain(queue: ReadyQueue) -> list[tuple[Stage, ...]]:
    """Whatever is ready now."""
    groups = []
    while (group := queue.pop()) is not None:
        groups.append(group)
    return groups


def test_what_needs_nothing_is_ready_in_the_given_order():
    assert drain(ReadyQueue([(TWO,), (ONE,)])) == [(TWO,), (ONE,)]


def test_a_group_becomes_ready_when_the_last_that_it_needs_is_finished():
    club = tuple(Double(leaf=leaf, diary="") for leaf in (ONE, TWO))
    queue = ReadyQueue([club, (ONE,), (TWO,)])
    assert drain(queue) == [(ONE,), (TWO,)]
    queue.finish(name_of((ONE,)))
    assert drain(queue) == []
    queue.finish(name_of((TWO,)))
    assert drain(queue) == [club]


def test_what_has_become_ready_goes_before_later_groups_that_were_ready_all_along():
    queue = ReadyQueue([(ONE,), (ON_ONE,), (TWO,), (ON_TWO,)])
    assert queue.pop() == (ONE,)
    queue.finish(name_of((ONE,)))
    assert drain(queue) == [(ON_ONE,), (TWO,)]


def test_what_is_needed_from_outside_the_queue_is_there_already():
    assert drain(ReadyQueue([(ON_ONE,)])) == [(ON_ONE,)]


def test_a_group_is_called_by_its_first_stage():
    club = tuple(Together(value=value, club="a", diary="") for value in (1, 2))
    assert name_of(club) == name_of(club[:1]) != name_of(club[1:])


# What a trial gets


def resources_of(nodes: Any, named: Any = (), **options: Any) -> TrialResources:
    sweep = Sweep(name="made_up", specs=("none.gin",), resources=named)
    return TrialResources(sweep, RunOptions(**options), nodes)


def test_a_trial_gets_one_cpu_and_a_gpu_where_there_are_any_unless_told_otherwise():
    leaf, nodes = Leaf(value=1, diary=""), [{"CPU": 8.0}, {"CPU": 8.0, "GPU": 2.0}]
    assert resources_of(nodes[:1]).of(leaf) == Resources(cpu=1.0, gpu=0.0)
    assert resources_of(nodes).of(leaf) == Resources(cpu=1.0, gpu=1.0)
    assert resources_of(nodes, cpus=2.0, gpus=0.0).of(leaf) == Resources(cpu=2.0, gpu=0.0)
    named = {"Leaf": {"cpu": 4, "gpu": 0.5}}
    assert resources_of(nodes, named, cpus=2.0).of(leaf) == Resources(cpu=4.0, gpu=0.5)
    assert resources_of(nodes, named, cpus=2.0).of(Broken()) == Resources(cpu=2.0, gpu=1.0)


def test_one_node_must_have_all_that_a_trial_asks_for():
    nodes = [{"CPU": 4.0}, {"CPU": 1.0, "GPU": 1.0}]
    resources_of(nodes, cpus=4.0, gpus=0.0).check([Broken()])
    with pytest.raises(ClusterError) as refused:
        resources_of(nodes, cpus=2.0, gpus=0.5).check([Broken()])
    assert str(refused.value) == (
        "a trial of Broken asks for 2 CPUs and 0.5 GPUs; available, node by node: "
        "4 CPUs and 0 GPUs; 1 CPUs and 1 GPUs"
    )
