"""Filters of many images at once, made of few large products and gathers.

Tensors alone; the parts that use them are in `blur.py`, `weather.py` and `textures.py`. Matrices
depend on sides and strengths only and are made once.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

TRUNCATE = 4.0  # deviations that a Gaussian reaches, as in scipy.ndimage
NO_SIZE = 1e-9  # of the largest outer product of a kernel: rounding errors
NO_WEIGHT = 1e-7  # of a sum of weights that is 1: below the resolution of float32
FEW_PRODUCTS = 2  # outer products up to which they cost no more than cosine transforms
MOVED_PIXELS = 1 << 16  # places of all images that are moved along lines at a time
PIXELS = 1 << 14  # the same, for sums of products: what they make stays in the cache


def gaussian_blur(pixels: Tensor, sigma: float) -> Tensor:
    """A Gaussian of standard deviation `sigma` in pixels; the border is repeated outwards."""
    height, width = pixels.shape[-2:]
    rows = _gaussian_matrix(height, sigma).to(pixels)
    columns = _gaussian_matrix(width, sigma).to(pixels)
    return rows @ (pixels @ columns.T)


@functools.cache
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


def mirrored(positions: Tensor, side: int) -> Tensor:
    """Positions outside of 0 to side - 1, mirrored at the first and the last one."""
    period = max(2 * (side - 1), 1)
    inside = positions % period
    return torch.minimum(inside, period - inside) if side > 1 else torch.zeros_like(positions)


def filter_images(pixels: Tensor, kernel: Tensor) -> Tensor:
    """Every channel filtered by a kernel (k, k), k odd; mirrored at the middle of border pixels.

    The kernel is taken apart into a sum of outer products, few for a kernel with symmetries: each
    of them filters along rows and columns by a product. Where there are many, and the kernel is the
    same in all four quarters, cosine transforms of the mirrored image do it, by four products.
    """
    height, width = pixels.shape[-2:]
    left, sizes, right = torch.linalg.svd(kernel.double())
    terms = range(int((sizes > NO_SIZE * sizes[0]).sum()))
    if len(terms) > FEW_PRODUCTS and _is_symmetric(kernel) and min(height, width) > 1:
        return _filter_by_cosines(pixels, kernel.double())
    rows = torch.stack([_mirroring_matrix(height, left[:, term] * sizes[term]) for term in terms])
    columns = torch.stack([_mirroring_matrix(width, right[term]) for term in terms])
    return sum_of_products(rows, pixels, columns)


def _is_symmetric(kernel: Tensor) -> bool:
    turned = (kernel.flip(0), kernel.flip(1))
    return all(torch.allclose(kernel, one, rtol=0, atol=NO_SIZE) for one in turned)


def sum_of_products(rows: Tensor, pixels: Tensor, columns: Tensor) -> Tensor:
    """The sum over terms of rows @ image @ columns.T, of every image.

    rows: (terms, h, h)
    columns: (terms, w, w)
    """
    # One product makes the rows of all terms, side by side; the other one adds up their columns.
    terms, height, width = len(rows), *pixels.shape[-2:]
    stacked = rows.transpose(0, 1).flatten(0, 1).to(pixels)  # (h * terms, h)
    joined = columns.mT.flatten(0, 1).to(pixels)  # (terms * w, w)
    filtered = torch.empty_like(pixels, memory_format=torch.contiguous_format)
    parts = (tensor.split(chunk(pixels, PIXELS)) for tensor in (pixels, filtered))
    for images, result in zip(*parts, strict=True):
        side_by_side = (stacked @ images).reshape(*images.shape[:2], height, terms * width)
        result.copy_(side_by_side @ joined)
    return filtered


def _mirroring_matrix(side: int, weights: Tensor) -> Tensor:
    """(side, side): filters a column of pixels by a product."""
    radius = len(weights) // 2
    sources = mirrored(torch.arange(side)[:, None] + torch.arange(-radius, radius + 1), side)
    matrix = torch.zeros(side, side, dtype=weights.dtype)
    return matrix.scatter_add_(1, sources, weights.expand(side, -1))


def _filter_by_cosines(pixels: Tensor, kernel: Tensor) -> Tensor:
    """An image that is mirrored at the middle of border pixels is a sum of products of cosines.

    A kernel with this symmetry multiplies every one of them by a number.
    """
    height, width = pixels.shape[-2:]
    rows, columns = _cosines(height), _cosines(width)
    reach = kernel.shape[0] // 2
    down, right = (_waves(side, torch.arange(-reach, reach + 1)) for side in (height, width))
    gains = (down @ kernel @ right.T).to(pixels)
    back_rows, back_columns = (torch.linalg.inv(matrix).to(pixels) for matrix in (rows, columns))
    spectrum = back_rows @ (pixels @ back_columns.T)
    return rows.to(pixels) @ (spectrum.mul_(gains) @ columns.T.to(pixels))


@functools.cache
def _cosines(side: int) -> Tensor:
    """(side, side): the cosines of all frequencies, one in every column."""
    return _waves(side, torch.arange(side)).T


def _waves(side: int, positions: Tensor) -> Tensor:
    """(side, positions): cosines that are mirrored at positions 0 and side - 1."""
    return torch.cos(math.pi / (side - 1) * torch.arange(side).double()[:, None] * positions)


def motion_blur(pixels: Tensor, radius: int, sigma: float, angles: Tensor) -> Tensor:
    """Blur every image along a line of its own; the border is repeated outwards.

    pixels: (n, c, h, w)
    radius: half the length of the line, in pixels.
    sigma: the standard deviation along it, in pixels.
    angles: (n,) degrees; 0 looks to the right, 90 down.
    """
    height, width = pixels.shape[-2:]
    steps = torch.arange(2 * radius + 1)
    weights = torch.exp(-0.5 * (steps / sigma).double() ** 2)
    weights = weights / weights.sum()
    steps, weights = steps[weights > NO_WEIGHT], weights[weights > NO_WEIGHT]
    radians = angles.double().deg2rad()[:, None, None]
    down = (steps[:, None] * radians.sin() - 0.5).ceil().long()  # (n, steps, 1)
    right = (steps[:, None] * radians.cos() - 0.5).ceil().long()
    rows = (torch.arange(height) + down).clamp_(0, height - 1) * width  # (n, steps, h)
    columns = (torch.arange(width) + right).clamp_(0, width - 1)
    rows, columns = rows[..., None].to(pixels.device), columns[:, :, None].to(pixels.device)
    words = joined_channels(pixels).flatten(1)
    total = torch.zeros_like(words)
    size = chunk(pixels, MOVED_PIXELS)
    for start in range(0, len(pixels), size):
        part = slice(start, start + size)
        sums = total[part].view(pixels.dtype)
        for step, weight in enumerate(weights.tolist()):
            places = (rows[part, step] + columns[part, step]).flatten(1)
            sums.add_(words[part].gather(1, places).view(pixels.dtype), alpha=weight)
    return split_channels(total.view(pixels.dtype), pixels.shape)


def joined_channels(pixels: Tensor) -> Tensor:
    """(n, 1 or 3, h, w) -> (n, h, w) words that hold all channels, so that one gather moves all.

    The word of three channels of float32 is as wide as a complex number of float64.
    """
    if pixels.shape[1] == 1:
        return pixels[:, 0]
    words = pixels.new_zeros(len(pixels), *pixels.shape[-2:], 4)
    words[..., :3] = pixels.permute(0, 2, 3, 1)
    return words.view(torch.complex128).squeeze(-1)


def split_channels(words: Tensor, shape: torch.Size) -> Tensor:
    """Numbers of gathered words, of one or four a pixel -> pixels of a shape (n, c, h, w)."""
    n, channels, height, width = shape
    pixels = words.reshape(n, height, width, -1)[..., :channels]
    return pixels.permute(0, 3, 1, 2).contiguous()


def chunk(pixels: Tensor, places: int) -> int:
    """How many images have so many places altogether; at least one."""
    return max(places // pixels.shape[-2:].numel(), 1)


@functools.cache
def zoom_matrix(side: int, factor: float) -> Tensor:
    """(side, side): zooms into the middle of a column of pixels by a product, linearly."""
    crop = math.ceil(side / factor)
    zoomed = round(crop * factor)
    start, trimmed = (side - crop) // 2, (zoomed - side) // 2
    positions = torch.arange(trimmed, trimmed + side, dtype=torch.float64)
    positions = start + positions * (crop - 1) / max(zoomed - 1, 1)
    pixels = torch.arange(side, dtype=torch.float64)
    return (1 - (positions[:, None] - pixels).abs()).clamp(min=0)
