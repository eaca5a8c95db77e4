"""The paper's Gin files from end to end, on small sets in the real formats: what they mean, and that they run."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
from conftest import ROOT, here
from PIL import Image

from monosem.results.rows import read_table
from monosem.specs import load as spec
from monosem.specs.load import load

PAPER = [
    path
    for folder in ("cifar10", "cifar100", "imagenet100")
    for path in sorted((ROOT / "gin" / folder).glob("*.gin"))
]
FILES = [str(path.relative_to(ROOT)) for path in PAPER if "Experiment.name" in path.read_text()]
SMALL = [
    "Pretrain.epochs = 1", "Pretrain.batch_size = 40", "Projector.hidden = 48", "Projector.features = 32", "Curve.repeats = 1",
    "label_noise/Curve.severities = (0.0, 0.5)", "few_shot/Curve.severities = (1,)",
]  # fmt: skip
KINDS = {  # what else has to be small, by what is in the file
    "sae": ["SparseAutoencoder.epochs = 1", "SparseAutoencoder.batch_size = 40", "SparseAutoencoder.latents = 24", "TopK.k = 4"],
    "finetune": ["FineTune.epochs = 1", "few_shot/FineTune.epochs = 1", "FineTune.batch_size = 40", "few_shot/Curve.severities = (0.5,)"],
    "selection": ["FeatureSelection.severities = (4, 32)", "Retrieval.severities = (4, 32)", "LinearProbe.epochs = 1",
                  "LinearProbe.batch_size = 40", "FeatureSelection.repeats = 2"],
    "probe": ["LinearProbe.epochs = 1", "LinearProbe.batch_size = 40", "gaussian/Curve.severities = (0.0, 0.2)",
              "uniform/Curve.severities = (0.2,)"],
}  # fmt: skip


def cifar(folder, published, each):
    """Batches as the author's script wrote them, `each` images of every class for training and some for testing."""
    home = folder / published.base_folder
    home.mkdir(parents=True)
    fine = "100" in published.base_folder
    classes, key = (100, b"fine_labels") if fine else (10, b"labels")
    draw = np.random.default_rng(0)
    for names, count in ((published.train_list, each), (published.test_list, 1)):
        labels = np.arange(classes).repeat(count) if count > 1 else np.arange(20) % classes
        for (name, _), mine in zip(names, np.array_split(labels, len(names)), strict=True):
            pixels = draw.integers(0, 256, (len(mine), 3072), dtype=np.uint8)
            (home / name).write_bytes(
                pickle.dumps({b"data": pixels, key: mine.tolist()}, protocol=2)
            )
    words = [f"class {number}" for number in range(classes)]
    (home / published.meta["filename"]).write_bytes(
        pickle.dumps({published.meta["key"]: words}, protocol=2)
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Small sets, and a store and runs that all files share."""
    from torchvision.datasets import CIFAR10, CIFAR100

    place = tmp_path_factory.mktemp("paper")
    cifar(place / "cifar10", CIFAR10, 10)
    cifar(place / "cifar100", CIFAR100, 2)
    draw = np.random.default_rng(1)
    names = [
        line
        for line in (ROOT / "monosem" / "data" / "imagenet100.txt").read_text().split()
        if re.fullmatch(r"n\d{8}", line)
    ]
    for split, each in (("train", 2), ("val", 1)):
        for name in names:
            (place / "imagenet" / split / name).mkdir(parents=True)
            for number in range(each):
                pixels = draw.integers(0, 256, (36, 44, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / "imagenet" / split / name / f"{number}.JPEG")
    return place


def small(file, place):
    """The bindings that make a file quick."""
    kinds = [kind for kind in ("finetune", "selection") if kind in file] or ["probe"]
    bindings = [
        *SMALL,
        *(binding for kind in kinds for binding in KINDS[kind]),
        *(KINDS["sae"] if "sae" in file else []),
    ]
    if "selection" in file:
        bindings = [each for each in bindings if "Curve." not in each]
    if "checkpoint" in file:
        bindings = [each for each in bindings if not each.startswith("Pretrain.")] + [
            f"Checkpoint.path = '{place / 'theirs.ckpt'}'"
        ]
    if "cifar10/" in file or any(
        word in file for word in ("finetune", "selection", "supcon", "2024")
    ):  # the others have the network itself
        bindings += ["Pretrain.encoder = @SmallConv()", "SmallConv.channels = 8"]
    if "imagenet" in file:
        few = ["few_shot/Curve.severities = (0.5,)"] if "selection" not in file else []
        return [*bindings, *few, f"ImageNet100.folder = '{place / 'imagenet'}'", "ImageNet100.size = 32", "ImageNet100.crop = 24",
                "RandomResizedCrop.size = 24"]  # fmt: skip
    name = "CIFAR100" if "cifar100" in file else "CIFAR10"
    return [*bindings, f"{name}.folder = '{place / name.lower()}'", f"{name}.original = False"]


def flags(file, place):
    return ["--gin", file, *(part for binding in small(file, place) for part in ("--set", binding))]


def save_theirs(place):
    """A checkpoint as the authors' would be, of a network of the size that `small` asks for."""
    import torch

    network = (
        load(*reading("gin/cifar100/simclr.gin", place))
        .experiment.curves[0]
        .encoder.encoder.build()
    )
    torch.save({"state_dict": network.state_dict(), "epoch": 199}, place / "theirs.ckpt")


def reading(file, place):
    return [file], small(file, place)


@pytest.mark.parametrize("file", FILES)
def test_each_of_the_paper_s_files_runs_from_end_to_end(file, place, capsys):
    if "checkpoint" in file:
        save_theirs(place)
    out = here(capsys, *flags(file, place), "--runs", place / "runs", "--store", place / "store")
    assert out.returncode == 0, out.stderr
    loaded = load(*reading(file, place))
    again = load([str(place / "runs" / loaded.name / "config.gin")])
    assert again.experiment == loaded.experiment and again.config == loaded.config
    rows = read_table(place / "runs" / loaded.name / "curves.csv")
    measures = {stage.name for stage in loaded.experiment.monosemanticity}
    assert {row.curve for row in rows} == {
        curve.name for curve in loaded.experiment.curves
    } | measures
    assert all(
        0 <= row.value <= 100 for row in rows if row.metric in ("top1", "top5", "precision_at_10")
    )
    assert (ROOT / file).read_text().startswith("# ") and f"python run.py --gin {file}" in (
        ROOT / file
    ).read_text()


def test_every_experiment_has_a_name_of_its_own(place):
    names = [load(*reading(file, place)).name for file in FILES if "checkpoint" not in file]
    assert len(set(names)) == len(names)


def test_a_second_run_computes_nothing(place, capsys):
    arguments = [
        *flags("gin/cifar10/simclr.gin", place),
        "--runs",
        place / "runs",
        "--store",
        place / "store",
    ]
    here(capsys, *arguments)
    assert "0 of" in here(capsys, *arguments).stderr


# ------------------------------------------------------------------------------------------------ what they say

LARS_04 = "LARS(lr=0.4, weight_decay=0.0001, lr_per=256, momentum=0.9, nesterov=False, eta=0.02, clip=True, exclude_bias_and_norm=True)"


@pytest.fixture
def experiment(place, monkeypatch):
    """What a file says, but for where the data are; they are too few for its batches, which is not looked at."""
    monkeypatch.setattr(spec, "closure", lambda stages: [])
    return lambda file: (
        load(
            [file],
            [each for each in small(file, place) if ".folder" in each or ".original" in each],
        ).experiment
    )


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_the_cifar_files_say_what_the_reference_does(dataset, experiment):
    simclr = experiment(f"gin/{dataset}/simclr.gin")
    trained = simclr.curves[0].encoder.encoder
    assert (
        repr(trained.optimizer) == LARS_04
        and repr(trained.schedule) == "WarmupCosine(warmup=10.0, start=3e-05)"
    )
    assert (trained.epochs, trained.batch_size, trained.precision) == (200, 256, "float16")
    assert repr(trained.encoder) == "ResNet(depth=18, stem='cifar', stem_padding=2)"
    assert repr(trained.projector) == "Projector(hidden=16384, features=2048)"
    assert (
        repr(trained.objective) == "Contrastive(temperature=0.2)"
        and trained.classifier.joint
        and trained.classifier.lr == 0.1
    )
    assert [repr(view) for view in trained.views] == [
        "RandomResizedCrop(scale=(0.08, 1.0), ratio=(0.75, 1.3333333333333333), size=None, interpolation='bicubic')",
        "ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, probability=0.8)",
        "RandomGrayscale(probability=0.2)",
        "GaussianBlur(sigma=(0.1, 2.0), probability=0.5)",
        "RandomHorizontalFlip(probability=0.5)",
    ]
    probe = simclr.curves[0].probe
    assert repr(probe.optimizer) == LARS_04 and (
        probe.epochs,
        probe.batch_size,
        probe.rescale,
        probe.cached,
    ) == (50, 256, False, None)
    assert probe.views[0].interpolation == "bilinear" and len(probe.views) == 2
    assert {curve.data.mean for curve in simclr.curves} == {(0.4914, 0.4822, 0.4465)}
    assert trained.data.mean == (
        (0.5071, 0.4865, 0.4409) if dataset == "cifar100" else (0.4914, 0.4822, 0.4465)
    )
    ncl = experiment(f"gin/{dataset}/ncl.gin").curves[0].encoder
    assert (
        repr(ncl.encoder.objective)
        == "NonNegative(temperature=0.2, activation='relu', regulariser=1.0, unit_first=True)"
    )
    assert ncl.activation == "relu"
    latents = experiment(f"gin/{dataset}/sae.gin").curves[0].encoder
    assert (
        type(latents.encoder).__name__ == "Projection"
        and type(latents.autoencoder.encoder).__name__ == "Embedding"
    )
    sae = latents.autoencoder
    assert repr(sae.optimizer) == LARS_04 and (
        sae.decoder_lr,
        sae.latents,
        sae.sparsity.k,
        sae.epochs,
    ) == (0.3, 2048, 256, 200)
    assert sae.encoder.encoder == trained  # one encoder, trained once
    supcon = experiment(f"gin/{dataset}/supcon.gin").curves[0].encoder.encoder
    assert (
        supcon.optimizer.lr == 0.4
        and supcon.optimizer.weight_decay == 1e-5
        and supcon.objective.label_noise == 0.55
    )


def test_the_imagenet_files_say_what_the_reference_does(experiment):
    simclr = experiment("gin/imagenet100/simclr.gin")
    trained, probe = simclr.curves[0].encoder.encoder, simclr.curves[0].probe
    effective = trained.optimizer.for_batches(trained.batch_size)
    assert effective.lr == pytest.approx(0.15) and trained.classifier.lr * trained.optimizer.scale(
        128
    ) == pytest.approx(0.05)
    assert (trained.epochs, trained.batch_size, trained.data.size, trained.data.crop) == (
        100,
        128,
        256,
        224,
    )
    assert (trained.encoder.stem, trained.views[0].size) == ("imagenet", 224)
    assert (
        repr(probe.optimizer)
        == "SGD(lr=1.5, weight_decay=0.0, lr_per=256, momentum=0.9, nesterov=False)"
    )
    assert (
        probe.schedule.milestones == (60, 80)
        and probe.views[0].size == 224
        and probe.views[0].interpolation == "bicubic"
    )
    sae = experiment("gin/imagenet100/sae.gin").curves[0].encoder.autoencoder
    assert (
        repr(sae.optimizer)
        == "Adam(lr=0.0001, weight_decay=0.0001, lr_per=256, betas=(0.9, 0.999), decoupled=False)"
    )
    assert (sae.decoder_lr, sae.batch_size, sae.precision) == (0.3, 256, "float32")
    tuned = {
        curve.name: curve.probe for curve in experiment("gin/imagenet100/finetune_ncl.gin").curves
    }
    assert (
        tuned["label_noise"].epochs,
        tuned["few_shot"].epochs,
        tuned["few_shot"].optimizer.lr,
    ) == (50, 100, 1.5)


def test_the_two_papers_settings_differ_where_their_codes_do(experiment):
    for kind in ("simclr", "ncl"):
        later, earlier = (
            experiment(f"gin/cifar100/{kind}.gin"),
            experiment(f"gin/cifar100/{kind}2024.gin"),
        )
        one, other = later.curves[0].encoder.encoder, earlier.curves[0].encoder
        assert (other.projector.hidden, other.projector.features, other.classifier.joint) == (
            2048,
            256,
            False,
        )
        assert (one.optimizer, one.schedule, one.views, one.epochs, one.data) == (
            other.optimizer, other.schedule, other.views, other.epochs, other.data)  # fmt: skip
    assert (
        repr(other.objective)
        == "NonNegative(temperature=0.2, activation='rep_relu', regulariser=0.0, unit_first=False)"
    )
