"""Packs: whole or absent, made once, made again when their files change, never read into memory."""

from __future__ import annotations

import functools
import os
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from samples import random_pixels

from monosem.core.files import file_digest, lock
from monosem.data import packed
from monosem.data.packed import PackError, PlaceError, Stream, fingerprint, open_pack

IMAGES = random_pixels(70, 3, 4, 5)
LABELS = np.arange(70) % 7


def stream(images=IMAGES, labels=LABELS):
    blocks = [images[:30], images[30:]]
    return Stream(labels, images.shape[1:], nullcontext(blocks), ("a", "b"))


def never():
    raise AssertionError("nothing was to be packed")


def test_a_pack_holds_what_it_was_made_of_and_is_made_once(tmp_path):
    made = open_pack(tmp_path / "p", "x", stream)
    again = open_pack(tmp_path / "p", "x", never)
    for pack in (made, again):
        assert np.array_equal(pack.inputs.numpy(), IMAGES)
        assert pack.labels.tolist() == LABELS.tolist()
        assert pack.class_names == ("a", "b")
    assert made.digest == again.digest
    assert os.listdir(tmp_path) == ["p"]


def test_the_digest_is_that_of_pixels_shapes_and_labels_wherever_they_come_from(tmp_path):
    def digest_of(name, images, labels):
        read = functools.partial(stream, images, labels)
        return open_pack(tmp_path / name, name, read).digest

    digest = digest_of("a", IMAGES, LABELS)
    assert digest_of("b", IMAGES, LABELS) == digest
    others = {
        digest_of("c", IMAGES ^ 1, LABELS),
        digest_of("d", IMAGES, LABELS + 1),
        digest_of("e", IMAGES.reshape(70, 3, 5, 4), LABELS),
    }
    assert len(others | {digest}) == 4


def test_the_digest_is_the_recorded_one(tmp_path):
    """It counts in keys: with another one, everybody computes everything anew."""
    images = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    pack = open_pack(tmp_path / "p", "x", functools.partial(stream, images, [1, 0]))
    assert pack.digest == "e8345785755fd587e19c218c38d0f1451f706e087c63448b5180d2fd5210b911"


def test_a_source_that_has_changed_is_packed_again(tmp_path, capsys):
    old = open_pack(tmp_path / "p", "x", stream)
    new = open_pack(tmp_path / "p", "y", functools.partial(stream, IMAGES[:10], LABELS[:10]))
    assert len(new.inputs) == 10
    assert "packing again" in capsys.readouterr().err
    assert np.array_equal(old.inputs.numpy(), IMAGES)  # whoever has the old one open keeps it


