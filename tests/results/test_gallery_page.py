"""The gallery page: what goes in comes back out, no name breaks it, it asks the network for nothing, and a browser draws what it should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from monosem.results.gallery_page import encoders_of, page

PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
NASTY = [
    "</script><b>bold</b>",
    "<!-- <script>",
    "a \"quote\" and 'another'",
    "cats & dogs &lt;",
    "Grüße, 猫 \u2028 🐈",
    "\\u003c \\",
    "${name} `tick`",
]
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def encoder(name="simclr, seed 0", classes=("0", "1", "2", "3"), width=12, seed=0):
    """Dimension d likes class d % 4: three of its four images are of it. The last dimension is dead."""
    n = len(classes)
    values = np.random.default_rng(seed).permutation(width) / width
    dimensions = [
        {
            "dimension": d,
            "measures": {"consistency": float(values[d]), "entropy": float(1 - values[d])},
            "top": [[(d + 1) % n, 4.0], [d % n, 3.0], [d % n, 2.0], [d % n, 0.12345]],
            "active": 0.25,
        }
        for d in range(width - 1)
    ]
    dead = {
        "dimension": width - 1,
        "measures": {"consistency": None, "entropy": None},
        "top": [],
        "active": 0.0,
    }
    return {
        "name": name,
        "split": "test",
        "images_total": 360,
        "width": width,
        "classes": list(classes),
        "sprite": {"side": 32, "columns": 3, "src": PIXEL},
        "images": [{"index": 10 * label, "label": label} for label in range(n)],
        "measures": [
            {"name": "consistency", "about": "share of the most frequent class", "better": "high"},
            {"name": "entropy", "about": "entropy of the classes", "better": "low"},
        ],
        "dimensions": [*dimensions, dead],
    }


def test_what_goes_into_a_page_comes_back_out_of_it():
    one, other = [encoder("one")], [encoder("other", seed=1)]
    assert encoders_of(page(one)) == one
    assert encoders_of(page(encoders_of(page(one)) + encoders_of(page(other)))) == one + other


def test_numbers_of_numpy_become_plain_ones_and_nan_a_missing_measure():
    given = encoder()
    given["dimensions"][0] |= {
        "measures": {"consistency": np.float32(0.5), "entropy": np.nan},
        "top": np.array([[1, 2.5]]),
        "dimension": np.int64(0),
    }
    read = encoders_of(page([given]))[0]["dimensions"][0]
    assert read == {
        "dimension": 0,
        "measures": {"consistency": 0.5, "entropy": None},
        "top": [[1, 2.5]],
        "active": 0.25,
    }


@pytest.mark.parametrize("name", NASTY)
def test_no_name_breaks_out_of_the_data(name):
    given = encoder(name, classes=[name, "b", "c", "d"])
    html = page([given])
    assert encoders_of(html) == [given]
    inside = html.split('id="data">')[1].split("</script>")[0]
    assert json.loads(inside) == [given] and "<" not in inside
    assert html.replace(inside, "") == page([encoder()]).replace(
        json.dumps([encoder()], separators=(",", ":")), ""
    )


@pytest.mark.parametrize(
    "text", ["", "<html><body>hello</body></html>", '<script id="data">[]</script>']
)
def test_a_text_that_is_no_gallery_page_is_refused(text):
    with pytest.raises(ValueError, match="no gallery page"):
        encoders_of(text)


@pytest.mark.parametrize(
    ("data", "words"),
    [("[{", "damaged"), ("{}", "no list of encoders"), ("[{}]", "needs active|needs classes")],
)
def test_damaged_data_is_refused(data, words):
    with pytest.raises(ValueError, match=words):
        encoders_of(f'<script type="application/json" id="data">{data}</script>')


def test_what_a_browser_could_not_draw_is_refused():
    with pytest.raises(ValueError, match="at least one encoder"):
        page([])
    with pytest.raises(ValueError, match="simclr, seed 0: the sprite must be inside the page"):
        page([encoder() | {"sprite": {"side": 32, "columns": 3, "src": "sprite.png"}}])
    with pytest.raises(ValueError, match="a label beyond the 2 classes"):
        page([encoder() | {"classes": ["a", "b"]}])
    with pytest.raises(ValueError, match="dimension 0 refers to a thumbnail beyond the 0"):
        page([encoder() | {"images": []}])


def test_the_page_asks_the_network_for_nothing():
    html = page([encoder()])
    assert not re.search(
        r"https?:|@import|\bfetch\(|XMLHttpRequest|<(?:img|iframe|script src)|url\((?!\"\$\{src\}\")",
        html,
    )
    assert "default-src 'none'" in html and "innerHTML" not in html


@pytest.fixture
def drawn(tmp_path):
    """The page as chromium has drawn it, with the view that follows '#'."""
    if BROWSER is None:
        pytest.skip("draws the page in chromium, which is not installed here")

    def draw(encoders, view=""):
        file = tmp_path / "gallery.html"
        file.write_text(page(encoders), encoding="utf-8")
        quiet = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update disable-sync"
        flags = [
            *(f"--{flag}" for flag in quiet.split()),
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=2000",
        ]
        command = [BROWSER, *flags, "--dump-dom", f"{file.as_uri()}#{view}"]
        dom = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout.decode()
        return re.findall(r'<section class="panel">.*?</section>', dom, re.DOTALL)

    return draw


def cards(panel):
    return [int(number) for number in re.findall(r'<article [^>]*data-dimension="(\d+)"', panel)]


def test_a_browser_draws_sorts_filters_and_compares(drawn):
    one, other = encoder("one", classes=[*NASTY[:2], "2", "3"], width=100), encoder("other", seed=1)
    by_consistency = [
        d["dimension"]
        for d in sorted(one["dimensions"][:-1], key=lambda d: -d["measures"]["consistency"])
    ]

    left, right = drawn([one, other])
    assert cards(left) == by_consistency[:40] and "Show 40 more (40 of 100 shown)" in left
    assert len(cards(right)) == 12 and cards(right)[-1] == 11 and "No image activates it." in right
    assert (
        left.count("<figure") == 160
        and "0.123" in left
        and "<b>&lt;/script&gt;&lt;b&gt;bold&lt;/b&gt;</b>" in left
    )

    (alone,) = drawn([one], "class=3&sort=entropy&direction=worst")
    liking_3 = [d for d in reversed(by_consistency) if d % 4 == 3]
    mean = np.mean([one["dimensions"][d]["measures"]["entropy"] for d in liking_3])
    assert cards(alone) == liking_3
    assert f"24 of 100 dimensions with images mostly of class 3; mean entropy {mean:.3f}" in alone

    right, left = drawn([one, other], "left=1&right=0&class=0&sort=dimension")
    assert cards(right) == [0, 4, 8] and "<h2>other</h2>" in right
    assert not cards(left) and "No dimension of this encoder has mostly images of class 0" in left
