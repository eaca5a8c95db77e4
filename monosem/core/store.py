"""The store: from keys to artifacts, on a disk that processes share.

    <root>/<Stage>/<key>/           artifact.safetensors, history.json, and, written last,
                                    spec.json with the digests of the other two
    <root>/<Stage>/<key>.partial/   a stage that is being computed, or was when its process ended;
                                    a lock on the folder says which
    <root>/<Stage>/<key>.damaged/   what was truncated or altered, set aside
    <root>/.in_use                  held by everybody who is at work here, so that nothing is freed

A folder gets its final name only when everything in it is written: an artifact is whole or absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from monosem.core.device import device, out_of_memory
from monosem.core.files import file_digest, lock, shared_lock, write_synced
from monosem.core.identity import to_plain
from monosem.core.provenance import now, provenance
from monosem.core.stage import Artifact, Job, Stage, StageError, key, title

ARTIFACT, HISTORY, MANIFEST = "artifact.safetensors", "history.json", "spec.json"
IN_USE = ".in_use"
DIGEST_BYTES = 32  # of the SHA-256 that a checkpoint begins with
ENOUGH_TO_GUESS = 20  # how many finished stages' durations are read


class LogEntry(NamedTuple):
    """One line of a stage's history: scalars at `step` of `of`."""

    step: int
    of: int
    scalars: dict[str, float]


class Callback:
    """Is told about stages while they are computed. Override the methods of interest."""

    def on_start(self, stage: Stage) -> None:
        """A stage starts, or goes on from a checkpoint."""

    def on_log(self, stage: Stage, entry: LogEntry) -> None:
        """A line of history. A stage that goes on from a checkpoint logs its old lines again."""

    def on_step(self, stage: Stage, step: int, of: int, inputs: int, loss: Tensor) -> None:
        """A step was taken."""

    def on_end(self, stage: Stage) -> None:
        """The stage is finished, failed or interrupted."""

    def on_finish(self, stage: Stage) -> None:
        """A trial has ended and its artifact is there."""

    def on_failure(self, stage: Stage, reason: str) -> None:
        """A trial failed. It may be tried again."""


