"""The paper's Gin files: what they say, and that they run, on small sets in the real formats."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, here
from PIL import Image

import monosem
from monosem.results.rows import read_table
from monosem.shifts.cifar_shifts import CIFAR10_NAMES, CIFAR100_NAMES
from monosem.shifts.commonly_corrupted import FIFTEEN
from monosem.specs import load as loading
from monosem.specs.load import load

FILES = [
    str(path.relative_to(ROOT))
    for folder in ("cifar10", "cifar100", "imagenet100")
    for path in sorted((ROOT / "gin" / folder).glob("*.gin"))
    if "Experiment.name" in path.read_text()
]
QUICK = [file for file in FILES if "cifar10/" in file or "checkpoint" in file]  # one of each kind
QUICK_AND_SLOW = [
    pytest.param(file, marks=[] if file in QUICK else pytest.mark.slow) for file in FILES
]
PRETRAINING = ["Pretrain.epochs = 1", "Pretrain.batch_size = 40"]
NETWORKS = ["Projector.hidden = 16", "Projector.features = 16"]
AUTOENCODER = [
    "SparseAutoencoder.epochs = 1",
    "SparseAutoencoder.batch_size = 40",
    "SparseAutoencoder.latents = 24",
    "TopK.k = 4",
]
PROBE = ["LinearProbe.epochs = 1", "LinearProbe.batch_size = 40"]
CURVES = ["Curve.repeats = 1", "label_noise/Curve.severities = (0.0, 0.5)"]
INPUT_NOISE = ["gaussian/Curve.severities = (0.0, 0.2)", "uniform/Curve.severities = (0.2,)"]
FINE_TUNING = [
    "FineTune.epochs = 1",
    "few_shot/FineTune.epochs = 1",
    "FineTune.batch_size = 40",
]
SELECTION = [
    "FeatureSelection.severities = (4, 16)",
    "FeatureSelection.repeats = 2",
    "Retrieval.severities = (4, 16)",
]


def save_cifar(folder: Path, published: Any, images: int) -> None:
    """Batches as the author's script wrote them.

    images: of every class for training; 20 in all are for testing.
    """
    home = folder / published.base_folder
    home.mkdir(parents=True)
    fine = "100" in published.base_folder
    classes, key = (100, b"fine_labels") if fine else (10, b"labels")
    save_batches(home, published.train_list, np.arange(classes).repeat(images), key)
    save_batches(home, published.test_list, np.arange(20) % classes, key)
    names = list(CIFAR100_NAMES if fine else CIFAR10_NAMES)
    meta = pickle.dumps({published.meta["key"]: names}, protocol=2)
    (home / published.meta["filename"]).write_bytes(meta)


def save_batches(home: Path, files: Any, labels: np.ndarray, key: bytes) -> None:
    draw = np.random.default_rng(0)
    for (name, _), part in zip(files, np.array_split(labels, len(files)), strict=True):
        pixels = draw.integers(0, 256, (len(part), 3072), dtype=np.uint8)
        batch = {b"data": pixels, key: part.tolist()}
        (home / name).write_bytes(pickle.dumps(batch, protocol=2))


def save_imagenet(folder: Path) -> None:
    """Two images of every class for training, one for testing."""
    draw = np.random.default_rng(1)
    listed = (ROOT / "monosem" / "datasets" / "imagenet100.txt").read_text().split()
    for name in [word for word in listed if re.fullmatch(r"n\d{8}", word)]:
        for split, images in (("train", 2), ("val", 1)):
            (folder / split / name).mkdir(parents=True)
            for index in range(images):
                pixels = draw.integers(0, 256, (36, 44, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.JPEG")


def save_shifted(place: Path) -> None:
    """Test sets of another domain: a few images of each, in the published layouts."""
    draw = np.random.default_rng(2)
    pixels = draw.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    home = place / "cifar_c"
    home.mkdir()
    for name, images in (*((name, pixels) for name in FIFTEEN), ("cifar10.1_v6_data", pixels)):
        np.save(home / f"{name}.npy", images)
    for name in ("labels", "cifar10.1_v6_labels"):
        np.save(home / f"{name}.npy", np.arange(10))
    names = sorted(path.name for path in (place / "imagenet" / "val").iterdir())
    for name in names[:2]:
        for folder in ("sketch", "stylized", "r", "a", *(f"c/{kind}/1" for kind in FIFTEEN)):
            (place / folder / name).mkdir(parents=True)
            Image.fromarray(pixels[0]).save(place / folder / name / "0.JPEG")
    wnids = [*names, *(f"n{number:08d}" for number in range(1000 - len(names)))]
    (place / "wnids.txt").write_text("\n".join(wnids))
    position = str(sorted(wnids).index(names[0]))
    (place / "v2" / position).mkdir(parents=True)
    Image.fromarray(pixels[0]).save(place / "v2" / position / "0.jpeg")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Small sets, a checkpoint, and a store that all files share."""
    from torchvision.datasets import CIFAR10, CIFAR100

    place = tmp_path_factory.mktemp("paper")
    save_cifar(place / "cifar10", CIFAR10, 10)
    save_cifar(place / "cifar100", CIFAR100, 2)
    save_imagenet(place / "imagenet")
    save_shifted(place)
    save_checkpoint(place)
    return place


