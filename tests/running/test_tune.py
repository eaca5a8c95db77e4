"""Sweeps under a real Ray: killed drivers, killed workers, a killed node, two drivers at once, growing, failing, stopping."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, TINY, run

from monosem.results.rows import read_table

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
ONE_WAVE = f"""
{TINY}
Sweep.name = 'wave'
Sweep.specs = ('gin/simclr.gin',)
Experiment.curves = (@label_noise/Curve(),)
label_noise/Curve.severities = (0.0, 0.5)
"""


def arguments(folder: Path, text: str, *more: object, runs: str = "runs") -> list[object]:
    path = folder / "sweep.gin"
    path.write_text(text)
    return ["--gin", path, "--runs", folder / runs, "--store", folder / "store", *more]


def start(folder: Path, text: str, *more: object, runs: str = "runs") -> subprocess.Popen[str]:
    command = [
        sys.executable,
        str(ROOT / "run.py"),
        *map(str, arguments(folder, text, *more, runs=runs)),
    ]
    return subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


def descendants(pid: int) -> dict[int, str]:
    """The processes below one, with their command lines."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(
                int(path.parent.name)
            )
        except OSError:  # it has just ended
            continue
    found, pending = {}, [pid]
    while pending:
        for child in parents.get(pending.pop(), []):
            pending.append(child)
            try:
                found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
    return found


