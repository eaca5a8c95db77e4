"""How fast images are corrupted: a batch at once, and image by image with imagecorruptions.

python -m benchmarks.corruptions [--images 256] [--rounds 5] [--side 32]

Every round measures one after the other; the ratio is the median over the rounds. Both take the
strengths of their own tables: imagecorruptions has those of ImageNet-C alone. Needs the package
imagecorruptions-imaug.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from imagecorruptions import corruptions as published

from monosem.common_corruptions.base import CommonCorruption
from monosem.common_corruptions.blur import (
    CommonGaussianBlur,
    DefocusBlur,
    GlassBlur,
    MotionBlur,
    ZoomBlur,
)
from monosem.common_corruptions.noise import (
    CommonGaussianNoise,
    ImpulseNoise,
    ShotNoise,
    SpeckleNoise,
)
from monosem.core.identity import generator

CORRUPTIONS: tuple[CommonCorruption, ...] = (
    CommonGaussianNoise(),
    ShotNoise(),
    ImpulseNoise(),
    SpeckleNoise(),
    DefocusBlur(),
    GlassBlur(),
    MotionBlur(),
    ZoomBlur(),
    CommonGaussianBlur(),
)
SEVERITY = 3


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")

    shape = (options.images, options.side, options.side, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    print(f"{torch.get_num_threads()} threads; severity {SEVERITY}; images/s, medians")
    for corruption in CORRUPTIONS:
        one_by_one = getattr(published, corruption.published)

        def ours(corruption: CommonCorruption = corruption) -> object:
            return corruption.corrupted(pixels, SEVERITY, generator("benchmark"))

        def theirs(one_by_one: Callable[..., object] = one_by_one) -> object:
            return [np.uint8(one_by_one(image, SEVERITY)) for image in images]

        ours(), one_by_one(images[0], SEVERITY)  # warm: numba compiles
        rounds = [(seconds(ours), seconds(theirs)) for _ in range(options.rounds)]
        mine, other = (
            options.images / statistics.median(times) for times in zip(*rounds, strict=True)
        )
        ratio = statistics.median(slow / fast for fast, slow in rounds)
        print(f"{corruption.published:16} {mine:9.0f} {other:9.0f}   {ratio:6.1f} times")


if __name__ == "__main__":
    main()
