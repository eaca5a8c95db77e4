"""The digital ones of the common corruptions: contrast, elastic, pixelate, JPEG, and saturate."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import Any, ClassVar

import gin
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

from monosem.common_corruptions.base import (
    HALF_OF_16_BITS,
    ROUNDING_ERROR,
    CommonCorruption,
    random_bits,
)
from monosem.common_corruptions.filters import by_rows_and_columns

SIDE_OF_LARGE = 244 / 224  # the authors' program takes 244 for the side of 224 pixels
REACH = 3.0  # deviations that the Gaussian of the elastic displacement reaches


@gin.register
@dataclass(frozen=True)
class Contrast(CommonCorruption):
    """Differences from the mean of the image, channel by channel, times the strength."""

    published: ClassVar[str] = "contrast"
    small: ClassVar[tuple[Any, ...]] = (0.75, 0.5, 0.4, 0.3, 0.15)
    large: ClassVar[tuple[Any, ...]] = (0.4, 0.3, 0.2, 0.1, 0.05)
    is_random: ClassVar[bool] = False

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        return pixels.mean((2, 3), keepdim=True).lerp(pixels, strength)


@gin.register
@dataclass(frozen=True)
class ElasticTransform(CommonCorruption):
    """An affine map that moves three points at random, then a smooth displacement of every pixel.

    The strength is (displacement, its blur, largest move of the three points), in sides of the
    image, the shorter one. As published the last falls while the others grow, so the distance to
    the image does not grow with severity throughout. All severities share the draws.
    """

    VERSION = 2
    published: ClassVar[str] = "elastic_transform"
    small: ClassVar[tuple[Any, ...]] = (
        (0.0, 0.0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    )
    large: ClassVar[tuple[Any, ...]] = (
        (2 * SIDE_OF_LARGE, 0.7 * SIDE_OF_LARGE, 0.1 * SIDE_OF_LARGE),
        (2 * SIDE_OF_LARGE, 0.08 * SIDE_OF_LARGE, 0.2 * SIDE_OF_LARGE),
        (0.05 * SIDE_OF_LARGE, 0.01 * SIDE_OF_LARGE, 0.02 * SIDE_OF_LARGE),
        (0.07 * SIDE_OF_LARGE, 0.01 * SIDE_OF_LARGE, 0.02 * SIDE_OF_LARGE),
        (0.12 * SIDE_OF_LARGE, 0.01 * SIDE_OF_LARGE, 0.02 * SIDE_OF_LARGE),
    )

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        n, _, height, width = pixels.shape
        displacement, blur, move = (share * min(height, width) for share in strength)
        moves = 2 * torch.rand(n, 3, 2, generator=generator, dtype=torch.float64) - 1
        field = random_bits((n, 2, height, width), generator)
        moved = affine(pixels, move * moves)
        if not displacement:
            return moved
        smooth = smooth_field(field.to(pixels).add_(0.5), blur)
        return displaced(moved, smooth.mul_(displacement / HALF_OF_16_BITS))


def affine(pixels: Tensor, moves: Tensor) -> Tensor:
    """Every image by the affine map that moves three points about its middle.

    The image is mirrored at the middle of its border pixels.

    moves: (n, 3, 2) float64, to the right and down, in pixels.
    """
    n, _, height, width = pixels.shape
    middle = torch.tensor([width // 2, height // 2], dtype=torch.float64)
    arm = min(height, width) // 3
    corners = torch.tensor([[1, 1], [1, -1], [-1, -1]], dtype=torch.float64)
    points = middle + arm * corners
    ones = torch.ones(n, 3, 1, dtype=torch.float64)
    back = torch.linalg.solve(torch.cat([points + moves, ones], 2), points.expand(n, -1, -1))
    # From -1 to 1: x across and y down of where the pixels of a row and of a column come from.
    back = back * 2 / torch.tensor([width - 1, height - 1], dtype=torch.float64).clamp(min=1)
    across = torch.arange(width) * back[:, 0, :, None] + back[:, 2, :, None] - 1  # (n, 2, w)
    down = torch.arange(height) * back[:, 1, :, None]  # (n, 2, h)
    grid = across[:, :, None].to(pixels) + down[..., None].to(pixels)  # (n, 2, h, w)
    return F.grid_sample(
        pixels, grid.permute(0, 2, 3, 1), padding_mode="reflection", align_corners=True
    )


def smooth_field(field: Tensor, sigma: float) -> Tensor:
    """Noise (n, 2, h, w), blurred by a Gaussian of `sigma` pixels; mirrored at the border."""
    height, width = field.shape[-2:]
    return by_rows_and_columns(
        _mirroring_gaussian(height, sigma), field, _mirroring_gaussian(width, sigma)
    )


@functools.cache
def _mirroring_gaussian(side: int, sigma: float) -> Tensor:
    """(side, side): blurs a column by a product; border pixels are doubled by the mirror."""
    radius = int(REACH * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets / max(sigma, 1e-6)).double() ** 2)
    sources = (torch.arange(side)[:, None] + offsets) % (2 * side)
    sources = torch.minimum(sources, 2 * side - 1 - sources)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    return matrix.scatter_add_(1, sources, (weights / weights.sum()).expand(side, -1)).float()


def displaced(pixels: Tensor, displacement: Tensor) -> Tensor:
    """Every pixel from elsewhere, linearly; the image is mirrored at its border.

    displacement: (n, 2, h, w) to the right and down, in pixels.
    """
    height, width = pixels.shape[-2:]
    sides = torch.tensor([width, height], dtype=torch.float64)[:, None, None]
    down, right = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    still = (2 * torch.stack([right, down]) + 1) / sides - 1  # from -1 to 1
    grid = torch.addcmul(still.to(displacement), displacement, (2 / sides).to(displacement))
    return F.grid_sample(
        pixels,
        grid.permute(0, 2, 3, 1).to(pixels),
        padding_mode="reflection",
        align_corners=False,
    )


@gin.register
@dataclass(frozen=True)
class Pixelate(CommonCorruption):
    """Fewer and larger pixels; the strength is the factor of the side."""

    published: ClassVar[str] = "pixelate"
    small: ClassVar[tuple[Any, ...]] = (0.95, 0.9, 0.85, 0.75, 0.65)
    large: ClassVar[tuple[Any, ...]] = (0.6, 0.5, 0.4, 0.3, 0.25)
    is_random: ClassVar[bool] = False

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        height, width = pixels.shape[-2:]
        levels = (pixels * 255).round_()
        few = box_resized(levels, max(int(height * strength), 1), max(int(width * strength), 1))
        return box_resized(few, height, width) / 255


def box_resized(levels: Tensor, height: int, width: int) -> Tensor:
    """Means over boxes of whole pixels, in 8 bits after each axis, as Pillow's filter BOX does.

    levels: (n, c, h, w) whole numbers.
    """
    old_height, old_width = levels.shape[-2:]
    columns, rows = _box_matrix(old_width, width), _box_matrix(old_height, height)
    if width < old_width:
        levels = _rounded(levels @ columns.to(levels).T)
    if height < old_height:
        levels = _rounded(rows.to(levels) @ levels)
    if width > old_width:  # every box holds one pixel
        levels = levels.index_select(3, columns.argmax(1).to(levels.device))
    if height > old_height:
        levels = levels.index_select(2, rows.argmax(1).to(levels.device))
    return levels


def _rounded(levels: Tensor) -> Tensor:
    """To whole numbers, halves up: the more so as their rounding errors must not count."""
    return levels.add_(0.5 + ROUNDING_ERROR).floor_()


@functools.cache
def _box_matrix(old: int, new: int) -> Tensor:
    """(new, old): the mean of the old pixels whose middles are in the box of a new pixel."""
    scale = old / new
    middles = (torch.arange(new, dtype=torch.float64) + 0.5) * scale
    away = torch.arange(old, dtype=torch.float64) + 0.5 - middles[:, None]
    half = 0.5 * max(scale, 1.0)
    inside = ((away > -half) & (away <= half)).double()
    return inside / inside.sum(1, keepdim=True)


@gin.register
@dataclass(frozen=True)
class JPEGCompression(CommonCorruption):
    """Written and read as a JPEG file, by Pillow; the strength is the quality. On the CPU."""

    published: ClassVar[str] = "jpeg_compression"
    small: ClassVar[tuple[Any, ...]] = (80, 65, 58, 50, 40)
    large: ClassVar[tuple[Any, ...]] = (25, 18, 15, 10, 7)
    is_random: ClassVar[bool] = False

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        levels = (pixels * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
        images = np.stack([_through_jpeg(image, strength) for image in levels])
        return torch.from_numpy(images).permute(0, 3, 1, 2).to(pixels) / 255


def _through_jpeg(levels: np.ndarray, quality: int) -> np.ndarray:
    """(h, w, 1 or 3) uint8 -> the same, compressed."""
    file = io.BytesIO()
    Image.fromarray(levels.squeeze(2) if levels.shape[2] == 1 else levels).save(
        file, "JPEG", quality=quality
    )
    return np.asarray(Image.open(file, formats=("JPEG",))).reshape(levels.shape)


@gin.register
@dataclass(frozen=True)
class Saturate(CommonCorruption):
    """The saturation of HSV, times and plus the strength; one of the four extra corruptions.

    The first two severities take colour away, the others add it; grey counts as a faint red. So
    grey images stay as they are up to severity 3, and get a little darker then.
    """

    published: ClassVar[str] = "saturate"
    small: ClassVar[tuple[Any, ...]] = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))
    large: ClassVar[tuple[Any, ...]] = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))
    needs_colour: ClassVar[bool] = True
    is_random: ClassVar[bool] = False

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        factor, offset = strength
        value, lowest = pixels.amax(1, keepdim=True), pixels.amin(1, keepdim=True)
        spread = value - lowest
        before = spread / value.clamp(min=1e-12)
        lowered = value * (factor * before + offset).clamp(0, 1)  # of the lowest channel
        coloured = value - (value - pixels) * (lowered / spread)
        red = torch.tensor([0.0, 1.0, 1.0]).to(pixels)[:, None, None]
        return torch.where(spread > 0, coloured, value - lowered * red)
