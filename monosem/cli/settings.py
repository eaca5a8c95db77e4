"""What flags set: the spec, the folders, and what this process and its workers are told."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from monosem.cli.flags import typed_language_flags, typed_sweep_flags
from monosem.cli.outcomes import UsageError

if TYPE_CHECKING:
    from monosem.inquiries.load import Inquiry
    from monosem.specs.load import Spec
    from monosem.specs.study import Study


def read_spec(flags: argparse.Namespace) -> Spec | Study | Inquiry:
    """The experiment, the sweep or the report that the flags describe."""
    from monosem.inquiries.load import read
    from monosem.specs.gin_reader import safe_imports
    from monosem.specs.load import Spec

    set_language_flags(flags)
    set_device(flags)
    with safe_imports() if flags.safe else contextlib.nullcontext():
        spec = read(flags.files, flags.bindings, flags.grids, flags.seeds)
    if isinstance(spec, Spec) and typed_sweep_flags(flags):
        flag = typed_sweep_flags(flags)[0]
        raise UsageError(f"--{flag} goes with a sweep, and no file binds a Sweep")
    if not isinstance(spec, Spec):
        _check_how_of_sweep(flags)
    return spec


def store_folders(flags: argparse.Namespace) -> list[Path]:
    """The stores, the one that is written to first. Raises UsageError where one cannot be meant.

    None is made. The others are only read, so they must be there.
    """
    folders = [Path(name) for name in flags.stores or ["store"]]
    for position, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:position]]:
            raise UsageError(f"--store: {folder} is named twice")
        if position and not folder.is_dir():
            raise UsageError(f"--store: there is no folder {folder} to read from")
    if not is_read_only(folders[0]):
        check_folder(folders[0], "--store")
    return folders


def is_read_only(folder: Path) -> bool:
    """Whether the folder is there and cannot be written to."""
    return folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK)


def _check_how_of_sweep(flags: argparse.Namespace) -> None:
    if flags.threads is not None:
        raise UsageError("--threads goes with one experiment; --cpus N gives a trial N threads")
    if (flags.device or "").startswith("cuda:"):
        raise UsageError(
            f"--device {flags.device} goes with one experiment; a trial of a sweep has the GPU "
            "that it is given: cpu or cuda"
        )
    if flags.device == "cpu" and flags.gpus:
        raise UsageError(f"--gpus {flags.gpus:g} does not go with --device cpu")


def set_device(flags: argparse.Namespace) -> None:
    """For this process and for the workers of a sweep."""
    if flags.device is None:
        return
    from monosem.core.device import DEVICE

    if flags.device != "cpu" and not flags.address:  # a cluster may have what is not here
        _check_gpu(flags.device)
    os.environ[DEVICE] = flags.device


def _check_gpu(name: str) -> None:
    import torch

    count = torch.cuda.device_count()
    if int(name.partition(":")[2] or 0) >= count:
        there = f"{count} GPU{'s' * (count > 1)}, counted from 0" if count else "no GPU"
        raise UsageError(f"--device {name}: torch sees {there} here")


def set_threads(flags: argparse.Namespace) -> None:
    """For this process."""
    if flags.threads is not None:
        import torch

        torch.set_num_threads(flags.threads)


def usable_folder(path: Path, flag: str) -> Path:
    """The folder, made if it is not there. Raises UsageError where it cannot be written to."""
    check_folder(path, flag)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{flag}: the folder {path} cannot be made: {error.strerror}") from None
    return path


def check_folder(path: Path, flag: str) -> None:
    """Raises UsageError where the folder cannot be made or written to, as far as can be told."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not existing.is_dir():
        reason = f"{existing} is a file"
        raise UsageError(f"{flag}: the folder {path} cannot be made: {reason}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"{flag}: the folder {existing} cannot be written to")


def compile_networks() -> None:
    """For this process and for the workers of a sweep."""
    compilers = (os.environ.get("CXX", "g++"), "clang++")
    if not any(shutil.which(compiler) for compiler in compilers):
        raise UsageError("--compile needs a C++ compiler, g++ or clang++, and finds none")
    os.environ["MONOSEM_COMPILE"] = "1"


def set_language_flags(flags: argparse.Namespace) -> None:
    """For this process and for the workers of a sweep."""
    if flags.shard and importlib.util.find_spec("accelerate") is None:
        raise UsageError("--shard needs accelerate: pip install accelerate")
    for name in typed_language_flags(flags):
        os.environ[f"MONOSEM_{name.upper()}"] = "1"
