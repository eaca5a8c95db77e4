"""Test sets for ImageNet: small folders in the published layouts; some classes are read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from samples import random_pixels
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from monosem.core.fields import FieldError
from monosem.data.packed import open_packs
from monosem.datasets.folders import ImageFolder
from monosem.shifts.base import SeenAs
from monosem.shifts.imagenet_shifts import (
    ImageNetA,
    ImageNetC,
    ImageNetR,
    ImageNetSketch,
    ImageNetV2,
    StylizedImageNet,
)

IDS = ("n00000001", "n00000002", "n00000003")


def write_images(folder, count, height, width, seed):
    folder.mkdir(parents=True)
    for index in range(count):
        pixels = random_pixels(height, width, 3, seed=seed + index)
        Image.fromarray(pixels).save(folder / f"{index}.png")


@pytest.fixture
def like(tmp_path):
    """Three classes in squares of 32, of which an evaluation sees 24."""
    for label, name in enumerate(IDS):
        write_images(tmp_path / "data" / "train" / name, 2, 36, 44, seed=10 * label)
        write_images(tmp_path / "data" / "val" / name, 1, 36, 44, seed=100 + label)
    return ImageFolder(folder=str(tmp_path / "data"), size=32, crop=24)


@pytest.mark.parametrize("kind", [ImageNetSketch, StylizedImageNet, ImageNetR, ImageNetA])
def test_only_classes_of_the_probe_are_read_and_squares_have_its_size(kind, like, tmp_path):
    home = tmp_path / "set"
    for label, name in enumerate(("n00000003", "n00000009", "n00000002")):
        write_images(home / name, label + 1, 50, 40, seed=label)
    ((name, severity, data),) = kind(folder=str(home)).points(like)
    assert ((name, severity),) == kind(folder=str(home)).names
    assert data.class_names == ("n00000002", "n00000003")
    images, labels, _ = data.split("test")
    assert labels.tolist() == [0, 0, 0, 1]
    square = Compose([Resize(32), CenterCrop(32), PILToTensor()])
    for image, path in zip(images, sorted((home / "n00000002").iterdir()), strict=False):
        assert torch.equal(image, square(Image.open(path)))
    seen = SeenAs(data, like)
    assert seen.misfit() is None and data.problem_of_test() is None
    assert torch.equal(seen.prepare(images), like.prepare(images))
    assert seen.prepare(images).shape == (4, 3, 24, 24)


def test_imagenet_c_is_what_an_evaluation_sees_and_is_not_cropped_again(like, tmp_path):
    home = tmp_path / "imagenet-c"
    for severity in (1, 2):
        write_images(home / "fog" / str(severity) / IDS[0], 2, 24, 24, seed=severity)
    shifted = ImageNetC(folder=str(home), corruptions=("fog",), severities=(1, 2))
    assert shifted.names == (("fog", 1), ("fog", 2))
    for (_, severity, data), number in zip(shifted.points(like), (1, 2), strict=True):
        images = data.split("test").inputs
        pixels = random_pixels(24, 24, 3, seed=number)
        assert severity == number
        assert np.array_equal(images[0].numpy(), pixels.transpose(2, 0, 1))
        seen = SeenAs(data, like)
        assert seen.misfit() is None
        assert torch.equal(seen.prepare(images), like.prepare_uncropped(images))


def test_imagenet_v2_s_positions_are_those_of_the_sorted_ids(like, tmp_path):
    ids = [f"n{number:08d}" for number in range(1000)]
    listing = tmp_path / "ids.txt"
    listing.write_text("".join(f"{name} a, b\n" for name in reversed(ids)))
    for position in (0, 2, 3, 10):
        write_images(tmp_path / "v2" / str(position), 1, 40, 40, seed=position)
    shifted = ImageNetV2(folder=str(tmp_path / "v2"), wnids=str(listing))
    ((_, _, data),) = shifted.points(like)
    assert data.class_names == ("n00000002", "n00000003")
    images, labels, _ = data.split("test")
    assert labels.tolist() == [0, 1]
    square = Compose([Resize(32), CenterCrop(32), PILToTensor()])
    assert torch.equal(images[1], square(Image.fromarray(random_pixels(40, 40, 3, seed=3))))
    open_packs.cache_clear()  # the next process meets the folder of packs among those of classes
    assert data.problem_of_test() is None and data.class_names == ("n00000002", "n00000003")


# Refusals


def the_problem_of(shifted, like):
    with pytest.raises(FieldError) as refusal:
        for point in shifted.points(like):
            point.data.split("test")
    (line,) = str(refusal.value).splitlines()
    return line


def test_what_is_not_there_is_told_with_its_path_and_where_it_is_published(like, tmp_path):
    line = the_problem_of(ImageNetSketch(folder=str(tmp_path / "sketch")), like)
    assert f"ImageNetSketch.folder must be there, got {tmp_path / 'sketch'}" in line
    assert "github.com/HaohanWang/ImageNet-Sketch" in line
    (tmp_path / "c").mkdir()
    line = the_problem_of(ImageNetC(folder=str(tmp_path / "c"), corruptions=("fog",)), like)
    assert f"ImageNetC.folder must hold the folder of class folders {tmp_path / 'c'}/fog/1" in line
    assert "zenodo.org/records/2235448" in line


def test_a_set_without_a_class_of_the_probe_is_refused_with_both_lists(like, tmp_path):
    write_images(tmp_path / "a" / "n00000042", 1, 32, 32, seed=0)
    line = the_problem_of(ImageNetA(folder=str(tmp_path / "a")), like)
    assert "such as n00000001, n00000002, n00000003" in line and "has n00000042" in line


def test_folders_without_images_are_refused(like, tmp_path):
    (tmp_path / "a" / IDS[0]).mkdir(parents=True)
    line = the_problem_of(ImageNetA(folder=str(tmp_path / "a")), like)
    assert "must hold images" in line and IDS[0] in line


@pytest.mark.parametrize(
    ("text", "message"),
    [("n00000001\n", "has 1 different ids"), ("tench\n", "has 'tench'"), (None, "cannot be read")],
)
def test_a_list_of_ids_that_is_no_such_list_is_refused(text, message, like, tmp_path):
    listing = tmp_path / "ids.txt"
    if text is not None:
        listing.write_text(text)
    write_images(tmp_path / "v2" / "0", 1, 32, 32, seed=0)
    line = the_problem_of(ImageNetV2(folder=str(tmp_path / "v2"), wnids=str(listing)), like)
    assert "wnids must" in line and message in line


def test_folders_that_are_not_positions_are_refused(like, tmp_path):
    listing = tmp_path / "ids.txt"
    listing.write_text("".join(f"n{number:08d}\n" for number in range(1000)))
    write_images(tmp_path / "v2" / IDS[0], 1, 32, 32, seed=0)
    line = the_problem_of(ImageNetV2(folder=str(tmp_path / "v2"), wnids=str(listing)), like)
    assert "must hold folders named 0 to 999" in line
