"""The gallery: for each dimension of an encoder, the examples that activate it most.

As figure 1a of arXiv:2410.21331. Two files hold the same data: gallery.json is for programs,
gallery.html is for people and opens alone and offline. Only dictionaries are known here, one for
each encoder; see `ShownEncoderData`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monosem.core.files import write_text

ShownEncoderData = Mapping[str, Any]
"""What is shown of one encoder.

name: for people.
split: the split that the examples are from.
examples_total: how many examples the split has.
width: how many dimensions the encoder has.
classes: [name, ...]; the index is the label.
examples: [{index, label}, ...], those that are shown; index is the place in the split.
sprite: for images: {side, columns, src}, all thumbnails in one picture, cells of side x side pixels
    that follow `examples`, row by row. src is a data: address.
texts: for texts, in place of `sprite`: [text, ...], as many as `examples`.
metrics: [{name, about, better}, ...]; better is 'high', 'low' or '': the end that is monosemantic.
dimensions: [{dimension, metrics: {name: value}, top: [[place, activation], ...], active}, ...].
    top: the most activating first; place is one in `examples`.
    active: the share of the split's examples that activate the dimension.
    marks: may be left out; as many as `top`, the words that matter in each of these texts:
        [[start, end, share], ...], in characters, and the share of the activation lost without.
    A value that is None or NaN is shown as missing.
"""

TEMPLATE = Path(__file__).with_name("gallery.html")
DATA_OPENS, DATA_CLOSES = '<script type="application/json" id="data">', "</script>"

NEEDED = frozenset(
    ("name", "split", "examples_total", "width", "classes", "examples", "metrics", "dimensions")
)
INLINE_PICTURE = re.compile(r"data:image/[a-z]+;base64,[A-Za-z0-9+/]+=*")


# The two files


def write_gallery(folder: Path, encoders: Sequence[ShownEncoderData]) -> None:
    """Leave gallery.json and gallery.html in a folder.

    ValueError where a browser could not draw them.
    """
    write_text(folder / "gallery.json", gallery_data(encoders))
    write_text(folder / "gallery.html", gallery_page(encoders))


def read_gallery(path: Path) -> list[ShownEncoderData]:
    """The encoders of a gallery.json: the lists of two files make one gallery that compares.

    FileNotFoundError where there is none. ValueError, with its path, where it is damaged.
    """
    try:
        encoders = json.loads(path.read_text("utf-8"))
        if not isinstance(encoders, list):
            raise ValueError(f"it must hold a list of encoders, got {type(encoders).__name__}")
        check_encoders(encoders)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no gallery, or damaged: {error}") from error
    return encoders


def gallery_data(encoders: Sequence[ShownEncoderData]) -> str:
    """The text of gallery.json."""
    check_encoders(encoders)
    return json.dumps(to_json(encoders), allow_nan=False, separators=(",", ":"))


def gallery_page(encoders: Sequence[ShownEncoderData]) -> str:
    """The text of gallery.html, with the data inside: it needs nothing beside it."""
    before, after = TEMPLATE.read_text("utf-8").split(DATA_OPENS + DATA_CLOSES)
    # Without a '<' nothing in the data can end the script, or begin a comment.
    data = gallery_data(encoders).replace("<", "\\u003c")
    return before + DATA_OPENS + data + DATA_CLOSES + after


def to_json(value: Any) -> Any:
    """NumPy's numbers and arrays become Python's; NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


# Checks: refuse here what would be an empty page in the browser


def check_encoders(encoders: Sequence[ShownEncoderData]) -> None:
    """ValueError, with the name of the encoder, for what a browser could not draw."""
    if not encoders:
        raise ValueError("a gallery needs at least one encoder")
    for encoder in encoders:
        if not isinstance(encoder, Mapping):
            raise ValueError(f"an encoder must be a dictionary, got {type(encoder).__name__}")
        if missing := NEEDED - set(encoder):
            raise ValueError(f"an encoder of a gallery needs {', '.join(sorted(missing))}")
        try:
            _check_examples(encoder)
            _check_dimensions(encoder)
        except (TypeError, KeyError, AttributeError) as error:  # something of another type
            raise ValueError(f"{encoder['name']}: {type(error).__name__}: {error}") from error
        except ValueError as error:
            raise ValueError(f"{encoder['name']}: {error}") from error


def _check_examples(encoder: ShownEncoderData) -> None:
    examples, classes = encoder["examples"], encoder["classes"]
    if ("sprite" in encoder) == ("texts" in encoder):
        raise ValueError("an encoder shows its examples by either a sprite or texts")
    if "texts" in encoder:
        _check_texts(encoder["texts"], len(examples))
    elif not INLINE_PICTURE.fullmatch(encoder["sprite"]["src"]):
        raise ValueError("the sprite must be inside the page, as data:image/png;base64,...")
    if any(not 0 <= example["label"] < len(classes) for example in examples):
        raise ValueError(f"an example has a label beyond the {len(classes)} classes")


def _check_texts(texts: Sequence[str], examples: int) -> None:
    if len(texts) != examples:
        raise ValueError(f"there are {len(texts)} texts for {examples} examples")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("texts must be strings")


def _check_dimensions(encoder: ShownEncoderData) -> None:
    examples = len(encoder["examples"])
    for dimension in encoder["dimensions"]:
        if any(not 0 <= place < examples for place, _ in dimension["top"]):
            raise ValueError(
                f"dimension {dimension['dimension']} refers to an example "
                f"beyond the {examples} that are shown"
            )
        if "marks" in dimension and len(dimension["marks"]) != len(dimension["top"]):
            raise ValueError(
                f"dimension {dimension['dimension']} marks words of {len(dimension['marks'])} "
                f"texts, and shows {len(dimension['top'])}"
            )