def save_checkpoint(place: Path) -> None:
    """As the authors' would be, of a network of the size that `bindings` asks for."""
    spec = load(["gin/cifar100/simclr.gin"], bindings("gin/cifar100/simclr.gin", place))
    network = spec.experiment.curves[0].encoder.encoder.build()
    torch.save({"state_dict": network.state_dict(), "epoch": 199}, place / "theirs.ckpt")


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def where(file: str, place: Path) -> list[str]:
    """Where the data of a file are."""
    if "imagenet" in file:
        return [f"ImageNet100.folder = '{place / 'imagenet'}'"]
    name = "CIFAR100" if "cifar100" in file else "CIFAR10"
    return [f"{name}.folder = '{place / name.lower()}'", f"{name}.original = False"]


def shifted_where(file: str, place: Path) -> list[str]:
    """Where the sets of another domain are, of which one severity is there."""
    if "shift" not in file:
        return []
    if "shift_others" in file:
        return [
            f"ImageNetR.folder = '{place / 'r'}'",
            f"ImageNetA.folder = '{place / 'a'}'",
            f"ImageNetV2.folder = '{place / 'v2'}'",
            f"ImageNetV2.wnids = '{place / 'wnids.txt'}'",
        ]
    if "imagenet" in file:
        return [
            f"ImageNetSketch.folder = '{place / 'sketch'}'",
            f"StylizedImageNet.folder = '{place / 'stylized'}'",
            f"ImageNetC.folder = '{place / 'c'}'",
            "ImageNetC.severities = (1,)",
        ]
    sets = ["CIFAR100C"] if "cifar100" in file else ["CIFAR10C", "CIFAR101"]
    return [f"{name}.folder = '{place / 'cifar_c'}'" for name in sets]


def bindings(file: str, place: Path, network: str = "SmallConv") -> list[str]:
    """What makes a file quick: few epochs, few points, small networks.

    network: "ResNet" leaves the file's own.
    """
    return [
        *where(file, place),
        *shifted_where(file, place),
        *NETWORKS,
        *_of_the_encoder(file, place, network),
        *(AUTOENCODER if "sae" in file else []),
        *_of_the_evaluation(file),
        *_of_the_images(file),
    ]


def _of_the_encoder(file: str, place: Path, network: str) -> Iterator[str]:
    stage = "Checkpoint" if "checkpoint" in file else "Pretrain"
    if stage == "Checkpoint":
        yield f"Checkpoint.path = '{place / 'theirs.ckpt'}'"
    else:
        yield from PRETRAINING
    if network == "SmallConv":
        yield from (f"{stage}.encoder = @SmallConv()", "SmallConv.channels = 4")


def _of_the_evaluation(file: str) -> list[str]:
    if "selection" in file:
        return [*PROBE, *SELECTION]
    if "shift" in file:
        return [*PROBE, "Shift.repeats = 1"]
    if "attack" in file:
        return [*PROBE, "PGD.steps = 2"]
    share = "finetune" in file or "imagenet" in file  # of the training images, not shots per class
    few_shot = f"few_shot/Curve.severities = ({'0.5' if share else '1'},)"
    own = FINE_TUNING if "finetune" in file else [*PROBE, *INPUT_NOISE]
    return [*CURVES, few_shot, *own]


def _of_the_images(file: str) -> list[str]:
    if "imagenet" not in file:
        return []
    return ["ImageNet100.size = 32", "ImageNet100.crop = 24", "RandomResizedCrop.size = 24"]


@pytest.mark.parametrize("file", QUICK_AND_SLOW)
def test_each_of_the_paper_s_files_runs_from_end_to_end(file, place, tmp_path):
    spec = load([file], bindings(file, place))
    results = monosem.run(spec, store=place / "store")
    curves = results.curves
    measures = {measure.name for measure in spec.experiment.monosemanticity}
    assert set(curves.curve) == {curve.name for curve in spec.experiment.curves} | measures
    percent = curves[curves.metric.isin(["top1", "top5", "precision_at_10"])]
    assert percent.value.between(0, 100).all() and len(percent)
    (tmp_path / "config.gin").write_text(spec.config)
    assert load([str(tmp_path / "config.gin")]) == spec


