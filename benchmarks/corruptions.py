"""How fast images are corrupted: a batch at once, and image by image with imagecorruptions.

python -m benchmarks.corruptions [--images 256] [--rounds 7] [--calls 5] [--side 32]

Both corrupt the same images at severity 3, on one and on two threads of PyTorch and OpenCV. There
are two readings. Equal: both with the strengths of ImageNet-C, the only ones that imagecorruptions
has. As used: ours with its strengths for small images, which a user with such images gets.

Every round measures the three one after the other. A batch is corrupted --calls times in a row, and
its time is their mean: in a run one batch follows the other, and 256 images one by one are as many
calls in a row. With --calls 1 the batch finds no cache and no memory warm, the package still does.

Times are those of a clock, and CPU seconds of the process beside them on one thread, to which a
busy machine adds less. A ratio is the median over the rounds, its range the least and the largest.
A figure is quotable only if other work took less than a quarter of a core all the time; the last
line says whether. Needs imagecorruptions-imaug.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from imagecorruptions import corrupt
from torch import Tensor

from benchmarks.machine import OtherLoad
from monosem.common_corruptions.base import CommonCorruption, to_8_bits
from monosem.core.identity import generator
from monosem.robustness.common import EXTRA, PUBLISHED

SEVERITY = 3


class Times(NamedTuple):
    """Seconds for all images: by the clock, and of the CPU."""

    clock: float
    cpu: float


class Round(NamedTuple):
    equal: Times  # ours, strengths of ImageNet-C
    as_used: Times  # ours, strengths of CIFAR-10-C
    one_by_one: Times


def measure(
    corruption: CommonCorruption, images: np.ndarray, rounds: int, calls: int
) -> list[Round]:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255

    def seconds(work: Callable[[], object], calls: int) -> Times:
        clock, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            work()
        clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
        return Times(clock / calls, cpu / calls)

    def batch(strengths: tuple[Any, ...]) -> Tensor:
        return to_8_bits(corruption.corrupt(pixels, strengths[SEVERITY - 1], generator("draw")))

    def one_by_one() -> list[np.ndarray]:
        return [corrupt(image, SEVERITY, corruption.published) for image in images]

    def measured() -> Round:
        return Round(
            equal=seconds(lambda: batch(corruption.large), calls),
            as_used=seconds(lambda: batch(corruption.small), calls),
            one_by_one=seconds(one_by_one, 1),
        )

    measured()  # warm: numba compiles, tables and textures are made
    return [measured() for _ in range(rounds)]


def ratios(rounds: list[Round], reading: str, unit: str) -> list[float]:
    """How many times as fast the batch is, in every round."""
    return [getattr(one.one_by_one, unit) / getattr(getattr(one, reading), unit) for one in rounds]


def shown(values: list[float]) -> str:
    return f"{statistics.median(values):6.1f} ({min(values):.1f} to {max(values):.1f})"


def table(images: np.ndarray, rounds: int, calls: int, threads: int) -> None:
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    columns = [("equal", "clock"), ("as_used", "clock")]
    if threads == 1:
        columns += [("equal", "cpu"), ("as_used", "cpu")]
    names = "".join(f"{reading + ', ' + unit:>24}" for reading, unit in columns)
    print(f"\n{threads} threads, severity {SEVERITY}, {len(images)} images of {images.shape[1:]}")
    print(f"load average {os.getloadavg()[0]:.1f}")
    print(f"{'times as fast by':18}{names}")
    medians: list[list[float]] = [[] for _ in columns]
    for corruption in PUBLISHED + EXTRA:
        found = measure(corruption, images, rounds, calls)
        values = [ratios(found, *column) for column in columns]
        for column, one in zip(medians, values, strict=True):
            column.append(statistics.median(one))
        cells = "".join(f"{shown(one):>24}" for one in values)
        print(f"{corruption.published:18}{cells}", flush=True)
    middle = "".join(f"{statistics.median(column):>24.1f}" for column in medians)
    print(f"{'median of all':18}{middle}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    shape = (options.images, options.side, options.side, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for threads in (1, 2):
        others = OtherLoad()
        table(images, options.rounds, options.calls, threads)
        print(others.verdict(), flush=True)


if __name__ == "__main__":
    main()
