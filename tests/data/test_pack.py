"""Packs: whole or absent, made once, made again when what they are made of changes, never read into memory."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from monosem.core.files import lock
from monosem.data import pack
from monosem.data.pack import PackError, PlaceError, Source, fingerprint, packed

IMAGES = np.random.default_rng(0).integers(0, 256, (70, 3, 4, 5), dtype=np.uint8)
LABELS = np.arange(70) % 7


def source(images=IMAGES, labels=LABELS):
    return Source(images, lambda block: block, labels, images.shape[1:], ("a", "b"))


def photographs(folder: Path, n: int) -> list[str]:
    """n JPEG files of odd sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(n)
    for number in range(n):
        height, width = draw.integers(9, 40, 2)
        Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(
            folder / f"{number:04d}.jpg"
        )
    return sorted(map(str, folder.iterdir()))


def pictures(paths: list[str]) -> Source:
    return Source(
        paths, functools.partial(pack.squares, size=8), [0] * len(paths), (3, 8, 8), pool=True
    )


def never():
    raise AssertionError("nothing was to be packed")


def test_a_pack_holds_what_it_was_made_of_and_is_made_once(tmp_path):
    made = packed(tmp_path / "p", "x", source)
    again = packed(tmp_path / "p", "x", never)
    for each in (made, again):
        assert (
            np.array_equal(each.images.numpy(), IMAGES)
            and each.labels.tolist() == LABELS.tolist()
            and each.names == ("a", "b")
        )
    assert made.digest == again.digest and os.listdir(tmp_path) == ["p"]


def test_the_digest_is_that_of_pixels_and_labels_wherever_they_come_from(tmp_path):
    digests = [
        packed(tmp_path / name, name, functools.partial(source, images, labels)).digest
        for name, images, labels in (
            ("a", IMAGES, LABELS), ("b", IMAGES, LABELS), ("c", IMAGES ^ 1, LABELS), ("d", IMAGES, LABELS + 1),
            ("e", IMAGES.reshape(70, 3, 5, 4), LABELS),
        )
    ]  # fmt: skip
    assert digests[0] == digests[1] and len(set(digests)) == 4


def test_a_source_that_has_changed_is_packed_again(tmp_path, capsys):
    old = packed(tmp_path / "p", "x", source)
    new = packed(tmp_path / "p", "y", functools.partial(source, IMAGES[:10], LABELS[:10]))
    assert len(new.images) == 10 and "packing again" in capsys.readouterr().err
    assert np.array_equal(old.images.numpy(), IMAGES)  # whoever has the old one open keeps it


def test_a_fingerprint_changes_with_names_sizes_times_and_options_and_not_with_the_place(tmp_path):
    def of(folder, *options):
        return fingerprint(str(folder), sorted(map(str, folder.rglob("*.*"))), *options)

    photographs(tmp_path / "a", 2)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first = of(tmp_path / "a", 8)
    assert first == of(tmp_path / "b", 8) != of(tmp_path / "a", 9)
    os.utime(tmp_path / "b" / "0000.jpg", (1, 1))
    assert of(tmp_path / "b", 8) != first
    (tmp_path / "a" / "0000.jpg").rename(tmp_path / "a" / "0002.jpg")
    assert of(tmp_path / "a", 8) != first


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
@pytest.mark.parametrize("damage", ["flip", "cut", "lose"])
def test_a_damaged_pack_is_told_with_the_next_step(tmp_path, name, damage):
    packed(tmp_path / "p", "x", source)
    path = tmp_path / "p" / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    if damage == "lose":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[:-3])
    with pytest.raises(PackError) as info:
        packed(tmp_path / "p", "x", never)
    valid = str(info.value)
    assert (
        str(path) in valid
        and f"delete {tmp_path / 'p'} and it is packed again" in valid
        and "\n" not in valid
    )
    assert damage == "lose" or len(set(re.findall(r"[0-9a-f]{64}", valid))) == 2  # expected and got
    shutil.rmtree(tmp_path / "p")
    assert len(packed(tmp_path / "p", "x", source).images) == 70


def test_checksums_are_read_again_only_of_files_that_were_touched_and_then_not_again(
    tmp_path, monkeypatch
):
    packed(tmp_path / "p", "x", source)
    read = []
    monkeypatch.setattr(pack, "file_digest", lambda path: read.append(path.name) or real(path))
    packed(tmp_path / "p", "x", never)
    assert read == []
    shutil.copytree(tmp_path / "p", tmp_path / "q", copy_function=shutil.copyfile)
    for _ in range(2):
        packed(tmp_path / "q", "x", never)
    assert sorted(read) == ["images.npy", "labels.npy"]


real = pack.file_digest


def test_a_folder_that_is_no_pack_is_left_alone(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "thesis.tex").write_text("years")
    with pytest.raises(PackError, match="has a pack that cannot be read"):
        packed(tmp_path / "p", "x", source)
    assert (tmp_path / "p" / "thesis.tex").exists()


def test_a_place_that_cannot_be_written_to_or_is_too_small_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(
        PlaceError, match="a folder that can be written to; .*file cannot: Not a directory"
    ):
        packed(tmp_path / "file" / "p", "x", source)
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(PlaceError, match=r"room for 4.76e-06 GB of packed images; .* has 1e-07"):
        packed(tmp_path / "p", "x", source)
    assert os.listdir(tmp_path) == ["file"]


