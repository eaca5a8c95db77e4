"""What benchmarks say of the machine, and how they name, fit and draw what they measured."""

from __future__ import annotations

import xml.etree.ElementTree

import pytest

from benchmarks.growth import exponent
from benchmarks.machine import Clocks, other_cores, verdict
from benchmarks.profile import flame_graph, kind_of


def test_other_work_is_what_all_cpus_did_less_what_was_done_here():
    before, after = Clocks(clock=0.0, busy=100.0, own=5.0), Clocks(clock=10.0, busy=125.0, own=15.0)
    assert other_cores(before, after) == pytest.approx(1.5)


def test_a_machine_that_did_less_than_was_done_here_was_quiet():
    # ticks are coarser than the clock of a process
    before, after = Clocks(clock=0.0, busy=0.0, own=0.0), Clocks(clock=1.0, busy=0.99, own=1.0)
    assert other_cores(before, after) == 0


def test_a_figure_is_quotable_beside_less_than_a_quarter_of_a_core():
    assert verdict(0.24).endswith(": quotable")
    assert verdict(0.25).endswith(": NOT quotable")


def test_the_exponent_of_a_power_is_the_power():
    sizes = [1, 2, 4, 8]
    assert exponent(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("inner", "kind"),
    [
        ("/site/torch/autograd/graph.py", "encoder backward"),
        ("/site/torch/optim/sgd.py", "optimiser"),
        ("/here/monosem/data/augment.py", "augmentation"),
        ("/here/monosem/figures/curves.py", "pictures"),
        ("<frozen importlib._bootstrap>", "imports"),
    ],
)
def test_a_stack_counts_as_the_innermost_thing_that_has_a_name(inner, kind):
    loop = ("/here/monosem/learning/loop.py", "train")
    assert kind_of([("/here/monosem/cli/run.py", "run"), loop, (inner, "f")]) == kind


def test_a_flame_graph_has_a_box_for_every_call_as_wide_as_its_seconds():
    root = xml.etree.ElementTree.fromstring(flame_graph({("a", "b"): 3.0, ("a", "c"): 1.0}))
    boxes = [box for box in root.iter() if box.tag.endswith("rect")]
    assert [float(box.get("width", 0)) for box in boxes] == pytest.approx([1200, 900, 300])
