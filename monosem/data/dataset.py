"""Datasets: two tensors a split, and the constants that normalise them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from monosem.core.fields import Part, Positive

SplitName = Literal["train", "test"]


class Examples(NamedTuple):
    """images: (n, channels, height, width) uint8; labels: (n,) int64, 0 .. classes - 1.

    factors: where it is known what made the images, the level of each factor, (n,) int64 from 0 on, by name.
    """

    images: Tensor
    labels: Tensor
    factors: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True)
class Dataset(Part):
    """Labelled images in a train and a test split. A subclass says how to `load` them.

    mean, std: per channel, in units of the pixel range [0, 1]; normalised = (pixel / 255 - mean) / std.
    """

    mean: tuple[float, ...]
    std: tuple[Positive, ...]

    def validate(self) -> None:
        if not self.mean:
            self.refuse("mean", "must hold a value for every channel, got ()")
        if len(self.mean) != len(self.std):
            self.refuse(
                "std",
                f"must have one value per channel like mean ({len(self.mean)}), got {len(self.std)}",
            )

    def load(self, split: SplitName) -> Examples:
        raise NotImplementedError

    def split(self, name: SplitName) -> Examples:
        """What `load` gave the first time a process asked: stages ask often, some of them at every step."""
        return _loaded(self, name)

    def seen(self, images: Tensor) -> Tensor:
        """(n, c, h, w) uint8 -> what an evaluation sees of them."""
        return images

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def classes(self) -> int:
        return int(self.split("train").labels.max()) + 1

    @property
    def class_names(self) -> tuple[str, ...]:
        """What people call the classes."""
        return tuple(map(str, range(self.classes)))

    def problem(self) -> str | None:
        """What keeps the splits from being used, if anything: for datasets that somebody has just written."""
        for split in get_args(SplitName):
            loaded: Any = self.split(split)  # anybody's code
            if not isinstance(loaded, Examples) or not isinstance(loaded.factors, Mapping):
                return f"must load Images(images, labels, factors), the factors a dictionary; the {split} split has {type(loaded).__name__}"
            images, labels, factors = loaded
            kinds = [type(each).__name__ for each in (images, labels)]
            if kinds != ["Tensor", "Tensor"]:
                return f"must load torch tensors; the {split} split has {kinds[0]} and {kinds[1]}"
            if (
                images.dtype != torch.uint8
                or images.ndim != 4
                or images.shape[1] != self.channels
                or labels.dtype != torch.int64
            ):
                return (
                    f"must hold uint8 images (n, {self.channels}, height, width), a channel for each mean, and int64 labels (n,); "
                    f"the {split} split has {images.dtype} {tuple(images.shape)} and {labels.dtype} {tuple(labels.shape)}"
                )
            if len(images) != len(labels) or not images.numel():
                return f"must hold a label for every image, and some of them; the {split} split has {tuple(images.shape)} and {len(labels)}"
            if images.shape[1:] != self.split("train").images.shape[1:]:
                sizes = tuple(self.split("train").images.shape[1:]), tuple(images.shape[1:])
                return f"must have images of one size in both splits, got {sizes[0]} and {sizes[1]}"
            if odd := [name for name, each in factors.items() if not _levels(each, labels)]:
                return (
                    f"must have factors that are int64 (n,), from 0 on, like labels, and below 10000; "
                    f"not so {', '.join(map(str, odd))} of the {split} split"
                )
            if labels.min() < 0 or labels.max() >= self.classes:
                return f"must label every image with a class of the training split, 0 to {self.classes - 1}; not so the {split} split"
        there = set(self.split("train").labels.unique().tolist())
        missing = [
            number for number in range(min(self.classes, len(there) + 5)) if number not in there
        ]  # the first few will do
        return (
            f"must number classes from 0 without gaps; the training split has none of {missing}"
            if missing
            else None
        )

    def normalise(self, pixels: Tensor) -> Tensor:
        """(n, c, h, w) in [0, 1] -> zero mean and unit deviation per channel over the training split."""
        mean, std = (
            torch.tensor(each, dtype=pixels.dtype, device=pixels.device)
            for each in (self.mean, self.std)
        )
        return (pixels - mean[:, None, None]) / std[:, None, None]


def _levels(factor: object, labels: Tensor) -> bool:
    """Whether these are levels, one an image."""
    if (
        not isinstance(factor, Tensor)
        or factor.dtype != torch.int64
        or factor.shape != labels.shape
    ):
        return False
    return bool(factor.min() >= 0 and factor.max() < 10_000)


@functools.lru_cache(maxsize=8)
def _loaded(dataset: Dataset, name: SplitName) -> Examples:
    return dataset.load(name)


def stratified(labels: Tensor, draw: torch.Generator) -> Tensor:
    """(n,) indices in a random order of which every beginning holds the classes in their proportions, up to rounding."""
    order = torch.randperm(len(labels), generator=draw)
    place = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        members = order[labels[order] == label]
        place[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return place.argsort(stable=True)


def must_be_rgb(data: Dataset) -> None:
    """Refuse constants of another number of channels."""
    if len(data.mean) != 3:
        data.refuse("mean", f"must hold 3 values, for red, green and blue, got {data.mean}")
