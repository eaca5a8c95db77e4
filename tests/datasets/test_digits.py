"""The digits against scikit-learn's own arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from monosem.core.fields import FieldError
from monosem.datasets import digits
from monosem.datasets.digits import Digits


@pytest.fixture(scope="module")
def splits():
    data = Digits(size=8)
    return data.load("train"), data.load("test")


def test_every_scan_of_scikit_learn_is_in_exactly_one_split(splits):
    scans, _ = load_digits(return_X_y=True)
    expected = torch.from_numpy(scans / 16 * 255).round().to(torch.uint8)
    pixels = torch.cat([split.inputs for split in splits]).reshape(1797, 64)
    assert sorted(map(bytes, pixels.numpy())) == sorted(map(bytes, expected.numpy()))


def test_the_digits_have_scikit_learn_s_labels_and_a_stratified_test_split(splits):
    _, expected = load_digits(return_X_y=True)
    train, test = splits
    labels = torch.cat([train.labels, test.labels])
    assert labels.bincount().tolist() == torch.from_numpy(expected).bincount().tolist()
    assert len(test.labels) == 360
    assert ((test.labels.bincount() - 36).abs() <= 1).all()


@pytest.mark.parametrize("file", [digits.FILE, "moved"], ids=["by its file", "moved"])
def test_the_digits_are_read_as_load_digits_reads_them(monkeypatch, file):
    monkeypatch.setattr(digits, "FILE", file)
    features, targets = digits.read_digits()
    expected_features, expected_targets = load_digits(return_X_y=True)
    assert np.array_equal(features, expected_features)
    assert np.array_equal(targets, expected_targets)


def test_digits_are_grey_images_of_ten_classes():
    data = Digits()
    assert data.problem() is None
    assert data.classes == 10
    assert data.sample_shape == (1, 16, 16)


def test_normalised_training_images_have_zero_mean_and_unit_deviation():
    pixels = Digits().normalise(Digits().load("train").inputs.float() / 255)
    assert abs(pixels.mean()) < 1e-3
    assert abs(pixels.std() - 1) < 1e-3


@pytest.mark.parametrize("test", [9, 1788])
def test_a_split_without_room_for_every_class_is_refused(test):
    with pytest.raises(FieldError, match=f"Digits.test must .* between 10 and 1787, got {test}"):
        Digits(test=test)
