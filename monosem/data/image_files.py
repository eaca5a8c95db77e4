"""Image files: which files of a folder are images, and each of them as eight bits of RGB.

A file is taken as a person sees it, or refused with the reason; no image is guessed at. Pillow by
itself clips what has more than eight bits, shows the colours that transparency hides, and leaves a
photograph lying on its side.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

EXTENSIONS = (
    ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"
)  # fmt: skip
READING = ("eight bits as a person sees them", 2)  # raised where `as_rgb` changes what it gives
# What file managers, editors and storage boxes leave in folders, beside names with a dot in front.
LEFT_BEHIND = {
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "__macosx",
    "desktop.ini",
    "ehthumbs.db",
    "lost+found",
    "system volume information",
    "thumbs.db",
}
HIDDEN = "hidden"
SEVERAL_PICTURES = {"GIF", "PNG", "TIFF", "WEBP"}  # in an MPO the first is the photograph
ORIENTATION, BITS, PHOTOMETRIC = 0x0112, 258, 262  # EXIF and TIFF tags
WHITE_IS_ZERO = 0
# What undoes each EXIF orientation; 1 is upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnusableImage(ValueError):
    """An image that has no one meaning as eight bits of RGB.

    The message begins with a verb, as in "has 3 pictures": the path is put in front.
    """


# Which files


def is_hidden(name: str) -> bool:
    """Whether a file or folder is there for a program, as `.ipynb_checkpoints` or `Thumbs.db`."""
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def kind_of_file(name: str) -> str:
    """What is said of a file that is left out: `hidden`, its ending, or `without an ending`."""
    if is_hidden(name):
        return HIDDEN
    return os.path.splitext(name)[1].lower() or "without an ending"


class Listing(NamedTuple):
    """The image files of some classes.

    files: class by class; of a class, folder by folder.
    labels: of every file.
    left_out: how many files were not taken, by `kind_of_file`; a hidden folder counts once.
    """

    files: list[str]
    labels: list[int]
    left_out: Counter[str]


def list_images(place: str, names: Sequence[str]) -> Listing:
    """The images in <place>/<name>/**, in torchvision's order, links to folders followed.

    names: of the classes, by label.
    """
    listing = Listing([], [], Counter())
    for label, name in enumerate(names):
        found = images_below(os.path.join(place, name), listing.left_out)
        listing.files.extend(found)
        listing.labels.extend([label] * len(found))
    return listing


def images_below(folder: str, left_out: Counter[str]) -> list[str]:
    """The images in <folder>/**. left_out: counts the files that are no images."""
    found: dict[str, list[str]] = {}
    for root, folders, files in os.walk(folder, followlinks=True):
        left_out[HIDDEN] += sum(map(is_hidden, folders))
        folders[:] = [name for name in folders if not is_hidden(name)]
        taken = sorted(name for name in files if is_image(name) and not is_hidden(name))
        left_out.update(map(kind_of_file, set(files) - set(taken)))
        found[root] = [os.path.join(root, name) for name in taken]
    return [path for root in sorted(found) for path in found[root]]


def in_words(left_out: Counter[str]) -> str:
    """`2 hidden, 1 .txt`, the most frequent first; '' where nothing was left out."""
    kinds = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {kind}" for kind, count in kinds if count)


# What is in a file


def read_rgb(path: str) -> Image.Image:
    """The picture of a file. Raises UnusableImage, and whatever a decoder raises."""
    with warnings.catch_warnings():
        # about odd EXIF data and transparent palettes, which are frequent in ImageNet
        warnings.simplefilter("ignore")
        with Image.open(path) as opened:
            return as_rgb(opened)


def as_rgb(image: Image.Image) -> Image.Image:
    """A picture as eight bits of RGB, upright.

    More than eight bits are scaled: 65535 of 16 bits, 4095 of 12 and 1.0 of floating-point numbers
    become 255. What is transparent lies on white. CMYK and palettes become the colours they stand
    for, one bit black and white.

    Raises UnusableImage for several pictures in one file, and for numbers of which nobody knows
    what white is: whole ones of 32 bits, floating-point ones outside 0 to 1.
    """
    pictures = getattr(image, "n_frames", 1)
    if pictures > 1 and image.format in SEVERAL_PICTURES:
        raise UnusableImage(
            f"has {pictures} pictures, and an example is one: keep the one that is meant"
        )
    image.load()
    picture = _over_white(_with_eight_bits(image))
    turn = TURNS.get(_orientation(image))
    return picture if turn is None else picture.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """As EXIF numbers them; 1 where there is no EXIF, or none that can be read."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF data raise all kinds, and the picture is whole
        return 1


def _with_eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        return _scaled(image, 1.0)
    if image.mode.startswith("I;16"):
        return _scaled(image, 2.0 ** _tiff_tag(image, BITS, 16) - 1)
    if image.mode == "I":
        if image.format not in ("PNG", "PPM"):  # of these Pillow gives 16 bits
            raise UnusableImage(
                "has whole numbers of 32 bits, of which nobody knows what white is: "
                "keep it with 8 or 16 bits"
            )
        return _scaled(image, 65535.0)
    return image


def _scaled(image: Image.Image, white: float) -> Image.Image:
    """Grey of eight bits. white: the number that becomes 255."""
    values: np.ndarray[Any, Any] = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= white):  # also where one is no number
        raise UnusableImage(
            f"has numbers from {low:g} to {high:g}, of which nobody knows what white is: "
            f"keep it with numbers from 0 to {white:g}"
        )
    if _tiff_tag(image, PHOTOMETRIC, 1) == WHITE_IS_ZERO:  # Pillow turns only 8 bits
        values = white - values
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))


def _tiff_tag(image: Image.Image, tag: int, default: int) -> int:
    """The first value of a TIFF's tag; of other files the default."""
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _over_white(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    layers = image.convert("RGBA")
    if layers.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    white = Image.new("RGBA", layers.size, "white")
    return Image.alpha_composite(white, layers).convert("RGB")