@pytest.mark.parametrize("file", FILES)
def test_each_of_the_paper_s_files_says_how_it_is_run(file):
    text = (ROOT / file).read_text()
    assert text.startswith("# ") and f"python run.py --gin {file}" in text


def test_every_experiment_has_a_name_of_its_own(place):
    names = [load([file], bindings(file, place)).name for file in FILES]
    assert len(set(names)) == len(names)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["gin/cifar100/simclr.gin", "gin/imagenet100/simclr.gin"])
def test_the_command_runs_a_file_with_its_own_network_and_a_second_time_computes_nothing(
    file, place, tmp_path, capsys
):
    flags = [word for text in bindings(file, place, "ResNet") for word in ("--set", text)]
    folders = ["--runs", tmp_path / "runs", "--store", tmp_path / "store"]
    out = here(capsys, "--gin", file, *flags, *folders)
    assert out.returncode == 0, out.stderr
    name = load([file], bindings(file, place, "ResNet")).name
    assert read_table(tmp_path / "runs" / name / "curves.csv")
    assert "0 of" in here(capsys, "--gin", file, *flags, *folders).stderr


# What they say

LARS_04 = (
    "LARS(lr=0.4, weight_decay=0.0001, lr_per=256, momentum=0.9, nesterov=False, "
    "eta=0.02, clip=True, exclude_bias_and_norm=True)"
)
both_cifar = pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])


@pytest.fixture
def experiment(place, monkeypatch):
    """What a file says, but for where the data are; the small sets are not looked at."""
    monkeypatch.setattr(loading, "closure", lambda stages: [])
    return lambda file: load([file], where(file, place)).experiment


@both_cifar
def test_cifar_encoders_are_trained_as_the_reference_does(dataset, experiment):
    trained = experiment(f"gin/{dataset}/simclr.gin").curves[0].encoder.encoder
    assert repr(trained.optimizer) == LARS_04
    assert repr(trained.schedule) == "WarmupCosine(warmup=10.0, start=3e-05)"
    assert (trained.epochs, trained.batch_size, trained.precision) == (200, 256, "float16")
    assert repr(trained.encoder) == "ResNet(depth=18, stem='cifar', stem_padding=2)"
    assert repr(trained.projector) == "Projector(hidden=16384, features=2048)"
    assert repr(trained.objective) == "Contrastive(temperature=0.2)"
    assert trained.classifier.joint and trained.classifier.lr == 0.1
    assert [repr(view) for view in trained.views] == [
        "RandomResizedCrop(scale=(0.08, 1.0), ratio=(0.75, 1.3333333333333333), size=None, "
        "interpolation='bicubic')",
        "ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, probability=0.8)",
        "RandomGrayscale(probability=0.2)",
        "GaussianBlur(sigma=(0.1, 2.0), probability=0.5)",
        "RandomHorizontalFlip(probability=0.5)",
    ]


@both_cifar
def test_cifar_probes_are_trained_as_the_reference_does(dataset, experiment):
    probe = experiment(f"gin/{dataset}/simclr.gin").curves[0].probe
    assert repr(probe.optimizer) == LARS_04
    assert (probe.epochs, probe.batch_size) == (50, 256)
    assert probe.rescale is False and probe.cached is None
    assert len(probe.views) == 2 and probe.views[0].interpolation == "bilinear"


@both_cifar
def test_cifar_100_is_probed_with_the_means_of_cifar_10_as_in_the_reference(dataset, experiment):
    simclr = experiment(f"gin/{dataset}/simclr.gin")
    cifar10, cifar100 = (0.4914, 0.4822, 0.4465), (0.5071, 0.4865, 0.4409)
    assert {curve.data.mean for curve in simclr.curves} == {cifar10}
    trained_on = simclr.curves[0].encoder.encoder.data
    assert trained_on.mean == (cifar100 if dataset == "cifar100" else cifar10)


@both_cifar
def test_cifar_ncl_and_supcon_differ_from_simclr_as_in_the_reference(dataset, experiment):
    ncl = experiment(f"gin/{dataset}/ncl.gin").curves[0].encoder
    assert ncl.activation == "relu"
    assert (
        repr(ncl.encoder.objective)
        == "NonNegative(temperature=0.2, activation='relu', regulariser=1.0, unit_first=True)"
    )
    supcon = experiment(f"gin/{dataset}/supcon.gin").curves[0].encoder.encoder
    assert (supcon.optimizer.lr, supcon.optimizer.weight_decay) == (0.4, 1e-5)
    assert supcon.objective.label_noise == 0.55


