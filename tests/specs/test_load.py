"""Gin text to Experiment: every file builds, later wins, and what is wrong is said in the words that were typed."""

from __future__ import annotations

import sys

import pytest
from conftest import ROOT

from monosem.core.stage import key
from monosem.evaluation.experiment import Gallery
from monosem.learning.objectives import Contrastive, NonNegative
from monosem.metrics import ALL_METRICS
from monosem.metrics.neighbours import RetrievalPrecision
from monosem.metrics.space import Dimensions, Sparsity
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.representation import Embedding
from monosem.specs.errors import SpecError
from monosem.specs.load import default_reference, load

GIN = [
    ROOT / "gin" / name for name in ("simclr.gin", "ncl.gin", "sae.gin", "sae_l1.gin")
]  # the others: test_settings.py, test_sweep.py
GIN = [
    path.relative_to(ROOT) for path in [*GIN, *sorted((ROOT / "gin" / "controls").glob("*.gin"))]
]


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("file", GIN, ids=str)
def test_every_gin_file_builds_and_is_called_by_its_name(file):
    experiment = load([str(file)]).experiment
    assert experiment.name == (
        f"simclr_{file.stem}" if file.parent.name == "controls" else file.stem
    )
    assert [curve.name for curve in experiment.curves] == [
        "label_noise",
        "gaussian",
        "uniform",
        "few_shot",
    ]


@pytest.mark.parametrize("file", GIN, ids=str)
def test_the_resolved_config_describes_the_same_experiment(file, tmp_path):
    spec = load(
        [str(file)], ["gaussian/Curve.repeats = 2", "few_shot/Curve.corruption = @FewShot()"]
    )
    (tmp_path / "config.gin").write_text(spec.config)
    again = load([str(tmp_path / "config.gin")])
    assert again.experiment == spec.experiment and again.config == spec.config
    assert "Pretrain.seed = 0" in spec.config  # a default that nobody typed


def test_the_three_experiments_are_what_they_say():
    simclr, ncl, sae = (
        load([f"gin/{name}.gin"]).experiment.curves[0].encoder for name in ("simclr", "ncl", "sae")
    )
    assert (
        type(simclr.encoder.objective) is Contrastive and type(ncl.encoder.objective) is NonNegative
    )
    assert (
        isinstance(sae, SparseAutoencoder) and sae.encoder == simclr
    )  # and so shares its encoder in the store


def test_later_files_and_bindings_win(tmp_path):
    (tmp_path / "a.gin").write_text("Pretrain.epochs = 3\nPretrain.seed = 7\n")
    (tmp_path / "b.gin").write_text("Pretrain.epochs = 4\n")
    files = ["gin/simclr.gin", str(tmp_path / "a.gin"), str(tmp_path / "b.gin")]
    pretrain = (
        load(files, ["Pretrain.epochs = 5", "Pretrain.epochs = 6"])
        .experiment.curves[0]
        .encoder.encoder
    )
    assert (pretrain.epochs, pretrain.seed) == (6, 7)


def test_a_curve_is_called_by_its_scope_unless_it_is_named():
    named = load(["gin/simclr.gin"], ["gaussian/Curve.name = 'blurry'"]).experiment.curves[1]
    assert named.name == "blurry"
    assert key(named) == key(load(["gin/simclr.gin"]).experiment.curves[1])


def test_replacing_what_a_file_binds_drops_what_only_that_would_have_read(tmp_path):
    spec = load(
        ["gin/ncl.gin"],
        ["Experiment.curves = (@few_shot/Curve(),)", "Pretrain.objective = @Contrastive()"],
    )
    assert [curve.name for curve in spec.experiment.curves] == ["few_shot"]
    (tmp_path / "config.gin").write_text(spec.config)
    assert load([str(tmp_path / "config.gin")]).experiment == spec.experiment
    assert load(
        ["gin/sae.gin"],
        ["Pretrain.optimizer = @SGD()", "SparseAutoencoder.sparsity = @L1()", "L1.penalty = 0.1"],
    )