def finished(folder: Path) -> dict[str, int]:
    """Stages in the store, and when each was finished."""
    return {
        f"{path.parent.parent.name}/{path.parent.name}": path.stat().st_mtime_ns
        for path in (folder / "store").glob("*/*/spec.json")
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A sweep that nobody disturbed."""
    folder = tmp_path_factory.mktemp("sweep")
    out = run(*arguments(folder, SWEEP))
    assert out.returncode == 0 and "Warning" not in out.stderr, out.stderr
    return folder, out


def table(folder: Path, runs: str = "runs") -> bytes:
    return (folder / runs / "tiny" / "curves.csv").read_bytes()


def test_all_cells_are_in_one_table_with_a_column_for_each_swept_binding(done):
    with (done[0] / "runs" / "tiny" / "curves.csv").open() as file:
        lines = list(csv.DictReader(file))
    cells = {
        (line["experiment"], line["Pretrain.seed"], line["SparseAutoencoder.seed"])
        for line in lines
    }
    assert cells == {("simclr", "0", ""), ("simclr", "1", ""), ("sae", "0", "0"), ("sae", "1", "1")}


def test_a_sweep_leaves_a_figure_for_each_curve_a_summary_and_nothing_of_ray_s(done):
    folder, out = done
    names = {path.name.split(".out")[0] for path in (folder / "runs" / "tiny").iterdir()}
    assert names == {
        "curves.csv", "curves.png", "label_noise.png", "gaussian.png", "summary.md", "events", "cells.txt", "gallery.html",
        "simclr,seed=0", "simclr,seed=1", "sae,seed=0", "sae,seed=1",
    }  # fmt: skip
    summary = (folder / "runs" / "tiny" / "summary.md").read_text()
    assert (
        "sae - simclr" in summary
        and "2 trained encoders each" in summary
        and "| mean top-1 under" in summary
    )
    assert (
        "n.s." in summary
        and "| class_consistency" in summary
        and "probed: SparseAutoencoder of Embedding of Pretrain" in summary
    )
    assert f"tensorboard --logdir {folder / 'runs' / 'tiny'}" in out.stdout
    assert "4 cells, 29 of 29 stages to compute" in out.stderr


def test_tensorboard_reads_one_run_for_each_cell_with_hparams_and_the_sweep_s_figures(done):
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    folder = done[0] / "runs" / "tiny"
    assert [len(list(cell.glob("events*"))) for cell in folder.iterdir() if cell.is_dir()] == [
        1
    ] * 4
    events = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    assert set(events.Runs()) == {".", "simclr,seed=0", "simclr,seed=1", "sae,seed=0", "sae,seed=1"}
    sae = events.GetAccumulator("sae,seed=1")
    assert [event.step for event in sae.Scalars("pretrain/loss")] == [1, 2]
    assert sae.Scalars("sparse_autoencoder/l0") and sae.Scalars("accuracy_top1/gaussian")
    assert sae.SummaryMetadata("_hparams_/session_start_info").plugin_data.plugin_name == "hparams"
    assert set(events.GetAccumulator(".").Tags()["images"]) == {"label_noise", "gaussian", "curves"}


def test_the_same_command_again_computes_nothing_and_does_without_ray(done, tmp_path):
    folder, out = done
    before = {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name != "sweep.gin"
    }
    (tmp_path / "ray.py").write_text("raise SystemExit('nobody needs Ray here')")
    again = run(*arguments(folder, SWEEP), env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (
        again.returncode == 0
        and "0 of 29 stages to compute" in again.stderr
        and again.stdout == out.stdout
    )
    assert {path: path.stat().st_mtime_ns for path in before} == before
    (
        folder / "runs" / "tiny" / "gaussian.png"
    ).unlink()  # a figure that was lost is drawn again, though others are there
    assert (
        run(*arguments(folder, SWEEP), env={**os.environ, "PYTHONPATH": str(tmp_path)}).returncode
        == 0
    )
    assert (folder / "runs" / "tiny" / "gaussian.png").exists()


def test_gathering_a_sweep_draws_its_figures_from_the_table_alone(done, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "curves.csv").write_bytes(table(done[0]))
    out = run("--gather", folder)
    assert out.returncode == 0 and "| mean top-1 under" in out.stdout
    for name in ("label_noise.png", "gaussian.png", "curves.png"):
        assert (folder / name).read_bytes() == (done[0] / "runs" / "tiny" / name).read_bytes()


def test_cells_under_ray_and_in_process_with_as_many_threads_have_the_same_values(done, tmp_path):
    rows = read_table(done[0] / "runs" / "tiny" / "curves.csv")
    for name, seed in (("simclr", "1"), ("sae", "1")):
        config = done[0] / "runs" / "tiny" / f"{name},seed={seed}" / "config.gin"
        places = ["--runs", tmp_path / "runs", "--store", tmp_path / "store"]
        assert (
            run("--gin", config, *places, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
            == 0
        )
        alone = read_table(tmp_path / "runs" / name / "curves.csv")
        assert alone == [
            row._replace(swept=())
            for row in rows
            if row.experiment == name and dict(row.swept)["Pretrain.seed"] == seed
        ]


def test_growing_a_grid_computes_exactly_the_new_cells(done, tmp_path):
    text = ONE_WAVE + "Sweep.grid = {'LinearProbe.epochs': (1, 2, 3, 4)}"
    assert run(*arguments(tmp_path, text)).returncode == 0
    before = finished(tmp_path)
    grown = run(*arguments(tmp_path, text.replace("4)", "4, 5, 6)"), "--cpus", 2, "--jobs", 1))
    assert grown.returncode == 0 and "6 cells, 2 of 12 stages to compute" in grown.stderr
    after = finished(tmp_path)
    assert {name: after[name] for name in before} == before  # what was there is untouched
    assert sorted(name.split("/")[0] for name in after.keys() - before.keys()) == ["Curve", "Curve"]
    threads = {
        name: json.loads((tmp_path / "store" / name / "spec.json").read_text())["made"]["threads"]
        for name in after
    }
    assert {threads[name] for name in before} == {1} and {
        threads[name] for name in after.keys() - before.keys()
    } == {2}
    assert len({row.swept for row in read_table(tmp_path / "runs" / "wave" / "curves.csv")}) == 6


def test_a_driver_killed_at_random_moments_leaves_nothing_that_changes_the_table(done, tmp_path):
    moments = random.Random(time.time_ns())
    for _ in range(3):
        process = start(tmp_path, SWEEP)
        seconds = moments.uniform(2, 14)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stderr is not None
        process.stderr.close()
    assert run(*arguments(tmp_path, SWEEP)).returncode == 0
    assert table(tmp_path) == table(done[0])


def test_workers_killed_at_random_moments_are_replaced_and_change_nothing(done, tmp_path):
    moments, killed = random.Random(time.time_ns()), 0
    process = start(tmp_path, SWEEP + "Sweep.retries = 9")
    while process.poll() is None:
        time.sleep(moments.uniform(0.1, 1))
        workers = [
            pid
            for pid, words in descendants(process.pid).items()
            if words.startswith(("ray::_Trial", "ray::ResourceTrainable"))
        ]  # agents have other names
        if workers and killed < 4:
            os.kill(moments.choice(workers), signal.SIGKILL)
            killed += 1
    _, valid = process.communicate()
    assert process.returncode == 0 and killed >= 1, (
        valid
    )  # a quick machine may be done before the fourth
    assert table(tmp_path) == table(done[0])


def test_two_drivers_at_once_compute_each_stage_once(done, tmp_path):
    (tmp_path / "counting.py").write_text(
        "from dataclasses import dataclass\n"
        "import gin\n"
        "from monosem.objectives import Contrastive\n\n\n"
        "@gin.register\n"
        "@dataclass(frozen=True)\n"
        "class Counted(Contrastive):\n"
        "    log: str = ''\n\n"
        "    def __call__(self, raw, index):\n"
        "        with open(self.log, 'a') as file:\n"
        "            file.write('.')\n"
        "        return super().__call__(raw, index)\n"
    )
    count = tmp_path / "steps"
    text = (
        f"import counting\n{ONE_WAVE}Pretrain.epochs = 6\nPretrain.objective = @Counted()\nCounted.log = '{count}'\n"
        "Sweep.grid = {'Pretrain.seed': (0, 1)}"
    )
    first, second = (start(tmp_path, text, runs=runs) for runs in ("one", "two"))
    valid = [process.communicate(timeout=170)[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], valid
    assert len(count.read_text()) == 2 * 6 * (1437 // 128)  # every step of both encoders, once
    assert (tmp_path / "one" / "wave" / "curves.csv").read_bytes() == (
        tmp_path / "two" / "wave" / "curves.csv"
    ).read_bytes()


def test_one_failed_cell_takes_none_along_and_is_the_only_one_tried_again(tmp_path):
    text = ONE_WAVE + "Sweep.retries = 1\nSweep.grid = {'pretrain/Adam.lr': (1e-3, 1e30)}"
    out = run(*arguments(tmp_path, text))
    assert out.returncode == 1 and "Traceback" not in out.stderr
    (log,) = (tmp_path / "runs" / "wave" / "logs").iterdir()
    for words in (out.stdout, (tmp_path / "runs" / "wave" / "summary.md").read_text()):
        assert (
            "- simclr,lr=1e+30 failed: the loss is not a finite number from step" in words
            and f"(log: {log})" in words
        )
    assert log.read_text().count("== try") == 2 and "in train\n" in log.read_text()
    assert {
        dict(row.swept)["pretrain/Adam.lr"]
        for row in read_table(tmp_path / "runs" / "wave" / "curves.csv")
    } == {"0.001"}
    before = finished(tmp_path)
    again = run(*arguments(tmp_path, text))
    assert (
        again.returncode == 1
        and finished(tmp_path) == before
        and "6 of 13 stages to compute" in again.stderr
    )
    assert run(*arguments(tmp_path, text.replace("1e30", "2e-3"))).returncode == 0
    cells = {
        path.name
        for path in (tmp_path / "runs" / "wave").iterdir()
        if path.is_dir() and path.name != "logs"
    }
    assert cells == {"simclr,lr=0.001", "simclr,lr=0.002"}


def test_a_scheduler_stops_the_bad_ones_for_good(tmp_path):
    text = ONE_WAVE + (
        "Pretrain.epochs = 12\nSweep.grid = {'pretrain/Adam.lr': (3e-3, 1e-3, 1e-9, 2e-9)}\n"
        "Sweep.scheduler = @ASHA()\nASHA.metric = 'online_accuracy'\nASHA.mode = 'max'\nASHA.grace = 2\nASHA.reduction = 2\n"
        "Sweep.goal = @Goal()\nGoal.curve = 'label_noise'\n"
    )
    out = run(*arguments(tmp_path, text, "--jobs", 1))
    assert out.returncode == 0, out.stderr
    stopped = json.loads((tmp_path / "runs" / "wave" / "stopped.json").read_text())["stages"]
    assert 1 <= len(stopped) <= 3 and all(2 <= step < 12 for step, _ in stopped.values())
    assert "was stopped by the scheduler after epoch" in out.stdout and "not finished" in out.stdout
    assert "Best within bounds: simclr,lr=0.003" in out.stdout
    again = run(*arguments(tmp_path, text, "--jobs", 1))
    assert again.stdout == out.stdout and again.returncode == 0
    (tmp_path / "runs" / "wave" / "stopped.json").write_text("{garbage")
    other = run(
        *arguments(tmp_path, text.replace("'online_accuracy'", "'online_acuracy'"), "--jobs", 1)
    )
    assert (
        other.returncode == 1
        and "stopped.json is damaged: what was stopped is tried again" in other.stderr
    )
    assert (
        "Sweep.scheduler: Pretrain logs no 'online_acuracy'; it logs " in other.stderr
        and "Traceback" not in other.stderr
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--cpus", 4096],
            "a trial of Pretrain asks for 4096 CPUs and 0 GPUs; available, node by node: ",
        ),
        (["--gpus", 0.5], "a trial of Pretrain asks for 1 CPUs and 0.5 GPUs; available"),
        (["--address", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1: "),
        (["--address", "auto"], "no Ray cluster at auto: "),
    ],
)
def test_what_the_cluster_cannot_give_is_said_within_ten_seconds(tmp_path, flags, words):
    if "auto" in flags and any("gcs_server" in words for words in descendants(1).values()):
        pytest.skip("another Ray is running on this machine: auto would find it")
    started = time.monotonic()
    out = run(
        *arguments(tmp_path, ONE_WAVE, *flags),
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
    )
    assert time.monotonic() - started < 10
    assert out.returncode == 2 and words in out.stderr and "Traceback" not in out.stderr
    assert not (tmp_path / "runs" / "wave").exists() or not list(
        (tmp_path / "runs" / "wave").iterdir()
    )


def test_a_node_that_dies_in_the_middle_of_a_cluster_sweep_loses_and_doubles_nothing(
    done, tmp_path
):
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        other = cluster.add_node(num_cpus=1)
        process = start(tmp_path, SWEEP, "--address", cluster.address)
        while len(finished(tmp_path)) < 1:  # the first encoder is there: others are being trained
            assert process.poll() is None
            time.sleep(0.05)
        cluster.remove_node(other, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        _, valid = process.communicate(timeout=170)
    finally:
        cluster.shutdown()
    assert process.returncode == 0, valid
    assert table(tmp_path) == table(done[0])
    assert len(finished(tmp_path)) == 29 and not list((tmp_path / "store").rglob("*.partial"))
