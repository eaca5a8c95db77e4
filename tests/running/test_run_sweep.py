"""Sweeps without Ray: a made-up runner computes their trials in this process."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import TINY, here
from made_up import Broken, Double, Leaf, Together, graded

from monosem.core.stage import Stage, StageError, closure, key
from monosem.core.store import LogEntry, Store
from monosem.models.training import Training
from monosem.results.rows import read_table
from monosem.running.sweep import Batch, SweepState, batches
from monosem.running.trials import Failure, Outcome, ReadyQueue, name_of, this_machine
from monosem.specs.study import read
from monosem.specs.sweep import ASHA, Sweep

ONE_WAVE = f"""
{TINY}
Sweep.name = 'wave'
Sweep.specs = ('gin/simclr.gin',)
Experiment.curves = (@label_noise/Curve(),)
label_noise/Curve.severities = (0.0, 0.5)
"""
SCHEDULER = ASHA(metric="quality", mode="max")


class InlineTrials:
    """Stands for Ray: what run_trials does, one group after another, with no second try.

    stop: keys of stages that a scheduler would stop after their first epoch.
    """

    def __init__(self) -> None:
        self.stop: set[str] = set()

    def run(self, groups: Any, scheduler: Any, setting: Any, callbacks: Any) -> Any:
        outcome = Outcome(set(), {}, {})
        queue = ReadyQueue(groups)
        while (group := queue.pop()) is not None:
            names = set(map(key, group))
            if scheduler is not None and names & self.stop:
                outcome.stopped.update(dict.fromkeys(names, LogEntry(1, group[0].epochs, {})))
                continue
            try:
                Store(setting.root, callbacks).get_together(group)
            except StageError as error:
                log = setting.log_path(group[0])
                log.parent.mkdir(exist_ok=True)
                log.write_text(f"{error}\n")
                failure = Failure(str(error), log, setting.retries + 1)
                outcome.failed.update(dict.fromkeys(names, failure))
                continue
            outcome.finished.update(names)
            queue.finish(name_of(group))
        return outcome


@pytest.fixture
def inline(monkeypatch):
    from monosem.running import tune

    trials = InlineTrials()
    monkeypatch.setattr(tune, "cluster", lambda address, modules: contextlib.nullcontext())
    monkeypatch.setattr(tune, "nodes", this_machine)
    monkeypatch.setattr(tune, "run_trials", trials.run)
    return trials


def sweep_here(capsys: Any, folder: Path, text: str, *flags: object) -> Any:
    path = folder / "sweep.gin"
    path.write_text(text)
    return here(
        capsys, "--gin", path, "--runs", folder / "runs", "--store", folder / "store", *flags
    )


def finished(folder: Path) -> dict[str, int]:
    """Stages in the store, and when each was finished."""
    return {
        f"{path.parent.parent.name}/{path.parent.name}": path.stat().st_mtime_ns
        for path in (folder / "store").glob("*/*/spec.json")
    }


# Whole sweeps


def test_growing_a_grid_computes_exactly_the_new_cells(inline, capsys, tmp_path):
    text = f"{ONE_WAVE}Sweep.grid = {{'LinearProbe.epochs': (1, 2)}}"
    assert sweep_here(capsys, tmp_path, text).returncode == 0
    before = finished(tmp_path)
    grown = sweep_here(capsys, tmp_path, text.replace("(1, 2)", "(1, 2, 3)"))
    assert grown.returncode == 0 and "3 cells, 1 of 9 stages to compute" in grown.stderr
    after = finished(tmp_path)
    assert {name: after[name] for name in before} == before  # what was there is untouched
    (new,) = after.keys() - before.keys()
    assert new.startswith("Curve/")
    assert len({row.swept for row in read_table(tmp_path / "runs" / "wave" / "curves.csv")}) == 3


FAILING = f"{ONE_WAVE}Sweep.retries = 1\nSweep.grid = {{'pretrain/Adam.lr': (1e-3, 1e30)}}"


def test_one_failed_cell_takes_none_along_and_is_listed_with_its_log(inline, capsys, tmp_path):
    out = sweep_here(capsys, tmp_path, FAILING)
    folder = tmp_path / "runs" / "wave"
    assert out.returncode == 1 and "Traceback" not in out.stderr
    (log,) = (folder / "logs").iterdir()
    for text in (out.stdout, (folder / "summary.md").read_text()):
        assert "- simclr,lr=1e+30 failed: the loss is not a finite number from step" in text
        assert f"(log: {log})" in text
    rows = read_table(folder / "curves.csv")
    assert {dict(row.swept)["pretrain/Adam.lr"] for row in rows} == {"0.001"}


def test_a_failed_cell_is_the_only_one_tried_again(inline, capsys, tmp_path):
    assert sweep_here(capsys, tmp_path, FAILING).returncode == 1
    before = finished(tmp_path)
    again = sweep_here(capsys, tmp_path, FAILING)
    assert again.returncode == 1 and "6 of 13 stages to compute" in again.stderr
    assert finished(tmp_path) == before


def test_a_cell_that_the_grid_has_no_more_loses_its_folder(inline, capsys, tmp_path):
    text = f"{ONE_WAVE}Sweep.grid = {{'LinearProbe.epochs': (1, 2)}}"
    sweep_here(capsys, tmp_path, text)
    own = tmp_path / "runs" / "wave" / "simclr,epochs=2" / "notes.txt"
    own.write_text("of a person")
    sweep_here(capsys, tmp_path, text.replace("(1, 2)", "(3, 4)"))
    folders = {path.name for path in (tmp_path / "runs" / "wave").iterdir() if path.is_dir()}
    assert folders == {"simclr,epochs=2", "simclr,epochs=3", "simclr,epochs=4"}
    assert {path.name for path in own.parent.iterdir()} == {"notes.txt"}


SCHEDULED = (
    f"{ONE_WAVE}Pretrain.epochs = 3\nSweep.grid = {{'pretrain/Adam.lr': (3e-3, 1e-9)}}\n"
    "Sweep.scheduler = @ASHA()\nASHA.metric = 'online_accuracy'\nASHA.mode = 'max'\n"
    "Sweep.goal = @Goal()\nGoal.curve = 'label_noise'\n"
)


def keys_of_trainings(folder: Path, text: str) -> list[str]:
    """Of the cells' trainings, in the order of the grid."""
    path = folder / "sweep.gin"
    path.write_text(text)
    asked = read([str(path)])
    assert asked is not None
    trainings = []
    for cell in asked.cells:
        stages = closure(cell.experiment.stages)
        trainings += [key(stage) for stage in stages if isinstance(stage, Training)]
    return trainings


