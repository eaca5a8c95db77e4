"""The whole way, as a person goes it: small versions of the real Gin files, exit codes, words."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib.image
import pytest
from conftest import PATIENCE, ROOT, SMALL_SWEEP, TINY, here

from monosem.cli import main
from monosem.results.rows import read_table

NAMES = ("simclr", "ncl", "sae")
CURVES = {"label_noise": 6, "gaussian": 6, "uniform": 6, "few_shot": 6}  # and their severities
REPEATS, TEST_IMAGES = 2, 360

pytestmark = pytest.mark.usefixtures("in_root")


class Output(NamedTuple):
    code: int
    stdout: str
    stderr: str


def in_process(*arguments: object) -> Output:
    """As `conftest.here`, for fixtures of the module, which have no capsys."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*map(str, arguments)], prog="run.py")
    return Output(code, out.getvalue(), err.getvalue())


class Runs(NamedTuple):
    """The three experiments on a tiny setting, one after the other over one store.

    folder: holds runs/, store/ and the Gin files of the setting.
    outputs: what each of them printed.
    """

    folder: Path
    outputs: dict[str, Output]

    def flags(self, name: str) -> list[object]:
        tiny = self.folder / ("tiny_sae.gin" if name == "sae" else "tiny.gin")
        return ["--gin", f"gin/{name}.gin", "--gin", tiny, *folders(self.folder)]

    def of(self, name: str) -> Path:
        return self.folder / "runs" / name