class Store:
    """Artifacts by key under `root`.

    `get` computes what is missing, upstream first. A finished stage is never computed again.

    root: the folder; or several: all are read from, earlier ones first, and the first is written
        to. Where everything is there, none needs to be writable.
    """

    def __init__(
        self, root: str | Path | Sequence[str | Path], callbacks: tuple[Callback, ...] = ()
    ):
        roots = [root] if isinstance(root, str | Path) else root
        self.roots = tuple(Path(one).absolute() for one in roots)
        self.root = self.roots[0]
        self.callbacks = callbacks

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Until the block ends, nobody frees what is in these folders (keeping.upkeep)."""
        with contextlib.suppress(OSError):  # where it is read-only, all must be there
            self.root.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as locks:
            for root in self.roots:
                locks.enter_context(shared_lock(root / IN_USE))
            yield

    def folder(self, stage: Stage) -> Path:
        """Where the artifact of a stage is written to."""
        return self.root / type(stage).__name__ / key(stage)

    def _folders(self, stage: Stage) -> Iterator[Path]:
        """Where it may be read from."""
        for root in self.roots:
            yield root / type(stage).__name__ / key(stage)

    def _found(self, stage: Stage) -> Path:
        """Where it is; where it would be written to if it is nowhere."""
        folders = (folder for folder in self._folders(stage) if read_manifest(folder))
        return next(folders, self.folder(stage))

    def has(self, stage: Stage) -> bool:
        """Whether there is a finished artifact with all its files; `get` checks their bytes too."""
        return any(read_manifest(folder) is not None for folder in self._folders(stage))

    def history(self, stage: Stage) -> list[LogEntry]:
        """The scalars that the stage logged; empty if it has not finished."""
        path = self._found(stage) / HISTORY
        if not path.exists():
            return []
        return [LogEntry(*line) for line in json.loads(path.read_text())]

    def provenance(self, stage: Stage) -> dict[str, Any]:
        """When, how long, by which code and command, on what and with what it was computed."""
        manifest = read_manifest(self._found(stage))
        return {} if manifest is None else dict(manifest["made"])

    def durations(self, kind: type[Stage]) -> list[float]:
        """The seconds that some finished stages of a kind took, for estimates of time left."""
        folders = (folder for root in self.roots for folder in (root / kind.__name__).glob("*/"))
        manifests = map(read_manifest, itertools.islice(folders, ENOUGH_TO_GUESS))
        return [
            manifest["made"]["seconds_in_last_process"]
            for manifest in manifests
            if manifest is not None
        ]

    def get(self, stage: Stage) -> Artifact:
        """The artifact of a stage, computed first if need be."""
        artifact = self._read(stage)
        while artifact is None:
            self._compute_missing([stage])
            artifact = self._read(stage)
        return artifact

    def get_together(self, stages: Sequence[Stage]) -> None:
        """Compute the missing ones among stages that are run together (core.stage.group_shared).

        One call of their class's `run_together` computes them.
        """
        while missing := [stage for stage in stages if self._read(stage) is None]:
            self._compute_missing(missing)

    def _compute_missing(self, stages: Sequence[Stage]) -> None:
        """Lock the stages against other processes; compute those that no other process has made."""
        claimed: dict[Stage, Path] = {}
        with contextlib.ExitStack() as locks:
            unique = {key(stage): stage for stage in stages}
            for _, stage in sorted(unique.items()):  # one order for all processes: no deadlock
                partial = locks.enter_context(lock(self.folder(stage).with_suffix(".partial")))
                if partial is None:  # another process has just finished with it
                    continue
                if self._read(stage) is None:
                    claimed[stage] = partial
                else:
                    shutil.rmtree(partial)
            if claimed:
                self._compute(claimed)

    def _read(self, stage: Stage) -> Artifact | None:
        """The artifact, if there is one and every byte of it is as it was written."""
        artifacts = map(_read_artifact, self._folders(stage))
        return next((artifact for artifact in artifacts if artifact is not None), None)

    def _set_aside(self, folder: Path) -> None:
        if not folder.exists():
            return
        candidates = (folder.with_suffix(f".damaged{count or ''}") for count in itertools.count())
        target = next(candidate for candidate in candidates if not candidate.exists())
        folder.rename(target)
        print(
            f"{folder} is truncated or altered: set aside as {target.name}, computed again",
            file=sys.stderr,
        )

    def _compute(self, folders: dict[Stage, Path]) -> None:
        """Run stages of one class together, each in its locked folder, and rename the folders."""
        stages = list(folders)
        jobs = [_StoreJob(self, stage, folder) for stage, folder in folders.items()]
        for stage in stages:
            self._set_aside(self.folder(stage))
        started, started_at = time.time(), now()
        for stage in stages:
            for callback in self.callbacks:
                callback.on_start(stage)
        try:
            artifacts = _run_together(stages, jobs)
        finally:
            for stage in stages:
                for callback in self.callbacks:
                    callback.on_end(stage)
        errors = []
        for job, artifact in zip(jobs, artifacts, strict=True):
            if isinstance(artifact, StageError):
                errors.append(artifact)
            else:
                job.finish(artifact, started_at, time.time() - started, len(stages))
        if errors:  # the others are finished
            raise errors[0]


def _run_together(stages: Sequence[Stage], jobs: Sequence[Job]) -> list[Artifact | StageError]:
    """The artifacts of stages of one class. Raises StageError where memory does not suffice."""
    try:
        return type(stages[0]).run_together(stages, jobs)
    except StageError:
        raise
    except Exception as error:
        if reason := out_of_memory(error):
            message = f"{title(stages[0])} needs more memory than there is: {reason}"
            raise StageError(message) from error
        raise


class _StoreJob:
    """What a running stage sees of the store (core.stage.Job)."""

    def __init__(self, store: Store, stage: Stage, folder: Path):
        self.store, self.stage, self.folder = store, stage, folder
        self.checkpoint = folder / "checkpoint"
        self.history: list[LogEntry] = []

    def get(self, stage: Stage) -> Artifact:
        return self.store.get(stage)

    def log(self, step: int, of: int, **scalars: float) -> None:
        entry = LogEntry(step, of, scalars)
        self.history.append(entry)
        for callback in self.store.callbacks:
            callback.on_log(self.stage, entry)

    def on_step(self, step: int, of: int, inputs: int, loss: Tensor) -> None:
        for callback in self.store.callbacks:
            callback.on_step(self.stage, step, of, inputs, loss)

    def save(self, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save({"history": [tuple(entry) for entry in self.history], "state": state}, buffer)
        content = buffer.getbuffer()
        aside = self.checkpoint.with_suffix(".aside")
        write_synced(aside, hashlib.sha256(content).digest() + content)
        aside.replace(self.checkpoint)

    def restore(self) -> dict[str, Any] | None:
        if not self.checkpoint.exists():
            return None
        kind, data = type(self.stage).__name__, self.checkpoint.read_bytes()
        digest, content = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            print(f"{self.checkpoint} is truncated or altered: {kind} starts anew", file=sys.stderr)
            return None
        saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        for step, of, scalars in saved["history"]:
            self.log(step, of, **scalars)
        after = f"after {self.history[-1].step} of {self.history[-1].of}" if self.history else ""
        print(f"{kind} goes on {after or 'in what it had begun'}", file=sys.stderr)
        return dict(saved["state"])

    def finish(self, artifact: Artifact, started: str, seconds: float, together: int) -> None:
        """Write everything, the manifest last, and give the folder its final name.

        started: when this process began with it.
        seconds: what it took, with all stages that were computed together.
        together: how many these are.
        """
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in artifact.items()}
        save_file(tensors, self.folder / ARTIFACT)
        write_synced(self.folder / HISTORY, json.dumps(self.history).encode())
        # safetensors keeps its files to their owner: take the mode that the umask gives to others
        (self.folder / ARTIFACT).chmod((self.folder / HISTORY).stat().st_mode)
        manifest = {
            "key": key(self.stage),
            "spec": to_plain(self.stage),
            "files": {name: file_digest(self.folder / name) for name in (ARTIFACT, HISTORY)},
            "made": {
                "started": started,
                "finished": now(),
                "seconds_in_last_process": round(seconds, 3),
                "computed_together": together,
                "torch": torch.__version__,
                "device": torch.cuda.get_device_name() if device().type == "cuda" else "cpu",
                **provenance(),
            },
        }
        self.checkpoint.unlink(missing_ok=True)
        write_synced(self.folder / MANIFEST, json.dumps(manifest, indent=1).encode())
        self.folder.rename(self.store.folder(self.stage))


def _read_artifact(folder: Path) -> Artifact | None:
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    try:
        for name, digest in manifest["files"].items():
            if file_digest(folder / name) != digest:
                return None
        return load_file(folder / ARTIFACT)
    except FileNotFoundError:  # another process has just set it aside
        return None


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """spec.json if it is whole, belongs here and all its files are there, else None."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        belongs = manifest["key"] == folder.name
        complete = all((folder / name).exists() for name in manifest["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(manifest) if belongs and complete else None
