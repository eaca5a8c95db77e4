"""A small sweep under a real Ray: what it leaves, and that killing and doubling change nothing."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PATIENCE, ROOT, TINY, here, run

from monosem.results.rows import read_table

pytestmark = pytest.mark.slow

SWEEP = f"""
{TINY}
Sweep.name = 'tiny'
Sweep.specs = ('gin/simclr.gin', 'gin/sae.gin')
Sweep.grid = {{('Pretrain.seed', 'SparseAutoencoder.seed'): (0, 1)}}
SparseAutoencoder.epochs = 2
SparseAutoencoder.latents = 32
Experiment.curves = (@label_noise/Curve(), @gaussian/Curve())
gaussian/Curve.severities = (0.0, 0.5)
label_noise/Curve.severities = (0.0, 0.5)
"""
CELLS = {"simclr,seed=0", "simclr,seed=1", "sae,seed=0", "sae,seed=1"}
STAGES = 31
LONG_NAME = "x" * 70  # of a folder in which no socket of Ray's can lie


def arguments(folder: Path, text: str, *flags: object, runs: str = "runs") -> list[object]:
    path = folder / "sweep.gin"
    path.write_text(text)
    return ["--gin", path, "--runs", folder / runs, "--store", folder / "store", *flags]


def start(folder: Path, text: str, *flags: object, runs: str = "runs") -> subprocess.Popen[str]:
    command = [sys.executable, ROOT / "run.py", *arguments(folder, text, *flags, runs=runs)]
    return subprocess.Popen(
        list(map(str, command)),
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def wait_until(happened: Any, process: subprocess.Popen[str]) -> None:
    """Until something has happened, as long as a process runs."""
    while not happened():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def finished(folder: Path) -> set[Path]:
    return set((folder / "store").glob("*/*/spec.json"))


def workers() -> Iterator[int]:
    """The processes of this machine that compute a trial."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:  # it has just ended
            continue
        if command.startswith(b"ray::ImplicitFunc.train"):
            yield int(path.parent.name)


