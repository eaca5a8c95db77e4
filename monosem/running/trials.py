"""Trials without Ray: what a trial is, their order, their resources, their outcome."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from monosem.core.stage import Stage, key
from monosem.core.store import LogEntry
from monosem.running.progress import USUAL, Voice
from monosem.specs.errors import ClusterError
from monosem.specs.sweep import Resources, Sweep

Group = tuple[Stage, ...]  # one trial: stages that are run together, mostly a single one
Node = Mapping[str, float]  # what a node has: {"CPU": 8.0, "GPU": 1.0}


def name_of(group: Group) -> str:
    """The name of a group is the key of its first stage."""
    return key(group[0])


# Order


class ReadyQueue:
    """Hands out groups of stages, each when the groups upstream of it are finished.

    groups: earlier ones are handed out first.
    """

    def __init__(self, groups: Sequence[Group]):
        owners = {key(stage): name_of(group) for group in groups for stage in group}
        self.groups = {name_of(group): group for group in groups}
        self.ranks = {name: rank for rank, name in enumerate(self.groups)}
        self.upstream = {name: _upstream(group, owners) for name, group in self.groups.items()}
        self.downstream: dict[str, list[str]] = {name: [] for name in self.groups}
        self.ready: list[tuple[int, str]] = []  # a heap by rank
        for name, needed in self.upstream.items():
            for needed_name in needed:
                self.downstream[needed_name].append(name)
            if not needed:
                self._add(name)

    def pop(self) -> Group | None:
        """The next group; None: nothing can start before something else is finished."""
        if not self.ready:
            return None
        _, name = heapq.heappop(self.ready)
        return self.groups[name]

    def finish(self, name: str) -> None:
        """Note that a group is finished, which may make others ready."""
        for waiting in self.downstream[name]:
            self.upstream[waiting].remove(name)
            if not self.upstream[waiting]:
                self._add(waiting)

    def _add(self, name: str) -> None:
        heapq.heappush(self.ready, (self.ranks[name], name))


def _upstream(group: Group, owners: dict[str, str]) -> set[str]:
    """The names of the groups that must be finished before this one.

    owners: the name of the group that a stage is in, by the key of the stage.
    """
    names = set()
    for stage in group:
        for needed in stage.upstream():
            if key(needed) in owners:
                names.add(owners[key(needed)])
    return names


# Resources


class RunOptions(NamedTuple):
    """How a sweep is run. No key depends on it.

    address: of a Ray cluster; None: one of this machine's own.
    cpus: of a trial, which are also its torch threads; None: 1.
    gpus: of a trial; None: 1 where there are any.
    jobs: trials at a time; None: as many as fit.
    voice: how much is said meanwhile.
    """

    address: str | None = None
    cpus: float | None = None
    gpus: float | None = None
    jobs: int | None = None
    voice: Voice = USUAL


class TrialResources:
    """What a trial of each kind of stage gets.

    sweep: names the kinds that get resources of their own.
    options: what the others get.
    nodes: of the cluster.
    """

    def __init__(self, sweep: Sweep, options: RunOptions, nodes: Sequence[Node]):
        gpus_by_default = float(any(node.get("GPU") for node in nodes))
        self.nodes = nodes
        self.by_kind = dict(sweep.resources)
        self.default = Resources(
            cpu=1.0 if options.cpus is None else options.cpus,
            gpu=gpus_by_default if options.gpus is None else options.gpus,
        )

    def of(self, stage: Stage) -> Resources:
        return self.by_kind.get(type(stage).__name__, self.default)

    def check(self, stages: Sequence[Stage]) -> None:
        """ClusterError where no single node could ever run a trial of some stage."""
        kinds = {type(stage).__name__: stage for stage in stages}
        for kind, stage in kinds.items():
            resources = self.of(stage)
            if not any(_fits(resources, node) for node in self.nodes):
                available = "; ".join(map(_describe, self.nodes))
                raise ClusterError(
                    f"a trial of {kind} asks for {resources.cpu:g} CPUs and "
                    f"{resources.gpu:g} GPUs; available, node by node: {available}"
                )


def this_machine() -> list[Node]:
    """The most that a cluster of this machine alone can have."""
    return [{"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}]


def _fits(resources: Resources, node: Node) -> bool:
    return node.get("CPU", 0) >= resources.cpu and node.get("GPU", 0) >= resources.gpu


def _describe(node: Node) -> str:
    return f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs"


# Results


class Failure(NamedTuple):
    """Why a stage failed.

    reason: one line.
    log: the file with the full traceback of each try.
    tries: how many there were. It may be fewer than are allowed: Tune gives up at once on a trial
        whose worker dies between two trials.
    """

    reason: str
    log: Path
    tries: int


class TrialSetting(NamedTuple):
    """What all trials of a sweep have in common.

    root: of the store, or several, as `Store` takes them.
    storage: a folder for Tune that all nodes share, emptied before and after.
    log_path: for each stage, the file with the tracebacks of its failed tries.
    resources: what a trial gets.
    jobs: trials at a time; None: as many as fit.
    retries: of a group that fails. A node that dies counts as a failure.
    """

    root: Path | Sequence[Path]
    storage: Path
    log_path: Callable[[Stage], Path]
    resources: TrialResources
    jobs: int | None
    retries: int


@dataclass
class Outcome:
    """Which stages finished, failed or were stopped, by key. It is filled trial by trial.

    Stages downstream of a failed or stopped one were not tried and are in none of the three.

    finished: whose artifacts are in the store.
    failed: after all tries, and why.
    stopped: by the scheduler, with the last entry of the stage's log.
    """

    finished: set[str] = field(default_factory=set)
    failed: dict[str, Failure] = field(default_factory=dict)
    stopped: dict[str, LogEntry] = field(default_factory=dict)

    @property
    def nothing_happened(self) -> bool:
        return not (self.finished or self.failed or self.stopped)
