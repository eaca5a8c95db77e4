"""The weather of the common corruptions: snow, frost, fog, brightness, and spatter besides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gin
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from monosem.common_corruptions.base import (
    LARGEST_SMALL_SIDE,
    CommonCorruption,
    luma,
    to_8_bits,
)
from monosem.common_corruptions.filters import (
    by_rows_and_columns,
    gaussian_blur,
    motion_blur,
    zoom_matrix,
)
from monosem.common_corruptions.textures import frost_crops, plasma, water

FROST_SHRINK = 0.2  # of the textures for small images
FALL, SWAY = -90.0, 45.0  # degrees: the middle of the angles of snow, and how far they may go
WHITEN = (1.5, 0.5)  # a whitened pixel is 1.5 times its grey value, and 0.5 more
WATER = (175, 238, 238)  # grey levels of red, green and blue; pale turquoise
MUD = (63, 42, 20)
THINNEST_MUD = 0.8  # thinner mud is none


def normal_layer(pixels: Tensor, generator: Generator) -> Tensor:
    """N(0, 1) for every place (n, 1, h, w), drawn on the CPU."""
    n, _, height, width = pixels.shape
    return torch.randn(n, 1, height, width, generator=generator).to(pixels)


@gin.register
@dataclass(frozen=True)
class Snow(CommonCorruption):
    """Flakes that fall, twice, the second time turned by 180 degrees, on a whitened image.

    The strength is (mean, deviation, zoom, threshold, radius, sigma, share): flakes are normal
    noise, zoomed, nothing below the threshold, blurred by motion of that radius and sigma in
    pixels; the share of the image is not whitened. All severities share noise and angle.
    """

    published: ClassVar[str] = "snow"
    small: ClassVar[tuple[Any, ...]] = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )
    large: ClassVar[tuple[Any, ...]] = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        *flakes, share = strength
        normal = normal_layer(pixels, generator)
        uniform = torch.rand(len(pixels), generator=generator, dtype=torch.float64)
        layer = snow_layer(normal, flakes, FALL + SWAY * (2 * uniform - 1))
        factor, offset = WHITEN
        grey = luma(pixels) if pixels.shape[1] == 3 else pixels
        whitened = torch.maximum(pixels, factor * grey + offset)
        return whitened.lerp_(pixels, share).add_(layer + layer.flip(2, 3))


def snow_layer(normal: Tensor, flakes: Any, angles: Tensor) -> Tensor:
    """Falling flakes (n, 1, h, w) in whole grey levels from 0 to 1.

    normal: N(0, 1), in the same shape.
    flakes: (mean, deviation, zoom, threshold, radius, sigma).
    angles: (n,) degrees.
    """
    mean, deviation, zoom, threshold, radius, sigma = flakes
    height, width = normal.shape[-2:]
    zoomed = by_rows_and_columns(zoom_matrix(height, zoom), normal, zoom_matrix(width, zoom))
    layer = to_8_bits(F.threshold(zoomed.mul_(deviation).add_(mean), threshold, 0.0))
    return (motion_blur(layer, radius, sigma, angles) * 255).round() / 255


@gin.register
@dataclass(frozen=True)
class Frost(CommonCorruption):
    """A share of the image and a share of frost; the strength is (the one, the other).

    The published frost is a crop of one of five photographs. They are not here: the frost is one
    of five textures of crystals made from noise, always the same, with the mean of every colour
    and the deviation of a photograph each. So brightness and contrast of what is added are the
    published ones; the shapes of the crystals are not. For small images they are shrunk to a
    fifth, as published. All severities share the crop.
    """

    published: ClassVar[str] = "frost"
    small: ClassVar[tuple[Any, ...]] = (
        (1.0, 0.2),
        (1.0, 0.3),
        (0.9, 0.4),
        (0.85, 0.4),
        (0.75, 0.45),
    )
    large: ClassVar[tuple[Any, ...]] = (
        (1.0, 0.4),
        (0.8, 0.6),
        (0.7, 0.7),
        (0.65, 0.7),
        (0.6, 0.75),
    )
    needs_colour: ClassVar[bool] = True

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        of_image, of_frost = strength
        n, _, height, width = pixels.shape
        shrink = FROST_SHRINK if max(height, width) <= LARGEST_SMALL_SIDE else 1.0
        crops = frost_crops(torch.rand(n, 3, generator=generator), height, width, shrink)
        return of_image * pixels + of_frost * crops.to(pixels)


@gin.register
@dataclass(frozen=True)
class Fog(CommonCorruption):
    """A plasma fractal is added, and the whole is darkened to the brightest pixel before.

    The strength is (how much fog, the factor by which finer detail is weaker). The map has the
    next power of two as its side. All severities share its draws.
    """

    published: ClassVar[str] = "fog"
    small: ClassVar[tuple[Any, ...]] = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1.0, 2), (1.5, 1.75))
    large: ClassVar[tuple[Any, ...]] = ((1.5, 2), (2.0, 2), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        amount, decay = strength
        n, _, height, width = pixels.shape
        side = 1 << (max(height, width) - 1).bit_length()
        uniform = torch.rand(n, side * side - 1, generator=generator)
        fog = plasma(uniform.to(pixels), decay)[:, None, :height, :width]
        brightest = pixels.amax((1, 2, 3), keepdim=True)
        return (pixels + amount * fog) * brightest / (brightest + amount)


@gin.register
@dataclass(frozen=True)
class Brightness(CommonCorruption):
    """The strength is added to the value of HSV, up to 1."""

    published: ClassVar[str] = "brightness"
    small: ClassVar[tuple[Any, ...]] = (0.05, 0.1, 0.15, 0.2, 0.3)
    large: ClassVar[tuple[Any, ...]] = (0.1, 0.2, 0.3, 0.4, 0.5)
    needs_colour: ClassVar[bool] = True
    is_random: ClassVar[bool] = False

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        value = pixels.amax(1, keepdim=True)
        brighter = (value + strength).clamp(max=1)
        # hue and saturation stay: the channels keep their ratios, and black becomes grey
        return torch.where(value > 0, pixels * (brighter / value), brighter)


@gin.register
@dataclass(frozen=True)
class Spatter(CommonCorruption):
    """Water on the lens at severities 1 to 3, mud at 4 and 5; one of the four extra corruptions.

    The strength is (mean, deviation, sigma, threshold, last, is mud): liquid is normal noise,
    blurred by sigma in pixels, nothing below the threshold. Last is how bright water shines, or
    the blur of mud in pixels. As mud hides little and water brightens much, the distance to the
    image does not grow with severity throughout. All severities share the noise.
    """

    published: ClassVar[str] = "spatter"
    small: ClassVar[tuple[Any, ...]] = (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    )
    large: ClassVar[tuple[Any, ...]] = (
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    )
    needs_colour: ClassVar[bool] = True

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        mean, deviation, sigma, threshold, last, is_mud = strength
        liquid = gaussian_blur(mean + deviation * normal_layer(pixels, generator), sigma)
        if is_mud:
            thickness = gaussian_blur((liquid > threshold).to(pixels), last)
            thickness = torch.where(thickness < THINNEST_MUD, 0.0, thickness)
            return (1 - thickness) * pixels + thickness * _colour(MUD, pixels)
        wet = torch.where(liquid < threshold, 0.0, liquid)
        levels = (to_8_bits(wet) * 255).round()
        return pixels + last * water(levels) * _colour(WATER, pixels)


def _colour(levels: tuple[int, int, int], pixels: Tensor) -> Tensor:
    return torch.tensor(levels).to(pixels)[:, None, None] / 255
