"""The gallery page: for each dimension of a representation, the images that activate it most (arXiv:2410.21331, figure 1a)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).with_name("gallery.html")


OPEN, CLOSE = '<script type="application/json" id="data">', "</script>"


KEYS = {
    "name",
    "split",
    "images_total",
    "width",
    "classes",
    "sprite",
    "images",
    "measures",
    "dimensions",
}


def page(encoders: Sequence[Mapping[str, Any]]) -> str:
    """One HTML file that needs nothing beside it: a row of thumbnails for each dimension of each encoder, two encoders side by side.

    An encoder is a mapping with
    name, split, images_total (of the split), width (of the representation), classes (names; the index is the label);
    sprite: {side, columns, src}: the thumbnails in one picture, row-major cells of side x side pixels, as a data: address;
    images: [{index, label}, ...], what each cell shows; index is the place in the split;
    measures: [{name, about, better}, ...]; better is 'high', 'low' or '': the end that is monosemantic;
    dimensions: [{dimension, measures: {name: value}, top: [[cell, activation], ...], active}, ...]; top has the most activating first,
    active is the share of the split's images that activate it. A measure that is None or NaN is shown as missing.
    """
    if not encoders:
        raise ValueError("a gallery needs at least one encoder")
    for encoder in encoders:
        check(encoder)
    before, after = TEMPLATE.read_text(encoding="utf-8").split(OPEN + CLOSE)
    data = json.dumps(plain(encoders), allow_nan=False, separators=(",", ":"))
    return (
        before + OPEN + data.replace("<", "\\u003c") + CLOSE + after
    )  # without a '<' nothing can end the script, or begin a comment


def encoders_of(html: str) -> list[dict[str, Any]]:
    """What `page` was given, read back from its text: lists of two pages make one page that compares."""
    _, opened, rest = html.partition(OPEN)
    data, closed, _ = rest.partition(CLOSE)
    if not (opened and closed and data):
        raise ValueError('this is no gallery page: there is no data in a <script id="data">')
    try:
        encoders = json.loads(data)
    except json.JSONDecodeError as error:
        raise ValueError(f"the data of this gallery page is damaged: {error}") from error
    if (
        not isinstance(encoders, list)
        or not encoders
        or not all(isinstance(encoder, dict) for encoder in encoders)
    ):
        raise ValueError("the data of this page is no list of encoders")
    try:
        for encoder in encoders:
            check(encoder)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"the data of this gallery page is damaged: {error}") from error
    return encoders


def check(encoder: Mapping[str, Any]) -> None:
    """Refuse here what would be an empty page in the browser."""
    if missing := KEYS - set(encoder):
        raise ValueError(f"an encoder of a gallery needs {', '.join(sorted(missing))}")
    name, images = encoder["name"], encoder["images"]
    if not re.fullmatch(r"data:image/[a-z]+;base64,[A-Za-z0-9+/]+=*", encoder["sprite"]["src"]):
        raise ValueError(
            f"{name}: the sprite must be inside the page, as data:image/png;base64,..."
        )
    if any(not 0 <= image["label"] < len(encoder["classes"]) for image in images):
        raise ValueError(
            f"{name}: an image has a label beyond the {len(encoder['classes'])} classes"
        )
    for dimension in encoder["dimensions"]:
        if any(not 0 <= cell < len(images) for cell, _ in dimension["top"]):
            raise ValueError(
                f"{name}: dimension {dimension['dimension']} refers to a thumbnail beyond the {len(images)} in the sprite"
            )


def plain(value: Any) -> Any:
    """As JSON has it: numpy's numbers and arrays become Python's, NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and math.isnan(value) else value