def folders(place: Path) -> list[object]:
    return ["--runs", place / "runs", "--store", place / "store"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    autoencoder = "SparseAutoencoder.epochs = 2\nSparseAutoencoder.latents = 32\n"
    (folder / "tiny.gin").write_text(TINY)
    (folder / "tiny_sae.gin").write_text(TINY + autoencoder)
    runs = Runs(folder, {})
    for name in NAMES:
        runs.outputs[name] = in_process(*runs.flags(name))
        assert runs.outputs[name].code == 0, runs.outputs[name].stderr
    return runs


# What a run leaves


@pytest.mark.parametrize("name", NAMES)
def test_the_table_has_every_curve_severity_and_repeat(done, name):
    with (done.of(name) / "curves.csv").open() as file:
        lines = list(csv.DictReader(file))
    columns = {"experiment", "curve", "severity", "repeat", "metric", "value", "n"}
    assert columns <= set(lines[0])
    assert {(line["experiment"], line["n"]) for line in lines} == {(name, str(TEST_IMAGES))}
    for curve, severities in CURVES.items():
        own = [line for line in lines if line["curve"] == curve]
        accuracies = [line for line in own if line["metric"] in ("top1", "top5")]
        assert len(accuracies) == severities * REPEATS * 2


@pytest.mark.parametrize("name", NAMES)
def test_the_table_has_the_metrics_of_clean_features(done, name):
    rows = read_table(done.of(name) / "curves.csv")
    metrics = {row.metric for row in rows if row.curve == "monosemanticity"}
    assert {"class_consistency", "class_entropy", "sparsity", "effective_rank"} < metrics
    assert {"live_dimensions", "dead_dimensions"} < metrics


@pytest.mark.parametrize("name", NAMES)
def test_the_printed_table_is_the_one_in_the_summary(done, name):
    summary = (done.of(name) / "summary.md").read_text()
    printed = done.outputs[name].stdout
    table = printed.split(f"\n{done.folder}")[0].strip()
    assert table and table in summary
    assert "online classifier: detached, it only watches" in summary
    assert "encoder passes for curve gaussian: 3600 images" in summary
    assert f"tensorboard --logdir {done.folder / 'runs'}" in printed


def test_the_figure_has_a_panel_for_every_curve(done):
    image = matplotlib.image.imread(done.of("ncl") / "curves.png")
    assert image.shape[1] > 3 * image.shape[0]
    assert image[..., :3].std() > 0.05


def test_the_autoencoder_shares_the_simclr_encoder(done):
    lines = done.outputs["sae"].stderr.splitlines()
    progress = "\n".join(line for line in lines if "WarmupCosine.warmup" not in line)
    (cost,) = re.findall(r"^cost: .* \((.*)\);", progress, re.MULTILINE)
    assert "Pretrain" not in progress and "SparseAutoencoder" in cost
    assert len(list((done.folder / "store" / "Pretrain").iterdir())) == 2


@pytest.mark.parametrize("name", NAMES)
def test_a_run_leaves_a_record_of_code_machine_command_times_and_stages(done, name):
    record = json.loads((done.of(name) / "provenance.json").read_text())
    assert record["complete"] and not (done.of(name) / "unfinished.json").exists()
    assert record["started"] <= record["finished"] and record["seconds"] > 0
    assert f"run.py --gin gin/{name}.gin --gin" in record["command"]
    for place in record["stages"]:
        manifest = json.loads((done.folder / "store" / place / "spec.json").read_text())
        made = manifest["made"]
        for part in ("code", "versions", "hardware", "threads"):
            assert made[part] == record[part]
        assert made["started"] <= made["finished"]


def test_a_run_says_what_it_cost_and_what_the_store_spared(done):
    cost = done.outputs["sae"].stderr.splitlines()[-1]
    assert re.match(r"cost: .+ for \d+ of \d+ stages \(.*SparseAutoencoder [\d.]+ (s|min)", cost)
    assert re.search(r"; \d+ read from the store, which had taken [\d.]+ (s|min)$", cost)


def test_runs_are_listed_and_compared(done):
    listed = in_process("--list", "--runs", done.folder / "runs").stdout
    assert all(f"| {name} " in listed for name in NAMES) and "complete" in listed
    report = in_process("--diff", done.of("simclr"), done.of("ncl")).stdout
    assert "| Pretrain.objective " in report and "@NonNegative()" in report
    assert "Pretrain.epochs" not in report and "paired difference" in report


def test_a_finished_run_needs_its_whole_store_and_nothing_else(done):
    info = in_process("--store-info", *folders(done.folder)).stdout
    assert "of which no run folder needs 0 artifacts" in info


def test_a_store_behind_another_is_read_and_not_written_to(done, tmp_path):
    stores = ["--store", tmp_path / "own", "--store", done.folder / "store"]
    files = ["--gin", "gin/ncl.gin", "--gin", done.folder / "tiny.gin"]
    runs = ["--runs", tmp_path / "runs"]
    out = in_process(*files, *stores, *runs)
    assert out.code == 0 and "ncl: 0 of" in out.stderr
    assert [path for path in (tmp_path / "own").rglob("*") if path.is_dir()] == []
    plan = in_process(*files, *stores, *runs, "--plan", "--set", "LinearProbe.epochs = 3").stdout
    assert plan.count("to do") == 4


def test_a_store_that_cannot_be_written_to_serves_where_everything_is_there(
    done, tmp_path, monkeypatch
):
    store = done.folder / "store"
    access = os.access  # root may write anywhere, so a read-only store is said to be one
    monkeypatch.setattr(os, "access", lambda path, mode: path != store and access(path, mode))
    files = ["--gin", "gin/ncl.gin", "--gin", done.folder / "tiny.gin"]
    places = ["--runs", tmp_path / "runs", "--store", store]
    assert in_process(*files, *places).code == 0
    out = in_process(*files, *places, "--set", "LinearProbe.epochs = 3")
    assert out.code == 2 and out.stderr.count("\n") == 1
    assert (
        f"--store: the folder {store} cannot be written to, and 4 stages are missing" in out.stderr
    )
    out = in_process("--prune", "--yes", *places)
    assert out.code == 2 and f"--store: the folder {store} cannot be written to" in out.stderr


# What TensorBoard reads


@pytest.fixture(scope="module")
def events(done):
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    return EventMultiplexer().AddRunsFromDirectory(str(done.folder / "runs")).Reload()


def test_tensorboard_lists_runs_by_the_names_of_experiments(events):
    assert set(events.Runs()) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_tensorboard_has_the_training_epoch_by_epoch(events, name):
    accumulator = events.GetAccumulator(name)
    assert [event.step for event in accumulator.Scalars("pretrain/loss")] == [1, 2]
    consistency = accumulator.Scalars("pretrain/class_consistency")
    assert [event.step for event in consistency] == [1, 2]
    assert all(0.1 <= event.value <= 1 for event in consistency)


@pytest.mark.parametrize("name", NAMES)
def test_tensorboard_has_the_means_of_the_table(events, done, name):
    scalars = events.GetAccumulator(name).Scalars("accuracy_top1/gaussian")
    means = {event.step: event.value for event in scalars}
    rows = read_table(done.of(name) / "curves.csv")
    gaussian = [row for row in rows if (row.curve, row.metric) == ("gaussian", "top1")]
    for severity in {row.severity for row in gaussian}:
        values = [row.value for row in gaussian if row.severity == severity]
        mean = sum(values) / len(values)
        assert means[round(1000 * severity)] == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_tensorboard_has_figures_hyperparameters_and_costs(events, name):
    accumulator = events.GetAccumulator(name)
    for figure in ("curves", "gallery", "histograms", "space"):
        assert accumulator.Images(figure)
    plugins = accumulator.SummaryMetadata("_hparams_/session_start_info")
    assert plugins.plugin_data.plugin_name == "hparams"
    passes = accumulator.Scalars("encoder_passes/gaussian")
    assert [event.value for event in passes] == [5 * REPEATS * TEST_IMAGES]  # 0.0 needs none


def test_tensorboard_has_what_an_autoencoder_logs(events):
    accumulator = events.GetAccumulator("sae")
    assert accumulator.Scalars("sparse_autoencoder/dead_latents")
    assert accumulator.Scalars("sparse_autoencoder/class_selectivity")


# A second time


def test_a_second_identical_run_computes_nothing_and_leaves_everything_as_it_is(done):
    def times():
        files = [path for path in done.folder.rglob("*") if path.is_file()]
        return {path: path.stat().st_mtime_ns for path in files}

    before = times()
    again = in_process(*done.flags("ncl"))
    assert again.code == 0
    assert re.search(r"ncl: 0 of \d+ stages to compute", again.stderr)
    assert again.stdout == done.outputs["ncl"].stdout
    assert times() == before


def test_a_lost_figure_is_drawn_again_without_computing(done):
    (done.of("simclr") / "curves.png").unlink()
    again = in_process(*done.flags("simclr"))
    assert "simclr: 0 of" in again.stderr
    assert (done.of("simclr") / "curves.png").exists()
    assert len(list(done.of("simclr").glob("events*"))) == 1


# The last word is the most memory that the process had, in KiB. Not by getrusage, where a process
# begins with what its parent had when it was forked.
TELLS_ITS_MEMORY = """
import re, sys
from monosem.cli import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
sys.exit(code)
"""


@pytest.mark.slow
def test_the_resolved_config_alone_gives_the_same_numbers_in_another_checkout(done, tmp_path):
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "monosem", checkout / "monosem")
    config = shutil.copy(done.of("ncl") / "config.gin", tmp_path / "alone.gin")
    command = [sys.executable, "-c", TELLS_ITS_MEMORY, "--gin", config, *folders(tmp_path)]
    place = {**os.environ, "PYTHONPATH": str(checkout)}
    process = subprocess.run(
        command, capture_output=True, text=True, cwd=checkout, env=place, timeout=PATIENCE
    )
    assert process.returncode == 0, process.stderr
    for name in ("curves.csv", "config.gin", "measures.csv"):
        again = (tmp_path / "runs" / "ncl" / name).read_bytes()
        assert again == (done.of("ncl") / name).read_bytes()
    summaries = [
        (folder / "summary.md").read_text()
        for folder in (tmp_path / "runs" / "ncl", done.of("ncl"))
    ]
    here_and_there = [re.sub(r"monosem .*?, ", "", summary) for summary in summaries]
    assert here_and_there[0] == here_and_there[1]  # the copy is of no known commit
    assert "of no known commit" in summaries[0]
    assert int(process.stdout.split()[-1]) < 2 * 1024**2  # KiB