@pytest.mark.parametrize(
    ("replacing", "late"),
    [
        ("Pretrain.objective = @Contrastive()", "NonNegative.activation = 'gelu'"),
        ("Pretrain.classifier = None", "OnlineClassifier.lr = 0.2"),
        ("Experiment.curves = (@gaussian/Curve(),)", "few_shot/Curve.repeats = 3"),
        ("Experiment.metrics = (@Sparsity(),)", "RetrievalPrecision.k = 5"),
    ],
)
def test_what_is_typed_after_its_reader_was_replaced_is_a_mistake(replacing, late):
    assert load(["gin/ncl.gin"], [late, replacing])
    with pytest.raises(SpecError, match="has no effect"):
        load(["gin/ncl.gin"], [replacing, late])


def test_parts_that_an_experiment_has_by_default_are_bound_without_being_named():
    experiment = load(["gin/ncl.gin"], ["Gallery.rows = 3", "RetrievalPrecision.k = 5"]).experiment
    assert experiment.gallery == Gallery(rows=3)
    assert RetrievalPrecision(k=5) in experiment.metrics
    assert len(experiment.metrics) == len(ALL_METRICS)


def test_the_resolved_file_names_every_metric_that_is_measured_by_default():
    config = load(["gin/ncl.gin"]).config
    assert all(f"@{type(metric).__name__}()" in config for metric in ALL_METRICS)


def test_what_gin_builds_of_a_default_is_the_default():
    assert load(["gin/ncl.gin"]).experiment.metrics == ALL_METRICS
    assert load(["gin/ncl.gin"]).experiment.gallery == Gallery()
    assert default_reference(Gallery()) == "@Gallery()"
    assert default_reference((Sparsity(), Dimensions())) == "(@Sparsity(), @Dimensions(),)"
    assert [default_reference(other) for other in (None, 3, (), (1, 2), "x")] == [""] * 5


def test_a_file_of_one_s_own_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text(
        "import gin, torch\nfrom dataclasses import dataclass\nfrom monosem.evaluation.corruptions import Corruption\n\n"
        "@gin.register\n@dataclass(frozen=True)\nclass Darkness(Corruption):\n"
        "    def inputs(self, inputs, data, severity, generator):\n        return inputs - severity\n"
    )
    (tmp_path / "mine.gin").write_text(
        "import my_parts\ninclude 'gin/simclr.gin'\n\nsize = 8\nExperiment.name = 'mine'\nDigits.size = %size\n"
        "gaussian/Curve.corruption = @Darkness()\n"
    )
    monkeypatch.chdir(tmp_path)
    spec = load(["mine.gin"])
    assert type(spec.experiment.curves[1].corruption).__name__ == "Darkness"
    assert spec.experiment.curves[0].data.size == 8
    assert spec.config.startswith("import my_parts")
    sys.modules.pop("my_parts")


def test_what_a_file_imports_and_includes_may_lie_beside_it(tmp_path):
    (tmp_path / "beside.py").write_text("import gin\n")
    (tmp_path / "base.gin").write_text("include 'gin/simclr.gin'\nimport beside\n")
    (tmp_path / "mine.gin").write_text(
        "\ufeffinclude 'base.gin'\nExperiment.name = 'mine'\n", encoding="utf-8"
    )
    assert load([str(tmp_path / "mine.gin")]).experiment.name == "mine"
    (tmp_path / "beside2.py").write_text("\n\n1 / 0\n")
    (tmp_path / "broken.gin").write_text("import beside2\n")
    with pytest.raises(
        SpecError,
        match=r"import beside2 failed: ZeroDivisionError: division by zero, .*beside2.py:3",
    ):
        load([str(tmp_path / "mine.gin"), str(tmp_path / "broken.gin")])


def test_curves_may_be_given_by_a_macro():
    spec = load(
        ["gin/simclr.gin"],
        ["few = (@gaussian/Curve(), @few_shot/Curve())", "Experiment.curves = %few"],
    )
    assert [curve.name for curve in spec.experiment.curves] == ["gaussian", "few_shot"]


def test_loading_leaves_nothing_behind_for_the_next_load():
    load(["gin/ncl.gin"], ["Pretrain.epochs = 3"])
    assert load(["gin/simclr.gin"]).experiment.curves[0].encoder == Embedding(
        load(["gin/simclr.gin"]).experiment.curves[0].encoder.encoder
    )
    assert load(["gin/simclr.gin"]).experiment.curves[0].encoder.encoder.epochs != 3