def test_a_cell_that_the_scheduler_stopped_is_listed_and_left_alone(inline, capsys, tmp_path):
    _, bad = keys_of_trainings(tmp_path, SCHEDULED)
    inline.stop = {bad}
    out = sweep_here(capsys, tmp_path, SCHEDULED)
    assert out.returncode == 0, out.stderr
    stopped = json.loads((tmp_path / "runs" / "wave" / "stopped.json").read_text())["stages"]
    assert stopped == {bad: [1, 3]}
    assert "- simclr,lr=1e-09 was stopped by the scheduler after epoch 1 of 3\n" in out.stdout
    assert "not finished" in out.stdout and "Best within bounds: simclr,lr=0.003" in out.stdout
    inline.stop = set()  # it would not be stopped, but it is not tried
    again = sweep_here(capsys, tmp_path, SCHEDULED)
    assert again.returncode == 0 and again.stdout == out.stdout
    assert not list((tmp_path / "store").glob(f"*/{bad}"))


# What goes into one run of Tune


def test_without_a_scheduler_everything_is_one_batch():
    groups = [(Leaf(value=1, diary=""),), (Double(leaf=Leaf(value=1, diary=""), diary=""),)]
    assert batches(groups, None) == [Batch(groups, None)]


def test_a_scheduler_compares_trainings_of_one_kind_that_need_nothing_missing():
    leaf, trainings = Leaf(value=1, diary=""), [graded(quality, 2) for quality in (1.0, 2.0)]
    downstream = Double(leaf=leaf, diary="")
    groups: list[tuple[Stage, ...]] = [(training,) for training in trainings]
    made = batches([*groups, (leaf,), (downstream,)], SCHEDULER)
    assert made == [Batch(groups, SCHEDULER), Batch([(leaf,)], None)]


def test_a_scheduler_compares_trainings_that_share_work_one_by_one():
    trainings = [graded(quality, 2) for quality in (1.0, 2.0)]
    pair = tuple(Together(value=value, club="a", diary="") for value in (1, 2))
    made = batches([tuple(trainings), pair], SCHEDULER)
    apart = [(training,) for training in trainings]
    assert made == [Batch(apart, SCHEDULER), Batch([pair], None)]


def test_a_training_that_is_alone_is_compared_with_nothing():
    training = (graded(1.0, 2),)
    assert batches([training], SCHEDULER) == [Batch([training], None)]


# The state of a sweep


