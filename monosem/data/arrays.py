"""Images in arrays that somebody has written."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import gin
import numpy as np

from monosem.core.fields import PathField
from monosem.data import pack
from monosem.data.dataset import SplitName
from monosem.data.packed import Packed, Source, as_it_is, described


@gin.register
@dataclass(frozen=True, kw_only=True)
class Arrays(Packed):
    """Images and labels in arrays that somebody has written: `images`, uint8, and `labels`, whole numbers (n,).

    Images are (n, h, w), (n, h, w, c) or (n, c, h, w), where c is the number of values in `mean`.

    train, test: for each split an .npz, an .h5 or .hdf5 (with h5py) with both arrays, or a folder with images.npy and labels.npy.
    """

    train: PathField
    test: PathField

    def origin(self, split: SplitName) -> str:
        return split

    def source(self, split: SplitName) -> tuple[Sequence[str], tuple[object, ...], Source]:
        path = getattr(self, split)
        files = (
            [os.path.join(path, f"{name}.npy") for name in ARRAYS]
            if os.path.isdir(path)
            else [path]
        )
        if missing := [file for file in files if not os.path.exists(file)]:
            self.refuse(
                split, f"must hold images.npy and labels.npy; not there: {', '.join(missing)}"
            )

        def read() -> pack.Source:
            images, labels = _arrays(path)
            if images.dtype != np.uint8:
                raise pack.PackError(
                    f"holds images of {images.dtype}; they must be uint8, 0 to 255"
                )
            if (
                labels.dtype.kind not in "iu"
                or labels.ndim != 1
                or images.shape[:1] != labels.shape
            ):
                raise pack.PackError(
                    f"must hold a whole number for every image as labels; images are {described(images)}, labels {described(labels)}"
                )
            turn = self._turn(images.shape)
            return pack.Source(images, turn, labels, turn(images[:1]).shape[1:])

        return files, (self.channels,), read

    def _turn(
        self, shape: tuple[int, ...]
    ) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
        """What brings images of this shape to (n, c, h, w)."""
        c = self.channels
        if len(shape) == 3 and c == 1:
            return lambda images: images[:, None]
        first, last = (len(shape) == 4 and shape[axis] == c for axis in (1, 3))
        if first == last:
            which = (
                "both the second and the last axis can be the channels"
                if first
                else "neither does the shape have"
            )
            raise pack.PackError(
                f"must hold images (n, h, w, {c}) or (n, {c}, h, w), {c} for the values in mean: {which}, got {shape}"
            )
        return as_it_is if first else lambda images: images.transpose(0, 3, 1, 2)


ARRAYS = ("images", "labels")


def _arrays(path: str) -> tuple[Any, np.ndarray[Any, Any]]:
    """The images, for an HDF5 file still on disk, and the labels."""
    try:
        if os.path.isdir(path):
            images, labels = (
                np.load(os.path.join(path, f"{name}.npy"), mmap_mode="r", allow_pickle=False)
                for name in ARRAYS
            )
            return images, labels
        if path.endswith(".npz"):
            if not zipfile.is_zipfile(path):
                raise pack.PackError(
                    f"holds no plain arrays: {path} is no .npz, as numpy.savez writes them"
                )
            with np.load(path, allow_pickle=False) as file:
                return tuple(file[name] for name in _named(path, file.files))
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, pack.PackError):
            raise
        raise pack.PackError(
            f"holds no plain arrays of numbers: {path} is damaged or has objects in it"
        ) from None
    if not path.endswith((".h5", ".hdf5")):
        raise pack.PackError(
            f"must be an .npz, .h5 or .hdf5, or a folder with images.npy and labels.npy, got {path}"
        )
    try:
        import h5py
    except ImportError:
        raise pack.PackError(
            f"is an HDF5 file, {path}, which needs h5py: pip install h5py"
        ) from None
    file = h5py.File(path, "r")
    images, labels = (file[name] for name in _named(path, file))
    return images, labels[:]


def _named(path: str, found: Iterable[str]) -> tuple[str, ...]:
    if missing := set(ARRAYS) - set(found):
        raise pack.PackError(
            f"must hold arrays images and labels; {path} has no {' and no '.join(sorted(missing))} but {sorted(found)}"
        )
    return ARRAYS
