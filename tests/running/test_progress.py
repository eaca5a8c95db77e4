"""What a sweep says of itself while it runs."""

from __future__ import annotations

import pytest
import torch
from made_up import Broken, Double, Leaf, graded

from monosem.core.stage import closure, key
from monosem.core.store import LogEntry, Store
from monosem.running import progress
from monosem.running.progress import ConsoleProgress, SweepProgress, Voice, minutes

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


def test_a_stage_that_has_come_some_way_is_judged_by_its_own_pace(sweep, clock):
    sweep.seconds[type(TRAINING)] = [10.0]
    sweep.on_start(TRAINING)
    clock.now += 60
    sweep.on_log(TRAINING, LogEntry(2, 10, {}))
    assert sweep.seconds_left(clock.now) == pytest.approx(240)


def test_a_line_says_how_far_the_sweep_is_and_a_failure_is_said_at_once(sweep, clock, capsys):
    sweep.on_start(TRAINING)
    first = capsys.readouterr().err
    assert first == (
        "0 s: 0 of 3 cells done, 1 running, 0 failed, time left not known yet "
        "(Graded of trained 0%)\n"
    )
    clock.now += 5
    sweep.on_log(TRAINING, LogEntry(5, 10, {}))
    assert capsys.readouterr().err == ""  # too soon
    sweep.on_failure(Broken(), "no luck (log: a.log)")
    news, state = capsys.readouterr().err.splitlines()
    assert news == "Broken() failed: no luck (log: a.log)"
    assert state == (
        "5 s: 0 of 3 cells done, 1 running, 1 failed, about 5 s left (Graded of trained 50%)"
    )
    clock.now += 59
    sweep.on_log(TRAINING, LogEntry(6, 10, {}))
    assert capsys.readouterr().err == ""  # less than a minute later
    clock.now += 1
    sweep.on_log(TRAINING, LogEntry(6, 10, {}))
    assert capsys.readouterr().err.startswith("1 min: 0 of 3 cells done")


def test_seconds_are_rounded_to_minutes_from_one_minute_on():
    assert minutes(59) == "59 s" and minutes(61) == "1 min"


# Of one experiment, in a log


def of_one(tmp_path, **voice):
    missing = [TRAINING, LEAF]
    return ConsoleProgress(missing, Store(tmp_path), Voice(**voice))


def train(progress, clock, seconds):
    """A training of so many seconds, two steps a second."""
    steps = 2 * seconds
    progress.on_start(TRAINING)
    for step in range(1, steps + 1):
        clock.now += 0.5
        progress.on_step(TRAINING, step, steps, 64 * step, torch.tensor(0.25))
    progress.on_end(TRAINING)


def test_a_log_has_at_most_one_line_a_minute_with_what_runs_and_the_time_left(
    clock, tmp_path, capsys
):
    train(of_one(tmp_path), clock, 300)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[1].startswith("2 min: 0 of 2 stages done, Graded(")
    assert "step 240 of 600, loss 0.2500, 128 inputs/s, about 3 min left" in lines[1]


def test_a_short_run_has_no_line_of_progress(clock, tmp_path, capsys):
    train(of_one(tmp_path), clock, 50)
    assert capsys.readouterr().err == ""


def test_quiet_says_nothing_and_verbose_names_every_stage_with_its_key(clock, tmp_path, capsys):
    train(of_one(tmp_path, quiet=True), clock, 300)
    assert capsys.readouterr().err == ""
    train(of_one(tmp_path, verbose=True), clock, 40)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5 and lines[-1].endswith(f": 40.0 s, {key(TRAINING)}")
