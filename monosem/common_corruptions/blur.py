"""The five blurs of the common corruptions, for many images at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import gin
import torch
from torch import Generator, Tensor

from monosem.common_corruptions.base import CommonCorruption, to_8_bits

TRUNCATE = 4.0  # deviations that a Gaussian reaches, as in scipy.ndimage
NO_SIZE = 1e-9  # of the largest outer product of a kernel: rounding errors
HALF_OF_SMALL_KERNEL = 8  # pixels from the middle of a disk kernel to its edge, at least
LARGEST_ANGLE = 45.0  # degrees, of motion to either side


def gaussian_blur(pixels: Tensor, sigma: float) -> Tensor:
    """A Gaussian of standard deviation `sigma` in pixels; the border is repeated outwards."""
    height, width = pixels.shape[-2:]
    rows = _gaussian_matrix(height, sigma).to(pixels)
    columns = _gaussian_matrix(width, sigma).to(pixels)
    return rows @ pixels @ columns.T


def _gaussian_matrix(side: int, sigma: float) -> Tensor:
    """(side, side): blurs a column of pixels by a product."""
    radius = int(TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets / sigma).double() ** 2)
    sources = (torch.arange(side)[:, None] + offsets).clamp(0, side - 1)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    return matrix.scatter_add_(1, sources, (weights / weights.sum()).expand(side, -1))


def mirror_padded(pixels: Tensor, radius: int) -> Tensor:
    """With a border of `radius` pixels, mirrored at the middle of the pixels at the edge."""
    height, width = pixels.shape[-2:]
    rows = mirrored(torch.arange(-radius, height + radius), height).to(pixels.device)
    columns = mirrored(torch.arange(-radius, width + radius), width).to(pixels.device)
    return pixels[:, :, rows][:, :, :, columns]


def filter_images(pixels: Tensor, kernel: Tensor) -> Tensor:
    """Every channel filtered by a kernel (k, k), k odd; mirrored at the middle of border pixels.

    The kernel is taken apart into a sum of outer products, few for a kernel with symmetries: each
    of them filters along rows and columns by a product.
    """
    height, width = pixels.shape[-2:]
    left, sizes, right = torch.linalg.svd(kernel.double())
    terms = range(int((sizes > NO_SIZE * sizes[0]).sum()))
    rows = [_mirroring_matrix(height, left[:, term] * sizes[term]) for term in terms]
    columns = [_mirroring_matrix(width, right[term]).T for term in terms]
    filtered = torch.stack(rows, 1).flatten(0, 1).to(pixels) @ pixels  # rows of all terms
    filtered = filtered.reshape(*pixels.shape[:-1], len(terms) * width)
    return filtered @ torch.cat(columns).to(pixels)


def _mirroring_matrix(side: int, weights: Tensor) -> Tensor:
    """(side, side): filters a column of pixels by a product."""
    radius = len(weights) // 2
    sources = mirrored(torch.arange(side)[:, None] + torch.arange(-radius, radius + 1), side)
    matrix = torch.zeros(side, side, dtype=weights.dtype)
    return matrix.scatter_add_(1, sources, weights.expand(side, -1))


def mirrored(positions: Tensor, side: int) -> Tensor:
    """Positions outside of 0 to side - 1, mirrored at the first and the last one."""
    period = max(2 * (side - 1), 1)
    inside = positions % period
    return torch.minimum(inside, period - inside) if side > 1 else torch.zeros_like(positions)


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
    copies, as both sides are views of one array; so do the published files, and so does this.
    """

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
        blurred = to_8_bits(gaussian_blur(pixels, sigma)).flatten(2)
        places = torch.arange(height * width).expand(n, -1)
        for _ in range(rounds):
            uniform = torch.rand(2, n, height, width, generator=generator)
            offsets = (uniform * 2 * distance).long() - distance
            places = places.gather(1, sources_of_walk(offsets, distance))
        shuffled = blurred.gather(2, places[:, None].to(pixels.device).expand_as(blurred))
        return gaussian_blur(shuffled.reshape(pixels.shape), sigma)


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
    place = rows * width + columns
    walked = _is_walked(rows, height, distance) & _is_walked(columns, width, distance)
    down, right = (offsets * walked).unbind()  # others stay where they are
    source_row, source_column = rows + down, columns + right
    source = source_row * width + source_column
    is_copied_before = (
        (source > place)
        & _is_walked(source_row, height, distance)
        & _is_walked(source_column, width, distance)
        & walked
    )
    # link: the copy that a copy is of, or itself if its source is a pixel as it was
    link = torch.where(is_copied_before, source, place).flatten(1)
    while not torch.equal(link, further := link.gather(1, link)):
        link = further
    return source.flatten(1).gather(1, link)


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


