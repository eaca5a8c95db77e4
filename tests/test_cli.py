"""The whole way, as a person goes it: run.py on small versions of the real Gin files, its exit codes, its files."""

from __future__ import annotations

import contextlib
import csv
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import matplotlib.image
import pytest
from conftest import ROOT, TINY, here, run

from monosem.results.rows import Row, read_table

CURVES = {"label_noise": 6, "gaussian": 6, "uniform": 6, "few_shot": 6}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The three experiments on a tiny setting, one after the other over one store."""
    folder = tmp_path_factory.mktemp("main")
    (folder / "tiny.gin").write_text(TINY)
    (folder / "tiny_sae.gin").write_text(
        f"{TINY}SparseAutoencoder.epochs = 2\nSparseAutoencoder.latents = 32\n"
    )
    outputs = {}
    for name in ("simclr", "ncl", "sae"):
        tiny = folder / ("tiny_sae.gin" if name == "sae" else "tiny.gin")
        outputs[name] = command(folder, name, tiny)
        assert outputs[name].returncode == 0 and "Warning" not in outputs[name].stderr, outputs[
            name
        ].stderr
    return folder, outputs


def command(folder: Path, name: str, tiny: Path, *more: object):
    return run(
        "--gin",
        f"gin/{name}.gin",
        "--gin",
        tiny,
        "--runs",
        folder / "runs",
        "--store",
        folder / "store",
        *more,
    )


def test_the_main_job_leaves_a_tidy_table(done):
    folder, _ = done
    for name in ("simclr", "ncl", "sae"):
        with (folder / "runs" / name / "curves.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert {"experiment", "curve", "severity", "repeat", "metric", "value", "n"} <= set(
            lines[0]
        )
        accuracies = [line for line in lines if line["metric"] in ("top1", "top5")]
        counts = {curve: sum(line["curve"] == curve for line in accuracies) for curve in CURVES}
        assert counts == {curve: severities * 2 * 2 for curve, severities in CURVES.items()}
        assert {line["experiment"] for line in lines} == {name} and {
            line["n"] for line in lines
        } == {"360"}
        measured = {line["metric"] for line in lines if line["curve"] == "monosemanticity"}
        assert {
            "class_consistency",
            "class_entropy",
            "sparsity",
            "live_dimensions",
            "dead_dimensions",
            "effective_rank",
        } < measured


def test_the_printed_table_is_the_one_in_the_summary(done):
    folder, outputs = done
    for name, output in outputs.items():
        summary = (folder / "runs" / name / "summary.md").read_text()
        table = output.stdout.split(f"\n{folder}")[0].strip()
        assert table and table in summary
        assert "online classifier: detached, it only watches" in summary
        assert "encoder passes for curve gaussian: 3600 images" in summary
        assert f"tensorboard --logdir {folder / 'runs'}" in output.stdout


def test_the_figure_has_a_panel_for_every_curve(done):
    image = matplotlib.image.imread(done[0] / "runs" / "ncl" / "curves.png")
    assert image.shape[1] > 3 * image.shape[0] and image[..., :3].std() > 0.05


def test_the_autoencoder_shares_the_simclr_encoder(done):
    folder, outputs = done
    assert "Pretrain" not in outputs["sae"].stderr and "SparseAutoencoder" in outputs["sae"].stderr
    assert len(list((folder / "store" / "Pretrain").iterdir())) == 2


def test_tensorboard_reads_training_curves_figure_and_hparams_under_the_experiment_s_name(done):
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    folder, _ = done
    events = EventMultiplexer().AddRunsFromDirectory(str(folder / "runs")).Reload()
    assert set(events.Runs()) == {"simclr", "ncl", "sae"}
    for name in events.Runs():
        accumulator = events.GetAccumulator(name)
        assert [event.step for event in accumulator.Scalars("pretrain/loss")] == [1, 2]
        table = [
            r
            for r in read_table(folder / "runs" / name / "curves.csv")
            if (r.curve, r.metric) == ("gaussian", "top1")
        ]
        series = {
            event.step: event.value for event in accumulator.Scalars("accuracy_top1/gaussian")
        }
        for severity in {row.severity for row in table}:
            values = [row.value for row in table if row.severity == severity]
            assert series[round(1000 * severity)] == pytest.approx(
                sum(values) / len(values), rel=1e-6
            )
        assert all(
            accumulator.Images(picture)
            for picture in ("curves", "gallery", "histograms", "space")
        )
        epochs = accumulator.Scalars("pretrain/class_consistency")
        assert [event.step for event in epochs] == [1, 2] and all(
            0.1 <= event.value <= 1 for event in epochs
        )
        plugins = accumulator.SummaryMetadata("_hparams_/session_start_info")
        assert plugins.plugin_data.plugin_name == "hparams"
        assert [event.value for event in accumulator.Scalars("encoder_passes/gaussian")] == [
            5 * 2 * 360
        ]
    assert events.GetAccumulator("sae").Scalars("sparse_autoencoder/dead_latents")
    assert events.GetAccumulator("sae").Scalars("sparse_autoencoder/class_selectivity")


def test_a_second_identical_run_computes_nothing_and_leaves_everything_as_it_is(done):
    folder, outputs = done
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    started = time.monotonic()
    again = command(folder, "ncl", folder / "tiny.gin")
    seconds = time.monotonic() - started
    assert again.returncode == 0 and "0 of 10 stages to compute" in again.stderr
    assert again.stdout == outputs["ncl"].stdout
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    assert seconds < 10  # 5 on a quiet machine, see benchmarks/; imports take most of it


def test_the_resolved_config_gives_the_same_numbers_in_an_empty_store(done, tmp_path):
    folder, _ = done
    config = folder / "runs" / "ncl" / "config.gin"
    assert (
        run("--gin", config, "--runs", tmp_path / "runs", "--store", tmp_path / "store").returncode
        == 0
    )
    for name in ("curves.csv", "config.gin", "summary.md"):
        assert (tmp_path / "runs" / "ncl" / name).read_bytes() == (
            folder / "runs" / "ncl" / name
        ).read_bytes()


def test_a_lost_figure_is_drawn_again_without_computing(done):
    folder, _ = done
    (folder / "runs" / "simclr" / "curves.png").unlink()
    again = command(folder, "simclr", folder / "tiny.gin")
    assert "0 of 10 stages to compute" in again.stderr
    assert (folder / "runs" / "simclr" / "curves.png").exists()
    assert len(list((folder / "runs" / "simclr").glob("events*"))) == 1


def test_plan_tells_what_is_to_do_and_what_is_there_and_touches_nothing(
    done, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(ROOT)
    folder, _ = done
    places = ["--runs", folder / "runs", "--store", folder / "store"]
    ncl = ["--gin", "gin/ncl.gin", "--gin", folder / "tiny.gin", "--plan", *places]
    there = here(capsys, *ncl).stdout
    assert there.count("there") == 11 and "to do" not in there and "ncl: all there" in there
    fresh = here(
        capsys,
        "--gin",
        "gin/ncl.gin",
        "--plan",
        "--runs",
        tmp_path / "r",
        "--store",
        tmp_path / "s",
    )
    assert (
        fresh.stdout.count("to do") == 10
        and "wave 1  to do" in fresh.stdout
        and "10 to compute, in 3 waves" in fresh.stdout
    )
    assert not (tmp_path / "r").exists() and not (tmp_path / "s").exists()
    part = here(capsys, *ncl, "--set", "LinearProbe.epochs = 3").stdout
    assert part.count("to do") == 4 and part.count("there  ") == 6


def test_gather_lays_several_experiments_over_one_another_from_their_tables_alone(
    done, tmp_path, capsys
):
    folder, _ = done
    runs = [folder / "runs" / name for name in ("simclr", "ncl", "sae")]
    out = here(capsys, "--gather", *runs, "--runs", tmp_path)
    assert out.returncode == 0, out.stderr
    rows = read_table(tmp_path / "simclr+ncl+sae" / "curves.csv")
    assert [*rows] == [
        row for each in runs for row in read_table(each / "curves.csv")
    ] and isinstance(rows[0], Row)
    assert "top-1 of sae, %" in out.stdout and (tmp_path / "simclr+ncl+sae" / "curves.png").exists()
    for arguments, words in (
        (("--gather", tmp_path / "nothing"), "there is no"),
        (("--gather", tmp_path, "--gin", "gin/ncl.gin"), "--gather goes only with --runs"),
        (("--gather", runs[0], runs[0]), "two of the tables hold an experiment called simclr"),
        (("--gather", ROOT / "gin"), "there is no"),
    ):
        out = here(capsys, *arguments)
        assert out.returncode == 2 and words in out.stderr


def test_gathering_one_run_draws_it_again_and_keeps_its_summary(done, capsys):
    run_folder = done[0] / "runs" / "ncl"
    before = {path.name: path.read_bytes() for path in run_folder.iterdir()}
    (run_folder / "curves.png").unlink()
    assert here(capsys, "--gather", run_folder).returncode == 0
    assert {path.name: path.read_bytes() for path in run_folder.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--gin FILE is needed"),
        (("--gin",), "expected one argument"),
        (("--gin", "gin/nlc.gin"), "did you mean gin/ncl.gin?"),
        (("--gin", "gin/ncl.gin", "--sett", "x"), "unrecognized arguments: --sett"),
        (
            ("--gin", "gin/ncl.gin", "--set", "NonNegative.temperature = -1"),
            "must be above 0, got -1",
        ),
        (
            ("--gin_file", "gin/ncl.gin", "--gin_bindings", "Pretrain.epochs = 'x'"),
            "must be a whole number, got 'x'",
        ),
        (
            ("--gin", "gin/ncl.gin", "--runs", "README.md"),
            "--runs: the folder README.md/ncl cannot be made",
        ),
        (
            ("--gin", "gin/ncl.gin", "--store", "/proc/nothing"),
            "--store: the folder /proc/nothing cannot be made",
        ),
    ],
    ids=str,
)
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(
    arguments, words, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(ROOT)
    places = (
        ()
        if {"--runs", "--store"} & set(arguments)
        else ("--runs", tmp_path / "runs", "--store", tmp_path / "store")
    )
    out = here(capsys, *arguments, *places)
    assert out.returncode == 2 and words in out.stderr, out.stderr
    assert out.stdout == "" and out.stderr.count("\n") == 1 and "Traceback" not in out.stderr
    assert not list(tmp_path.iterdir())


def test_a_process_says_the_same(tmp_path):
    out = run("--gin", "gin/nlc.gin", "--runs", tmp_path / "runs")
    assert (out.returncode, out.stdout) == (2, "") and not list(tmp_path.iterdir())
    assert (
        out.stderr
        == "run.py: --gin gin/nlc.gin: the file does not exist; did you mean gin/ncl.gin?\n"
    )


def test_a_loss_that_turns_nan_exits_1_and_leaves_nothing_finished(tmp_path, tiny_gin):
    out = command(tmp_path, "simclr", tiny_gin, "--set", "pretrain/Adam.lr = 1e30")
    assert out.returncode == 1 and "Traceback" not in out.stderr
    assert (
        "the loss is not a finite number from step" in out.stderr and "learning rate" in out.stderr
    )
    assert not [path for path in (tmp_path / "store").rglob("spec.json")]
    assert not (tmp_path / "runs" / "simclr" / "curves.csv").exists()


def test_ctrl_c_exits_130_and_the_same_command_goes_on_with_the_same_bits(done, tmp_path):
    folder, _ = done
    arguments = [
        "--gin",
        "gin/ncl.gin",
        "--gin",
        folder / "tiny.gin",
        "--set",
        "Pretrain.epochs = 12",
        "--runs",
    ]
    whole = run(*arguments, tmp_path / "whole", "--store", tmp_path / "whole_store")
    assert whole.returncode == 0
    places = [tmp_path / "broken", "--store", tmp_path / "broken_store"]
    process = subprocess.Popen(
        [sys.executable, "run.py", *map(str, [*arguments, *places])], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell starts what is in the background without it
    )  # fmt: skip
    while not list(tmp_path.glob("broken_store/Pretrain/*.partial/checkpoint")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, valid = process.communicate(timeout=60)
    assert (
        process.returncode == 130
        and "interrupted; the same command goes on" in valid
        and "Traceback" not in valid
    )
    assert run(*arguments, *places).returncode == 0
    for name in ("curves.csv", "config.gin"):
        assert (tmp_path / "broken" / "ncl" / name).read_bytes() == (
            tmp_path / "whole" / "ncl" / name
        ).read_bytes()


def test_a_terminal_sees_a_bar_with_loss_and_images_per_second(tmp_path, tiny_gin):
    terminal, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, 120))
    arguments = [
        "--gin",
        "gin/ncl.gin",
        "--gin",
        tiny_gin,
        "--set",
        "Pretrain.epochs = 12",
        "--runs",
        tmp_path,
        "--store",
        tmp_path / "store",
    ]
    process = subprocess.Popen(
        [sys.executable, "run.py", *map(str, arguments)],
        cwd=ROOT,
        stderr=theirs,
        stdout=subprocess.DEVNULL,
    )
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # reading ends with one when the other side is closed
        while data := os.read(terminal, 4096):
            seen += data
    assert process.wait() == 0
    assert (
        re.search(rb"Pretrain: +\d+%.*/132 .*loss \d\.\d+, [\d,]+ images/s", seen)
        and b"Warning" not in seen
    ), seen.decode()


def test_help_answers_without_importing_anything_heavy():
    out = run("--help")
    assert out.returncode == 0 and "--gather" in out.stdout
    heavy = "import sys, monosem.cli; print({'torch', 'ray', 'gin', 'matplotlib', 'numpy'} & set(sys.modules))"
    assert (
        subprocess.run(
            [sys.executable, "-c", heavy], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip()
        == "set()"
    )


def test_the_peak_memory_of_the_runs_stays_under_two_gigabytes(done):
    assert (
        resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2 * 1024**2
    )  # KiB, the largest child so far


def test_it_runs_from_any_folder(tmp_path):
    out = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "--gin", "gin/ncl.gin", "--plan"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert out.returncode == 0 and "10 to compute" in out.stdout


def test_compiling_without_a_compiler_is_refused_before_any_work(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    out = here(
        capsys,
        "--gin",
        "gin/ncl.gin",
        "--compile",
        "--runs",
        tmp_path / "runs",
        "--store",
        tmp_path / "store",
    )
    assert (
        out.returncode == 2
        and "--compile needs a C++ compiler" in out.stderr
        and not (tmp_path / "runs").exists()
    )
