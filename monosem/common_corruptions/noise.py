"""The four noises of the common corruptions; all severities share their draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gin
import torch
from torch import Generator, Tensor

from monosem.common_corruptions.base import CommonCorruption


def normal_field(pixels: Tensor, generator: Generator) -> Tensor:
    """N(0, 1) in the shape of `pixels`, drawn on the CPU."""
    return torch.randn(pixels.shape, generator=generator).to(pixels)


def uniform_field(pixels: Tensor, generator: Generator) -> Tensor:
    """U[0, 1) in the shape of `pixels`, drawn on the CPU."""
    return torch.rand(pixels.shape, generator=generator).to(pixels)


@gin.register
@dataclass(frozen=True)
class CommonGaussianNoise(CommonCorruption):
    """x + strength * N(0, 1), for every pixel and channel; clipped to 8 bits."""

    published: ClassVar[str] = "gaussian_noise"
    small: ClassVar[tuple[Any, ...]] = (0.04, 0.06, 0.08, 0.09, 0.10)
    large: ClassVar[tuple[Any, ...]] = (0.08, 0.12, 0.18, 0.26, 0.38)

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        return pixels + strength * normal_field(pixels, generator)


@gin.register
@dataclass(frozen=True)
class ShotNoise(CommonCorruption):
    """Poisson(strength * x) / strength: the strength is how many photons white is."""

    published: ClassVar[str] = "shot_noise"
    small: ClassVar[tuple[Any, ...]] = (500, 250, 100, 75, 50)
    large: ClassVar[tuple[Any, ...]] = (60, 25, 12, 5, 3)

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        photons = torch.poisson(strength * pixels.cpu(), generator=generator)
        return photons.to(pixels) / strength


@gin.register
@dataclass(frozen=True)
class ImpulseNoise(CommonCorruption):
    """Salt and pepper: a share of all values, the strength, becomes 0 or 1, half of it each."""

    published: ClassVar[str] = "impulse_noise"
    small: ClassVar[tuple[Any, ...]] = (0.01, 0.02, 0.03, 0.05, 0.07)
    large: ClassVar[tuple[Any, ...]] = (0.03, 0.06, 0.09, 0.17, 0.27)

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        chosen = uniform_field(pixels, generator) < strength
        salt = (uniform_field(pixels, generator) < 0.5).to(pixels.dtype)
        return torch.where(chosen, salt, pixels)


@gin.register
@dataclass(frozen=True)
class SpeckleNoise(CommonCorruption):
    """x + strength * x * N(0, 1): Gaussian noise that grows with the pixel."""

    published: ClassVar[str] = "speckle_noise"
    small: ClassVar[tuple[Any, ...]] = (0.06, 0.1, 0.12, 0.16, 0.2)
    large: ClassVar[tuple[Any, ...]] = (0.15, 0.2, 0.35, 0.45, 0.6)

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        return pixels + strength * pixels * normal_field(pixels, generator)
