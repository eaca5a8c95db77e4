"""Image files as a person sees them: more and fewer than eight bits, transparency, turned, moving.

The right values are worked out by hand, or by NumPy, and never by what reads the files.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from monosem.data.image_files import (
    EXTENSIONS,
    UnusableImage,
    images_below,
    in_words,
    is_hidden,
    list_images,
    read_rgb,
)

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def read(image, path, **options):
    """What becomes of a picture that is saved, (height, width, 3)."""
    image.save(path, **options)
    return np.asarray(read_rgb(str(path)))


def grey(array):
    return np.repeat(array[..., None], 3, axis=2)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bits_become_eight_where_65535_is_white(tmp_path, name):
    """Pillow by itself makes them all white."""
    deep = Image.fromarray(RAMP.astype(np.uint16) * 257)
    assert np.array_equal(read(deep, tmp_path / name), grey(RAMP))


def test_every_number_of_sixteen_bits_is_rounded_to_the_nearest_of_eight(tmp_path):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = (values.astype(int) * 2 * 255 + 65535) // (2 * 65535)
    got = read(Image.fromarray(values), tmp_path / "a.png")
    assert np.array_equal(got, grey(expected.astype(np.uint8)))


def test_big_endian_and_white_is_zero_are_read_as_they_are_meant(tmp_path):
    deep = Image.fromarray(RAMP.astype(np.uint16) * 257)
    inverted = read(deep, tmp_path / "a.tif", tiffinfo={262: 0})
    assert np.array_equal(inverted, grey(255 - RAMP))
    big = Image.frombytes("I;16B", (8, 8), (RAMP.astype(">u2") * 257).tobytes())
    assert np.array_equal(read(big, tmp_path / "b.tif"), grey(RAMP))


def test_floating_point_numbers_become_eight_bits_where_one_is_white(tmp_path):
    """Pillow by itself makes them all black."""
    image = Image.fromarray((RAMP / 255).astype(np.float32))
    assert np.array_equal(read(image, tmp_path / "a.tif"), grey(RAMP))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (RAMP.astype(np.float32), "has numbers from 0 to 252, of which nobody knows what white is"),
        (RAMP.astype(np.float32) / 255 - 0.5, "has numbers from -0.5 to"),
        (np.full((8, 8), np.nan, np.float32), "has numbers from nan to nan"),
        (RAMP.astype(np.int32), "has whole numbers of 32 bits"),
    ],
    ids=["to 252", "below 0", "nan", "int32"],
)
def test_numbers_without_a_known_white_are_refused(tmp_path, array, said):
    with pytest.raises(UnusableImage, match=said):
        read(Image.fromarray(array), tmp_path / "a.tif")


def test_one_bit_is_black_and_white(tmp_path):
    image = Image.fromarray(RAMP > 100)
    expected = grey(np.where(RAMP > 100, 255, 0).astype(np.uint8))
    for name in ("a.png", "a.bmp", "a.tif"):
        assert np.array_equal(read(image, tmp_path / name), expected)


def test_what_is_transparent_lies_on_white(tmp_path):
    """Pillow by itself shows the colour that is hidden, here red."""
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0] = (255, 0, 0, 0)
    pixels[1] = (0, 0, 200, 255)
    pixels[1, 1, 3] = 51  # a fifth of it is there
    expected = np.array([[[255] * 3] * 2, [[0, 0, 200], [204, 204, 244]]])
    assert np.array_equal(read(Image.fromarray(pixels), tmp_path / "a.png"), expected)
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), mode="P")
    palette.putpalette([255, 0, 0, 0, 0, 200])
    expected = np.array([[[255] * 3, [0, 0, 200]], [[0, 0, 200], [255] * 3]])
    for name in ("b.png", "b.gif"):
        assert np.array_equal(read(palette, tmp_path / name, transparency=0), expected)


def test_cmyk_becomes_the_colour_that_the_inks_make(tmp_path):
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[..., 0] = 255  # cyan takes the red
    got = read(Image.fromarray(inks, mode="CMYK"), tmp_path / "a.tif")
    assert np.array_equal(got, np.broadcast_to([0, 255, 255], (8, 8, 3)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_a_picture_that_exif_calls_turned_is_upright(tmp_path, name, orientation):
    """By the meaning of the numbers: where row 0 and column 0 of the stored picture belong."""
    upright = grey(np.kron(np.array([[0, 80, 160], [240, 40, 200]], np.uint8), np.ones((8, 8))))
    upright = upright.astype(np.uint8)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),  # row 0 of the stored is the right side: turned left when stored
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = read(Image.fromarray(np.ascontiguousarray(stored)), tmp_path / name, exif=exif)
    assert got.shape == upright.shape
    assert np.abs(got.astype(int) - upright).max() < 12  # a JPEG is not exact


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_several_pictures_in_one_file_are_refused_and_one_is_read(tmp_path, name):
    first, second = (Image.fromarray(grey(array)) for array in (RAMP, 255 - RAMP))
    with pytest.raises(UnusableImage, match="has 2 pictures, and an example is one"):
        read(first, tmp_path / name, save_all=True, append_images=[second])
    assert read(first, tmp_path / name).shape == (8, 8, 3)


# Which files


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


HIDDEN = ["._a.png", ".a.png", "Thumbs.db", ".ipynb_checkpoints/a.png", "@eaDir/a.png/thumb.jpg"]
CLEAN = ["b/2.png", "b/10.JPG", "b/in/1.png", "b/a/z.tiff", "a/1.webp", "c.d/1.jpeg"]


def test_images_are_torchvision_s_in_its_order_where_nothing_is_hidden(tmp_path):
    touch(tmp_path, *CLEAN, "b/notes.txt")
    names = ["a", "b", "c.d"]
    theirs = make_dataset(tmp_path, {name: i for i, name in enumerate(names)}, IMG_EXTENSIONS)
    files, labels, left_out = list_images(str(tmp_path), names)
    assert list(zip(files, labels, strict=True)) == theirs
    assert +left_out == Counter({".txt": 1})
    assert {*EXTENSIONS} == {*IMG_EXTENSIONS, ".gif"}


def test_hidden_files_and_folders_are_no_images_and_are_counted(tmp_path):
    touch(tmp_path, *(f"b/{name}" for name in HIDDEN), *CLEAN, "b/notes.txt", "b/README")
    left_out = Counter()
    files = images_below(str(tmp_path / "b"), left_out)
    assert sorted(path[len(str(tmp_path)) + 1 :] for path in files) == sorted(CLEAN[:4])
    assert in_words(left_out) == "5 hidden, 1 .txt, 1 without an ending"
    assert all(map(is_hidden, (".git", "@eaDir", "__MACOSX", "desktop.ini", "THUMBS.DB")))
    assert not any(map(is_hidden, ("a.png", "class.with.dots", "_class", "@home")))
