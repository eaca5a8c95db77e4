"""Augmentations: batched tensor code on the device of the images, one random draw per image.

Every augmentation maps images (n, c, h, w) in [0, 1] to the same, with randomness from the generator it is handed.
Cropping, resizing and blurring are linear maps along one axis at a time, so each is a pair of small matrices per image:
out = R @ image @ C^T. That is exact, runs as a batched GEMM on any device, and antialiases as PIL does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import gin
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from monosem.core.fields import AtLeastZero, Count, Fraction, Positive
from monosem.data.dataset import Augmentation


def uniform(low: float, high: float, shape: tuple[int, ...] | int, generator: Generator) -> Tensor:
    shape = (shape,) if isinstance(shape, int) else shape
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def chance(probability: float, n: int, generator: Generator) -> Tensor:
    """(n, 1, 1, 1) booleans, each True with `probability`."""
    return uniform(0, 1, (n, 1, 1, 1), generator) < probability


def separable(rows: Tensor, images: Tensor, columns: Tensor) -> Tensor:
    """Apply (n, out_h, h) along the height and (n, out_w, w) along the width of (n, c, h, w)."""
    return rows[:, None] @ images @ columns[:, None].mT


# ------------------------------------------------------------------------------------------------ geometry


@gin.register
@dataclass(frozen=True)
class RandomResizedCrop(Augmentation):
    """Crop a random area with a random aspect ratio and resize it (torchvision's distribution, PIL's antialiased filters).

    scale: share of the area that is kept, from and to. ratio: width / height, from and to, log-uniform.
    size: side of the result in pixels; None keeps the size of the images.
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
        top, left, h, w = self.boxes(len(images), height, width, generator)
        size = (self.size, self.size) if self.size else (height, width)
        return resized_crop(images, (top, left, h, w), size, self.interpolation)

    def boxes(
        self, n: int, height: int, width: int, generator: Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """top, left, height, width: (n,) whole numbers as floats. Ten tries each; failing those, the largest central crop."""
        area = height * width * uniform(*self.scale, (10, n), generator)
        ratio = uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), (10, n), generator).exp()
        w, h = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (w >= 1) & (w <= width) & (h >= 1) & (h <= height)
        first = fits.int().argmax(0)  # the first try that fits
        found = fits.any(0)
        whole = width / height
        w = torch.where(
            found,
            w.gather(0, first[None])[0],
            float(width if whole <= self.ratio[1] else max(1, round(height * self.ratio[1]))),
        )
        h = torch.where(
            found,
            h.gather(0, first[None])[0],
            float(height if whole >= self.ratio[0] else max(1, round(width / self.ratio[0]))),
        )
        draw = uniform(0, 1, (2, n), generator)
        top = torch.where(found, (draw[0] * (height - h + 1)).floor(), ((height - h) / 2).floor())
        left = torch.where(found, (draw[1] * (width - w + 1)).floor(), ((width - w) / 2).floor())
        return top, left, h, w


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5, PIL's bicubic."""
    x = x.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def resized_crop(
    images: Tensor,
    box: tuple[Tensor, Tensor, Tensor, Tensor],
    size: tuple[int, int],
    interpolation: str,
) -> Tensor:
    """(n, c, h, w) in [0, 1] and top, left, height, width (n,) -> (n, c, *size)."""
    top, left, height, width = box
    rows = resize_matrix(top, height, images.shape[-2], size[0], interpolation)
    columns = resize_matrix(left, width, images.shape[-1], size[1], interpolation)
    wide = (images @ columns[:, None].mT).clamp(
        0, 1
    )  # PIL too clips what a bicubic overshoots between the two passes
    return (rows[:, None] @ wide).clamp(0, 1)


def resize_matrix(
    start: Tensor, length: Tensor, size_in: int, size_out: int, interpolation: str
) -> Tensor:
    """(n, size_out, size_in): resamples pixels start .. start + length (both (n,)) to size_out pixels; rows sum to 1.

    As PIL: the filter widens when it shrinks (antialiasing), and pixels outside the crop have no weight.
    """
    kernel = _cubic if interpolation == "bicubic" else _triangle
    scale = (length / size_out)[:, None, None]
    pixels = torch.arange(size_in, device=start.device) + 0.5
    centres = (
        start[:, None, None] + (torch.arange(size_out, device=start.device)[:, None] + 0.5) * scale
    )
    inside = (pixels > start[:, None, None]) & (pixels < (start + length)[:, None, None])
    weights = kernel((pixels - centres) / scale.clamp(min=1)) * inside
    return weights / weights.sum(-1, keepdim=True)


@gin.register
@dataclass(frozen=True)
class RandomHorizontalFlip(Augmentation):
    """Mirror left and right. Not for digits, letters or anything else that a mirror changes."""

    probability: Fraction = 0.5

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        return torch.where(
            chance(self.probability, len(images), generator), images.flip(-1), images
        )


@gin.register
@dataclass(frozen=True)
class RandomRotation(Augmentation):
    """Turn by an angle uniform in [-degrees, degrees], bilinear; what comes in from outside is black."""

    degrees: AtLeastZero = 10.0

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        angle = uniform(-self.degrees, self.degrees, len(images), generator) * math.pi / 180
        height, width = images.shape[-2:]
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        # affine_grid works in units of half a side, so a turn of a non-square image carries the aspect ratio
        theta = torch.stack(
            [cos, -sin * height / width, zero, sin * width / height, cos, zero], 1
        ).reshape(-1, 2, 3)
        grid = F.affine_grid(theta.to(images.dtype), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, align_corners=False)


