"""docs/own.md, word for word: its commands run on small photographs, and do what it says."""

from __future__ import annotations

import re
import shlex
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from monosem.cli import main
from monosem.data.dataset import load_once
from monosem.data.holdout import Holdout
from monosem.data.packed import open_packs
from monosem.learning.encoders import SmallConv

QUICK = """
Experiment.gallery = None
Experiment.metrics = ()
"""
TINY = """
Experiment.curves = (@label_noise/Curve(),)
label_noise/Curve.severities = (0.0, 0.4)
Pretrain.epochs = 1
SmallConv.channels = 2
SmallConv.features = 8
Projector.hidden = 8
Projector.features = 8
LinearProbe.epochs = 1
Curve.repeats = 1
"""
TINY_SAE = "SparseAutoencoder.latents = 16\nSparseAutoencoder.epochs = 1\nTopK.k = 4\n"
SECRET = "a-secret-of-mine-0451"
CLASSES = ("cat", "dog", "fox")


def photograph(draw, of):
    """A small picture with a colour and a stripe of its class."""
    pixels = draw.integers(0, 90, (24, 30, 3), dtype=np.uint8)
    pixels[..., of] += 120
    pixels[8 * of : 8 * of + 4] += 40
    return Image.fromarray(pixels)


def commands():
    """Those of the page, in their order, as lists of words."""
    text = (ROOT / "docs" / "own.md").read_text().replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(r"^python run.py (.*)$", text, re.MULTILINE)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photographs with splits and without, arrays, and a network."""
    place, draw = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    for folder, count in (("photos/train", 16), ("photos/val", 6), ("unsplit", 16)):
        for label, name in enumerate(CLASSES):
            (place / folder / name).mkdir(parents=True)
            for i in range(count):
                photograph(draw, label).save(place / folder / name / f"{i}.png")
    train = place / "photos" / "train"
    (train / "cat" / "._0.png").touch()
    (train / "Thumbs.db").touch()
    (train / "dog" / "notes.txt").touch()
    arrays = {}
    for split, n in (("train", 48), ("test", 12)):
        arrays[f"{split}_images"] = draw.integers(0, 256, (n, 28, 28, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(n)[:, None] % 3
    np.savez(place / "arrays.npz", **arrays)
    network = SmallConv(2, 8).build((3,))
    torch.save({"model_state_dict": {f"net.{n}": t for n, t in network.state_dict().items()}},
               place / "mine.pth")  # fmt: skip
    (place / "tiny.gin").write_text(TINY)
    (place / "tiny_sae.gin").write_text(TINY_SAE)
    (place / "quick.gin").write_text(QUICK)
    probe = [line for line in TINY.split("\n") if not line.startswith(("Pretrain", "Projector"))]
    (place / "tiny_probe.gin").write_text("\n".join(probe))
    patch = pytest.MonkeyPatch()
    patch.setenv("WANDB_API_KEY", SECRET)
    yield place
    patch.undo()


def small(command):
    """A command of the page with bindings that make it small, before its own."""
    if "--gather" in command:
        return command
    extra = ["--gin", "tiny.gin"]
    if "gin/own/ncl.gin" not in command:  # one gallery is enough
        extra += ["--gin", "quick.gin"]
    if "gin/own/sae.gin" in command:
        extra += ["--gin", "tiny_sae.gin"]
    if "gin/own/checkpoint.gin" in command:  # not the ResNet of 224 pixels, which takes its time
        extra = ["--gin", "tiny_probe.gin", "--gin", "quick.gin", "--set", "ImageFolder.size = 64"]
        extra += ["--set", "Checkpoint.encoder = @SmallConv()"]
    return [*command[:2], *extra, *command[2:]]


def names_in(place):
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


RESULTS = {}  # of every command, for the tests after it: what was printed


@pytest.mark.parametrize("number", range(len(commands())))
def test_a_command_of_the_page_runs_and_a_plan_writes_nothing(place, monkeypatch, capsys, number):
    monkeypatch.chdir(place)
    for cache in (open_packs, load_once):
        cache.cache_clear()
    command, before = commands()[number], names_in(place)
    if "Checkpoint.path = 'artifact.safetensors'" in command:
        artifact, *_ = (place / "store" / "Pretrain").glob("*/artifact.safetensors")
        shutil.copy(artifact, place)
    assert main(small(command), prog="run.py") == 0
    printed = capsys.readouterr()
    RESULTS[" ".join(command)] = printed.out + printed.err
    if "--plan" in command:
        assert names_in(place) == before and not (place / "store").exists()


def result_of(words):
    return next(printed for command, printed in RESULTS.items() if words in command)


def test_the_lines_of_the_splits_are_those_of_the_page(place):
    page = (ROOT / "docs" / "own.md").read_text()
    lines = re.findall(r"^ImageFolder, .*$", page, re.MULTILINE)
    assert len(lines) == 2
    for words in ("simclr.gin --set images = 'photos' --plan", "own/ncl.gin", "own/checkpoint.gin"):
        assert all(line in result_of(words) for line in lines)
    assert all(line in (place / "runs" / "own_ncl" / "summary.md").read_text() for line in lines)


def test_a_share_of_every_class_is_held_out():
    said = result_of("unsplit")
    assert "ImageFolder, train: 36 images of 3 classes, 12 a class" in said
    assert "ImageFolder, test: 12 images of 3 classes, 4 a class" in said


def test_without_gallery_and_metrics_there_are_accuracies_alone(place):
    names = {path.name for path in (place / "runs" / "own_simclr").iterdir()}
    assert {"curves.csv", "curves.png", "summary.md"} <= names
    assert not {"gallery.html", "gallery.json", "gallery.png", "space.png"} & names
    assert len((place / "runs" / "own_simclr" / "measures.csv").read_text().splitlines()) == 1
    assert "class_consistency" not in (place / "runs" / "own_simclr" / "curves.csv").read_text()
    assert (place / "runs" / "own_ncl" / "gallery.html").exists()


def test_precision_out_of_reach_is_told(place):
    summary = (place / "runs" / "own_ncl" / "summary.md").read_text()
    assert "precision_at_10 can be 0.5 at most" in result_of("own/ncl.gin")
    assert "precision_at_10 can be 0.5 at most: a class has too few test examples" in summary


def test_a_folder_of_classes_without_splits_is_told_what_to_bind(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    code = main(["--gin", "gin/own/simclr.gin", "--set", "images = 'unsplit'"], prog="run.py")
    said = capsys.readouterr().err
    assert code == 2 and "it holds cat, dog, fox: if these are the classes" in said
    assert "ImageFolder.holdout = @Holdout() takes a share" in said
    hold = ["--set", "images = 'photos'", "--set", "ImageFolder.holdout = @Holdout()"]
    assert main(["--gin", "gin/own/simclr.gin", *hold], prog="run.py") == 2
    assert "has splits and no classes: train, val" in capsys.readouterr().err


def test_all_that_is_known_to_be_wrong_is_said_at_once(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    wrong = ["images = 'fotos'", "Checkpoint.path = 'mien.pth'"]
    flags = [word for binding in wrong for word in ("--set", binding)]
    assert main(["--gin", "gin/own/checkpoint.gin", *flags], prog="run.py") == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "did you mean" in said[0].lower() and "mine.pth" in said[1]
    wrong = ["Pretrain.epochs = 0", "Pretrain.batch_size = 0"]
    flags = [word for binding in wrong for word in ("--set", binding)]
    assert main(["--gin", "gin/own/simclr.gin", *flags], prog="run.py") == 2
    said = capsys.readouterr().err
    assert "(--set 'Pretrain.epochs = 0')" in said and "(--set 'Pretrain.batch_size = 0')" in said
    assert said.count("must be 1 or more, got 0") == 2


def test_a_held_out_file_stays_where_it_is_when_another_comes_and_wherever_the_folder_lies():
    names = [f"cat/{i}.jpg" for i in range(50)]
    drawn = Holdout(share=0.2).test_files(names)
    assert len(drawn) == 10 and drawn == Holdout(share=0.2).test_files(names[::-1])
    more = Holdout(share=0.2).test_files([*names, "cat/new.jpg"])
    assert len(drawn - more) <= 1
    assert drawn != Holdout(share=0.2, seed=1).test_files(names)
    assert len(Holdout(share=0.01).test_files(names[:2])) == 1
    assert len(Holdout(share=0.99).test_files(names[:2])) == 1


def test_secrets_of_the_environment_are_in_no_file_that_is_written(place):
    written = [path for path in place.rglob("*") if path.is_file()]
    assert len(written) > 50 and len(RESULTS) == len(commands())
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    assert not [command for command, printed in RESULTS.items() if SECRET in printed]
