"""Provenance: by which code, with which libraries, on which machine and by which command.

It is kept beside artifacts and results and is in no key. It holds no environment variable, no name
of a person or a machine, and no path of somebody's home.

A worker of a sweep has the code but not the repository: the process that starts it hands over what
it knows itself (`for_workers`).
"""

from __future__ import annotations

import functools
import json
import os
import platform
import pwd
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PROJECT = Path(__file__).resolve().parents[2]  # holds the folder monosem
CODE = ("monosem", "gin", "sweeps", "run.py")  # what a clean tree is clean of
LIBRARIES = (
    "torchvision", "numpy", "scipy", "scikit-learn", "pandas", "safetensors", "gin-config",
    "ray", "transformers", "peft", "timm",
)  # fmt: skip
HANDED_OVER = "MONOSEM_PROVENANCE"  # the variable that workers read
ACCOUNT = r"(?<=://)[^/@\s]+@"  # in an address: name and password
GIT_SECONDS = 20

Made = Mapping[str, Any]  # what `provenance` returns, or less of it: older files know less


def now() -> str:
    """The local time with its offset: 2026-01-31T12:00:00+0100."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def provenance() -> dict[str, Any]:
    """What is true of everything that this process computes, as JSON data.

    code: `commit` and `clean`, as of `code`; null outside a repository.
    versions: of Python, monosem and the libraries that matter.
    hardware: `cpu`, `cores` that this process may use, `gpu`, null where there is none.
    threads: of torch.
    command: as it was typed, in the words of `without_home`.
    """
    handed_over = os.environ.get(HANDED_OVER)
    origin = json.loads(handed_over) if handed_over else {"code": code(), "command": command()}
    return {
        "code": origin["code"],
        "versions": versions(),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "command": origin["command"],
    }


def for_workers() -> dict[str, str]:
    """The environment variable by which a worker knows the repository and the command."""
    return {HANDED_OVER: json.dumps({"code": code(), "command": command()})}


@functools.cache
def code(project: Path = PROJECT) -> dict[str, Any]:
    """The commit of the checkout, and whether its code and Gin files are as committed.

    Both are null where there is no repository or no git.
    """
    if not (project / ".git").exists():  # installed: a repository around it is another one
        return {"commit": None, "clean": None}
    commit = _git(project, "rev-parse", "HEAD")
    changed = _git(project, "status", "--porcelain", "--", *CODE)
    return {"commit": commit or None, "clean": None if changed is None else not changed}


def _git(project: Path, *arguments: str) -> str | None:
    """What git prints; None where it cannot say it."""
    try:
        out = subprocess.run(
            ["git", "-C", str(project), "--no-optional-locks", *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return out.stdout.strip() if out.returncode == 0 else None


@functools.cache
def versions() -> dict[str, str]:
    """By name, python first; libraries that are not installed are left out."""
    found = {"python": platform.python_version(), "monosem": _own_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found["torch"] = torch.__version__  # with its build, +cpu or +cu130
    return found


def _own_version() -> str:
    """Of a checkout what pyproject.toml says, as it need not be installed."""
    project = PROJECT / "pyproject.toml"
    if project.exists():
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    try:
        return metadata.version("monosem")
    except metadata.PackageNotFoundError:  # a copy of the folder monosem alone
        return "of unknown version"


@functools.cache
def hardware() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": _cpu_model(), "cores": len(os.sched_getaffinity(0)), "gpu": gpu}


def _cpu_model() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        info = ""
    found = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


# The command line

_typed: list[str] = []  # what `main` was given, where it was called with words of its own


def remember_command(words: Sequence[str]) -> None:
    """Note the words of the command that this process carries out."""
    _typed[:] = words


def command() -> str:
    """The command that this process carries out, as a shell takes it."""
    return without_home(shlex.join(_typed or sys.argv))


def without_home(text: str) -> str:
    """The text with `~` for the home folder, `USER` for the person's name in other paths, and
    without what stands before the @ of an address."""
    try:
        person = pwd.getpwuid(os.getuid())
    except KeyError:  # in a container, say: nobody to be named
        return re.sub(ACCOUNT, "", text)
    for home in {os.environ.get("HOME", "").rstrip("/"), person.pw_dir} - {"/", ""}:
        text = re.sub(rf"{re.escape(home)}(?=/|$|['\"\s,;:)])", "~", text)
    text = re.sub(rf"(?<=/){re.escape(person.pw_name)}(?=/|$|['\"\s,;:)])", "USER", text)
    return re.sub(ACCOUNT, "", text)


# For people


def describe(made: Made) -> str:
    """One line: which code, libraries and hardware; what an older file does not know is left out.

    Two stages that were made alike have the same line, whenever that was.
    """
    versions = made.get("versions", {"torch": made["torch"]} if "torch" in made else {})
    parts = []
    if "code" in made:
        parts.append(f"monosem {versions.get('monosem', '')} {describe_code(made['code'])}")
    parts += [f"{name} {versions[name]}" for name in ("python", "torch", "ray") if name in versions]
    return f"{', '.join(parts)}; {_describe_hardware(made)}"


def describe_code(code: Mapping[str, Any]) -> str:
    """`of commit 1a2b3c4d5e`, and whether something was changed since."""
    if not code.get("commit"):
        return "of no known commit"
    state = {True: "", False: " with changes", None: ", not known whether changed"}
    return f"of commit {code['commit'][:10]}{state[code.get('clean')]}"


def _describe_hardware(made: Made) -> str:
    threads = f"{made.get('threads', '?')} threads"
    if "hardware" not in made:
        return f"{made.get('device', 'hardware not known')}, {threads}"
    hardware = made["hardware"]
    return (
        f"{hardware['cores']} cores of {hardware['cpu']}, {hardware['gpu'] or 'no GPU'}, {threads}"
    )
