"""CIFAR-10 and CIFAR-100, downloaded or already there, read by torchvision.

Smaller sets in the same format are read here, without running what is in their pickles.
"""

from __future__ import annotations

import functools
import http.client
import pickle
import shutil
import socket
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeGuard

import gin
import numpy as np

from monosem.core.fields import NotInKey, PathField, Positive
from monosem.core.files import file_digest, lock
from monosem.data.dataset import SplitName
from monosem.data.images import must_be_rgb
from monosem.data.packed import (
    Pack,
    PackedImages,
    PackError,
    SplitSource,
    Stream,
    kind_of,
    path_hint,
)
from monosem.datasets.superclasses import superclass_of_every_class

_downloads_allowed = ContextVar("_downloads_allowed", default=True)

PATIENCE = 10.0  # seconds to wait for a server that does not answer
SHAPE = (3, 32, 32)


@gin.register
@dataclass(frozen=True)
class CIFAR10(PackedImages):
    """60,000 photographs of 32 x 32 pixels in 10 classes (Krizhevsky 2009), 10,000 for testing.

    folder: holds, or gets by download from the author's page, the folder cifar-10-batches-py.
    original: the files must be the published ones, by their MD5. False takes any files of that
        format, a smaller set say: pickled dictionaries with `data`, uint8 (n, 3072), and `labels`,
        a list of n whole numbers.
    mean: of the training pixels; the authors' probes normalise CIFAR-100 with it as well.
    std: of the same pixels.
    """

    folder: PathField = "data"
    original: Annotated[
        bool, NotInKey("a check; what the files hold counts, through `Part.content`")
    ] = True
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[Positive, ...] = (0.247, 0.243, 0.261)

    def validate(self) -> None:
        super().validate()
        must_be_rgb(self)

    def published(self) -> Any:
        """torchvision's class: it reads, and knows names, addresses and MD5s of the files."""
        from torchvision.datasets import CIFAR10  # two seconds that no other dataset needs

        return CIFAR10

    @property
    def home(self) -> Path:
        """The folder of the files."""
        return Path(self.folder, self.published().base_folder)

    def pack(self, split: SplitName) -> Pack:
        if not self.home.exists():
            self._download_if_allowed()
        return super().pack(split)

    def source(self, split: SplitName) -> SplitSource:
        read = self._read_published if self.original else self._read_unpublished
        self._refuse_missing_files(split)
        files = [str(path) for path in self._files(split) if path.exists()]
        return SplitSource(files, (self.original,), functools.partial(read, split))

    def _files(self, *splits: SplitName) -> dict[Path, str]:
        """The MD5 of each file by its path: first the names of the classes, then the batches."""
        published = self.published()
        files = {published.meta["filename"]: published.meta["md5"]}
        for split in splits:
            files.update(published.train_list if split == "train" else published.test_list)
        return {self.home / name: md5 for name, md5 in files.items()}

    def _refuse_missing_files(self, split: SplitName) -> None:
        names_of_classes, *batches = self._files(split)
        needed = [names_of_classes, *batches] if self.original else batches
        missing = [str(path) for path in needed if not path.exists()]
        if missing:
            way_out = f"; delete {self.home} and it is downloaded again" if self.original else ""
            self.refuse(
                "folder",
                f"must hold all files of the set; not there: {', '.join(missing)}{way_out}",
            )

    def _read_published(self, split: SplitName) -> Stream:
        try:
            published = self.published()(self.folder, train=split == "train")
        except RuntimeError as error:  # another MD5: nothing was unpickled
            raise PackError(
                f"must hold the published files: {self._first_other_file()}; delete {self.home} "
                "and it is downloaded again, or set original = False to take the files as they are"
            ) from error
        pixels = published.data.transpose(0, 3, 1, 2)
        return Stream(published.targets, SHAPE, nullcontext([pixels]), tuple(published.classes))

    def _first_other_file(self) -> str:
        """The first file that is not the published one."""
        for path, expected in self._files("train", "test").items():
            if not path.exists():
                return f"{path} is not there"
            checksum = file_digest(path, "md5")
            if checksum != expected:
                return f"{path} must have the MD5 {expected}, got {checksum}"
        return f"those in {self.home} have changed while they were read"

    def _read_unpublished(self, split: SplitName) -> Stream:
        names_of_classes, *batches = self._files(split)
        tables = [read_batch(path) for path in batches]
        pixels = np.concatenate([pixels for pixels, _ in tables]).reshape(-1, *SHAPE)
        labels = np.concatenate([labels for _, labels in tables])
        class_names: tuple[str, ...] = ()
        if names_of_classes.exists():
            names = unpickle(names_of_classes).get(self.published().meta["key"], ())
            class_names = tuple(map(_as_text, names))
        return Stream(labels, SHAPE, nullcontext([pixels]), class_names)

    def _download_if_allowed(self) -> None:
        home, folder = self.home, Path(self.folder)
        if folder.name == home.name:
            self.refuse(
                "folder",
                f"must be the folder that {home.name} is in, {folder.parent}, got {folder}",
            )
        if not self.original:
            self.refuse(
                "folder",
                f"must hold the files, got {folder}{path_hint(home)}; "
                "original = True downloads them",
            )
        if not downloads_allowed():
            self.refuse(
                "folder",
                f"must hold the folder {home.name}, which is not in {folder}: it would be "
                f"downloaded from {self.published().url}",
            )
        try:
            with patience(PATIENCE):
                self._download()
        except (OSError, RuntimeError, http.client.HTTPException, tarfile.TarError) as error:
            published = self.published()
            self.refuse(
                "folder",
                f"must hold the folder {home.name}: {home} is not there, and downloading "
                f"{published.url} failed ({error}); fetch that file by hand and unpack it: "
                f"tar xzf {published.filename} -C {folder}",
            )

    def _download(self) -> None:
        """Download, check and unpack into `home`, which is whole or absent."""
        home = self.home
        while not home.exists():
            with lock(home.with_name(f"{home.name}.partial")) as aside:
                if aside is None:  # another process has just finished, or given up
                    continue
                try:
                    self._download_into(aside)
                finally:
                    shutil.rmtree(aside, ignore_errors=True)

    def _download_into(self, aside: Path) -> None:
        if self.home.exists():  # by another process, while this one waited
            return
        published = self.published()
        print(f"downloading {published.url} into {self.folder}", file=sys.stderr)
        published(aside, download=True)
        (aside / published.base_folder).rename(self.home)


