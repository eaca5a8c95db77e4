"""Sweeps that are typed as flags: --grid and --seeds make the Sweep that a file would."""

from __future__ import annotations

import pytest
from conftest import TINY

from monosem.core.stage import key
from monosem.specs.errors import SpecError
from monosem.specs.load import Spec
from monosem.specs.study import Study, read

pytestmark = pytest.mark.usefixtures("in_root")


def study(*files: str, bindings=(), grids=(), seeds=None) -> Study:
    made = read(list(files), list(bindings), list(grids), seeds)
    assert isinstance(made, Study)
    return made


def names(sweep: Study) -> list[str]:
    return [cell.name for cell in sweep.cells]


def keys(sweep: Study) -> list[str]:
    return [key(stage) for cell in sweep.cells for stage in cell.experiment.stages]


@pytest.fixture
def tiny(tmp_path) -> str:
    (tmp_path / "tiny.gin").write_text(TINY)
    return str(tmp_path / "tiny.gin")


def test_axes_of_flags_make_the_cells_that_a_file_would(tiny, read_sweep):
    typed = study("gin/simclr.gin", "gin/sae.gin", tiny, grids=["TopK.k = (4, 8)"])
    written = read_sweep("Sweep.grid = {'TopK.k': (4, 8)}")
    assert names(typed) == names(written) == ["simclr", "sae,k=4", "sae,k=8"]
    assert keys(typed) == keys(written)
    assert typed.name == "simclr+sae_by_k"


def test_without_an_axis_several_files_stay_one_experiment(tiny):
    assert isinstance(read(["gin/sae.gin", tiny]), Spec)


def test_every_seed_that_a_spec_reads_takes_the_same_value(tiny):
    sweep = study("gin/simclr.gin", "gin/sae.gin", tiny, seeds=2)
    assert sweep.name == "simclr+sae_by_seed"
    assert names(sweep) == ["simclr,seed=0", "simclr,seed=1", "sae,seed=0", "sae,seed=1"]
    (axis,) = sweep.sweep.grid
    assert set(axis.names) == {"Pretrain.seed", "SparseAutoencoder.seed"}
    sae = sweep.cells[-1].experiment.curves[0].encoder
    assert sae.seed == sae.encoder.encoder.seed == 1


def test_a_seed_that_is_bound_in_a_scope_is_set_there(tmp_path, tiny):
    (tmp_path / "scoped.gin").write_text(
        "include 'gin/sae.gin'\nExperiment.name = 'scoped'\n"
        "SparseAutoencoder.encoder = @turned/Rotated()\n"
        "turned/Rotated.encoder = @Embedding()\nturned/Rotated.seed = 7\n"
    )
    sweep = study(str(tmp_path / "scoped.gin"), tiny, seeds=2)
    assert "turned/Rotated.seed" in sweep.sweep.grid[0].names
    assert sweep.cells[1].experiment.curves[0].encoder.encoder.seed == 1


def test_axes_are_multiplied_and_name_the_sweep_unless_a_binding_does(tiny):
    grids = ["TopK.k = (4, 8)", "Pretrain.seed, SparseAutoencoder.seed = (0, 3)"]
    sweep = study("gin/sae.gin", tiny, grids=grids)
    assert sweep.name == "sae_by_k_seed" and len(sweep.cells) == 4
    named = study("gin/sae.gin", tiny, bindings=["Sweep.name = 'mine'"], grids=grids[:1])
    assert named.name == "mine"


def test_a_sweep_file_gets_the_axes_and_its_seeds_are_replaced(tmp_path):
    text = "Sweep.name = 'mine'\nSweep.specs = ('gin/sae.gin',)\n"
    grid = "Sweep.grid = {'TopK.k': (2, 4), 'Pretrain.seed': (0, 1, 2)}\n"
    (tmp_path / "mine.gin").write_text(TINY + text + grid)
    sweep = study(str(tmp_path / "mine.gin"), grids=["TopK.k = (8,)"], seeds=1)
    assert names(sweep) == ["sae,k=8,seed=0"]
    assert sweep.name == "mine_by_k_seed"


def test_a_sweep_of_flags_is_kept_as_a_file_that_makes_the_same_cells(tiny, tmp_path):
    grids = ["LinearProbe.loss = (@CrossEntropy(), @LabelSmoothing())"]
    sweep = study("gin/simclr.gin", tiny, grids=grids, seeds=2)
    (tmp_path / "sweep.gin").write_text(sweep.config)
    again = study(str(tmp_path / "sweep.gin"))
    assert again == sweep._replace(config=again.config)
    assert again.cells == sweep.cells


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("TopK.k", "--grid 'TopK.k' must read NAME.parameter = (VALUE, VALUE, ...)"),
        ("TopK.k = ", "must read NAME.parameter = (VALUE, VALUE, ...)"),
        ("TopK.k = 4", "must give 'TopK.k' a tuple of one or more values"),
        ("TopK.k = (4, 8", "is not Gin"),
        ("TopK.k = (4, 8) 3", "there is more behind the value"),
        ("TopK.kk = (4, 8)", "TopK has no parameter 'kk'"),
        ("LinearProbe.loss = (@CrossEntorpy(),)", "did you mean CrossEntropy?"),
        ("L1.penalty = (0.1, 0.2)", "nothing in any spec of the sweep reads it"),
        ("TopK.k = (4, 4)", "different values"),
        ("Sweep.retries = (1, 2)", "is of the sweep itself"),
    ],
)
def test_an_axis_that_cannot_be_meant_is_one_line(grid, said):
    with pytest.raises(SpecError) as info:
        study("gin/sae.gin", grids=[grid])
    assert said in str(info.value) and "\n" not in str(info.value)


def test_two_axes_of_seeds_are_refused():
    with pytest.raises(SpecError, match="must have all its seeds in one axis"):
        study("gin/sae.gin", grids=["Pretrain.seed = (0,)", "SparseAutoencoder.seed = (0, 1)"])
