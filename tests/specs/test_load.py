"""Bindings to an Experiment: every Gin file builds, and its resolved config says the same."""

from __future__ import annotations

import pytest
from conftest import ROOT

from monosem.core.stage import key
from monosem.evaluation.experiment import Gallery
from monosem.learning.objectives import Contrastive, NonNegative
from monosem.metrics import ALL_METRICS
from monosem.metrics.neighbours import RetrievalPrecision
from monosem.metrics.space import Dimensions, Sparsity
from monosem.models.autoencoder import SparseAutoencoder
from monosem.specs.errors import SpecError
from monosem.specs.load import default_reference, load

pytestmark = pytest.mark.usefixtures("in_root")

CONTROLS = sorted(path.name for path in (ROOT / "gin" / "controls").glob("*.gin"))
FILES = {f"gin/{name}.gin": name for name in ("simclr", "ncl", "sae", "sae_l1")}
FILES |= {f"gin/controls/{file}": f"simclr_{file.removesuffix('.gin')}" for file in CONTROLS}
FILES["gin/controls/ncl_rotated_relu.gin"] = "ncl_rotated_relu"  # of another encoder
# the others: test_settings.py, test_study.py

WRONG = [  # what is typed, and what is said
    (
        "SGD.nesterov = True\nSGD.momentum = 0",
        "SGD.nesterov must be False without momentum",
    ),
    (
        "Adam.betas = (0.9, 1.0)",
        "Adam.betas must be below 1",
    ),
    (
        "gaussian/Curve.severities = (0, 1e39)",
        "Curve.severities must be at most 1e9",
    ),
    (f"pretrain/Adam.lr = 1{'0' * 400}", "Adam.lr must be a finite number"),
    (
        "Experiment.metrics = (@Sparsity(), @Sparsity())",
        "must find each thing once, got sparsity twice",
    ),
    (
        "Pretrain.batch_size = 1",
        "Pretrain.batch_size must be 2 or more",
    ),
    (
        "Digits.mean = (0.1, 0.2)\nDigits.std = (0.1, 0.2)",
        "must hold uint8 images (n, 2, height, width)",
    ),
    (
        "Pretrain.epochs = '3'",
        "Pretrain.epochs must be a whole number, got '3' (--set 'Pretrain.epochs = '3'')",
    ),
    (
        "Pretrain.epochs = 3.5",
        "Pretrain.epochs must be a whole number, got 3.5",
    ),
    (
        "Pretrain.epochs = 0",
        "Pretrain.epochs must be 1 or more, got 0",
    ),
    (
        "Pretrain.epochs = None",
        "Pretrain.epochs must be a whole number, got None",
    ),
    (
        "Pretrain.seed = True",
        "Pretrain.seed must be a whole number, got True",
    ),
    (
        "Pretrain.encoder = @SmallConv",
        "got the class SmallConv (write @SmallConv() to make one)",
    ),
    (
        "Pretrain.encoder = @Digits()",
        "Pretrain.encoder must be an Encoder, got Digits() (--set 'Pretrain.encoder = @Digits()'); "
        "it takes @",
    ),
    (
        "Pretrain.encoder = 'resnet18'",
        "Pretrain.encoder must be an Encoder, got 'resnet18'",
    ),
    (
        "NonNegative.temperature = 0",
        "NonNegative.temperature must be above 0, got 0",
    ),
    (
        "NonNegative.temperature = -0.1",
        "NonNegative.temperature must be above 0, got -0.1",
    ),
    (
        "NonNegative.activation = 'tanh'",
        "must be one of 'identity', 'relu', 'rep_relu', 'gelu', 'sigmoid', 'softplus', 'exp', "
        "'leaky_relu', got 'tanh'",
    ),
    (
        "label_noise/Curve.severities = (0.0, 1.2)",
        "Curve.severities must be between 0 and 1, got 1.2 (--set "
        "'label_noise/Curve.severities = (0.0, 1.2)')",
    ),
    (
        "gaussian/Curve.severities = (-1.0,)",
        "gaussian/Curve.severities must be 0 or more, got -1.0",
    ),
    (
        "uniform/Curve.severities = ()",
        "Curve.severities must hold at least one severity",
    ),
    (
        "uniform/Curve.severities = 0.3",
        "Curve.severities must be a tuple such as (a, b), got 0.3",
    ),
    (
        "few_shot/Curve.severities = (0,)",
        "Curve.severities must be 1 or more, got 0",
    ),
    (
        "few_shot/Curve.severities = (1, 1000)",
        "few_shot/Curve.severities must be at most 139, the training examples of the smallest "
        "class, got 1000 shots (--set 'few_shot/Curve.severities = (1, 1000)')",
    ),
    (
        "few_shot/Curve.severities = (1.0, 1000.0)",
        "few_shot/Curve.severities must be at most 139, the training examples of the smallest "
        "class, got 1000 shots (--set 'few_shot/Curve.severities = (1.0, 1000.0)')",
    ),
    (
        "Pretrain.batch_size = 100000",
        "Pretrain.batch_size must be at most 1437, the training images, got 100000",
    ),
    (
        "LinearProbe.batch_size = 2000",
        "LinearProbe.batch_size must be at most 1437, the training images, got 2000",
    ),
    (
        "Curve.repeats = 0",
        "Curve.repeats must be 1 or more, got 0",
    ),
    (
        "Experiment.name = 'a/b'",
        "Experiment.name must be a folder's name",
    ),
    (
        "Experiment.curves = ()",
        "Experiment.curves must hold at least one curve",
    ),
    (
        "Experiment.curves = (@gaussian/Curve(), @gaussian/Curve())",
        "must have different names, got gaussian, gaussian",
    ),
    (
        "Experiment.curves = (@Curve(),)",
        "Curve.severities and Curve.corruption must be set",
    ),
    (
        "Experiment.curves = (@a/Curve(),)",
        "a/Curve.severities and a/Curve.corruption must be set: no file and no --set binds them; "
        "they are bound in the scopes few_shot, gaussian, label_noise, uniform",
    ),
    (
        "Embedding.encoder = @Embedding()",
        "circle",
    ),
]


