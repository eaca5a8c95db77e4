"""What the common corruptions share: whole severities, published strengths, pixels of 8 bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor

from monosem.corruptions.base import Corruption
from monosem.data.dataset import Dataset
from monosem.data.images import ImageDataset

SEVERITIES = 5
LARGEST_SMALL_SIDE = 64  # pixels; images up to here take the strengths of CIFAR-10-C
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, of red, green and blue
HALF_OF_16_BITS = 1 << 15
ROUNDING_ERROR = 1e-3  # grey levels; far above the error of float32, far below a level


@dataclass(frozen=True)
class CommonCorruption(Corruption):
    """A corruption of test images at a severity of 0 (clean) to 5.

    Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
    Perturbations (2019), section 4.1. Images whose longer side is at most 64 pixels take the
    strengths of CIFAR-10-C (32 pixels), larger ones those of ImageNet-C (224 pixels). The result
    has 8 bits, fractions of a grey level cut off as in the published files. There is no JPEG
    compression after it, which the files of ImageNet-C have (quality 85).

    published: its name in the paper.
    small: its strengths on small images, for severities 1 to 5.
    large: its strengths on large images.
    needs_colour: whether images of one channel are made RGB for it, and grey again afterwards.
    is_random: whether it draws from the generator.
    """

    published: ClassVar[str] = ""
    small: ClassVar[tuple[Any, ...]] = ()
    large: ClassVar[tuple[Any, ...]] = ()
    needs_colour: ClassVar[bool] = False
    is_random: ClassVar[bool] = True

    @property
    def axis(self) -> str:
        return f"severity of {self.published.replace('_', ' ')}, 1 to 5"

    def check_severity(self, severity: float, labels: Tensor) -> None:
        if severity not in range(SEVERITIES + 1):
            raise ValueError(
                f"must be 0 or a whole number from 1 to {SEVERITIES}, got {severity:g}"
            )

    def incompatibility(self, data: Dataset) -> str | None:
        if not isinstance(data, ImageDataset):
            return f"must be of images, to which {self.published} is done"
        if data.channels not in (1, 3):
            return f"must have 1 or 3 channels for {self.published}, got {data.channels}"
        return None

    def inputs(
        self, inputs: Tensor, data: Dataset, severity: float, generator: Generator
    ) -> Tensor:
        assert isinstance(data, ImageDataset), "as incompatibility says"
        if severity == 0:
            return inputs
        mean = torch.tensor(data.mean, device=inputs.device)[:, None, None]
        std = torch.tensor(data.std, device=inputs.device)[:, None, None]
        pixels = (inputs * std + mean).clamp(0, 1)
        return data.normalise(self.corrupted(pixels, int(severity), generator))

    def corrupted(self, pixels: Tensor, severity: int, generator: Generator) -> Tensor:
        """Pixels (n, 1 or 3, h, w) in [0, 1] -> the same, corrupted, in 8 bits.

        severity: 1 to 5.
        """
        is_small = max(pixels.shape[-2:]) <= LARGEST_SMALL_SIDE
        strength = (self.small if is_small else self.large)[severity - 1]
        is_grey = pixels.shape[1] == 1
        if is_grey and self.needs_colour:
            colours = self.corrupt(pixels.expand(-1, 3, -1, -1), strength, generator)
            return to_8_bits(luma(colours.clamp(0, 1)))
        return to_8_bits(self.corrupt(pixels, strength, generator))

    def corrupt(self, pixels: Tensor, strength: Any, generator: Generator) -> Tensor:
        """Pixels (n, c, h, w) in [0, 1] -> new ones, corrupted; may leave [0, 1].

        strength: the entry of the table.
        generator: on the CPU.
        """
        raise NotImplementedError


def luma(colours: Tensor) -> Tensor:
    """(n, 3, h, w) RGB -> (n, 1, h, w) grey."""
    red, green, blue = colours.split(1, 1)
    of_red, of_green, of_blue = LUMA
    return (of_red * red).add_(green, alpha=of_green).add_(blue, alpha=of_blue)


def random_bits(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Uniform whole numbers of 16 bits, from -HALF_OF_16_BITS on.

    One draw is the seed of a quicker generator, whose stream NumPy promises not to change.
    """
    seed = int(torch.randint(torch.iinfo(torch.int64).max, (), generator=generator))
    count = math.prod(shape)
    words = np.random.SFC64(seed).random_raw((count + 3) // 4)  # of 64 bits
    return torch.from_numpy(words.view(np.int16))[:count].reshape(shape)


def to_8_bits(pixels: Tensor) -> Tensor:
    """Clip to [0, 1] and cut down to whole grey levels, still in [0, 1]; in place."""
    error = torch.tensor(ROUNDING_ERROR, dtype=pixels.dtype, device=pixels.device)
    torch.add(error, pixels, alpha=255, out=pixels)
    return pixels.clamp_(0, 255).floor_().div_(255)
