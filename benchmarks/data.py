"""How fast images are drawn, and how fast photographs are packed on all cores.

python -m benchmarks.data [--drawn 10000] [--photographs 2000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from monosem.data.packed import open_pack
from monosem.datasets.folders import read_squares
from monosem.datasets.shapes import Shapes


def write_photographs(folder: Path, count: int) -> list[str]:
    """Smooth JPEG files of 500 x 375 pixels, ImageNet's most frequent size."""
    draw = np.random.default_rng(0)
    for index in range(count):
        thumbnail = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        photograph = thumbnail.resize((500, 375), Image.Resampling.BICUBIC)
        photograph.save(folder / f"{index:06d}.jpg", quality=90)
    return sorted(map(str, folder.iterdir()))


def report(what: str, count: int, seconds: float) -> None:
    print(f"{what:30} {seconds:8.2f} s {count / seconds:8.0f} images/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drawn", type=int, default=10_000)
    parser.add_argument("--photographs", type=int, default=2000)
    options = parser.parse_args()

    start = time.perf_counter()
    Shapes(train=options.drawn).load("train")
    report("Shapes, 32 pixels", options.drawn, time.perf_counter() - start)

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "photographs").mkdir()
        paths = write_photographs(Path(folder) / "photographs", options.photographs)
        labels = [0] * len(paths)
        start = time.perf_counter()
        open_pack(Path(folder) / "pack", "x", lambda: read_squares(paths, labels, 256, ()))
        report("photographs to 256 pixels", len(paths), time.perf_counter() - start)


if __name__ == "__main__":
    main()
