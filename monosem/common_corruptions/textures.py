"""Textures that weather needs, made from noise: fog, frost, and water on a pane.

Nothing is read from a file. Every function is of tensors alone; the frost, which is the same in
every run, draws from seeds of its own.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from monosem.common_corruptions.filters import filter_images, mirror_padded
from monosem.core.identity import generator

# Fog


def plasma(uniform: Tensor, decay: float) -> Tensor:
    """Maps of heights from 0 to 1 by diamonds and squares, which close at the borders.

    A grid doubles its resolution until it has the side asked for. A new point is the mean of its
    four neighbours, and up to the square of a wobble more or less; the wobble falls from 100 by a
    factor from one resolution to the next.

    uniform: (n, side * side - 1), from U[0, 1); the side is a power of two.
    decay: the factor.
    Returns (n, side, side).
    """
    n, points = uniform.shape
    side = math.isqrt(points + 1)
    heights, wobble, used = uniform.new_zeros(n, 1, 1), 100.0, 0
    while (size := heights.shape[-1]) < side:
        drawn = uniform[:, used : used + 3 * size**2].reshape(n, 3, size, size)
        middle, top, left = (wobble**2 * (2 * drawn - 1)).unbind(1)
        right, below = heights.roll(-1, 2), heights.roll(-1, 1)
        squares = (heights + right + below + right.roll(-1, 1)) / 4 + middle
        rows = (heights + right + squares + squares.roll(1, 1)) / 4 + top
        columns = (heights + below + squares + squares.roll(1, 2)) / 4 + left
        even, odd = torch.stack([heights, rows], -1), torch.stack([columns, squares], -1)
        heights = torch.stack([even, odd], 2).reshape(n, 2 * size, 2 * size)
        used += 3 * size**2
        wobble /= decay
    heights = heights - heights.amin((1, 2), keepdim=True)
    return heights / heights.amax((1, 2), keepdim=True).clamp(min=1e-12)


# Frost

FROST_SIDE = 400  # pixels; the published photographs have 315 to 900
CRYSTALS = 60  # on one texture
DIRECTIONS = 18  # of needles, over 180 degrees; 60 degrees are six of them
BRANCH = DIRECTIONS // 3
NEEDLE = (8.0, 0.8)  # standard deviations along and across, in pixels
PATCH = 60.0  # standard deviation of the blur of large patches, in pixels
GRAIN, PATCHES = 0.5, 1.0  # their weights; that of the needles is 1

# Means of red, green and blue, and their common deviation, measured on the published photographs.
FROST_COLOURS = (
    ((0.305, 0.585, 0.650), 0.077),
    ((0.787, 0.805, 0.841), 0.087),
    ((0.787, 0.805, 0.841), 0.087),
    ((0.540, 0.599, 0.648), 0.114),
    ((0.441, 0.484, 0.528), 0.169),
)


@functools.cache
def frost_textures() -> Tensor:
    """(5, 3, side, side) in [0, 1]: crystals, always the same.

    The mean of every channel and its deviation are those of a published photograph.
    """
    return torch.stack([_frost(number) for number in range(len(FROST_COLOURS))])


def _frost(number: int) -> Tensor:
    """(3, side, side): grains of needles that branch at 60 degrees, on light and dark patches."""
    draw = generator("frost", number)
    white = torch.randn(3, FROST_SIDE, FROST_SIDE, generator=draw)
    centres = torch.rand(CRYSTALS, 2, generator=draw) * FROST_SIDE
    directions = torch.randint(DIRECTIONS, (CRYSTALS,), generator=draw)
    needles = torch.stack(
        [_stretched(white[0], math.pi * step / DIRECTIONS, *NEEDLE) for step in range(DIRECTIONS)]
    )
    stars = needles + 0.6 * needles.roll(BRANCH, 0) + 0.6 * needles.roll(-BRANCH, 0)
    chosen = directions[_nearest(centres)]
    relief = stars.gather(0, chosen[None])[0] / stars.std()
    relief = relief + GRAIN * white[1] + PATCHES * _stretched(white[2], 0.0, PATCH, PATCH)
    relief = (relief - relief.mean()) / relief.std()
    means, deviation = FROST_COLOURS[number]
    return (torch.tensor(means)[:, None, None] + deviation * relief).clamp(0, 1)


def _nearest(centres: Tensor) -> Tensor:
    """(k, 2) places -> (side, side) which of them is nearest; the sides are joined."""
    positions = torch.arange(FROST_SIDE)
    apart = (centres[:, :, None] - positions).abs()
    apart = torch.minimum(apart, FROST_SIDE - apart) ** 2  # (k, 2, side)
    return (apart[:, 0, :, None] + apart[:, 1, None, :]).argmin(0)


def _stretched(white: Tensor, angle: float, along: float, across: float) -> Tensor:
    """Noise (side, side), blurred by a Gaussian that lies at an angle; of deviation 1."""
    rows = torch.fft.fftfreq(white.shape[0])[:, None]
    columns = torch.fft.rfftfreq(white.shape[1])
    ahead = columns * math.cos(angle) + rows * math.sin(angle)
    aside = rows * math.cos(angle) - columns * math.sin(angle)
    passed = torch.exp(-2 * math.pi**2 * ((along * ahead) ** 2 + (across * aside) ** 2))
    blurred = torch.fft.irfft2(torch.fft.rfft2(white) * passed, s=white.shape)
    return (blurred - blurred.mean()) / blurred.std()


def frost_crops(uniform: Tensor, height: int, width: int, shrink: float) -> Tensor:
    """A crop of a frost texture for every image.

    uniform: (n, 3) from U[0, 1): which texture, and where from the top and from the left.
    shrink: the factor of the side by which the textures are made smaller first.
    Returns (n, 3, height, width).
    """
    textures = frost_textures()
    if shrink != 1:
        textures = F.interpolate(textures, scale_factor=shrink, mode="bilinear")
    side = textures.shape[-1]
    if side <= max(height, width):
        larger = math.ceil(1.1 * max(height, width))
        textures, side = F.interpolate(textures, (larger, larger), mode="bilinear"), larger
    which = (uniform[:, 0] * len(textures)).long()
    top = (uniform[:, 1] * (side - height)).long()
    left = (uniform[:, 2] * (side - width)).long()
    rows = (top[:, None] + torch.arange(height))[:, :, None]
    columns = (left[:, None] + torch.arange(width))[:, None]
    return textures.permute(0, 2, 3, 1)[which[:, None, None], rows, columns].permute(0, 3, 1, 2)


# Water

FARTHEST = 20  # pixels from an edge, counted no further
EMBOSS = torch.tensor(
    [[-2.0, -1.0, 0.0], [-1.0, 1.0, 1.0], [0.0, 1.0, 2.0]]
)  # light from the upper left
LOW_EDGE, HIGH_EDGE = 50, 150  # grey levels of gradient, of weak and of strong edges


def water(liquid: Tensor) -> Tensor:
    """How bright water shines: the amount of liquid, and relief by the distance to its edges.

    liquid: (n, 1, h, w) whole grey levels, 0 where it is dry.
    Returns the same shape, from 0 to 1 in every image that is not dry all over.
    """
    distances = distance_to(edges(liquid)).clamp(max=FARTHEST)
    smooth = equalised(_mean_of_3(distances).floor())
    relief = filter_images(smooth, EMBOSS).clamp(0, 255)
    shine = liquid * _mean_of_3(relief).round()
    return shine / shine.amax((1, 2, 3), keepdim=True).clamp(min=1e-12)


def _mean_of_3(levels: Tensor) -> Tensor:
    return F.avg_pool2d(mirror_padded(levels, 1), 3, stride=1)  # means of wholes stay whole


def edges(levels: Tensor) -> Tensor:
    """Canny's edges (1986): True on them. Of whole grey levels (n, 1, h, w), by Sobel gradients.

    A gradient is the sum of its sizes along both axes. Weak edges count where they touch, over
    other weak ones, a strong edge.
    """
    padded = F.pad(levels, (1, 1, 1, 1), mode="replicate")
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).to(levels)
    across = F.conv2d(padded, sobel[None, None])
    down = F.conv2d(padded, sobel.T[None, None])
    size = across.abs() + down.abs()
    thin = _is_ridge(size, across, down)
    reached = thin & (size > HIGH_EDGE)
    weak = thin & (size > LOW_EDGE)
    while True:
        touched = F.max_pool2d(reached.to(levels.dtype), 3, 1, 1).bool() & weak
        if torch.equal(touched, reached):
            return reached
        reached = touched


def _is_ridge(size: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Where a gradient is the largest one along its own direction, of four."""
    height, width = size.shape[-2:]
    padded = F.pad(size, (1, 1, 1, 1))

    def at(row: int, column: int) -> Tensor:
        return padded[..., 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    slope = math.tan(math.pi / 8)
    is_flat = down.abs() < slope * across.abs()
    is_steep = down.abs() > (slope + 2) * across.abs()  # tan of 67.5 degrees
    falls = across * down < 0
    flat = (size > at(0, -1)) & (size >= at(0, 1))
    steep = (size > at(-1, 0)) & (size >= at(1, 0))
    rising = (size > at(-1, -1)) & (size > at(1, 1))
    falling = (size > at(-1, 1)) & (size > at(1, -1))
    diagonal = torch.where(falls, falling, rising)
    return torch.where(is_flat, flat, torch.where(is_steep, steep, diagonal))


def distance_to(marked: Tensor) -> Tensor:
    """(n, 1, h, w) in pixels to the nearest marked pixel; exact up to FARTHEST, then larger."""
    squared = torch.where(marked, 0.0, float(4 * FARTHEST**2))
    for axis in (2, 3):
        squared = _nearest_along(squared, axis)
    return squared.sqrt()


def _nearest_along(squared: Tensor, axis: int) -> Tensor:
    """The least, along an axis, of values and the squares of steps to them."""
    nearest = squared.clone()
    length = squared.shape[axis]
    for step in range(1, min(FARTHEST + 1, length)):
        before, after = (
            squared.narrow(axis, start, length - step) + step**2 for start in (0, step)
        )
        ahead, behind = (nearest.narrow(axis, start, length - step) for start in (step, 0))
        torch.minimum(ahead, before, out=ahead)
        torch.minimum(behind, after, out=behind)
    return nearest


def equalised(levels: Tensor) -> Tensor:
    """Whole grey levels (n, 1, h, w), spread so that all levels are about equally frequent."""
    flat = levels.flatten(1).long()
    counts = torch.zeros(len(flat), 256, dtype=torch.int64, device=levels.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat))
    first = counts.gather(1, flat.amin(1, keepdim=True))  # of the lowest level that occurs
    others = flat.shape[1] - first
    spread = ((counts.cumsum(1) - first) * 255 / others.clamp(min=1)).round().clamp(0, 255)
    result = torch.where(others == 0, flat.to(spread.dtype), spread.gather(1, flat))
    return result.reshape(levels.shape).to(levels.dtype)
