"""Test sets for ImageNet in folders of image files, of which the probe's classes are read.

Classes match by WordNet id, as the folders of ImageNet itself are named.
"""

from __future__ import annotations

import functools
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import gin

from monosem.core.fields import PathField
from monosem.data.dataset import Dataset, SplitName
from monosem.data.image_files import READING, images_below
from monosem.data.packed import FolderName, PackError, SplitSource
from monosem.datasets.folders import read_squares
from monosem.shifts.base import (
    PublishedSets,
    PublishedTestSet,
    ShiftPoint,
    first_few,
    shapes_of,
)
from monosem.shifts.commonly_corrupted import CommonlyCorrupted

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".webp")
WNID = r"n\d{8}"
IMAGENET_CLASSES = 1000


@dataclass(frozen=True, kw_only=True)
class ClassFolders(PublishedTestSet):
    """Image files in <folder>/<place>/<class>/*, of those classes that the probe has.

    Every image becomes RGB, its shorter side is resized and the central square kept, as those of
    ImageFolder are.

    place: the folder of the class folders, inside `folder`; '' is `folder` itself.
    like: what the probe learns from; its classes are read, its size is taken.
    is_cropped: the published images are what an evaluation sees, so that no margin is left for its
        crop.
    wnids: a text file with the 1000 WordNet ids of ImageNet; the class folders are named by the
        positions of their ids in alphabetical order, 0 to 999. None: by the ids.
    """

    place: FolderName = ""
    like: Dataset
    is_cropped: bool = False
    wnids: PathField | None = None

    def source(self, split: SplitName) -> SplitSource:
        place = os.path.join(self.folder, self.place)
        folder_of = self._folders(place)
        names = tuple(name for name in self.like.class_names if name in folder_of)
        if not names:
            self.refuse(
                "folder",
                "must hold a folder for a class of the probe, such as "
                f"{first_few(self.like.class_names)}; {place} has {first_few(sorted(folder_of))}",
            )
        files, labels = [], []
        for label, name in enumerate(names):
            images = _images_in(os.path.join(place, folder_of[name]))
            files += images
            labels += [label] * len(images)
        if not files:
            self.refuse("folder", f"must hold images; {place} has none in {first_few(names)}")
        side = shapes_of(self.like)[-1 if self.is_cropped else 0][-1]
        read = functools.partial(read_squares, files, labels, side, names)
        return SplitSource(files, (self.place, side, list(names)), read, READING)

    def _folders(self, place: str) -> dict[str, str]:
        """The folders of classes by their WordNet ids, or whatever they are called."""
        if not os.path.isdir(place):
            self.refuse(
                "folder",
                f"must hold the folder of class folders {place}, which is not there; "
                f"published at {self.published}",
            )
        present = sorted(entry.name for entry in os.scandir(place) if entry.is_dir())
        if self.wnids is None:
            return {name: name for name in present}
        known = read_wnids(self.wnids)
        positions = [name for name in present if name.isdecimal() and int(name) < len(known)]
        if not positions:
            self.refuse(
                "folder",
                f"must hold folders named 0 to {len(known) - 1}, the positions of classes; "
                f"{place} has {first_few(present)}; published at {self.published}",
            )
        return {known[int(name)]: name for name in positions}


def _images_in(folder: str) -> list[str]:
    """The image files, whatever the folders inside are."""
    return sorted(path for path in images_below(folder, Counter()) if _is_published(path))


def _is_published(path: str) -> bool:
    return path.lower().endswith(EXTENSIONS)


