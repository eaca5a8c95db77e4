"""Datasets: two tensors a split, and the constants that normalise them."""

from __future__ import annotations

import difflib
import functools
import http.client
import importlib.util
import os
import pickle
import shutil
import socket
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import gin
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from monosem import pack
from monosem.files import file_digest, held
from monosem.stage import Aside, Count, Part, Place, Positive, digest, generator

Split = Literal["train", "test"]


class Images(NamedTuple):
    """images: (n, channels, height, width) uint8; labels: (n,) int64, 0 .. classes - 1."""

    images: Tensor
    labels: Tensor


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

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def classes(self) -> int:
        return int(self.split("train").labels.max()) + 1

    def flaw(self) -> str | None:
        """What keeps the splits from being used, if anything: for datasets that somebody has just written."""
        for split in get_args(Split):
            images, labels = self.split(split)
            if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != self.channels or labels.dtype != torch.int64:
                return (
                    f"must hold uint8 images (n, {self.channels}, height, width), a channel for each mean, and int64 labels (n,); "
                    f"the {split} split has {images.dtype} {tuple(images.shape)} and {labels.dtype} {tuple(labels.shape)}"
                )
            if len(images) != len(labels) or not len(labels):
                return f"must hold a label for every image, and some of them; the {split} split has {len(images)} and {len(labels)}"
            if labels.min() < 0 or labels.max() >= self.classes:
                return f"must label every image with a class of the training split, 0 to {self.classes - 1}; not so the {split} split"
        missing = (self.split("train").labels.bincount() == 0).nonzero()[:, 0].tolist()
        return f"must number classes from 0 without gaps; the training split has none of {missing}" if missing else None

    def seen(self, images: Tensor) -> Tensor:
        """(n, c, h, w) uint8 -> the same: what an evaluation sees of the images."""
        return images

    def normalise(self, pixels: Tensor) -> Tensor:
        """(n, c, h, w) in [0, 1] -> zero mean and unit deviation per channel over the training split."""
        mean, std = (torch.tensor(each, dtype=pixels.dtype, device=pixels.device) for each in (self.mean, self.std))
        return (pixels - mean[:, None, None]) / std[:, None, None]


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
            self.refuse(field, f"must be there, got {path}{_nearest(Path(path))}")


@functools.lru_cache(maxsize=8)
def _packs(data: Packed) -> dict[Split, pack.Pack]:
    """Both splits, opened once a process: what counts in a key is what is then loaded, whatever happens to the files."""
    return {split: data.packed(split) for split in get_args(Split)}


def _nearest(path: Path) -> str:
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


# ------------------------------------------------------------------------------------------------ CIFAR


@gin.register
@dataclass(frozen=True)
class CIFAR10(Packed):
    """60,000 photographs of 32 x 32 pixels in 10 classes (Krizhevsky 2009), 10,000 of them for testing.

    folder: holds, or gets by download from the author's page, the folder cifar-10-batches-py.
    original: the files must be the published ones, by their MD5. False takes any files of that format, a smaller set say:
        pickled dictionaries with data, uint8 (n, 3072), and labels, a list of n whole numbers.
    mean, std: of the training pixels; the reference's probes normalise both CIFAR-10 and CIFAR-100 with them.
    """

    folder: Place = "data"
    original: Annotated[bool, Aside("a check; what the files hold counts, through `Part.content`")] = True
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[Positive, ...] = (0.247, 0.243, 0.261)

    def validate(self) -> None:
        super().validate()
        _must_be_rgb(self)

    def published(self) -> Any:
        """torchvision's class, which says what the files are called, where they are on the net and what their MD5s are."""
        from torchvision.datasets import CIFAR10 as Published  # two seconds that no other dataset needs

        return Published

    def packed(self, split: Split) -> pack.Pack:
        home = Path(self.folder, self.published().base_folder)
        if not home.exists():
            if not self.original:
                self.refuse("folder", f"must hold the files, got {self.folder}{_nearest(home)}; original = True downloads them")
            self._download(home)
        return super().packed(split)

    def source(self, split: Split) -> tuple[Sequence[str], tuple[object, ...], Source]:
        published = self.published()
        home = os.path.join(self.folder, published.base_folder)
        known = {published.meta["filename"]: published.meta["md5"]}
        known |= published.train_list if split == "train" else published.test_list
        sums = {os.path.join(home, name): md5 for name, md5 in known.items()}
        meta, *batches = sums
        missing = [path for path in sums if not os.path.exists(path) and (path != meta or self.original)]
        if missing:
            again = f"; delete {home} and it is downloaded again" if self.original else ""
            self.refuse("folder", f"must hold all files of the set; not there: {', '.join(missing)}{again}")

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
            return pack.Source(pixels, _as_it_is, [label for table in tables for label in table[1]], (3, 32, 32), words)

        return [path for path in sums if os.path.exists(path)], (self.original,), read

    def _download(self, home: Path) -> None:
        """Download, check and unpack into `home`, which is whole or absent."""
        from torchvision.datasets.utils import download_and_extract_archive

        published = self.published()
        try:
            while not home.exists():
                with held(home.with_name(f"{home.name}.partial")) as place:
                    if place is None:
                        continue
                    print(f"downloading {published.url} into {self.folder}", file=sys.stderr)
                    try:
                        with patience(PATIENCE):
                            download_and_extract_archive(published.url, place, filename=published.filename, md5=published.tgz_md5)
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


