"""A sweep: the missing stages of its cells as trials of Ray Tune, then its folder.

Only tune.py knows Ray. It is imported only where something is to be computed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from monosem.core.files import lock, write_text
from monosem.core.identity import digest
from monosem.core.run_record import Beginning, begin, cost_line, finish, is_recorded
from monosem.core.stage import Stage, StageError, closure, group_shared, key, missing_stages, plan
from monosem.core.store import Callback, LogEntry, Store
from monosem.models.training import Learning, Training
from monosem.running import sweep_folder
from monosem.running.local import tell_data
from monosem.running.progress import SweepProgress, Voice
from monosem.running.sweep_folder import FailedStage
from monosem.running.trials import (
    Group,
    Node,
    Outcome,
    RunOptions,
    TrialResources,
    TrialSetting,
    this_machine,
)
from monosem.specs.study import Study
from monosem.specs.sweep import Scheduler

SHARED_DISK_SECONDS = 90  # NFS may take half a minute to show a new folder


def run_sweep(study: Study, folder: Path, root: Path | Sequence[Path], options: RunOptions) -> bool:
    """Compute whatever is missing, then write the sweep's folder.

    folder: of the sweep.
    root: of the store, or several, as `Store` takes them.

    Returns whether no cell failed.

    Raises ClusterError, before any trial, where there is no such cluster or it is too small, and
    StageError where Ray cannot go on.
    """
    store, began = Store(root), time.monotonic()
    with lock(folder), store.in_use():
        state = SweepState(study, store, folder)
        missing = state.missing()
        beginning = run_missing_trials(study, folder, store, options, state, missing)
        is_whole = sweep_folder.write(study, folder, store, state.failed, state.stopped)
        stages = all_stages(study)
        if beginning is not None:
            finish(folder, stages, beginning, complete=is_whole)
        cost = cost_line(store, stages, missing, time.monotonic() - began)
    options.voice.note(cost)
    return is_whole


def run_missing_trials(
    study: Study,
    folder: Path,
    store: Store,
    options: RunOptions,
    state: SweepState,
    missing: Sequence[Stage],
) -> Beginning | None:
    """Run trials until no missing stage is left that can be computed.

    missing: what `state.missing` says now.

    Returns when the run began; None where the folder says that all is there, and it is.
    """
    if not state.todo():
        _report_size(study, missing, options.voice)
        sweep_folder.write_manifest(study, folder, options.voice)
        stages = all_stages(study)
        return None if is_recorded(folder, stages) else begin(folder, stages)
    from monosem.running import tune  # heavy, and not needed where nothing is to be computed

    if options.address is None:  # refuse before Ray starts, which takes seconds
        TrialResources(study.sweep, options, this_machine()).check(missing)
    with tune.cluster(options.address, study.modules):
        setting = _trial_setting(study, folder, store, options, tune.nodes())
        setting.resources.check(missing)
        # not before all is checked: an error is one line alone
        _report_size(study, missing, options.voice)
        beginning = begin(folder, all_stages(study))
        sweep_folder.write_manifest(study, folder, options.voice)
        sweep_folder.mark_unfinished(study, folder, missing)
        with _open_callbacks(study, folder, store, missing, options.voice) as callbacks:
            while todo := state.todo():
                for batch in batches(todo, study.sweep.scheduler):
                    outcome = tune.run_trials(
                        groups=batch.groups,
                        scheduler=batch.scheduler,
                        setting=setting,
                        callbacks=callbacks,
                    )
                    state.record(batch, outcome)
    return beginning


def all_stages(study: Study) -> list[Stage]:
    """What the cells need, upstream first, each once."""
    return closure([stage for cell in study.cells for stage in cell.experiment.stages])


def _report_size(study: Study, missing: Sequence[Stage], voice: Voice) -> None:
    voice.note(
        f"{study.sweep.name}: {len(study.cells)} cells, "
        f"{len(missing)} of {len(all_stages(study))} stages to compute"
    )
    tell_data(study.experiments.values(), voice)


def _trial_setting(
    study: Study, folder: Path, store: Store, options: RunOptions, nodes: Sequence[Node]
) -> TrialSetting:
    return TrialSetting(
        root=store.roots,
        storage=folder / ".tune",
        log_path=functools.partial(sweep_folder.log_path, folder),
        resources=TrialResources(study.sweep, options, nodes),
        jobs=options.jobs,
        retries=study.sweep.retries,
    )


@contextlib.contextmanager
def _open_callbacks(
    study: Study, folder: Path, store: Store, missing: Sequence[Stage], voice: Voice
) -> Iterator[tuple[Callback, ...]]:
    """The progress on the terminal and the live TensorBoard, until the block ends."""
    # Heavy, and not needed where nothing is to be computed.
    from monosem.running.tensorboard import LiveTensorBoard

    cells = {cell.name: closure(cell.experiment.stages) for cell in study.cells}
    runs = {folder / name: stages for name, stages in cells.items()}
    with (
        contextlib.closing(SweepProgress(cells, missing, store, voice)) as progress,
        contextlib.closing(LiveTensorBoard(runs, store)) as board,
    ):
        yield progress, board


class Batch(NamedTuple):
    """The groups of one run of Tune.

    scheduler: compares them with one another; None: they are not compared.
    """

    groups: list[Group]
    scheduler: Scheduler | None


def batches(todo: Sequence[Group], scheduler: Scheduler | None) -> list[Batch]:
    """Everything in one batch, unless there is a scheduler.

    A scheduler compares trainings of one class, so every class of `Training` is a batch of its own,
    where those that could share work are apart, as it stops each by itself. All other groups are
    one more batch, which no scheduler compares; fitted probes and fine-tuned networks (`Learning`)
    are there too. Groups that need another missing stage wait for the next round.
    """
    if scheduler is None:
        return [Batch(list(todo), None)]
    missing = {key(stage) for group in todo for stage in group}
    by_kind: dict[type[Stage] | None, list[Group]] = {}
    for group in _trainings_apart(todo):
        if not _needs_any_of(missing, group):
            kind = type(group[0]) if isinstance(group[0], Training) else None
            by_kind.setdefault(kind, []).append(group)
    return [
        Batch(groups, scheduler if kind is not None and len(groups) > 1 else None)
        for kind, groups in by_kind.items()
    ]


def _trainings_apart(groups: Sequence[Group]) -> Iterator[Group]:
    for group in groups:
        if isinstance(group[0], Training):
            yield from ((stage,) for stage in group)
        else:
            yield group


def _needs_any_of(keys: set[str], group: Group) -> bool:
    return any(key(needed) in keys for stage in group for needed in stage.upstream())


class SweepState:
    """Which stages of a sweep are missing, have failed or were stopped.

    failed: by key, the stages that cannot be computed in this run.
    stopped: by key, the stages that the scheduler stopped, and after which step of how many. They
        are kept in a file, so that the same command does not try them again.
    tries: by key, how often a stage has failed.
    """

    def __init__(self, study: Study, store: Store, folder: Path):
        self.wanted = [stage for cell in study.cells for stage in cell.experiment.stages]
        self.retries = study.sweep.retries
        self.store = store
        self.folder = folder
        self.stopped_file = folder / "stopped.json"
        self.scheduler_digest = digest(study.sweep.scheduler)
        self.failed: dict[str, FailedStage] = {}
        self.stopped = self._read_stopped()
        self.tries: dict[str, int] = {}

    def missing(self) -> list[Stage]:
        """The stages that are not in the store, upstream first."""
        return missing_stages(self.wanted, self.store.has)

    def todo(self) -> list[Group]:
        """The missing stages that can be computed, in groups.

        Stages that learn (`Learning`: trainings, fitted probes, fine-tuned networks) come first, as
        they take longest. The rest is in the order of `missing`.
        """
        waves = plan(self.wanted, self.store.has)
        missing = [stage for wave in waves for stage in wave]
        self._fail_downstream_of_failed(missing)
        lost = self.failed.keys() | _with_downstream(self.stopped, missing)
        groups: list[Group] = []
        for wave in waves:
            groups += group_shared([stage for stage in wave if key(stage) not in lost])
        return sorted(groups, key=lambda group: not isinstance(group[0], Learning))

    def record(self, batch: Batch, outcome: Outcome) -> None:
        """Add the outcome of a batch."""
        if outcome.nothing_happened:
            raise StageError(
                f"Ray ran none of {len(batch.groups)} trials; "
                "look at its logs in /tmp/ray/session_latest/logs"
            )
        self._add_stopped(outcome.stopped)
        for group in batch.groups:
            for stage in group:
                self._record_stage(stage, outcome)

    def _record_stage(self, stage: Stage, outcome: Outcome) -> None:
        name = key(stage)
        failure = outcome.failed.get(name)
        if failure and not self.store.has(stage):  # others of a group may be there
            self.tries[name] = self.tries.get(name, 0) + failure.tries
            if self.tries[name] > self.retries:
                self.failed[name] = FailedStage(stage, failure.reason, failure.log)
        elif name in outcome.finished:
            wait_for(stage, self.store)
            sweep_folder.log_path(self.folder, stage).unlink(missing_ok=True)  # of an earlier run

    def _fail_downstream_of_failed(self, missing: Sequence[Stage]) -> None:
        """Stages downstream of a failed one have failed too, for the same reason.

        missing: upstream first.
        """
        for stage in missing:
            for needed in stage.upstream():
                if key(needed) in self.failed:
                    reason = self.failed[key(needed)].reason
                    self.failed.setdefault(key(stage), FailedStage(stage, reason, None))

    def _add_stopped(self, stopped: dict[str, LogEntry]) -> None:
        if not stopped:
            return
        for name, entry in stopped.items():
            self.stopped[name] = (entry.step, entry.of)
        record = {"scheduler": self.scheduler_digest, "stages": self.stopped}
        write_text(self.stopped_file, json.dumps(record, indent=1))

    def _read_stopped(self) -> dict[str, tuple[int, int]]:
        """The stages that this scheduler stopped in an earlier run."""
        if not self.stopped_file.exists():
            return {}
        try:
            record = json.loads(self.stopped_file.read_text())
            if record["scheduler"] != self.scheduler_digest:
                return {}
            return {name: (at[0], at[1]) for name, at in record["stages"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            print(
                f"{self.stopped_file} is damaged: what was stopped is tried again",
                file=sys.stderr,
            )
            return {}


def _with_downstream(keys: Iterable[str], missing: Sequence[Stage]) -> set[str]:
    """These keys, and those of the missing stages downstream of them.

    missing: upstream first.
    """
    reached = set(keys)
    for stage in missing:
        if any(key(needed) in reached for needed in stage.upstream()):
            reached.add(key(stage))
    return reached


def wait_for(stage: Stage, store: Store) -> None:
    """Return when this process sees the artifact that a worker has put into the store.

    Raises StageError where it does not come.
    """
    deadline = time.monotonic() + SHARED_DISK_SECONDS
    while not store.has(stage):
        if time.monotonic() > deadline:
            raise StageError(
                f"a worker finished {store.folder(stage)}, but it is not there; "
                "is the store on a folder that all nodes share?"
            )
        time.sleep(0.5)
