"""What a dataset is: a train and a test split of inputs and labels.

It does not know what an input is. `monosem.data.images` knows images.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Generator, Tensor

from monosem.core.fields import Part

SplitName = Literal["train", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
MOST_LEVELS = 10_000  # of a factor: counts are kept for each of them


class Examples(NamedTuple):
    """One split.

    inputs: (n, *sample_shape), as they are stored, for example uint8 pixels of images.
    labels: (n,) int64, from 0 to classes - 1.
    factors: where it is known what made the inputs, the level of each factor by its name,
        (n,) int64 from 0 on.
    """

    inputs: Tensor
    labels: Tensor
    factors: Mapping[str, Tensor] = MappingProxyType({})


class Occlusions(NamedTuple):
    """An example without one of its parts at a time.

    spans: (start, end) of every part in what `Dataset.show` gives of the example.
    inputs: (parts, ...) the example without each of them, as they are stored.
    """

    spans: list[tuple[int, int]]
    inputs: Tensor


@dataclass(frozen=True)
class Augmentation(Part):
    """A random change of inputs that leaves their meaning as it is."""

    def __call__(self, inputs: Tensor, generator: Generator) -> Tensor:
        """inputs: (n, ...) on the device of the generator. Returns as many, changed."""
        raise NotImplementedError

    def incompatibility(self, data: Dataset) -> str | None:
        """Why it cannot change the inputs of `data`, if it cannot: 'must be of images ...'."""
        return None


@dataclass(frozen=True)
class Dataset(Part):
    """Labelled inputs in a train and a test split.

    A subclass says how to `load` them and how stored inputs become what a network takes.
    `ImageDataset` does the latter for images.

    splits: those that it has. One that is only tested on has ("test",).
    pieces: what an example is made of, for people, for example 'words'; '' where it has none
        that `occlusions` could leave out.
    """

    splits: ClassVar[tuple[SplitName, ...]] = SPLITS
    pieces: ClassVar[str] = ""

    @property
    def noun(self) -> str:
        """What its examples are, for people, in the plural."""
        return "examples"

    def load(self, split: SplitName) -> Examples:
        """Read or make a split. Called once a process."""
        raise NotImplementedError

    def prepare(self, inputs: Tensor) -> Tensor:
        """Stored inputs (n, ...) -> what a network takes in an evaluation, on the device."""
        raise NotImplementedError

    def augment(
        self, inputs: Tensor, views: Sequence[Augmentation], generator: Generator
    ) -> Tensor:
        """Stored inputs (n, ...) on the device -> what a network takes, after all `views` in turn.

        generator: of every random draw, on the same device.
        """
        raise NotImplementedError

    def batches(self, inputs: Tensor, size: int) -> Sequence[Tensor]:
        """The indices of stored inputs (n, ...) that pass through a network together.

        size: inputs in a batch, at most. An order other than theirs can save work, of texts say.
        """
        return torch.arange(len(inputs)).split(size)

    def training_batches(
        self, examples: Tensor, size: int, generator: Generator
    ) -> Sequence[Tensor]:
        """Batches of `size` training examples for an epoch; what is left over is dropped.

        examples: (m,) their indices in a random order, on the device of the generator. A dataset
            may choose which of them go together.
        """
        return examples[: len(examples) // size * size].split(size)

    def show(self, indices: Sequence[int]) -> Tensor | list[str]:
        """Examples of the test split for a person: pictures (k, side, side, 3) uint8, or texts."""
        raise NotImplementedError

    def occlusions(self, index: int) -> Occlusions:
        """A test example without one of its `pieces` at a time."""
        raise NotImplementedError

    def mismatch(self, other: Dataset) -> str | None:
        """Why a network of these inputs cannot take those of `other`, if it cannot.

        It begins with a verb, as in "must be Digits, got CIFAR10": "Curve.data" is put in front.
        Asked when a spec is read: it loads nothing.
        """
        if isinstance(other, type(self)):
            return None
        kind, other_kind = type(self).__name__, type(other).__name__
        return f"must be {kind}, as the encoder was made for, got {other_kind}"

    def problem_of_inputs(self, inputs: Tensor) -> str | None:
        """Why the inputs of a split cannot be used, if they cannot.

        It begins with a verb, as in "must hold uint8": "Curve.data" is put in front.
        """
        return None

    def split(self, name: SplitName) -> Examples:
        """A split, loaded once a process: stages ask often, some of them at every step."""
        return load_once(self, name)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one stored input."""
        return tuple(self.split(self.splits[0]).inputs.shape[1:])

    @property
    def classes(self) -> int:
        """How many there are."""
        return int(self.split(self.splits[0]).labels.max()) + 1

    @property
    def class_names(self) -> tuple[str, ...]:
        """What people call the classes, by label."""
        return tuple(map(str, range(self.classes)))

    def remarks(self, split: SplitName) -> tuple[str, ...]:
        """What a person should know of how a split was read."""
        return ()

    @property
    def groupings(self) -> Mapping[str, tuple[int, ...]]:
        """Ways to group the classes: by the name of each, the group of every class, from 0 on."""
        return MappingProxyType({})

    @property
    def seeding(self) -> object:
        """What seeds the draws of corruptions, beside their repeat: the dataset itself.

        Data of one kind that tell encoders apart, as texts cut up by two tokenizers do, may say
        what they have in common, so that all encoders meet the same noise.
        """
        return self

    def rater_labels(self) -> Tensor | None:
        """The labels that single people gave to the training examples, where they are known.

        (n, raters) int64, -1 where a rater gave none; the columns are in no order of people.
        """
        return None

    def problem(self) -> str | None:
        """Why the dataset cannot be used, if it cannot.

        It begins with a verb, as in "must hold int64 labels": "Curve.data" is put in front. It
        finds the mistakes of datasets that somebody has just written.
        """
        if "train" not in self.splits:
            return "has no training split: it can only be a set of Shift.sets"
        for name in SPLITS:
            if problem := self._problem_of_split(name):
                return problem
        return self._problem_of_classes()

    def problem_of_test(self) -> str | None:
        """Why it cannot be tested on, if it cannot: as `problem`, of the test split alone."""
        if problem := self._problem_of_split("test"):
            return problem
        classes = int(self.split("test").labels.max()) + 1
        if classes <= len(self.class_names):
            return None
        return f"must have a name for each of its {classes} classes, got {len(self.class_names)}"

    def _problem_of_split(self, name: SplitName) -> str | None:
        where = f"the {name} split"
        examples: Any = self.split(name)  # anybody's code
        return (
            _problem_of_types(examples, where)
            or self._problem_of_shapes(examples, where)
            or _problem_of_factors(examples, where)
            or self._problem_of_labels(examples, where)
        )

    def _problem_of_shapes(self, examples: Examples, where: str) -> str | None:
        inputs, labels, _ = examples
        if problem := self.problem_of_inputs(inputs):
            return f"{problem}; {where} has {inputs.dtype} {tuple(inputs.shape)}"
        if len(inputs) != len(labels) or not inputs.numel():
            return (
                "must hold a label for every input, and some of them; "
                f"{where} has {tuple(inputs.shape)} and {len(labels)}"
            )
        if inputs.shape[1:] != self.sample_shape:
            return (
                "must have inputs of one size in both splits, "
                f"got {self.sample_shape} and {tuple(inputs.shape[1:])}"
            )
        return None

    def _problem_of_labels(self, examples: Examples, where: str) -> str | None:
        if examples.labels.min() >= 0 and examples.labels.max() < self.classes:
            return None
        return (
            "must label every input with a class of the training split, "
            f"0 to {self.classes - 1}; not so {where}"
        )

    def _problem_of_classes(self) -> str | None:
        present = set(self.split("train").labels.unique().tolist())
        candidates = range(min(self.classes, len(present) + 5))  # the first few will do
        missing = [label for label in candidates if label not in present]
        if not missing:
            return None
        return f"must number classes from 0 without gaps; the training split has none of {missing}"


