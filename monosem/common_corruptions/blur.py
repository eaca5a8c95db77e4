"""The five blurs of the common corruptions, for many images at once."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import gin
import torch
from torch import Generator, Tensor

from monosem.common_corruptions.base import CommonCorruption, random_bits, to_8_bits
from monosem.common_corruptions.filters import (
    chunk,
    filter_images,
    gaussian_blur,
    motion_blur,
    sum_of_products,
    zoom_matrix,
)

HALF_OF_SMALL_KERNEL = 8  # pixels from the middle of a disk kernel to its edge, at least
WALKED_PIXELS = 1 << 16  # places of all images that are shuffled at a time
LARGEST_ANGLE = 45.0  # degrees, of motion to either side


@gin.register
@dataclass(frozen=True)
class CommonGaussianBlur(CommonCorruption):
    """A Gaussian blur; the strength is its standard deviation in pixels."""

    published: ClassVar[str] = "gaussian_blur"
    small: ClassVar[tuple[Any, ...]] = (0.4, 0.6, 0.7, 0.8, 1.0)
    large: ClassVar[tuple[Any, ...]] = (1.0, 2.0, 3.0, 4.0, 6.0)
    is_random: ClassVar[bool] = False

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        return gaussian_blur(pixels, strength)


@gin.register
@dataclass(frozen=True)
class DefocusBlur(CommonCorruption):
    """A disk; the strength is (its radius, the deviation of the blur of its edge), in pixels."""

    published: ClassVar[str] = "defocus_blur"
    small: ClassVar[tuple[Any, ...]] = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))
    large: ClassVar[tuple[Any, ...]] = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
    is_random: ClassVar[bool] = False

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        return filter_images(pixels, disk_kernel(*strength))


@functools.cache
def disk_kernel(radius: float, edge: float) -> Tensor:
    """(k, k) a disk whose edge is blurred; its weights add up to 1 where it meets no border."""
    half = HALF_OF_SMALL_KERNEL if radius <= HALF_OF_SMALL_KERNEL else int(radius)
    reach = 1 if radius <= HALF_OF_SMALL_KERNEL else 2
    positions = torch.arange(-half, half + 1)
    disk = (positions[:, None] ** 2 + positions**2 <= radius**2).double()
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / edge).double() ** 2)
    line = line / line.sum()
    blurred = filter_images(disk[None, None] / disk.sum(), torch.outer(line, line))[0, 0]
    used = min(half, int(radius) + reach)  # all else is zero
    return blurred[half - used : half + used + 1, half - used : half + used + 1]


@gin.register
@dataclass(frozen=True)
class GlassBlur(CommonCorruption):
    """Pixels that come from nearby places, between two Gaussian blurs.

    The strength is (deviation of the blur, largest distance of a place, rounds), in pixels. The
    authors' program walks from the last pixel to the first one. Its exchange of two pixels only
    copies, as both sides are views of one array; so do the published files, and so does this. All
    severities share the draws of their first rounds.
    """

    VERSION = 3
    published: ClassVar[str] = "glass_blur"
    small: ClassVar[tuple[Any, ...]] = (
        (0.05, 1, 1),
        (0.25, 1, 1),
        (0.4, 1, 1),
        (0.25, 1, 2),
        (0.4, 1, 2),
    )
    large: ClassVar[tuple[Any, ...]] = (
        (0.7, 1, 2),
        (0.9, 2, 1),
        (1.0, 2, 3),
        (1.1, 3, 2),
        (1.5, 4, 2),
    )

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        sigma, distance, rounds = strength
        n, _, height, width = pixels.shape
        bits = random_bits((rounds, 2, n, height, width), generator)
        blurred = to_8_bits(gaussian_blur(pixels, sigma)).flatten(2)
        size = chunk(pixels, WALKED_PIXELS)
        places = torch.cat([_places(part, distance) for part in bits.split(size, 2)])
        shuffled = blurred.gather(2, places[:, None].to(pixels.device).expand_as(blurred))
        return gaussian_blur(shuffled.reshape(pixels.shape), sigma)


def _places(bits: Tensor, distance: int) -> Tensor:
    """Random bits (rounds, 2, n, h, w) -> (n, h * w): where the pixels come from in the end."""
    offsets = (bits.int() * (2 * distance)) >> 16  # from -distance to distance - 1
    places, *later = (sources_of_walk(one, distance) for one in offsets)
    for walk in later:
        places = places.gather(1, walk)
    return places


def sources_of_walk(offsets: Tensor, distance: int) -> Tensor:
    """Where the pixels come from if they are copied one after the other, from the last one on.

    A pixel copies its source as that is at its turn: a later pixel in reading order has been
    overwritten already. So the copies are chains, which all are followed at once, twice as far at
    every step.

    offsets: (2, n, h, w) of the source, downwards and to the right.
    distance: the walk leaves out so many rows and columns at the end, and one more at the start.
    Returns (n, h * w), places in reading order.
    """
    height, width = offsets.shape[2:]
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    walked = _is_walked(rows, height, distance) & _is_walked(columns, width, distance)
    down, right = offsets.unbind()
    moves = (down * width + right) * walked.to(offsets.dtype)  # others stay where they are
    source = (moves + (rows * width + columns)).flatten(1)
    if distance == 1:
        return source  # never a later pixel
    # link: a later pixel, which has been copied before, or itself if its source is as it was
    link = torch.maximum(source, torch.arange(height * width))
    while not torch.equal(link, further := link.gather(1, link)):
        link = further
    return source.gather(1, link)


def _is_walked(positions: Tensor, side: int, distance: int) -> Tensor:
    return (positions > distance) & (positions <= side - distance)


@gin.register
@dataclass(frozen=True)
class MotionBlur(CommonCorruption):
    """One half of a Gaussian along a line, at an angle of -45 to 45 degrees of its own an image.

    The strength is (radius, standard deviation) in pixels: the line has 2 * radius + 1 pixels,
    rounded as ImageMagick does; the border is repeated outwards.
    """

    published: ClassVar[str] = "motion_blur"
    small: ClassVar[tuple[Any, ...]] = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))
    large: ClassVar[tuple[Any, ...]] = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        radius, sigma = strength
        uniform = torch.rand(len(pixels), generator=generator, dtype=torch.float64)
        return motion_blur(pixels, radius, sigma, (2 * uniform - 1) * LARGEST_ANGLE)


@gin.register
@dataclass(frozen=True)
class ZoomBlur(CommonCorruption):
    """The mean of the image and of zooms into its middle, factor 1 among them.

    The strength is (end, step) of the factors, which begin at 1. They are counted as
    numpy.arange counts them in the authors' program, rounding errors included.
    """

    published: ClassVar[str] = "zoom_blur"
    small: ClassVar[tuple[Any, ...]] = (
        (1.06, 0.01),
        (1.11, 0.01),
        (1.16, 0.01),
        (1.21, 0.01),
        (1.26, 0.01),
    )
    large: ClassVar[tuple[Any, ...]] = (
        (1.11, 0.01),
        (1.16, 0.01),
        (1.21, 0.02),
        (1.26, 0.02),
        (1.31, 0.03),
    )
    is_random: ClassVar[bool] = False

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        height, width = pixels.shape[-2:]
        rows, columns = _zooms(height, width, *strength)
        return sum_of_products(rows, pixels, columns)


@functools.cache
def _zooms(height: int, width: int, end: float, step: float) -> tuple[Tensor, Tensor]:
    """What the rows and the columns of the image and of its zooms are multiplied by, for a mean.

    (terms, h, h) and (terms, w, w); zooms that are equal make one term.
    """
    factors = [1 + step * count for count in range(math.ceil((end - 1) / step))]
    zooms = [_zoom(height, width, factor) for factor in (1, *factors)]
    unique, counts = torch.stack(zooms).unique(dim=0, return_counts=True)
    rows, columns = unique.split((height**2, width**2), 1)
    shares = counts[:, None, None] / len(zooms)
    return shares * rows.reshape(-1, height, height), columns.reshape(-1, width, width)


def _zoom(height: int, width: int, factor: float) -> Tensor:
    return torch.cat([zoom_matrix(side, factor).flatten() for side in (height, width)])
