"""The gallery: what is written is read back, no name breaks the page, the page asks the network for
nothing, and a browser draws what it should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from conftest import PATIENCE

from monosem.figures.gallery_page import (
    DATA_CLOSES,
    DATA_OPENS,
    gallery_data,
    gallery_page,
    read_gallery,
    write_gallery,
)

PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)
NASTY = [
    "</script><b>bold</b>",
    "<!-- <script>",
    "a \"quote\" and 'another'",
    "cats & dogs &lt;",
    "Grüße, 猫 \u2028 🐈",
    "\\u003c \\",
    "${name} `tick`",
]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
QUIET = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
    "disable-background-networking", "disable-component-update", "disable-sync",
)  # fmt: skip


def an_encoder(name="simclr, seed 0", classes=("0", "1", "2", "3"), width=12, seed=0):
    """Dimension d likes class d % 4: three of its four images are of it. The last one is dead."""
    n = len(classes)
    values = np.random.default_rng(seed).permutation(width) / width
    dimensions = [
        {
            "dimension": d,
            "metrics": {"class_consistency": float(values[d]), "entropy": float(1 - values[d])},
            "top": [[(d + 1) % n, 4.0], [d % n, 3.0], [d % n, 2.0], [d % n, 0.12345]],
            "active": 0.25,
        }
        for d in range(width - 1)
    ]
    dead = {
        "dimension": width - 1,
        "metrics": {"class_consistency": None, "entropy": None},
        "top": [],
        "active": 0.0,
    }
    return {
        "name": name,
        "split": "test",
        "examples_total": 360,
        "width": width,
        "classes": list(classes),
        "sprite": {"side": 32, "columns": 3, "src": PIXEL},
        "examples": [{"index": 10 * label, "label": label} for label in range(n)],
        "metrics": [
            {"name": "class_consistency", "about": "share of one class", "better": "high"},
            {"name": "entropy", "about": "entropy of the classes", "better": "low"},
        ],
        "dimensions": [*dimensions, dead],
    }


def of_texts(texts=("one", "two", "three", "four")):
    encoder = an_encoder("texts") | {"texts": list(texts)}
    del encoder["sprite"]
    return encoder


def embedded(html):
    return html.split(DATA_OPENS)[1].split(DATA_CLOSES)[0]


@pytest.mark.parametrize("encoder", [an_encoder(), of_texts(NASTY[:4])], ids=["images", "texts"])
def test_what_is_written_is_read_back(tmp_path, encoder):
    write_gallery(tmp_path, [encoder])
    assert read_gallery(tmp_path / "gallery.json") == [encoder]
    assert json.loads(embedded((tmp_path / "gallery.html").read_text("utf-8"))) == [encoder]


def test_numbers_of_numpy_become_plain_ones_and_nan_a_missing_value():
    encoder = an_encoder()
    encoder["dimensions"][0] |= {
        "metrics": {"class_consistency": np.float32(0.5), "entropy": np.nan},
        "top": np.array([[1, 2.5]]),
        "dimension": np.int64(0),
    }
    assert json.loads(gallery_data([encoder]))[0]["dimensions"][0] == {
        "dimension": 0,
        "metrics": {"class_consistency": 0.5, "entropy": None},
        "top": [[1, 2.5]],
        "active": 0.25,
    }


@pytest.mark.parametrize("name", NASTY)
def test_no_name_breaks_out_of_the_data(name):
    encoder = an_encoder(name, classes=[name, "b", "c", "d"])
    html, usual = gallery_page([encoder]), gallery_page([an_encoder()])
    assert json.loads(embedded(html)) == [encoder]
    assert "<" not in embedded(html)
    assert html.replace(embedded(html), "") == usual.replace(embedded(usual), "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged"),
        ("[{", "damaged"),
        ("\udcff", "damaged"),
        ("{}", "must hold a list of encoders, got dict"),
        ("[]", "needs at least one encoder"),
        ("[1]", "an encoder must be a dictionary, got int"),
        ("[{}]", "an encoder of a gallery needs classes, dimensions, examples"),
        (json.dumps([an_encoder() | {"examples": 3}]), "simclr, seed 0: TypeError"),
        (json.dumps([an_encoder() | {"dimensions": [{}]}]), "simclr, seed 0: KeyError: 'top'"),
        (json.dumps([an_encoder() | {"sprite": "x"}]), "simclr, seed 0: TypeError"),
        (json.dumps([an_encoder()])[:900], "damaged"),
    ],
)
def test_a_damaged_file_is_refused_by_its_name(tmp_path, text, message):
    path = tmp_path / "gallery.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=re.escape(str(path))) as refusal:
        read_gallery(path)
    assert message in str(refusal.value)


def test_a_file_that_is_not_there_is_told_from_a_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_gallery(tmp_path / "gallery.json")


@pytest.mark.parametrize(
    ("encoders", "message"),
    [
        ([], "at least one encoder"),
        (
            [an_encoder() | {"sprite": {"side": 32, "columns": 3, "src": "sprite.png"}}],
            "simclr, seed 0: the sprite must be inside the page",
        ),
        ([an_encoder() | {"classes": ["a", "b"]}], "a label beyond the 2 classes"),
        ([an_encoder() | {"examples": []}], "dimension 0 refers to an example beyond the 0"),
        ([an_encoder() | {"texts": ["a"] * 4}], "either a sprite or texts"),
        ([of_texts(["a", "b"])], "texts: there are 2 texts for 4 examples"),
        ([of_texts([1, 2, 3, 4])], "texts must be strings"),
    ],
)
def test_what_a_browser_could_not_draw_is_refused(tmp_path, encoders, message):
    with pytest.raises(ValueError, match=message):
        write_gallery(tmp_path, encoders)
    assert not list(tmp_path.iterdir())


def test_the_page_asks_the_network_for_nothing():
    html = gallery_page([an_encoder()])
    for asks in (
        "https?:",
        "@import",
        r"\bfetch\(",
        "XMLHttpRequest",
        "<(?:img|iframe|script src)",
        r"url\((?!\"\$\{src\}\")",
    ):
        assert not re.search(asks, html)
    assert "default-src 'none'" in html
    assert "innerHTML" not in html


# What a browser draws


@pytest.fixture
def drawn(tmp_path):
    """The panels of the page as chromium has drawn it, with the view that follows '#'."""
    if BROWSER is None:
        pytest.skip("draws the page in chromium, which is not installed here")

    def draw(encoders, view=""):
        write_gallery(tmp_path, encoders)
        flags = [f"--{flag}" for flag in QUIET]
        flags += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000"]
        address = f"{(tmp_path / 'gallery.html').as_uri()}#{view}"
        command = [BROWSER, *flags, "--dump-dom", address]
        out = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
        return re.findall(r'<section class="panel">.*?</section>', out.stdout.decode(), re.DOTALL)

    return draw


def cards(panel):
    return [int(d) for d in re.findall(r'<article [^>]*data-dimension="(\d+)"', panel)]


def by_consistency(encoder):
    """Its dimensions, the most consistent first, without the dead one."""
    alive = encoder["dimensions"][:-1]
    return [d["dimension"] for d in sorted(alive, key=lambda d: -d["metrics"]["class_consistency"])]


def test_a_browser_draws_two_encoders_side_by_side(drawn):
    large = an_encoder("large", classes=[*NASTY[:2], "2", "3"], width=100)
    left, right = drawn([large, an_encoder("other", seed=1)])
    assert cards(left) == by_consistency(large)[:40]
    assert "Show 40 more (40 of 100 shown)" in left
    assert left.count("<figure") == 160
    assert "0.123" in left
    assert "<b>&lt;/script&gt;&lt;b&gt;bold&lt;/b&gt;</b>" in left
    assert len(cards(right)) == 12
    assert cards(right)[-1] == 11
    assert "No image activates it." in right
    assert "360 images of the test split, width 12" in right


def test_a_browser_sorts_and_filters(drawn):
    encoder = an_encoder(width=100)
    (panel,) = drawn([encoder], "class=3&sort=entropy&direction=worst")
    liking_3 = [d for d in reversed(by_consistency(encoder)) if d % 4 == 3]
    mean = np.mean([encoder["dimensions"][d]["metrics"]["entropy"] for d in liking_3])
    assert cards(panel) == liking_3
    assert f"24 of 100 dimensions with images mostly of class 3; mean entropy {mean:.3f}" in panel


def test_a_browser_shows_what_its_address_says(drawn):
    named = an_encoder("named", classes=["a", "b", "c", "d"])
    left, right = drawn([named, an_encoder("other")], "left=1&right=0&class=0&sort=dimension")
    assert "<h2>other</h2>" in left
    assert cards(left) == [0, 4, 8]
    assert not cards(right)
    assert "No dimension of this encoder has mostly images of class 0" in right


def test_a_browser_draws_texts_as_paragraphs(drawn):
    (panel,) = drawn([of_texts(["<i>one</i>", "two", "three", "four"])])
    assert "<p>&lt;i&gt;one&lt;/i&gt;</p>" in panel
    assert panel.count("<figure") == 44
    assert "sprite" not in panel
    assert "360 texts of the test split" in panel
    assert "No text activates it." in panel
