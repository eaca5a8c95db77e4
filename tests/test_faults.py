"""Faults of real machines, and docs/faults.md, which names the test that holds each of them."""

from __future__ import annotations

import ast
import builtins
import copy
import errno
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from conftest import ROOT, here, tiny_pretrain
from PIL import Image
from samples import random_pixels

from monosem.autoencoders.topk import TopK
from monosem.cli import entry
from monosem.core import store as store_module
from monosem.core.files import lock, write_text
from monosem.core.signals import Terminated, ended_by_sigterm
from monosem.core.stage import Artifact, Job, Stage
from monosem.core.store import Callback, Store
from monosem.data.holdout import Holdout
from monosem.data.packed import open_packs
from monosem.datasets.arrays import Arrays
from monosem.datasets.folders import ImageFolder
from monosem.learning.optimizers import Adam, Constant
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.representation import Embedding

PAGE = (ROOT / "docs" / "faults.md").read_text()


@dataclass(frozen=True)
class Ones(Stage):
    """Leaves ones; saves two states on the way, and counts how often it ran."""

    size: int = 100
    runs: ClassVar[list[int]] = []

    def run(self, job: Job) -> Artifact:
        self.runs.append(self.size)
        first = job.restore() or {}
        for step in range(int(first.get("step", 0)), 2):
            job.log(step + 1, 2, value=1.0)
            job.save({"step": step + 1})
        return {"ones": torch.ones(self.size)}


@pytest.fixture(autouse=True)
def forget():
    Ones.runs.clear()


# The page


def test_every_fault_has_a_line_and_every_test_that_it_names_is_there():
    lines = re.findall(r"^\| F(\d+) .*$", PAGE, re.MULTILINE)
    assert lines == [str(number) for number in range(1, 25)]
    defined = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named and named <= defined, sorted(named - defined)
    for line in re.findall(r"^\| F\d+ .*$", PAGE, re.MULTILINE):
        assert "`test_" in line or "open: " in line, line


# F3: SIGTERM


def in_the_middle(step):
    """Sends SIGTERM to this process in a step of a training."""

    class Kill(Callback):
        def on_step(self, stage, at, of, inputs, loss):
            steps.append(at)
            if at == step:
                os.kill(os.getpid(), signal.SIGTERM)

    steps: list[int] = []
    return Kill(), steps


def scalars_of(store, stage):
    """What was logged at every epoch."""
    return [(entry.step, entry.scalars) for entry in store.history(stage)]


@pytest.mark.parametrize("step", [1, 4, 5, 6])
def test_sigterm_ends_a_training_after_its_step_and_no_step_is_taken_twice(step, tmp_path, capsys):
    stage = tiny_pretrain(epochs=2, batch_size=400)  # 3 steps an epoch
    whole, broken = Store(tmp_path / "whole"), tmp_path / "broken"
    expected = whole.get(stage)
    kill, steps = in_the_middle(step)
    with ended_by_sigterm(), pytest.raises(Terminated):
        Store(broken, (kill,)).get(stage)
    assert steps == list(range(1, step + 1)), "no step more: Slurm kills after half a minute"
    again, later = in_the_middle(step=0)
    artifact = Store(broken, (again,)).get(stage)
    assert later == list(range(step + 1, 7))
    said = f"after {step // 3} of 2" if step > 2 else "in what it had begun"
    assert f"Pretrain goes on {said}" in capsys.readouterr().err
    assert all(torch.equal(artifact[name], expected[name]) for name in expected)
    assert scalars_of(Store(broken), stage) == scalars_of(whole, stage)


def test_an_autoencoder_that_is_ended_in_an_epoch_logs_as_if_it_had_not_been(tmp_path):
    encoder = Embedding(tiny_pretrain())
    stage = SparseAutoencoder(
        encoder=encoder,
        data=encoder.encoder.data,
        sparsity=TopK(k=4),
        latents=32,
        optimizer=Adam(lr=1e-3),
        schedule=Constant(),
        epochs=2,
        batch_size=400,
    )
    whole, broken = Store(tmp_path / "whole"), tmp_path / "broken"
    expected = whole.get(stage)
    kill, _ = in_the_middle(step=5)
    Store(broken).get(encoder.encoder)
    with ended_by_sigterm(), pytest.raises(Terminated):
        Store(broken, (kill,)).get(stage)
    artifact = Store(broken).get(stage)
    assert all(torch.equal(artifact[name], expected[name]) for name in expected)
    assert scalars_of(Store(broken), stage) == scalars_of(whole, stage)


