"""What the features of a split cost, against the bare forward passes of the network.

    python -m benchmarks.pretrained [--name tf_efficientnet_lite0] [--size 96] [--rounds 20]

The sides are timed in turn on the same images, so that a noisy machine hits all of them. On a CPU
the time is that of the process, so that what else runs does not count.

    here        grey images as they are stored -> features of the split, as Features has them:
                normalisation undone, resized, cropped, three channels, normalised, passed, pooled
    bare        the network alone, on inputs that are ready, in parts as here
    as timm is  likewise, in the memory layout that timm leaves, a batch of --batch

A ratio is the median over the rounds of the seconds of a bare side by those here, so 1 is a split
at the rate of the bare network; with a 95 % interval by resampling rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from monosem.core.device import to_device
from monosem.core.identity import generator
from monosem.data.dataset import Examples, SplitName
from monosem.data.images import ImageDataset
from monosem.models.features import encode
from monosem.pretrained.image_network import PART, ImageFeatures
from monosem.pretrained.timm_models import Timm
from monosem.pretrained.weight_sources import RandomWeights


@dataclass(frozen=True)
class Grey(ImageDataset):
    """Grey images of 32 x 32 pixels."""

    mean: tuple[float, ...] = (0.2,)
    std: tuple[float, ...] = (0.3,)
    count: int = 100

    def load(self, split: SplitName) -> Examples:
        draw = generator("benchmark")
        images = torch.randint(256, (self.count, 1, 32, 32), generator=draw, dtype=torch.uint8)
        return Examples(images, torch.arange(self.count) % 10)


def settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@torch.no_grad()
def seconds(run: Callable[[], object]) -> float:
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    started = clock()
    run()
    settle()
    return clock() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    data = Grey(count=flags.images)
    spec = Timm(flags.name, RandomWeights(), data, size=flags.size)
    network = spec.network(lambda stage: {})
    assert isinstance(network, ImageFeatures)
    plain = spec.build()
    plain.load_state_dict(network.body.network.state_dict())
    sides = sides_of(network, to_device(plain).eval(), data, flags.batch)
    took = time_sides(sides, flags.rounds)
    report(took, flags.images, flags.rounds)


def sides_of(
    network: ImageFeatures, plain: nn.Module, data: Grey, batch: int
) -> dict[str, Callable[[], object]]:
    stored = data.split("test").inputs
    with torch.no_grad():
        ready = network.inputs(data.prepare(stored))
    parts = [part.contiguous(memory_format=torch.channels_last) for part in ready.split(PART)]
    batches = [part.contiguous() for part in ready.split(batch)]
    bare = network.body.network
    return {
        "here": lambda: encode(network, data, stored),
        "bare": lambda: [bare(part) for part in parts],
        "as timm is": lambda: [plain(part) for part in batches],
    }


def time_sides(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    for side in sides.values():
        seconds(side)  # warm up
    rows = [[seconds(side) for side in sides.values()] for _ in range(rounds)]
    return dict(zip(sides, np.array(rows).T, strict=True))


def report(took: dict[str, np.ndarray], images: int, rounds: int) -> None:
    draws = np.random.default_rng(0).integers(rounds, size=(2000, rounds))
    for name, column in took.items():
        ratios = column / took["here"]
        low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
        print(
            f"{name}: {images / np.median(column):.1f} images/s; rate here, times this: "
            f"{np.median(ratios):.3f} ({low:.3f} to {high:.3f}), {rounds} rounds of {images} images"
        )


if __name__ == "__main__":
    main()