# ------------------------------------------------------------------------------------------------ colour and blur


def grayscale(images: Tensor) -> Tensor:
    """ITU-R 601 luma, as PIL's convert('L'): (n, 3, h, w) -> (n, 1, h, w); one channel is returned as it is."""
    if images.shape[1] == 1:
        return images
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=images.dtype, device=images.device)
    return (images * luma[:, None, None]).sum(1, keepdim=True)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * images + (1 - factor) * other).clamp(0, 1)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, torch.zeros_like(images), factor)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, grayscale(images).mean((-3, -2, -1), keepdim=True), factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, grayscale(images), factor)


def adjust_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Rotate the hue in HSV by `turn` (n, 1, 1, 1), in whole turns. One channel has no hue."""
    if images.shape[1] == 1:
        return images
    value, lowest = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    chroma = value - lowest
    red, green, blue = (channel[:, None] for channel in images.unbind(1))
    scaled = [part / chroma.clamp(min=1e-12) for part in (green - blue, blue - red, red - green)]
    is_red, is_green = value == red, (value == green) & (value != red)
    hue = (
        torch.where(is_red, scaled[0], torch.where(is_green, 2 + scaled[1], 4 + scaled[2])) / 6
        + turn
    )
    # the HSV cone unrolled: channel = value - chroma * clamp(min(k, 4 - k), 0, 1), k = (offset + 6 hue) mod 6
    offsets = torch.tensor([5.0, 3.0, 1.0], dtype=images.dtype, device=images.device)[:, None, None]
    k = (offsets + 6 * hue) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


@gin.register
@dataclass(frozen=True)
class ColorJitter(Augmentation):
    """Brightness, contrast, saturation and hue, each by a random factor, in random order per image (torchvision's ColorJitter).

    brightness, contrast, saturation: s draws a factor from [max(0, 1 - s), 1 + s]. hue: h turns by up to h of the circle.
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
        steps: list[tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = [
            (adjust, uniform(max(0, 1 - strength), 1 + strength, (n, 1, 1, 1), generator))
            for adjust, strength in (
                (adjust_brightness, self.brightness),
                (adjust_contrast, self.contrast),
                (adjust_saturation, self.saturation),
            )
        ]
        steps.append((adjust_hue, uniform(-self.hue, self.hue, (n, 1, 1, 1), generator)))
        order = torch.rand((n, 4), generator=generator, device=generator.device).argsort(1)
        changed = images.clone()
        for turn in range(4):
            for step, (adjust, amount) in enumerate(steps):
                mine = (order[:, turn] == step).nonzero()[:, 0]
                changed[mine] = adjust(changed[mine], amount[mine])
        return torch.where(chance(self.probability, n, generator), changed, images)


@gin.register
@dataclass(frozen=True)
class RandomGrayscale(Augmentation):
    """Drop the colour."""

    probability: Fraction = 0.2

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        return torch.where(
            chance(self.probability, len(images), generator),
            grayscale(images).expand_as(images),
            images,
        )


@gin.register
@dataclass(frozen=True)
class GaussianBlur(Augmentation):
    """Blur as PIL's ImageFilter.GaussianBlur does: three box filters in a row whose width may be a fraction of a pixel.

    sigma: from and to, in pixels, uniform.
    """

    sigma: tuple[Positive, Positive] = (0.1, 2.0)
    probability: Fraction = 0.5

    def validate(self) -> None:
        if self.sigma[0] > self.sigma[1]:
            self.refuse("sigma", f"must go from the smaller to the larger, got {self.sigma}")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        sigma = uniform(*self.sigma, len(images), generator)
        rows, columns = (blur_matrix(sigma, size) for size in images.shape[-2:])
        return torch.where(
            chance(self.probability, len(images), generator),
            separable(rows, images, columns),
            images,
        )


def blur_matrix(sigma: Tensor, size: int, passes: int = 3) -> Tensor:
    """(n, size, size): Gaussian of `sigma` (n,) pixels as `passes` extended box filters (Gwosdek et al., SSVM 2011).

    One box has full weight on 2l + 1 pixels and the fraction `a` on the two beside them, chosen so that the variance of
    all passes together is sigma^2. Pixels beyond the edge repeat the edge.
    """
    variance = (sigma.double() ** 2 / passes)[:, None, None]
    l = (((12 * variance + 1).sqrt() - 1) / 2).floor()  # noqa: E741, the paper's letter
    a = (2 * l + 1) * (l * (l + 1) - 3 * variance) / (6 * (variance - (l + 1) ** 2))
    reach = int(l.max()) + 1
    offset = torch.arange(-reach, reach + 1, device=sigma.device)
    weight = ((offset.abs() <= l) + a * (offset.abs() == l + 1)) / (
        2 * l + 1 + 2 * a
    )  # (n, 1, 2 reach + 1)
    source = (torch.arange(size, device=sigma.device)[:, None] + offset).clamp(
        0, size - 1
    )  # (size, 2 reach + 1)
    box = torch.zeros(len(sigma), size, size, dtype=torch.float64, device=sigma.device)
    box.scatter_add_(2, source.expand(len(sigma), -1, -1), weight.expand(-1, size, -1))
    return torch.linalg.matrix_power(box, passes).to(sigma.dtype)
