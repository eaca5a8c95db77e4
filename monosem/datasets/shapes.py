"""Shapes: drawn images with known factors, so that features can be compared with the factors.

Every image shows one textured shape on a background. Shape and texture are its class; five more
factors are nuisance. Each factor has a fixed number of levels, drawn uniformly and independently,
and some freedom inside a level. Nothing is downloaded.

    levels, jitter, grain   (n, 7) (n, 13) (n, 24, 24)   all that makes n images: `Draw`
    x, y                    (n, h, w)     points of an image, from -1 to 1; h = w = FINE * side
    u, v                    (n, h, w)     the same points as seen from the shape, which has radius 1
    inside, tone            (n, h, w)     where the shape is; how light
    pixels                  (n, 3, h, w)  averaged over FINE x FINE points to (n, 3, side, side)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import gin
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from monosem.core.fields import Positive, Range, Seed
from monosem.core.identity import generator
from monosem.data.augment import LUMA
from monosem.data.dataset import Examples, SplitName
from monosem.data.images import ImageDataset, must_be_rgb

FACTORS = {
    "shape": (
        "circle", "square", "triangle", "star", "cross",
        "ring", "crescent", "heart", "hourglass", "arrow",
    ),
    "texture": (
        "plain", "striped", "checked", "dotted", "gridded",
        "ringed", "rayed", "zigzag", "halved", "speckled",
    ),
    "colour": ("red", "orange", "yellow", "green", "cyan", "blue", "violet", "magenta"),
    "size": ("small", "medium", "large", "huge"),
    "position": (
        "top left", "top centre", "top right",
        "middle left", "middle centre", "middle right",
        "bottom left", "bottom centre", "bottom right",
    ),
    "rotation": ("0°", "45°", "90°", "135°", "180°", "225°", "270°", "315°"),  # clockwise
    "background": (
        "dark even", "dark graded", "dark striped", "dark clouded",
        "light even", "light graded", "light striped", "light clouded",
    ),
}  # fmt: skip
SHAPES, TEXTURES, COLOURS, SIZES, POSITIONS, ROTATIONS, BACKGROUNDS = FACTORS.values()
CLASSES = tuple(f"{texture} {shape}" for shape in SHAPES for texture in TEXTURES)

HUES = (0.0, 0.08, 0.16, 0.33, 0.5, 0.62, 0.75, 0.87)  # of COLOURS, in turns of the colour circle
RADII = (0.7, 0.79, 0.88, 0.97)  # of SIZES, in half sides of an image
JITTERS = 13  # uniform numbers an image
GRAIN = 24  # side of the random cells of an image
FINE = 2  # points an image is sampled at for a pixel, along each axis


@gin.register
@dataclass(frozen=True)
class Shapes(ImageDataset):
    """Drawn RGB images of a textured shape: 10 shapes x 10 textures are 100 classes.

    Colour, size, position, rotation and background are nuisance. Images come with their factors,
    named as in FACTORS; label = 10 shape + texture.

    train: number of images. Classes differ by at most one image, and a larger split begins with the
        smaller one.
    test: the same for the test split.
    seed: of all draws.
    size: side in pixels.
    mean: measured on the training split at the size of 32.
    std: measured on the same images.
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
        for field, count in (("train", self.train), ("test", self.test)):
            if count < len(CLASSES):
                self.refuse(
                    field, f"must be {len(CLASSES)} or more, an image for every class, got {count}"
                )

    @property
    def class_names(self) -> tuple[str, ...]:
        return CLASSES

    @property
    def groupings(self) -> Mapping[str, tuple[int, ...]]:
        """shape: classes of one shape; texture: classes of one texture."""
        labels = range(len(CLASSES))
        return {
            "shape": tuple(label // len(TEXTURES) for label in labels),
            "texture": tuple(label % len(TEXTURES) for label in labels),
        }

    def load(self, split: SplitName) -> Examples:
        """Drawn in blocks of one image a class, each with a generator of its own."""
        n: int = getattr(self, split)
        images = torch.empty(n, 3, self.size, self.size, dtype=torch.uint8)
        levels = torch.empty(n, len(FACTORS), dtype=torch.int64)
        for block, start in enumerate(range(0, n, len(CLASSES))):
            draw = self.draw_block(split, block)
            end = min(start + len(CLASSES), n)
            images[start:end] = render(draw, self.size)[: end - start]
            levels[start:end] = draw.levels[: end - start]
        factors = dict(zip(FACTORS, levels.T.contiguous(), strict=True))
        labels = factors["shape"] * len(TEXTURES) + factors["texture"]
        return Examples(images, labels, factors)

    def draw_block(self, split: SplitName, block: int) -> Draw:
        """One image of every class."""
        return draw_classes(generator("Shapes", split, self.seed, block))


@gin.register
@dataclass(frozen=True)
class ShapesOfLevels(Shapes):
    """Shapes of which one nuisance factor has some of its levels only.

    Everything else about an image is that of Shapes with the same seed. So two of these that have
    levels apart make a shift in one factor whose size is known.

    factor: one of FACTORS that is not part of the class.
    levels: which of its levels there are, drawn uniformly; numbers from 0, as in FACTORS.
    """

    factor: Literal["colour", "size", "position", "rotation", "background"] = "background"
    levels: tuple[Annotated[int, Range(0)], ...] = (0, 1, 2, 3)

    def validate(self) -> None:
        super().validate()
        names = FACTORS[self.factor]
        if not self.levels or len(set(self.levels)) < len(self.levels):
            self.refuse("levels", f"must hold one or more that differ, got {self.levels}")
        if max(self.levels) >= len(names):
            self.refuse(
                "levels",
                f"must be below {len(names)}, the levels of {self.factor}, got {self.levels}",
            )

    def draw_block(self, split: SplitName, block: int) -> Draw:
        draw = super().draw_block(split, block)
        levels = torch.tensor(self.levels)
        own = generator("ShapesOfLevels", split, self.seed, block)
        chosen = levels[torch.randint(len(levels), (len(draw.levels),), generator=own)]
        draw.levels[:, list(FACTORS).index(self.factor)] = chosen
        return draw


class Draw(NamedTuple):
    """All that makes n images.

    levels: (n, 7) int64, in the order of FACTORS.
    jitter: (n, JITTERS), uniform in [0, 1): the freedom inside levels. First four for the place of
        the shape, then five for the background, then four for the texture.
    grain: (n, GRAIN, GRAIN), uniform in [0, 1).
    """

    levels: Tensor
    jitter: Tensor
    grain: Tensor


def draw_classes(draw: Generator) -> Draw:
    """One image of every class, in random order."""
    n = len(CLASSES)
    label = torch.randperm(n, generator=draw)
    levels = [label // len(TEXTURES), label % len(TEXTURES)]
    for names in (COLOURS, SIZES, POSITIONS, ROTATIONS, BACKGROUNDS):
        levels.append(torch.randint(len(names), (n,), generator=draw))
    jitter = torch.rand(n, JITTERS, generator=draw)
    grain = torch.rand(n, GRAIN, GRAIN, generator=draw)
    return Draw(torch.stack(levels, 1), jitter, grain)


def render(draw: Draw, size: int) -> Tensor:
    """(n, 3, size, size) uint8."""
    inside, shape, ground = scene(draw, size)
    pixels = torch.where(inside[:, None], shape, ground[:, None])
    return (F.avg_pool2d(pixels, FINE) * 255).round().to(torch.uint8)


class Scene(NamedTuple):
    """What is at each of h = w = FINE * size points, as if nothing hid it.

    inside: (n, h, w) booleans, whether the shape is there.
    shape: (n, 3, h, w) its colours, in [0, 1].
    ground: (n, h, w) the grey of the background, in [0, 1].
    """

    inside: Tensor
    shape: Tensor
    ground: Tensor


def scene(draw: Draw, size: int) -> Scene:
    """n images before the shape covers the background."""
    points = (torch.arange(FINE * size) + 0.5) / (FINE * size) * 2 - 1
    y, x = torch.meshgrid(points, points, indexing="ij")
    x = x.expand(len(draw.levels), -1, -1)
    y = y.expand(len(draw.levels), -1, -1)
    u, v = seen_from_the_shape(draw, x, y)
    shape, colour = draw.levels[:, 0], draw.levels[:, 2]
    inside = per_level(shape, INSIDE, u, v)
    return Scene(inside, tint(shape_tone(draw, u, v), colour), ground_tone(draw, x, y))


def shape_tone(draw: Draw, u: Tensor, v: Tensor) -> Tensor:
    """(n, h, w) luma of the texture, in two tones that stay apart from those of the background."""
    texture, background = draw.levels[:, 1], draw.levels[:, 6]
    phase_u, phase_v, base, contrast = draw.jitter[:, 9:, None, None].unbind(1)
    second = per_level(texture, PATTERNS, u, v, phase_u, phase_v, draw.grain)
    shade = 0.08 * v.clamp(-1, 1)  # by which a plain circle has a rotation too
    tone = 0.45 + 0.08 * base + (0.35 + 0.1 * contrast) * second + shade
    return torch.where(is_light(background), 1 - tone, tone)


def is_light(background: Tensor) -> Tensor:
    """(n,) -> (n, 1, 1): dark shapes lie on light backgrounds, light ones on dark."""
    return background[:, None, None] >= len(BACKGROUNDS) // 2


def per_level(
    level: Tensor, functions: tuple[Callable[..., Tensor], ...], *inputs: Tensor
) -> Tensor:
    """For each image, the result of the function of its level.

    level: (n,).
    inputs: (n, ...) each.
    Returns (n, h, w) booleans, where the first input is (n, h, w).
    """
    result = torch.empty(inputs[0].shape, dtype=torch.bool)
    for index, function in enumerate(functions):
        images = (level == index).nonzero()[:, 0]
        result[images] = function(*(tensor[images] for tensor in inputs))
    return result


def seen_from_the_shape(draw: Draw, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates in which the shape has radius 1 about the origin.

    x: (n, h, w), to the right, from -1 to 1.
    y: (n, h, w), down, from -1 to 1.
    """
    size, position, rotation = draw.levels[:, 3], draw.levels[:, 4], draw.levels[:, 5]
    right, down, turn, scale = draw.jitter[:, :4].unbind(1)
    radius = torch.tensor(RADII)[size] * (0.97 + 0.06 * scale)
    centre_x = 0.14 * (position % 3 - 1) + 0.07 * (right - 0.5)
    centre_y = 0.14 * (position // 3 - 1) + 0.07 * (down - 0.5)
    angle = (rotation + 0.6 * (turn - 0.5)) * (2 * math.pi / len(ROTATIONS))
    cos = (angle.cos() / radius)[:, None, None]
    sin = (angle.sin() / radius)[:, None, None]
    x = x - centre_x[:, None, None]
    y = y - centre_y[:, None, None]
    return cos * x + sin * y, cos * y - sin * x


def tint(tone: Tensor, colour: Tensor) -> Tensor:
    """Colours of a given luma, but for clipping: a shape is visible without colour.

    tone: (n, h, w) luma.
    colour: (n,) levels.
    Returns (n, 3, h, w).
    """
    hue = torch.tensor(HUES)[colour][:, None]
    pure = ((hue * 6 + torch.tensor([0.0, 4.0, 2.0])) % 6 - 3).abs().sub(1).clamp(0, 1)
    offset = 0.45 * (pure - (pure * torch.tensor(LUMA)).sum(1, keepdim=True))
    return (tone[:, None] + offset[:, :, None, None]).clamp(0, 1)


def ground_tone(draw: Draw, x: Tensor, y: Tensor) -> Tensor:
    """(n, h, w) the background, in tones of grey that stay apart from those of the shape."""
    background = draw.levels[:, 6]
    angle, phase, wave, base, depth = draw.jitter[:, 4:9, None, None].unbind(1)
    along = x * (angle * 2 * math.pi).cos() + y * (angle * 2 * math.pi).sin()
    corners = draw.grain[:, None, :5, :5]
    clouds = F.interpolate(corners, size=x.shape[1:], mode="bicubic", align_corners=True)[:, 0]
    kinds = torch.stack(
        [
            torch.zeros_like(along),
            along / 1.4,
            torch.where((along * (2 + 2 * wave) + phase) % 1 < 0.5, 1.0, -1.0),
            (2 * clouds - 1).clamp(-1, 1),
        ]
    )  # (4, n, h, w): even, graded, striped, clouded
    kind = (background % 4)[:, None, None].expand_as(along)
    relief = kinds.gather(0, kind[None])[0]
    tone = 0.1 + 0.1 * base + (0.03 + 0.06 * depth) * relief
    return torch.where(is_light(background), 1 - tone, tone)


def star(u: Tensor, v: Tensor) -> Tensor:
    """Five points: in a tenth of it, the side of the line from a point to the notch beside it."""
    turn, notch = math.pi / 5, 0.5
    angle = ((torch.atan2(u, -v) + turn) % (2 * turn) - turn).abs()
    radius = (u**2 + v**2).sqrt()
    p, q = radius * angle.cos(), radius * angle.sin()
    end_p, end_q = notch * math.cos(turn), notch * math.sin(turn)
    return (p - 1) * end_q < q * (end_p - 1)


def heart(u: Tensor, v: Tensor) -> Tensor:
    p, q = u * 1.2, 0.1 - v * 1.2
    return (p**2 + q**2 - 1) ** 3 < p**2 * q**3


def arrow(u: Tensor, v: Tensor) -> Tensor:
    head = (v > -1) & (v < 0.1) & (u.abs() < 0.85 * (v + 1) / 1.1)
    shaft = (v >= 0.1) & (v < 0.95) & (u.abs() < 0.36)
    return head | shaft


def cross(u: Tensor, v: Tensor) -> Tensor:
    nearer, farther = torch.minimum(u.abs(), v.abs()), torch.maximum(u.abs(), v.abs())
    return (nearer < 0.34) & (farther < 0.95)


INSIDE: tuple[Callable[..., Tensor], ...] = (  # of SHAPES: (m, h, w) twice -> (m, h, w) booleans
    lambda u, v: u**2 + v**2 < 0.85**2,
    lambda u, v: torch.maximum(u.abs(), v.abs()) < 0.75,
    lambda u, v: torch.maximum(v, u.abs() * math.sqrt(0.75) - v / 2) < 0.55,
    star,
    cross,
    lambda u, v: ((u**2 + v**2).sqrt() - 0.7).abs() < 0.27,
    lambda u, v: (u**2 + v**2 < 0.95**2) & ((u - 0.5) ** 2 + v**2 > 0.7**2),
    heart,
    lambda u, v: (v.abs() < 0.85) & (u.abs() < 0.15 + 0.75 * v.abs()),
    arrow,
)


def stripes(t: Tensor, share: float = 0.5) -> Tensor:
    """Where stripes of period 1 are, which take a `share` of it."""
    return t % 1 < share


def dots(t: Tensor, s: Tensor) -> Tensor:
    """Discs in a grid of period 1."""
    return (t % 1 - 0.5) ** 2 + (s % 1 - 0.5) ** 2 < 0.3**2


def speckles(u: Tensor, v: Tensor, phase_u: Tensor, phase_v: Tensor, grain: Tensor) -> Tensor:
    """Random cells, fixed to the shape."""
    column = (u * 3.5 + GRAIN / 2 + phase_u).floor().long() % GRAIN
    row = (v * 3.5 + GRAIN / 2 + phase_v).floor().long() % GRAIN
    cell = (row * GRAIN + column).flatten(1)
    return grain.flatten(1).gather(1, cell).reshape(u.shape) < 0.5


# Of TEXTURES: where the second of two tones is, (m, h, w) booleans. u, v: (m, h, w);
# p, q: (m, 1, 1), phases in [0, 1); grain: (m, GRAIN, GRAIN).
PATTERNS: tuple[Callable[..., Tensor], ...] = (
    lambda u, v, p, q, grain: torch.zeros_like(u, dtype=torch.bool),
    lambda u, v, p, q, grain: stripes(u * 1.6 + p),
    lambda u, v, p, q, grain: stripes(u * 1.1 + p) ^ stripes(v * 1.1 + q),
    lambda u, v, p, q, grain: dots(u * 1.6 + p, v * 1.6 + q),
    lambda u, v, p, q, grain: stripes(u * 1.6 + p, 0.3) | stripes(v * 1.6 + q, 0.3),
    lambda u, v, p, q, grain: stripes((u**2 + v**2).sqrt() * 1.8 + p),
    lambda u, v, p, q, grain: stripes(torch.atan2(u, v) * (6 / (2 * math.pi)) + p),
    lambda u, v, p, q, grain: stripes(u * 1.6 + p + 1.6 * ((v * 1.1 + q) % 1 - 0.5).abs()),
    lambda u, v, p, q, grain: u * (2 * math.pi * p).cos() + v * (2 * math.pi * p).sin() > 0,
    speckles,
)