def works_in(process: int, folder: Path) -> bool:
    """Whether a process has a file or folder open that lies below a folder."""
    try:
        return any(
            str(folder) in os.readlink(link) for link in Path(f"/proc/{process}/fd").iterdir()
        )
    except OSError:
        return False


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A sweep that nobody disturbed, with a Ray of its own, as a person would start it."""
    folder = tmp_path_factory.mktemp("sweep")
    temporary = tmp_path_factory.mktemp("long") / LONG_NAME
    temporary.mkdir()
    out = run(*arguments(folder, SWEEP), env={**os.environ, "TMPDIR": str(temporary)})
    assert out.returncode == 0 and "Warning" not in out.stderr, out.stderr
    return folder, out


def table(folder: Path, runs: str = "runs") -> bytes:
    return (folder / runs / "tiny" / "curves.csv").read_bytes()


def test_a_long_temporary_folder_does_not_stop_ray(done):
    assert done[1].returncode == 0


def test_all_cells_are_in_one_table_with_a_column_for_each_swept_binding(done):
    with (done[0] / "runs" / "tiny" / "curves.csv").open() as file:
        lines = list(csv.DictReader(file))
    names = ("experiment", "Pretrain.seed", "SparseAutoencoder.seed")
    cells = {tuple(line[name] for name in names) for line in lines}
    assert cells == {("simclr", "0", ""), ("simclr", "1", ""), ("sae", "0", "0"), ("sae", "1", "1")}


def test_a_sweep_leaves_a_figure_for_each_curve_a_summary_and_nothing_of_ray_s(done):
    folder, out = done
    names = {path.name.split(".out")[0] for path in (folder / "runs" / "tiny").iterdir()}
    figures = {"curves.png", "label_noise.png", "gaussian.png"}
    texts = {"curves.csv", "summary.md", "index.html", "events", "cells.txt", "sweep.gin"}
    texts |= {"provenance.json"}
    assert {name for name in names if not name.startswith("gallery")} == figures | texts | CELLS
    assert "gallery.html" in names
    summary = (folder / "runs" / "tiny" / "summary.md").read_text()
    for text in (
        "sae - simclr",
        "2 trained encoders each",
        "| mean top-1 under",
        "n.s.",
        "| class_consistency",
        "probed: SparseAutoencoder of Embedding of Pretrain",
    ):
        assert text in summary
    assert f"tensorboard --logdir {folder / 'runs' / 'tiny'}" in out.stdout
    assert f"4 cells, {STAGES} of {STAGES} stages to compute" in out.stderr


def test_the_record_names_all_stages_and_workers_know_commit_and_command(done):
    record = json.loads((done[0] / "runs" / "tiny" / "provenance.json").read_text())
    assert record["complete"] and len(record["stages"]) == STAGES
    for place in record["stages"]:
        made = json.loads((done[0] / "store" / place / "spec.json").read_text())["made"]
        assert (made["code"], made["command"]) == (record["code"], record["command"])
    cost = done[1].stderr.splitlines()[-1]
    assert re.match(rf"cost: .* for {STAGES} of {STAGES} stages \(.*Pretrain", cost)


def test_tensorboard_reads_one_run_for_each_cell_with_hparams_and_the_sweep_s_figures(done):
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    folder = done[0] / "runs" / "tiny"
    for cell in CELLS:
        assert len(list((folder / cell).glob("events*"))) == 1
    events = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    assert set(events.Runs()) == {".", *CELLS}
    sae = events.GetAccumulator("sae,seed=1")
    assert [event.step for event in sae.Scalars("pretrain/loss")] == [1, 2]
    assert sae.Scalars("sparse_autoencoder/l0") and sae.Scalars("accuracy_top1/gaussian")
    assert sae.SummaryMetadata("_hparams_/session_start_info").plugin_data.plugin_name == "hparams"
    assert set(events.GetAccumulator(".").Tags()["images"]) == {"label_noise", "gaussian", "curves"}


def test_the_same_command_again_computes_and_writes_nothing_and_does_without_ray(done, tmp_path):
    folder, out = done
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "sweep.gin"]
    before = {path: path.stat().st_mtime_ns for path in files}
    again = run_without_ray(folder, tmp_path)
    assert again.returncode == 0 and again.stdout == out.stdout
    assert f"0 of {STAGES} stages to compute" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before


def run_without_ray(folder: Path, empty: Path) -> subprocess.CompletedProcess[str]:
    (empty / "ray.py").write_text("raise SystemExit('nobody needs Ray here')")
    return run(*arguments(folder, SWEEP), env={**os.environ, "PYTHONPATH": str(empty)})


def test_a_lost_figure_is_drawn_again_though_others_are_there(done, capsys):
    folder = done[0]
    figure = folder / "runs" / "tiny" / "gaussian.png"
    before = figure.read_bytes()
    figure.unlink()
    assert here(capsys, *arguments(folder, SWEEP)).returncode == 0
    assert figure.read_bytes() == before


def test_gathering_a_sweep_draws_its_figures_from_the_table_alone(done, capsys, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "curves.csv").write_bytes(table(done[0]))
    out = here(capsys, "--gather", folder)
    assert out.returncode == 0 and "| mean top-1 under" in out.stdout
    for name in ("label_noise.png", "gaussian.png", "curves.png"):
        assert (folder / name).read_bytes() == (done[0] / "runs" / "tiny" / name).read_bytes()


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("experiment", ["simclr", "sae"])
def test_a_cell_under_ray_and_in_process_with_as_many_threads_has_the_same_values(
    done, capsys, tmp_path, one_thread, experiment
):
    config = done[0] / "runs" / "tiny" / f"{experiment},seed=1" / "config.gin"
    places = ["--runs", tmp_path / "runs", "--store", tmp_path / "store"]
    assert here(capsys, "--gin", config, *places).returncode == 0
    alone = read_table(tmp_path / "runs" / experiment / "curves.csv")
    assert alone == [
        row._replace(swept=())
        for row in read_table(done[0] / "runs" / "tiny" / "curves.csv")
        if row.experiment == experiment and dict(row.swept)["Pretrain.seed"] == "1"
    ]


def test_a_worker_and_then_the_driver_killed_at_work_change_nothing_in_the_table(
    done, ray_cluster, capsys, tmp_path
):
    process = start(tmp_path, SWEEP, "--address", ray_cluster.address)

    def own_workers() -> list[int]:
        return [worker for worker in workers() if works_in(worker, tmp_path)]

    wait_until(own_workers, process)
    os.kill(own_workers()[0], signal.SIGKILL)
    wait_until(lambda: len(finished(tmp_path)) >= STAGES // 3, process)
    process.kill()
    process.communicate()
    before = finished(tmp_path)
    again = here(capsys, *arguments(tmp_path, SWEEP, "--address", ray_cluster.address))
    assert again.returncode == 0, again.stderr
    assert len(before) < STAGES and f" {STAGES} stages to compute" in again.stderr
    assert len(finished(tmp_path)) == STAGES
    assert not list((tmp_path / "store").rglob("*.partial"))
    assert table(tmp_path) == table(done[0])


COUNTED = """
from dataclasses import dataclass

import gin

from monosem.learning.objectives import Contrastive


@gin.register
@dataclass(frozen=True)
class Counted(Contrastive):
    diary: str = ""

    def __call__(self, raw, index):
        with open(self.diary, "a") as file:
            file.write(".")
        return super().__call__(raw, index)
"""


def test_two_drivers_at_once_compute_each_stage_once(ray_cluster, tmp_path):
    (tmp_path / "counting.py").write_text(COUNTED)
    diary = tmp_path / "steps"
    text = (
        f"import counting\n{TINY}Sweep.name = 'tiny'\nSweep.specs = ('gin/simclr.gin',)\n"
        "Sweep.grid = {'Pretrain.seed': (0,)}\n"
        "Experiment.curves = (@label_noise/Curve(),)\nlabel_noise/Curve.severities = (0.0, 0.5)\n"
        f"Pretrain.objective = @Counted()\nCounted.diary = '{diary}'\n"
    )
    flags = ("--address", ray_cluster.address, "--jobs", 1)
    drivers = [start(tmp_path, text, *flags, runs=runs) for runs in ("one", "two")]
    errors = [driver.communicate(timeout=PATIENCE)[1] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], errors
    epochs, steps = 2, 1437 // 128
    assert len(diary.read_text()) == epochs * steps  # every step once
    assert table(tmp_path, "one") == table(tmp_path, "two")
