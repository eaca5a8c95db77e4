"""The lines that tell what is in the splits, on folders and labels whose counts are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from samples import random_pixels

from monosem.core.fields import FieldError
from monosem.data.counts import describe_splits
from monosem.data.packed import open_packs
from monosem.datasets.folders import ImageFolder
from monosem.metrics.neighbours import RetrievalPrecision, highest_precision_at, precision_at


@pytest.fixture
def folder(tmp_path):
    """12 and 11 and 12 training images, 6 test images a class, none in plain view but these."""
    seed = 0
    for split, n in (("train", 12), ("val", 6)):
        for name in ("cat", "dog", "fox"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(n):
                image = Image.fromarray(random_pixels(20, 20, 3, seed=seed))
                image.save(tmp_path / split / name / f"{i}.png")
                seed += 1
    (tmp_path / "train" / "dog" / "0.png").unlink()
    return tmp_path


def lines_of(folder):
    open_packs.cache_clear()
    return describe_splits(ImageFolder(folder=str(folder), size=16))


def test_a_split_is_told_in_one_line(folder):
    assert lines_of(folder) == [
        "ImageFolder, train: 35 images of 3 classes, 11 to 12 a class",
        "ImageFolder, test: 18 images of 3 classes, 6 a class",
    ]


def test_hidden_folders_are_no_classes_and_what_is_left_out_is_told(folder):
    for place in ("train/.ipynb_checkpoints", "train/cat/.ipynb_checkpoints"):
        (folder / place).mkdir()
        Image.new("RGB", (20, 20)).save(folder / place / "0-checkpoint.png")
    (folder / "train" / "@eaDir").mkdir()
    (folder / "train" / "cat" / "._0.png").write_bytes(b"of a Mac")
    (folder / "train" / "cat" / "Thumbs.db").write_bytes(b"of Windows")
    (folder / "train" / "cat" / "a.heic").write_bytes(b"of a telephone")
    assert lines_of(folder)[0] == (
        "ImageFolder, train: 35 images of 3 classes, 11 to 12 a class; left out: 5 hidden, 1 .heic"
    )
    data = ImageFolder(folder=str(folder), size=16)
    assert data.classes == 3 and data.class_names == ("cat", "dog", "fox")


def test_images_of_one_colour_are_counted(folder):
    for i in range(3):
        Image.new("RGB", (20, 20), (i, 9, 9)).save(folder / "train" / "fox" / f"{i}.png")
    Image.new("I;16", (20, 20), 65535).save(folder / "train" / "fox" / "3.png")
    assert lines_of(folder)[0].endswith("; 4 of 35 images are of one colour all over")


def test_a_test_split_that_lacks_classes_is_told(folder):
    for name in ("dog", "fox"):
        for path in (folder / "val" / name).iterdir():
            path.unlink()
        (folder / "val" / name).rmdir()
    assert lines_of(folder)[1:] == [
        "ImageFolder, test: 6 images of 1 class, 6 a class",
        "ImageFolder, test: it has 1 of the 3 classes, none of dog, fox: "
        "accuracies and measures of classes are of those that are there",
    ]


def test_all_images_that_cannot_be_used_are_told_at_once(folder):
    for i in range(7):
        (folder / "train" / "cat" / f"{i}.png").write_bytes(b"no image")
    Image.fromarray(np.ones((8, 8), np.float32) * 99).save(folder / "train" / "cat" / "7.tif")
    with pytest.raises(FieldError, match="7.tif|and 3 more such images") as info:
        lines_of(folder)
    message = str(info.value)
    assert all(f"cat/{i}.png" in message for i in range(5)) and "cat/5.png" not in message
    assert "\n" not in message and message.endswith("; and 3 more such images")


def test_precision_s_ceiling_is_what_perfect_features_reach():
    labels = torch.tensor([0] * 6 + [1] * 6 + [2] * 20)
    perfect = torch.eye(3)[labels]
    highest = highest_precision_at(labels, 10)
    assert highest == pytest.approx((12 * 0.5 + 20) / 32)
    assert precision_at(perfect, labels, 10) == pytest.approx(highest)
    (caution,) = RetrievalPrecision().cautions(labels)
    assert caution.startswith("precision_at_10 can be 0.812 at most: a class has too few")
    assert not list(RetrievalPrecision(k=5).cautions(labels))
    assert highest_precision_at(torch.tensor([0]), 10) == 0
