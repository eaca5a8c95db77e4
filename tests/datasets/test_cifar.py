"""CIFAR sets as their author and as others write them: read, downloaded, refused."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import pickle
import socket
import tarfile
import threading

import numpy as np
import pytest
import torchvision
from samples import random_pixels

from monosem.core.fields import FieldError
from monosem.data.packed import open_packs
from monosem.datasets import cifar
from monosem.datasets.cifar import CIFAR10, CIFAR100


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 wrote: words are plain bytes, and numpy lives in its old home."""

    def write_text(self, text):
        if isinstance(text, str):
            text = text.encode().replace(b"numpy._core", b"numpy.core")
        self.write(pickle.BINSTRING + len(text).to_bytes(4, "little") + text)

    dispatch = {**pickle._Pickler.dispatch, bytes: write_text, str: write_text}  # noqa: RUF012


def write_python_2(path, table):
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(table)
    written = path.read_bytes()
    path.write_bytes(written.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))


def write_python_3(protocol):
    return lambda path, table: path.write_bytes(pickle.dumps(table, protocol=protocol))


def write_cifar(root, write, dataset=CIFAR10):
    """A small set in the files that the published one has: a row of each class in every file."""
    published = dataset().published()
    home = root / published.base_folder
    home.mkdir(parents=True)
    classes = 10 if dataset is CIFAR10 else 100
    names = [f"class {label}" for label in range(classes)]
    write(home / published.meta["filename"], {published.meta["key"]: names})
    for seed, (file, _) in enumerate([*published.train_list, *published.test_list]):
        table = {"batch_label": "one", "data": random_pixels(classes, 3072, seed=seed)}
        if dataset is CIFAR10:
            table["labels"] = list(range(classes))
        else:
            table["fine_labels"] = list(range(classes))
            table["coarse_labels"] = [0] * classes
        table["filenames"] = ["a.png"] * classes
        write(home / file, table)
    return home


def pretend_published(monkeypatch, home, dataset=torchvision.datasets.CIFAR10):
    """The files of `home` are what torchvision takes for the published ones."""
    checksums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in home.iterdir()}
    for name in ("train_list", "test_list"):
        files = [[file, checksums[file]] for file, _ in getattr(dataset, name)]
        monkeypatch.setattr(dataset, name, files)
    meta = {**dataset.meta, "md5": checksums[dataset.meta["filename"]]}
    monkeypatch.setattr(dataset, "meta", meta)


def refusal(data):
    """What is said of a dataset that cannot be used: one line."""
    with pytest.raises(FieldError) as info:
        data.problem()
    assert info.value.field == "folder"
    assert "\n" not in str(info.value)
    return str(info.value)


@pytest.mark.parametrize("dataset", [CIFAR10, CIFAR100])
@pytest.mark.parametrize(
    "write", [write_python_2, *map(write_python_3, (2, 4, 5))], ids=["python 2", "2", "4", "5"]
)
def test_a_set_is_the_same_whether_torchvision_reads_it_or_not(
    tmp_path, monkeypatch, dataset, write
):
    home = write_cifar(tmp_path, write, dataset)
    lookalike = dataset(folder=str(tmp_path), original=False)
    assert lookalike.problem() is None
    assert lookalike.classes == (10 if dataset is CIFAR10 else 100)
    pretend_published(monkeypatch, home, dataset().published())
    original = dataset(folder=str(tmp_path))
    for split in ("train", "test"):
        theirs = dataset().published()(tmp_path, train=split == "train")
        for data in (original, lookalike):
            pixels = data.split(split).inputs.permute(0, 2, 3, 1)
            assert np.array_equal(pixels.numpy(), theirs.data)
            assert data.split(split).labels.tolist() == theirs.targets
            assert list(open_packs(data)[split].class_names) == theirs.classes
    assert original.content() == lookalike.content()


def test_a_set_without_the_names_of_its_classes_numbers_them(tmp_path):
    home = write_cifar(tmp_path, write_python_3(2))
    (home / "batches.meta").unlink()
    assert CIFAR10(folder=str(tmp_path), original=False).class_names == tuple("0123456789")


def test_files_that_are_not_the_published_ones_are_told_by_their_md5(tmp_path):
    home = write_cifar(tmp_path, write_python_2)
    checksum = hashlib.md5((home / "batches.meta").read_bytes()).hexdigest()
    message = refusal(CIFAR10(folder=str(tmp_path)))
    expected = "5ff9c542aee3614f3951f8cda6e48888"
    assert f"{home}/batches.meta must have the MD5 {expected}, got {checksum}" in message
    assert f"delete {home}" in message
    assert "original = False" in message
    assert os.listdir(tmp_path / "packed") == []


def test_files_that_are_not_the_published_ones_are_not_unpickled(tmp_path):
    home = write_cifar(tmp_path, write_python_3(2))
    marker = tmp_path / "ran"
    (home / "test_batch").write_bytes(pickle.dumps({"data": Touch(marker)}))
    assert f"{home}/batches.meta must have the MD5" in refusal(CIFAR10(folder=str(tmp_path)))
    assert not marker.exists()


def test_a_file_that_is_missing_is_named(tmp_path, monkeypatch):
    home = write_cifar(tmp_path, write_python_2)
    pretend_published(monkeypatch, home)
    (home / "data_batch_3").unlink()
    message = refusal(CIFAR10(folder=str(tmp_path)))
    assert f"not there: {home}/data_batch_3; delete {home} and it is downloaded again" in message
    message = refusal(CIFAR10(folder=str(tmp_path), original=False))
    assert message.endswith(f"not there: {home}/data_batch_3")


