"""Noise that is added to the test images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import gin
import torch
from torch import Generator, Tensor

from monosem.corruptions.base import Corruption
from monosem.data.dataset import Dataset
from monosem.data.images import ImageDataset


@dataclass(frozen=True)
class InputNoise(Corruption):
    """Noise added to the test images, which are not clamped, as in the authors' code.

    space: 'normalised' adds it after normalisation, as the authors' code does; 'pixel' adds it in
        units of the pixel range [0, 1].
    """

    space: Literal["normalised", "pixel"] = "normalised"

    def noise(self, images: Tensor, generator: Generator) -> Tensor:
        """Noise of severity 1 in the shape of `images`, drawn where the generator is."""
        raise NotImplementedError

    def incompatibility(self, data: Dataset) -> str | None:
        if isinstance(data, ImageDataset):
            return None
        return "must be of images, to which noise is added"

    def inputs(
        self, inputs: Tensor, data: Dataset, severity: float, generator: Generator
    ) -> Tensor:
        assert isinstance(data, ImageDataset), "as incompatibility says"
        pixel = data.pixel_range
        unit = pixel if self.space == "pixel" else torch.ones_like(pixel)
        return inputs + severity * unit * self.noise(inputs, generator).to(inputs.device)


@gin.register
@dataclass(frozen=True)
class GaussianNoise(InputNoise):
    """x + severity * N(0, 1): the severity is the standard deviation, in units of `space`."""

    @property
    def axis(self) -> str:
        return f"Gaussian noise (standard deviation, {self.space} units)"

    def noise(self, images: Tensor, generator: Generator) -> Tensor:
        return torch.randn(images.shape, generator=generator, dtype=images.dtype)


@gin.register
@dataclass(frozen=True)
class UniformNoise(InputNoise):
    """x + severity * U: the severity is the width of the interval, in normalised or pixel units.

    centred: False draws from [0, width), as the authors' code does, so the mean moves by width / 2.
        True draws from [-width / 2, width / 2), which is the same without the shift.
    """

    centred: bool = False

    @property
    def axis(self) -> str:
        interval = "centred" if self.centred else "one-sided"
        return f"uniform noise (width, {self.space} units, {interval})"

    def noise(self, images: Tensor, generator: Generator) -> Tensor:
        uniform = torch.rand(images.shape, generator=generator, dtype=images.dtype)
        return uniform - 0.5 if self.centred else uniform