@gin.register
@dataclass(frozen=True)
class CIFAR100(CIFAR10):
    """60,000 photographs of 32 x 32 pixels in 100 classes (Krizhevsky 2009), 10,000 for testing.

    Labels are the fine ones.

    folder: holds, or gets by download from the author's page, the folder cifar-100-python.
    original: as in CIFAR10; the labels are called `fine_labels`.
    mean: that of the authors' pre-training. Their probes normalise with that of CIFAR10.
    std: of the same pixels.
    """

    mean: tuple[float, ...] = (0.5071, 0.4865, 0.4409)
    std: tuple[Positive, ...] = (0.2673, 0.2564, 0.2762)

    def published(self) -> Any:
        from torchvision.datasets import CIFAR100

        return CIFAR100

    @property
    def groupings(self) -> Mapping[str, tuple[int, ...]]:
        """superclass: the 20 published ones, five classes each."""
        return {"superclass": superclass_of_every_class()}


def downloads_allowed() -> bool:
    """Whether data may be downloaded now."""
    return _downloads_allowed.get()


@contextmanager
def no_downloads() -> Iterator[None]:
    """As long as the block lasts, data that would have to be downloaded are refused."""
    token = _downloads_allowed.set(False)
    try:
        yield
    finally:
        _downloads_allowed.reset(token)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """As long as the block lasts, new sockets wait that long for an answer, and not for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def read_batch(path: Path) -> tuple[np.ndarray[Any, Any], Sequence[int]]:
    """(n, 3072) uint8 and n labels of one file. Raises PackError."""
    table = unpickle(path)
    pixels = table.get("data")
    labels = table.get("fine_labels", table.get("labels"))
    if not _are_pixels(pixels):
        raise PackError(f"holds {path}, whose data are no uint8 (n, 3072) but {kind_of(pixels)}")
    if isinstance(labels, np.ndarray):
        labels = labels.tolist()
    if not _are_labels(labels, len(pixels)):
        raise PackError(f"holds {path}, whose labels are no list of {len(pixels)} whole numbers")
    return pixels, labels


def _are_pixels(pixels: object) -> TypeGuard[np.ndarray[Any, Any]]:
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2:
        return False
    return bool(pixels.dtype == np.uint8) and pixels.shape[1] == 3072


def _are_labels(labels: object, count: int) -> TypeGuard[list[int]]:
    if not isinstance(labels, list) or len(labels) != count:
        return False
    return all(isinstance(label, int | np.integer) for label in labels)


def _as_text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# A pickle can run code, and files that are not the published ones may come from anywhere. No
# library reads them safely: torch.load(weights_only=True) takes no plain pickle, and NumPy's
# allow_pickle runs everything. So an unpickler that knows arrays, containers, numbers and words.


def unpickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle; PackError for what is no such pickle or asks for more."""
    try:
        with path.open("rb") as file:
            # Python 2's words, as in the published files, are bytes.
            table = _ArraysOnlyUnpickler(file, encoding="bytes").load()
    except PackError as error:
        raise PackError(f"holds {path}, which {error}") from None
    except Exception as error:  # bytes that are no pickle lead anywhere
        raise PackError(
            f"holds {path}, which is no pickle that can be read ({type(error).__name__}: {error})"
        ) from None
    if not isinstance(table, dict):
        raise PackError(f"holds {path}, which is a pickled {kind_of(table)}, not a dictionary")
    return {_as_text(name): value for name, value in table.items()}


class _ArraysOnlyUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        constructor = _CONSTRUCTORS.get((module.replace("numpy.core", "numpy._core"), name))
        if constructor is None:
            raise PackError(
                f"asks for {module}.{name}: "
                "only arrays, containers, numbers and words are taken from a pickle"
            )
        return constructor


def _dtype(name: str | bytes, *_: object) -> np.dtype[Any]:
    """Of numbers or words only: in an array of objects the file's bytes would be pointers.

    A copy, as the pickle may then alter it.
    """
    kind = np.dtype(_as_text(name))
    if kind.kind not in "biufSU":
        raise PackError(f"has an array of {kind}")
    return np.dtype(kind, False, True)


def _encode(text: str, encoding: str | bytes) -> bytes:
    """What Python 3 writes for bytes in protocols below 3."""
    if encoding not in ("latin1", b"latin1"):
        raise PackError(f"encodes words as {encoding!r}")
    return text.encode("latin1")


_CONSTRUCTORS = {  # taken from what NumPy itself pickles, as their home moved between versions
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "scalar"): np.int64(0).__reduce__()[0],
    ("numpy._core.numeric", "_frombuffer"): np.empty(1).__reduce_ex__(5)[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytearray"): bytearray,
    ("__builtin__", "bytearray"): bytearray,
}
