"""Groups of stages as trials of a real Ray: order, failures, killed workers and nodes, schedulers.

The stages are made up (made_up.py) and take milliseconds, so what is seen here is Ray's part alone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up import Broken, Double, Leaf, Together, Walk, graded

from monosem.core.stage import Stage, StageError, group_shared, key, plan
from monosem.core.store import Callback, LogEntry, Store
from monosem.running.trials import RunOptions, TrialResources, TrialSetting
from monosem.specs.sweep import ASHA, Scheduler, Sweep

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def connected(ray_cluster):
    """This process is a driver of the cluster; workers know the made-up stages."""
    from monosem.running import tune

    with tune.cluster(ray_cluster.address, ["made_up"]):
        yield ray_cluster


class Events(Callback):
    """What a sweep's callbacks are told, in order."""

    def __init__(self) -> None:
        self.names: list[tuple[str, Stage]] = []
        self.entries: dict[str, list[LogEntry]] = {}
        self.reasons: list[str] = []

    def on_start(self, stage: Stage) -> None:
        self.names.append(("start", stage))

    def on_log(self, stage: Stage, entry: LogEntry) -> None:
        self.entries.setdefault(key(stage), []).append(entry)

    def on_end(self, stage: Stage) -> None:
        self.names.append(("end", stage))

    def on_finish(self, stage: Stage) -> None:
        self.names.append(("finish", stage))

    def on_failure(self, stage: Stage, reason: str) -> None:
        self.names.append(("failure", stage))
        self.reasons.append(reason)

    def of(self, stage: Stage) -> list[str]:
        return [name for name, other in self.names if other == stage]


def run_stages(
    folder: Path,
    *stages: Stage,
    callback: Callback | None = None,
    scheduler: Scheduler | None = None,
    jobs: int | None = None,
    retries: int = 0,
    resources: Any = (),
) -> Any:
    """The outcome of all stages that these need, as trials."""
    from monosem.running import tune

    store = Store(folder / "store")
    waves = plan(stages, store.has)
    groups = [group for wave in waves for group in group_shared(wave)]
    sweep = Sweep(name="made_up", specs=("none.gin",), resources=resources)
    setting = TrialSetting(
        root=store.root,
        storage=folder / ".tune",
        log_path=lambda stage: folder / "logs" / f"{type(stage).__name__}.log",
        resources=TrialResources(sweep, RunOptions(), tune.nodes()),
        jobs=jobs,
        retries=retries,
    )
    callbacks = () if callback is None else (callback,)
    return tune.run_trials(groups, scheduler, setting, callbacks)


