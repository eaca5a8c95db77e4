"""What a sweep says of itself while it runs."""

from __future__ import annotations

import pytest
from made_up import Broken, Double, Leaf, graded

from monosem.core.stage import closure
from monosem.core.store import LogEntry, Store
from monosem.running import progress
from monosem.running.progress import SweepProgress, minutes

LEAF = Leaf(value=1, diary="")
TRAINING = graded(1.0, 10)
CELLS = {
    "easy": [LEAF],
    "trained": closure([Double(leaf=TRAINING, diary="")]),
    "broken": [LEAF, Broken()],
}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def sweep(clock, tmp_path):
    missing = [TRAINING, LEAF, Double(leaf=TRAINING, diary=""), Broken()]
    return SweepProgress(CELLS, missing, Store(tmp_path))


def test_cells_are_done_running_or_failed(sweep):
    assert sweep.count_cells() == (0, 0, 0)
    sweep.on_start(TRAINING)
    assert sweep.count_cells() == (0, 1, 0)
    sweep.on_start(LEAF)
    assert sweep.count_cells() == (0, 3, 0)
    sweep.on_finish(LEAF)
    sweep.on_end(LEAF)
    assert sweep.count_cells() == (1, 1, 0)
    sweep.on_failure(Broken(), "no luck")
    assert sweep.count_cells() == (1, 1, 1)
    sweep.on_start(Broken())  # it is tried again
    assert sweep.count_cells() == (1, 2, 0)


def test_the_time_left_is_not_known_before_a_training_has_come_some_way(sweep, clock):
    sweep.on_start(TRAINING)
    assert sweep.seconds_left(clock.now) is None
    clock.now += 20
    sweep.on_log(TRAINING, LogEntry(2, 10, {}))
    assert sweep.seconds_left(clock.now) == pytest.approx(80)


class Other(type(TRAINING)):
    """Another kind of training."""


def test_a_training_of_which_nothing_is_known_is_taken_for_one_that_is(clock, tmp_path):
    other = Other(**vars(TRAINING))
    sweep = SweepProgress({"both": [TRAINING, other]}, [TRAINING, other], Store(tmp_path))
    sweep.seconds[type(TRAINING)] = [50.0]
    assert sweep.seconds_left(clock.now) == pytest.approx(100)


def test_the_time_left_goes_by_finished_stages_of_the_kind(sweep, clock):
    sweep.seconds[type(TRAINING)] = [50.0, 70.0]
    assert sweep.seconds_left(clock.now) == pytest.approx(60)
    sweep.on_start(TRAINING)
    clock.now += 20
    assert sweep.seconds_left(clock.now) == pytest.approx(40)


def test_a_line_says_how_far_the_sweep_is_and_a_failure_is_said_at_once(sweep, clock, capsys):
    sweep.on_start(TRAINING)
    first = capsys.readouterr().err
    assert first == (
        "0 s: 0 of 3 cells done, 1 running, 0 failed, time left not known yet (Graded 0%)\n"
    )
    clock.now += 5
    sweep.on_log(TRAINING, LogEntry(5, 10, {}))
    assert capsys.readouterr().err == ""  # too soon
    sweep.on_failure(Broken(), "no luck (log: a.log)")
    news, state = capsys.readouterr().err.splitlines()
    assert news == "Broken() failed: no luck (log: a.log)"
    assert state == "5 s: 0 of 3 cells done, 1 running, 1 failed, about 5 s left (Graded 50%)"


def test_seconds_are_rounded_to_minutes_from_one_minute_on():
    assert minutes(59) == "59 s" and minutes(61) == "1 min"