# --plan


def test_a_plan_says_that_all_is_there(done):
    plan = in_process(*done.flags("ncl"), "--plan").stdout
    assert "to do" not in plan and "        there  " in plan
    assert plan.endswith("ncl: all there\n")


def test_a_plan_says_what_is_to_do_and_touches_nothing(tmp_path, capsys):
    plan = here(capsys, "--gin", "gin/ncl.gin", "--plan", *folders(tmp_path)).stdout
    assert plan.count("to do") == 10 and "wave 1  to do" in plan
    assert "10 to compute, in 3 waves" in plan
    assert not list(tmp_path.iterdir())


def test_a_plan_of_another_probe_keeps_the_encoder(done):
    probe = ["--set", "LinearProbe.epochs = 3"]
    plan = in_process(*done.flags("ncl"), *probe, "--plan").stdout
    assert plan.count("to do") == 4 and plan.count("there  ") == 6


def test_a_plan_of_a_sweep_lists_the_stages_with_the_cell_that_needs_them(tmp_path, capsys):
    out = here(capsys, "--gin", "sweeps/few_shot.gin", "--plan", *folders(tmp_path))
    assert "96 to compute, in 4 waves, for 15 cells" in out.stdout
    assert "sae,seed=3" in out.stdout
    assert not list(tmp_path.iterdir())


