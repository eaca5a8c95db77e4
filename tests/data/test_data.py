"""The embedded digits, sets in the formats they are published in, and what is said of a dataset that cannot be used."""

from __future__ import annotations

import functools
import hashlib
import http.server
import importlib.util
import os
import pickle
import shutil
import socket
import tarfile
import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torchvision
from conftest import tiny_pretrain
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms import functional as tv

from monosem.core.fields import FieldError
from monosem.core.identity import digest, generator
from monosem.core.stage import key
from monosem.data import cifar
from monosem.data.arrays import Arrays
from monosem.data.cifar import CIFAR10, CIFAR100
from monosem.data.dataset import Dataset, Examples, _loaded, stratified
from monosem.data.digits import Digits
from monosem.data.folders import ImageFolder, ImageNet100
from monosem.data.packed import _packs
from monosem.specs.errors import SpecError
from monosem.specs.load import load


def test_the_digits_are_scikit_learn_s_split_without_overlap_and_stratified():
    scans, labels = load_digits(return_X_y=True)
    digits = Digits(size=8)
    train, test = digits.load("train"), digits.load("test")
    pixels = torch.cat([train.images, test.images]).reshape(1797, 64)
    expected = torch.from_numpy(scans / 16 * 255).round().to(torch.uint8)
    assert sorted(map(bytes, pixels.numpy())) == sorted(
        map(bytes, expected.numpy())
    )  # every scan, each once
    assert (
        torch.cat([train.labels, test.labels]).bincount().tolist()
        == torch.from_numpy(labels).bincount().tolist()
    )
    assert len(test.labels) == 360 and ((test.labels.bincount() - 36).abs() <= 1).all()
    assert digits.classes == 10 and digits.channels == 1


def test_normalised_training_images_have_zero_mean_and_unit_deviation():
    pixels = Digits().normalise(Digits().load("train").images.float() / 255)
    assert abs(pixels.mean()) < 1e-3 and abs(pixels.std() - 1) < 1e-3


def test_a_process_loads_a_split_once():
    loads = []

    @dataclass(frozen=True)
    class Counted(Given):
        def load(self, split):
            loads.append(split)
            return GOOD

    data = Counted()
    assert (
        data.problem() is None
        and data.classes == 3
        and Counted().split("test") is data.split("test")
    )
    assert sorted(loads) == ["test", "train"]


def test_every_beginning_of_a_stratified_order_is_stratified():
    labels = torch.arange(4).repeat_interleave(torch.tensor([5, 50, 100, 45]))
    order = stratified(labels, generator("x"))
    assert sorted(order.tolist()) == list(range(200))
    for n in (20, 77, 150):
        assert (
            labels[order[:n]].bincount(minlength=4) - labels.bincount() * n / 200
        ).abs().max() <= 1


@dataclass(frozen=True)
class Given(Dataset):
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)

    def load(self, split):
        return SPLITS[split]


SPLITS: dict[str, Examples] = {}
GOOD = Examples(torch.zeros(6, 1, 4, 4, dtype=torch.uint8), torch.arange(6) % 3)


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        (GOOD, GOOD, None),
        (Examples(GOOD.images.float(), GOOD.labels), GOOD, "must hold uint8 images"),
        (Examples(GOOD.images[:, 0], GOOD.labels), GOOD, "must hold uint8 images"),
        (GOOD, Examples(GOOD.images.expand(-1, 3, -1, -1), GOOD.labels), "a channel for each mean"),
        (Examples(GOOD.images, GOOD.labels.int()), GOOD, "int64 labels"),
        (Examples(GOOD.images, GOOD.labels[:5]), GOOD, "a label for every image"),
        (Examples(GOOD.images[:0], GOOD.labels[:0]), GOOD, "some of them"),
        (
            Examples(*GOOD[:2], {"hue": GOOD.labels[:5]}),
            GOOD,
            "from 0 on, like labels, and below 10000; not so hue",
        ),
        (Examples(*GOOD[:2], {"hue": GOOD.labels * 10**6}), GOOD, "and below 10000; not so hue"),
        (
            Examples(*GOOD[:2], None),
            GOOD,
            "must load Images(images, labels, factors), the factors a dictionary",
        ),
        (tuple(GOOD[:2]), GOOD, "must load Images(images, labels, factors)"),
        (Examples(GOOD.images, GOOD.labels - 1), GOOD, "0 to 1; not so the train split"),
        (GOOD, Examples(GOOD.images, GOOD.labels + 1), "0 to 2; not so the test split"),
        (Examples(GOOD.images, GOOD.labels * 2), GOOD, "none of [1, 3]"),
    ],
)
def test_a_dataset_that_cannot_be_used_is_described(train, test, words):
    SPLITS.update(train=train, test=test)
    _loaded.cache_clear()
    problem = Given().problem()
    assert problem is None if words is None else words in problem