def state_of(folder: Path, *stages: Stage, retries: int = 1, scheduler: Any = None) -> SweepState:
    sweep = Sweep(name="made_up", specs=("none.gin",), retries=retries, scheduler=scheduler)
    cell: Any = SimpleNamespace(experiment=SimpleNamespace(stages=stages))
    study: Any = SimpleNamespace(sweep=sweep, cells=[cell])
    return SweepState(study, Store(folder / "store"), folder)


def outcome(**fields: Any) -> Any:
    return Outcome(**{"finished": set(), "failed": {}, "stopped": {}, **fields})


def failed(stage: Stage, tries: int) -> Any:
    return outcome(failed={key(stage): Failure("no luck", Path("a.log"), tries)})


def test_trainings_go_first_and_stages_that_share_work_together(tmp_path):
    club = [Together(value=value, club="a", diary="") for value in (1, 2)]
    leaf, training = Leaf(value=1, diary=""), graded(1.0, 2)
    state = state_of(tmp_path, leaf, *club, training)
    assert state.todo() == [(training,), (leaf,), tuple(club)]


def test_what_is_in_the_store_is_not_to_do(tmp_path):
    leaf = Leaf(value=1, diary=str(tmp_path / "diary"))
    downstream = Double(leaf=leaf, diary="")
    state = state_of(tmp_path, downstream)
    assert state.todo() == [(leaf,), (downstream,)]
    state.store.get(leaf)
    assert state.todo() == [(downstream,)]


def test_a_stage_is_given_up_after_its_retries_over_all_rounds(tmp_path):
    broken = Broken()
    state = state_of(tmp_path, broken, retries=2)
    batch = Batch([(broken,)], None)
    state.record(batch, failed(broken, tries=2))
    assert state.todo() == [(broken,)] and not state.failed  # Tune gave up early
    state.record(batch, failed(broken, tries=1))
    assert state.todo() == [] and state.failed[key(broken)].reason == "no luck"


def test_what_needs_a_failed_stage_has_failed_for_the_same_reason_without_a_log(tmp_path):
    broken, leaf = Broken(), Leaf(value=1, diary="")
    downstream = Double(leaf=broken, diary="")
    state = state_of(tmp_path, downstream, leaf, retries=0)
    state.record(Batch([(broken,)], None), failed(broken, tries=1))
    assert state.todo() == [(leaf,)]
    failure = state.failed[key(downstream)]
    assert failure.reason == "no luck" and failure.log is None


def test_what_a_scheduler_stopped_is_left_alone_by_the_next_run_with_that_scheduler(tmp_path):
    training = graded(1.0, 8)
    downstream = Double(leaf=training, diary="")
    state = state_of(tmp_path, downstream, scheduler=SCHEDULER)
    stopped = outcome(stopped={key(training): LogEntry(2, 8, {})})
    state.record(Batch([(training,)], SCHEDULER), stopped)
    assert state.todo() == []
    assert state_of(tmp_path, downstream, scheduler=SCHEDULER).stopped == {key(training): (2, 8)}
    assert state_of(tmp_path, downstream, scheduler=SCHEDULER).todo() == []
    other = ASHA(metric="quality", mode="max", grace=5)
    assert state_of(tmp_path, downstream, scheduler=other).todo() == [(training,), (downstream,)]


def test_a_damaged_list_of_the_stopped_is_said_and_forgotten(tmp_path, capsys):
    (tmp_path / "stopped.json").write_text("{garbage")
    assert state_of(tmp_path, scheduler=SCHEDULER).stopped == {}
    message = f"{tmp_path}/stopped.json is damaged: what was stopped is tried again\n"
    assert capsys.readouterr().err == message


def test_a_ray_that_runs_nothing_ends_the_sweep(tmp_path):
    state = state_of(tmp_path, Broken())
    with pytest.raises(StageError, match="Ray ran none of 1 trials"):
        state.record(Batch([(Broken(),)], None), outcome())


# Clusters


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cpus", 4096], "a trial of Pretrain asks for 4096 CPUs and 0 GPUs; available, node by"),
        (["--address", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1: "),
        (["--address", "head"], "--address (or RAY_ADDRESS) must be auto or HOST:PORT, got 'head'"),
    ],
)
def test_what_the_cluster_cannot_give_is_said_before_ray_starts(
    capsys, tmp_path, monkeypatch, flags, message
):
    import ray

    monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("Ray was started"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    out = sweep_here(capsys, tmp_path, ONE_WAVE, *flags)
    assert out.returncode == 2 and message in out.stderr and "Traceback" not in out.stderr
    assert not list((tmp_path / "runs" / "wave").iterdir())