def test_dropout_draws_after_an_ended_step_what_it_would_have_drawn(tmp_path):
    from monosem.learning.loop import TrainingLoop

    def train(job):
        network = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(3, 1))
        for weight in network.parameters():
            torch.nn.init.ones_(weight)

        def batches(epoch):
            torch.manual_seed(epoch)
            yield from [(torch.ones(4, 3) * i,) for i in range(4)]

        loop = TrainingLoop(
            module=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
            schedule=Constant(),
            epochs=2,
            steps_per_epoch=4,
            batch_size=4,
            batches=batches,
            losses=lambda inputs: {"loss": network(inputs).square().mean()},
        )
        loop.run(job)
        return network[1].weight

    class Remembered:
        """A job in memory, that asks to end after a step."""

        state, end_after = None, None

        def restore(self):
            return self.state

        def save(self, state):
            self.state = copy.deepcopy(state)

        def log(self, *arguments, **scalars):
            pass

        def on_step(self, step, *others):
            if step == self.end_after:
                os.kill(os.getpid(), signal.SIGTERM)

    expected = train(Remembered())
    job = Remembered()
    job.end_after = 6
    with ended_by_sigterm(), pytest.raises(Terminated):
        train(job)
    job.end_after = None
    assert torch.equal(train(job), expected)


def test_sigterm_exits_143_and_says_that_the_same_command_goes_on(monkeypatch, capsys):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(entry, "run", lambda flags: os.kill(os.getpid(), signal.SIGTERM))
    out = here(capsys, "--gin", "gin/ncl.gin")
    assert out.returncode == 143
    assert "terminated; the same command goes on" in out.stderr and "Traceback" not in out.stderr
    assert signal.getsignal(signal.SIGTERM) == before


# F4: a full disk


