"""CIFAR-C, CIFAR-10.1 and MNIST-C: small files in the exact formats, read as plain NumPy reads."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from samples import random_pixels

from monosem.core.fields import FieldError
from monosem.core.identity import digest
from monosem.datasets.cifar import CIFAR10
from monosem.datasets.digits import Digits
from monosem.datasets.mnist import MNIST5000, fit
from monosem.shifts import cifar_shifts, commonly_corrupted
from monosem.shifts.cifar_shifts import CIFAR10C, CIFAR100C, CIFAR101
from monosem.shifts.mnist_shifts import MNISTC

EACH = 20  # images of a severity
LIKE = Digits()  # not looked at by these sets


def write_cifar_c(folder, classes=10, names=("fog", "spatter")):
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        np.save(folder / f"{name}.npy", random_pixels(5 * EACH, 32, 32, 3, seed=seed))
    labels = np.tile(np.arange(EACH) % classes, 5).astype(np.uint8)
    np.save(folder / "labels.npy", labels)
    return str(folder)


@pytest.fixture
def cifar(tmp_path):
    return write_cifar_c(tmp_path / "CIFAR-10-C")


def test_a_point_is_the_block_of_its_corruption_and_severity(cifar):
    shifted = CIFAR10C(folder=cifar, corruptions=("fog", "spatter"), severities=(1, 5))
    points = shifted.points(LIKE)
    assert [(name, severity) for name, severity, _ in points] == list(shifted.names)
    assert shifted.names == (("fog", 1), ("fog", 5), ("spatter", 1), ("spatter", 5))
    labels = np.load(f"{cifar}/labels.npy")
    for name, severity, data in points:
        block = slice(EACH * (int(severity) - 1), EACH * int(severity))
        pixels = np.load(f"{cifar}/{name}.npy")[block].transpose(0, 3, 1, 2)
        images, read, _ = data.split("test")
        assert np.array_equal(images.numpy(), pixels)
        assert read.tolist() == labels[block].tolist()
        assert data.problem_of_test() is None
        assert data.problem() == "has no training split: it can only be a set of Shift.sets"


def test_the_fifteen_are_the_default_and_four_more_are_allowed(cifar):
    assert len(CIFAR10C(folder=cifar).names) == 75
    assert len(set(commonly_corrupted.CommonName.__args__)) == 19
    with pytest.raises(FieldError, match="CIFAR10C.corruptions must be one of"):
        CIFAR10C(folder=cifar, corruptions=("rain",))
    with pytest.raises(FieldError, match="CIFAR10C.severities must be between 1 and 5, got 6"):
        CIFAR10C(folder=cifar, severities=(6,))


def test_the_classes_are_those_of_cifar_in_the_order_of_torchvision_s_files(tmp_path):
    folder = write_cifar_c(tmp_path / "C", classes=20)
    (point,) = CIFAR100C(folder=folder, corruptions=("fog",), severities=(3,)).points(LIKE)
    names = point.data.class_names
    assert len(names) == 100 and list(names) == sorted(names)
    assert cifar_shifts.CIFAR10_NAMES[:3] == ("airplane", "automobile", "bird")
    assert len(cifar_shifts.CIFAR10_NAMES) == 10 and CIFAR10.__name__ == "CIFAR10"


def test_every_block_has_content_of_its_own_wherever_it_lies(cifar, tmp_path):
    def digests(folder):
        shifted = CIFAR10C(folder=folder, corruptions=("fog",))
        return [digest(point.data) for point in shifted.points(LIKE)]

    assert len(set(digests(cifar))) == 5
    assert digests(write_cifar_c(tmp_path / "elsewhere")) == digests(cifar)


def test_cifar_10_1_is_one_point(tmp_path):
    pixels = random_pixels(30, 32, 32, 3)
    np.save(tmp_path / "cifar10.1_v6_data.npy", pixels)
    np.save(tmp_path / "cifar10.1_v6_labels.npy", np.arange(30) % 10)
    (point,) = CIFAR101(folder=str(tmp_path)).points(LIKE)
    images, labels, _ = point.data.split("test")
    assert (point.name, point.severity) == ("cifar10.1", 0)
    assert np.array_equal(images.numpy(), pixels.transpose(0, 3, 1, 2))
    assert labels.tolist() == [i % 10 for i in range(30)]


@pytest.fixture
def mnist(tmp_path):
    for seed, name in enumerate(("fog", "zigzag")):
        home = tmp_path / "mnist_c" / name
        home.mkdir(parents=True)
        np.save(home / "test_images.npy", random_pixels(12, 28, 28, 1, seed=seed))
        np.save(home / "test_labels.npy", np.arange(12) % 10)
    return str(tmp_path / "mnist_c")


def test_mnist_c_is_cropped_and_fitted_as_mnist_is(mnist):
    small = MNIST5000(file="not looked at")
    shifted = MNISTC(folder=mnist, corruptions=("fog", "zigzag"), crop=small.crop, size=small.size)
    for name, severity, data in shifted.points(small):
        pixels = np.load(f"{mnist}/{name}/test_images.npy").transpose(0, 3, 1, 2)
        images, labels, _ = data.split("test")
        assert torch.equal(images, fit(torch.from_numpy(pixels), small.crop, small.size))
        assert labels.tolist() == [i % 10 for i in range(12)] and severity == 0
        assert data.problem_of_test() is None
    assert len(MNISTC(folder=mnist).names) == 15


# Refusals


def the_problem_of(shifted):
    with pytest.raises(FieldError) as refusal:
        for point in shifted.points(LIKE):
            point.data.split("test")
    (line,) = str(refusal.value).splitlines()
    return line


def test_what_is_not_there_is_told_with_its_path_and_where_it_is_published(cifar, mnist, tmp_path):
    line = the_problem_of(CIFAR10C(folder=str(tmp_path / "CIFAR-10-D")))
    assert "CIFAR10C.folder must be there" in line and "did you mean" in line
    assert "zenodo.org/records/2535967" in line
    line = the_problem_of(CIFAR10C(folder=cifar, corruptions=("snow",)))
    assert f"not there: {cifar}/snow.npy; published at https://zenodo.org" in line
    line = the_problem_of(MNISTC(folder=mnist, corruptions=("shear",)))
    assert "MNISTC.folder" in line and "shear/test_images.npy" in line and "3239543" in line


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (random_pixels(10, 3, 32, 32), np.arange(10), "must be uint8 (n, 32, 32, 3), got uint8"),
        (np.zeros((10, 32, 32, 3)), np.arange(10), "got float64 (10, 32, 32, 3)"),
        (
            random_pixels(11, 32, 32, 3),
            np.arange(11),
            "5 severities of equally many",
        ),
        (random_pixels(10, 32, 32, 3), np.arange(9), "a whole number for each of the 10 images"),
        (random_pixels(10, 32, 32, 3), np.arange(10) / 2, "a whole number for each"),
        (np.array([{}]), np.arange(10), "cannot be read as .npy"),
    ],
)
def test_files_of_another_format_are_refused(tmp_path, images, labels, message):
    np.save(tmp_path / "fog.npy", images)
    np.save(tmp_path / "labels.npy", labels)
    line = the_problem_of(CIFAR10C(folder=str(tmp_path), corruptions=("fog",)))
    assert re.escape(message) in re.escape(line) and "CIFAR10C.folder" in line
