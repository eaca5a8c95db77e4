"""Image files in folders, one a class; ImageNet-100 among them.

Workers of a torch DataLoader decode them, once; see `monosem.data.packed`.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gin
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from monosem.core.fields import Count, NotInKey, PathField, Positive, nearest
from monosem.data.dataset import SplitName
from monosem.data.holdout import Holdout
from monosem.data.image_files import (
    EXTENSIONS,
    READING,
    Listing,
    UnusableImage,
    in_words,
    is_hidden,
    is_image,
    kind_of_file,
    list_images,
    read_rgb,
)
from monosem.data.images import must_be_rgb
from monosem.data.packed import (
    FolderName,
    PackedImages,
    PackError,
    SplitSource,
    Stream,
    holds_packs,
    path_hint,
)

FEW = 64  # up to this many images are decoded in this process: others take longer to start
BLOCK = 32  # images that a process decodes at a time
MOST_TOLD = 5  # images that cannot be used, by name
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}  # as people say

HeldOut = Annotated[Holdout, NotInKey("which files are of a split; counts by `Part.content`")]


@gin.register
@dataclass(frozen=True, kw_only=True)
class ImageFolder(PackedImages):
    """Images in <folder>/<split>/<class>/**, as torchvision's ImageFolder takes them.

    Every image becomes RGB of eight bits as a person sees it, or is refused (data/image_files.py).
    Hidden files and folders are left out; files of other kinds are counted. The shorter side of an
    image is resized to `size` pixels (bilinear, antialiased), and the central square is kept. So
    random crops are drawn from that square; the authors' code draws them from the whole image. An
    evaluation sees torchvision's Resize(size) and CenterCrop(crop): exactly where size - crop is a
    multiple of 4, else within one pixel.

    folder: holds the folders of the splits.
    train: the name of the folder of the training split.
    test: the name of the folder of the test split.
    holdout: draws the test split, where `folder` holds the classes themselves: <folder>/<class>/**.
    size: side in pixels of the squares that are kept.
    crop: side of the central square that an evaluation sees; None is all of it. The authors' code
        has 256 and 224.
    only: a text file with one class name a line (# begins a comment), in any order; None takes all
        classes that train has.
    mean: that of ImageNet.
    std: that of ImageNet.
    """

    folder: PathField
    train: FolderName = "train"
    test: FolderName = "val"
    holdout: HeldOut | None = None
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

    def source(self, split: SplitName) -> SplitSource:
        names = self._classes_of(split)
        place = self._place(split)
        files, labels, left_out = listing = list_images(place, names)
        self._refuse_empty_classes(split, names, labels)
        left_out += _beside_classes(place, names)
        options: tuple[object, ...] = (os.path.basename(place), self.size, names)
        if self.holdout is not None:
            files, labels = self._held_out(self.holdout, split, listing, names)
            options = ("held out", self.holdout.share, self.holdout.seed, self.size, names)
        read = functools.partial(
            read_squares, files, labels, self.size, tuple(names), in_words(left_out)
        )
        return SplitSource(files, options, read, READING)

    def _held_out(
        self, holdout: Holdout, split: SplitName, listing: Listing, names: Sequence[str]
    ) -> tuple[list[str], list[int]]:
        """The files and labels of a split, of the classes of one folder."""
        by_class: list[list[str]] = [[] for _ in names]
        for path, label in zip(listing.files, listing.labels, strict=True):
            by_class[label].append(os.path.relpath(path, self.folder))
        files: list[str] = []
        labels: list[int] = []
        for label, own in enumerate(by_class):
            if len(own) < 2:
                place = os.path.join(self.folder, names[label])
                self.refuse("folder", f"must have two images of every class; {place} has one")
            drawn = holdout.test_files(own)
            chosen = [name for name in own if (name in drawn) == (split == "test")]
            files += [os.path.join(self.folder, name) for name in chosen]
            labels += [label] * len(chosen)
        return files, labels

    def listed_classes(self) -> list[str] | None:
        """The classes of the file `only`; None for all."""
        return None if self.only is None else self._read_list(self.only)

    def _classes_of(self, split: SplitName) -> list[str]:
        """The classes in the order of their labels. All classes of a list must be there."""
        place = self._place(split)
        present = _subfolders(place)
        if not present:
            self.refuse(split, f"must hold a folder for every class; {place} holds none")
        listed = self.listed_classes()
        if listed is not None:
            self._refuse_absent(listed, present, place)
            return sorted(listed)
        if self.holdout is not None and SPLITS.issuperset(map(str.lower, present)):
            self.refuse(
                "holdout",
                f"must be None, as {place} has splits and no classes: {_first_few(present)}",
            )
        known = present if split == "train" else _subfolders(self._place("train"))
        unknown = sorted(set(present) - set(known))
        if unknown:
            self.refuse(
                split,
                "must have no class that the training split does not have; "
                f"{place} has {_first_few(unknown)}",
            )
        return known

    def _place(self, split: SplitName) -> str:
        """The folder of a split."""
        if self.holdout is not None:
            return self.folder
        name: str = getattr(self, split)
        place = os.path.join(self.folder, name)
        if not os.path.isdir(place):
            hint = self._holdout_hint() or path_hint(Path(place))
            self.refuse(split, f"must be a folder in {self.folder}, got {name!r}{hint}")
        return place

    def _holdout_hint(self) -> str:
        """What to do where the folder holds no split but classes; '' where it does not look so."""
        if any(os.path.isdir(os.path.join(self.folder, name)) for name in (self.train, self.test)):
            return ""
        present = _subfolders(self.folder) if os.path.isdir(self.folder) else []
        folders = [os.path.join(self.folder, name) for name in present]
        if len(folders) < 2 or SPLITS & set(map(str.lower, present)):
            return ""
        if not all(any(map(is_image, os.listdir(folder))) for folder in folders):
            return ""
        return (
            f"; it holds {_first_few(present)}: if these are the classes, "
            "ImageFolder.holdout = @Holdout() takes a share of each as the test split"
        )

    def _refuse_absent(self, listed: Sequence[str], present: Sequence[str], place: str) -> None:
        absent = sorted(set(listed) - set(present))
        if not absent:
            return
        close = nearest(absent[0], present, "{}")
        hint = f"; nearest to {absent[0]} is {close}" if close else ""
        self.refuse("only", f"names classes that {place} does not have: {_first_few(absent)}{hint}")

    def _refuse_empty_classes(
        self, split: SplitName, names: Sequence[str], labels: Sequence[int]
    ) -> None:
        """A class may lack its folder in the test split, but no folder may be empty."""
        place = self._place(split)
        present, filled = set(os.listdir(place)), {names[label] for label in set(labels)}
        empty = [name for name in names if name in present and name not in filled]
        if empty:
            self.refuse(
                split,
                f"must have images in every class; none ({', '.join(EXTENSIONS)}) in "
                f"{_first_few(empty)} of {place}",
            )

    def _read_list(self, path: str) -> list[str]:
        """The classes that a text file names."""
        self.must_exist("only", path)
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            self.refuse(
                "only",
                f"must be a text file with a class a line; {path} cannot be read as one: {error}",
            )
        without_comments = [line.partition("#")[0].strip() for line in lines]
        names = [name for name in without_comments if name]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            self.refuse(
                "only",
                f"must name every class once; {path} has {_first_few(repeated)} more than once",
            )
        if not names:
            self.refuse("only", f"must name a class a line; {path} names none")
        return names


@gin.register
@dataclass(frozen=True, kw_only=True)
class ImageNet100(ImageFolder):
    """100 classes of ImageNet (ILSVRC 2012), in folders named by wordnet ids in both splits.

    only: as in ImageFolder, but of exactly 100 names. None takes the classes of Tian et al.,
        Contrastive Multiview Coding (arXiv:1906.05849), imagenet100.txt beside this file;
        solo-learn, on which the authors' code is built, has the same.
    """

    def listed_classes(self) -> list[str]:
        path = self.only or str(Path(__file__).with_name("imagenet100.txt"))
        names = self._read_list(path)
        if len(names) != 100:
            self.refuse("only", f"must name 100 classes; {path} names {len(names)}")
        return names


def _subfolders(place: str) -> list[str]:
    folders = (entry for entry in os.scandir(place) if entry.is_dir())
    return sorted(
        folder.name for folder in folders if not is_hidden(folder.name) and not holds_packs(folder)
    )


def _beside_classes(place: str, names: Sequence[str]) -> Counter[str]:
    """What lies beside the folders of classes, by kind; whole folders as such."""
    left_out: Counter[str] = Counter()
    for entry in os.scandir(place):
        if entry.name in names or holds_packs(entry):
            continue
        is_folder = entry.is_dir() and not is_hidden(entry.name)
        left_out["of other classes" if is_folder else kind_of_file(entry.name)] += 1
    return left_out


def _first_few(names: Sequence[str], most: int = 5) -> str:
    """`a, b, c, d, e and 95 more`."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def read_squares(
    paths: Sequence[str],
    labels: Sequence[int],
    size: int,
    class_names: tuple[str, ...],
    left_out: str = "",
) -> Stream:
    """The central squares of image files, (3, size, size) each. left_out: as of Stream."""
    squares = SquareImages(paths, size)
    return Stream(labels, (3, size, size), decoded(squares), class_names, left_out=left_out)


class SquareImages(TorchDataset[np.ndarray[Any, Any] | PackError]):
    """Image files -> (3, size, size) uint8: RGB, the shorter side resized, the central square.

    The item of a file that cannot be read is an error object. Raised in another process, it would
    arrive here as the text of a traceback.
    """

    def __init__(self, paths: Sequence[str], size: int):
        from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

        self.paths = paths
        self.transform = Compose([Resize(size), CenterCrop(size), PILToTensor()])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray[Any, Any] | PackError:
        path = self.paths[index]
        try:
            image = read_rgb(path)
        except UnusableImage as error:
            return PackError(f"holds an image that cannot be used: {path} {error}")
        except Exception as error:  # decoders raise all kinds on broken files
            return PackError(
                f"holds an image that cannot be read: {path} ({type(error).__name__}: {error})"
            )
        pixels: Tensor = self.transform(image)
        return pixels.numpy()


@contextmanager
def decoded(squares: SquareImages) -> Iterator[Iterator[np.ndarray[Any, Any]]]:
    """Blocks (k, 3, size, size) of the images, in order, from a process on every core."""
    loader = DataLoader(
        squares,
        batch_size=BLOCK,
        num_workers=_workers_for(len(squares)),
        collate_fn=_stack,
        worker_init_fn=_end_with_the_parent,
        generator=torch.Generator(),  # or it would draw from the global one
    )
    try:
        with _interrupts_deferred():
            blocks = iter(loader)
        yield _without_errors(blocks)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise PackError(
            "cannot be packed: a process that decodes images was killed "
            f"(is there enough memory?): {error}"
        ) from None


def _workers_for(count: int) -> int:
    if count <= FEW:
        return 0
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    cores = len(allowed) or os.cpu_count() or 1
    return min(cores, -(-count // BLOCK))


Block = tuple[np.ndarray[Any, Any] | None, list[PackError]]  # images; or what is wrong with some


def _stack(squares: Sequence[np.ndarray[Any, Any] | PackError]) -> Block:
    """One block. It is not a tensor, as tensors take room in /dev/shm."""
    errors = [square for square in squares if isinstance(square, PackError)]
    arrays = [square for square in squares if not isinstance(square, PackError)]
    return (None if errors else np.stack(arrays)), errors


def _without_errors(blocks: Iterator[Block]) -> Iterator[np.ndarray[Any, Any]]:
    """The images; after the first error the others are looked for, and all are told at once."""
    errors: list[PackError] = []
    for images, wrong in blocks:
        errors += wrong
        if images is not None and not errors:
            yield images
    if errors:
        raise PackError(_all_told(list(map(str, errors))))


def _all_told(messages: Sequence[str]) -> str:
    """The first messages, one after the other, and how many more there are."""
    first, *others = messages
    short = [other.removeprefix("holds an image that ") for other in others[: MOST_TOLD - 1]]
    rest = len(messages) - MOST_TOLD
    return "; ".join([first, *short]) + (f"; and {rest} more such images" if rest > 0 else "")


@contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Ctrl+C waits until the block ends. Processes that start in the block ignore it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_the_parent(worker: int) -> None:
    """Called in a worker: end this process when its parent has ended.

    Torch's own check would wait until all decoded images are taken, which nobody does any more.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "called in a child"

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