def test_a_plan_downloads_nothing_and_says_what_would_be_downloaded(tmp_path, capsys):
    folder = ["--set", f"CIFAR10.folder = '{tmp_path / 'data'}'"]
    out = here(capsys, "--gin", "cifar10/ncl.gin", "--plan", *folder, *folders(tmp_path))
    assert out.returncode == 2 and out.stdout == "" and out.stderr.count("\n") == 1
    reason = "must hold the folder cifar-10-batches-py, which is not in .*: it would be downloaded"
    assert re.search(rf"{reason} from https://\S+/cifar-10-python.tar.gz", out.stderr)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", ["--runs", "--store"])
def test_a_plan_refuses_a_folder_that_a_run_could_not_make(tmp_path, capsys, flag):
    places = {"--runs": tmp_path / "runs", "--store": tmp_path / "store", flag: "README.md"}
    flags = [word for place in places.items() for word in place]
    out = here(capsys, "--gin", "gin/ncl.gin", "--plan", *flags)
    assert out.returncode == 2 and out.stdout == "" and out.stderr.count("\n") == 1
    assert re.search(rf"{flag}: the folder README.md.* cannot be made: .* is a file", out.stderr)


# --gather


def test_gather_lays_several_experiments_over_one_another_from_their_tables_alone(done, tmp_path):
    runs = [done.of(name) for name in NAMES]
    out = in_process("--gather", *runs, "--runs", tmp_path)
    assert out.code == 0, out.stderr
    assert "top-1 of sae, %" in out.stdout
    joined = tmp_path / "simclr+ncl+sae"
    assert (joined / "curves.png").exists()
    separate = [row for folder in runs for row in read_table(folder / "curves.csv")]
    assert read_table(joined / "curves.csv") == separate


def test_gathering_one_run_draws_it_again_and_keeps_its_summary(done):
    before = {path.name: path.read_bytes() for path in done.of("ncl").iterdir()}
    (done.of("ncl") / "curves.png").unlink()
    assert in_process("--gather", done.of("ncl")).code == 0
    assert {path.name: path.read_bytes() for path in done.of("ncl").iterdir()} == before


