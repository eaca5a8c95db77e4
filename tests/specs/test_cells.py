"""Sweeps before anything runs: axes, draws, cells, and what is refused, with the cell named."""

from __future__ import annotations

import random
import re

import pytest
from conftest import ROOT, TINY, here

from monosem.core.fields import FieldError
from monosem.core.stage import closure, key
from monosem.specs.cells import Study
from monosem.specs.errors import SpecError
from monosem.specs.load import load as load_spec
from monosem.specs.study import study as read_study
from monosem.specs.grid import Axis, Choice, LogUniform, RandInt, Uniform
from monosem.specs.sweep import ASHA, MedianStopping, Sweep

BASE = f"""
{TINY}
Sweep.name = 'try'
Sweep.specs = ('gin/simclr.gin', 'gin/sae.gin')
"""


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def load(tmp_path):
    def study(text: str, *bindings: str) -> Study:
        (tmp_path / "sweep.gin").write_text(BASE + text)
        found = read_study([str(tmp_path / "sweep.gin")], bindings)
        assert found is not None
        return found

    return study


def names(study):
    return [cell.name for cell in study.cells]


SWEEPS = {path: "simclr" for path in sorted((ROOT / "sweeps").glob("*.gin"))} | {
    ROOT / "gin" / "toy.gin": "polysemantic"
}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_file_is_a_sweep_of_its_name_with_its_baseline_first(path):
    study = read_study([str(path.relative_to(ROOT))])
    assert study is not None and study.name == path.stem
    assert study.cells[0].experiment.name.endswith(SWEEPS[path])
    assert len({cell.name for cell in study.cells}) == len(study.cells)


def test_what_is_no_sweep_is_none():
    assert read_study(["gin/ncl.gin"]) is None


def test_an_axis_multiplies_only_the_specs_that_read_it(load):
    study = load("Sweep.grid = {'TopK.k': (4, 8)}")
    assert names(study) == ["simclr", "sae,k=4", "sae,k=8"]
    assert [cell.swept for cell in study.cells] == [(), (("TopK.k", "4"),), (("TopK.k", "8"),)]


def test_bindings_that_go_together_take_one_value_at_a_time(load):
    study = load("Sweep.grid = {('Pretrain.seed', 'SparseAutoencoder.seed'): (0, 7)}")
    assert names(study) == ["simclr,seed=0", "simclr,seed=7", "sae,seed=0", "sae,seed=7"]
    sae = study.cells[-1].experiment.curves[0].encoder
    assert sae.seed == 7 and sae.encoder.encoder.seed == 7
    assert dict(study.cells[1].swept) == {"Pretrain.seed": "7"}


def test_cells_that_share_an_encoder_share_its_stage(load):
    study = load("Sweep.grid = {'TopK.k': (4, 8, 16)}")
    kinds = [
        type(stage).__name__
        for stage in closure([stage for cell in study.cells for stage in cell.experiment.stages])
    ]
    assert kinds.count("Pretrain") == 1 and kinds.count("SparseAutoencoder") == 3


def test_a_cell_is_the_experiment_that_its_bindings_give_by_hand(load, tmp_path):
    (tmp_path / "tiny.gin").write_text(TINY)
    cell = load("Sweep.grid = {'TopK.k': (4,)}", "Curve.repeats = 3").cells[-1]
    alone = load_spec(
        ["gin/sae.gin", str(tmp_path / "tiny.gin")], ["Curve.repeats = 3", "TopK.k = 4"]
    )
    assert (
        list(map(key, cell.experiment.stages)) == list(map(key, alone.experiment.stages))
        and cell.config == alone.config
    )


def test_what_is_said_beside_a_sweep_may_be_left_unread_by_some_of_its_specs_but_not_by_all(load):
    assert len(load("SparseAutoencoder.epochs = 2\nSweep.baseline = 'sae'").cells) == 2
    with pytest.raises(SpecError, match="nothing in any spec of the sweep reads it"):
        load("L1.penalty = 2.0")


def test_a_macro_can_be_swept(load):
    assert names(load("Pretrain.epochs = %epochs\nSweep.grid = {'epochs': (1, 2)}\nepochs = 3"))[
        :2
    ] == [
        "simclr,epochs=1",
        "simclr,epochs=2",
    ]


def test_the_baseline_comes_first(load):
    assert names(load("Sweep.baseline = 'sae'")) == ["sae", "simclr"]


