"""Images in arrays of one's own: .npy, .npz or HDF5 files."""

from __future__ import annotations

import contextlib
import functools
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn

import gin
import numpy as np

from monosem.core.fields import PathField
from monosem.data.dataset import SplitName
from monosem.data.packed import PackedImages, PackError, SplitSource, Stream, kind_of

NAMES = ("images", "labels")
BLOCK = 1024  # images at a time


@gin.register
@dataclass(frozen=True, kw_only=True)
class Arrays(PackedImages):
    """Images and labels in arrays that somebody has written.

    The arrays are called `images`, uint8, and `labels`, whole numbers (n,). Images are (n, h, w),
    (n, h, w, c) or (n, c, h, w), where c is the number of values in `mean`.

    train: an .npz, .h5 or .hdf5 (with h5py) with both arrays, or a folder with images.npy and
        labels.npy.
    test: the same for the test split.
    """

    train: PathField
    test: PathField

    def origin(self, split: SplitName) -> str:
        return split

    def source(self, split: SplitName) -> SplitSource:
        path: str = getattr(self, split)
        files = _npy_files(path) if os.path.isdir(path) else [path]
        missing = [file for file in files if not os.path.exists(file)]
        if missing:
            self.refuse(
                split, f"must hold images.npy and labels.npy; not there: {', '.join(missing)}"
            )
        return SplitSource(files, (self.channels,), functools.partial(self._read, path))

    def _read(self, path: str) -> Stream:
        images, labels = read_arrays(path)
        if images.dtype != np.uint8:
            raise PackError(f"holds images of {images.dtype}; they must be uint8, 0 to 255")
        if not _are_labels(labels, images.shape):
            raise PackError(
                "must hold a whole number for every image as labels; "
                f"images are {kind_of(images)}, labels {kind_of(labels)}"
            )
        arrange = channels_first(images.shape, self.channels)
        return Stream(labels, arrange(images[:1]).shape[1:], nullcontext(_blocks(images, arrange)))


Arrange = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def channels_first(shape: tuple[int, ...], channels: int) -> Arrange:
    """A function that brings images of this shape to (n, channels, h, w). Raises PackError."""
    if len(shape) == 3 and channels == 1:
        return lambda images: images[:, None]
    is_second = len(shape) == 4 and shape[1] == channels
    is_last = len(shape) == 4 and shape[3] == channels
    if is_second and is_last:
        _refuse_shape(shape, channels, "both the second and the last axis can be the channels")
    if is_second:
        return lambda images: images
    if is_last:
        return lambda images: images.transpose(0, 3, 1, 2)
    return _refuse_shape(shape, channels, "neither does the shape have")


def _refuse_shape(shape: tuple[int, ...], channels: int, reason: str) -> NoReturn:
    raise PackError(
        f"must hold images (n, h, w, {channels}) or (n, {channels}, h, w), {channels} for the "
        f"values in mean: {reason}, got {shape}"
    )


def _are_labels(labels: np.ndarray[Any, Any], shape_of_images: tuple[int, ...]) -> bool:
    return labels.dtype.kind in "iu" and labels.ndim == 1 and shape_of_images[:1] == labels.shape


def _blocks(images: np.ndarray[Any, Any], arrange: Arrange) -> Iterator[np.ndarray[Any, Any]]:
    for start in range(0, len(images), BLOCK):
        yield arrange(images[start : start + BLOCK])


def read_arrays(path: str) -> tuple[Any, np.ndarray[Any, Any]]:
    """The images, of an HDF5 file still on disk, and the labels. Raises PackError."""
    if os.path.isdir(path):
        return _read_npy(path)
    if path.endswith(".npz"):
        return _read_npz(path)
    if path.endswith((".h5", ".hdf5")):
        return _read_hdf5(path)
    raise PackError(
        f"must be an .npz, .h5 or .hdf5, or a folder with images.npy and labels.npy, got {path}"
    )


def _npy_files(folder: str) -> list[str]:
    return [os.path.join(folder, f"{name}.npy") for name in NAMES]


def _read_npy(folder: str) -> tuple[Any, np.ndarray[Any, Any]]:
    with _refuse_damaged(folder):
        images, labels = (
            np.load(file, mmap_mode="r", allow_pickle=False) for file in _npy_files(folder)
        )
    return images, labels


def _read_npz(path: str) -> tuple[Any, np.ndarray[Any, Any]]:
    if not zipfile.is_zipfile(path):
        raise PackError(f"holds no plain arrays: {path} is no .npz, as numpy.savez writes them")
    with _refuse_damaged(path), np.load(path, allow_pickle=False) as file:
        _require_both(path, file.files)
        return file["images"], file["labels"]


def _read_hdf5(path: str) -> tuple[Any, np.ndarray[Any, Any]]:
    try:
        import h5py
    except ImportError:
        raise PackError(f"is an HDF5 file, {path}, which needs h5py: pip install h5py") from None
    file = h5py.File(path, "r")
    _require_both(path, file)
    return file["images"], file["labels"][:]


@contextlib.contextmanager
def _refuse_damaged(path: str) -> Iterator[None]:
    """Turn the errors that NumPy raises on bytes that are not arrays into a PackError."""
    try:
        yield
    except PackError:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile):
        raise PackError(
            f"holds no plain arrays of numbers: {path} is damaged or has objects in it"
        ) from None


def _require_both(path: str, present: Iterable[str]) -> None:
    missing = sorted(set(NAMES) - set(present))
    if missing:
        raise PackError(
            f"must hold arrays images and labels; {path} has no {' and no '.join(missing)} "
            f"but {sorted(present)}"
        )
