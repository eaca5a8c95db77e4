"""CIFAR-10 and CIFAR-100: downloaded or found, checked, and read without running what is in their pickles."""

from __future__ import annotations

import http.client
import os
import pickle
import shutil
import socket
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gin
import numpy as np

from monosem.core.fields import NotInKey, PathField, Positive
from monosem.core.files import file_digest, lock
from monosem.data import pack
from monosem.data.dataset import SplitName
from monosem.data.images import must_be_rgb
from monosem.data.packed import Packed, Source, as_it_is, described, nearest


@gin.register
@dataclass(frozen=True)
class CIFAR10(Packed):
    """60,000 photographs of 32 x 32 pixels in 10 classes (Krizhevsky 2009), 10,000 of them for testing.

    folder: holds, or gets by download from the author's page, the folder cifar-10-batches-py.
    original: the files must be the published ones, by their MD5. False takes any files of that format, a smaller set say:
        pickled dictionaries with data, uint8 (n, 3072), and labels, a list of n whole numbers.
    mean, std: of the training pixels; the reference's probes normalise both CIFAR-10 and CIFAR-100 with them.
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
        """torchvision's class, which says what the files are called, where they are on the net and what their MD5s are."""
        from torchvision.datasets import (
            CIFAR10 as Published,  # two seconds that no other dataset needs
        )

        return Published

    def packed(self, split: SplitName) -> pack.Pack:
        home = Path(self.folder, self.published().base_folder)
        if not home.exists() and Path(self.folder).name == home.name:
            self.refuse(
                "folder",
                f"must be the folder that {home.name} is in, {Path(self.folder).parent}, got {self.folder}",
            )
        if not home.exists():
            if not self.original:
                self.refuse(
                    "folder",
                    f"must hold the files, got {self.folder}{nearest(home)}; original = True downloads them",
                )
            self._download(home)
        return super().packed(split)

    def source(self, split: SplitName) -> tuple[Sequence[str], tuple[object, ...], Source]:
        published = self.published()
        home = os.path.join(self.folder, published.base_folder)
        known = {published.meta["filename"]: published.meta["md5"]}
        known |= published.train_list if split == "train" else published.test_list
        sums = {os.path.join(home, name): md5 for name, md5 in known.items()}
        meta, *batches = sums
        missing = [
            path for path in sums if not os.path.exists(path) and (path != meta or self.original)
        ]
        if missing:
            again = f"; delete {home} and it is downloaded again" if self.original else ""
            self.refuse(
                "folder", f"must hold all files of the set; not there: {', '.join(missing)}{again}"
            )

        def read() -> pack.Source:
            for path, expected in sums.items() if self.original else ():
                if (got := file_digest(Path(path), "md5")) != expected:
                    raise pack.PackError(
                        f"must hold the published files: {path} must have the MD5 {expected}, got {got}; delete {home} and "
                        "it is downloaded again, or set original = False to take the files as they are"
                    )
            tables = [_cifar_table(path) for path in batches]
            names = unpickled(meta).get(published.meta["key"], ()) if os.path.exists(meta) else ()
            pixels = np.concatenate([table[0] for table in tables]).reshape(-1, 3, 32, 32)
            words = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
            return pack.Source(
                pixels,
                as_it_is,
                [label for table in tables for label in table[1]],
                (3, 32, 32),
                words,
            )

        return [path for path in sums if os.path.exists(path)], (self.original,), read

    def _download(self, home: Path) -> None:
        """Download, check and unpack into `home`, which is whole or absent."""
        from torchvision.datasets.utils import download_and_extract_archive

        published = self.published()
        try:
            while not home.exists():
                with lock(home.with_name(f"{home.name}.partial")) as place:
                    if place is None:
                        continue
                    print(f"downloading {published.url} into {self.folder}", file=sys.stderr)
                    try:
                        with patience(PATIENCE):
                            download_and_extract_archive(
                                published.url,
                                place,
                                filename=published.filename,
                                md5=published.tgz_md5,
                            )
                        if not home.exists():
                            (place / published.base_folder).rename(home)
                    finally:
                        shutil.rmtree(place, ignore_errors=True)
        except (OSError, RuntimeError, http.client.HTTPException, tarfile.TarError) as error:
            self.refuse(
                "folder",
                f"must hold the folder {published.base_folder}: {home} is not there, and downloading {published.url} failed ({error}); "
                f"fetch that file by hand and unpack it: tar xzf {published.filename} -C {self.folder}",
            )