def motion_blur(pixels: Tensor, radius: int, sigma: float, angles: Tensor) -> Tensor:
    """Blur every image along a line, by a Fourier transform.

    pixels: (n, c, h, w)
    radius: half the length of the line, in pixels.
    sigma: the standard deviation along it, in pixels.
    angles: (n,) degrees; 0 looks to the right, 90 down.
    """
    height, width = pixels.shape[-2:]
    steps = torch.arange(2 * radius + 1)
    weights = torch.exp(-0.5 * (steps / sigma).double() ** 2)
    weights = weights / weights.sum()
    radians = angles.double().deg2rad()[:, None]
    down = (steps * radians.sin() - 0.5).ceil().long().clamp(1 - height, height - 1)  # (n, steps)
    right = (steps * radians.cos() - 0.5).ceil().long().clamp(1 - width, width - 1)
    padded = _continued(_continued(pixels, down, 2), right, 3)
    sides = padded.shape[-2:]
    lines = torch.zeros(len(pixels), sides.numel(), dtype=torch.float64)
    lines.scatter_add_(1, down % sides[0] * sides[1] + right % sides[1], weights.expand_as(down))
    kernels = torch.fft.rfft2(lines.reshape(-1, 1, *sides).to(pixels)).conj()
    blurred = torch.fft.irfft2(torch.fft.rfft2(padded) * kernels, s=sides)
    return blurred[..., :height, :width]


def _continued(pixels: Tensor, steps: Tensor, axis: int) -> Tensor:
    """With more pixels at the end of an axis, up to a side that is fast to transform.

    They repeat the border that an image's steps (n, steps) reach: the last one, or the first one
    where they go backwards, as to a transform the end lies before the start too.
    """
    side = pixels.shape[axis]
    more = _fast_side(side + int(steps.abs().max())) - side
    backwards = (steps.amin(1) < 0).to(pixels.device)[:, None, None, None]
    first, last = pixels.narrow(axis, 0, 1), pixels.narrow(axis, side - 1, 1)
    border = torch.where(backwards, first, last)
    return torch.cat([pixels, border.repeat_interleave(more, axis)], axis)


def _fast_side(side: int) -> int:
    """The next side whose only factors are 2, 3 and 5, and even: fast to transform."""
    while _without_factors(side) > 1 or side % 2:
        side += 1
    return side


def _without_factors(number: int) -> int:
    for factor in (2, 3, 5):
        while number % factor == 0:
            number //= factor
    return number


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
        end, step = strength
        height, width = pixels.shape[-2:]
        factors = [1 + step * count for count in range(math.ceil((end - 1) / step))]
        total = pixels.clone()
        for factor in factors:
            rows, columns = zoom_matrix(height, factor), zoom_matrix(width, factor)
            total += rows.to(pixels) @ pixels @ columns.to(pixels).T
        return total / (len(factors) + 1)


def zoom_matrix(side: int, factor: float) -> Tensor:
    """(side, side): zooms into the middle of a column of pixels by a product, linearly."""
    crop = math.ceil(side / factor)
    zoomed = round(crop * factor)
    start, trimmed = (side - crop) // 2, (zoomed - side) // 2
    positions = torch.arange(trimmed, trimmed + side, dtype=torch.float64)
    positions = start + positions * (crop - 1) / max(zoomed - 1, 1)
    pixels = torch.arange(side, dtype=torch.float64)
    return (1 - (positions[:, None] - pixels).abs()).clamp(min=0)
