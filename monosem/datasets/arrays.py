"""Images in arrays of one's own: .npy, .npz or HDF5 files."""

from __future__ import annotations

import contextlib
import functools
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import gin
import numpy as np

from monosem.core.fields import NotInKey, PathField
from monosem.data.dataset import SplitName
from monosem.data.packed import PackedImages, PackError, SplitSource, Stream, kind_of

NAMES = ("images", "labels")
# What MedMNIST and Keras call the arrays of a split, where one file holds both splits.
OF_A_SPLIT = (("{split}_images", "{split}_labels"), ("x_{split}", "y_{split}"))
BLOCK = 1024  # images at a time

ArrayName = Annotated[
    str, NotInKey("the name of an array; what it holds counts, through `Part.content`")
]


@gin.register
@dataclass(frozen=True, kw_only=True)
class Arrays(PackedImages):
    """Images and labels in arrays that somebody has written.

    The arrays are called `images`, uint8, and `labels`, whole numbers (n,) or (n, 1). Images are
    (n, h, w), (n, h, w, c) or (n, c, h, w), where c is the number of values in `mean`. A file may
    hold both splits, as MedMNIST's (train_images, train_labels) and Keras's (x_test, y_test) do.

    train: an .npz, .h5 or .hdf5 (with h5py) with both arrays, or a folder with images.npy and
        labels.npy.
    test: the same for the test split.
    images: what the array of images is called, {split} for train or test; None takes the names
        above.
    labels: the same for the labels.
    """

    train: PathField
    test: PathField
    images: ArrayName | None = None
    labels: ArrayName | None = None

    def validate(self) -> None:
        super().validate()
        if (self.images is None) != (self.labels is None):
            field, other = ("labels", "images") if self.labels is None else ("images", "labels")
            self.refuse(field, f"must be set too, as {other} is: {getattr(self, other)!r}")

    def origin(self, split: SplitName) -> str:
        return split

    def _names(self, split: SplitName) -> list[tuple[str, str]]:
        """What the arrays of a split may be called, the first first."""
        if self.images is not None and self.labels is not None:
            patterns = [(self.images, self.labels)]
        else:
            patterns = [NAMES, *OF_A_SPLIT]
        return [
            (images.replace("{split}", split), labels.replace("{split}", split))
            for images, labels in patterns
        ]

    def source(self, split: SplitName) -> SplitSource:
        path: str = getattr(self, split)
        names = self._names(split)
        files = _npy_files(path, names) if os.path.isdir(path) else [path]
        missing = [file for file in files if not os.path.exists(file)]
        if missing:
            self.refuse(
                split, f"must hold images.npy and labels.npy; not there: {', '.join(missing)}"
            )
        typed = (self.images, self.labels) if self.images is not None else ()
        read = functools.partial(self._read, path, names)
        return SplitSource(files, (self.channels, *typed), read)

    def _read(self, path: str, names: Sequence[tuple[str, str]]) -> Stream:
        images, labels = read_arrays(path, names)
        if images.dtype != np.uint8:
            raise PackError(
                f"holds images of {images.dtype}; they must be uint8, 0 to 255"
                f"{_way_to_uint8(images.dtype)}"
            )
        if images.shape[:1] == (0,):
            raise PackError(f"must hold images; {path} holds none, {kind_of(images)}")
        if labels.ndim == 2 and labels.shape[1] == 1:  # MedMNIST has them so
            labels = labels[:, 0]
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


def _way_to_uint8(kind: np.dtype[Any]) -> str:
    """How arrays of another type become uint8, where that is usual; '' else."""
    if kind == np.uint16:
        return ": divide by 257 and round, where 65535 is white"
    if kind.kind == "f":
        return ": multiply by 255 and round, where 1.0 is white"
    return ": multiply by 255" if kind == np.bool_ else ""


Names = Sequence[tuple[str, str]]  # of images and labels; the first pair that is there is meant


def read_arrays(path: str, names: Names = (NAMES,)) -> tuple[Any, np.ndarray[Any, Any]]:
    """The images, of an HDF5 file still on disk, and the labels. Raises PackError."""
    if os.path.isdir(path):
        return _read_npy(path, names)
    if path.endswith(".npz"):
        return _read_npz(path, names)
    if path.endswith((".h5", ".hdf5")):
        return _read_hdf5(path, names)
    raise PackError(
        f"must be an .npz, .h5 or .hdf5, or a folder with images.npy and labels.npy, got {path}"
    )


def _npy_files(folder: str, names: Names) -> list[str]:
    """The two files of the first pair of names that is there, else of the first pair."""
    pairs = [[os.path.join(folder, f"{name}.npy") for name in pair] for pair in names]
    return next((pair for pair in pairs if all(map(os.path.exists, pair))), pairs[0])


def _read_npy(folder: str, names: Names) -> tuple[Any, np.ndarray[Any, Any]]:
    with _refuse_damaged(folder):
        images, labels = (
            np.load(file, mmap_mode="r", allow_pickle=False) for file in _npy_files(folder, names)
        )
    return images, labels


def _read_npz(path: str, names: Names) -> tuple[Any, np.ndarray[Any, Any]]:
    if not zipfile.is_zipfile(path):
        raise PackError(f"holds no plain arrays: {path} is no .npz, as numpy.savez writes them")
    with _refuse_damaged(path), np.load(path, allow_pickle=False) as file:
        images, labels = _pair_in(path, file.files, names)
        return file[images], file[labels]


def _read_hdf5(path: str, names: Names) -> tuple[Any, np.ndarray[Any, Any]]:
    try:
        import h5py
    except ImportError:
        raise PackError(f"is an HDF5 file, {path}, which needs h5py: pip install h5py") from None
    file = h5py.File(path, "r")
    images, labels = _pair_in(path, file, names)
    return file[images], file[labels][:]


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


def _pair_in(path: str, present: Iterable[str], names: Names) -> tuple[str, str]:
    """The first pair of names that is there."""
    there = set(present)
    for pair in names:
        if there.issuperset(pair):
            return pair
    missing = [name for name in names[0] if name not in there]
    raise PackError(
        f"must hold arrays {' and '.join(names[0])}; {path} has no {' and no '.join(missing)} "
        f"but {sorted(there)}: Arrays.images and Arrays.labels say what they are called"
    )