def _problem_of_types(examples: Any, where: str) -> str | None:
    if not isinstance(examples, Examples) or not isinstance(examples.factors, Mapping):
        return (
            "must load Examples(inputs, labels, factors), the factors a dictionary; "
            f"{where} has {type(examples).__name__}"
        )
    inputs: Any = examples.inputs
    labels: Any = examples.labels
    if not isinstance(inputs, Tensor) or not isinstance(labels, Tensor):
        kinds = f"{type(inputs).__name__} and {type(labels).__name__}"
        return f"must load torch tensors; {where} has {kinds}"
    if labels.dtype != torch.int64 or labels.ndim != 1:
        return f"must hold int64 labels (n,); {where} has {labels.dtype} {tuple(labels.shape)}"
    return None


def _problem_of_factors(examples: Examples, where: str) -> str | None:
    unfit = [
        str(name)
        for name, levels in examples.factors.items()
        if not _are_levels(levels, examples.labels)
    ]
    if not unfit:
        return None
    return (
        "must have factors that are int64 (n,), from 0 on, like labels, "
        f"and below {MOST_LEVELS}; not so {', '.join(unfit)} of {where}"
    )


def _are_levels(levels: object, labels: Tensor) -> bool:
    """Whether these are levels of a factor, one for each label."""
    if not isinstance(levels, Tensor):
        return False
    if levels.dtype != torch.int64 or levels.shape != labels.shape:
        return False
    return bool(levels.min() >= 0 and levels.max() < MOST_LEVELS)


@functools.lru_cache(maxsize=8)
def load_once(dataset: Dataset, name: SplitName) -> Examples:
    return dataset.load(name)


def views_mismatch(views: Sequence[Augmentation], data: Dataset) -> str | None:
    """Why the first of these augmentations that cannot change the inputs of `data` cannot."""
    mismatches = (view.incompatibility(data) for view in views)
    return next((mismatch for mismatch in mismatches if mismatch), None)


def stratified(labels: Tensor, draw: Generator) -> Tensor:
    """A random order; every prefix has the classes in their proportions, up to rounding.

    labels: (n,). Returns (n,) indices.
    """
    order = torch.randperm(len(labels), generator=draw)
    place = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        members = order[labels[order] == label]
        place[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return place.argsort(stable=True)
