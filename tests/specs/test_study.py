"""A sweep's files and assignments to cells: which there are, what they read, what is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import ROOT, TINY

from monosem.core.stage import closure, key
from monosem.probes.losses import SymmetricCrossEntropy
from monosem.specs.errors import SpecError
from monosem.specs.gin_reader import GinReader
from monosem.specs.load import load
from monosem.specs.study import Study, read

pytestmark = pytest.mark.usefixtures("in_root")

BASELINES = {f"sweeps/{path.name}": "simclr" for path in sorted((ROOT / "sweeps").glob("*.gin"))}
del BASELINES["sweeps/text.gin"]  # needs a model and an archive: test_text_sweep.py
BASELINES |= {"gin/toy.gin": "polysemantic", "sweeps/autoencoders.gin": "top_k"}
BASELINES["sweeps/autoencoders_fashion.gin"] = "fashion_top_k"
FEW_SHAPES = ["Shapes.train = 1000", "Shapes.test = 100", "few_shot/Curve.severities = (1,)"]
SMALL = {"shapes": FEW_SHAPES, "axes_shapes": FEW_SHAPES}  # as drawing ten thousand takes long

WRONG = [  # what is typed, and what is said
    (
        "Sweep.grid = {'TopK.kk': (4,)}",
        "cell gin/simclr.gin with TopK.kk = 4: TopK has no parameter 'kk' (Sweep.grid: TopK.kk",
    ),
    (
        "Sweep.grid = {'TpoK.k': (4,)}",
        "there is nothing called TpoK (Sweep.grid: TpoK.k = 4); did you mean TopK?",
    ),
    (
        "Sweep.grid = {'epochs': (4,)}",
        "has no effect: it names no parameter",
    ),
    (
        "Sweep.grid = {'L1.penalty': (0.1,)}",
        "L1.penalty = 0.1 has no effect: nothing in any spec of the sweep reads it (Sweep.grid",
    ),
    (
        "Sweep.grid = {'TopK.k': (4, 512)}",
        "cell gin/sae.gin with TopK.k = 512: TopK.k must be at most the number of latents, "
        "256, got 512",
    ),
    (
        "Sweep.grid = {'LinearProbe.loss': (@CrossEntropy(), @TopK())}",
        "with LinearProbe.loss = @TopK(): LinearProbe.loss must be a ProbeLoss, got TopK()",
    ),
    (
        "Sweep.grid = {'LinearProbe.loss': (@LabelSmoothing(),)}\nLabelSmoothing.epsilon = 2.0",
        "with LinearProbe.loss = @LabelSmoothing(): LabelSmoothing.epsilon must be between 0 and "
        "1, got 2.0 (",
    ),
    (
        "Sweep.grid = {'LinearProbe.loss': (@CrossEntropy(),)}\nLabelSmoothing.epsilon = 0.2",
        "LabelSmoothing.epsilon = 0.2 has no effect: nothing in any spec of the sweep reads it",
    ),
    (
        "Sweep.grid = {'Pretrain.epochs': (1, 'x')}",
        "with Pretrain.epochs = 'x': Pretrain.epochs must be a whole number, got 'x'",
    ),
    (
        "Sweep.grid = {'few_shot/Curve.severities': ((1, 500),)}",
        "must be at most",
    ),
    (
        "Sweep.specs = ('gin/nlc.gin',)",
        "cell gin/nlc.gin: Sweep.specs gin/nlc.gin: the file does not exist; did you mean "
        "gin/ncl.gin?",
    ),
    (
        "Sweep.specs = ('sweeps/seeds.gin',)",
        "cell sweeps/seeds.gin: Sweep.specs sweeps/seeds.gin is a sweep itself",
    ),
    (
        "Sweep.grid = {'Pretrain.epochs': (1,), 'pretrain.Pretrain.epochs': (2,)}",
        "Sweep.grid names one binding twice, as Pretrain",
    ),
]


def names(sweep):
    return [cell.name for cell in sweep.cells]


@pytest.mark.parametrize(("file", "baseline"), BASELINES.items())
def test_every_sweep_file_is_a_sweep_of_its_name_with_its_baseline_first(file, baseline):
    name = file.rpartition("/")[2].removesuffix(".gin")
    sweep = read([file], SMALL.get(name, []))
    assert isinstance(sweep, Study) and sweep.name == name
    assert sweep.cells[0].experiment.name.endswith(baseline)
    assert len(set(names(sweep))) == len(sweep.cells)


def test_what_is_no_sweep_is_an_experiment():
    assert read(["gin/ncl.gin"]) == load(["gin/ncl.gin"])


def test_the_file_of_an_experiment_is_read_once(monkeypatch):
    names = []
    read_file = GinReader.read_file

    def noted(reader, name, asked_by):
        names.append(name)
        read_file(reader, name, asked_by)

    monkeypatch.setattr(GinReader, "read_file", noted)
    read(["gin/ncl.gin"])
    assert names.count("gin/ncl.gin") == 1


@pytest.mark.parametrize(("typed", "said"), WRONG)
def test_what_is_wrong_with_any_cell_is_one_line_with_the_cell(read_sweep, typed, said):
    with pytest.raises(SpecError) as info:
        read_sweep(typed)
    assert said in str(info.value)
    assert "\n" not in str(info.value)


def test_an_axis_multiplies_only_the_specs_that_read_it(read_sweep):
    sweep = read_sweep("Sweep.grid = {'TopK.k': (4, 8)}")
    assert names(sweep) == ["simclr", "sae,k=4", "sae,k=8"]
    assert [cell.swept for cell in sweep.cells] == [(), (("TopK.k", "4"),), (("TopK.k", "8"),)]


def test_an_axis_may_hold_objects_that_every_cell_builds_by_its_own_bindings(read_sweep):
    sweep = read_sweep(
        "Sweep.grid = {'Curve.probe': (@LinearProbe(), @robust/LinearProbe())}\n"
        "robust/LinearProbe.loss = @SymmetricCrossEntropy()\n"
        "SymmetricCrossEntropy.A = -6.0\n"
    )
    assert names(sweep)[:2] == ["simclr,probe=LinearProbe", "simclr,probe=robust"]
    plain, robust = (cell.experiment.curves[0].probe for cell in sweep.cells[:2])
    assert robust == replace(plain, loss=SymmetricCrossEntropy(A=-6.0))
    assert sweep.cells[1].swept == (("Curve.probe", "robust"),)


def test_bindings_that_go_together_take_one_value_at_a_time(read_sweep):
    sweep = read_sweep("Sweep.grid = {('Pretrain.seed', 'SparseAutoencoder.seed'): (0, 7)}")
    assert names(sweep) == ["simclr,seed=0", "simclr,seed=7", "sae,seed=0", "sae,seed=7"]
    sae = sweep.cells[-1].experiment.curves[0].encoder
    assert sae.seed == 7 and sae.encoder.encoder.seed == 7
    assert dict(sweep.cells[1].swept) == {"Pretrain.seed": "7"}


def test_bindings_that_take_one_value_together_need_not_all_be_read(read_sweep):
    sweep = read_sweep(
        "Sweep.specs = ('gin/simclr.gin', 'gin/ncl.gin')",
        "Sweep.grid = {('Pretrain.seed', 'SparseAutoencoder.seed'): (0, 1)}",
    )
    once = [(("Pretrain.seed", "0"),), (("Pretrain.seed", "1"),)]
    assert [cell.swept for cell in sweep.cells] == once * 2


def test_cells_that_share_an_encoder_share_its_stage(read_sweep):
    sweep = read_sweep("Sweep.grid = {'TopK.k': (4, 8, 16)}")
    stages = [stage for cell in sweep.cells for stage in cell.experiment.stages]
    kinds = [type(stage).__name__ for stage in closure(stages)]
    assert kinds.count("Pretrain") == 1
    assert kinds.count("SparseAutoencoder") == 3


def test_a_cell_is_the_experiment_that_its_bindings_give_by_hand(read_sweep, tmp_path):
    (tmp_path / "tiny.gin").write_text(TINY)
    cell = read_sweep("Sweep.grid = {'TopK.k': (4,)}", "Curve.repeats = 3").cells[-1]
    files = ["gin/sae.gin", str(tmp_path / "tiny.gin")]
    alone = load(files, ["Curve.repeats = 3", "TopK.k = 4"])
    assert list(map(key, cell.experiment.stages)) == list(map(key, alone.experiment.stages))
    assert cell.config == alone.config


def test_what_is_said_beside_a_sweep_may_be_left_unread_by_some_of_its_specs(read_sweep):
    assert len(read_sweep("SparseAutoencoder.epochs = 2\nSweep.baseline = 'sae'").cells) == 2


def test_what_is_said_beside_a_sweep_and_read_by_no_spec_is_a_mistake(read_sweep):
    with pytest.raises(SpecError, match="nothing in any spec of the sweep reads it"):
        read_sweep("L1.penalty = 2.0")


def test_a_macro_can_be_swept(read_sweep):
    sweep = read_sweep("Pretrain.epochs = %epochs\nSweep.grid = {'epochs': (1, 2)}\nepochs = 3")
    assert names(sweep)[:2] == ["simclr,epochs=1", "simclr,epochs=2"]


def test_the_baseline_comes_first(read_sweep):
    assert names(read_sweep("Sweep.baseline = 'sae'")) == ["sae", "simclr"]


def test_two_axes_are_multiplied_the_last_one_fastest(read_sweep):
    sweep = read_sweep("Sweep.grid = {'Pretrain.epochs': (1, 2), 'Pretrain.seed': (0, 1)}")
    assert names(sweep)[:4] == [
        "simclr,epochs=1,seed=0",
        "simclr,epochs=1,seed=1",
        "simclr,epochs=2,seed=0",
        "simclr,epochs=2,seed=1",
    ]


def test_the_grid_is_repeated_for_every_draw(read_sweep):
    space = "LogUniform.low = 1e-4\nLogUniform.high = 1e-2\nSweep.num_samples = 3\n"
    sweep = read_sweep(f"{space}Sweep.grid = {{'TopK.k': (4, 8), 'sae/Adam.lr': @LogUniform()}}")
    swept = [dict(cell.swept) for cell in sweep.cells if cell.swept]
    assert [values["TopK.k"] for values in swept] == ["4", "8"] * 3
    assert len({values["sae/Adam.lr"] for values in swept}) == 3


def test_a_long_value_still_makes_the_name_of_a_folder(read_sweep):
    long = tuple(step / 200 for step in range(100))
    sweep = read_sweep(f"Sweep.grid = {{'label_noise/Curve.severities': ({long}, (0.0,))}}")
    assert all(len(name.encode()) < 150 for name in names(sweep))
    assert len(set(names(sweep))) == len(sweep.cells) == 4