@gin.register
@dataclass(frozen=True)
class CIFAR100(CIFAR10):
    """60,000 photographs of 32 x 32 pixels in 100 classes (Krizhevsky 2009), 10,000 of them for testing. Labels: the fine ones.

    folder: holds, or gets by download from the author's page, the folder cifar-100-python.
    original: as in CIFAR10; the labels are called fine_labels.
    mean, std: the reference's for pre-training. Its probes normalise with those of CIFAR10.
    """

    mean: tuple[float, ...] = (0.5071, 0.4865, 0.4409)
    std: tuple[Positive, ...] = (0.2673, 0.2564, 0.2762)

    def published(self) -> Any:
        from torchvision.datasets import CIFAR100 as Published

        return Published


PATIENCE = 10.0  # seconds to wait for a server that says nothing


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Sockets that are opened meanwhile wait so long for an answer, and not for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _cifar_table(path: str) -> tuple[np.ndarray[Any, Any], list[int]]:
    """(n, 3072) uint8 and n labels of one file."""
    table = unpickled(path)
    pixels, labels = table.get("data"), table.get("fine_labels", table.get("labels"))
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.ndim != 2
        or pixels.shape[1] != 3072
    ):
        raise pack.PackError(
            f"holds {path}, whose data are no uint8 (n, 3072) but {described(pixels)}"
        )
    labels = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if (
        not isinstance(labels, list)
        or len(labels) != len(pixels)
        or not all(isinstance(label, int | np.integer) for label in labels)
    ):
        raise pack.PackError(
            f"holds {path}, whose labels are no list of {len(pixels)} whole numbers"
        )
    return pixels, labels


def unpickled(path: str) -> dict[str, Any]:
    """The dictionary in a pickle of arrays, containers, numbers and words. A pickle can run code: anything else is refused."""
    try:
        with open(path, "rb") as file:
            table = _Unpickler(
                file, encoding="bytes"
            ).load()  # Python 2's words, as in the published files, are bytes
    except pack.PackError as error:
        raise pack.PackError(f"holds {path}, which {error}") from None
    except Exception as error:  # bytes that are no pickle lead anywhere
        raise pack.PackError(
            f"holds {path}, which is no pickle that can be read ({type(error).__name__}: {error})"
        ) from None
    if not isinstance(table, dict):
        raise pack.PackError(
            f"holds {path}, which is a pickled {type(table).__name__}, not a dictionary"
        )
    return {
        name.decode() if isinstance(name, bytes) else str(name): value
        for name, value in table.items()
    }


def _encode(text: str, encoding: str) -> bytes:
    """What Python 3 writes for bytes in protocols below 3."""
    if encoding not in ("latin1", b"latin1"):
        raise pack.PackError(f"encodes words as {encoding!r}")
    return text.encode("latin1")


def _dtype(name: str | bytes, *_: object) -> np.dtype[Any]:
    """Of plain numbers and words: an array of objects has pointers for its bytes. A copy, as the pickle may then alter it."""
    kind = np.dtype(name.decode() if isinstance(name, bytes) else name)
    if kind.kind not in "biufSU":
        raise pack.PackError(f"has an array of {kind}")
    return np.dtype(kind, False, True)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = _REBUILDERS.get((module.replace("numpy.core", "numpy._core"), name))
        if known is None:
            raise pack.PackError(
                f"asks for {module}.{name}: only arrays, containers, numbers and words are taken from a pickle"
            )
        return known


_REBUILDERS = {  # taken from what numpy itself pickles, as their home has moved between versions
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "scalar"): np.int64(0).__reduce__()[0],
    ("numpy._core.numeric", "_frombuffer"): np.empty(1).__reduce_ex__(5)[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytearray"): bytearray,
    ("__builtin__", "bytearray"): bytearray,
}
