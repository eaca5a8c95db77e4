"""Ray Tune runs groups of stages as trials, on one machine or a cluster. The only place that knows
Ray.

What goes to a worker: stages, which are plain data, the absolute path of the store, and the code of
monosem. What comes back: the scalars that a stage logs. Artifacts stay in the store.

    driver   ReadyQueue -> DependencySearcher -> trial {"keys": [...], "cpu": 1, "gpu": 0}
    worker   compute_group -> Store.get_together -> TuneReporter -> tune.report
    driver   TuneCallback -> the sweep's callbacks, and the Outcome
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import pickle
import shutil
import socket
import sysconfig
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.tune import schedulers
from ray.tune.search import Searcher

from monosem.checkpoints.transformer_folder import CHECKPOINTING, HALF, SHARD
from monosem.core.device import DEVICE
from monosem.core.provenance import for_workers
from monosem.core.signals import end_at_sigterm
from monosem.core.stage import Stage, StageError, key
from monosem.core.store import Callback, LogEntry, Store
from monosem.models.training import Training
from monosem.running.trials import (
    Failure,
    Group,
    Node,
    Outcome,
    ReadyQueue,
    TrialResources,
    TrialSetting,
    name_of,
)
from monosem.specs.errors import ClusterError
from monosem.specs.sweep import Scheduler

SETTINGS = {  # each of these is read by Ray from the environment
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no files of its own: TensorBoard's, CSV, JSON
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # stages log different scalars
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl+C ends at once: stages go on from their last epoch
    "TUNE_MAX_PENDING_TRIALS_PG": "16",  # 1 by default where trials are handed out one by one
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
LONGEST_TEMPORARY_FOLDER = 40  # a socket's path has at most 107 bytes, and Ray adds about 60
OBJECT_STORE_BYTES = 2**28
REACH_SECONDS = 5
# environment variables that workers need too
PASSED_ON = ("MONOSEM_COMPILE", DEVICE, HALF, CHECKPOINTING, SHARD)


# Clusters


@contextlib.contextmanager
def cluster(address: str | None, modules: Sequence[str]) -> Iterator[None]:
    """Connected to a Ray cluster as long as the block lasts.

    address: HOST:PORT, or "auto" to find a cluster on this machine; None: start one here, which
        ends with the block.
    modules: imported by the user's Gin files; their code is sent to the workers, as monosem's is.

    Raises ClusterError where there is no such cluster.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if len(tempfile.gettempdir()) > LONGEST_TEMPORARY_FOLDER:
        os.environ.setdefault("RAY_TMPDIR", "/tmp")
    # It prints the traceback of every failed try; ours are kept in logs.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if address not in (None, "auto", "local"):
        _reach(str(address))
    _connect(address, modules)
    end_at_sigterm()  # Ray's own handler prints a screen of C++
    try:
        yield
    finally:
        ray.shutdown()