def test_the_folder_of_the_files_instead_of_the_one_around_it_is_refused(tmp_path):
    inner = tmp_path / "cifar-100-python"
    inner.mkdir()
    message = refusal(CIFAR100(folder=str(inner), original=False))
    assert f"must be the folder that cifar-100-python is in, {tmp_path}, got {inner}" in message


def test_what_is_no_published_set_is_not_downloaded(tmp_path):
    message = refusal(CIFAR100(folder=str(tmp_path), original=False))
    assert f"there is no cifar-100-python in {tmp_path}" in message
    assert "original = True downloads them" in message


@pytest.fixture
def server(tmp_path):
    """Serves tmp_path/server on this machine; gives its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    (tmp_path / "server").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "server"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


@pytest.fixture
def archive(tmp_path, monkeypatch, server):
    """A small set that torchvision takes for the published one, packed and served."""
    published = torchvision.datasets.CIFAR10
    home = write_cifar(tmp_path / "there", write_python_2)
    pretend_published(monkeypatch, home)
    archive = tmp_path / "server" / published.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(home, home.name)
    monkeypatch.setattr(published, "url", f"{server}/{archive.name}")
    monkeypatch.setattr(published, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    return archive


def test_a_set_that_is_not_there_is_downloaded(tmp_path, archive, capsys):
    folder = tmp_path / "data"
    assert CIFAR10(folder=str(folder)).problem() is None
    assert "downloading http://127.0.0.1" in capsys.readouterr().err
    assert sorted(os.listdir(folder)) == ["cifar-10-batches-py", "packed"]


def test_half_a_download_is_refused_and_leaves_nothing(tmp_path, archive):
    archive.write_bytes(archive.read_bytes()[:-1000])
    folder = tmp_path / "data"
    message = refusal(CIFAR10(folder=str(folder)))
    assert "failed (File not found or corrupted.)" in message
    assert os.listdir(folder) == []


def test_an_archive_of_other_files_is_refused_and_leaves_nothing(tmp_path, monkeypatch, archive):
    other = write_cifar(tmp_path / "other", write_python_3(2))
    pretend_published(monkeypatch, other)
    folder = tmp_path / "data"
    assert "failed (Dataset not found or corrupted" in refusal(CIFAR10(folder=str(folder)))
    assert os.listdir(folder) == []


def refused_download(folder, url):
    message = refusal(CIFAR100(folder=str(folder)))
    hand = f"fetch that file by hand and unpack it: tar xzf cifar-100-python.tar.gz -C {folder}"
    assert f"{folder}/cifar-100-python is not there, and downloading {url} failed" in message
    assert hand in message
    assert os.listdir(folder) == []
    return message


def test_without_a_network_it_is_said_what_to_do_by_hand(tmp_path, monkeypatch):
    url = "http://127.0.0.1:1/cifar-100-python.tar.gz"
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", url)
    assert "Connection refused" in refused_download(tmp_path / "data", url)


def test_a_server_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/cifar-100-python.tar.gz"
        monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", url)
        assert "timed out" in refused_download(tmp_path / "data", url)
    assert socket.getdefaulttimeout() is None


class Touch:
    """Creates a file when it is unpickled carelessly."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_asks_for_more_than_arrays_is_refused_and_does_not_run(tmp_path):
    home = write_cifar(tmp_path, write_python_3(2))
    marker = tmp_path / "ran"
    table = {"data": random_pixels(10, 3072), "labels": Touch(marker)}
    (home / "test_batch").write_bytes(pickle.dumps(table, protocol=2))
    message = refusal(CIFAR10(folder=str(tmp_path), original=False))
    assert f"holds {home}/test_batch, which asks for posix.system: only arrays" in message
    assert not marker.exists()


PIXELS, LABELS = random_pixels(10, 3072), list(range(10))


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (
            {"data": PIXELS.astype(float), "labels": LABELS},
            "no uint8 (n, 3072) but float64 (10, 3072)",
        ),
        ({"labels": LABELS}, "no uint8 (n, 3072) but NoneType"),
        ({"data": PIXELS, "labels": [0] * 9}, "no list of 10 whole numbers"),
        ({"data": PIXELS, "labels": [[0], [1, 2]] * 5}, "no list of 10 whole numbers"),
        ({"data": PIXELS}, "no list of 10 whole numbers"),
        ({"data": np.array([{}])}, "which has an array of object"),
        ([1, 2], "a pickled list, not a dictionary"),
    ],
)
def test_a_file_that_is_no_cifar_file_is_named(tmp_path, table, reason):
    home = write_cifar(tmp_path, write_python_3(2))
    (home / "test_batch").write_bytes(pickle.dumps(table))
    message = refusal(CIFAR10(folder=str(tmp_path), original=False))
    assert f"{home}/test_batch" in message
    assert reason in message


def test_a_file_that_is_no_pickle_is_named(tmp_path):
    home = write_cifar(tmp_path, write_python_3(2))
    (home / "test_batch").write_bytes(b"nonsense")
    message = refusal(CIFAR10(folder=str(tmp_path), original=False))
    assert f"holds {home}/test_batch, which is no pickle that can be read" in message
