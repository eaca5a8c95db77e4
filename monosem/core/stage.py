"""The spine: what a spec may hold, what its key is, and in which order stages are computed.

A *part* is a frozen dataclass whose annotations say what may be written into it. A *stage* is a part with a `run` that
leaves an artifact. The key of a stage is the hash of everything that its artifact depends on. No particular part, no file
and no Gin is known here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from torch import Tensor

from monosem.core.fields import Part, annotations_of, is_not_in_key
from monosem.core.identity import digest

Artifact = dict[str, Tensor]


class StageError(RuntimeError):
    """A stage that cannot go on: a loss that is no number, say. The message is for the person who ran it."""


class Job(Protocol):
    """What a running stage may ask of the world."""

    def get(self, stage: Stage) -> Artifact:
        """The artifact of an upstream stage."""

    def log(self, step: int, of: int, **scalars: float) -> None:
        """Scalars at `step` of `of`, kept with the artifact."""

    def on_step(self, step: int, of: int, images: int, loss: Tensor) -> None:
        """A sign of life between logs: `images` seen so far in this process; nothing of it is kept."""

    def save(self, state: dict[str, Any]) -> None:
        """Keep a state of tensors and numbers from which `run` can go on."""

    def restore(self) -> dict[str, Any] | None:
        """The last state that was saved, or None."""


@dataclass(frozen=True)
class Stage(Part):
    """A part that leaves an artifact: a dictionary of tensors, a function of the fields alone."""

    def upstream(self) -> tuple[Stage, ...]:
        """The stages that `run` may ask for: those among the fields, however deep inside parts."""
        return tuple(
            stage for field in fields(self) for stage in _stages(getattr(self, field.name))
        )

    def preflight(self) -> None:
        """Refuse what only the data can tell to be wrong. Called for every stage before the first one runs."""

    def run(self, job: Job) -> Artifact:
        raise NotImplementedError


def title(stage: Stage) -> str:
    """The stage, the classes of its parts and its words, for people: Features(Embedding, Digits, test)."""
    cls: Any = type(stage)
    values = [
        getattr(stage, field.name)
        for field in fields(stage)
        if not is_not_in_key(annotations_of(cls)[field.name])
    ]
    words = [
        type(value).__name__ if isinstance(value, Part) else value
        for value in values
        if isinstance(value, Part | str)
    ]
    return f"{cls.__name__}({', '.join(words)})"


def _stages(value: object) -> Iterator[Stage]:
    if isinstance(value, Stage):
        yield value
    elif isinstance(value, Part):
        for field in fields(value):
            yield from _stages(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _stages(item)


@functools.cache
def key(stage: Stage) -> str:
    """The identity of a stage's artifact. The upstream keys count too, for stages that are no field but derived from fields."""
    return digest(stage, [key(above) for above in stage.upstream()])[:20]


# ------------------------------------------------------------------------------------------------ order


def closure(stages: Sequence[Stage]) -> list[Stage]:
    """Every stage that takes part, once each, upstream first."""
    found: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if key(stage) not in found:
            for above in stage.upstream():
                visit(above)
            found[key(stage)] = stage

    for stage in stages:
        visit(stage)
    return list(found.values())


def plan(stages: Sequence[Stage], done: Callable[[Stage], bool]) -> list[list[Stage]]:
    """Waves of missing, unique stages. What is done needs nothing above it; a wave needs only the waves before it."""
    depth: dict[str, int] = {}
    waves: list[list[Stage]] = []

    def visit(stage: Stage) -> int:
        if key(stage) not in depth:
            if done(stage):
                depth[key(stage)] = 0
            else:
                level = 1 + max((visit(above) for above in stage.upstream()), default=0)
                depth[key(stage)] = level
                waves.extend([] for _ in range(level - len(waves)))
                waves[level - 1].append(stage)
        return depth[key(stage)]

    for stage in stages:
        visit(stage)
    return waves