def _connect(address: str | None, modules: Sequence[str]) -> None:
    where: dict[str, Any] = {"address": address}
    attempts = 1
    if address in (None, "local"):
        where = {
            "address": "local",
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
        attempts = 2  # on a busy machine its own processes may be too slow for it to start
    runtime_env = {
        "py_modules": _code_of(("monosem", *modules)),
        "env_vars": {
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
            **for_workers(),
        },
    }
    for attempt in range(1, attempts + 1):
        try:
            ray.init(
                **where, runtime_env=runtime_env, log_to_driver=False, logging_level=logging.ERROR
            )
            return
        except Exception as error:  # Ray raises bare ones where it cannot start or connect
            ray.shutdown()
            if attempt == attempts:
                raise ClusterError(
                    f"no Ray cluster at {address or 'this machine'}: {_first_line(error)}"
                ) from None


def _code_of(modules: Sequence[str]) -> list[str]:
    """The folders and files with the code of modules, except what is installed on every node."""
    packages = dict.fromkeys(name.partition(".")[0] for name in modules)
    paths = [_path_of(importlib.import_module(name)) for name in packages]
    return [str(path) for path in paths if path is not None and not _is_installed(path)]


def _path_of(module: Any) -> Path | None:
    folders = [*getattr(module, "__path__", ())]
    path = folders[0] if folders else getattr(module, "__file__", None)
    return None if path is None else Path(path)


def _is_installed(path: Path) -> bool:
    return "site-packages" in path.parts or path.is_relative_to(sysconfig.get_paths()["stdlib"])


def _reach(address: str) -> None:
    """Raise ClusterError within seconds where nothing listens; Ray would try for a minute."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "://" in address:
        raise ClusterError(f"--address (or RAY_ADDRESS) must be auto or HOST:PORT, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except OSError as error:
        raise ClusterError(f"no Ray cluster at {address}: {error.strerror or error}") from None


def nodes() -> list[Node]:
    """The CPUs and GPUs of each node of the cluster, among other resources."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


# In the driver


def run_trials(
    groups: Sequence[Group],
    scheduler: Scheduler | None,
    setting: TrialSetting,
    callbacks: Sequence[Callback],
) -> Outcome:
    """Run every group once, as a trial, as soon as the groups upstream of it are finished.

    All trials are one run of Tune: a worker takes seconds to start and is used for trial after
    trial.

    groups: earlier ones start first.
    scheduler: compares the groups with one another; None: they are not compared.

    Raises StageError where Ray itself cannot go on, or a stage does not log the scalar that the
    scheduler compares.
    """
    stages = {key(stage): stage for group in groups for stage in group}
    listener = TuneCallback(stages, callbacks, setting.log_path, scheduler)
    tuner = _tuner(groups, scheduler, setting, listener)
    shutil.rmtree(setting.storage, ignore_errors=True)
    try:
        tuner.fit()
    except (ray.exceptions.RayError, tune.TuneError) as error:
        if listener.problem is not None:
            raise listener.problem from None
        raise StageError(f"Ray stopped: {_first_line(error)}; the same command goes on") from None
    finally:
        shutil.rmtree(setting.storage, ignore_errors=True)
    return listener.outcome


def _tuner(
    groups: Sequence[Group],
    scheduler: Scheduler | None,
    setting: TrialSetting,
    listener: TuneCallback,
) -> tune.Tuner:
    trainable = tune.with_resources(
        tune.with_parameters(compute_group, stages=listener.stages, root=setting.root),
        _placement,  # nothing with all stages in it: Tune unpickles this for every trial
    )
    epochs = _epochs(listener.stages.values())
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=DependencySearcher(groups, setting.resources),
            num_samples=len(groups),
            reuse_actors=True,
            max_concurrent_trials=setting.jobs,
            scheduler=scheduler.build(schedulers, epochs) if scheduler else None,
            trial_dirname_creator=lambda trial: trial.config["keys"][0],
        ),
        run_config=tune.RunConfig(
            name=setting.storage.name,
            storage_path=str(setting.storage.parent.absolute()),
            failure_config=tune.FailureConfig(max_failures=setting.retries),
            callbacks=[listener],
            verbose=0,
        ),
    )


def _epochs(stages: Iterable[Stage]) -> int:
    """The epochs of the longest training."""
    epochs = [stage.epochs for stage in stages if isinstance(stage, Training)]
    return max(epochs, default=1)


def _placement(config: Mapping[str, Any]) -> Any:
    bundle = {"CPU": config["cpu"]}
    if config["gpu"]:
        bundle["GPU"] = config["gpu"]
    return tune.PlacementGroupFactory([bundle])