BAD = {  # what is typed after gin/ncl.gin: what is said
    "Pretrian.epochs = 3": "there is nothing called Pretrian (--set); did you mean Pretrain?",
    "Pretrain.epoch = 3": "Pretrain has no parameter 'epoch' (--set 'Pretrain.epoch = 3'); did you mean epochs?",
    "Pretrain.zzz = 3": "it has batch_size, classifier, clip, data",
    "Pretrain.objective = @NonNegativ()": "there is nothing called @NonNegativ (--set); did you mean NonNegative?",
    "Pretrain.views = (@RandomRotation(), @GausianBlur())": "nothing called @GausianBlur (--set); did you mean GaussianBlur?",
    "label_nosie/Curve.repeats = 9": "label_nosie/Curve.repeats = 9 has no effect: nothing in this experiment reads it "
    "(--set 'label_nosie/Curve.repeats = 9'). Did you mean label_noise/Curve.repeats?",
    "Contrastive.temperature = 0.5": "Contrastive.temperature = 0.5 has no effect",
    "Curve.severities = (0.0, 0.5)": "has no effect: few_shot/Curve.severities, gaussian/Curve.severities, label_noise/Curve.severities, "
    "uniform/Curve.severities decide instead",
    "few_shot/Curve.encoder = @Embeding()": "did you mean Embedding?",
    "Pretrain.epochs = %epchs": "%epchs is used but never defined (--set)",
    "epochs = 4": "epochs = 4 has no effect: it names no parameter, and nothing uses %epochs as a macro",
    "": "--set '' holds no binding",
    "# Pretrain.epochs = 3": "holds no binding",
    "a = %b": "%b is used but never defined",
    "LabelNoise.x = 1": "it has none",
    "SGD.nesterov = True\nSGD.momentum = 0": "SGD.nesterov must be False without momentum",
    "Adam.betas = (0.9, 1.0)": "Adam.betas must be below 1",
    "gaussian/Curve.severities = (0, 1e39)": "Curve.severities must be at most 1e9",
    f"pretrain/Adam.lr = 1{'0' * 400}": "Adam.lr must be a finite number",
    "Experiment.metrics = (@Sparsity(), @Sparsity())": "must find each thing once, got sparsity twice",
    "Pretrain.batch_size = 1": "Pretrain.batch_size must be 2 or more",
    "Digits.mean = (0.1, 0.2)\nDigits.std = (0.1, 0.2)": "must hold uint8 images (n, 2, height, width)",
    "Pretrain.epochs = '3'": "Pretrain.epochs must be a whole number, got '3' (--set 'Pretrain.epochs = '3'')",
    "Pretrain.epochs = 3.5": "Pretrain.epochs must be a whole number, got 3.5",
    "Pretrain.epochs = 0": "Pretrain.epochs must be 1 or more, got 0",
    "Pretrain.epochs = None": "Pretrain.epochs must be a whole number, got None",
    "Pretrain.seed = True": "Pretrain.seed must be a whole number, got True",
    "Pretrain.encoder = @SmallConv": "got the class SmallConv (write @SmallConv() to make one)",
    "Pretrain.encoder = @Digits()": "Pretrain.encoder must be an Encoder, got Digits()",
    "Pretrain.encoder = 'resnet18'": "Pretrain.encoder must be an Encoder, got 'resnet18'",
    "NonNegative.temperature = 0": "NonNegative.temperature must be above 0, got 0",
    "NonNegative.temperature = -0.1": "NonNegative.temperature must be above 0, got -0.1",
    "NonNegative.activation = 'tanh'": "must be one of 'identity', 'relu', 'rep_relu', 'gelu', 'sigmoid', 'softplus', 'exp', "
    "'leaky_relu', got 'tanh'",
    "label_noise/Curve.severities = (0.0, 1.2)": "Curve.severities must be between 0 and 1, got 1.2 "
    "(--set 'label_noise/Curve.severities = (0.0, 1.2)')",
    "gaussian/Curve.severities = (-1.0,)": "Curve.severities must be 0 or more, got -1.0",
    "uniform/Curve.severities = ()": "Curve.severities must hold at least one severity",
    "uniform/Curve.severities = 0.3": "Curve.severities must be a tuple such as (a, b), got 0.3",
    "few_shot/Curve.severities = (0,)": "Curve.severities must be 1 or more, got 0",
    "few_shot/Curve.severities = (1, 1000)": "Curve.severities must be at most 139, the training images of the smallest class, "
    "got 1000 shots",
    "Pretrain.batch_size = 100000": "Pretrain.batch_size must be at most 1437, the training images, got 100000",
    "LinearProbe.batch_size = 2000": "LinearProbe.batch_size must be at most 1437, the training images, got 2000",
    "Curve.repeats = 0": "Curve.repeats must be 1 or more, got 0",
    "Experiment.name = 'a/b'": "Experiment.name must be a folder's name",
    "Experiment.curves = ()": "Experiment.curves must hold at least one curve",
    "Experiment.curves = (@gaussian/Curve(), @gaussian/Curve())": "must have different names, got gaussian, gaussian",
    "Experiment.curves = (@Curve(),)": "Curve.severities and Curve.corruption must be set",
    "Embedding.encoder = @Embedding()": "circle",
    "Pretrain.epochs": "--set 'Pretrain.epochs' is not Gin: Couldn't parse statement",
    "Pretrain.epochs = ": "is not Gin",
    "Pretrain.epochs = (1, ": "is not Gin",
    "Pretrain.epochs = nan": "is not Gin",
    "import no_such_module": "--set: import no_such_module failed: ModuleNotFoundError",
    "include 'gin/simcrl.gin'": "include in --set gin/simcrl.gin: the file does not exist; did you mean gin/simclr.gin?",
}


