"""Datasets: two tensors a split, and the constants that normalise them."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, get_args

import gin
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from monosem import pack
from monosem.stage import Aside, Count, Part, Place, Positive, digest, generator

Split = Literal["train", "test"]


class Images(NamedTuple):
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
            self.refuse("std", f"must have one value per channel like mean ({len(self.mean)}), got {len(self.std)}")

    def load(self, split: Split) -> Images:
        raise NotImplementedError

    def split(self, name: Split) -> Images:
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

    def flaw(self) -> str | None:
        """What keeps the splits from being used, if anything: for datasets that somebody has just written."""
        for split in get_args(Split):
            loaded: Any = self.split(split)  # anybody's code
            if not isinstance(loaded, Images) or not isinstance(loaded.factors, Mapping):
                return f"must load Images(images, labels, factors), the factors a dictionary; the {split} split has {type(loaded).__name__}"
            images, labels, factors = loaded
            kinds = [type(each).__name__ for each in (images, labels)]
            if kinds != ["Tensor", "Tensor"]:
                return f"must load torch tensors; the {split} split has {kinds[0]} and {kinds[1]}"
            if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != self.channels or labels.dtype != torch.int64:
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
        missing = [number for number in range(min(self.classes, len(there) + 5)) if number not in there]  # the first few will do
        return f"must number classes from 0 without gaps; the training split has none of {missing}" if missing else None

    def normalise(self, pixels: Tensor) -> Tensor:
        """(n, c, h, w) in [0, 1] -> zero mean and unit deviation per channel over the training split."""
        mean, std = (torch.tensor(each, dtype=pixels.dtype, device=pixels.device) for each in (self.mean, self.std))
        return (pixels - mean[:, None, None]) / std[:, None, None]


def _levels(factor: object, labels: Tensor) -> bool:
    """Whether these are levels, one an image."""
    if not isinstance(factor, Tensor) or factor.dtype != torch.int64 or factor.shape != labels.shape:
        return False
    return bool(factor.min() >= 0 and factor.max() < 10_000)


@functools.lru_cache(maxsize=8)
def _loaded(dataset: Dataset, name: Split) -> Images:
    return dataset.load(name)


@gin.register
@dataclass(frozen=True)
class Digits(Dataset):
    """1,797 real handwritten digits, scanned at 8 x 8 (UCI ML, shipped inside scikit-learn; nothing is downloaded).

    size: side in pixels after bicubic enlargement; crops and blur mean little at 8.
    test: number of test images, drawn once, stratified by class; the rest is for training.
    mean, std: measured on the training split at the size of 16.
    """

    size: Count = 16
    test: Count = 360
    mean: tuple[float, ...] = (0.3099,)
    std: tuple[Positive, ...] = (0.3492,)

    def validate(self) -> None:
        super().validate()
        if not 10 <= self.test <= 1787:
            self.refuse("test", f"must leave every class an image on both sides: between 10 and 1787, got {self.test}")

    def load(self, split: Split) -> Images:
        return _digits(self.size, self.test)[split]


@functools.lru_cache(maxsize=4)
def _digits(size: int, test: int) -> dict[str, Images]:
    """Both splits. The file is read as load_digits reads it; importing scikit-learn for that would take a second."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.origin is not None, "scikit-learn is in requirements.txt"
    table = torch.from_numpy(np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=","))
    scans, labels = table[:, :64].float().reshape(-1, 1, 8, 8) / 16, table[:, 64].long()
    pixels = F.interpolate(scans, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
    images = (pixels * 255).round().to(torch.uint8)
    order = stratified(labels, generator("the split of the digits"))
    return {name: Images(images[part], labels[part]) for name, part in (("test", order[:test]), ("train", order[test:]))}


def stratified(labels: Tensor, draw: torch.Generator) -> Tensor:
    """(n,) indices in a random order of which every beginning holds the classes in their proportions, up to rounding."""
    order = torch.randperm(len(labels), generator=draw)
    place = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        members = order[labels[order] == label]
        place[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return place.argsort(stable=True)


# ------------------------------------------------------------------------------------------------ packed from files

Folder = Annotated[str, Aside("the name of a folder; what it holds counts, through `Part.content`")]
Source = Callable[[], pack.Source]


@dataclass(frozen=True)
class Packed(Dataset):
    """A dataset that is read from files once, into one array a split on disk (monosem.pack), and mapped into memory then on.

    packs: where the arrays are kept; in `packed/` beside the files unless set, as it must be where that cannot be written to.
    """

    packs: Place | None = None

    def origin(self, split: Split) -> str:
        """The name of the field that says where the files of a split are."""
        return "folder"

    def source(self, split: Split) -> tuple[Sequence[str], tuple[object, ...], Source]:
        """The files that a split is made of, what else its pixels and labels depend on, and what reads them."""
        raise NotImplementedError

    def load(self, split: Split) -> Images:
        return Images(*_packs(self)[split][:2])

    @property
    def class_names(self) -> tuple[str, ...]:
        return _packs(self)["train"].names or super().class_names

    def content(self) -> str:
        return digest([made.digest for made in _packs(self).values()])

    def packed(self, split: Split) -> pack.Pack:
        """The pack of a split, made first if need be."""
        field = self.origin(split)
        place: str = getattr(self, field)
        self._must_exist(field, place)
        root = place if os.path.isdir(place) else os.path.dirname(place)
        try:
            files, options, source = self.source(split)
            # other options, other pack: or two experiments would take turns in replacing each other's
            apart = digest(place if self.packs else place.removeprefix(root), options)[:8]
            folder = Path(self.packs or os.path.join(root, "packed"), f"{type(self).__name__.lower()}-{split}-{apart}")
            return pack.packed(folder, pack.fingerprint(root, files, options), source)
        except pack.PlaceError as error:
            self.refuse("packs", str(error))
        except pack.PackError as error:
            self.refuse(field, str(error))
        except OSError as error:
            self.refuse(field, f"cannot be used: {error}")

    def _must_exist(self, field: str, path: str) -> None:
        if not os.path.exists(path):
            self.refuse(field, f"must be there, got {path}{nearest(Path(path))}")


@functools.lru_cache(maxsize=8)
def _packs(data: Packed) -> dict[Split, pack.Pack]:
    """Both splits, opened once a process: what counts in a key is what is then loaded, whatever happens to the files."""
    made = {split: data.packed(split) for split in get_args(Split)}
    if made["train"].digest == made["test"].digest:
        data.refuse(data.origin("test"), "must be of other images than the training split, got the same ones for both")
    return made


def nearest(path: Path) -> str:
    """What is there in place of the first folder of `path` that is not; empty where it is there, or hidden from us."""
    try:
        missing = next((each for each in [*reversed(path.parents), path] if not each.exists()), None)
        names = [each.name for each in missing.parent.iterdir()] if missing else []
    except OSError:
        return ""
    if missing is None:
        return ""
    close = difflib.get_close_matches(missing.name, names, n=1)
    return f"; did you mean {missing.parent / close[0]}?" if close else f"; there is no {missing.name} in {missing.parent}"


def must_be_rgb(data: Dataset) -> None:
    """Refuse constants of another number of channels."""
    if len(data.mean) != 3:
        data.refuse("mean", f"must hold 3 values, for red, green and blue, got {data.mean}")


def as_it_is(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """For sources whose items are pixels in their places."""
    return images


def described(what: object) -> str:
    return f"{what.dtype} {what.shape}" if hasattr(what, "dtype") and hasattr(what, "shape") else type(what).__name__