def no_space(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_when_a_checkpoint_is_saved_keeps_the_one_before(
    tmp_path, monkeypatch, capsys
):
    store, calls = Store(tmp_path), []
    write = store_module.write_synced

    def full_at_the_second(path, data):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(data[: len(data) // 2])
            no_space()
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_synced", full_at_the_second)
        with pytest.raises(OSError, match="No space left"):
            store.get(Ones())
    assert not store.has(Ones())
    assert store.get(Ones())["ones"].sum() == 100
    assert "Ones goes on after 1 of 2" in capsys.readouterr().err


@pytest.mark.parametrize("writer", ["save_file", "write_synced"])
def test_a_disk_that_is_full_when_an_artifact_is_written_leaves_nothing_finished(
    tmp_path, monkeypatch, writer
):
    store = Store(tmp_path)
    write = getattr(store_module, writer)

    def full(*arguments):
        path = next(each for each in arguments if isinstance(each, Path))
        if path.suffix in (".safetensors", ".json"):
            path.write_bytes(b"the beginning of it")
            no_space()
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, writer, full)
        with pytest.raises(OSError, match="No space left"):
            store.get(Ones())
    assert not store.has(Ones())
    assert store.get(Ones())["ones"].sum() == 100
    assert [path.name for path in (tmp_path / "Ones").iterdir()] == [store.folder(Ones()).name]


def test_a_disk_that_is_full_when_a_table_is_written_keeps_the_old_table(tmp_path, monkeypatch):
    write_text(tmp_path / "curves.csv", "old")
    with monkeypatch.context() as patch:
        patch.setattr(
            Path, "write_text", lambda path, *a, **o: path.write_bytes(b"ne") and no_space()
        )
        with pytest.raises(OSError, match="No space left"):
            write_text(tmp_path / "curves.csv", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.csv"]
    assert (tmp_path / "curves.csv").read_text() == "old"


def test_a_full_disk_is_one_line_of_the_command(monkeypatch, capsys, tmp_path):
    from monosem.running import local

    monkeypatch.setattr(local, "run_experiment", no_space)
    folders = ["--runs", tmp_path / "runs", "--store", tmp_path / "store"]
    out = here(capsys, "--gin", "gin/ncl.gin", *folders)
    assert out.returncode == 1 and out.stderr.count("\n") == 1 and "No space left" in out.stderr


# F5: flipped bits


def test_a_bit_flipped_in_any_region_of_an_artifact_is_noticed(tmp_path, capsys):
    store = Store(tmp_path)
    store.get(Ones())
    path = store.folder(Ones()) / "artifact.safetensors"
    whole = path.read_bytes()
    places = range(0, len(whole), max(1, len(whole) // 16))
    for count, place in enumerate(places, 2):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert torch.equal(store.get(Ones())["ones"], torch.ones(100))
        assert len(Ones.runs) == count, f"byte {place} of {len(whole)} was believed"
    assert capsys.readouterr().err.count("is truncated or altered") == len(places)


# F6: locks of the dead


def hold(folder, ready):
    with lock(folder):
        ready.set()
        time.sleep(600)


def test_a_lock_ends_with_the_process_that_had_it(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path / "a.partial", ready))
    process.start()
    ready.wait()
    process.kill()
    process.join()
    with lock(tmp_path / "a.partial") as folder:
        assert folder is not None


# F9, F21: folders that were moved, clocks that jump


def test_a_store_that_was_moved_is_read_and_nothing_is_computed(tmp_path):
    Store(tmp_path / "a").get(Ones())
    (tmp_path / "a").rename(tmp_path / "b")
    assert Store(tmp_path / "b").get(Ones())["ones"].sum() == 100
    assert Ones.runs == [100] and not (tmp_path / "a").exists()


def test_a_finished_stage_is_read_without_writing_anything(tmp_path, monkeypatch):
    Store(tmp_path).get(Ones())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    opened = builtins.open

    def only_reading(file, mode="r", *arguments, **options):
        assert not set(mode) & set("wax+"), f"{file} was opened to be written"
        return opened(file, mode, *arguments, **options)

    monkeypatch.setattr(builtins, "open", only_reading)
    monkeypatch.setattr(os, "mkdir", no_space)
    assert Store(tmp_path).get(Ones())["ones"].sum() == 100
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_clock_that_jumps_back_changes_no_name_and_computes_nothing_again(tmp_path, monkeypatch):
    clock = iter([2e9, 1e9, 5e8, *range(1000)])
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    store = Store(tmp_path)
    name = store.folder(Ones()).name
    assert store.get(Ones())["ones"].sum() == store.get(Ones())["ones"].sum() == 100
    assert Ones.runs == [100]
    assert [path.name for path in (tmp_path / "Ones").iterdir()] == [name]


# F17: files of somebody else


def test_safe_refuses_a_gin_file_that_imports_and_runs_nothing_of_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    marker = tmp_path / "marker"
    (tmp_path / "theirs_of_a_fault.py").write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"
    )
    text = "import theirs_of_a_fault\ninclude 'gin/ncl.gin'\nExperiment.name = 'x'\n"
    (tmp_path / "theirs.gin").write_text(text)
    (tmp_path / "sweep.gin").write_text("Sweep.name = 's'\nSweep.specs = ('theirs.gin',)\n")
    for file in ("theirs.gin", "sweep.gin"):
        out = here(capsys, "--gin", file, "--safe", "--plan")
        assert out.returncode == 2 and not marker.exists()
        assert "import theirs_of_a_fault is refused by --safe" in out.stderr
        assert "theirs.gin:1" in out.stderr and out.stderr.count("\n") == 1
    (tmp_path / "harmless.gin").write_text(text.replace("theirs_of_a_fault", "math"))
    assert here(capsys, "--gin", "harmless.gin", "--safe", "--plan").returncode == 0
    assert here(capsys, "--gin", "theirs.gin", "--plan").returncode == 0 and marker.exists()


# F18: absent packages


def test_a_package_that_is_absent_is_named_by_what_needs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "a.h5").touch()
    path = str(tmp_path / "a.h5")
    with pytest.raises(ValueError, match="needs h5py: pip install h5py"):
        Arrays(train=path, test=path, mean=(0.5,), std=(0.5,)).problem()


# F20: leakage


def test_a_held_out_file_is_in_one_split_alone(tmp_path):
    for label, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.fromarray(random_pixels(8, 8, 3, seed=10 * label + i)).save(
                tmp_path / name / f"{i}.png"
            )
    data = ImageFolder(folder=str(tmp_path), size=8, holdout=Holdout(share=0.3))
    open_packs.cache_clear()
    splits = [data.split(name).inputs.flatten(1).tolist() for name in ("train", "test")]
    train, test = ({tuple(image) for image in split} for split in splits)
    assert (len(train), len(test), len(train & test)) == (14, 6, 0)
    assert np.bincount(data.split("test").labels).tolist() == [3, 3]
    open_packs.cache_clear()  # the packs beside the classes are no class
    assert data.class_names == ("a", "b")


# A command that does nothing


@pytest.mark.parametrize("module", ["monosem.main", "monosem.running.local"])
def test_a_module_that_is_no_command_says_so(module):
    out = subprocess.run(
        [sys.executable, "-m", module, "--gin", "gin/ncl.gin"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert out.returncode == 2 and out.stdout == ""
    assert out.stderr == f"{module} is no command: python -m monosem --help\n"
