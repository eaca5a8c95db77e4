"""Inputs that are read from files once, kept as one array a split and memory-mapped later.

    <folder>/images.npy   (n, *shape): pixels, uint8; or tokens in texts.npy, int32
    <folder>/labels.npy   (n,) int64
    <folder>/pack.json    written last: what both files must be, what they were made from
    <folder>.partial/     a pack that is being made, or was when its process ended; locked

No format of files is known here: subclasses of `Packed` say what a split is read from.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import json
import math
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from monosem.core.fields import FieldError, NotInKey, PathField, nearest, raise_together
from monosem.core.files import atomic_write, file_digest, lock, write_synced
from monosem.core.identity import digest
from monosem.data.dataset import Dataset, Examples, SplitName
from monosem.data.images import ImageDataset

VERSION = 1  # of the format; a pack of another version is made again
LABELS, RECORD = "labels.npy", "pack.json"
_PACK = re.compile(r"\w+-(train|test)-[0-9a-f]{8}(\.partial)?")
_packs_are_kept = contextvars.ContextVar("packs are kept", default=True)

FolderName = Annotated[
    str, NotInKey("the name of a folder; what it holds counts, through `Part.content`")
]


class PackError(ValueError):
    """What cannot be packed, or a pack that cannot be used.

    The message begins with a verb, as in "holds ...": the name of a field is put in front.
    """


class PlaceError(PackError):
    """A folder that cannot take a pack.

    The message begins with a verb, as in "is ...": the name of a field is put in front.
    """


class Stream(NamedTuple):
    """The inputs of a split, to be read one block after the other.

    labels: (n,) whole numbers.
    shape: of one input; of an image (channels, height, width).
    blocks: entered once; gives arrays (k, *shape) of `dtype`, n inputs in all, in the order of the
        labels. Raises PackError.
    class_names: by label; () where they are not known.
    dtype: of the array.
    kind: what the inputs are; the array's file is named by it.
    left_out: what was there and not read, in words, as in "2 hidden, 1 .txt".
    """

    labels: Sequence[int] | np.ndarray[Any, Any]
    shape: tuple[int, ...]
    blocks: AbstractContextManager[Iterable[np.ndarray[Any, Any]]]
    class_names: tuple[str, ...] = ()
    dtype: str = "uint8"
    kind: str = "images"
    left_out: str = ""


class SplitSource(NamedTuple):
    """What a split is made of.

    files: when one of them changes, the pack is made again.
    options: what else the inputs and the labels depend on; plain JSON data.
    read: opens the files. Called only where there is no pack. Raises PackError.
    reading: how files are read, plain JSON data: where it changes, the pack is made again.
    """

    files: Sequence[str]
    options: tuple[object, ...]
    read: Callable[[], Stream]
    reading: tuple[object, ...] = ()


class Pack(NamedTuple):
    """A pack that was opened.

    inputs: (n, *shape), a read-only map of the file. Writing to it ends the process.
    labels: (n,) int64.
    class_names: by label; () where they are not known.
    digest: of all inputs and labels.
    remarks: what a person should know of how they were read.
    """

    inputs: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    digest: str
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Packed(Dataset):
    """Inputs that are read from files once, into one array a split, which is memory-mapped later.

    packs: where the arrays are kept; None is the folder `packed` beside the files. Set it where
        that folder cannot be written to.
    """

    packs: PathField | None = None

    def origin(self, split: SplitName) -> str:
        """The name of the field that says where the files of a split are."""
        return "folder"

    def source(self, split: SplitName) -> SplitSource:
        """What a split is made of. Raises PackError, FieldError or OSError."""
        raise NotImplementedError

    def load(self, split: SplitName) -> Examples:
        pack = open_packs(self)[split]
        return Examples(pack.inputs, pack.labels)

    @property
    def class_names(self) -> tuple[str, ...]:
        return open_packs(self)[self.splits[0]].class_names or super().class_names

    def remarks(self, split: SplitName) -> tuple[str, ...]:
        return open_packs(self)[split].remarks

    def content(self) -> str:
        return digest([pack.digest for pack in open_packs(self).values()])

    def pack(self, split: SplitName) -> Pack:
        """The pack of a split, made first if need be."""
        field = self.origin(split)
        self.must_exist(field, getattr(self, field))
        try:
            return self._open_or_make(split)
        except PlaceError as error:
            self.refuse("packs", str(error))
        except PackError as error:
            self.refuse(field, str(error))
        except OSError as error:
            self.refuse(field, f"cannot be used: {error}")

    def must_exist(self, field: str, path: str) -> None:
        """Refuse a path that does not exist, with a similar one as a hint."""
        if not os.path.exists(path):
            self.refuse(field, f"must be there, got {path}{path_hint(Path(path))}")

    def _open_or_make(self, split: SplitName) -> Pack:
        place: str = getattr(self, self.origin(split))
        root = place if os.path.isdir(place) else os.path.dirname(place)
        source = self.source(split)
        # Other options, other pack: else two experiments would keep replacing each other's.
        origin = place if self.packs else place.removeprefix(root)
        distinction = digest(origin, source.options)[:8]
        home = Path(self.packs or os.path.join(root, "packed"))
        folder = home / f"{type(self).__name__.lower()}-{split}-{distinction}"
        how = (source.reading,) if source.reading else ()
        made_from = fingerprint(root, source.files, source.options, *how)
        return open_pack(folder, made_from, source.read)


@dataclass(frozen=True)
class PackedImages(Packed, ImageDataset):
    """Packed inputs that are images."""


@functools.lru_cache(maxsize=8)
def open_packs(data: Packed) -> dict[SplitName, Pack]:
    """All splits that there are, opened once a process.

    So the content in the key is that which is loaded later, even if the files change meanwhile.
    What is wrong with any of them is told together.
    """
    packs: dict[SplitName, Pack] = {}
    errors: list[FieldError] = []
    for split in data.splits:
        try:
            packs[split] = data.pack(split)
        except FieldError as error:
            errors.append(error)
    raise_together(errors)
    if len(packs) > 1 and packs["train"].digest == packs["test"].digest:
        data.refuse(
            data.origin("test"),
            "must be of other examples than the training split, got the same ones for both",
        )
    return packs


@contextlib.contextmanager
def packs_not_kept() -> Iterator[None]:
    """As long as the block lasts, nothing is written beside anybody's files.

    A pack that is not there is made in a folder for temporary files, and deleted at once.
    """
    token = _packs_are_kept.set(False)
    try:
        yield
    finally:
        _packs_are_kept.reset(token)


def holds_packs(folder: os.PathLike[str]) -> bool:
    """Whether a folder is one of packs, which may lie beside the folders of classes."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return bool(names) and all(_PACK.fullmatch(name) for name in names)