def test_two_axes_are_multiplied_the_last_one_fastest(load):
    study = load("Sweep.grid = {'Pretrain.epochs': (1, 2), 'Pretrain.seed': (0, 1)}")
    assert names(study)[:4] == [
        "simclr,epochs=1,seed=0",
        "simclr,epochs=1,seed=1",
        "simclr,epochs=2,seed=0",
        "simclr,epochs=2,seed=1",
    ]


@pytest.mark.parametrize(
    ("space", "inside"),
    [
        (Uniform(0.0, 2.0), lambda v: 0 <= v <= 2),
        (LogUniform(1e-4, 1e-1), lambda v: 1e-4 <= v <= 1e-1),
        (RandInt(3, 6), lambda v: v in (3, 4, 5)),
        (Choice(("a", None, (1, 2))), lambda v: v in ("a", None, (1, 2))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_draws_are_inside_their_space_and_more_samples_keep_the_first(space, inside):
    def draws(number, seed=0):
        sweep = Sweep(
            name="s", specs=("a",), grid=(Axis(("A.b",), space),), num_samples=number, seed=seed
        )
        return [assignment[0][1] for assignment in sweep.assignments()]

    few, many = draws(5), draws(300)
    assert all(map(inside, many)) and many[:5] == few == draws(5) and len(set(many)) >= 3
    assert draws(300, seed=1) != many


def test_rounding_does_not_take_a_draw_out_of_a_narrow_space():
    assert 1.00001 <= Uniform(1.00001, 1.00002).draw(random.Random(0)) <= 1.00002


def test_log_uniform_draws_are_even_on_a_logarithmic_scale():
    sweep = Sweep(
        name="s", specs=("a",), grid=(Axis(("A.b",), LogUniform(1e-4, 1.0)),), num_samples=2000
    )
    low = sum(assignment[0][1] < 1e-2 for assignment in sweep.assignments())
    assert abs(low / 2000 - 0.5) < 0.04


def test_the_grid_is_repeated_for_every_draw(load):
    space = "LogUniform.low = 1e-4\nLogUniform.high = 1e-2\nSweep.num_samples = 3\n"
    study = load(f"{space}Sweep.grid = {{'TopK.k': (4, 8), 'sae/Adam.lr': @LogUniform()}}")
    cells = [dict(cell.swept) for cell in study.cells if cell.swept]
    assert [cell["TopK.k"] for cell in cells] == ["4", "8"] * 3 and len(
        {cell["sae/Adam.lr"] for cell in cells}
    ) == 3


def test_asha_never_stops_a_training_that_comes_to_its_own_end():
    class Schedulers:
        ASHAScheduler = dict

    assert ASHA(metric="loss", mode="min").build(Schedulers, epochs=30)["max_t"] == 31


def test_a_long_value_still_makes_the_name_of_a_folder(load):
    study = load(
        f"Sweep.grid = {{'label_noise/Curve.severities': ({tuple(i / 200 for i in range(100))}, (0.0,))}}"
    )
    assert (
        all(len(name.encode()) < 150 for name in names(study))
        and len(set(names(study))) == len(study.cells) == 4
    )


@pytest.mark.parametrize(
    "scheduler", [ASHA(metric="loss", mode="min"), MedianStopping(metric="l0", mode="max", grace=2)]
)
def test_schedulers_are_ray_s_own(scheduler):
    made = scheduler.build(pytest.importorskip("ray.tune.schedulers"), epochs=30)
    assert made.metric == scheduler.metric and type(made).__module__.startswith(
        "ray.tune.schedulers"
    )


def test_a_plan_lists_the_stages_with_the_cell_that_needs_them(tmp_path, capsys):
    out = here(
        capsys,
        "--gin",
        "sweeps/few_shot.gin",
        "--plan",
        "--store",
        tmp_path / "store",
        "--runs",
        tmp_path / "runs",
    )
    assert out.returncode == 0 and not list(tmp_path.iterdir())
    assert "91 to compute, in 4 waves, for 15 cells" in out.stdout and "sae,seed=3" in out.stdout


WRONG = [
    ("Sweep.grid = {}", "Sweep.grid must hold bindings and their values, such as {'Pretrain.seed': (0, 1, 2)}, got {} ("),
    ("Sweep.grid = ()", "Sweep.grid must hold bindings and their values"),
    ("Sweep.grid = 3", "Sweep.grid must hold bindings and their values"),
    ("Sweep.grid = {'TopK.k': ()}", "must give 'TopK.k' a tuple of one or more values or a space to draw from, got ()"),
    ("Sweep.grid = {'TopK.k': 4}", "must give 'TopK.k' a tuple of one or more values"),
    ("Sweep.grid = {'TopK.k': (4, 4)}", "must give 'TopK.k' different values, got (4, 4)"),
    ("Sweep.grid = {'SparseAutoencoder.sparsity': (@TopK(),)}", "of them), got TopK()"),
    ("Sweep.grid = {'SparseAutoencoder.sparsity': (@TopK,)}", "plain data"),
    ("Sweep.grid = {3: (4,)}", "must have names of bindings, or tuples of them, as its keys, got 3"),
    ("Sweep.grid = {'TopK.k = 3': (4,)}", "must have names of bindings"),
    ("Sweep.grid = {'TopK.k': (4,), ('TopK.k', 'Pretrain.seed'): (5,)}", "must name each binding once, got 'TopK.k' twice"),
    ("Sweep.grid = {'L1.penalty': (1, 1.0)}", "must give 'L1.penalty' different values"),
    ("Sweep.grid = {'Pretrain.seed': (0, 1), 'SparseAutoencoder.seed': (0, 1)}", "must have all its seeds in one axis"),
    ("Sweep.scheduler = @ASHA()\nASHA.metric = 'loss'\nASHA.mode = 'min'\nSweep.grid = {'Pretrain.seed': (0, 1)}",
     "Sweep.scheduler does not go with a grid over seeds"),
    ("Sweep.grid = {'TopK.kk': (4,)}", "cell gin/simclr.gin with TopK.kk = 4: TopK has no parameter 'kk' (Sweep.grid: TopK.kk"),
    ("Sweep.grid = {'TpoK.k': (4,)}", "there is nothing called TpoK (Sweep.grid); did you mean TopK?"),
    ("Sweep.grid = {'epochs': (4,)}", "has no effect: it names no parameter"),
    ("Sweep.grid = {'L1.penalty': (0.1,)}", "L1.penalty = 0.1 has no effect: nothing in any spec of the sweep reads it (Sweep.grid"),
    ("Sweep.grid = {'TopK.k': (4, 512)}", "cell gin/sae.gin with TopK.k = 512: TopK.k must be at most the number of latents, 256, got 512"),
    ("Sweep.grid = {'Pretrain.epochs': (1, 'x')}", "with Pretrain.epochs = 'x': Pretrain.epochs must be a whole number, got 'x'"),
    ("Sweep.grid = {'few_shot/Curve.severities': ((1, 500),)}", "must be at most"),
    ("Sweep.specs = ()", "Sweep.specs must name at least one Gin file, got ()"),
    ("Sweep.specs = 'gin/ncl.gin'", "Sweep.specs must be a tuple such as (a, b), got 'gin/ncl.gin'"),
    ("Sweep.specs = ('gin/nlc.gin',)", "cell gin/nlc.gin: Sweep.specs gin/nlc.gin: the file does not exist; did you mean gin/ncl.gin?"),
    ("Sweep.specs = ('gin/ncl.gin', 'gin/ncl.gin')", "Sweep.specs must differ from one another"),
    ("Experiment.name = 'one'", "Sweep.specs: gin/simclr.gin and gin/sae.gin are both called one; give each an Experiment.name of its own"),
    ("Sweep.specs = ('sweeps/seeds.gin',)", "cell sweeps/seeds.gin: Sweep.specs sweeps/seeds.gin is a sweep itself"),
    ("Sweep.baseline = 'sea'", "Sweep.baseline must be one of simclr, sae, got 'sea'; did you mean sae?"),
    ("Sweep.name = 'a/b'", "Sweep.name must be a folder's name"),
    ("Sweep.num_samples = 3", "Sweep.num_samples must be 1 where the grid has no space to draw from, got 3"),
    ("Sweep.num_sample = 3", "Sweep has no parameter 'num_sample'"),
    ("Sweep.retries = -1", "Sweep.retries must be 0 or more, got -1"),
    ("Sweep.scheduler = 'asha'", "Sweep.scheduler must be a Scheduler, got 'asha'"),
    ("Sweep.scheduler = @ASHA()", "ASHA.metric and ASHA.mode must be set"),
    ("Sweep.goal = @Goal()\nGoal.curve = 'labels'", "Sweep.goal: there is no top1 of labels at 0; did you mean"),
    ("Sweep.goal = @Goal()\nGoal.curve = 'label_noise'\nGoal.severity = 0.33", "there is no top1 of label_noise at 0.33"),
    ("Sweep.goal = @Goal()\nGoal.curve = 'label_noise'\nGoal.metric = 'top7'", "there is no top7 of label_noise at 0; did you mean top"),
    ("Sweep.goal = @Goal()\nGoal.curve = 'label_noise'\nGoal.bounds = (@Bound(),)\nBound.metric = 'L0'\nBound.at_most = 3",
     "Bound.metric must be one of activity, class_consistency, "),
    ("Sweep.grid = {'Pretrain.epochs': (1,), 'pretrain.Pretrain.epochs': (2,)}", "Sweep.grid names one binding twice, as Pretrain"),
    ("Sweep.grid = {'Sweep.name': ('a', 'b')}", "Sweep.name is of the sweep itself; an axis is a binding of its specs"),
    ("Sweep.specs = ('gin/ncl.gin',)\nExperiment.name = 'curves.csv'", "curves.csv is what a sweep calls a file of its own"),
    ("Sweep.resources = 3", "Sweep.resources must map kinds of stages to amounts"),
    ("Sweep.resources = {'Pretrian': {'cpu': 1}}", "Sweep.resources must be of kinds of stages in this sweep"),
    ("Sweep.resources = {'Pretrain': {'cpus': 1}}", "must map kinds of stages to amounts"),
    ("Sweep.resources = {'Pretrain': {'cpu': 0}}", "Sweep.resources holds Resources.cpu must be above 0, got 0"),
    ("Sweep.resources = {'Pretrain': 2}", "must map kinds of stages to amounts"),
    ("Sweep.grid = {'sae/Adam.lr': @LogUniform()}", "LogUniform.low and LogUniform.high must be set"),
    ("Sweep.grid = {'sae/Adam.lr': @Uniform()}\nUniform.low = 2\nUniform.high = 1", "Uniform.high must be above low, 2, got 1"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), WRONG, ids=[text for text, _ in WRONG])
def test_what_is_wrong_with_any_cell_is_one_line_before_any_work(tmp_path, capsys, text, words):
    (tmp_path / "sweep.gin").write_text(BASE + text)
    out = here(
        capsys,
        "--gin",
        tmp_path / "sweep.gin",
        "--runs",
        tmp_path / "runs",
        "--store",
        tmp_path / "store",
    )
    assert out.returncode == 2 and words in out.stderr, out.stderr
    assert (
        out.stdout == ""
        and out.stderr.count("\n") == 1
        and not (tmp_path / "runs").exists()
        and not (tmp_path / "store").exists()
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--jobs", "0"], "argument --jobs: must be above 0, got 0"),
        (["--jobs", "1.5"], "argument --jobs: invalid whole number value: '1.5'"),
        (["--cpus", "-2"], "--cpus"),
        (["--gpus", "many"], "argument --gpus: invalid number value: 'many'"),
        (
            ["--address", "nowhere"],
            "--address (or RAY_ADDRESS) must be auto or HOST:PORT, got 'nowhere'",
        ),
        (
            ["--address", "ray://127.0.0.1:10001"],
            "must be auto or HOST:PORT, got 'ray://127.0.0.1:10001'",
        ),
    ],
)
def test_flags_that_cannot_be_meant_are_one_line(tmp_path, capsys, arguments, words):
    out = here(
        capsys,
        "--gin",
        "sweeps/seeds.gin",
        *arguments,
        "--runs",
        tmp_path / "runs",
        "--store",
        tmp_path / "store",
    )
    assert (
        out.returncode == 2
        and words in re.sub(r"seeds: .* to compute\n", "", out.stderr)
        and "Traceback" not in out.stderr
    )


def test_flags_of_a_sweep_do_not_go_with_a_single_experiment(tmp_path, capsys):
    out = here(
        capsys,
        "--gin",
        "gin/ncl.gin",
        "--jobs",
        2,
        "--runs",
        tmp_path / "runs",
        "--store",
        tmp_path / "store",
    )
    assert (
        out.returncode == 2
        and out.stderr == "run.py: --jobs goes with a sweep, and no file binds a Sweep\n"
    )


def test_a_sweep_made_by_hand_is_checked_like_one_from_gin():
    with pytest.raises(FieldError, match="must give 'A.b' different values"):
        Sweep(name="s", specs=("a",), grid={"A.b": (1, 1)})


def test_bindings_that_take_one_value_together_need_not_all_be_read(load):
    study = load(
        "Sweep.specs = ('gin/simclr.gin', 'gin/ncl.gin')",
        "Sweep.grid = {('Pretrain.seed', 'SparseAutoencoder.seed'): (0, 1)}",
    )
    assert [cell.swept for cell in study.cells] == [
        (("Pretrain.seed", str(seed)),) for seed in (0, 1)
    ] * 2
