"""How fast images are corrupted: a batch at once, and image by image with imagecorruptions.

python -m benchmarks.corruptions [--images 256] [--rounds 7] [--side 32] [--threads 1]

Both corrupt the same images at severity 3 with the strengths of ImageNet-C, the only ones that
imagecorruptions has; our own for small images, which are weaker, stand beside them. Every round
measures one after the other; threads of PyTorch and OpenCV are limited alike. Times are CPU
seconds of the process, to which a busy machine adds less than to those of a clock; with --clock
those of a clock. A ratio is the median over the rounds, its interval a 95 % bootstrap one over
them. Needs the package imagecorruptions-imaug.

Gave, on one thread of an Intel Xeon (model 207), load below 1, 5 rounds: 6.1 times for the median
corruption; 147 for frost, 32 zoom blur, 28 brightness, 16 saturate, 14 fog, 10 to 11 gaussian blur,
contrast and snow, 9 elastic transform, 3 to 6 for the other noises and blurs, 2 pixelate, 0.9 for
spatter and for JPEG, whose codec is the same on both sides. Normal draws alone limit Gaussian noise
to about 6 times. With --threads 2 --clock 8.8 times for the median, and 17 times where ours take
the strengths for small images.
"""

from __future__ import annotations

import argparse
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

from monosem.common_corruptions.base import CommonCorruption, to_8_bits
from monosem.core.identity import generator
from monosem.robustness.common import EXTRA, PUBLISHED

SEVERITY = 3
RESAMPLES = 2000


class Round(NamedTuple):
    """Seconds for all images."""

    large: float  # ours, strengths of ImageNet-C
    small: float  # ours, strengths of CIFAR-10-C
    one_by_one: float


def corrupt_batch(
    corruption: CommonCorruption, pixels: Tensor, strengths: tuple[Any, ...]
) -> Tensor:
    return to_8_bits(corruption.corrupt(pixels, strengths[SEVERITY - 1], generator("benchmark")))


def measure(
    corruption: CommonCorruption, images: np.ndarray, rounds: int, now: Callable[[], float]
) -> list[Round]:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255

    def seconds(work: Callable[[], object]) -> float:
        start = now()
        work()
        return now() - start

    def one_by_one(some: np.ndarray) -> list[np.ndarray]:
        return [corrupt(image, SEVERITY, corruption.published) for image in some]

    def measured() -> Round:
        return Round(
            large=seconds(lambda: corrupt_batch(corruption, pixels, corruption.large)),
            small=seconds(lambda: corrupt_batch(corruption, pixels, corruption.small)),
            one_by_one=seconds(lambda: one_by_one(images)),
        )

    measured()  # warm: numba compiles, tables and textures are made
    return [measured() for _ in range(rounds)]


def ratio(times: list[Round]) -> tuple[float, float, float]:
    """How many times as fast the batch is, of the same strengths: median and 95 % interval."""
    ratios = np.array([one.one_by_one / one.large for one in times])
    draws = np.random.default_rng(0).choice(ratios, (RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(draws, 1), (0.025, 0.975))
    return float(np.median(ratios)), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", action="store_true", help="wall-clock in place of CPU seconds")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    now = time.perf_counter if options.clock else time.process_time

    shape = (options.images, options.side, options.side, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    print(f"{options.threads} threads, severity {SEVERITY}, {options.images} images of {shape[1:]}")
    print("images/s:           batch   batch, small table   one by one   ratio (95 % interval)")
    ratios = []
    for corruption in PUBLISHED + EXTRA:  # the allocator holds enough memory after this
        measure(corruption, images, 0, now)
    for corruption in PUBLISHED + EXTRA:
        times = measure(corruption, images, options.rounds, now)
        speeds = [options.images / statistics.median(column) for column in zip(*times, strict=True)]
        large, small, one_by_one = speeds
        median, low, high = ratio(times)
        ratios.append(median)
        print(
            f"{corruption.published:17} {large:9.0f}     {small:9.0f}         {one_by_one:8.0f}"
            f"   {median:7.1f} ({low:.1f} to {high:.1f})",
            flush=True,
        )
    print(f"median over the corruptions: {statistics.median(ratios):.1f} times")


if __name__ == "__main__":
    main()
