"""What a trial gets of a machine or a cluster, and whether any node has it. Knows no Ray."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from monosem.core.stage import Stage
from monosem.specs.errors import ClusterError
from monosem.specs.sweep import Resources, Sweep

Node = Mapping[str, float]  # what a node has: {"CPU": 8.0, "GPU": 1.0}


class RunOptions(NamedTuple):
    """How a sweep is run. No key depends on it.

    address: of a Ray cluster; None: one of this machine's own.
    cpus: of a trial, which are also its torch threads; None: 1.
    gpus: of a trial; None: 1 where there are any.
    jobs: trials at a time; None: as many as fit.
    """

    address: str | None = None
    cpus: float | None = None
    gpus: float | None = None
    jobs: int | None = None


class TrialResources:
    """What a trial of each kind of stage gets.

    sweep: names kinds that get something of their own.
    options: say what the others get.
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
    """What a cluster of this machine alone would have at the most."""
    return [{"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}]


def _fits(resources: Resources, node: Node) -> bool:
    return node.get("CPU", 0) >= resources.cpu and node.get("GPU", 0) >= resources.gpu


def _describe(node: Node) -> str:
    return f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs"
