"""Files that are whole or absent, and folders that one process holds at a time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def file_digest(path: Path, method: str = "sha256") -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, method).hexdigest()


def write_synced(path: Path, data: bytes) -> None:
    """Write, and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` only when everything is written."""
    aside = path.with_name(f".{os.getpid()}.{path.name}")
    yield aside
    aside.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file, or leave what is there as it is."""
    with atomic_write(path) as aside:
        aside.write_text(text, encoding="utf-8")


@contextmanager
def lock(folder: Path) -> Iterator[Path | None]:
    """Hold `folder`, made if need be, against other processes; the kernel lets go when the holder dies.

    Yields None where the folder was renamed or removed while this process waited for it: whoever held it has finished.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(folder, os.O_RDONLY)
            break
        except FileNotFoundError:  # renamed by another process, just between the two
            continue
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                f"another process is at work on {folder.parent.name}/{folder.stem}: waiting for it",
                file=sys.stderr,
            )
            fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            same = os.path.samestat(os.fstat(handle), folder.stat())
        except FileNotFoundError:
            same = False
        yield folder if same else None
    finally:
        os.close(handle)