def test_gathering_one_run_twice_is_refused(done, capsys):
    out = here(capsys, "--gather", done.of("ncl"), done.of("ncl"))
    assert out.returncode == 2
    assert "two of the tables hold an experiment called ncl" in out.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gin"], "there is no"),
        (["nothing"], "there is no"),
        (["gin", "--gin", "gin/ncl.gin"], "--gather goes only with --runs"),
    ],
)
def test_gathering_what_is_no_run_is_refused(capsys, arguments, said):
    out = here(capsys, "--gather", *arguments)
    assert out.returncode == 2 and said in out.stderr


# What is wrong


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--gin FILE is needed"),
        (["--gin"], "expected one argument"),
        (["--gin", "gin/nlc.gin"], "did you mean gin/ncl.gin?"),
        (["--gin", "gin/ncl.gin", "--sett", "x"], "unrecognized arguments: --sett"),
        (["--gin", "gin/ncl.gin", "--set", "NonNegative.temperature = -1"], "above 0, got -1"),
        (
            ["--gin_file", "gin/ncl.gin", "--gin_bindings", "Pretrain.epochs = 'x'"],
            "must be a whole number, got 'x'",
        ),
        (
            ["--gin", "gin/ncl.gin", "--jobs", "2"],
            "run.py: --jobs goes with a sweep, and no file binds a Sweep\n",
        ),
    ],
    ids=str,
)
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(arguments, said, tmp_path, capsys):
    out = here(capsys, *arguments, *folders(tmp_path))
    assert out.returncode == 2 and said in out.stderr, out.stderr
    assert out.stdout == "" and out.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flag", "folder"), [("--runs", "README.md"), ("--store", "/proc/nothing")]
)
def test_a_folder_that_cannot_be_made_is_one_line(flag, folder, tmp_path, capsys):
    places = {"--runs": tmp_path / "runs", "--store": tmp_path / "store", flag: folder}
    flags = [word for place in places.items() for word in place]
    out = here(capsys, "--gin", "gin/ncl.gin", *flags)
    assert out.returncode == 2 and out.stdout == ""
    assert re.fullmatch(rf"run.py: {flag}: the folder {folder}.* cannot be made: .*\n", out.stderr)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--jobs", "0"], "argument --jobs: must be above 0, got 0"),
        (["--jobs", "1.5"], "argument --jobs: invalid whole number value: '1.5'"),
        (["--cpus", "-2"], "--cpus"),
        (["--gpus", "many"], "argument --gpus: invalid number value: 'many'"),
        (["--address", "nowhere"], "must be auto or HOST:PORT, got 'nowhere'"),
        (["--address", "ray://127.0.0.1:10001"], "HOST:PORT, got 'ray://127.0.0.1:10001'"),
        (["--cpus", "999999"], "a trial of Pretrain asks for 999999 CPUs"),
    ],
    ids=str,
)
def test_flags_of_a_sweep_that_cannot_be_meant_are_refused(tmp_path, capsys, flags, said):
    out = here(capsys, "--gin", "sweeps/seeds.gin", *flags, *folders(tmp_path))
    assert out.returncode == 2 and said in out.stderr
    assert out.stderr.count("\n") == 1


def test_what_is_wrong_with_a_cell_is_one_line_before_any_work(tmp_path, capsys):
    place = tmp_path / "place"
    grid = "Sweep.grid = {'TopK.k': (4, 512)}"
    (tmp_path / "sweep.gin").write_text(SMALL_SWEEP + grid)
    out = here(capsys, "--gin", tmp_path / "sweep.gin", *folders(place))
    assert out.returncode == 2 and out.stdout == ""
    assert out.stderr.startswith("run.py: cell gin/sae.gin with TopK.k = 512: TopK.k must be")
    assert out.stderr.count("\n") == 1 and not place.exists()


def test_a_loss_that_turns_nan_exits_1_and_leaves_nothing_finished(tmp_path, tiny_gin, capsys):
    files = ["--gin", "gin/simclr.gin", "--gin", tiny_gin]
    bad = ["--set", "pretrain/Adam.lr = 1e30"]
    out = here(capsys, *files, *bad, *folders(tmp_path))
    assert out.returncode == 1 and "Traceback" not in out.stderr
    assert "the loss is not a finite number from step" in out.stderr
    assert "learning rate" in out.stderr
    assert not list((tmp_path / "store").rglob("spec.json"))
    assert not (tmp_path / "runs" / "simclr" / "curves.csv").exists()