def _must_be_rgb(data: Dataset) -> None:
    if len(data.mean) != 3:
        data.refuse("mean", f"must hold 3 values, for red, green and blue, got {data.mean}")


def _as_it_is(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return images


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
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072:
        raise pack.PackError(f"holds {path}, whose data are no uint8 (n, 3072) but {_described(pixels)}")
    labels = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if not isinstance(labels, list) or len(labels) != len(pixels) or not all(isinstance(label, int | np.integer) for label in labels):
        raise pack.PackError(f"holds {path}, whose labels are no list of {len(pixels)} whole numbers")
    return pixels, labels


def _described(what: object) -> str:
    return f"{what.dtype} {what.shape}" if hasattr(what, "dtype") and hasattr(what, "shape") else type(what).__name__


def unpickled(path: str) -> dict[str, Any]:
    """The dictionary in a pickle of arrays, containers, numbers and words. A pickle can run code: anything else is refused."""
    try:
        with open(path, "rb") as file:
            table = _Unpickler(file, encoding="bytes").load()  # Python 2's words, as in the published files, are bytes
    except pack.PackError as error:
        raise pack.PackError(f"holds {path}, which {error}") from None
    except Exception as error:  # bytes that are no pickle lead anywhere
        raise pack.PackError(f"holds {path}, which is no pickle that can be read ({type(error).__name__}: {error})") from None
    if not isinstance(table, dict):
        raise pack.PackError(f"holds {path}, which is a pickled {type(table).__name__}, not a dictionary")
    return {name.decode() if isinstance(name, bytes) else str(name): value for name, value in table.items()}


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
            raise pack.PackError(f"asks for {module}.{name}: only arrays, containers, numbers and words are taken from a pickle")
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


# ------------------------------------------------------------------------------------------------ folders of images


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

    folder: Place
    train: Folder = "train"
    test: Folder = "val"
    size: Count = 256
    crop: Count | None = None
    only: Place | None = None
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[Positive, ...] = (0.229, 0.224, 0.225)

    def validate(self) -> None:
        super().validate()
        _must_be_rgb(self)
        if self.crop is not None and self.crop > self.size:
            self.refuse("crop", f"must be at most size, {self.size}, got {self.crop}")

    def seen(self, images: Tensor) -> Tensor:
        if self.crop is None:
            return images
        start = round((self.size - self.crop) / 2)
        return images[..., start : start + self.crop, start : start + self.crop]

    def source(self, split: Split) -> tuple[Sequence[str], tuple[object, ...], Source]:
        from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

        names = self._names(split)
        place = self._split(split)
        pairs = make_dataset(place, {name: label for label, name in enumerate(names)}, IMG_EXTENSIONS, allow_empty=True)
        files, labels = [path for path, _ in pairs], [label for _, label in pairs]
        there, filled = set(os.listdir(place)), set(labels)
        if empty := [name for label, name in enumerate(names) if name in there and label not in filled]:
            self.refuse(split, f"must have images in every class; none ({', '.join(IMG_EXTENSIONS)}) in {_listed(empty)} of {place}")

        def read() -> pack.Source:
            shape = (3, self.size, self.size)
            return pack.Source(files, functools.partial(pack.squares, size=self.size), labels, shape, tuple(names), pool=True)

        return files, (os.path.basename(place), self.size, names), read

    def wanted(self) -> list[str] | None:
        """The classes of the file `only`; None for all."""
        return None if self.only is None else self._read_classes(self.only)

    def _names(self, split: Split) -> list[str]:
        """The classes in the order of their labels, all of which the split has if they are listed."""
        have, wanted = _subfolders(self._split(split)), self.wanted()
        if not have:
            self.refuse(split, f"must hold a folder for every class; {self._split(split)} holds none")
        if wanted is not None:
            if missing := sorted(set(wanted) - set(have)):
                close = difflib.get_close_matches(missing[0], have, n=1)
                near = f"; nearest to {missing[0]} is {close[0]}" if close else ""
                self.refuse("only", f"names classes that {self._split(split)} does not have: {_listed(missing)}{near}")
            return sorted(wanted)
        known = have if split == "train" else _subfolders(self._split("train"))
        if strange := sorted(set(have) - set(known)):
            self.refuse(split, f"must have no class that the training split does not have; {self._split(split)} has {_listed(strange)}")
        return known

    def _split(self, split: Split) -> str:
        place = os.path.join(self.folder, getattr(self, split))
        if not os.path.isdir(place):
            self.refuse(split, f"must be a folder in {self.folder}, got {getattr(self, split)!r}{_nearest(Path(place))}")
        return place

    def _read_classes(self, path: str) -> list[str]:
        self._must_exist("only", path)
        names = [name for line in Path(path).read_text().splitlines() if (name := line.partition("#")[0].strip())]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            self.refuse("only", f"must name every class once; {path} has {_listed(twice)} more than once")
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


# ------------------------------------------------------------------------------------------------ arrays


@gin.register
@dataclass(frozen=True, kw_only=True)
class Arrays(Packed):
    """Images and labels in arrays that somebody has written: `images`, uint8, and `labels`, whole numbers (n,).

    Images are (n, h, w), (n, h, w, c) or (n, c, h, w), where c is the number of values in `mean`.

    train, test: for each split an .npz, an .h5 or .hdf5 (with h5py) with both arrays, or a folder with images.npy and labels.npy.
    """

    train: Place
    test: Place

    def origin(self, split: Split) -> str:
        return split

    def source(self, split: Split) -> tuple[Sequence[str], tuple[object, ...], Source]:
        path = getattr(self, split)
        files = [os.path.join(path, f"{name}.npy") for name in ARRAYS] if os.path.isdir(path) else [path]
        if missing := [file for file in files if not os.path.exists(file)]:
            self.refuse(split, f"must hold images.npy and labels.npy; not there: {', '.join(missing)}")

        def read() -> pack.Source:
            images, labels = _arrays(path)
            if images.dtype != np.uint8:
                raise pack.PackError(f"holds images of {images.dtype}; they must be uint8, 0 to 255")
            if labels.dtype.kind not in "iu" or labels.ndim != 1 or images.shape[:1] != labels.shape:
                raise pack.PackError(
                    f"must hold a whole number for every image as labels; images are {_described(images)}, labels {_described(labels)}"
                )
            turn = self._turn(images.shape)
            return pack.Source(images, turn, labels, turn(images[:1]).shape[1:])

        return files, (self.channels,), read

    def _turn(self, shape: tuple[int, ...]) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
        """What brings images of this shape to (n, c, h, w)."""
        c = self.channels
        if len(shape) == 3 and c == 1:
            return lambda images: images[:, None]
        first, last = (len(shape) == 4 and shape[axis] == c for axis in (1, 3))
        if first == last:
            which = "both the second and the last axis can be the channels" if first else "neither does the shape have"
            raise pack.PackError(f"must hold images (n, h, w, {c}) or (n, {c}, h, w), {c} for the values in mean: {which}, got {shape}")
        return _as_it_is if first else lambda images: images.transpose(0, 3, 1, 2)


ARRAYS = ("images", "labels")


def _arrays(path: str) -> tuple[Any, np.ndarray[Any, Any]]:
    """The images, for an HDF5 file still on disk, and the labels."""
    try:
        if os.path.isdir(path):
            images, labels = (np.load(os.path.join(path, f"{name}.npy"), mmap_mode="r", allow_pickle=False) for name in ARRAYS)
            return images, labels
        if path.endswith(".npz"):
            with np.load(path, allow_pickle=False) as file:
                return tuple(file[name] for name in _named(path, file.files))
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise error if isinstance(error, pack.PackError) else pack.PackError(f"holds no plain arrays: {path} ({error})") from None
    if not path.endswith((".h5", ".hdf5")):
        raise pack.PackError(f"must be an .npz, .h5 or .hdf5, or a folder with images.npy and labels.npy, got {path}")
    try:
        import h5py
    except ImportError:
        raise pack.PackError(f"is an HDF5 file, {path}, which needs h5py: pip install h5py") from None
    file = h5py.File(path, "r")
    images, labels = (file[name] for name in _named(path, file))
    return images, labels[:]


def _named(path: str, found: Iterable[str]) -> tuple[str, ...]:
    if missing := set(ARRAYS) - set(found):
        raise pack.PackError(f"must hold arrays images and labels; {path} has no {' and no '.join(sorted(missing))} but {sorted(found)}")
    return ARRAYS
