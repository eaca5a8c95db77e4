"""The store: key -> artifact, on a disk that processes share.

    <root>/<Stage>/<key>/           artifact.safetensors, history.json, spec.json (with the digests of the other two; written last)
    <root>/<Stage>/<key>.partial/   a stage that is being computed, or was when its process ended; held by a lock on the folder
    <root>/<Stage>/<key>.damaged/   what was found truncated or altered, set aside

A folder gets its final name only when everything in it is written, so an artifact is whole or absent.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from monosem.core.files import file_digest, lock, write_synced
from monosem.core.identity import to_plain
from monosem.core.stage import Artifact, Stage, key


class LogEntry(NamedTuple):
    """One line of a stage's history: scalars at `step` of `of`."""

    step: int
    of: int
    scalars: dict[str, float]


class Callback:
    """Somebody who looks on while stages are computed. All methods may be overridden, none has to be."""

    def on_start(self, stage: Stage) -> None:
        """A stage starts, or goes on."""

    def on_log(self, stage: Stage, entry: LogEntry) -> None:
        """A line of history, new or (after a resumption) told again."""

    def on_step(self, stage: Stage, step: int, of: int, images: int, loss: Tensor) -> None:
        """A step was taken."""

    def on_end(self, stage: Stage) -> None:
        """The stage is finished, failed or interrupted."""

    def on_finish(self, stage: Stage) -> None:
        """A trial has ended and its artifact is there."""

    def on_failure(self, stage: Stage, reason: str) -> None:
        """A trial failed; it may be tried again."""


class Store:
    """Artifacts by key under `root`. `get` computes what is missing, upstream first; a finished stage is never computed again."""

    def __init__(self, root: str | Path, callbacks: tuple[Callback, ...] = ()):
        self.root = Path(root).absolute()
        self.callbacks = callbacks

    def folder(self, stage: Stage) -> Path:
        return self.root / type(stage).__name__ / key(stage)

    def has(self, stage: Stage) -> bool:
        """Whether there is a finished artifact whose files are all there; `get` looks closer."""
        return _record(self.folder(stage)) is not None

    def history(self, stage: Stage) -> list[LogEntry]:
        """The scalars that the stage logged; empty if it has not finished."""
        path = self.folder(stage) / "history.json"
        return [LogEntry(*line) for line in json.loads(path.read_text())] if path.exists() else []

    def made(self, stage: Stage) -> dict[str, Any]:
        """When, how long, with which torch, on what and with how many threads a finished stage was computed."""
        record = _record(self.folder(stage))
        return {} if record is None else dict(record["made"])

    def seconds(self, kind: type[Stage]) -> list[float]:
        """What some finished stages of a kind took, to guess by."""
        folders = itertools.islice((self.root / kind.__name__).glob("*/"), 20)
        return [
            record["made"]["seconds_in_last_process"]
            for folder in folders
            if (record := _record(folder)) is not None
        ]

    def get(self, stage: Stage) -> Artifact:
        artifact = self._read(stage)
        while artifact is None:
            with lock(self.folder(stage).with_suffix(".partial")) as folder:
                if folder is not None and self._read(stage) is None:  # nobody was faster
                    self._set_aside(self.folder(stage))
                    self._compute(stage, folder)
                elif folder is not None:
                    shutil.rmtree(folder)
            artifact = self._read(stage)
        return artifact

    def _read(self, stage: Stage) -> Artifact | None:
        """The artifact if there is one and every byte of it is as it was written."""
        folder = self.folder(stage)
        record = _record(folder)
        try:
            if record is None or any(
                file_digest(folder / name) != digest for name, digest in record["files"].items()
            ):
                return None
            return load_file(folder / "artifact.safetensors")
        except FileNotFoundError:  # another process has just set it aside
            return None

    def _set_aside(self, folder: Path) -> None:
        if not folder.exists():
            return
        names = (folder.with_suffix(f".damaged{number or ''}") for number in itertools.count())
        target = next(name for name in names if not name.exists())
        folder.rename(target)
        print(
            f"{folder} is truncated or altered: set aside as {target.name}, computed again",
            file=sys.stderr,
        )

    def _compute(self, stage: Stage, folder: Path) -> None:
        job = _Job(self, stage, folder)
        started = time.time()
        for callback in self.callbacks:
            callback.on_start(stage)
        try:
            artifact = stage.run(job)
        finally:
            for callback in self.callbacks:
                callback.on_end(stage)
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in artifact.items()},
            folder / "artifact.safetensors",
        )
        write_synced(folder / "history.json", json.dumps(job.history).encode())
        record = {
            "key": key(stage),
            "spec": to_plain(stage),
            "files": {
                name: file_digest(folder / name)
                for name in ("artifact.safetensors", "history.json")
            },
            "made": {
                "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "seconds_in_last_process": round(time.time() - started, 3),
                "torch": torch.__version__,
                "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
                "threads": torch.get_num_threads(),
            },
        }
        job.checkpoint.unlink(missing_ok=True)
        write_synced(folder / "spec.json", json.dumps(record, indent=1).encode())
        folder.rename(self.folder(stage))


class _Job:
    """What a running stage sees of the store (monosem.stage.Job)."""

    def __init__(self, store: Store, stage: Stage, folder: Path):
        self.store, self.stage = store, stage
        self.checkpoint = folder / "checkpoint"
        self.history: list[LogEntry] = []

    def get(self, stage: Stage) -> Artifact:
        return self.store.get(stage)

    def log(self, step: int, of: int, **scalars: float) -> None:
        self.history.append(LogEntry(step, of, scalars))
        for callback in self.store.callbacks:
            callback.on_log(self.stage, self.history[-1])

    def on_step(self, step: int, of: int, images: int, loss: Tensor) -> None:
        for callback in self.store.callbacks:
            callback.on_step(self.stage, step, of, images, loss)

    def save(self, state: dict[str, Any]) -> None:
        buffer, aside = io.BytesIO(), self.checkpoint.with_suffix(".aside")
        torch.save({"history": [tuple(entry) for entry in self.history], "state": state}, buffer)
        write_synced(aside, hashlib.sha256(buffer.getbuffer()).digest() + buffer.getbuffer())
        aside.replace(self.checkpoint)

    def restore(self) -> dict[str, Any] | None:
        if not self.checkpoint.exists():
            return None
        data = self.checkpoint.read_bytes()
        if hashlib.sha256(data[32:]).digest() != data[:32]:
            print(
                f"{self.checkpoint} is truncated or altered: {type(self.stage).__name__} starts anew",
                file=sys.stderr,
            )
            return None
        saved = torch.load(io.BytesIO(data[32:]), map_location="cpu", weights_only=True)
        for line in saved["history"]:
            self.log(line[0], line[1], **line[2])
        print(
            f"{type(self.stage).__name__} goes on after {self.history[-1].step} of {self.history[-1].of}",
            file=sys.stderr,
        )
        return dict(saved["state"])


def _record(folder: Path) -> dict[str, Any] | None:
    """spec.json if it is whole and belongs here, else None."""
    try:
        record = json.loads((folder / "spec.json").read_text())
        whole = record["key"] == folder.name and all(
            (folder / name).exists() for name in record["files"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(record) if whole else None
