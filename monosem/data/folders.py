"""Images in folders, one a class; ImageNet-100 among them."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gin
from torch import Tensor

from monosem.core.fields import Count, PathField, Positive
from monosem.data import pack
from monosem.data.dataset import SplitName
from monosem.data.images import must_be_rgb
from monosem.data.packed import Folder, Packed, Source, nearest


@gin.register
@dataclass(frozen=True, kw_only=True)
class ImageFolder(Packed):
    """Images in a folder a class in a folder a split, <folder>/<train>/<class>/**, as torchvision's ImageFolder takes them.

    Of every image, as RGB, the shorter side is resized to `size` pixels (bilinear, antialiased) and the central square kept.
    So random crops are drawn from that square, and not from the whole image as the reference does; what an evaluation sees,
    torchvision's Resize(size) and CenterCrop(crop), is exact where size - crop is a multiple of 4, else within one pixel.

    train, test: the names of the folders of the splits.
    crop: side of the central square that an evaluation sees; None is all of it. The reference has 256 and 224.
    only: a text file with the name of a class a line (# begins a comment), in any order; None takes all that train has.
    mean, std: ImageNet's.
    """

    folder: PathField
    train: Folder = "train"
    test: Folder = "val"
    size: Count = 256
    crop: Count | None = None
    only: PathField | None = None
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[Positive, ...] = (0.229, 0.224, 0.225)

    def validate(self) -> None:
        super().validate()
        must_be_rgb(self)
        if self.crop is not None and self.crop > self.size:
            self.refuse("crop", f"must be at most size, {self.size}, got {self.crop}")

    def crop_for_evaluation(self, images: Tensor) -> Tensor:
        if self.crop is None:
            return images
        start = round((self.size - self.crop) / 2)
        return images[..., start : start + self.crop, start : start + self.crop]

    def source(self, split: SplitName) -> tuple[Sequence[str], tuple[object, ...], Source]:
        from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

        names = self._names(split)
        place = self._split(split)
        pairs = make_dataset(
            place,
            {name: label for label, name in enumerate(names)},
            IMG_EXTENSIONS,
            allow_empty=True,
        )
        files, labels = [path for path, _ in pairs], [label for _, label in pairs]
        there, filled = set(os.listdir(place)), set(labels)
        if empty := [
            name for label, name in enumerate(names) if name in there and label not in filled
        ]:
            self.refuse(
                split,
                f"must have images in every class; none ({', '.join(IMG_EXTENSIONS)}) in {_listed(empty)} of {place}",
            )

        def read() -> pack.Source:
            shape = (3, self.size, self.size)
            return pack.Source(
                files,
                functools.partial(pack.squares, size=self.size),
                labels,
                shape,
                tuple(names),
                pool=True,
            )

        return files, (os.path.basename(place), self.size, names), read

    def wanted(self) -> list[str] | None:
        """The classes of the file `only`; None for all."""
        return None if self.only is None else self._read_classes(self.only)

    def _names(self, split: SplitName) -> list[str]:
        """The classes in the order of their labels, all of which the split has if they are listed."""
        have, wanted = _subfolders(self._split(split)), self.wanted()
        if not have:
            self.refuse(
                split, f"must hold a folder for every class; {self._split(split)} holds none"
            )
        if wanted is not None:
            if missing := sorted(set(wanted) - set(have)):
                close = difflib.get_close_matches(missing[0], have, n=1)
                near = f"; nearest to {missing[0]} is {close[0]}" if close else ""
                self.refuse(
                    "only",
                    f"names classes that {self._split(split)} does not have: {_listed(missing)}{near}",
                )
            return sorted(wanted)
        known = have if split == "train" else _subfolders(self._split("train"))
        if strange := sorted(set(have) - set(known)):
            self.refuse(
                split,
                f"must have no class that the training split does not have; {self._split(split)} has {_listed(strange)}",
            )
        return known

    def _split(self, split: SplitName) -> str:
        place = os.path.join(self.folder, getattr(self, split))
        if not os.path.isdir(place):
            self.refuse(
                split,
                f"must be a folder in {self.folder}, got {getattr(self, split)!r}{nearest(Path(place))}",
            )
        return place

    def _read_classes(self, path: str) -> list[str]:
        self._must_exist("only", path)
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            self.refuse(
                "only",
                f"must be a text file with a class a line; {path} cannot be read as one: {error}",
            )
        names = [name for line in lines if (name := line.partition("#")[0].strip())]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            self.refuse(
                "only", f"must name every class once; {path} has {_listed(twice)} more than once"
            )
        if not names:
            self.refuse("only", f"must name a class a line; {path} names none")
        return names


@gin.register
@dataclass(frozen=True, kw_only=True)
class ImageNet100(ImageFolder):
    """100 classes of ImageNet (ILSVRC 2012), from its folder with wordnet ids for class folders in both splits.

    only: as in ImageFolder, but of exactly 100 names. None takes the classes of Tian et al., Contrastive Multiview Coding
        (arXiv:1906.05849), imagenet100.txt beside this file; solo-learn, on which the reference is built, has the same.
    """

    def wanted(self) -> list[str]:
        path = self.only or str(Path(__file__).with_name("imagenet100.txt"))
        names = self._read_classes(path)
        if len(names) != 100:
            self.refuse("only", f"must name 100 classes; {path} names {len(names)}")
        return names


def _subfolders(place: str) -> list[str]:
    return sorted(entry.name for entry in os.scandir(place) if entry.is_dir())


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
