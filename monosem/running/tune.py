"""Ray Tune runs stages as trials, upstream first, on one machine or a cluster. The only place that knows Ray.

What goes to a worker: stages, which are plain data, the absolute path of the store, and the code of monosem. What comes
back: the scalars that a stage logs. Artifacts stay in the store.
"""

from __future__ import annotations

import contextlib
import heapq
import importlib
import logging
import os
import pickle
import queue
import shutil
import signal
import socket
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray
import torch
from ray import tune
from ray.tune import schedulers
from ray.tune.search import Searcher
from torch import Tensor

from monosem.core.stage import Stage, StageError, key
from monosem.core.store import Callback, LogEntry, Store
from monosem.models.training import Training
from monosem.specs.errors import ClusterError
from monosem.specs.sweep import Resources, Scheduler

SETTINGS = {  # each of these is read by Ray from the environment
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no files of its own for TensorBoard, as CSV and as JSON
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # stages log different scalars
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl+C ends at once: stages go on from their last epoch anyway
    "TUNE_MAX_PENDING_TRIALS_PG": "16",  # Tune's own default is 1 where trials are handed out one by one
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@contextlib.contextmanager
def cluster(address: str | None, modules: Sequence[str]) -> Iterator[None]:
    """Connected to the cluster at `address` ('auto' finds one on this machine), or to one of this machine's own that lasts as
    long as the block. modules: imported by the user's Gin files; their code travels to the workers, as monosem's does."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if address not in (None, "auto", "local"):
        _reach(str(address))
    here = {"address": "local", "include_dashboard": False, "object_store_memory": 2**28}
    where: dict[str, Any] = {"address": address} if address not in (None, "local") else here
    code = [
        path
        for name in dict.fromkeys(name.partition(".")[0] for name in ("monosem", *modules))
        if (path := _code(name))
    ]
    how = {name: os.environ[name] for name in ("MONOSEM_COMPILE",) if name in os.environ}
    logging.getLogger("ray.tune").setLevel(
        logging.CRITICAL
    )  # it prints the traceback of every failed try; ours are kept in logs
    for attempt in (1, 2):
        try:
            ray.init(
                **where,
                runtime_env={"py_modules": code, "env_vars": how},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            break
        except Exception as error:  # Ray raises bare ones where it cannot start or connect
            ray.shutdown()
            if "local" in where.values() and attempt == 1:
                continue  # on a busy machine its own processes may be too slow for it to start
            raise ClusterError(
                f"no Ray cluster at {address or 'this machine'}: {str(error).strip().splitlines()[0]}"
            ) from None
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(
            signal.SIGTERM, signal.default_int_handler
        )  # Ray's own prints a screen of C++
    try:
        yield
    finally:
        ray.shutdown()


def _code(name: str) -> str | None:
    """Where the code of a module is, a folder or a file of its own; None if it was installed, as every node has that."""
    module = importlib.import_module(name)
    path = next(iter(getattr(module, "__path__", ())), getattr(module, "__file__", None))
    installed = (
        path is None
        or "site-packages" in Path(path).parts
        or Path(path).is_relative_to(sysconfig.get_paths()["stdlib"])
    )
    return None if installed else str(path)


def _reach(address: str) -> None:
    """ClusterError within seconds where nothing listens; Ray itself would try for a minute."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "://" in address:
        raise ClusterError(f"--address (or RAY_ADDRESS) must be auto or HOST:PORT, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise ClusterError(f"no Ray cluster at {address}: {error.strerror or error}") from None


def this_machine() -> list[dict[str, float]]:
    """What a cluster of this machine alone would have at the most, as nodes() says it."""
    return [{"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}]


def nodes() -> list[dict[str, float]]:
    """What each node of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def check(asked: Mapping[str, Resources], nodes: Sequence[Mapping[str, float]]) -> None:
    """ClusterError where no single one of the nodes could ever run a trial of some kind of stage."""
    for kind, amounts in asked.items():
        if not any(
            node.get("CPU", 0) >= amounts.cpu and node.get("GPU", 0) >= amounts.gpu
            for node in nodes
        ):
            have = "; ".join(
                f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes
            )
            raise ClusterError(
                f"a trial of {kind} asks for {amounts.cpu:g} CPUs and {amounts.gpu:g} GPUs; available, node by node: {have}"
            )


class Failure(NamedTuple):
    """Why a stage has not been had in so many tries: one line, and the file with the whole story of each.

    There may be fewer tries than were allowed: Tune gives up at once on a trial whose worker dies between two trials."""

    reason: str
    log: Path
    tries: int


class Outcome(NamedTuple):
    """By key: stages that finished, that failed, and that the scheduler stopped, with the last they reported. What needs one of
    the latter two was not tried."""

    finished: set[str]
    failed: dict[str, Failure]
    stopped: dict[str, LogEntry]


def run(
    missing: Sequence[Stage],
    root: Path,
    storage: Path,
    amounts: Callable[[Stage], Resources],
    jobs: int | None,
    retries: int,
    scheduler: Scheduler | None,
    callback: Callback,
) -> Outcome:
    """Every stage once, as a trial, as soon as those among them that it needs are finished; the first in order first.

    One run of Tune for all of them: a worker takes seconds to start and then goes on from one stage to the next.
    root: of the store; storage: a folder for Tune, emptied before and after; both are shared by all nodes. Beside it the folder
    logs takes what failed tries had to say. jobs: trials at a
    time. retries: of a stage that fails; a node that dies counts as a failure. scheduler: compares the stages with one another.
    """
    stages = {key(stage): stage for stage in missing}
    ears = TuneCallback(stages, callback, storage.with_name("logs"), scheduler)
    trainable = tune.with_resources(
        tune.with_parameters(StageTrainable, stages=stages, root=root),
        _resources,  # nothing with all stages in it: Tune unpickles this for every trial
    )
    epochs = max((stage.epochs for stage in missing if isinstance(stage, Training)), default=1)
    shutil.rmtree(storage, ignore_errors=True)
    try:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=DependencySearcher(missing, amounts),
                num_samples=len(missing),
                reuse_actors=True,
                max_concurrent_trials=jobs,
                scheduler=scheduler.build(schedulers, epochs) if scheduler else None,
                trial_dirname_creator=lambda trial: trial.config["key"],
            ),
            run_config=tune.RunConfig(
                name=storage.name,
                storage_path=str(storage.parent.absolute()),
                failure_config=tune.FailureConfig(max_failures=retries),
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_at_end=False
                ),  # stages keep their own
                callbacks=[ears],
                verbose=0,
            ),
        ).fit()
    except (ray.exceptions.RayError, tune.TuneError) as error:
        if ears.problem is not None:
            raise ears.problem from None
        raise StageError(
            f"Ray stopped: {str(error).strip().splitlines()[0]}; the same command goes on"
        ) from None
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    return Outcome(ears.finished, ears.failed, ears.stopped)


def _resources(config: Mapping[str, Any]) -> Any:
    return tune.PlacementGroupFactory(
        [{"CPU": config["cpu"], **({"GPU": config["gpu"]} if config["gpu"] else {})}]
    )


class DependencySearcher(Searcher):
    """Hands out a stage when everything that it needs among the missing ones is finished."""

    def __init__(self, missing: Sequence[Stage], amounts: Callable[[Stage], Resources]):
        super().__init__()
        self.configs = {
            key(stage): {"key": key(stage), **vars(amounts(stage))} for stage in missing
        }
        names = [key(stage) for stage in missing]
        self.needs = {
            key(stage): {key(above) for above in stage.upstream()} & set(names) for stage in missing
        }
        self.needed_by: dict[str, list[str]] = {name: [] for name in names}
        for name in names:
            for above in self.needs[name]:
                self.needed_by[above].append(name)
        self.rank = {name: number for number, name in enumerate(names)}
        self.ready = [(self.rank[name], name) for name in names if not self.needs[name]]
        heapq.heapify(self.ready)
        self.running: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        if self.ready:
            self.running[trial_id] = heapq.heappop(self.ready)[1]
            return self.configs[self.running[trial_id]]
        return (
            None if self.running else Searcher.FINISHED
        )  # nothing is running: what is left needs something that was lost

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        name = self.running.pop(trial_id)
        if error or not (result or {}).get("finished"):
            return
        for below in self.needed_by[name]:
            self.needs[below].remove(name)
            if not self.needs[below]:
                heapq.heappush(self.ready, (self.rank[below], below))

    def save(self, checkpoint_path: str) -> None:
        """Tune wants a file. Nobody restores from it: the store knows what is finished."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError


class TuneCallback(tune.Callback):
    """In the driver: tells a Watcher what Tune hears of its trials."""

    def __init__(
        self,
        stages: Mapping[str, Stage],
        callback: Callback,
        logs: Path,
        scheduler: Scheduler | None,
    ):
        self.stages, self.callback, self.logs, self.scheduler = stages, callback, logs, scheduler
        self.problem: StageError | None = (
            None  # that ends it all; Tune wraps what a callback raises
        )
        self.finished: set[str] = set()
        self.failed: dict[str, Failure] = {}
        self.stopped: dict[str, LogEntry] = {}
        self.last: dict[str, LogEntry] = {}
        self.tries: dict[str, int] = {}

    def __reduce__(
        self,
    ) -> Any:  # Tune pickles its callbacks with the experiment; nobody restores it from there
        return (tune.Callback, ())

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.callback.on_start(self.stages[trial.config["key"]])

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if self.scheduler and result["entries"] and self.scheduler.metric not in result:
            logged = ", ".join(sorted(result["entries"][-1][2]))
            kind = type(self.stages[trial.config["key"]]).__name__
            self.problem = StageError(
                f"Sweep.scheduler: {kind} logs no {self.scheduler.metric!r}; it logs {logged}"
            )
            raise self.problem
        for line in result["entries"]:
            entry = self.last[trial.config["key"]] = LogEntry(*line)
            self.callback.on_log(self.stages[trial.config["key"]], entry)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        name = trial.config["key"]
        if trial.last_result.get("finished"):
            self.finished.add(name)
            self.callback.on_finish(self.stages[name])
        else:
            self.stopped[name] = self.last[name]
        self.callback.on_end(self.stages[name])

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._note(trial)
        self.callback.on_end(self.stages[trial.config["key"]])

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        name = trial.config["key"]
        reason, log = self._note(trial)
        self.failed[name] = Failure(reason, log, self.tries[name])
        self.callback.on_end(self.stages[name])
        self.callback.on_failure(self.stages[name], f"{reason} (log: {log})")

    def _note(self, trial: Any) -> tuple[str, Path]:
        """Keep what went wrong in this try: one line of it, and the file with the whole story."""
        error = (
            pickle.loads(Path(trial.pickled_error_file).read_bytes())
            if trial.pickled_error_file
            else None
        )
        cause = getattr(error, "cause", None) or error
        story = str(cause).strip()
        name = trial.config["key"]
        self.tries[name] = self.tries.get(name, 0) + 1
        log = self.logs / f"{type(self.stages[name]).__name__}-{name}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("a" if self.tries[name] > 1 else "w", encoding="utf-8") as file:
            file.write(f"== try {self.tries[name]}\n{story}\n")
        return story.splitlines()[0] if story else type(cause).__name__, log


# ------------------------------------------------------------------------------------------------ in a worker


class _Stopped(BaseException):
    """Raised inside a stage that nobody wants any more."""


class StageTrainable(tune.Trainable):
    """In a worker process: one stage after another. The stage runs in a thread, so that each of its reports can be a step of
    Tune's and so that a scheduler can end it."""

    def setup(  # type: ignore[override]  # tune.with_parameters hands over more
        self, config: dict[str, Any], stages: Mapping[str, Stage], root: Path
    ) -> None:
        self.stages, self.root = stages, root
        self.work: StageThread | None = None
        self.reset_config(config)

    def reset_config(self, config: dict[str, Any]) -> bool:
        self.cleanup()
        self.work = StageThread(self.stages[config["key"]], self.root, max(1, int(config["cpu"])))
        self.work.start()
        return True

    def cleanup(self) -> None:
        if self.work is not None:
            self.work.unwanted.set()
            self.work.join()  # its claim on the store is gone then, its checkpoint is there

    def step(self) -> dict[str, Any]:
        assert self.work is not None
        news = self.work.news()
        if self.work.failure:
            raise StageError(self.work.failure)
        entries = [each for each in news if each is not None]
        last = entries[-1] if entries else LogEntry(0, 1, {})
        finished = news[-1] is None
        return {
            **last.scalars,
            "step": last.step,
            "entries": [tuple(each) for each in entries],
            "finished": finished,
            "done": finished,
        }


class StageThread(threading.Thread, Callback):
    """A stage being computed, with as many torch threads as its trial has CPUs."""

    def __init__(self, stage: Stage, root: Path, threads: int):
        super().__init__(daemon=True)
        self.stage, self.root, self.threads = stage, root, threads
        self.unwanted = threading.Event()
        self.failure = ""
        self.told: queue.SimpleQueue[LogEntry | None] = queue.SimpleQueue()

    def run(self) -> None:
        torch.set_num_threads(self.threads)
        try:
            Store(self.root, (self,)).get(self.stage)
        except _Stopped:
            pass
        except (
            BaseException
        ) as error:  # of whatever kind: it is told, with its traceback, where the sweep was started
            self.failure = f"{_one_line(error)}\n{traceback.format_exc()}"
        self.told.put(None)

    def news(self) -> list[LogEntry | None]:
        """Waits for something to tell; None is the end."""
        found = [self.told.get()]
        while not self.told.empty():
            found.append(self.told.get())
        return found

    def on_log(self, stage: Stage, entry: LogEntry) -> None:
        if stage == self.stage:  # not one above it that had to be made again
            self.told.put(entry)

    def on_step(self, stage: Stage, step: int, of: int, images: int, loss: Tensor) -> None:
        if self.unwanted.is_set():
            raise _Stopped


def _one_line(error: BaseException) -> str:
    words = str(error).strip().splitlines() or [""]
    return words[0] if isinstance(error, StageError) else f"{type(error).__name__}: {words[0]}"