@pytest.mark.parametrize(("file", "name"), FILES.items())
def test_every_gin_file_builds_and_is_called_by_its_name(file, name):
    experiment = load([file]).experiment
    assert experiment.name == name
    curves = [curve.name for curve in experiment.curves]
    assert curves == ["label_noise", "gaussian", "uniform", "few_shot"]


@pytest.mark.parametrize("file", FILES)
def test_the_resolved_config_describes_the_same_experiment(file, tmp_path):
    changes = ["gaussian/Curve.repeats = 2", "few_shot/Curve.corruption = @FewShot()"]
    spec = load([file], changes)
    (tmp_path / "config.gin").write_text(spec.config)
    assert load([str(tmp_path / "config.gin")]) == spec
    assert "Pretrain.seed = 0" in spec.config  # a default that nobody typed


def test_the_three_experiments_are_what_they_say():
    simclr, ncl, sae = (
        load([f"gin/{name}.gin"]).experiment.curves[0].encoder for name in ("simclr", "ncl", "sae")
    )
    assert type(simclr.encoder.objective) is Contrastive
    assert type(ncl.encoder.objective) is NonNegative
    assert isinstance(sae, SparseAutoencoder)
    assert sae.encoder == simclr  # and so shares its encoder in the store


def test_a_curve_is_called_by_its_scope_unless_it_is_named():
    named = load(["gin/simclr.gin"], ["gaussian/Curve.name = 'blurry'"]).experiment.curves[1]
    assert named.name == "blurry"
    assert key(named) == key(load(["gin/simclr.gin"]).experiment.curves[1])


def test_curves_may_be_given_by_a_macro():
    macro = "few = (@gaussian/Curve(), @few_shot/Curve())"
    spec = load(["gin/simclr.gin"], [macro, "Experiment.curves = %few"])
    assert [curve.name for curve in spec.experiment.curves] == ["gaussian", "few_shot"]


def test_loading_leaves_nothing_behind_for_the_next_load():
    before = load(["gin/simclr.gin"])
    load(["gin/ncl.gin"], ["Pretrain.epochs = 3"])
    assert load(["gin/simclr.gin"]) == before


@pytest.mark.parametrize(("typed", "said"), WRONG)
def test_a_value_that_cannot_be_meant_is_one_line_in_the_words_that_were_typed(typed, said):
    with pytest.raises(SpecError) as info:
        load(["gin/ncl.gin"], [typed])
    assert said in str(info.value)
    assert "\n" not in str(info.value)


def test_k_above_the_latents_names_the_binding():
    reason = r"TopK.k must be at most the number of latents, 256, got 300 \(--set 'TopK.k = 300'\)"
    with pytest.raises(SpecError, match=reason):
        load(["gin/sae.gin"], ["TopK.k = 300"])


def test_a_file_that_is_no_experiment_lists_what_must_be_set(tmp_path):
    (tmp_path / "short.gin").write_text("Pretrain.epochs = 3\n")
    with pytest.raises(SpecError, match="Experiment.name and Experiment.curves must be set"):
        load([str(tmp_path / "short.gin")])
    with pytest.raises(SpecError, match="must be set"):
        load(["gin/digits.gin"])


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
