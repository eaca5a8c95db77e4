"""Provenance: what is recorded beside artifacts and runs, and what must never be in it."""

from __future__ import annotations

import json
import os
import platform
import pwd
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from monosem.core import provenance as module
from monosem.core.provenance import code, describe, provenance, remember_command, without_home
from monosem.core.run_record import begin, cost_line, finish, is_recorded, read_record
from monosem.core.stage import Stage, key
from monosem.core.store import Store


@dataclass(frozen=True)
class Plain(Stage):
    """Leaves its number."""

    value: int
    runs: ClassVar[list[int]] = []

    def run(self, job):
        self.runs.append(self.value)
        return {"x": torch.tensor(self.value)}


@pytest.fixture
def typed(monkeypatch):
    """What is remembered of a command is forgotten after the test."""
    monkeypatch.setattr(module, "_typed", [])
    monkeypatch.delenv(module.HANDED_OVER, raising=False)


def made_of(store: Store, stage: Stage):
    return json.loads((store.folder(stage) / "spec.json").read_text())["made"]


# What is recorded


def test_an_artifact_says_by_what_on_what_and_when_it_was_made(tmp_path, typed):
    store = Store(tmp_path)
    store.get(Plain(1))
    made = made_of(store, Plain(1))
    assert made["versions"]["python"] == platform.python_version()
    assert made["versions"]["torch"] == torch.__version__ and "ray" in made["versions"]
    assert made["hardware"]["cores"] == len(os.sched_getaffinity(0))
    assert made["hardware"]["cpu"] and made["threads"] == torch.get_num_threads()
    assert set(made["code"]) == {"commit", "clean"} and made["command"]
    assert made["started"] <= made["finished"] and made["computed_together"] == 1


def test_it_is_in_no_key_and_in_no_bytes_of_the_artifact(tmp_path, typed):
    files = []
    for name in ("a", "b"):
        remember_command([name])
        store = Store(tmp_path / name)
        store.get(Plain(1))
        assert made_of(store, Plain(1))["command"] == name
        folder = store.folder(Plain(1))
        files.append(
            [(folder / file).read_bytes() for file in ("artifact.safetensors", "history.json")]
        )
    assert files[0] == files[1]
    assert (tmp_path / "a" / "Plain" / key(Plain(1))).exists()