class DependencySearcher(Searcher):
    """Tells Tune which group is the next trial, and its resources."""

    def __init__(self, groups: Sequence[Group], resources: TrialResources):
        super().__init__()
        self.queue, self.resources = ReadyQueue(groups), resources
        self.running: dict[str, str] = {}  # the names of groups by trial

    def suggest(self, trial_id: str) -> Any:
        group = self.queue.pop()
        if group is None:
            # Where nothing is running, the groups left are downstream of a failed or stopped one.
            return None if self.running else Searcher.FINISHED
        self.running[trial_id] = name_of(group)
        resources = self.resources.of(group[0])
        return {"keys": list(map(key, group)), "cpu": resources.cpu, "gpu": resources.gpu}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        name = self.running.pop(trial_id)
        if not error and result is not None and result.get("finished"):
            self.queue.finish(name)

    def save(self, checkpoint_path: str) -> None:
        """Tune wants a file. Nobody restores from it: the store knows what is finished."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError


class TuneCallback(tune.Callback):
    """Passes on to the sweep's callbacks what Tune is told about its trials; keeps the outcome.

    stages: by key.
    log_path: for each stage, the file with the tracebacks of its failed tries.
    """

    def __init__(
        self,
        stages: Mapping[str, Stage],
        callbacks: Sequence[Callback],
        log_path: Callable[[Stage], Path],
        scheduler: Scheduler | None,
    ):
        self.stages, self.callbacks = stages, callbacks
        self.log_path, self.scheduler = log_path, scheduler
        self.outcome = Outcome()
        self.problem: StageError | None = None  # ends the run; Tune wraps what is raised here
        self.last: dict[str, LogEntry] = {}
        self.tries: dict[str, int] = {}

    def __reduce__(self) -> Any:
        """Tune pickles its callbacks with the experiment. Nobody restores it from there."""
        return (tune.Callback, ())

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        for stage in self._group(trial):
            for callback in self.callbacks:
                callback.on_start(stage)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._check_metric(trial, result)
        for name, *fields in result["entries"]:
            entry = self.last[name] = LogEntry(*fields)
            for callback in self.callbacks:
                callback.on_log(self.stages[name], entry)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        for stage in self._group(trial):
            if trial.last_result.get("finished"):
                self.outcome.finished.add(key(stage))
                for callback in self.callbacks:
                    callback.on_finish(stage)
            else:
                self.outcome.stopped[key(stage)] = self.last.get(key(stage), LogEntry(0, 1, {}))
            self._end(stage)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A try failed, and there will be another one."""
        self._log_failure(trial)
        for stage in self._group(trial):
            self._end(stage)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """The last try failed."""
        failure = self._log_failure(trial)
        for stage in self._group(trial):
            self.outcome.failed[key(stage)] = failure
            self._end(stage)
            for callback in self.callbacks:
                callback.on_failure(stage, f"{failure.reason} (log: {failure.log})")

    def _group(self, trial: Any) -> list[Stage]:
        return [self.stages[name] for name in trial.config["keys"]]

    def _end(self, stage: Stage) -> None:
        for callback in self.callbacks:
            callback.on_end(stage)

    def _check_metric(self, trial: Any, result: dict[str, Any]) -> None:
        """Refuse a scheduler that waits for a scalar that is never logged."""
        if self.scheduler is None or not result["entries"] or self.scheduler.metric in result:
            return
        *_, scalars = result["entries"][-1]
        kind = type(self._group(trial)[0]).__name__
        self.problem = StageError(
            f"Sweep.scheduler: {kind} logs no {self.scheduler.metric!r}; "
            f"it logs {', '.join(sorted(scalars))}"
        )
        raise self.problem

    def _log_failure(self, trial: Any) -> Failure:
        """Write the traceback of a failed try to the log of the first stage of its group."""
        stage = self._group(trial)[0]
        traceback_text, reason = _failure_of(trial)
        self.tries[key(stage)] = tries = self.tries.get(key(stage), 0) + 1
        log = self.log_path(stage)
        log.parent.mkdir(exist_ok=True)
        with log.open("a" if tries > 1 else "w", encoding="utf-8") as file:
            file.write(f"== try {tries}\n{traceback_text}\n")
        return Failure(reason, log, tries)


def _failure_of(trial: Any) -> tuple[str, str]:
    """The full traceback of a failed try, and one line of it."""
    error = None
    if trial.pickled_error_file:
        error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
    cause = getattr(error, "cause", None) or error
    text = str(cause).strip()
    return text, text.splitlines()[0] if text else type(cause).__name__


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ""


# In a worker


def compute_group(
    config: dict[str, Any], stages: Mapping[str, Stage], root: Path | Sequence[Path]
) -> None:
    """A trial: one group, with as many torch threads as it has CPUs."""
    torch.set_num_threads(max(1, int(config["cpu"])))
    reporter = TuneReporter(config["keys"])
    try:
        Store(root, (reporter,)).get_together([stages[name] for name in config["keys"]])
    except Exception as error:  # of any kind: it is shown where the sweep was started
        reason = _first_line(error)
        if not isinstance(error, StageError):
            reason = f"{type(error).__name__}: {reason}"
        raise StageError(f"{reason}\n{traceback.format_exc()}") from None
    reporter.report(finished=True)


class TuneReporter(Callback):
    """Reports to Tune what a trial's own stages log.

    Tune stops a trial by raising SystemExit out of a report. The last entry of a stage is reported
    at the end of the trial, so that no stage is stopped that has only its artifact left to write.
    """

    def __init__(self, keys: Sequence[str]):
        self.keys = set(keys)
        self.waiting: list[tuple[Any, ...]] = []

    def on_log(self, stage: Stage, entry: LogEntry) -> None:
        if key(stage) not in self.keys:  # an upstream one that had to be computed again
            return
        self.waiting.append((key(stage), *entry))
        if entry.step < entry.of:
            self.report(finished=False)

    def report(self, finished: bool) -> None:
        scalars = self.waiting[-1][-1] if self.waiting else {}
        step = self.waiting[-1][1] if self.waiting else 0
        entries, self.waiting = self.waiting, []
        tune.report({**scalars, "step": step, "entries": entries, "finished": finished})
