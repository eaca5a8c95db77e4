"""Folders of images: what torchvision sees, refusals by field, and processes that end."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from conftest import PATIENCE, ROOT, tiny_pretrain
from PIL import Image
from samples import random_pixels
from torchvision.transforms import functional as tv

from monosem.core.fields import FieldError
from monosem.core.identity import digest
from monosem.core.stage import key
from monosem.data.dataset import load_once
from monosem.data.packed import PackError, open_pack, open_packs
from monosem.datasets.folders import FEW, ImageFolder, ImageNet100, SquareImages, read_squares
from monosem.specs.errors import SpecError
from monosem.specs.load import load

MODES = {
    "a.jpg": "RGB",
    "b.JPEG": "L",
    "c.png": "P",
    "deeper/d.jpeg": "CMYK",
    "e.png": "RGBA",
    "f.bmp": "1",
    "g.png": "LA",
}


def write_image(path, seed, mode="RGB"):
    """An image of odd size."""
    height, width = np.random.default_rng(seed).integers(20, 60, 2)
    Image.fromarray(random_pixels(height, width, 3, seed=seed)).convert(mode).save(path)


def write_images(root, classes=("n01", "n02", "n03"), modes=MODES):
    """An image in every mode for every class and split, with a file beside them that is none."""
    seed = 0
    for split in ("train", "val"):
        for name in classes:
            folder = root / split / name
            (folder / "deeper").mkdir(parents=True)
            (folder / "notes.txt").write_text("no image")
            for file, mode in modes.items():
                write_image(folder / file, seed, mode)
                seed += 1
    return root


ONE_EACH = {"a.png": "RGB"}


@pytest.fixture
def anew():
    """Forgets what this process has opened, as another process would not know it."""

    def forget():
        for cache in (open_packs, load_once, key):
            cache.cache_clear()

    forget()
    return forget


@pytest.mark.parametrize(("split", "name"), [("train", "train"), ("test", "val")])
def test_images_are_torchvision_s_resize_and_central_crop(tmp_path, split, name):
    write_images(tmp_path)
    data = ImageFolder(folder=str(tmp_path), size=32, crop=24)
    theirs = torchvision.datasets.ImageFolder(tmp_path / name)
    resized = [tv.resize(image, 32) for image, _ in theirs]
    whole = torch.stack([tv.pil_to_tensor(tv.center_crop(image, 32)) for image in resized])
    central = torch.stack([tv.pil_to_tensor(tv.center_crop(image, 24)) for image in resized])
    examples = data.split(split)
    assert torch.equal(examples.inputs, whole)
    assert torch.equal(data.crop_for_evaluation(examples.inputs), central)
    assert examples.labels.tolist() == theirs.targets
    assert open_packs(data)[split].class_names == ("n01", "n02", "n03")


def test_without_a_crop_an_evaluation_sees_all_of_an_image(tmp_path):
    images = torch.zeros(2, 3, 32, 32)
    assert ImageFolder(folder=str(tmp_path), size=32).crop_for_evaluation(images) is images


def test_a_folder_of_images_has_no_problem(tmp_path):
    data = ImageFolder(folder=str(write_images(tmp_path)), size=32, crop=24)
    assert data.problem() is None
    assert data.classes == 3


def keys_of(folder, **fields):
    data = ImageFolder(folder=str(folder), size=16, **fields)
    return digest(data), key(tiny_pretrain(data=data))


def test_the_same_content_has_the_same_key_wherever_it_lies(tmp_path, anew):
    write_images(tmp_path / "a", modes=ONE_EACH)
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "c")
    (tmp_path / "b" / "c" / "val").rename(tmp_path / "b" / "c" / "test")
    here = keys_of(tmp_path / "a")
    anew()
    there = keys_of(tmp_path / "b" / "c", test="test", packs=str(tmp_path / "packs"))
    assert there == here


def test_another_content_has_another_key_and_is_packed_into_the_same_place(tmp_path, anew):
    write_images(tmp_path, modes=ONE_EACH)
    before = keys_of(tmp_path)
    places = sorted(os.listdir(tmp_path / "packed"))
    write_image(tmp_path / "val" / "n01" / "a.png", seed=99)
    anew()
    after = keys_of(tmp_path)
    assert after[0] != before[0]
    assert after[1] != before[1]
    assert sorted(os.listdir(tmp_path / "packed")) == places


def test_another_size_is_another_pack_and_another_crop_another_key(tmp_path, anew):
    write_images(tmp_path, modes=ONE_EACH)
    assert keys_of(tmp_path)[0] != keys_of(tmp_path, crop=8)[0]
    assert len(os.listdir(tmp_path / "packed")) == 2
    larger = ImageFolder(folder=str(tmp_path), size=17)
    assert larger.split("train").inputs.shape[-1] == 17
    assert len(os.listdir(tmp_path / "packed")) == 4


def test_a_truncated_image_is_named_by_the_field_and_only_its_split_is_not_packed(tmp_path):
    write_images(tmp_path, modes={"a.jpg": "RGB"})
    path = tmp_path / "val" / "n02" / "a.jpg"
    path.write_bytes(path.read_bytes()[:-50])
    message = f"ImageFolder.folder holds an image that cannot be read: {path} .OSError: image file"
    with pytest.raises(FieldError, match=message):
        ImageFolder(folder=str(tmp_path), size=16).problem()
    assert [name[:17] for name in os.listdir(tmp_path / "packed")] == ["imagefolder-train"]


@pytest.fixture
def birds(tmp_path):
    return write_images(tmp_path / "birds", modes=ONE_EACH)


def refusal(field, dataset=ImageFolder, **fields):
    """What is said of a field, in one line."""
    with pytest.raises(FieldError) as info:
        dataset(**{"size": 16, **fields}).problem()
    assert info.value.field == field
    assert "\n" not in str(info.value)
    return str(info.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("folder", "{home}/brids", "got {home}/brids; did you mean {home}/birds?"),
        ("folder", "{home}/birds/val/n01/a.png/deeper", "a.png/deeper"),
        ("train", "trian", "got 'trian'; did you mean {home}/birds/train?"),
        ("train", "val/n01/deeper", "{home}/birds/val/n01/deeper holds none"),
        ("test", "test", "got 'test'; there is no test in {home}/birds"),
        ("test", "val/n01/notes.txt", "must be a folder in {home}/birds, got 'val/n01/notes.txt'"),
        ("crop", 17, "must be at most size, 16, got 17"),
        ("packs", "{home}/birds/val/n01/a.png/packs", "a folder that can be written to; "),
    ],
)
def test_a_field_that_cannot_be_used_is_refused(tmp_path, birds, field, value, message):
    if isinstance(value, str):
        value = value.format(home=tmp_path)
    assert message.format(home=tmp_path) in refusal(field, **{"folder": str(birds), field: value})


def test_constants_of_another_number_of_channels_are_refused(birds):
    assert "must hold 3 values" in refusal("mean", folder=str(birds), mean=(0.5,), std=(0.5,))


def test_a_class_that_the_training_split_does_not_have_is_refused(birds):
    (birds / "val" / "n01").rename(birds / "val" / "n00")
    assert f"{birds}/val has n00" in refusal("test", folder=str(birds))


def test_a_class_without_images_is_refused(birds):
    (birds / "train" / "n02" / "a.png").unlink()
    assert f"in n02 of {birds}/train" in refusal("train", folder=str(birds))


@pytest.fixture
def classes(tmp_path):
    """A file that lists classes."""
    return tmp_path / "classes.txt"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# birds\nn01\n\nn3 # the third\n", "does not have: n3; nearest to n3 is n03"),
        (b"n01\nn01", "must name every class once; "),
        (b"# none", "names none"),
        (bytes(range(128, 200)), "must be a text file with a class a line"),
        (None, "must be there, got "),
    ],
)
def test_a_list_of_classes_that_cannot_be_used_is_refused(birds, classes, content, message):
    if content is not None:
        classes.write_bytes(content)
    assert message in refusal("only", folder=str(birds), only=str(classes))


def test_a_folder_instead_of_a_list_of_classes_is_refused(birds):
    message = refusal("only", folder=str(birds), only=str(birds))
    assert "must be a text file with a class a line" in message


def test_a_list_takes_its_classes_alone_in_the_order_of_their_names(birds, classes):
    classes.write_text("n03\nn01  # comment\n")
    data = ImageFolder(folder=str(birds), size=16, only=str(classes))
    assert data.problem() is None
    assert data.classes == 2
    assert data.class_names == ("n01", "n03")


def test_another_list_is_another_content(birds, classes, anew):
    data = ImageFolder(folder=str(birds), size=16, only=str(classes))
    classes.write_text("n03\nn01\n")
    before = digest(data)
    classes.write_text("n03\nn02\n")
    anew()
    assert digest(data) != before


def test_imagenet_100_is_a_hundred_wordnet_ids(tmp_path):
    names = ImageNet100(folder=str(tmp_path)).listed_classes()
    assert len(set(names)) == 100
    for name in names:
        assert len(name) == 9
        assert name[0] == "n"
        assert name[1:].isdigit()


def test_imagenet_100_leaves_the_other_classes_out(tmp_path):
    names = ImageNet100(folder=str(tmp_path)).listed_classes()
    write_images(tmp_path, [*names, "n99999999"], modes=ONE_EACH)
    data = ImageNet100(folder=str(tmp_path), size=8)
    assert data.problem() is None
    assert data.classes == 100
    assert data.class_names == tuple(sorted(names))


def test_imagenet_100_without_its_classes_names_the_first_few(birds):
    assert "and 95 more" in refusal("only", ImageNet100, folder=str(birds))


def test_imagenet_100_wants_a_list_of_a_hundred(birds, classes):
    classes.write_text("n01")
    message = refusal("only", ImageNet100, folder=str(birds), only=str(classes))
    assert f"must name 100 classes; {classes} names 1" in message


BINDINGS = [
    "Pretrain.data = @ImageFolder()",
    "Curve.data = @ImageFolder()",
    "ImageFolder.size = 16",
]


def test_a_refusal_names_the_binding_that_was_typed(tmp_path, birds):
    with pytest.raises(SpecError, match=r"brids; did you mean .*birds\?.*ImageFolder.folder = "):
        load(["gin/ncl.gin"], [*BINDINGS, f"ImageFolder.folder = '{tmp_path}/brids'"])


def test_an_image_that_cannot_be_read_names_the_binding_that_was_typed(birds):
    (birds / "val" / "n01" / "a.png").write_bytes(b"")
    message = r"holds an image that cannot be read: .*val/n01/a.png .*ImageFolder.folder = "
    with pytest.raises(SpecError, match=message):
        load(["gin/ncl.gin"], [*BINDINGS, f"ImageFolder.folder = '{birds}'"])


MANY = FEW + 5  # images that are decoded by other processes


def photographs(folder, count):
    folder.mkdir()
    for index in range(count):
        write_image(folder / f"{index:04d}.jpg", seed=index)
    return sorted(map(str, folder.iterdir()))


def stream_of(paths, size=8):
    return read_squares(paths, [0] * len(paths), size, ())


def test_processes_decode_what_this_process_would_in_order(tmp_path):
    paths = photographs(tmp_path / "a", MANY)
    pack = open_pack(tmp_path / "p", "x", lambda: stream_of(paths))
    expected = np.stack(list(map(SquareImages(paths, 8).__getitem__, range(MANY))))
    assert np.array_equal(pack.inputs.numpy(), expected)


def test_packing_leaves_the_global_generator_alone(tmp_path):
    paths = photographs(tmp_path / "a", MANY)
    state = torch.get_rng_state()
    open_pack(tmp_path / "p", "x", lambda: stream_of(paths))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("count", [3, MANY], ids=["in this process", "in others"])
def test_an_image_that_cannot_be_read_is_named_and_leaves_nothing(tmp_path, count):
    paths = photographs(tmp_path / "a", count)
    last = Path(paths[-1])
    last.write_bytes(last.read_bytes()[:-40])
    with pytest.raises(PackError, match=f"cannot be read: {last} .OSError: .*truncated") as info:
        open_pack(tmp_path / "p", "x", lambda: stream_of(paths))
    assert "\n" not in str(info.value)
    assert os.listdir(tmp_path) == ["a"]


def test_a_process_that_is_killed_while_it_decodes_is_told_and_leaves_nothing(
    tmp_path, monkeypatch
):
    really_get = SquareImages.__getitem__

    def killed_at_the_end(self, index):
        if index == MANY - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return really_get(self, index)

    paths = photographs(tmp_path / "a", MANY)
    monkeypatch.setattr(SquareImages, "__getitem__", killed_at_the_end)
    with pytest.raises(PackError, match="cannot be packed: .* was killed .is there enough") as info:
        open_pack(tmp_path / "p", "x", lambda: stream_of(paths))
    assert "\n" not in str(info.value)
    assert os.listdir(tmp_path) == ["a"]


def pack_elsewhere(folder, paths, started, answer):
    """In another process: packs, and sends the digest."""

    def read():
        started.set()
        return stream_of(paths)

    answer.send(open_pack(folder, "x", read).digest)


def test_two_processes_pack_once(tmp_path, capfd):
    paths = photographs(tmp_path / "a", 60)
    context = multiprocessing.get_context("fork")
    started = context.Event()
    answer, question = context.Pipe(duplex=False)
    arguments = (tmp_path / "p", paths, started, question)
    process = context.Process(target=pack_elsewhere, args=arguments)
    process.start()
    started.wait()
    here = open_pack(tmp_path / "p", "x", lambda: stream_of(paths)).digest
    assert answer.recv() == here
    process.join()
    assert capfd.readouterr().err.count("packing 60 images") == 1
    assert sorted(os.listdir(tmp_path)) == ["a", "p"]


ENDLESS = """
import signal, sys
from pathlib import Path
from monosem.datasets.folders import read_squares
from monosem.data.packed import open_pack

