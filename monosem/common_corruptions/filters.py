"""Filters of many images at once, made of few large products and gathers.

Tensors alone; the parts that use them are in `blur.py`, `weather.py` and `textures.py`. Matrices
depend on sides and strengths only and are made once.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

TRUNCATE = 4.0  # deviations that a Gaussian reaches, as in scipy.ndimage
NO_SIZE = 1e-9  # of the largest outer product of a kernel: rounding errors
NO_WEIGHT = 1e-7  # of a sum of weights that is 1: below the resolution of float32
FEW_PRODUCTS = 2  # outer products up to which they cost no more than cosine transforms
MANY_PIXELS = 1 << 16  # places of all images that are filtered or moved along lines at a time
PIXELS = 1 << 14  # the same, for sums of products: what they make stays in the cache
JOINED = 4  # neighbours in a row that are moved along lines together
KERNELS = 64  # what is made of a kernel is kept, of so many


def gaussian_blur(pixels: Tensor, sigma: float) -> Tensor:
    """A Gaussian of standard deviation `sigma` in pixels; the border is repeated outwards."""
    height, width = pixels.shape[-2:]
    return by_rows_and_columns(
        _gaussian_matrix(height, sigma), pixels, _gaussian_matrix(width, sigma)
    )


def by_rows_and_columns(rows: Tensor, pixels: Tensor, columns: Tensor) -> Tensor:
    """rows @ image @ columns.T of every image, a part of them at a time.

    pixels: (n, c, h, w)
    rows: (h, h)
    columns: (w, w)
    """
    rows, columns = rows.to(pixels), columns.to(pixels)
    result = torch.empty_like(pixels, memory_format=torch.contiguous_format)
    parts = (tensor.split(chunk(pixels, MANY_PIXELS)) for tensor in (pixels, result))
    for images, made in zip(*parts, strict=True):
        half = (images @ columns.T).flatten(0, 1)
        torch.bmm(rows.expand(len(half), -1, -1), half, out=made.flatten(0, 1))
    return result


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
    rows, columns = _outer_products(kernel, height, width)
    if len(rows) > FEW_PRODUCTS and _is_symmetric(kernel) and min(height, width) > 1:
        return _filter_by_cosines(pixels, kernel)
    return sum_of_products(rows, pixels, columns)


@functools.lru_cache(maxsize=KERNELS)
def _outer_products(kernel: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """(terms, h, h) and (terms, w, w), as `sum_of_products` takes them."""
    left, sizes, right = torch.linalg.svd(kernel.double())
    terms = range(int((sizes > NO_SIZE * sizes[0]).sum()))
    rows = [_mirroring_matrix(height, left[:, term] * sizes[term]) for term in terms]
    columns = [_mirroring_matrix(width, right[term]) for term in terms]
    return torch.stack(rows), torch.stack(columns)


@functools.lru_cache(maxsize=KERNELS)
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
    rows, back_rows = _cosines(height)
    columns, back_columns = _cosines(width)
    spectrum = by_rows_and_columns(back_rows, pixels, back_columns)
    spectrum.mul_(_gains(kernel, height, width).to(pixels))
    return by_rows_and_columns(rows, spectrum, columns)


@functools.lru_cache(maxsize=KERNELS)
def _gains(kernel: Tensor, height: int, width: int) -> Tensor:
    """(h, w): what the product of two cosines is multiplied by."""
    reach = kernel.shape[0] // 2
    down, right = (_waves(side, torch.arange(-reach, reach + 1)) for side in (height, width))
    return down @ kernel.double() @ right.T


@functools.cache
def _cosines(side: int) -> tuple[Tensor, Tensor]:
    """(side, side): the cosines of all frequencies, one in every column; and the inverse."""
    cosines = _waves(side, torch.arange(side)).T
    return cosines, torch.linalg.inv(cosines)


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
    steps = torch.arange(2 * radius + 1)
    weights = torch.exp(-0.5 * (steps / sigma).double() ** 2)
    weights = weights / weights.sum()
    steps, weights = steps[weights > NO_WEIGHT], weights[weights > NO_WEIGHT].to(pixels)
    radians = angles.double().deg2rad()[:, None]
    moves = [
        (steps * along - 0.5).ceil().int().to(pixels.device)  # (n, steps)
        for along in (radians.sin(), radians.cos())
    ]
    blurred = torch.empty_like(pixels, memory_format=torch.contiguous_format)
    parts = (tensor.split(chunk(pixels, MANY_PIXELS)) for tensor in (blurred, pixels, *moves))
    for result, images, down, right in zip(*parts, strict=True):
        result.copy_(_moved_sum(images, down, right, weights))
    return blurred


def _moved_sum(pixels: Tensor, down: Tensor, right: Tensor, weights: Tensor) -> Tensor:
    """The sum over steps of weights times images that are moved as a whole.

    Neighbours in a row move together, as one word that is a row of a table: for every step a word
    of the table is added to each word of the result.

    down, right: (n, steps) int32, where the pixels come from.
    """
    n, channels, height, width = pixels.shape

    def numbers(count: int) -> Tensor:
        return torch.arange(count, dtype=torch.int32, device=pixels.device)[:, None]

    words = -(-width // JOINED)  # of a row
    table = _words(pixels, words)
    rows = (numbers(height) + down[:, None]).clamp_(0, height - 1)  # (n, h, steps)
    rows.add_(height * numbers(n)[:, None]).mul_(words + 2)
    starts = (JOINED * numbers(words) + right[:, None]).clamp_(-JOINED, width - 1) + JOINED
    columns = starts // JOINED + starts % JOINED * (len(table) // JOINED)  # (n, words, steps)
    places = (rows[:, :, None] + columns[:, None]).flatten(0, 2)
    shares = weights.expand(len(places), -1).contiguous()
    sums = F.embedding_bag(places, table, mode="sum", per_sample_weights=shares)
    return sums.view(n, height, -1, channels)[:, :, :width].permute(0, 3, 1, 2)


def _words(pixels: Tensor, words: int) -> Tensor:
    """(JOINED * n * h * (words + 2), JOINED * c): pixels that are neighbours in a row, as one row.

    Those words come first that begin at the border of an image, one word of border pixels before
    it, and end one word after it; then those that begin one pixel later, and so on.
    """
    channels, width = pixels.shape[1], pixels.shape[3]
    after = JOINED * (words + 1) - width
    padded = F.pad(pixels, (JOINED, after, 0, 0), mode="replicate").permute(0, 2, 3, 1)
    line = F.pad(padded.flatten(), (0, JOINED * channels))
    later = line.unfold(0, padded.numel(), channels)[:JOINED]
    return torch.cat(list(later)).view(-1, JOINED * channels)


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