# ------------------------------------------------------------------------------------------------ packed from files


@pytest.fixture
def anew():
    """Forgets what this process has opened, as another process would not know it."""

    def forget():
        for cache in (_packs, _loaded, key):
            cache.cache_clear()

    forget()
    return forget


def draw(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# ------------------------------------------------------------------------------------------------ CIFAR


class Python2(pickle._Pickler):
    """Writes what Python 2 wrote: words are bytes without an encoding, numpy lives in its old home."""

    def words(self, text):
        text = (
            text
            if isinstance(text, bytes)
            else text.encode().replace(b"numpy._core", b"numpy.core")
        )
        self.write(pickle.BINSTRING + len(text).to_bytes(4, "little") + text)

    dispatch = {**pickle._Pickler.dispatch, bytes: words, str: words}  # noqa: RUF012


def write_python_2(path, table):
    with path.open("wb") as file:
        Python2(file, protocol=2).dump(table)
    path.write_bytes(
        path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    )


def write_python_3(protocol):
    return lambda path, table: path.write_bytes(pickle.dumps(table, protocol=protocol))


def write_cifar(root, write, kind=CIFAR10):
    """A small set in the files that the published one has."""
    published = kind().published()
    home = root / published.base_folder
    home.mkdir(parents=True)
    classes, name = (10, "labels") if kind is CIFAR10 else (100, "fine_labels")
    lists = (*published.train_list, *published.test_list)
    for number, (file, _) in enumerate(lists):
        table = {
            "data": draw(classes, 3072, seed=number),
            name: list(range(classes)),
            "filenames": ["a.png"] * classes,
        }
        write(
            home / file,
            {"batch_label": "one", **table}
            if kind is CIFAR10
            else {"coarse_labels": [0] * classes, **table},
        )
    write(
        home / published.meta["filename"],
        {published.meta["key"]: [f"class {n}" for n in range(classes)]},
    )
    return home


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100])
@pytest.mark.parametrize(
    "write", [write_python_2, *map(write_python_3, (2, 4, 5))], ids=["python 2", "2", "4", "5"]
)
def test_cifar_is_read_as_torchvision_reads_it(tmp_path, monkeypatch, kind, write):
    write_cifar(tmp_path, write, kind)
    data = kind(folder=str(tmp_path), original=False)
    assert data.problem() is None and data.classes == (10 if kind is CIFAR10 else 100)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    for split in ("train", "test"):
        theirs = kind().published()(tmp_path, train=split == "train")
        assert np.array_equal(data.split(split).images.permute(0, 2, 3, 1).numpy(), theirs.data)
        assert data.split(split).labels.tolist() == theirs.targets
        assert list(_packs(data)[split].names) == theirs.classes


def test_files_that_are_not_the_published_ones_are_told_by_their_md5(tmp_path, monkeypatch):
    home = write_cifar(tmp_path, write_python_2)
    with pytest.raises(FieldError) as info:
        CIFAR10(folder=str(tmp_path)).problem()
    got = hashlib.md5((home / "batches.meta").read_bytes()).hexdigest()
    for words in (
        f"{home}/batches.meta must have the MD5 5ff9c542aee3614f3951f8cda6e48888, got {got}",
        f"delete {home}",
        "original = False",
    ):
        assert words in str(info.value)
    assert info.value.field == "folder" and not os.listdir(tmp_path / "packed")
    pretend_published(monkeypatch, home)
    assert CIFAR10(folder=str(tmp_path)).problem() is None
    (home / "data_batch_3").unlink()
    with pytest.raises(
        FieldError,
        match=f"not there: {home}/data_batch_3; delete {home} and it is downloaded again",
    ):
        CIFAR10(folder=str(tmp_path), packs=str(tmp_path / "other")).problem()


def pretend_published(monkeypatch, home):
    """The files of `home` are what torchvision takes for the published ones."""
    published = torchvision.datasets.CIFAR10
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in home.iterdir()}
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(
            published, name, [[file, sums[file]] for file, _ in getattr(published, name)]
        )
    monkeypatch.setattr(
        published, "meta", {**published.meta, "md5": sums[published.meta["filename"]]}
    )