def fingerprint(root: str, files: Iterable[str], *options: object) -> str:
    """A digest of the options and of the files: their names under `root`, sizes and times."""
    states: list[tuple[str, int, int]] = []
    for path in files:
        status = os.stat(path)
        states.append((path.removeprefix(root), status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps([options, states]).encode()).hexdigest()


def open_pack(folder: Path, made_from: str, read: Callable[[], Stream]) -> Pack:
    """The pack in `folder`.

    It is made of `read()` first unless it is there and was made from the same fingerprint.
    Raises PackError.
    """
    if not _packs_are_kept.get():
        return _open_for_a_look(folder, made_from, read)
    while (pack := _open_existing(folder, made_from)) is None:
        with _locked_aside(folder) as aside:
            if aside is None:  # another process has just finished, or given up
                continue
            try:
                _make_unless_made(aside, folder, made_from, read)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
    return pack


def _open_for_a_look(folder: Path, made_from: str, read: Callable[[], Stream]) -> Pack:
    """As `open_pack`, of a pack that is deleted as soon as it is open: its map stays."""
    if (pack := _open_existing(folder, made_from)) is not None:
        return pack
    with tempfile.TemporaryDirectory(prefix="monosem-") as temporary:
        home = Path(temporary)
        aside = home / f"{folder.name}.partial"
        aside.mkdir()
        _make(aside, home / folder.name, made_from, read())
        pack = _open_existing(home / folder.name, made_from)
    assert pack is not None, "just made"
    return pack


@contextlib.contextmanager
def _locked_aside(folder: Path) -> Iterator[Path | None]:
    """Lock the folder in which a pack is made; None where another process has removed it."""
    with contextlib.ExitStack() as stack:
        try:
            aside = stack.enter_context(lock(folder.with_name(f"{folder.name}.partial")))
        except OSError as error:
            raise PlaceError(
                "must name a folder that can be written to; "
                f"{folder.parent} cannot: {error.strerror}"
            ) from None
        yield aside


def _make_unless_made(
    aside: Path, folder: Path, made_from: str, read: Callable[[], Stream]
) -> None:
    if _open_existing(folder, made_from) is None:
        _make(aside, folder, made_from, read())
    else:  # by another process, while this one waited
        aside.rmdir()


def _open_existing(folder: Path, made_from: str) -> Pack | None:
    """The pack, if there is one of what is wanted and its files are as they were written."""
    record = _read_record(folder)
    if record is None or record["version"] != VERSION or record["made_from"] != made_from:
        return None
    _verify(folder, record)
    (file_of_inputs,) = set(record["files"]) - {LABELS}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        inputs = torch.from_numpy(np.load(folder / file_of_inputs, mmap_mode="r"))
    labels = torch.from_numpy(np.load(folder / LABELS))
    sums = [record["files"][name]["sha256"] for name in (file_of_inputs, LABELS)]
    content = hashlib.sha256(json.dumps([sums, record["shape"]]).encode()).hexdigest()
    return Pack(inputs, labels, tuple(record["names"]), content, tuple(record.get("remarks", ())))


def _read_record(folder: Path) -> dict[str, Any] | None:
    """What was written into pack.json; None where there is no folder."""
    if not folder.exists():
        return None
    try:
        record = json.loads((folder / RECORD).read_text())
        if not {"version", "made_from", "files"} <= set(record):
            raise ValueError(f"{RECORD} is not of a pack")
    except (OSError, ValueError) as error:
        raise PackError(
            f"has a pack that cannot be read, {folder} ({error}); "
            "delete that folder and it is packed again"
        ) from None
    return dict(record)


def _verify(folder: Path, record: dict[str, Any]) -> None:
    """Trust the checksums of files that have kept size and time; read the others again."""
    touched = False
    for name, expected in record["files"].items():
        path = folder / name
        if not path.exists():
            raise PackError(f"has a pack without {path}; delete {folder} and it is packed again")
        status = path.stat()
        if (status.st_size, status.st_mtime_ns) == (expected["bytes"], expected["mtime_ns"]):
            continue
        checksum = file_digest(path)
        if checksum != expected["sha256"]:
            raise PackError(
                f"has a damaged pack: {path} must have the sha256 {expected['sha256']}, "
                f"got {checksum}; delete {folder} and it is packed again"
            )
        expected["mtime_ns"] = status.st_mtime_ns
        touched = True
    if (
        touched and _packs_are_kept.get()
    ):  # by a copy, for example: the next process need not read it all again
        with contextlib.suppress(OSError), atomic_write(folder / RECORD) as aside:
            aside.write_text(json.dumps(record))


def _make(aside: Path, folder: Path, made_from: str, stream: Stream) -> None:
    """Fill `aside` and rename it to `folder`. An old pack in `folder` is deleted."""
    labels = np.asarray(stream.labels, dtype=np.int64)
    shape = (len(labels), *stream.shape)
    if folder.exists():
        print(f"{folder} was made from files that have changed: packing again", file=sys.stderr)
        shutil.rmtree(folder)
    file_of_inputs = f"{stream.kind}.npy"
    for name in (file_of_inputs, LABELS):  # left by a process that was killed
        (aside / name).unlink(missing_ok=True)
    size = math.prod(shape) * np.dtype(stream.dtype).itemsize
    _require_room(aside, folder.parent, size + labels.nbytes)
    print(f"packing {len(labels)} {stream.kind} into {folder}", file=sys.stderr)
    flat = _write_inputs(aside / file_of_inputs, folder, shape, stream)
    np.save(aside / LABELS, labels)
    record = {
        "version": VERSION,
        "made_from": made_from,
        "shape": shape,
        "names": stream.class_names,
        "remarks": _remarks(stream, flat),
        "files": {name: _file_state(aside / name) for name in (file_of_inputs, LABELS)},
    }
    write_synced(aside / RECORD, json.dumps(record).encode())
    aside.rename(folder)


def _remarks(stream: Stream, flat: int) -> list[str]:
    """flat: how many of the images are of one colour all over."""
    remarks = [f"left out: {stream.left_out}"] if stream.left_out else []
    if flat:
        remarks.append(f"{flat} of {len(stream.labels)} images are of one colour all over")
    return remarks


def _require_room(aside: Path, home: Path, needed: int) -> None:
    free = shutil.disk_usage(aside).free
    if needed > free:
        raise PlaceError(
            f"must name a folder with room for {needed / 1e9:.3g} GB of packed data; "
            f"{home} has {free / 1e9:.3g}"
        )


def _write_inputs(path: Path, folder: Path, shape: tuple[int, ...], stream: Stream) -> int:
    """Returns how many of the images are of one colour all over."""
    inputs = np.lib.format.open_memmap(path, mode="w+", dtype=stream.dtype, shape=shape)
    _allocate(path, folder.parent)
    progress = tqdm(
        desc=f"packing {folder.name}",
        total=len(inputs),
        unit="input",
        leave=False,
        dynamic_ncols=True,
        disable=None,
    )
    start = flat = 0
    with progress, stream.blocks as blocks:
        for block in blocks:
            inputs[start : start + len(block)] = block
            start += len(block)
            flat += _count_flat(block) if stream.kind == "images" else 0
            progress.update(len(block))
    inputs.flush()
    return flat


def _count_flat(images: np.ndarray[Any, Any]) -> int:
    """How many of (n, channels, height, width) images have one colour in all their pixels."""
    if not images.size:
        return 0
    return int((images == images[..., :1, :1]).all(axis=(1, 2, 3)).sum())


def _allocate(path: Path, home: Path) -> None:
    """Reserve the space on the disk now.

    If the disk is full while a memory map is written, the process ends without a message.
    """
    size = path.stat().st_size
    with path.open("r+b") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise PlaceError(
                f"must name a folder with room for {size / 1e9:.3g} GB; {home}: {error.strerror}"
            ) from None


def _file_state(path: Path) -> dict[str, object]:
    os.utime(path)  # a map may set the time of its file late
    status = path.stat()
    return {
        "sha256": file_digest(path),
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
    }


def path_hint(path: Path) -> str:
    """A hint to append to a message about a path: a similar name, or the folder that is missing.

    Empty where the path exists or cannot be looked at.
    """
    try:
        missing = next((step for step in [*path.parents[::-1], path] if not step.exists()), None)
        if missing is None:
            return ""
        siblings = [sibling.name for sibling in missing.parent.iterdir()]
    except OSError:
        return ""
    if close := nearest(missing.name, siblings, "{}"):
        return f"; did you mean {missing.parent / close}?"
    return f"; there is no {missing.name} in {missing.parent}"


def kind_of(value: object) -> str:
    """For a message: dtype and shape of an array, or the class of anything else."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} {value.shape}"
    return type(value).__name__
