"""Arrays that somebody has written, in every layout and format, and what is said of bad ones."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from samples import random_pixels

from monosem.core.fields import FieldError
from monosem.core.identity import digest
from monosem.datasets.arrays import Arrays


def write_npz(path, **arrays):
    np.savez(path.with_suffix(".npz"), **arrays)
    return str(path.with_suffix(".npz"))


def write_npy(path, **arrays):
    path.mkdir()
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)
    return str(path)


def write_h5(path, **arrays):
    h5py = pytest.importorskip("h5py", reason="HDF5 files need h5py, which is not required")
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file.update(arrays)
    return str(path.with_suffix(".h5"))


def grey(train, test):
    return Arrays(train=str(train), test=str(test), mean=(0.5,), std=(0.5,))


@pytest.mark.parametrize("write", [write_npz, write_npy, write_h5])
@pytest.mark.parametrize(
    ("shape", "channels", "channels_first"),
    [
        ((12, 5, 6), 1, lambda images: images[:, None]),
        ((12, 5, 6, 1), 1, lambda images: images.transpose(0, 3, 1, 2)),
        ((12, 5, 6, 3), 3, lambda images: images.transpose(0, 3, 1, 2)),
        ((12, 3, 5, 6), 3, lambda images: images),
    ],
    ids=["nhw", "nhw1", "nhw3", "n3hw"],
)
def test_arrays_of_every_layout_are_taken(tmp_path, write, shape, channels, channels_first):
    images, labels = random_pixels(*shape), np.arange(12, dtype=np.uint8) % 4
    train = write(tmp_path / "train", images=images, labels=labels)
    test = write(tmp_path / "test", images=images[::-1], labels=labels[::-1])
    data = Arrays(train=train, test=test, mean=(0.5,) * channels, std=(0.5,) * channels)
    assert data.problem() is None
    assert data.classes == 4
    expected = channels_first(images)
    assert np.array_equal(data.split("train").inputs.numpy(), expected)
    assert np.array_equal(data.split("test").inputs.numpy(), expected[::-1])
    assert data.split("test").labels.tolist() == labels[::-1].tolist()


IMAGES, LABELS = random_pixels(6, 4, 4), np.arange(6) % 3


@pytest.fixture
def good(tmp_path):
    return write_npz(tmp_path / "train", images=IMAGES, labels=LABELS)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": IMAGES, "labels": LABELS}, r"has no images but \['labels', 'x_train'\]"),
        ({"images": IMAGES / 255, "labels": LABELS}, "images of float64; .* multiply by 255"),
        ({"images": IMAGES * np.uint16(257), "labels": LABELS}, "of uint16; .* divide by 257"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"must hold images; .* uint8 \(0, 4, 4\)"),
        ({"images": IMAGES, "labels": LABELS[:, None].repeat(2, 1)}, r"labels int64 \(6, 2\)"),
        (
            {"images": IMAGES, "labels": LABELS[:5]},
            r"images are uint8 \(6, 4, 4\), labels int64 \(5,\)",
        ),
        ({"images": IMAGES, "labels": LABELS / 2}, "labels float64"),
        ({"images": np.uint8(3), "labels": LABELS}, r"images are uint8 \(\)"),
        ({"images": IMAGES, "labels": LABELS.astype(object)}, "holds no plain arrays"),
        (
            {"images": random_pixels(6, 4, 4, 3), "labels": LABELS},
            r"neither does the shape have, got \(6, 4, 4, 3\)",
        ),
        ({"images": random_pixels(6, 1, 4, 1), "labels": LABELS}, "both the second and the last"),
    ],
)
def test_arrays_that_cannot_be_used_are_described(tmp_path, good, arrays, message):
    bad = write_npz(tmp_path / "test", **arrays)
    with pytest.raises(FieldError, match=f"Arrays.test .*{message}"):
        grey(good, bad).problem()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES[:, :2], "labels": LABELS}, "inputs of one size in both splits"),
    ],
)
def test_a_split_that_was_packed_may_still_be_none(tmp_path, good, arrays, message):
    assert message in grey(good, write_npz(tmp_path / "test", **arrays)).problem()


@pytest.mark.parametrize("names", ["{}_images {}_labels", "x_{} y_{}"], ids=["MedMNIST", "Keras"])
def test_one_file_of_both_splits_and_a_column_of_labels_are_read(tmp_path, names):
    """MedMNIST has its labels as (n, 1)."""
    arrays = {}
    for split, part in (("train", slice(4)), ("test", slice(4, 6))):
        images, labels = names.replace("{}", split).split()
        arrays |= {images: IMAGES[part], labels: LABELS[part, None]}
    both = write_npz(tmp_path / "both", **arrays)
    data = grey(both, both)
    assert data.problem() is None
    for split, part in (("train", slice(4)), ("test", slice(4, 6))):
        assert np.array_equal(data.split(split).inputs[:, 0].numpy(), IMAGES[part])
        assert data.split(split).labels.tolist() == LABELS[part].tolist()


def test_arrays_of_other_names_are_read_by_what_they_are_called(tmp_path, good):
    other = write_npz(tmp_path / "other", test_x=IMAGES[::-1], truth=LABELS[::-1])
    with pytest.raises(FieldError, match="Arrays.images and Arrays.labels say what they are"):
        grey(good, other).problem()
    data = Arrays(
        train=write_npz(tmp_path / "own", train_x=IMAGES, truth=LABELS), test=other,
        images="{split}_x", labels="truth", mean=(0.5,), std=(0.5,),
    )  # fmt: skip
    assert data.problem() is None
    assert data.split("test").labels.tolist() == LABELS[::-1].tolist()
    assert digest(data) == digest(grey(good, write_npz(tmp_path / "o", images=IMAGES[::-1],
                                                       labels=LABELS[::-1])))  # fmt: skip
    with pytest.raises(FieldError, match="Arrays.labels must be set too, as images is: 'x'"):
        Arrays(train=good, test=good, images="x", mean=(0.5,), std=(0.5,))


def test_labels_with_gaps_are_told_by_the_first_few(tmp_path):
    labels = np.full(6, 3)
    labels[0] = 10**12
    train = write_npz(tmp_path / "train", images=IMAGES, labels=labels)
    test = write_npz(tmp_path / "test", images=IMAGES[:2], labels=labels[1:3])
    assert "has none of [0, 1, 2, 4, 5, 6]" in grey(train, test).problem()


def test_the_same_images_for_both_splits_are_refused(good):
    with pytest.raises(FieldError, match=r"Arrays.test must be of other examples than the"):
        grey(good, good).problem()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.npz", "holds no plain arrays"),
        ("renamed.npz", r"holds no plain arrays: .*renamed.npz is no .npz"),
        ("a.mat", "must be an .npz, .h5 or .hdf5, or a folder"),
        ("a", "not there: .*images.npy, "),
        ("tarin.npz", "did you mean .*train.npz"),
    ],
)
def test_files_that_hold_no_arrays_are_named(tmp_path, good, name, message):
    (tmp_path / "a.npz").write_bytes(b"PK nonsense")
    np.save(tmp_path / "b.npy", np.zeros(3))
    (tmp_path / "b.npy").rename(tmp_path / "renamed.npz")
    (tmp_path / "a.mat").touch()
    (tmp_path / "a").mkdir()
    with pytest.raises(FieldError, match=f"Arrays.test .*{message}"):
        grey(good, tmp_path / name).problem()


def test_a_damaged_npy_file_is_named(tmp_path, good):
    folder = write_npy(tmp_path / "a", images=IMAGES, labels=LABELS)
    (tmp_path / "a" / "images.npy").write_bytes(b"nonsense")
    with pytest.raises(FieldError, match=f"Arrays.test holds no plain arrays of numbers: {folder}"):
        grey(good, folder).problem()


@pytest.mark.skipif(importlib.util.find_spec("h5py") is not None, reason="h5py is installed")
def test_without_h5py_an_hdf5_file_says_what_it_needs(tmp_path):
    (tmp_path / "a.h5").touch()
    message = "Arrays.train is an HDF5 file, .*a.h5, which needs h5py: pip install h5py"
    with pytest.raises(FieldError, match=message):
        grey(tmp_path / "a.h5", tmp_path / "a.h5").problem()
