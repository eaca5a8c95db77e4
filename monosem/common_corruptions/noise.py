"""The four noises of the common corruptions; all severities share their draws."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import gin
import torch
from torch import Generator, Tensor

from monosem.common_corruptions.base import HALF_OF_16_BITS, CommonCorruption, random_bits

LEVELS = 256
BINS = 1024  # of U[0, 1), each with the first count of photons that is to be tried


def normal_field(pixels: Tensor, generator: Generator) -> Tensor:
    """N(0, 1) in the shape of `pixels`, drawn on the CPU."""
    return torch.randn(pixels.shape, generator=generator).to(pixels)


def uniform_field(pixels: Tensor, generator: Generator) -> Tensor:
    """U[0, 1) in the shape of `pixels`, drawn on the CPU."""
    return torch.rand(pixels.shape, generator=generator).to(pixels)


@gin.register
@dataclass(frozen=True)
class CommonGaussianNoise(CommonCorruption):
    """x + strength * N(0, 1), for every pixel and channel; clipped to 8 bits."""

    published: ClassVar[str] = "gaussian_noise"
    small: ClassVar[tuple[Any, ...]] = (0.04, 0.06, 0.08, 0.09, 0.10)
    large: ClassVar[tuple[Any, ...]] = (0.08, 0.12, 0.18, 0.26, 0.38)

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        noise = normal_field(pixels, generator)
        return torch.add(pixels, noise, alpha=strength, out=noise)


@gin.register
@dataclass(frozen=True)
class ShotNoise(CommonCorruption):
    """Poisson(strength * x) / strength: the strength is how many photons white is.

    The count of a pixel is the quantile of one uniform draw, which all severities share.
    """

    VERSION = 2
    published: ClassVar[str] = "shot_noise"
    small: ClassVar[tuple[Any, ...]] = (500, 250, 100, 75, 50)
    large: ClassVar[tuple[Any, ...]] = (60, 25, 12, 5, 3)

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        levels = (pixels * (LEVELS - 1)).round().int()
        return photons(levels, uniform_field(pixels, generator), strength).to(pixels) / strength


def photons(levels: Tensor, uniform: Tensor, white: float) -> Tensor:
    """The quantiles of Poisson(white * level / 255) at draws from U[0, 1): whole numbers.

    A count is tried from where the bin of the draw begins, and one more as long as the draw is not
    below its cumulative probability.
    """
    below, first = (table.to(levels.device) for table in _poisson_tables(white))
    level, draw = levels.flatten(), uniform.flatten()
    counts = first.index_select(0, level * BINS + (draw * BINS).int())
    start = level * below.shape[1]
    tried = (draw >= below.flatten().index_select(0, start + counts)).nonzero().squeeze(1)
    while len(tried):
        counts[tried] += 1
        tried = tried[draw[tried] >= below.flatten()[start[tried] + counts[tried]]]
    return counts.reshape(levels.shape)


@functools.cache
def _poisson_tables(white: float) -> tuple[Tensor, Tensor]:
    """Of all levels: cumulative probabilities (levels, counts), first counts (levels * bins,)."""
    mean = white * torch.arange(LEVELS, dtype=torch.float64)[:, None] / (LEVELS - 1)
    counts = torch.arange(int(white + 10 * white**0.5 + 20), dtype=torch.float64)
    chances = torch.exp(torch.xlogy(counts, mean) - mean - torch.lgamma(counts + 1))
    below = chances.cumsum(1).float()
    below[:, -1] = 1  # above every draw
    edges = torch.arange(BINS) / BINS
    return below, torch.searchsorted(
        below, edges.repeat(LEVELS, 1), right=True, out_int32=True
    ).flatten()


@gin.register
@dataclass(frozen=True)
class ImpulseNoise(CommonCorruption):
    """Salt and pepper: a share of all values, the strength, becomes 0 or 1, half of it each.

    What is salt at a severity is salt at every larger one.
    """

    VERSION = 4
    published: ClassVar[str] = "impulse_noise"
    small: ClassVar[tuple[Any, ...]] = (0.01, 0.02, 0.03, 0.05, 0.07)
    large: ClassVar[tuple[Any, ...]] = (0.03, 0.06, 0.09, 0.17, 0.27)

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        # Numbers far from 0 are impulses, below it to black and above it to white.
        numbers = random_bits(tuple(pixels.shape), generator).to(pixels).add_(0.5)
        torch.hardshrink(numbers, HALF_OF_16_BITS * (1 - strength), out=numbers)  # the others are 0
        return numbers.add_(pixels)


@gin.register
@dataclass(frozen=True)
class SpeckleNoise(CommonCorruption):
    """x + strength * x * N(0, 1): Gaussian noise that grows with the pixel."""

    published: ClassVar[str] = "speckle_noise"
    small: ClassVar[tuple[Any, ...]] = (0.06, 0.1, 0.12, 0.16, 0.2)
    large: ClassVar[tuple[Any, ...]] = (0.15, 0.2, 0.35, 0.45, 0.6)

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        noise = normal_field(pixels, generator)
        return torch.addcmul(pixels, pixels, noise, value=strength, out=noise)
