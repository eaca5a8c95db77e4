"""Stages that take milliseconds and misbehave on purpose. Ray's workers get this module too."""

from __future__ import annotations

import os
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import torch

from monosem.core.fields import Count, NotInKey
from monosem.core.stage import Artifact, Job, Stage
from monosem.datasets.digits import Digits
from monosem.learning.optimizers import SGD, WarmupCosine
from monosem.models.training import Training

Place = Annotated[str, NotInKey("where a test looks for what a stage did")]


def note(diary: str, line: str) -> None:
    """Append a line to a file that several processes may write to at once."""
    with open(diary, "a", encoding="utf-8") as file:
        file.write(f"{line}\n")


@dataclass(frozen=True, kw_only=True)
class Leaf(Stage):
    """Notes that it ran, and with how many torch threads."""

    value: int
    diary: Place

    def run(self, job: Job) -> Artifact:
        note(self.diary, f"leaf {self.value} with {torch.get_num_threads()} threads")
        job.log(1, 1, value=self.value)
        return {"value": torch.tensor(self.value)}


@dataclass(frozen=True, kw_only=True)
class Double(Stage):
    """Needs a leaf."""

    leaf: Stage
    diary: Place

    def run(self, job: Job) -> Artifact:
        note(self.diary, f"double of {self.leaf.value}")
        return {"value": 2 * job.get(self.leaf)["value"]}


@dataclass(frozen=True, kw_only=True)
class Broken(Stage):
    """Raises what a person's own part might raise."""

    value: int = 0

    def run(self, job: Job) -> Artifact:
        raise ValueError("no luck today")


@dataclass(frozen=True, kw_only=True)
class Together(Stage):
    """Shares its work with all others of its `club`, which may fail the first time."""

    value: int
    club: str
    diary: Place
    fails_at_first: bool = False

    def shared_work(self) -> Hashable | None:
        return self.club

    def run(self, job: Job) -> Artifact:
        return self.run_together([self], [job])[0]

    @classmethod
    def run_together(cls, stages: Sequence[Self], jobs: Sequence[Job]) -> list[Artifact]:
        values = sorted(stage.value for stage in stages)
        note(stages[0].diary, f"{stages[0].club} {values}")
        for stage, job in zip(stages, jobs, strict=True):
            job.log(1, 2, value=stage.value)
            job.log(2, 2, value=stage.value)
        diary = Path(stages[0].diary).read_text(encoding="utf-8")
        if stages[0].fails_at_first and diary.count(f"{stages[0].club} ") == 1:
            raise ValueError("the whole club fails")
        return [{"value": torch.tensor(stage.value)} for stage in stages]


@dataclass(frozen=True, kw_only=True)
class Walk(Stage):
    """A random walk that goes on where it was.

    After its second step it waits for the file `go`. It tells its process, which a test may kill.
    """

    seed: int
    steps: Count = 3
    go: Place

    def run(self, job: Job) -> Artifact:
        state = job.restore() or {"step": 0, "position": torch.zeros(())}
        for step in range(state["step"] + 1, self.steps + 1):
            draw = torch.Generator().manual_seed(1000 * self.seed + step)
            position = state["position"] + torch.randn((), generator=draw)
            state = {"step": step, "position": position}
            job.log(step, self.steps, process=os.getpid())
            job.save(state)
            while step == 2 and not Path(self.go).exists():
                time.sleep(0.01)
        return {"position": state["position"]}


@dataclass(frozen=True, kw_only=True)
class Graded(Training):
    """A training that takes no time and reports a quality that was agreed on."""

    quality: float

    def run(self, job: Job) -> Artifact:
        for epoch in range(1, self.epochs + 1):
            job.log(epoch, self.epochs, quality=self.quality * epoch)
        return {"quality": torch.tensor(self.quality)}


def graded(quality: float, epochs: int) -> Graded:
    return Graded(
        quality=quality,
        epochs=epochs,
        data=Digits(),
        optimizer=SGD(lr=1.0),
        schedule=WarmupCosine(),
        batch_size=1,
    )
