"""Packs: the images of a split as one array on disk, made once and mapped into memory from then on.

    <folder>/images.npy   (n, channels, height, width) uint8
    <folder>/labels.npy   (n,) int64
    <folder>/pack.json    written last: what both files must be, what they were made from, the names of the classes
    <folder>.partial/     a pack that is being made, or was when its process ended; held by a lock on the folder

No dataset is known here, and torch is imported only where a pack is opened: the processes that decode images start without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from monosem.core.files import atomic_write, file_digest, lock, write_synced

if TYPE_CHECKING:
    from torch import Tensor


VERSION = 1  # of the format; a pack of another version is made again


FEW = 64  # so many images are decoded in this process: others take longer to start


CHUNK = 32  # images a task of another process


BLOCK = 1024  # images at a time in this process


class PackError(ValueError):
    """What cannot be packed, or a pack that cannot be used. The message goes on from the name of a field: "holds ..."."""


class PlaceError(PackError):
    """A folder that cannot take a pack. The message goes on from the name of a field."""


class Source(NamedTuple):
    """What a pack is made of.

    items: n images in whatever form; a slice of them is what `read` takes. A list of paths, an array.
    read: k items -> (k, channels, height, width) uint8. Raises PackError. With `pool`, it must pickle.
    labels: (n,) whole numbers. shape: (channels, height, width). names: of the classes, where they are known.
    pool: whether reading is worth a process on every core, as decoding is.
    """

    items: Any
    read: Callable[[Any], np.ndarray[Any, Any]]
    labels: Sequence[int] | np.ndarray[Any, Any]
    shape: tuple[int, int, int]
    names: tuple[str, ...] = ()
    pool: bool = False


class Pack(NamedTuple):
    """images: (n, channels, height, width) uint8, a read-only map of the file (writing to it ends the process).

    labels: (n,) int64. names: of the classes, () if unknown. digest: of all pixels and labels.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    digest: str


def fingerprint(root: str, files: Iterable[str], *options: object) -> str:
    """Changes when a file does, by its name under `root`, its size or its time, and when an option does."""
    found = [
        (path.removeprefix(root), (stat := os.stat(path)).st_size, stat.st_mtime_ns)
        for path in files
    ]
    return hashlib.sha256(json.dumps([options, found]).encode()).hexdigest()


def packed(folder: Path, made_from: str, source: Callable[[], Source]) -> Pack:
    """The pack in `folder`; made of `source()` first unless it is there and was made from the same `fingerprint`."""
    while (pack := _opened(folder, made_from)) is None:
        with contextlib.ExitStack() as stack:
            try:
                place = stack.enter_context(lock(folder.with_name(f"{folder.name}.partial")))
            except OSError as error:
                raise PlaceError(
                    f"must name a folder that can be written to; {folder.parent} cannot: {error.strerror}"
                ) from None
            if place is None:  # another process has just finished, or given up
                continue
            try:
                if _opened(folder, made_from) is None:
                    _make(place, folder, made_from, source())
                else:
                    place.rmdir()
            except BaseException:
                shutil.rmtree(place, ignore_errors=True)
                raise
    return pack


# ------------------------------------------------------------------------------------------------ opening


def _opened(folder: Path, made_from: str) -> Pack | None:
    """The pack if there is one of what is wanted, and its files are as they were written."""
    record = _record(folder)
    if record is None or record["version"] != VERSION or record["made_from"] != made_from:
        return None
    _verify(folder, record)
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        images = torch.from_numpy(np.load(folder / "images.npy", mmap_mode="r"))
    labels = torch.from_numpy(np.load(folder / "labels.npy"))
    sums = [record["files"][name]["sha256"] for name in ("images.npy", "labels.npy")]
    digest = hashlib.sha256(json.dumps([sums, record["shape"]]).encode()).hexdigest()
    return Pack(images, labels, tuple(record["names"]), digest)


def _record(folder: Path) -> dict[str, Any] | None:
    if not folder.exists():
        return None
    try:
        record = json.loads((folder / "pack.json").read_text())
        if not {"version", "made_from", "files"} <= set(record):
            raise ValueError("pack.json is not of a pack")
    except (OSError, ValueError) as error:
        raise PackError(
            f"has a pack that cannot be read, {folder} ({error}); delete that folder and it is packed again"
        ) from None
    return dict(record)


def _verify(folder: Path, record: dict[str, Any]) -> None:
    """Trust the checksums of files that have kept size and time; read the others again."""
    touched = False
    for name, wanted in record["files"].items():
        path = folder / name
        if not path.exists():
            raise PackError(f"has a pack without {path}; delete {folder} and it is packed again")
        stat = path.stat()
        if (stat.st_size, stat.st_mtime_ns) != (wanted["bytes"], wanted["mtime_ns"]):
            got, expected = file_digest(path), wanted["sha256"]
            if got != expected:
                raise PackError(
                    f"has a damaged pack: {path} must have the sha256 {expected}, got {got}; delete {folder} and it is packed again"
                )
            wanted["mtime_ns"], touched = stat.st_mtime_ns, True
    if touched:  # copied, say: the next process need not read it all again
        with contextlib.suppress(OSError), atomic_write(folder / "pack.json") as aside:
            aside.write_text(json.dumps(record))


