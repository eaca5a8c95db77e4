"""What a shifted test set is, which of its classes a probe knows, and how a probe sees it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, NoReturn

import gin
import torch
from torch import Tensor

from monosem.core.fields import FieldError, Label, Part, PathField, Positive
from monosem.data.dataset import Dataset, Examples, SplitName
from monosem.data.images import ImageDataset
from monosem.data.packed import PackedImages, path_hint

LEFT_OUT = -1
NAMED = 5  # names that a message lists


class ShiftPoint(NamedTuple):
    """One test set.

    name: of its point.
    severity: of the shift, 0 where there is none.
    data: its test split is measured.
    """

    name: str
    severity: float
    data: Dataset


@dataclass(frozen=True, kw_only=True)
class ShiftedSets(Part):
    """One or more test sets, each a point."""

    @property
    def names(self) -> tuple[tuple[str, float], ...]:
        """The name and the severity of every point; needs no files."""
        raise NotImplementedError

    def points(self, like: Dataset) -> tuple[ShiftPoint, ...]:
        """The sets, in the order of `names`.

        like: what the probe learns from; a set may leave unread what no class of it needs.
        """
        raise NotImplementedError

    @property
    def class_map(self) -> Mapping[str, str]:
        """The class of the probe by the class of the set; empty where they have the same names."""
        return {}

    def absence(self) -> str | None:
        """What must be there and is not, and where it is published; None where all is there."""
        return None


@dataclass(frozen=True, kw_only=True)
class PublishedSets(ShiftedSets):
    """Test sets of files that others published.

    folder: holds the files.
    packs: where the arrays are kept that are read later; None is `packed` in the folder.
    """

    published: ClassVar[str]

    folder: PathField
    packs: PathField | None = None

    def absence(self) -> str | None:
        path = Path(self.folder)
        if path.exists():
            return None
        return (
            f"{type(self).__name__}.folder {path}{path_hint(path)}, published at {self.published}"
        )


def refuse_repeated(part: Part, *names: str) -> None:
    """Refuse fields that hold nothing, or something twice."""
    for name in names:
        values = getattr(part, name)
        if not values or len(set(values)) < len(values):
            part.refuse(name, f"must hold one or more that differ, got {values}")


@gin.register
@dataclass(frozen=True, kw_only=True)
class OtherSet(ShiftedSets):
    """The test split of any dataset, as one point.

    name: of the point.
    data: the dataset. Its images must have the size and the channels of the probe's.
    classes: pairs (class of the set, class of the probe); what is in no pair is left out. ()
        matches classes that have the same name.
    """

    name: Label
    data: Dataset
    classes: tuple[tuple[str, str], ...] = ()

    def validate(self) -> None:
        if not re.fullmatch(r"[\w.+-]+", self.name) or self.name == "clean":
            self.refuse(
                "name",
                "must be a word of letters, digits and . _ + - other than clean, "
                f"got {self.name!r}",
            )
        sources = [source for source, _ in self.classes]
        repeated = sorted({source for source in sources if sources.count(source) > 1})
        if repeated:
            self.refuse(
                "classes", f"must name every class of the set once, got {repeated[0]!r} more often"
            )

    @property
    def names(self) -> tuple[tuple[str, float], ...]:
        return ((self.name, 0.0),)

    def points(self, like: Dataset) -> tuple[ShiftPoint, ...]:
        return (ShiftPoint(self.name, 0.0, self.data),)

    @property
    def class_map(self) -> Mapping[str, str]:
        return dict(self.classes)


# Classes


class ClassMatch(NamedTuple):
    """Which classes of a set a probe knows.

    labels: (classes of the set,) int64, the label of the probe, or LEFT_OUT.
    present: (m,) the labels of the probe that the set has, ascending.
    """

    labels: Tensor
    present: Tensor


def match_classes(
    probe_names: Sequence[str], set_names: Sequence[str], class_map: Mapping[str, str]
) -> ClassMatch:
    """The label of the probe for every label of a set.

    class_map: the class of the probe by the class of the set; empty matches equal names.
    Raises ValueError, beginning with a verb, where a name of the map is unknown or none matches.
    """
    label_of = {name: label for label, name in enumerate(probe_names)}
    _refuse_unknown(class_map, set_names, "the set")
    _refuse_unknown(class_map.values(), probe_names, "the probe")
    wanted = [class_map.get(name) if class_map else name for name in set_names]
    labels = [LEFT_OUT if name is None else label_of.get(name, LEFT_OUT) for name in wanted]
    present = sorted({label for label in labels if label != LEFT_OUT})
    if not present:
        raise ValueError(
            f"has no class that the probe knows: it has {first_few(set_names)}; the probe has "
            f"{first_few(probe_names)}; OtherSet.classes can say which are the same"
        )
    return ClassMatch(torch.tensor(labels), torch.tensor(present))


def _refuse_unknown(names: Iterable[str], known: Sequence[str], owner: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"must map classes that there are; {owner} has no {first_few(unknown)}: "
            f"it has {first_few(known)}"
        )


def first_few(names: Sequence[str]) -> str:
    """`a, b, c, d, e and 95 more`."""
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


# How a probe sees a set


@dataclass(frozen=True)
class SeenAs(Dataset):
    """The test split of a set, prepared as the test split of another one is.

    Images that already have the size that an evaluation of `like` sees are not cropped again.

    source: the set.
    like: what the probe learns from: its constants normalise, its crop is taken.
    """

    splits: ClassVar[tuple[SplitName, ...]] = ("test",)

    source: Dataset
    like: Dataset

    @property
    def noun(self) -> str:
        return self.like.noun

    def load(self, split: SplitName) -> Examples:
        return self.source.split(split)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    def prepare(self, inputs: Tensor) -> Tensor:
        if isinstance(self.like, ImageDataset) and inputs.shape[1:] != self.like.sample_shape:
            return self.like.prepare_uncropped(inputs)
        return self.like.prepare(inputs)

    def batches(self, inputs: Tensor, size: int) -> Sequence[Tensor]:
        return self.like.batches(inputs, size)

    def show(self, indices: Sequence[int]) -> Tensor | list[str]:
        return self.source.show(indices)

    def problem_of_inputs(self, inputs: Tensor) -> str | None:
        return self.source.problem_of_inputs(inputs)

    def misfit(self) -> str | None:
        """Why the probe cannot take the inputs of the set, if it cannot; begins with a verb."""
        if mismatch := self.like.mismatch(self.source):
            return mismatch
        shapes = shapes_of(self.like)
        shape = tuple(self.source.split("test").inputs.shape[1:])
        if shape in shapes:
            return None
        return f"must have inputs of {' or '.join(map(str, shapes))} like the probe's, got {shape}"


def shapes_of(like: Dataset) -> tuple[tuple[int, ...], ...]:
    """The shape of an input of a dataset as it is stored, and as an evaluation sees it."""
    stored = like.sample_shape
    if not isinstance(like, ImageDataset):
        return (stored,)
    seen = tuple(like.crop_for_evaluation(torch.empty(1, *stored, dtype=torch.uint8)).shape[1:])
    return (stored,) if seen == stored else (stored, seen)


# Sets of files


@dataclass(frozen=True, kw_only=True)
class PublishedTestSet(PackedImages):
    """One published test set that is read from files; there is nothing to train on.

    Its constants are not used: `SeenAs` has those of the probe's data.

    member_of: the class of the part that it comes from, to whose fields a refusal points.
    published: where the files can be had.
    """

    splits: ClassVar[tuple[SplitName, ...]] = ("test",)

    folder: PathField
    member_of: Label
    published: Label = ""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[Positive, ...] = (1.0, 1.0, 1.0)

    def refuse(self, field: str, reason: str) -> NoReturn:
        raise FieldError(self.member_of, field, getattr(self, field), reason)

    def must_exist(self, field: str, path: str) -> None:
        if not Path(path).exists():
            hint = path_hint(Path(path))
            self.refuse(field, f"must be there, got {path}{hint}; published at {self.published}")