if __name__ == "__main__":
    # the shell that started the tests may ignore it, which a child inherits
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(sys.argv[1])
    paths = sorted(map(str, (folder / "a").iterdir())) * 200 + [str(folder / "pipe")]
    open_pack(folder / "p", "x", lambda: read_squares(paths, [0] * len(paths), 64, ()))
"""


def wait_for(truth):
    end = time.monotonic() + 60
    while not truth():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def is_alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def endless_packing(tmp_path):
    """A process, the first of its own group, that packs images; some are decoded.

    It will not end, as the last image is a pipe into which nobody writes. A block of images is more
    than a pipe between processes holds.
    """
    photographs(tmp_path / "a", 100)
    os.mkfifo(tmp_path / "pipe")
    script = tmp_path / "script.py"
    script.write_text(ENDLESS)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    images = tmp_path / "p.partial" / "images.npy"
    full_size = 20_001 * 3 * 64 * 64
    wait_for(lambda: images.exists() and images.stat().st_size > full_size)
    wait_for(lambda: np.load(images, mmap_mode="r")[:1000].any())
    yield process
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_packing_that_is_interrupted_leaves_no_pack_and_no_process(tmp_path, endless_packing):
    os.killpg(endless_packing.pid, signal.SIGINT)  # a terminal's Ctrl+C reaches the whole group
    _, err = endless_packing.communicate(timeout=PATIENCE)
    wait_for(lambda: not is_alive(endless_packing.pid))
    assert err.count("KeyboardInterrupt") == 1, err
    assert not (tmp_path / "p").exists()
    assert not (tmp_path / "p.partial").exists()


@pytest.mark.slow
def test_packing_that_is_killed_leaves_no_pack_and_no_process_and_goes_on(
    tmp_path, endless_packing
):
    endless_packing.kill()
    endless_packing.communicate(timeout=PATIENCE)
    wait_for(lambda: not is_alive(endless_packing.pid))
    assert not (tmp_path / "p").exists()
    paths = [str(tmp_path / "a" / "0000.jpg")]
    assert len(open_pack(tmp_path / "p", "x", lambda: stream_of(paths)).inputs) == 1
    assert not (tmp_path / "p.partial").exists()
