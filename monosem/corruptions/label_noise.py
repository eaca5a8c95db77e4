"""Wrong labels in the training set of a probe, by class: which are wrong does not depend on inputs.

All of them make an exact number of labels wrong. What is wrong at a severity is wrong, in the same
way, at every larger one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import gin
import torch
from torch import Generator, Tensor

from monosem.core.fields import Fraction, Range
from monosem.corruptions.base import Corruption
from monosem.data.dataset import Dataset

Groups = tuple[tuple[Annotated[int, Range(0)], ...], ...]
ROUNDING = 1e-6  # by which a row of a matrix may miss 1


@dataclass(frozen=True)
class WrongLabels(Corruption):
    """Training labels that are wrong; the severity is the share of them, unless a class says else.

    A subclass writes `labels`.
    """

    severities: ClassVar[Any] = Fraction

    def incompatibility(self, data: Dataset) -> str | None:
        if data.classes > 1:
            return None
        return "must have 2 classes or more, so that a label can be wrong, got 1"


def make_wrong(labels: Tensor, order: Tensor, wrong: Tensor, count: int) -> Tensor:
    """(n,) labels, of which the first `count` in an order are the wrong ones.

    order: (m,) examples, those that become wrong first in front.
    wrong: (n,) the wrong label of every example.
    """
    noisy_labels = labels.clone()
    chosen = order[:count]
    noisy_labels[chosen] = wrong[chosen]
    return noisy_labels


@gin.register
@dataclass(frozen=True)
class LabelNoise(WrongLabels):
    """Symmetric label noise: exactly the given share of the training labels is wrong.

    That is round(severity * n) labels. A wrong label is uniform over the other classes and never
    the true one.
    """

    @property
    def axis(self) -> str:
        return "wrong training labels (share)"

    def incompatibility(self, data: Dataset) -> str | None:
        return None

    def labels(
        self, labels: Tensor, data: Dataset, severity: float, generator: Generator
    ) -> Tensor:
        n, classes = len(labels), data.classes
        order = torch.randperm(n, generator=generator)
        shift = torch.randint(1, max(classes, 2), (n,), generator=generator)
        return make_wrong(labels, order, (labels + shift) % classes, round(severity * n))


@gin.register
@dataclass(frozen=True)
class PairFlip(WrongLabels):
    """Pair noise (Han et al. 2018, arXiv:1804.06872): a wrong label is the next class.

    Exactly round(severity * n) labels are wrong, drawn from all; the last class becomes the first.
    Above a share of 0.5 the wrong class is the more frequent one.
    """

    @property
    def axis(self) -> str:
        return "training labels that are the next class (share)"

    def labels(
        self, labels: Tensor, data: Dataset, severity: float, generator: Generator
    ) -> Tensor:
        n = len(labels)
        order = torch.randperm(n, generator=generator)
        return make_wrong(labels, order, (labels + 1) % data.classes, round(severity * n))


@gin.register
@dataclass(frozen=True)
class SuperclassNoise(WrongLabels):
    """A wrong label is another class of the same superclass, uniformly.

    Exactly round(severity * n) labels are wrong, drawn from all.

    groups: the superclasses. A name of `Dataset.groupings`: CIFAR100 has 'superclass', Shapes have
        'shape' and 'texture'. Or the classes of every group, as in ((0, 1), (2, 3, 4)): every class
        in exactly one group, two classes or more in every group.
    """

    groups: str | Groups

    @property
    def axis(self) -> str:
        return "training labels that are another class of their superclass (share)"

    def incompatibility(self, data: Dataset) -> str | None:
        if isinstance(self.groups, str) and self.groups not in data.groupings:
            known = ", ".join(data.groupings) or "none"
            return f"must know the groups {self.groups!r} of SuperclassNoise, its groups: {known}"
        members = self._members(data)
        if sorted(sum(members, ())) != list(range(data.classes)):
            return (
                "must have every class in one group of SuperclassNoise: "
                f"{data.classes} classes, but the groups hold {sorted(sum(members, ()))}"
            )
        small = [group for group in members if len(group) < 2]
        if small:
            return f"must have 2 classes or more in every group of SuperclassNoise, got {small[0]}"
        return None

    def _members(self, data: Dataset) -> Groups:
        """The classes of every group."""
        if not isinstance(self.groups, str):
            return self.groups
        members: dict[int, list[int]] = {}
        for label, group in enumerate(data.groupings[self.groups]):
            members.setdefault(group, []).append(label)
        return tuple(map(tuple, members.values()))

    def labels(
        self, labels: Tensor, data: Dataset, severity: float, generator: Generator
    ) -> Tensor:
        n = len(labels)
        order = torch.randperm(n, generator=generator)
        uniform = torch.rand(n, generator=generator, dtype=torch.float64)
        wrong = labels.clone()
        for group in map(torch.tensor, self._members(data)):
            position = torch.zeros(data.classes, dtype=torch.int64)
            position[group] = torch.arange(len(group))
            inside = torch.isin(labels, group)
            shift = 1 + (uniform[inside] * (len(group) - 1)).long()
            wrong[inside] = group[(position[labels[inside]] + shift) % len(group)]
        return make_wrong(labels, order, wrong, round(severity * n))


@gin.register
@dataclass(frozen=True)
class TransitionNoise(WrongLabels):
    """Class-conditional noise (Patrini et al. 2017, arXiv:1609.03683): T[c][j] of class c become j.

    At severity s it is (1 - s) I + s T. At severity 1 the labels of every class are divided by the
    largest remainders, exactly. M labels are wrong then, and round(s * M) of them at severity s, in
    the proportions of T up to a label or two for every T[c][j]. (Largest remainders at every
    severity anew would not be nested: a count can fall while s grows.)

    matrix: one row for each class, as in ((0.9, 0.1), (0.3, 0.7)); each from 0 to 1, rows sum to 1.
    """

    matrix: tuple[tuple[Fraction, ...], ...]

    def validate(self) -> None:
        rows = len(self.matrix)
        for index, row in enumerate(self.matrix):
            if len(row) != rows:
                self.refuse(
                    "matrix",
                    f"must be square, got {rows} rows and {len(row)} values in row {index}",
                )
            if abs(math.fsum(row) - 1) > ROUNDING:
                self.refuse(
                    "matrix", f"must have rows that sum to 1, got {math.fsum(row):g} in row {index}"
                )
        if not rows:
            self.refuse("matrix", "must hold a row for every class, got ()")

    @property
    def axis(self) -> str:
        return "step from no noise to the transition matrix (share)"

    def incompatibility(self, data: Dataset) -> str | None:
        if len(self.matrix) == data.classes:
            return None
        return (
            f"must have {len(self.matrix)} classes, as many as TransitionNoise.matrix has rows, "
            f"got {data.classes}"
        )

    def labels(
        self, labels: Tensor, data: Dataset, severity: float, generator: Generator
    ) -> Tensor:
        wrong = labels.clone()
        changed: list[Tensor] = []
        for label, row in enumerate(self.matrix):
            members = (labels == label).nonzero()[:, 0]
            members = members[torch.randperm(len(members), generator=generator)]
            counts = largest_remainder(torch.tensor(row, dtype=torch.float64), len(members))
            counts[label] = 0
            targets = in_proportion(counts, generator)
            wrong[members[: len(targets)]] = targets
            changed.append(members[: len(targets)])
        sizes = torch.tensor([len(members) for members in changed])
        turns = in_proportion(sizes, generator)  # which class is the next to have a wrong label
        order = torch.empty_like(turns)
        for label, members in enumerate(changed):
            order[turns == label] = members
        return make_wrong(labels, order, wrong, round(severity * len(order)))


def in_proportion(counts: Tensor, generator: Generator) -> Tensor:
    """(sum of counts,) each kind as often as it counts, and in every prefix about in proportion.

    counts: (k,) of the kinds 0 to k - 1. Of kinds whose turn it is at once, a random one is first.
    """
    kinds = torch.arange(len(counts)).repeat_interleave(counts)
    place = [(torch.arange(count, dtype=torch.float64) + 0.5) / count for count in counts.tolist()]
    shuffled = torch.randperm(len(kinds), generator=generator)
    return kinds[shuffled][torch.cat(place)[shuffled].argsort(stable=True)]


def largest_remainder(shares: Tensor, total: int) -> Tensor:
    """Whole numbers that sum to `total` and are the nearest to shares * total (Hamilton's method).

    shares: (k,) float64 that sum to 1. Of equal remainders the first one counts.
    """
    exact = shares / shares.sum() * total
    counts = (exact + ROUNDING * ROUNDING).floor().long()
    remainders = exact - counts
    rest = total - int(counts.sum())
    counts[remainders.argsort(descending=True, stable=True)[:rest]] += 1
    return counts
