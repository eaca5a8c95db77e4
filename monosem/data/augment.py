"""Augmentations of images: batched tensor code on their device, one random draw per image.

Each maps images (n, c, h, w) in [0, 1] to the same; all randomness is from the generator it gets.
Cropping, resizing and blurring are linear along one axis at a time: two small matrices per image.
That is exact, runs as a batched GEMM on any device, and antialiases as PIL does.

    images    (n, c, h, w)
    rows      (n, h', h)      each new row as weights of the old ones
    columns   (n, w', w)      each new column as weights of the old ones
    rows[:, None] @ images @ columns[:, None].mT      (n, c, h', w')
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import gin
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from monosem.core.fields import AtLeastZero, Count, Fraction, Positive
from monosem.data.dataset import Augmentation, Dataset
from monosem.data.images import ImageDataset

TRIES = 10  # boxes drawn per image until one fits, as in torchvision
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R 601), as in PIL's convert("L")


@dataclass(frozen=True)
class ImageAugmentation(Augmentation):
    """A random change of images: (n, c, h, w) in [0, 1] -> the same."""

    def incompatibility(self, data: Dataset) -> str | None:
        if isinstance(data, ImageDataset):
            return None
        return f"must be of images, which {type(self).__name__} changes, got {type(data).__name__}"


def uniform(low: float, high: float, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Uniform in [low, high), on the device of the generator."""
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def chance(probability: float, n: int, generator: Generator) -> Tensor:
    """(n, 1, 1, 1) booleans, each True with `probability`."""
    return uniform(0, 1, (n, 1, 1, 1), generator) < probability


def separable(rows: Tensor, images: Tensor, columns: Tensor) -> Tensor:
    """Apply rows (n, h', h) and columns (n, w', w) to images (n, c, h, w)."""
    return rows[:, None] @ images @ columns[:, None].mT


class Boxes(NamedTuple):
    """A part of each image: (n,) whole numbers of pixels each, as floats."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


@gin.register
@dataclass(frozen=True)
class RandomResizedCrop(ImageAugmentation):
    """Crop a random area with a random aspect ratio, and resize it.

    Boxes are distributed as torchvision's, filters are PIL's, antialiased.

    scale: share of the area that is kept, from and to.
    ratio: width / height, from and to, log-uniform.
    size: side of the result in pixels; None keeps the size of the images.
    interpolation: the filter.
    """

    scale: tuple[Positive, Positive] = (0.08, 1.0)
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    size: Count | None = None
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def validate(self) -> None:
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if low > high:
                self.refuse(name, f"must go from the smaller to the larger, got {(low, high)}")
        if self.scale[1] > 1:
            self.refuse("scale", f"must be at most 1, the whole area, got {self.scale}")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        height, width = images.shape[-2:]
        boxes = self.boxes(len(images), height, width, generator)
        size = (self.size, self.size) if self.size else (height, width)
        return resized_crop(images, boxes, size, self.interpolation)

    def boxes(self, n: int, height: int, width: int, generator: Generator) -> Boxes:
        """The first of TRIES random boxes that fits, for each of n images.

        Where none fits, the largest box in the middle that `ratio` allows.
        """
        area = height * width * uniform(*self.scale, (TRIES, n), generator)
        low, high = map(math.log, self.ratio)
        ratio = uniform(low, high, (TRIES, n), generator).exp()
        widths = (area * ratio).sqrt().round()
        heights = (area / ratio).sqrt().round()
        fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
        first = fits.int().argmax(0, keepdim=True)  # (1, n)
        any_fits = fits.any(0)
        largest_height, largest_width = self._largest_box(height, width)
        w = torch.where(any_fits, widths.gather(0, first)[0], float(largest_width))
        h = torch.where(any_fits, heights.gather(0, first)[0], float(largest_height))
        down, right = uniform(0, 1, (2, n), generator)
        top = torch.where(any_fits, (down * (height - h + 1)).floor(), ((height - h) / 2).floor())
        left = torch.where(any_fits, (right * (width - w + 1)).floor(), ((width - w) / 2).floor())
        return Boxes(top, left, h, w)

    def _largest_box(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the largest box in an image that `ratio` allows."""
        lowest, highest = self.ratio
        if width / height < lowest:
            return max(1, round(width / lowest)), width
        if width / height > highest:
            return height, max(1, round(height * highest))
        return height, width


def resized_crop(images: Tensor, boxes: Boxes, size: tuple[int, int], interpolation: str) -> Tensor:
    """Resample the boxes of images (n, c, h, w) in [0, 1] to (n, c, *size)."""
    height, width = images.shape[-2:]
    rows = resize_matrix(boxes.top, boxes.height, height, size[0], interpolation)
    columns = resize_matrix(boxes.left, boxes.width, width, size[1], interpolation)
    # PIL too clips what a bicubic filter overshoots between the two passes.
    resized_columns = (images @ columns[:, None].mT).clamp(0, 1)
    return (rows[:, None] @ resized_columns).clamp(0, 1)


