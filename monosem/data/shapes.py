"""Shapes: drawn images whose factors are all known, so that what a feature stands for can be looked up. Nothing is downloaded.

Every image shows one textured shape on a background. Shape and texture are its class; five more factors are nuisance. Each
factor has a fixed number of levels, drawn uniformly and independently, and some freedom inside a level.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import gin
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from monosem.core.fields import Positive, Range, Seed
from monosem.core.identity import generator
from monosem.data.dataset import Examples, SplitName
from monosem.data.images import ImageDataset, must_be_rgb

SHAPES = (
    "circle",
    "square",
    "triangle",
    "star",
    "cross",
    "ring",
    "crescent",
    "heart",
    "hourglass",
    "arrow",
)


TEXTURES = (
    "plain",
    "striped",
    "checked",
    "dotted",
    "gridded",
    "ringed",
    "rayed",
    "zigzag",
    "halved",
    "speckled",
)


COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "violet", "magenta")


SIZES = ("small", "medium", "large", "huge")


POSITIONS = tuple(
    f"{row} {column}"
    for row in ("top", "middle", "bottom")
    for column in ("left", "centre", "right")
)


ROTATIONS = ("0°", "45°", "90°", "135°", "180°", "225°", "270°", "315°")  # clockwise


BACKGROUNDS = tuple(
    f"{tone} {kind}"
    for tone in ("dark", "light")
    for kind in ("even", "graded", "striped", "clouded")
)


FACTORS = {
    "shape": SHAPES,
    "texture": TEXTURES,
    "colour": COLOURS,
    "size": SIZES,
    "position": POSITIONS,
    "rotation": ROTATIONS,
    "background": BACKGROUNDS,
}


CLASSES = tuple(
    f"{texture} {shape}" for shape in SHAPES for texture in TEXTURES
)  # a label is shape * 10 + texture


HUES = (0.0, 0.08, 0.16, 0.33, 0.5, 0.62, 0.75, 0.87)  # of COLOURS, in turns of the colour circle


RADII = (0.7, 0.79, 0.88, 0.97)  # of SIZES, in half sides of an image


LUMA = (0.299, 0.587, 0.114)


JITTERS = 13  # uniform numbers an image


GRAIN = 24  # side of the random cells of an image


FINE = 2  # points an image is sampled at for a pixel, along each axis


@gin.register
@dataclass(frozen=True)
class Shapes(ImageDataset):
    """Drawn RGB images of a textured shape: 10 shapes x 10 textures are 100 classes; colour, size, position, rotation and
    background are nuisance. Images come with their factors, named as in FACTORS; label = 10 shape + texture.

    train, test: number of images. Classes differ by at most one image, and a larger split begins with the smaller one.
    seed: names all draws. size: side in pixels.
    mean, std: measured on the training split at the size of 32.
    """

    train: Annotated[int, Range(1, 1_000_000)] = 10000
    test: Annotated[int, Range(1, 1_000_000)] = 2000
    seed: Seed = 0
    size: Annotated[int, Range(1, 256)] = 32
    mean: tuple[float, ...] = (0.511, 0.4965, 0.4996)
    std: tuple[Positive, ...] = (0.3287, 0.3201, 0.3344)

    def validate(self) -> None:
        super().validate()
        must_be_rgb(self)
        for field, images in (("train", self.train), ("test", self.test)):
            if images < len(CLASSES):
                self.refuse(
                    field, f"must be {len(CLASSES)} or more, an image for every class, got {images}"
                )

    @property
    def class_names(self) -> tuple[str, ...]:
        return CLASSES

    def load(self, split: SplitName) -> Examples:
        n: int = getattr(self, split)
        images = torch.empty(n, 3, self.size, self.size, dtype=torch.uint8)
        levels = torch.empty(n, len(FACTORS), dtype=torch.int64)
        for block, (pixels, those) in enumerate(
            zip(images.split(len(CLASSES)), levels.split(len(CLASSES)), strict=True)
        ):
            draw = drawn(generator("Shapes", split, self.seed, block))
            pixels.copy_(render(draw, self.size)[: len(pixels)])
            those.copy_(draw.levels[: len(pixels)])
        factors = dict(zip(FACTORS, levels.T.contiguous(), strict=True))
        return Examples(images, factors["shape"] * len(TEXTURES) + factors["texture"], factors)


class Draw(NamedTuple):
    """All that makes n images. levels: (n, 7) int64, in the order of FACTORS; jitter: (n, JITTERS) and grain:
    (n, GRAIN, GRAIN), uniform in [0, 1)."""

    levels: Tensor
    jitter: Tensor
    grain: Tensor


def drawn(draw: Generator) -> Draw:
    """One image of every class, in random order."""
    n = len(CLASSES)
    label = torch.randperm(n, generator=draw)
    nuisance = [
        torch.randint(len(names), (n,), generator=draw) for names in list(FACTORS.values())[2:]
    ]
    levels = torch.stack([label // len(TEXTURES), label % len(TEXTURES), *nuisance], 1)
    return Draw(
        levels, torch.rand(n, JITTERS, generator=draw), torch.rand(n, GRAIN, GRAIN, generator=draw)
    )


# ------------------------------------------------------------------------------------------------ drawing


def render(draw: Draw, size: int) -> Tensor:
    """(n, 3, size, size) uint8."""
    inside, shape, ground = scene(draw, size)
    pixels = torch.where(inside[:, None], shape, ground[:, None])
    return (F.avg_pool2d(pixels, FINE) * 255).round().to(torch.uint8)


def scene(draw: Draw, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """At FINE points a pixel, h = w = FINE size: where the shape is (n, h, w), its colours (n, 3, h, w), and the grey of the
    background (n, h, w), both in [0, 1] and as if nothing hid them."""
    spread = (torch.arange(FINE * size) + 0.5) / (FINE * size) * 2 - 1
    y, x = (
        each.expand(len(draw.levels), -1, -1)
        for each in torch.meshgrid(spread, spread, indexing="ij")
    )
    u, v = local(draw, x, y)
    shape, texture, colour, *_, background = draw.levels.unbind(1)
    phase_u, phase_v, base, contrast = draw.jitter[:, 9:, None, None].unbind(1)
    second = chosen(texture, PATTERNS, u, v, phase_u, phase_v, draw.grain)
    tone = (
        0.45 + 0.08 * base + (0.35 + 0.1 * contrast) * second + 0.08 * v.clamp(-1, 1)
    )  # shaded: a plain circle has a rotation too
    tone = torch.where(is_light(background), 1 - tone, tone)
    return chosen(shape, INSIDE, u, v), tinted(tone, colour), behind(draw, x, y)


def is_light(background: Tensor) -> Tensor:
    """(n,) -> (n, 1, 1): dark shapes lie on light backgrounds, light ones on dark."""
    return background[:, None, None] >= len(BACKGROUNDS) // 2


def chosen(level: Tensor, functions: tuple[Callable[..., Tensor], ...], *inputs: Tensor) -> Tensor:
    """(n, h, w): for each image what the function of its level (n,) gives of its inputs, each (n, ...)."""
    result = torch.empty(inputs[0].shape, dtype=torch.bool)
    for number, function in enumerate(functions):
        mine = (level == number).nonzero()[:, 0]
        result[mine] = function(*(each[mine] for each in inputs))
    return result


def local(draw: Draw, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The coordinates of a shape, in which it has radius 1 about the origin; x to the right, y down, half a side long."""
    size, position, rotation = draw.levels[:, 3], draw.levels[:, 4], draw.levels[:, 5]
    right, down, turn, scale = draw.jitter[:, :4].unbind(1)
    radius = torch.tensor(RADII)[size] * (0.97 + 0.06 * scale)
    centre_x, centre_y = (
        0.14 * (cell - 1) + 0.07 * (free - 0.5)
        for cell, free in ((position % 3, right), (position // 3, down))
    )
    angle = (rotation + 0.6 * (turn - 0.5)) * (2 * math.pi / len(ROTATIONS))
    cos, sin = (angle.cos() / radius)[:, None, None], (angle.sin() / radius)[:, None, None]
    x, y = x - centre_x[:, None, None], y - centre_y[:, None, None]
    return cos * x + sin * y, cos * y - sin * x


def tinted(tone: Tensor, colour: Tensor) -> Tensor:
    """(n, h, w) luma -> (n, 3, h, w) of the hues of `colour` (n,) and, but for clipping, that luma: a shape is visible without colour."""
    hue = torch.tensor(HUES)[colour][:, None]
    pure = ((hue * 6 + torch.tensor([0.0, 4.0, 2.0])) % 6 - 3).abs().sub(1).clamp(0, 1)
    offset = 0.45 * (pure - (pure * torch.tensor(LUMA)).sum(1, keepdim=True))
    return (tone[:, None] + offset[:, :, None, None]).clamp(0, 1)


def behind(draw: Draw, x: Tensor, y: Tensor) -> Tensor:
    """(n, h, w) the background, in tones of grey that stay apart from those of the shape."""
    angle, phase, wave, base, depth = draw.jitter[:, 4:9, None, None].unbind(1)
    along = x * (angle * 2 * math.pi).cos() + y * (angle * 2 * math.pi).sin()
    level = draw.levels[:, 6, None, None]
    clouds = F.interpolate(
        draw.grain[:, None, :5, :5], size=x.shape[1:], mode="bicubic", align_corners=True
    )[:, 0]
    stripes = torch.where((along * (2 + 2 * wave) + phase) % 1 < 0.5, 1.0, -1.0)
    kinds = torch.stack(
        [torch.zeros_like(along), along / 1.4, stripes, (2 * clouds - 1).clamp(-1, 1)]
    )
    kind = kinds.gather(0, (level % 4).expand_as(along)[None])[0]
    tone = 0.1 + 0.1 * base + (0.03 + 0.06 * depth) * kind
    return torch.where(is_light(draw.levels[:, 6]), 1 - tone, tone)


# ------------------------------------------------------------------------------------------------ shapes, in their own coordinates


def star(u: Tensor, v: Tensor) -> Tensor:
    """Five points: in a tenth of it, the side of the line from a point to the notch beside it."""
    turn, notch = math.pi / 5, 0.5
    angle = ((torch.atan2(u, -v) + turn) % (2 * turn) - turn).abs()
    r = (u**2 + v**2).sqrt()
    p, q = r * angle.cos(), r * angle.sin()
    end_p, end_q = notch * math.cos(turn), notch * math.sin(turn)
    return (p - 1) * end_q < q * (end_p - 1)


def heart(u: Tensor, v: Tensor) -> Tensor:
    p, q = u * 1.2, 0.1 - v * 1.2
    return (p**2 + q**2 - 1) ** 3 < p**2 * q**3


def arrow(u: Tensor, v: Tensor) -> Tensor:
    head = (v > -1) & (v < 0.1) & (u.abs() < 0.85 * (v + 1) / 1.1)
    return head | ((v >= 0.1) & (v < 0.95) & (u.abs() < 0.36))


INSIDE: tuple[Callable[..., Tensor], ...] = (  # of SHAPES: (m, h, w) twice -> (m, h, w) booleans
    lambda u, v: u**2 + v**2 < 0.85**2,
    lambda u, v: torch.maximum(u.abs(), v.abs()) < 0.75,
    lambda u, v: torch.maximum(v, u.abs() * math.sqrt(0.75) - v / 2) < 0.55,
    star,
    lambda u, v: (
        (torch.minimum(u.abs(), v.abs()) < 0.34) & (torch.maximum(u.abs(), v.abs()) < 0.95)
    ),
    lambda u, v: ((u**2 + v**2).sqrt() - 0.7).abs() < 0.27,
    lambda u, v: (u**2 + v**2 < 0.95**2) & ((u - 0.5) ** 2 + v**2 > 0.7**2),
    heart,
    lambda u, v: (v.abs() < 0.85) & (u.abs() < 0.15 + 0.75 * v.abs()),
    arrow,
)


# ------------------------------------------------------------------------------------------------ textures, in the same coordinates


def half(t: Tensor, share: float = 0.5) -> Tensor:
    return t % 1 < share


def cells(u: Tensor, v: Tensor, phase_u: Tensor, phase_v: Tensor, grain: Tensor) -> Tensor:
    """Random cells, fixed to the shape."""
    row, column = (
        ((t * 3.5 + GRAIN / 2 + phase).floor().long() % GRAIN)
        for t, phase in ((v, phase_v), (u, phase_u))
    )
    return grain.flatten(1).gather(1, (row * GRAIN + column).flatten(1)).reshape(u.shape) < 0.5


PATTERNS: tuple[
    Callable[..., Tensor], ...
] = (  # of TEXTURES: where the second of two tones is, (m, h, w) booleans
    lambda u, v, p, q, grain: torch.zeros_like(u, dtype=torch.bool),
    lambda u, v, p, q, grain: half(u * 1.6 + p),
    lambda u, v, p, q, grain: half(u * 1.1 + p) ^ half(v * 1.1 + q),
    lambda u, v, p, q, grain: (
        ((u * 1.6 + p) % 1 - 0.5) ** 2 + ((v * 1.6 + q) % 1 - 0.5) ** 2 < 0.3**2
    ),
    lambda u, v, p, q, grain: half(u * 1.6 + p, 0.3) | half(v * 1.6 + q, 0.3),
    lambda u, v, p, q, grain: half((u**2 + v**2).sqrt() * 1.8 + p),
    lambda u, v, p, q, grain: half(torch.atan2(u, v) * (6 / (2 * math.pi)) + p),
    lambda u, v, p, q, grain: half(u * 1.6 + p + 1.6 * ((v * 1.1 + q) % 1 - 0.5).abs()),
    lambda u, v, p, q, grain: u * (2 * math.pi * p).cos() + v * (2 * math.pi * p).sin() > 0,
    cells,
)