def read_wnids(path: str) -> list[str]:
    """The WordNet ids of a text file, sorted: the first word of every line. Raises PackError."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PackError(
            "names its classes by position, so wnids must be a text file with an id a line; "
            f"{path} cannot be read ({error})"
        ) from None
    words = [line.split()[0] for line in lines if line.strip()]
    wrong = [word for word in words if not re.fullmatch(WNID, word)]
    if wrong or len(set(words)) != IMAGENET_CLASSES or len(words) != IMAGENET_CLASSES:
        found = f"{wrong[0]!r}" if wrong else f"{len(set(words))} different ids"
        raise PackError(
            f"names its classes by position, so wnids must name {IMAGENET_CLASSES} ids such as "
            f"n01440764, each once; {path} has {found}"
        )
    return sorted(words)


@gin.register
@dataclass(frozen=True, kw_only=True)
class ImageNetC(CommonlyCorrupted):
    """ImageNet-C: the validation images under common corruptions (Hendrycks and Dietterich 2019).

    <corruption>/<severity>/<WordNet id>/*, images of 224 x 224 pixels that need no crop.

    folder: holds the folders of the corruptions.
    corruptions: their published names; the 15 of the paper, of 19 that are published.
    severities: from 1 to 5.
    packs: where the arrays are kept that are read later; None is `packed` in the folder.
    """

    published: ClassVar[str] = "https://zenodo.org/records/2235448"

    def points(self, like: Dataset) -> tuple[ShiftPoint, ...]:
        folders = functools.partial(
            ClassFolders,
            folder=self.folder,
            member_of=type(self).__name__,
            published=self.published,
            like=like,
            is_cropped=True,
            packs=self.packs,
        )
        return tuple(
            ShiftPoint(name, severity, folders(place=os.path.join(name, f"{severity:g}")))
            for name, severity in self.names
        )


@dataclass(frozen=True, kw_only=True)
class ImageNetVariant(PublishedSets):
    """One set of whole images in a folder for each class.

    folder: holds the folders of the classes.
    packs: where the arrays are kept that are read later; None is `packed` in the folder.
    """

    point: ClassVar[str]

    @property
    def names(self) -> tuple[tuple[str, float], ...]:
        return ((self.point, 0.0),)

    @property
    def ids(self) -> str | None:
        """The file of the WordNet ids, where folders are named by positions."""
        return None

    def points(self, like: Dataset) -> tuple[ShiftPoint, ...]:
        folders = ClassFolders(
            folder=self.folder,
            member_of=type(self).__name__,
            published=self.published,
            like=like,
            wnids=self.ids,
            packs=self.packs,
        )
        return (ShiftPoint(self.point, 0.0, folders),)


@gin.register
@dataclass(frozen=True, kw_only=True)
class ImageNetSketch(ImageNetVariant):
    """ImageNet-Sketch: 50,000 drawings of the 1000 classes (Wang et al., arXiv:1905.13549)."""

    point: ClassVar[str] = "sketch"
    published: ClassVar[str] = "https://github.com/HaohanWang/ImageNet-Sketch"


@gin.register
@dataclass(frozen=True, kw_only=True)
class StylizedImageNet(ImageNetVariant):
    """Validation images in the styles of paintings (Geirhos et al., arXiv:1811.12231).

    They are made by their authors' code. `folder` is its folder val.
    """

    point: ClassVar[str] = "stylized"
    published: ClassVar[str] = "https://github.com/rgeirhos/Stylized-ImageNet"


@gin.register
@dataclass(frozen=True, kw_only=True)
class ImageNetR(ImageNetVariant):
    """ImageNet-R: 30,000 renditions of 200 of the classes (Hendrycks et al., arXiv:2006.16241)."""

    point: ClassVar[str] = "imagenet-r"
    published: ClassVar[str] = "https://github.com/hendrycks/imagenet-r"


@gin.register
@dataclass(frozen=True, kw_only=True)
class ImageNetA(ImageNetVariant):
    """ImageNet-A: 7,500 photographs of 200 of the classes (Hendrycks et al., arXiv:1907.07174)."""

    point: ClassVar[str] = "imagenet-a"
    published: ClassVar[str] = "https://github.com/hendrycks/natural-adv-examples"


@gin.register
@dataclass(frozen=True, kw_only=True)
class ImageNetV2(ImageNetVariant):
    """ImageNet-V2: 10,000 new photographs of the 1000 classes (Recht et al., arXiv:1902.10811).

    folder: holds folders named 0 to 999, by the position of their class.
    wnids: a text file whose lines begin with the 1000 WordNet ids, such as LOC_synset_mapping.txt
        of ImageNet.
    """

    point: ClassVar[str] = "imagenet-v2"
    published: ClassVar[str] = "https://github.com/modestyachts/ImageNetV2"

    wnids: PathField

    @property
    def ids(self) -> str:
        return self.wnids