@both_cifar
def test_cifar_autoencoders_learn_on_unit_embeddings_and_are_probed_on_raw_projections(
    dataset, experiment
):
    latents = experiment(f"gin/{dataset}/sae.gin").curves[0].encoder
    autoencoder = latents.autoencoder
    assert type(latents.encoder).__name__ == "Projection"
    assert type(autoencoder.encoder).__name__ == "Embedding"
    assert repr(autoencoder.optimizer) == LARS_04
    assert (autoencoder.decoder_lr, autoencoder.epochs) == (0.3, 200)
    assert (autoencoder.latents, autoencoder.sparsity.k) == (2048, 256)
    simclr = experiment(f"gin/{dataset}/simclr.gin").curves[0].encoder
    assert autoencoder.encoder.encoder == simclr.encoder  # one encoder, trained once


def test_imagenet_encoders_are_trained_as_the_reference_does(experiment):
    trained = experiment("gin/imagenet100/simclr.gin").curves[0].encoder.encoder
    assert trained.optimizer.for_batches(trained.batch_size).lr == pytest.approx(0.15)
    assert trained.classifier.lr * trained.optimizer.scale(128) == pytest.approx(0.05)
    assert (trained.epochs, trained.batch_size) == (100, 128)
    assert (trained.data.size, trained.data.crop) == (256, 224)
    assert (trained.encoder.stem, trained.views[0].size) == ("imagenet", 224)


def test_imagenet_probes_autoencoders_and_fine_tuning_are_the_reference_s(experiment):
    probe = experiment("gin/imagenet100/simclr.gin").curves[0].probe
    assert (
        repr(probe.optimizer)
        == "SGD(lr=1.5, weight_decay=0.0, lr_per=256, momentum=0.9, nesterov=False)"
    )
    assert probe.schedule.milestones == (60, 80)
    assert (probe.views[0].size, probe.views[0].interpolation) == (224, "bicubic")
    autoencoder = experiment("gin/imagenet100/sae.gin").curves[0].encoder.autoencoder
    assert (
        repr(autoencoder.optimizer)
        == "Adam(lr=0.0001, weight_decay=0.0001, lr_per=256, betas=(0.9, 0.999), decoupled=False)"
    )
    assert (autoencoder.decoder_lr, autoencoder.batch_size) == (0.3, 256)
    assert autoencoder.precision == "float32"
    curves = experiment("gin/imagenet100/finetune_ncl.gin").curves
    tuned = {curve.name: curve.probe for curve in curves}
    assert (tuned["label_noise"].epochs, tuned["few_shot"].epochs) == (50, 100)
    assert tuned["few_shot"].optimizer.lr == 1.5


@pytest.mark.parametrize("kind", ["simclr", "ncl"])
def test_the_two_papers_settings_differ_where_their_codes_do(kind, experiment):
    later = experiment(f"gin/cifar100/{kind}.gin").curves[0].encoder.encoder
    earlier = experiment(f"gin/cifar100/{kind}2024.gin").curves[0].encoder
    assert (earlier.projector.hidden, earlier.projector.features) == (2048, 256)
    assert earlier.classifier.joint is False
    for field in ("optimizer", "schedule", "views", "epochs", "data"):
        assert getattr(later, field) == getattr(earlier, field)
    if kind == "ncl":
        assert (
            repr(earlier.objective)
            == "NonNegative(temperature=0.2, activation='rep_relu', regulariser=0.0, "
            "unit_first=False)"
        )


@pytest.mark.parametrize(
    ("file", "noise", "axes"),
    [
        ("cifar10/ncl", "cifar10/human_noise", ["aggre_label", "random_label1", "worse_label"]),
        ("cifar100/sae", "cifar100/human_noise", ["noisy_label", "superclass"]),
        (
            "shapes/simclr",
            "shapes/superclass_noise",
            ["wrong", "superclass", "superclass"],
        ),
    ],
)
def test_files_of_label_noise_go_after_any_file_of_their_folder(monkeypatch, file, noise, axes):
    monkeypatch.setattr(loading, "_check", lambda experiment, checked: None)  # no look at the data
    files = [str(ROOT / "gin" / f"{name}.gin") for name in (file, noise)]
    experiment = load(files).experiment
    shown = [curve.axis for curve in experiment.curves]
    assert len(shown) == len(axes) and all(
        axis in one for axis, one in zip(axes, shown, strict=True)
    )
