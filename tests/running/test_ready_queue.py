"""In which order groups of stages may start."""

from __future__ import annotations

from made_up import Double, Leaf, Together

from monosem.core.stage import Stage
from monosem.running.ready_queue import ReadyQueue, name_of

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