@pytest.fixture
def server(tmp_path):
    """Serves tmp_path/server on this machine; yields its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    (tmp_path / "server").mkdir()
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path / "server"))
    ) as serving:
        threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def test_a_set_that_is_not_there_is_downloaded(tmp_path, monkeypatch, server, capsys):
    home = write_cifar(tmp_path / "there", write_python_2)
    pretend_published(monkeypatch, home)
    archive = tmp_path / "server" / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(home, home.name)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", f"{server}/{archive.name}")
    data = CIFAR10(folder=str(tmp_path / "data"))
    with pytest.raises(FieldError, match="failed .File not found or corrupted"):
        data.problem()  # another MD5 than the published archive's
    assert os.listdir(tmp_path / "data") == []
    monkeypatch.setattr(
        torchvision.datasets.CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest()
    )
    assert data.problem() is None and f"downloading {server}" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path / "data")) == ["cifar-10-batches-py", "packed"]


def test_a_download_that_fails_or_hangs_says_what_to_do_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "PATIENCE", 0.1)
    folder = tmp_path / "data"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port, reason in ((silent.getsockname()[1], "timed out"), (1, "Connection refused")):
            url = f"http://127.0.0.1:{port}/cifar-100-python.tar.gz"
            monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", url)
            with pytest.raises(FieldError) as info:
                CIFAR100(folder=str(folder)).problem()
            hand = f"fetch that file by hand and unpack it: tar xzf cifar-100-python.tar.gz -C {folder}"
            for words in (
                f"{folder}/cifar-100-python is not there, and downloading {url} failed",
                reason,
                hand,
            ):
                assert words in str(info.value)
    assert os.listdir(folder) == [] and socket.getdefaulttimeout() is None
    with pytest.raises(
        FieldError, match="there is no cifar-100-python in .*; original = True downloads them"
    ):
        CIFAR100(folder=str(folder), original=False).problem()


def test_a_pickle_that_asks_for_more_than_arrays_is_refused_and_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    home = write_cifar(tmp_path, write_python_3(2))
    (home / "test_batch").write_bytes(
        pickle.dumps({"data": draw(10, 3072), "labels": Evil()}, protocol=2)
    )
    with pytest.raises(
        FieldError, match=f"holds {home}/test_batch, which asks for posix.system: only arrays"
    ):
        CIFAR10(folder=str(tmp_path), original=False).problem()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            {"data": draw(10, 3072).astype(float), "labels": list(range(10))},
            r"no uint8 \(n, 3072\) but float64 \(10, 3072\)",
        ),
        ({"labels": list(range(10))}, "no uint8 .* but NoneType"),
        ({"data": draw(10, 3072), "labels": [0] * 9}, "no list of 10 whole numbers"),
        ({"data": draw(10, 3072), "labels": [[0], [1, 2]] * 5}, "no list of 10 whole numbers"),
        ({"data": draw(10, 3072)}, "no list of 10 whole numbers"),
        ({"data": np.array([{}])}, "which has an array of object"),
        ([1, 2], "a pickled list, not a dictionary"),
        (None, "no pickle that can be read"),
    ],
)
def test_a_file_that_is_no_cifar_file_is_named(tmp_path, table, words):
    home = write_cifar(tmp_path, write_python_3(2))
    (home / "test_batch").write_bytes(b"nonsense" if table is None else pickle.dumps(table))
    with pytest.raises(FieldError, match=f"{home}/test_batch.*{words}"):
        CIFAR10(folder=str(tmp_path), original=False).problem()


# ------------------------------------------------------------------------------------------------ folders of images

MODES = {
    "a.jpg": "RGB",
    "b.JPEG": "L",
    "c.png": "P",
    "deeper/d.jpeg": "CMYK",
    "e.png": "RGBA",
    "f.bmp": "1",
    "g.png": "LA",
}


def write_images(root, classes=("n01", "n02", "n03"), splits=("train", "val"), modes=MODES):
    """A photograph of odd size in every mode for every class, with a file beside them that is none."""
    number = 0
    for split in splits:
        for name in classes:
            folder = root / split / name
            (folder / "deeper").mkdir(parents=True)
            (folder / "notes.txt").write_text("no image")
            for file, mode in modes.items():
                number += 1
                height, width = np.random.default_rng(number).integers(20, 60, 2)
                Image.fromarray(draw(height, width, 3, seed=number)).convert(mode).save(
                    folder / file
                )
    return root


def test_a_folder_of_images_is_seen_as_torchvision_s_resize_and_central_crop_see_it(tmp_path):
    write_images(tmp_path)
    data = ImageFolder(folder=str(tmp_path), size=32, crop=24)
    assert data.problem() is None and data.classes == 3
    for split, name in (("train", "train"), ("test", "val")):
        theirs = torchvision.datasets.ImageFolder(tmp_path / name)
        whole, seen = [], []
        for image, _ in theirs:
            resized = tv.resize(image, 32)
            whole.append(tv.pil_to_tensor(tv.center_crop(resized, 32)))
            seen.append(tv.pil_to_tensor(tv.center_crop(resized, 24)))
        images, labels, _ = data.split(split)
        assert torch.equal(images, torch.stack(whole)) and labels.tolist() == theirs.targets
        assert torch.equal(data.seen(images), torch.stack(seen))
        assert len(images) == 21 and _packs(data)[split].names == ("n01", "n02", "n03")
    everything = ImageFolder(folder=str(tmp_path), size=32)
    assert everything.seen(images) is images


def test_the_same_content_has_the_same_key_wherever_it_lies_and_another_content_another(
    tmp_path, anew
):
    def keys(folder, **fields):
        anew()
        data = ImageFolder(folder=str(folder), size=16, **fields)
        return digest(data), key(tiny_pretrain(data=data))

    write_images(tmp_path / "a", modes={"a.png": "RGB"})
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "c")
    (tmp_path / "b" / "c" / "val").rename(tmp_path / "b" / "c" / "test")
    first = keys(tmp_path / "a")
    assert keys(tmp_path / "b" / "c", test="test", packs=str(tmp_path / "packs")) == first
    before = sorted(os.listdir(tmp_path / "a" / "packed"))
    Image.fromarray(draw(30, 30, 3)).save(tmp_path / "a" / "val" / "n01" / "a.png")  # packed again
    changed = keys(tmp_path / "a")
    assert (
        changed[0] != first[0]
        and changed[1] != first[1]
        and sorted(os.listdir(tmp_path / "a" / "packed")) == before
    )
    assert keys(tmp_path / "a", crop=8)[0] != changed[0]
    assert ImageFolder(folder=str(tmp_path / "a"), size=17).split("train").images.shape[-1] == 17
    assert len(os.listdir(tmp_path / "a" / "packed")) == 4  # another size is another pack


def test_a_truncated_photograph_is_named(tmp_path):
    write_images(tmp_path, modes={"a.jpg": "RGB"})
    path = tmp_path / "val" / "n02" / "a.jpg"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(
        FieldError,
        match=f"ImageFolder.folder holds an image that cannot be read: {path} .OSError: image file is truncated",
    ):
        ImageFolder(folder=str(tmp_path), size=16).problem()
    assert [name[:17] for name in os.listdir(tmp_path / "packed")] == ["imagefolder-train"]


def test_a_folder_of_images_that_cannot_be_used_is_told_by_its_field(tmp_path):
    root = write_images(tmp_path / "birds", modes={"a.png": "RGB"})

    def says(words, field="folder", kind=ImageFolder, **fields):
        with pytest.raises(FieldError) as info:
            kind(**{"folder": str(root), "size": 16, **fields}).problem()
        assert (
            words in str(info.value) and info.value.field == field and "\n" not in str(info.value)
        )

    says(f"got {tmp_path}/brids; did you mean {root}?", folder=str(tmp_path / "brids"))
    says(f"got 'trian'; did you mean {root}/train?", "train", train="trian")
    says(f"got 'test'; there is no test in {root}", "test", test="test")
    says(f"must be a folder in {root}, got 'val/n01/notes.txt'", "test", test="val/n01/notes.txt")
    says("a.png/deeper", folder=str(root / "val" / "n01" / "a.png" / "deeper"))
    says("must be at most size, 16, got 17", "crop", crop=17)
    says("must hold 3 values", "mean", mean=(0.5,), std=(0.5,))
    says(
        "a folder that can be written to; ",
        "packs",
        packs=str(root / "val" / "n01" / "a.png" / "packs"),
    )

    listed = tmp_path / "list.txt"
    says(f"must be there, got {listed}", "only", only=str(listed))
    listed.write_text("# birds\nn01\n\nn3 # the third\n")
    says(
        f"names classes that {root}/train does not have: n3; nearest to n3 is n03",
        "only",
        only=str(listed),
    )
    says("must name 100 classes; ", "only", kind=ImageNet100, only=str(listed))
    says("and 95 more", "only", kind=ImageNet100)
    listed.write_text("n01\nn01")
    says("must name every class once; ", "only", only=str(listed))
    listed.write_text("# none")
    says("names none", "only", only=str(listed))

    (root / "val" / "n01").rename(root / "val" / "n00")
    says("has n00", "test")
    (root / "val" / "n00").rename(root / "val" / "n01")
    (root / "train" / "n02" / "a.png").unlink()
    says(f"in n02 of {root}/train", "train")
    says(f"{root}/val/n01/deeper holds none", "train", train="val/n01/deeper")


def test_a_list_of_classes_takes_those_alone_in_the_order_of_their_names(tmp_path, anew):
    root = write_images(tmp_path / "set", modes={"a.png": "RGB"})
    listed = tmp_path / "list.txt"
    listed.write_text("n03\nn01  # comment\n")
    data = ImageFolder(folder=str(root), size=16, only=str(listed))
    assert (
        data.classes == 2
        and data.problem() is None
        and _packs(data)["test"].names == ("n01", "n03")
    )
    first = digest(data)
    listed.write_text("n03\nn02\n")
    anew()
    assert digest(data) != first


def test_imagenet_100_is_a_hundred_wordnet_ids(tmp_path):
    names = ImageNet100(folder=str(tmp_path)).wanted()
    assert len(set(names)) == 100 and all(
        len(name) == 9 and name[0] == "n" and name[1:].isdigit() for name in names
    )
    write_images(tmp_path, [*names, "n99999999"], modes={"a.png": "RGB"})
    data = ImageNet100(folder=str(tmp_path), size=8)
    assert (
        data.problem() is None
        and data.classes == 100
        and _packs(data)["train"].names == tuple(sorted(names))
    )


def test_a_refusal_names_the_binding_that_was_typed(tmp_path):
    root = write_images(tmp_path / "birds", modes={"a.png": "RGB"})
    bindings = [
        "Pretrain.data = @ImageFolder()",
        "Curve.data = @ImageFolder()",
        "ImageFolder.size = 16",
    ]
    with pytest.raises(SpecError, match=r"brids; did you mean .*birds\?.*ImageFolder.folder = "):
        load(["gin/ncl.gin"], [*bindings, f"ImageFolder.folder = '{tmp_path}/brids'"])
    (root / "val" / "n01" / "a.png").write_bytes(b"")
    with pytest.raises(
        SpecError,
        match=r"holds an image that cannot be read: .*val/n01/a.png .*ImageFolder.folder = ",
    ):
        load(["gin/ncl.gin"], [*bindings, f"ImageFolder.folder = '{root}'"])


# ------------------------------------------------------------------------------------------------ arrays


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


@pytest.mark.parametrize("write", [write_npz, write_npy, write_h5])
@pytest.mark.parametrize(
    ("shape", "channels"),
    [((12, 5, 6), 1), ((12, 5, 6, 3), 3), ((12, 3, 5, 6), 3), ((12, 5, 6, 1), 1)],
)
def test_arrays_of_every_layout_are_taken(tmp_path, write, shape, channels):
    images, labels = draw(*shape), np.arange(12, dtype=np.uint8) % 4
    train = write(tmp_path / "train", images=images, labels=labels)
    test = write(tmp_path / "test", images=images[::-1], labels=labels[::-1])
    data = Arrays(train=train, test=test, mean=(0.5,) * channels, std=(0.5,) * channels)
    assert data.problem() is None and data.classes == 4
    expected = (
        images.reshape(12, 1, 5, 6)
        if channels == 1
        else images
        if shape[1] == 3
        else np.moveaxis(images, -1, 1)
    )
    assert np.array_equal(data.split("train").images.numpy(), expected)
    assert np.array_equal(data.split("test").images.numpy(), expected[::-1])
    assert data.split("test").labels.tolist() == labels[::-1].tolist()


GREY = {"images": draw(6, 4, 4), "labels": np.arange(6) % 3}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (
            {"x_train": GREY["images"], "labels": GREY["labels"]},
            r"has no images but \['labels', 'x_train'\]",
        ),
        ({**GREY, "images": GREY["images"] / 255}, "images of float64; they must be uint8"),
        (
            {**GREY, "labels": GREY["labels"][:5]},
            r"images are uint8 \(6, 4, 4\), labels int64 \(5,\)",
        ),
        ({**GREY, "labels": GREY["labels"] / 2}, "labels float64"),
        ({**GREY, "images": np.uint8(3)}, r"images are uint8 \(\)"),
        (
            {"images": GREY["images"][:0], "labels": GREY["labels"][:0]},
            "must hold a label for every image, and some",
        ),
        ({**GREY, "labels": GREY["labels"].astype(object)}, "holds no plain arrays"),
        ({**GREY, "images": draw(6, 4, 4, 3)}, r"neither does the shape have, got \(6, 4, 4, 3\)"),
        ({**GREY, "images": draw(6, 1, 4, 1)}, "both the second and the last"),
    ],
)
def test_arrays_that_cannot_be_used_are_described(tmp_path, arrays, words):
    good, bad = write_npz(tmp_path / "train", **GREY), write_npz(tmp_path / "test", **arrays)
    with pytest.raises(FieldError, match=f"Arrays.test .*{words}"):
        data = Arrays(train=good, test=bad, mean=(0.5,), std=(0.5,))
        data.refuse("test", str(data.problem()))  # found in what was packed


def test_files_that_hold_no_arrays_are_named(tmp_path):
    good = write_npz(tmp_path / "train", **GREY)
    (tmp_path / "a.npz").write_bytes(b"PK nonsense")
    (tmp_path / "a.mat").touch()
    (tmp_path / "a").mkdir()
    valid = {
        "a.npz": "holds no plain arrays",
        "a.mat": "must be an .npz",
        "a": "not there: .*images.npy, ",
        "tarin.npz": "did you mean .*train.npz",
    }
    for name, words in valid.items():
        with pytest.raises(FieldError, match=f"Arrays.test .*{words}"):
            Arrays(train=good, test=str(tmp_path / name), mean=(0.5,), std=(0.5,)).problem()


@pytest.mark.skipif(importlib.util.find_spec("h5py") is not None, reason="h5py is installed")
def test_without_h5py_an_hdf5_file_says_what_it_needs(tmp_path):
    (tmp_path / "a.h5").touch()
    with pytest.raises(
        FieldError, match="Arrays.train is an HDF5 file, .*a.h5, which needs h5py: pip install h5py"
    ):
        Arrays(
            train=str(tmp_path / "a.h5"), test=str(tmp_path / "a.h5"), mean=(0.5,), std=(0.5,)
        ).problem()


def test_slips_with_packed_sets_are_said_in_a_line(tmp_path):
    good = write_npz(tmp_path / "train", **GREY)
    np.save(tmp_path / "b", np.zeros(3))
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    with pytest.raises(FieldError, match=r"Arrays.test holds no plain arrays: .*b.npz is no .npz"):
        Arrays(train=good, test=str(tmp_path / "b.npz"), mean=(0.5,), std=(0.5,)).problem()
    with pytest.raises(
        FieldError, match=r"Arrays.test must be of other images than the training split"
    ):
        Arrays(train=good, test=good, mean=(0.5,), std=(0.5,)).problem()
    many = np.full(len(GREY["labels"]), 3)
    many[0] = 10**12
    far = write_npz(tmp_path / "far", images=GREY["images"], labels=many)
    other = write_npz(tmp_path / "other", images=GREY["images"][:2], labels=many[1:3])
    assert (
        "has none of [0, 1, 2, 4, 5, 6]"
        in Arrays(train=far, test=other, mean=(0.5,), std=(0.5,)).problem()
    )
    small = write_npz(tmp_path / "small", images=GREY["images"][:, :2], labels=GREY["labels"])
    assert (
        "images of one size in both splits"
        in Arrays(train=good, test=small, mean=(0.5,), std=(0.5,)).problem()
    )
    (tmp_path / "cifar-100-python").mkdir()
    (tmp_path / "folder" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "words").write_bytes(bytes(range(128, 200)))
    inner = str(tmp_path / "cifar-100-python")
    with pytest.raises(
        FieldError,
        match=f"CIFAR100.folder must be the folder that cifar-100-python is in, {tmp_path}, got {inner}",
    ):
        CIFAR100(folder=inner, original=False).problem()
    for only in ("words", "folder"):
        with pytest.raises(
            FieldError, match=r"ImageFolder.only must be a text file with a class a line"
        ):
            ImageFolder(folder=str(tmp_path / "folder"), only=str(tmp_path / only)).problem()