def resize_matrix(
    start: Tensor, length: Tensor, size_in: int, size_out: int, interpolation: str
) -> Tensor:
    """(n, size_out, size_in): resamples pixels start to start + length to size_out pixels.

    As in PIL, the filter widens when it shrinks (antialiasing); pixels outside have no weight.

    start: (n,).
    length: (n,).
    Returns rows that sum to 1.
    """
    kernel = _cubic if interpolation == "bicubic" else _triangle
    start, end = start[:, None, None], (start + length)[:, None, None]
    scale = (length / size_out)[:, None, None]
    pixels_in = torch.arange(size_in, device=start.device) + 0.5  # their centres
    pixels_out = torch.arange(size_out, device=start.device)[:, None] + 0.5
    inside = (pixels_in > start) & (pixels_in < end)
    distance = pixels_in - (start + pixels_out * scale)  # (n, size_out, size_in)
    weights = kernel(distance / scale.clamp(min=1)) * inside
    return weights / weights.sum(-1, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5, PIL's bicubic."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _triangle(x: Tensor) -> Tensor:
    """PIL's bilinear."""
    return (1 - x.abs()).clamp(min=0)


@gin.register
@dataclass(frozen=True)
class RandomHorizontalFlip(ImageAugmentation):
    """Mirror left and right. Not for digits, letters or anything else that a mirror changes.

    probability: the share of images that are mirrored.
    """

    probability: Fraction = 0.5

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        is_flipped = chance(self.probability, len(images), generator)
        return torch.where(is_flipped, images.flip(-1), images)


@gin.register
@dataclass(frozen=True)
class RandomRotation(ImageAugmentation):
    """Turn by a random angle, bilinear; what comes in from outside is black.

    degrees: the angle is uniform in [-degrees, degrees].
    """

    degrees: AtLeastZero = 10.0

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        angle = uniform(-self.degrees, self.degrees, (len(images),), generator) * math.pi / 180
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        # affine_grid counts in half sides: the turn of a non-square image carries its aspect ratio.
        height, width = images.shape[-2:]
        x = torch.stack([cos, -sin * height / width, zero], 1)
        y = torch.stack([sin * width / height, cos, zero], 1)
        theta = torch.stack([x, y], 1).to(images.dtype)  # (n, 2, 3)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, align_corners=False)


def grayscale(images: Tensor) -> Tensor:
    """Luma: (n, 3, h, w) -> (n, 1, h, w). Images of one channel are returned as they are."""
    if images.shape[1] == 1:
        return images
    luma = torch.tensor(LUMA, dtype=images.dtype, device=images.device)
    return (images * luma[:, None, None]).sum(1, keepdim=True)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """A factor of 1 leaves the images, 0 gives `other`, more than 1 goes away from it."""
    return (factor * images + (1 - factor) * other).clamp(0, 1)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """factor: (n, 1, 1, 1), 0 is black."""
    return _blend(images, torch.zeros_like(images), factor)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """factor: (n, 1, 1, 1), 0 is the mean luma of each image."""
    return _blend(images, grayscale(images).mean((-3, -2, -1), keepdim=True), factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """factor: (n, 1, 1, 1), 0 is grey."""
    return _blend(images, grayscale(images), factor)


def adjust_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Rotate the hue in HSV. Images of one channel have none.

    turn: (n, 1, 1, 1), in whole turns.
    """
    if images.shape[1] == 1:
        return images
    value = images.amax(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    hue = _hue(images, value, chroma) + turn
    # The HSV cone unrolled, with k = (offset + 6 hue) mod 6:
    # channel = value - chroma * clamp(min(k, 4 - k), 0, 1)
    offsets = torch.tensor([5.0, 3.0, 1.0], dtype=images.dtype, device=images.device)
    k = (offsets[:, None, None] + 6 * hue) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def _hue(images: Tensor, value: Tensor, chroma: Tensor) -> Tensor:
    """(n, 1, h, w) in turns, from -1/6 to 5/6; 0 is red."""
    red, green, blue = (channel[:, None] for channel in images.unbind(1))
    divisor = chroma.clamp(min=1e-12)
    near_red = (green - blue) / divisor
    near_green = 2 + (blue - red) / divisor
    near_blue = 4 + (red - green) / divisor
    return (
        torch.where(value == red, near_red, torch.where(value == green, near_green, near_blue)) / 6
    )


@gin.register
@dataclass(frozen=True)
class ColorJitter(ImageAugmentation):
    """Change brightness, contrast, saturation and hue at random (torchvision's ColorJitter).

    They come in random order, drawn for each image.

    brightness: s draws a factor from [max(0, 1 - s), 1 + s].
    contrast: likewise.
    saturation: likewise.
    hue: h turns by up to h of the circle, in either direction; at most 0.5.
    probability: the share of images that are changed at all.
    """

    brightness: AtLeastZero = 0.8
    contrast: AtLeastZero = 0.8
    saturation: AtLeastZero = 0.8
    hue: Fraction = 0.2
    probability: Fraction = 0.8

    def validate(self) -> None:
        if self.hue > 0.5:
            self.refuse("hue", f"must be at most 0.5, half the circle, got {self.hue}")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        n = len(images)
        adjustments = self._draw(n, generator)
        order = torch.rand((n, 4), generator=generator, device=generator.device).argsort(1)
        changed = images.clone()
        for turn in range(4):
            for position, (adjust, amount) in enumerate(adjustments):
                now = (order[:, turn] == position).nonzero()[:, 0]  # images whose turn it is
                changed[now] = adjust(changed[now], amount[now])
        return torch.where(chance(self.probability, n, generator), changed, images)

    def _draw(self, n: int, generator: Generator) -> list[tuple[Adjustment, Tensor]]:
        """The four adjustments and the amount (n, 1, 1, 1) of each."""
        strengths: list[tuple[Adjustment, float]] = [
            (adjust_brightness, self.brightness),
            (adjust_contrast, self.contrast),
            (adjust_saturation, self.saturation),
        ]
        adjustments: list[tuple[Adjustment, Tensor]] = []
        for adjust, strength in strengths:
            factor = uniform(max(0, 1 - strength), 1 + strength, (n, 1, 1, 1), generator)
            adjustments.append((adjust, factor))
        turn = uniform(-self.hue, self.hue, (n, 1, 1, 1), generator)
        return [*adjustments, (adjust_hue, turn)]


Adjustment = Callable[[Tensor, Tensor], Tensor]


@gin.register
@dataclass(frozen=True)
class RandomGrayscale(ImageAugmentation):
    """Drop the colour.

    probability: the share of images that lose it.
    """

    probability: Fraction = 0.2

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        is_grey = chance(self.probability, len(images), generator)
        return torch.where(is_grey, grayscale(images).expand_as(images), images)


@gin.register
@dataclass(frozen=True)
class GaussianBlur(ImageAugmentation):
    """Blur as PIL's ImageFilter.GaussianBlur does: three box filters in a row.

    The width of a box may be a fraction of a pixel.

    sigma: from and to, in pixels, uniform.
    probability: the share of images that are blurred.
    """

    sigma: tuple[Positive, Positive] = (0.1, 2.0)
    probability: Fraction = 0.5

    def validate(self) -> None:
        if self.sigma[0] > self.sigma[1]:
            self.refuse("sigma", f"must go from the smaller to the larger, got {self.sigma}")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        height, width = images.shape[-2:]
        sigma = uniform(*self.sigma, (len(images),), generator)
        blurred = separable(blur_matrix(sigma, height), images, blur_matrix(sigma, width))
        is_blurred = chance(self.probability, len(images), generator)
        return torch.where(is_blurred, blurred, images)


def blur_matrix(sigma: Tensor, size: int, passes: int = 3) -> Tensor:
    """(n, size, size): Gaussians as extended box filters in a row (Gwosdek et al., SSVM 2011).

    One box has full weight on 2l + 1 pixels and the fraction `a` on the two beside them. Both are
    chosen so that the variance of all passes together is sigma^2. Pixels beyond the edge repeat it.

    sigma: (n,), in pixels.
    passes: number of boxes.
    """
    variance = (sigma.double() ** 2 / passes)[:, None, None]
    l = (((12 * variance + 1).sqrt() - 1) / 2).floor()  # noqa: E741, the paper's letter
    a = (2 * l + 1) * (l * (l + 1) - 3 * variance) / (6 * (variance - (l + 1) ** 2))
    reach = int(l.max()) + 1
    offset = torch.arange(-reach, reach + 1, device=sigma.device)
    # (n, 1, 2 reach + 1) the box, and (size, 2 reach + 1) the pixels under it at each position
    box = ((offset.abs() <= l) + a * (offset.abs() == l + 1)) / (2 * l + 1 + 2 * a)
    pixels = (torch.arange(size, device=sigma.device)[:, None] + offset).clamp(0, size - 1)
    matrix = torch.zeros(len(sigma), size, size, dtype=torch.float64, device=sigma.device)
    matrix.scatter_add_(2, pixels.expand(len(sigma), -1, -1), box.expand(-1, size, -1))
    return torch.linalg.matrix_power(matrix, passes).to(sigma.dtype)