# ------------------------------------------------------------------------------------------------ packing


def _make(place: Path, folder: Path, made_from: str, source: Source) -> None:
    """Fill `place` and rename it to `folder`, whose old pack goes."""
    labels = np.asarray(source.labels, dtype=np.int64)
    shape = (len(labels), *source.shape)
    if folder.exists():
        print(f"{folder} was made from files that have changed: packing again", file=sys.stderr)
        shutil.rmtree(folder)
    paths = [place / "images.npy", place / "labels.npy"]
    for path in paths:  # left by a process that was killed
        path.unlink(missing_ok=True)
    needed, free = math.prod(shape) + labels.nbytes, shutil.disk_usage(place).free
    if needed > free:
        raise PlaceError(
            f"must name a folder with room for {needed / 1e9:.3g} GB of packed images; {folder.parent} has {free / 1e9:.3g}"
        )
    print(f"packing {len(labels)} images into {folder}", file=sys.stderr)
    images = np.lib.format.open_memmap(paths[0], mode="w+", dtype=np.uint8, shape=shape)
    _allocate(paths[0], folder.parent)
    with tqdm(
        desc=f"packing {folder.name}",
        total=len(labels),
        unit="image",
        leave=False,
        dynamic_ncols=True,
        disable=None,
    ) as bar:
        for count in _filled(paths[0], source, len(labels)):
            bar.update(count)
    images.flush()
    np.save(paths[1], labels)
    for path in paths:
        os.utime(path)  # a map may set the time of its file late
    files = {
        path.name: {
            "sha256": file_digest(path),
            "bytes": path.stat().st_size,
            "mtime_ns": path.stat().st_mtime_ns,
        }
        for path in paths
    }
    record = {
        "version": VERSION,
        "made_from": made_from,
        "shape": shape,
        "names": source.names,
        "files": files,
    }
    write_synced(place / "pack.json", json.dumps(record).encode())
    place.rename(folder)


def _allocate(path: Path, home: Path) -> None:
    """Take the room now: a disk that is full when a map is written to ends the process, without a word."""
    with path.open("r+b") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise PlaceError(
                f"must name a folder with room for {path.stat().st_size / 1e9:.3g} GB; {home}: {error.strerror}"
            ) from None


def _filled(path: Path, source: Source, n: int) -> Iterator[int]:
    """Fill the array in `path`; yields how many images were read, as they are."""
    if not source.pool or n <= FEW:
        for start in range(0, n, BLOCK):
            yield _fill(path, start, source.items[start : start + BLOCK], source.read)
        return
    workers = min(os.cpu_count() or 1, math.ceil(n / CHUNK))
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_follow_the_parent
    )
    try:
        with _no_interrupt():
            tasks = [
                pool.submit(_fill, path, start, source.items[start : start + CHUNK], source.read)
                for start in range(0, n, CHUNK)
            ]
        for task in as_completed(tasks):
            yield task.result()
    except BrokenProcessPool:
        raise PackError(
            "cannot be packed: a process that decodes images was killed (is there enough memory?)"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _fill(path: Path, start: int, items: Any, read: Callable[[Any], np.ndarray[Any, Any]]) -> int:
    images = np.load(path, mmap_mode="r+")
    images[start : start + len(items)] = read(items)
    return len(items)


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ctrl+C has to wait; processes that are started meanwhile never hear of it, as it is the parent's to handle."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow_the_parent() -> None:
    """In a process of the pool: when the parent is gone, so is this. (It would wait for work for ever.)"""
    parent = multiprocessing.parent_process()
    assert parent is not None, "called in a child"

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


# ------------------------------------------------------------------------------------------------ images


def squares(paths: Sequence[str], size: int) -> np.ndarray[Any, Any]:
    """Image files -> (n, 3, size, size) uint8: RGB, the shorter side resized to `size`, the central square.

    Pixel for pixel what torchvision's Resize(size) and CenterCrop(size) make of PIL images: bilinear, antialiased.
    """
    return np.stack([_square(path, size) for path in paths])


def _square(path: str, size: int) -> np.ndarray[Any, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of odd EXIF data and transparent palettes, which ImageNet is full of
            with Image.open(path) as opened:
                image = opened.convert("RGB")
    except Exception as error:  # what decoders raise on broken files is of every kind
        raise PackError(
            f"holds an image that cannot be read: {path} ({type(error).__name__}: {error})"
        ) from None
    width, height = image.size
    short = min(width, height)
    width, height = (
        size if side == short else int(size * side / short) for side in (width, height)
    )
    left, top = round((width - size) / 2), round((height - size) / 2)
    square = image.resize((width, height), Image.Resampling.BILINEAR).crop(
        (left, top, left + size, top + size)
    )
    return np.asarray(square).transpose(2, 0, 1)
