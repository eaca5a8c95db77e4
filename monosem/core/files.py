"""Files that are whole or absent, and folders that one process locks at a time."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def file_digest(path: Path, method: str = "sha256") -> str:
    """The digest of what a file holds, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, method).hexdigest()


def known_digest(path: Path) -> str:
    """As `file_digest`, of a file that keys are made of: read once for each of its states."""
    status = path.stat()
    return _digest_of_state(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _digest_of_state(path: Path, size: int, changed_at: int) -> str:
    return file_digest(path)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` when everything is written; else it is removed."""
    aside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield aside
        aside.replace(path)
    except BaseException:  # a full disk, for example
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file, or leave what is there as it is."""
    with atomic_write(path) as aside:
        aside.write_text(text, encoding="utf-8")


@contextmanager
def lock(folder: Path) -> Iterator[Path | None]:
    """Lock `folder` against other processes; it is made if need be. Waits for its present holder.

    The kernel unlocks it when the process that has it dies. Yields None where the folder was
    renamed or removed while this process waited: whoever had it has finished.
    """
    handle = _open_folder(folder)
    try:
        _lock_handle(handle, folder)
        yield folder if _is_still_there(folder, handle) else None
    finally:
        os.close(handle)


@contextmanager
def shared_lock(path: Path) -> Iterator[None]:
    """Hold a file that any number of processes may hold so, until the block ends.

    It is made if need be. Where it cannot be made, on a read-only disk, nothing is held, and no
    process of this machine can change anything there.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
    except OSError:
        yield
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


@contextmanager
def sole_lock(path: Path) -> Iterator[bool]:
    """Whether nobody else holds the file or folder, and then nobody does until the block ends."""
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    handle = os.open(path, flags, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _open_folder(folder: Path) -> int:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # another process renamed it, just between the two
            continue


def _lock_handle(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        place = f"{folder.parent.name}/{folder.stem}"
        print(f"another process is at work on {place}: waiting for it", file=sys.stderr)
        fcntl.flock(handle, fcntl.LOCK_EX)


def _is_still_there(folder: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())
    except FileNotFoundError:
        return False
