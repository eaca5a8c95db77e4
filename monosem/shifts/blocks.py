"""Published test sets in .npy files, several of them one after the other in one file."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from monosem.core.fields import Count, Range
from monosem.data.dataset import SplitName
from monosem.data.packed import PackError, SplitSource, Stream, kind_of
from monosem.shifts.base import PublishedTestSet

READ = 1000  # images at a time
Severity = Annotated[int, Range(1, 5)]


@dataclass(frozen=True, kw_only=True)
class ArrayBlock(PublishedTestSet):
    """Equal parts of one .npy file of images (n, side, side, channels) uint8, and its labels (n,).

    images: the name of the file in `folder`.
    labels: the same, of the labels of all parts.
    parts: how many equal parts the file has.
    part: which one this is, from 1 on.
    names: of the classes, by label.
    """

    side: ClassVar[int] = 32

    images: str
    labels: str
    parts: Count = 1
    part: Count = 1
    names: tuple[str, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.names

    def source(self, split: SplitName) -> SplitSource:
        files = [os.path.join(self.folder, name) for name in (self.images, self.labels)]
        missing = [path for path in files if not Path(path).is_file()]
        if missing:
            self.refuse(
                "folder",
                f"must hold {self.images} and {self.labels}; not there: {', '.join(missing)}; "
                f"published at {self.published}",
            )
        options = (self.images, self.parts, self.part, *self.options)
        return SplitSource(files, options, functools.partial(self._read, *files))

    @property
    def options(self) -> tuple[object, ...]:
        """What else the pixels depend on."""
        return ()

    def arranged(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Published images (k, side, side, channels) -> as they are kept, (k, channels, h, w)."""
        return pixels.transpose(0, 3, 1, 2)

    def _read(self, images_file: str, labels_file: str) -> Stream:
        images, labels = _load(images_file), _load(labels_file)
        wanted = (self.side, self.side, self.channels)
        if images.dtype != np.uint8 or images.shape[1:] != wanted or not len(images):
            raise PackError(
                f"holds {images_file}, which must be uint8 (n, {', '.join(map(str, wanted))}), "
                f"got {kind_of(images)}"
            )
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
            raise PackError(
                f"holds {labels_file}, which must have a whole number for each of the "
                f"{len(images)} images, got {kind_of(labels)}"
            )
        if len(images) % self.parts:
            raise PackError(
                f"holds {images_file}, which must have {self.parts} severities of equally many "
                f"images, got {len(images)}"
            )
        size = len(images) // self.parts
        chosen = slice((self.part - 1) * size, self.part * size)
        mine = images[chosen]
        shape = self.arranged(np.asarray(mine[:1])).shape[1:]
        return Stream(labels[chosen], shape, nullcontext(self._blocks(mine)), self.names)

    def _blocks(self, images: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
        for start in range(0, len(images), READ):
            yield self.arranged(np.asarray(images[start : start + READ]))


def _load(path: str) -> np.ndarray[Any, Any]:
    """A map of the file. Nothing that it pickles is run. Raises PackError."""
    try:
        array: np.ndarray[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise PackError(f"holds {path}, which cannot be read as .npy ({error})") from None
    return array