@pytest.fixture
def files(tmp_path):
    """A folder with two files."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "0.jpg").write_bytes(b"zero")
    (folder / "1.jpg").write_bytes(b"one")
    return folder


def fingerprint_of(folder, *options):
    return fingerprint(str(folder), sorted(map(str, folder.iterdir())), *options)


def test_a_fingerprint_does_not_change_with_the_place(files, tmp_path):
    shutil.copytree(files, tmp_path / "copy")
    assert fingerprint_of(files, 8) == fingerprint_of(tmp_path / "copy", 8)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: os.utime(folder / "0.jpg", (1, 1)),
        lambda folder: (folder / "0.jpg").rename(folder / "2.jpg"),
        lambda folder: os.truncate(folder / "0.jpg", 2),
        lambda folder: (folder / "0.jpg").unlink(),
    ],
    ids=["time", "name", "size", "gone"],
)
def test_a_fingerprint_changes_with_every_file(files, change):
    before = fingerprint_of(files, 8)
    change(files)
    assert fingerprint_of(files, 8) != before


def test_a_fingerprint_changes_with_the_options(files):
    assert fingerprint_of(files, 8) != fingerprint_of(files, 9)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
@pytest.mark.parametrize("damage", ["flip", "cut", "lose"])
def test_a_damaged_pack_is_refused_with_the_next_step(tmp_path, name, damage):
    open_pack(tmp_path / "p", "x", stream)
    path = tmp_path / "p" / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    if damage == "lose":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[:-3])
    with pytest.raises(PackError) as info:
        open_pack(tmp_path / "p", "x", never)
    message = str(info.value)
    assert str(path) in message
    assert f"delete {tmp_path / 'p'} and it is packed again" in message
    assert "\n" not in message
    checksums = set(re.findall(r"[0-9a-f]{64}", message))
    assert len(checksums) == (0 if damage == "lose" else 2)  # expected and got


def test_a_damaged_pack_that_was_deleted_is_made_again(tmp_path):
    open_pack(tmp_path / "p", "x", stream)
    shutil.rmtree(tmp_path / "p")
    assert len(open_pack(tmp_path / "p", "x", stream).inputs) == 70


def test_checksums_are_read_again_only_of_files_that_were_touched_and_then_not_again(
    tmp_path, monkeypatch
):
    names = []

    def counted(path):
        names.append(path.name)
        return file_digest(path)

    open_pack(tmp_path / "p", "x", stream)
    monkeypatch.setattr(packed, "file_digest", counted)
    open_pack(tmp_path / "p", "x", never)
    assert names == []
    shutil.copytree(tmp_path / "p", tmp_path / "q", copy_function=shutil.copyfile)
    for _ in range(2):
        open_pack(tmp_path / "q", "x", never)
    assert sorted(names) == ["images.npy", "labels.npy"]


def test_a_folder_that_is_no_pack_is_left_alone(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "thesis.tex").write_text("years")
    with pytest.raises(PackError, match="has a pack that cannot be read"):
        open_pack(tmp_path / "p", "x", stream)
    assert (tmp_path / "p" / "thesis.tex").exists()


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").touch()
    message = "a folder that can be written to; .*file cannot: Not a directory"
    with pytest.raises(PlaceError, match=message):
        open_pack(tmp_path / "file" / "p", "x", stream)


def test_a_disk_that_is_too_small_is_refused_and_nothing_is_left(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(PlaceError, match=r"room for 4.76e-06 GB of packed data; .* has 1e-07"):
        open_pack(tmp_path / "p", "x", stream)
    assert os.listdir(tmp_path) == []


def test_a_disk_that_is_full_when_room_is_taken_is_refused_and_nothing_is_left(
    tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(PlaceError, match=r"room for .* GB; .*: No space left on device"):
        open_pack(tmp_path / "p", "x", stream)
    assert os.listdir(tmp_path) == []


def test_an_error_while_images_are_read_leaves_nothing(tmp_path):
    def broken():
        yield IMAGES[:30]
        raise PackError("holds an image that cannot be read")

    def read():
        return Stream(LABELS, IMAGES.shape[1:], nullcontext(broken()))

    with pytest.raises(PackError, match="cannot be read"):
        open_pack(tmp_path / "p", "x", read)
    assert os.listdir(tmp_path) == []


def test_a_pack_in_a_folder_that_cannot_be_written_to_is_read(tmp_path, monkeypatch):
    made = open_pack(tmp_path / "p", "x", stream)
    monkeypatch.setattr(packed, "lock", never)
    assert open_pack(tmp_path / "p", "x", never).digest == made.digest


def state_of_map(path):
    """The rights and the kilobytes in memory of this process's map of a file."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    start = next(index for index, line in enumerate(lines) if line.endswith(str(path)))
    resident = next(line for line in lines[start:] if line.startswith("Rss:"))
    return lines[start].split()[1], int(resident.split()[1])


@pytest.mark.skipif(
    not os.path.exists("/proc/self/smaps"), reason="only Linux says what of a map is in memory"
)
def test_a_pack_is_mapped_and_not_read_into_memory(tmp_path):
    images = np.zeros((256, 3, 128, 128), dtype=np.uint8)  # 12 MB
    read = functools.partial(stream, images, np.arange(256) % 7)
    pack = open_pack(tmp_path / "p", "x", read)
    path = tmp_path / "p" / "images.npy"
    rights, before = state_of_map(path)
    assert rights.startswith("r--")
    assert before < 1000
    assert int(pack.inputs.sum()) == 0  # which reads all of it
    assert state_of_map(path)[1] > 12000


def test_a_folder_that_is_renamed_while_another_process_takes_it_is_made_anew(
    tmp_path, monkeypatch
):
    really_open = os.open
    tries = []

    def late_open(path, *rest):
        if path == tmp_path / "x.partial" and not tries:
            path.rename(tmp_path / "x")
        tries.append(path)
        return really_open(path, *rest)

    monkeypatch.setattr(os, "open", late_open)
    with lock(tmp_path / "x.partial") as folder:
        assert folder is not None
        assert folder.is_dir()
        assert tries == [folder] * 2
