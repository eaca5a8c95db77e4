"""Stages: parts that leave an artifact, what their keys are, and in which order they are computed.

A stage is a frozen dataclass with a `run`. Its fields are its whole spec, and a field may be
another stage. Its key is the hash of that tree, so equal specs share one artifact. No particular
stage, no file and no Gin is known here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self

from torch import Tensor

from monosem.core.fields import Part, annotations_of, is_in_key
from monosem.core.identity import digest

Artifact = dict[str, Tensor]


class StageError(RuntimeError):
    """A stage that cannot go on, for example because its loss is NaN.

    The message is for whoever ran it.
    """


class Job(Protocol):
    """What a running stage may ask of the world."""

    def get(self, stage: Stage) -> Artifact:
        """The artifact of an upstream stage."""

    def log(self, step: int, of: int, **scalars: float) -> None:
        """Keep scalars at `step` of `of` with the artifact."""

    def on_step(self, step: int, of: int, inputs: int, loss: Tensor) -> None:
        """Report progress between logs. It is shown and not stored.

        inputs: how many this process has trained on so far.
        """

    def save(self, state: dict[str, Any]) -> None:
        """Keep a state of tensors and numbers from which `run` can go on."""

    def restore(self) -> dict[str, Any] | None:
        """The last state that was saved, or None."""


@dataclass(frozen=True)
class Stage(Part):
    """A part that leaves an artifact: named tensors, a function of its fields alone."""

    def upstream(self) -> tuple[Stage, ...]:
        """The stages that `run` may ask for: those among the fields, however deep inside parts."""
        values = (getattr(self, field.name) for field in fields(self))
        return tuple(stage for value in values for stage in _stages_in(value))

    def preflight(self) -> None:
        """Check what cannot be checked without the data. Called for all stages before any runs."""

    def stand_in(self) -> Artifact | None:
        """What it might leave, for a trial before any work: names and shapes count, values do not.

        None where it cannot be known before it runs.
        """
        return None

    def run(self, job: Job) -> Artifact:
        raise NotImplementedError

    def shared_work(self) -> Hashable | None:
        """A value; stages of one class with equal values are run together. None: alone.

        One call of `run_together` computes all of them that are missing. The value is not in the
        key: each stage has its own key and its own artifact, and the artifact must be the same
        whether the stage is computed alone or together with others.
        """
        return None

    @classmethod
    def run_together(
        cls, stages: Sequence[Self], jobs: Sequence[Job]
    ) -> list[Artifact | StageError]:
        """The artifacts of stages that share work, in their order; every stage has its own job.

        A stage that fails gives its error in place of an artifact. The others go on without it.
        """
        return [stage.run(job) for stage, job in zip(stages, jobs, strict=True)]


def run_alone(stage: Stage, job: Job) -> Artifact:
    """The artifact of a stage that is written as `run_together`, by that."""
    (artifact,) = type(stage).run_together([stage], [job])
    if isinstance(artifact, StageError):
        raise artifact
    return artifact


def title(stage: Stage) -> str:
    """A stage for people: its class, the classes of its parts and its strings.

    Features(Embedding, Digits, test), for example. Numbers are left out.
    """
    annotations = annotations_of(type(stage))
    described = []
    for field in fields(stage):
        value = getattr(stage, field.name)
        if not is_in_key(annotations[field.name]):
            continue
        if isinstance(value, Part):
            described.append(type(value).__name__)
        elif isinstance(value, str):
            described.append(value)
    return f"{type(stage).__name__}({', '.join(described)})"


def _stages_in(value: object) -> Iterator[Stage]:
    """The stages in `value`; it does not look inside a stage."""
    if isinstance(value, Stage):
        yield value
    elif isinstance(value, Part):
        for field in fields(value):
            yield from _stages_in(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _stages_in(item)


@functools.cache
def key(stage: Stage) -> str:
    """The identity of a stage's artifact, 20 hex digits.

    The keys of upstream stages are hashed too: not every upstream stage is a field. Some are
    derived from fields, as FittedProbes of a Curve.
    """
    return digest(stage, [key(needed) for needed in stage.upstream()])[:20]


def closure(stages: Sequence[Stage]) -> list[Stage]:
    """The stages and all that is upstream of them, each once, upstream first."""
    ordered: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if key(stage) in ordered:
            return
        for needed in stage.upstream():
            visit(needed)
        ordered[key(stage)] = stage

    for stage in stages:
        visit(stage)
    return list(ordered.values())


def plan(stages: Sequence[Stage], is_done: Callable[[Stage], bool]) -> list[list[Stage]]:
    """Waves of missing stages, each stage once.

    Upstream of a finished stage is not visited. A wave needs only the waves before it.
    """
    depths: dict[str, int] = {}  # 0 is done, 1 the first wave
    waves: list[list[Stage]] = []

    def visit(stage: Stage) -> int:
        name = key(stage)
        if name in depths:
            return depths[name]
        if is_done(stage):
            depths[name] = 0
            return 0
        depth = 1 + max((visit(needed) for needed in stage.upstream()), default=0)
        while len(waves) < depth:
            waves.append([])
        waves[depth - 1].append(stage)
        depths[name] = depth
        return depth

    for stage in stages:
        visit(stage)
    return waves


def missing_stages(stages: Sequence[Stage], is_done: Callable[[Stage], bool]) -> list[Stage]:
    """Those of `plan`, wave by wave."""
    return [stage for wave in plan(stages, is_done) for stage in wave]


def group_shared(stages: Sequence[Stage]) -> list[tuple[Stage, ...]]:
    """Groups of stages with equal `shared_work`, in order of appearance; most are single stages."""
    groups: dict[Hashable, list[Stage]] = {}
    for stage in stages:
        shared = stage.shared_work()
        group = key(stage) if shared is None else (type(stage), shared)
        groups.setdefault(group, []).append(stage)
    return [tuple(group) for group in groups.values()]