def test_a_network_that_no_memory_holds_exits_1_and_names_the_stage(tmp_path, tiny_gin, capsys):
    files = ["--gin", "gin/ncl.gin", "--gin", tiny_gin]
    large = ["--set", "Projector.hidden = 1000000000000000"]
    out = here(capsys, *files, *large, *folders(tmp_path))
    assert out.returncode == 1 and "Traceback" not in out.stderr
    last = out.stderr.splitlines()[-1]
    reason = (
        r"needs more memory than there is: can't allocate memory: you tried to allocate \d+ bytes"
    )
    assert re.match(rf"run.py: Pretrain\(Digits, .*Projector.*\) {reason}", last)


def test_compiling_without_a_compiler_is_refused_before_any_work(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    out = here(capsys, "--gin", "gin/ncl.gin", "--compile", *folders(tmp_path))
    assert out.returncode == 2 and "--compile needs a C++ compiler" in out.stderr
    assert not list(tmp_path.iterdir())


# In a process of its own


def test_help_answers_without_importing_anything_heavy():
    code = (
        "import sys; from monosem.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    )
    heavy = "{'torch', 'ray', 'gin', 'matplotlib', 'numpy'} & set(sys.modules)"
    command = [sys.executable, "-c", f"{code}\nprint({heavy})"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--gather" in out.stdout
    assert out.stdout.splitlines()[-1] == "set()"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "name"),
    [
        ([ROOT / "run.py"], "run.py"),
        (["-m", "monosem"], "python -m monosem"),
        (["-m", "monosem.cli"], "python -m monosem"),
    ],
    ids=["run.py", "-m monosem", "-m monosem.cli"],
)
def test_a_process_says_the_same_from_any_folder(tmp_path, program, name):
    out = subprocess.run(
        [sys.executable, *map(str, program), "--gin", "gin/nlc.gin"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    reason = "--gin gin/nlc.gin: the file does not exist; did you mean gin/ncl.gin?"
    assert (out.returncode, out.stdout, out.stderr) == (2, "", f"{name}: {reason}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ctrl_c_exits_130_and_the_same_command_goes_on_with_the_same_bits(tmp_path, tiny_gin):
    files = ["--gin", "gin/ncl.gin", "--gin", tiny_gin, "--set", "Pretrain.epochs = 12"]
    whole, broken = folders(tmp_path / "whole"), folders(tmp_path / "broken")
    assert in_process(*files, *whole).code == 0
    process = subprocess.Popen(
        [sys.executable, "run.py", *map(str, [*files, *broken])],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=take_ctrl_c,
    )
    while not list(tmp_path.glob("broken/store/Pretrain/*.partial/checkpoint")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "interrupted; the same command goes on" in errors and "Traceback" not in errors
    assert in_process(*files, *broken).code == 0
    for name in ("curves.csv", "config.gin"):
        again = (tmp_path / "broken" / "runs" / "ncl" / name).read_bytes()
        assert again == (tmp_path / "whole" / "runs" / "ncl" / name).read_bytes()


def take_ctrl_c() -> None:
    """A shell starts what is in the background without it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_a_terminal_sees_a_bar_with_loss_and_images_per_second(tmp_path, tiny_gin):
    terminal, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, 120))
    files = ["--gin", "gin/ncl.gin", "--gin", tiny_gin, "--set", "Pretrain.epochs = 12"]
    process = subprocess.Popen(
        [sys.executable, "run.py", *map(str, [*files, *folders(tmp_path)])],
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
    bar = rb"Pretrain: +\d+%.*/132 .*loss \d\.\d+, [\d,]+ inputs/s"
    assert re.search(bar, seen) and b"Warning" not in seen, seen.decode()
