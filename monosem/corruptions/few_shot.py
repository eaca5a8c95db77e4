"""Few training examples for a probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import gin
import torch
from torch import Generator, Tensor

from monosem.core.fields import Count, Fraction, conform
from monosem.corruptions.base import Corruption
from monosem.data.dataset import Dataset


@gin.register
@dataclass(frozen=True)
class FewShot(Corruption):
    """The probe sees few training examples of every class; a smaller set is part of a larger one.

    unit: what a severity counts. 'shots' are examples of every class; 'fraction' is the share of
        every class, at least one example each.
    """

    unit: Literal["shots", "fraction"] = "shots"

    @property
    def axis(self) -> str:
        return (
            "training examples per class" if self.unit == "shots" else "training examples (share)"
        )

    def axis_of(self, data: Dataset) -> str:
        return self.axis.replace("examples", data.noun)

    def check_severity(self, severity: float, labels: Tensor) -> None:
        if self.unit == "fraction":
            _check_fraction(severity)
        else:
            _check_shots(severity, smallest_class=int(labels.bincount().min()))

    def examples(self, labels: Tensor, severity: float, generator: Generator) -> Tensor:
        shuffled = torch.randperm(len(labels), generator=generator)
        chosen = []
        for label in labels.unique().tolist():
            members = shuffled[labels[shuffled] == label]
            chosen.append(members[: self._count(severity, len(members))])
        return torch.cat(chosen).sort().values

    def _count(self, severity: float, members: int) -> int:
        """How many of the members of a class the probe sees."""
        return int(severity) if self.unit == "shots" else max(1, round(severity * members))

    def touches_training(self, severity: float) -> bool:
        return not (self.unit == "fraction" and severity == 1)


def _check_fraction(severity: float) -> None:
    if severity == 0:
        raise ValueError("must be above 0: a fraction of 0 leaves no example")
    conform(severity, Fraction)


def _check_shots(severity: float, smallest_class: int) -> None:
    shots = conform(int(severity) if severity.is_integer() else severity, Count)
    if shots > smallest_class:
        raise ValueError(
            f"must be at most {smallest_class}, the training examples of the smallest class, "
            f"got {shots} shots"
        )