class Mixed:
    """One run of Tune for many laws: leaves and doubles, clubs, and two stages that fail."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.diary = folder / "diary"
        self.leaves = [Leaf(value=value, diary=str(self.diary)) for value in range(3)]
        self.doubles = [Double(leaf=leaf, diary=str(self.diary)) for leaf in self.leaves]
        self.club = self.make_club("chess", [1, 2, 3])
        self.other_club = self.make_club("golf", [4])
        self.bad_club = self.make_club("poker", [5, 6], fails_at_first=True)
        self.broken = Broken()
        self.below_broken = Double(leaf=self.broken, diary=str(self.diary))
        self.good = [*self.leaves, *self.doubles, *self.club, *self.other_club, *self.bad_club]
        self.events = Events()
        self.outcome = run_stages(
            folder,
            *self.good,
            self.below_broken,
            callback=self.events,
            retries=1,
            resources={"Leaf": {"cpu": 2}},
        )

    def make_club(self, name: str, values: list[int], fails_at_first: bool = False) -> list[Stage]:
        return [
            Together(value=v, club=name, diary=str(self.diary), fails_at_first=fails_at_first)
            for v in values
        ]

    def lines(self, word: str) -> list[str]:
        lines = self.diary.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.startswith(word)]


@pytest.fixture(scope="module")
def mixed(connected, tmp_path_factory):
    return Mixed(tmp_path_factory.mktemp("mixed"))


def test_every_stage_runs_once_with_a_thread_for_each_of_its_cpus(mixed):
    assert sorted(mixed.lines("leaf")) == [f"leaf {value} with 2 threads" for value in range(3)]
    assert sorted(mixed.lines("double")) == [f"double of {value}" for value in range(3)]
    assert mixed.outcome.finished == set(map(key, mixed.good))


def test_a_stage_runs_after_what_it_needs(mixed):
    events = mixed.events.names
    for leaf, double in zip(mixed.leaves, mixed.doubles, strict=True):
        assert events.index(("finish", leaf)) < events.index(("start", double))
    store = Store(mixed.folder / "store")
    assert [int(store.get(double)["value"]) for double in mixed.doubles] == [0, 2, 4]


def test_stages_that_share_work_are_one_trial_with_a_history_each(mixed):
    assert mixed.lines("chess") == ["chess [1, 2, 3]"] and mixed.lines("golf") == ["golf [4]"]
    for stage in [*mixed.club, *mixed.other_club]:
        assert mixed.events.of(stage) == ["start", "finish", "end"]
        entries = mixed.events.entries[key(stage)]
        assert [(entry.step, entry.scalars["value"]) for entry in entries] == [
            (1, stage.value),
            (2, stage.value),
        ]
        assert Store(mixed.folder / "store").history(stage) == entries


def test_stages_that_share_work_fail_and_are_tried_again_together(mixed):
    assert mixed.lines("poker") == ["poker [5, 6]", "poker [5, 6]"]
    log = (mixed.folder / "logs" / "Together.log").read_text()
    assert log.startswith("== try 1\nValueError: the whole club fails\n")
    for stage in mixed.bad_club:
        assert mixed.events.of(stage) == ["start", "end", "start", "finish", "end"]


def test_a_stage_that_keeps_failing_takes_nothing_along_but_what_needs_it(mixed):
    assert mixed.outcome.failed.keys() == {key(mixed.broken)}
    assert mixed.events.of(mixed.broken) == ["start", "end", "start", "end", "failure"]
    assert mixed.events.of(mixed.below_broken) == []


def test_a_failure_has_one_line_for_people_and_a_log_with_the_story_of_each_try(mixed):
    reason, log, tries = mixed.outcome.failed[key(mixed.broken)]
    assert (reason, tries) == ("ValueError: no luck today", 2)
    assert mixed.events.reasons == [f"{reason} (log: {log})"]
    story = log.read_text()
    assert story.count("== try") == 2 and story.count("in run\n") == 2


def test_tune_leaves_no_files_of_its_own(mixed):
    assert {path.name for path in mixed.folder.iterdir()} == {"diary", "store", "logs"}


class KillAtSecondStep(Events):
    """Kills when so many walks have come to their second step; they go on when one has died."""

    def __init__(self, kill: Callable[[int], None], walks: int, go: Path):
        super().__init__()
        self.kill, self.walks, self.go = kill, walks, go
        self.waiting: set[str] = set()

    def on_log(self, stage: Stage, entry: LogEntry) -> None:
        super().on_log(stage, entry)
        if entry.step == 2 and not self.go.exists():
            self.waiting.add(key(stage))
            if len(self.waiting) == self.walks:
                self.kill(int(entry.scalars["process"]))

    def on_end(self, stage: Stage) -> None:
        super().on_end(stage)
        self.go.touch()


def assert_went_on_undisturbed(walk: Walk, folder: Path) -> None:
    """Its artifact has the bits that it has where nobody disturbs it."""
    undisturbed = Store(folder / "undisturbed").get(walk)["position"]
    assert torch.equal(Store(folder / "store").get(walk)["position"], undisturbed)


def test_a_killed_worker_is_replaced_and_its_stage_goes_on_from_its_checkpoint(connected, tmp_path):
    walk = Walk(seed=1, go=str(tmp_path / "go"))
    events = KillAtSecondStep(lambda pid: os.kill(pid, signal.SIGKILL), 1, tmp_path / "go")
    outcome = run_stages(tmp_path, walk, callback=events, retries=1)
    assert outcome.finished == {key(walk)}
    assert events.of(walk) == ["start", "end", "start", "finish", "end"]
    history = Store(tmp_path / "store").history(walk)
    assert history[0].scalars["process"] != history[-1].scalars["process"]
    assert_went_on_undisturbed(walk, tmp_path)


def test_a_node_that_dies_loses_and_doubles_nothing(connected, tmp_path):
    walks = [Walk(seed=seed, go=str(tmp_path / "go")) for seed in range(3)]
    node = connected.add_node(num_cpus=1)  # the third walk can run nowhere else
    connected.wait_for_nodes()

    def kill(process: int) -> None:
        connected.remove_node(node, allow_graceful=False)

    events = KillAtSecondStep(kill, 3, tmp_path / "go")
    outcome = run_stages(tmp_path, *walks, callback=events, retries=3)
    assert outcome.finished == set(map(key, walks)) and not outcome.failed
    assert sum(events.of(walk).count("start") for walk in walks) >= 4
    assert not list((tmp_path / "store").rglob("*.partial"))
    for walk in walks:
        assert_went_on_undisturbed(walk, tmp_path)


ASKED = ASHA(metric="quality", mode="max", grace=2, reduction=2.0)


def test_a_scheduler_stops_the_bad_ones_and_keeps_what_they_logged_last(connected, tmp_path):
    trainings = [graded(quality, epochs=8) for quality in (4.0, 3.0, 2.0, 1.0)]
    outcome = run_stages(tmp_path, *trainings, scheduler=ASKED, jobs=1)
    assert key(trainings[0]) in outcome.finished
    assert outcome.stopped.keys() == set(map(key, trainings[1:]))
    assert all(2 <= entry.step < 8 and entry.of == 8 for entry in outcome.stopped.values())
    store = Store(tmp_path / "store")
    assert [store.has(graded) for graded in trainings] == [True, False, False, False]


def test_a_training_that_comes_to_its_end_is_finished_whatever_the_scheduler_says(
    connected, tmp_path
):
    trainings = [graded(quality, epochs=2) for quality in (2.0, 1.0)]
    outcome = run_stages(tmp_path, *trainings, scheduler=ASKED, jobs=1)
    assert outcome.finished == set(map(key, trainings)) and not outcome.stopped


def test_a_scheduler_that_waits_for_what_nobody_logs_is_refused(connected, tmp_path):
    asked = ASHA(metric="qualty", mode="max")
    trainings = [graded(quality, epochs=8) for quality in (2.0, 1.0)]
    with pytest.raises(StageError) as refused:
        run_stages(tmp_path, *trainings, scheduler=asked)
    assert str(refused.value) == "Sweep.scheduler: Graded logs no 'qualty'; it logs quality"