def test_a_pack_in_a_folder_that_cannot_be_written_to_is_read(tmp_path, monkeypatch):
    made = packed(tmp_path / "p", "x", source)
    monkeypatch.setattr(pack, "held", never)
    assert packed(tmp_path / "p", "x", never).digest == made.digest


@pytest.mark.skipif(
    not os.path.exists("/proc/self/smaps"), reason="only Linux says what of a map is in memory"
)
def test_a_pack_is_mapped_and_not_read_into_memory(tmp_path):
    packed(
        tmp_path / "p",
        "x",
        lambda: source(np.zeros((256, 3, 128, 128), dtype=np.uint8), np.arange(256) % 7),
    )  # 12 MB
    code = f"""
from pathlib import Path
from monosem.pack import packed
images = packed(Path({str(tmp_path / "p")!r}), "x", None).images
def resident():
    lines = Path("/proc/self/smaps").read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.endswith("images.npy"))
    return lines[at].split()[1], next(int(line.split()[1]) for line in lines[at:] if line.startswith("Rss:"))
(rights, before), total, (_, after) = resident(), int(images.sum()), resident()
print(rights, before, after, total)
"""
    out = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    rights, before, after, total = out.stdout.split()
    assert (
        rights.startswith("r--") and int(before) < 1000 and int(after) > 12000 and total == "0"
    ), out.stdout


# ------------------------------------------------------------------------------------------------ decoding


def test_processes_decode_what_this_process_would(tmp_path, monkeypatch):
    paths = photographs(tmp_path / "a", pack.FEW + 5)
    many = packed(tmp_path / "p", "x", lambda: pictures(paths)).images
    assert np.array_equal(many.numpy(), pack.squares(paths, 8))


@pytest.mark.parametrize("n", [3, pack.FEW + 5])
def test_an_image_that_cannot_be_read_is_named_and_leaves_nothing(tmp_path, n):
    paths = photographs(tmp_path / "a", n)
    Path(paths[-1]).write_bytes(Path(paths[-1]).read_bytes()[:-40])
    with pytest.raises(PackError, match=f"cannot be read: {paths[-1]} .OSError: .*truncated"):
        packed(tmp_path / "p", "x", lambda: pictures(paths))
    assert os.listdir(tmp_path) == ["a"]


PACK = """
import functools, sys
from pathlib import Path
from monosem import pack
if __name__ == "__main__":
    folder, started, n = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    paths = sorted(map(str, (folder / "a").iterdir()))[:n]
    started.touch()
    read = functools.partial(pack.squares, size=8)
    print(pack.packed(folder / "p", "x", lambda: pack.Source(paths, read, [0] * n, (3, 8, 8), pool=True)).digest)
"""


def packing(tmp_path: Path, n: int) -> subprocess.Popen[str]:
    """A process, in a group of its own, that packs n images of tmp_path/a into tmp_path/p; it is past its imports."""
    script, started = tmp_path / "script.py", tmp_path / "started"
    script.write_text(PACK)
    arguments = [sys.executable, str(script), str(tmp_path), str(started), str(n)]
    environment, pipe = {**os.environ, "PYTHONPATH": str(ROOT)}, subprocess.PIPE
    process = subprocess.Popen(
        arguments, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    wait_for(started.exists)
    return process


def wait_for(truth, seconds=20):
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_packing_that_is_cut_short_leaves_no_pack_and_no_process(tmp_path, how):
    photographs(tmp_path / "a", 200)
    for number in range(200, 20000):
        os.link(tmp_path / "a" / f"{number % 200:04d}.jpg", tmp_path / "a" / f"{number:04d}.jpg")
    process = packing(tmp_path, 20000)
    images = tmp_path / "p.partial" / "images.npy"
    wait_for(lambda: images.exists() and images.stat().st_size > 8 * 8 * 3 * 20000)
    wait_for(lambda: np.load(images, mmap_mode="r").any())  # the pool is at work
    if how == "interrupted":
        os.killpg(process.pid, signal.SIGINT)  # a terminal's Ctrl+C reaches the whole group
    else:
        process.kill()
    _, err = process.communicate(timeout=20)
    wait_for(lambda: not alive(process.pid), 5)
    assert not (tmp_path / "p").exists()
    if how == "interrupted":
        assert not images.parent.exists() and err.count("KeyboardInterrupt") == 1, err
    assert (
        len(
            packed(tmp_path / "p", "x", lambda: pictures([str(tmp_path / "a" / "0000.jpg")])).images
        )
        == 1
    )  # and it goes on


def test_two_processes_pack_once(tmp_path, capsys):
    paths = photographs(tmp_path / "a", 60)
    process = packing(tmp_path, 60)
    here = packed(tmp_path / "p", "x", lambda: pictures(paths)).digest
    out, err = process.communicate(timeout=30)
    assert out.strip() == here and (err + capsys.readouterr().err).count("packing 60 images") == 1
    assert (
        json.loads((tmp_path / "p" / "pack.json").read_text())["shape"] == [60, 3, 8, 8]
        and not (tmp_path / "p.partial").exists()
    )


def test_a_folder_that_is_renamed_while_another_process_takes_it_is_made_anew(
    tmp_path, monkeypatch
):
    really, tries = os.open, []

    def late(path, *rest):
        if path == tmp_path / "x.partial" and not tries:
            path.rename(tmp_path / "x")
        tries.append(path)
        return really(path, *rest)

    monkeypatch.setattr(os, "open", late)
    with lock(tmp_path / "x.partial") as folder:
        assert folder is not None and folder.is_dir() and tries == [folder] * 2
