"""What flags set: the spec, the folders, and what this process and its workers are told."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from monosem.cli.flags import typed_language_flags, typed_sweep_flags
from monosem.cli.outcomes import UsageError

if TYPE_CHECKING:
    from monosem.specs.load import Spec
    from monosem.specs.study import Study


def read_spec(flags: argparse.Namespace) -> Spec | Study:
    """The experiment or the sweep that the flags describe."""
    from monosem.specs.load import Spec
    from monosem.specs.study import read

    set_language_flags(flags)
    spec = read(flags.files, flags.bindings)
    if isinstance(spec, Spec) and typed_sweep_flags(flags):
        flag = typed_sweep_flags(flags)[0]
        raise UsageError(f"--{flag} goes with a sweep, and no file binds a Sweep")
    return spec


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