def git(folder: Path, *arguments: str) -> str:
    name = ["-c", "user.name=x", "-c", "user.email=x@y"]
    command = ["git", "-C", str(folder), *name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_that_of_the_checkout_and_a_change_of_code_is_told(tmp_path):
    assert code(tmp_path / "no checkout") == {"commit": None, "clean": None}
    git(tmp_path, "init", "-q")
    (tmp_path / "monosem").mkdir()
    (tmp_path / "monosem" / "a.py").write_text("x = 1\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "one")
    (tmp_path / "store").mkdir()  # what is no code may change
    (tmp_path / "store" / "file").touch()
    states = [code.__wrapped__(tmp_path)]
    (tmp_path / "monosem" / "new.py").touch()
    states.append(code.__wrapped__(tmp_path))
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert states == [{"commit": commit, "clean": True}, {"commit": commit, "clean": False}]


def test_a_worker_without_a_repository_knows_what_the_first_process_knew(typed, monkeypatch):
    remember_command(["run.py", "--gin", "x.gin"])
    ours = provenance()
    monkeypatch.setattr(os, "environ", {**os.environ, **module.for_workers()})
    remember_command(["worker"])
    monkeypatch.setattr(module, "code", lambda: {"commit": None, "clean": None})
    theirs = provenance()
    assert (theirs["code"], theirs["command"]) == (ours["code"], "run.py --gin x.gin")


# What is never in it


def test_homes_persons_and_passwords_are_no_part_of_a_command(monkeypatch):
    person = pwd.struct_passwd(("alice", "x", os.getuid(), 0, "", "/homes/alice", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: person)
    monkeypatch.setenv("HOME", "/users/a")
    said = without_home(
        "run.py --store /homes/alice/store --runs '/users/a/my runs' --gin /scratch/alice/x.gin "
        "--set \"CIFAR10.folder = '/homes/alice'\" --address s3://key:secret@host /homes/alicette"
    )
    assert said == (
        "run.py --store ~/store --runs '~/my runs' --gin /scratch/USER/x.gin "
        "--set \"CIFAR10.folder = '~'\" --address s3://host /homes/alicette"
    )


def test_no_variable_of_the_environment_is_written(tmp_path, typed, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "s3cr3t-in-the-environment")
    monkeypatch.setattr(sys, "argv", ["run.py", "--gin", "x.gin"])
    store = Store(tmp_path)
    store.get(Plain(1))
    finish(tmp_path, [Plain(1)], begin(tmp_path, [Plain(1)]))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written and not any(b"s3cr3t" in path.read_bytes() for path in written)


# In words


def test_a_line_names_code_libraries_and_hardware_and_less_of_older_files():
    made = {
        "code": {"commit": "0123456789abcdef", "clean": False},
        "versions": {"python": "3.11.2", "monosem": "0.1.0", "torch": "2.9", "ray": "2.52"},
        "hardware": {"cpu": "AMD EPYC", "cores": 2, "gpu": None},
        "threads": 2,
    }
    assert describe(made) == (
        "monosem 0.1.0 of commit 0123456789 with changes, python 3.11.2, torch 2.9, ray 2.52; "
        "2 cores of AMD EPYC, no GPU, 2 threads"
    )
    assert describe({"torch": "2.9", "device": "cpu", "threads": 4}) == "torch 2.9; cpu, 4 threads"


# Records and costs of runs


def test_a_run_is_recorded_only_when_it_has_ended_with_the_same_stages(tmp_path):
    stages = [Plain(1), Plain(2)]
    beginning = begin(tmp_path, stages)
    assert not is_recorded(tmp_path, stages)
    begun = read_record(tmp_path / "unfinished.json")
    assert begun is not None and begun["stages"] == sorted(f"Plain/{key(s)}" for s in stages)
    finish(tmp_path, stages, beginning)
    assert is_recorded(tmp_path, stages) and not is_recorded(tmp_path, stages[:1])
    assert not (tmp_path / "unfinished.json").exists()
    finish(tmp_path, stages, beginning, complete=False)
    assert not is_recorded(tmp_path, stages)
    (tmp_path / "provenance.json").write_text("{")
    assert read_record(tmp_path / "provenance.json") is None


def test_costs_are_counted_once_for_what_is_computed_together(tmp_path):
    store = Store(tmp_path)
    stages = [Plain(1), Plain(2), Plain(3)]
    for stage, seconds, together in zip(stages, (8.0, 8.0, 30.0), (2, 2, 1), strict=True):
        store.get(stage)
        path = store.folder(stage) / "spec.json"
        manifest = json.loads(path.read_text())
        manifest["made"] |= {"seconds_in_last_process": seconds, "computed_together": together}
        path.write_text(json.dumps(manifest))
    assert cost_line(store, stages, stages[:2], 9.0) == (
        "cost: 9.0 s for 2 of 3 stages (Plain 8.0 s); 1 read from the store, which had taken 30.0 s"
    )
    assert cost_line(store, stages, stages, 9.0).endswith("for 3 of 3 stages (Plain 38.0 s)")


# Several stores


def test_stores_are_read_in_their_order_and_the_first_is_written_to(tmp_path):
    Plain.runs.clear()
    behind, own = tmp_path / "behind", tmp_path / "own"
    Store(behind).get(Plain(1))
    both = Store([own, behind])
    assert both.has(Plain(1)) and int(both.get(Plain(1))["x"]) == 1
    assert both.provenance(Plain(1)) and len(both.durations(Plain)) == 1
    both.get(Plain(2))
    assert Plain.runs == [1, 2]
    assert [path.name for path in own.glob("Plain/*")] == [key(Plain(2))]
    assert [path.name for path in behind.glob("Plain/*")] == [key(Plain(1))]


def test_what_is_damaged_behind_is_computed_into_the_first_and_left_as_it_is(tmp_path):
    behind, own = Store(tmp_path / "behind"), tmp_path / "own"
    behind.get(Plain(1))
    (behind.folder(Plain(1)) / "artifact.safetensors").write_bytes(b"")
    assert int(Store([own, behind.root]).get(Plain(1))["x"]) == 1
    assert (own / "Plain" / key(Plain(1))).exists()
    assert [path.name for path in behind.root.glob("Plain/*")] == [key(Plain(1))]
