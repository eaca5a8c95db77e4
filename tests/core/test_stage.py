"""Laws of stages: in which order they are computed, which share work."""

from __future__ import annotations

from dataclasses import dataclass

from monosem.core.stage import Stage, closure, group_shared, plan, title
from monosem.datasets.digits import Digits
from monosem.models.baselines import Pixels
from monosem.models.features import Features


@dataclass(frozen=True)
class Link(Stage):
    name: str
    needs: tuple[Stage, ...] = ()


def test_a_plan_has_waves_of_missing_unique_stages():
    a, b = Link("a"), Link("b")
    c, d = Link("c", (a, b)), Link("d", (a,))
    e = Link("e", (c, d, a))
    assert plan([e, d], lambda stage: False) == [[a, b], [c, d], [e]]
    assert plan([e], lambda stage: stage is c) == [[a], [d], [e]]
    assert plan([e], lambda stage: stage is e) == []
    assert closure([e, d]) == [a, b, c, d, e]


def test_what_is_done_needs_nothing_above_it():
    a = Link("a")
    b = Link("b", (a,))
    c = Link("c", (b,))
    assert plan([c], lambda stage: stage is b) == [[c]]


@dataclass(frozen=True)
class Sharing(Stage):
    source: int
    factor: int

    def shared_work(self) -> int:
        return self.source


def test_stages_that_share_work_are_grouped_by_it_and_others_stay_alone():
    alone = Link("alone")
    one, two, three = Sharing(1, 1), Sharing(2, 1), Sharing(1, 3)
    assert group_shared([alone, one, two, three]) == [(alone,), (one, three), (two,)]


def test_a_title_names_the_classes_of_parts_and_leaves_out_what_is_no_part_of_the_key():
    assert title(Features(Pixels(Digits()), Digits(), "test")) == "Features(Pixels, Digits, test)"
    assert title(Link("a")) == "Link(a)"