@pytest.mark.parametrize("typed", BAD, ids=str)
def test_bad_input_is_said_in_one_line_in_the_words_that_were_typed(typed):
    with pytest.raises(SpecError) as info:
        load(["gin/ncl.gin"], [typed])
    assert BAD[typed] in str(info.value)
    assert "\n" not in str(info.value)


def test_k_above_the_latents_names_the_binding():
    with pytest.raises(
        SpecError,
        match=r"TopK.k must be at most the number of latents, 256, got 300 \(--set 'TopK.k = 300'\)",
    ):
        load(["gin/sae.gin"], ["TopK.k = 300"])


def test_the_line_of_a_file_is_named(tmp_path):
    file = tmp_path / "mine.gin"
    file.write_text(
        "# a comment\n\ninclude 'gin/simclr.gin'\n\nPretrain.views = (\n    @RandomRotation(),\n    @Blurr(),\n)\n"
    )
    with pytest.raises(SpecError, match=r"nothing called @Blurr \(.*mine.gin:7\)"):
        load([str(file)])
    file.write_text(
        "include 'gin/simclr.gin'\n\nPretrain.epochs = 1\nContrastive.temperature = -2\n"
    )
    with pytest.raises(
        SpecError, match=r"must be above 0, got -2 \(.*mine.gin:4: Contrastive.temperature = -2\)"
    ):
        load([str(file)])
    file.write_text("Pretrain.epochs = = 3\n")
    with pytest.raises(SpecError, match=r"mine.gin:1 is not Gin: Unable to parse value"):
        load([str(file)])


def test_files_that_cannot_be_meant(tmp_path):
    with pytest.raises(
        SpecError, match="--gin gin/nlc.gin: the file does not exist; did you mean gin/ncl.gin"
    ):
        load(["gin/nlc.gin"])
    with pytest.raises(SpecError, match="is a folder, not a Gin file"):
        load(["gin"])
    (tmp_path / "loop.gin").write_text(f"include '{tmp_path / 'loop.gin'}'\n")
    with pytest.raises(SpecError, match="includes itself"):
        load([str(tmp_path / "loop.gin")])
    (tmp_path / "binary.gin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="cannot be read"):
        load([str(tmp_path / "binary.gin")])
    (tmp_path / "empty.gin").write_text("")
    with pytest.raises(
        SpecError, match="Experiment.name and Experiment.curves must be set"
    ):
        load([str(tmp_path / "empty.gin")])
    with pytest.raises(SpecError, match="must be set"):
        load(["gin/digits.gin"])
