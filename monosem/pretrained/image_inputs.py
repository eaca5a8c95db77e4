"""What a pretrained network wants images to look like, made of what a dataset prepared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Interpolation = Literal["bicubic", "bilinear", "nearest"]
Fit = Literal["cover", "contain", "stretch"]


class InputRule(NamedTuple):
    """How a network's own evaluation makes its input of an image.

    resize: (height, width) that an image is resized to, in pixels.
    fit: of an image of another shape. 'cover' keeps its proportions and leaves no border, 'contain'
        keeps them and leaves nothing out, 'stretch' does not keep them.
    crop: (height, width) of the centre that is kept, in pixels.
    interpolation: of the resizing, with antialiasing.
    mean: of the three channels, in units of the pixel range [0, 1].
    std: likewise.
    """

    resize: tuple[int, int]
    fit: Fit
    crop: tuple[int, int]
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """The size of an image after resizing, before the crop."""
        tall, wide = self.resize
        if self.fit == "stretch":
            return self.resize
        if self.fit == "contain":
            share = max(height / tall, width / wide)
            return round(height / share), round(width / share)
        if height * wide <= width * tall:  # torchvision, whose rounding this is, cuts off
            return tall, int(tall * width / height)
        return int(wide * height / width), wide


class ImageInputs(nn.Module):
    """Images as a dataset prepares them -> images as a network wants them.

        prepared   (n, c, h, w)                 c is 1 or 3; grey is repeated for all three channels
        pixels     prepared * std + mean        of the dataset; 0 to 1, noise may go beyond
        resized    (n, c, resize)               within 0 and 1, or the image's own extremes
        input      (n, 3, crop)                 (resized - mean) / std, of the network

    Interpolation overshoots at edges, which a library's transforms cut off, as their images have
    whole numbers. So it is cut off here, but noise beyond 0 and 1 is not.

    mean: of the dataset.
    std: of the dataset.
    rule: of the network.
    """

    given_mean: Tensor
    given_std: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], rule: InputRule):
        super().__init__()
        self.rule = rule
        for name, values in (
            ("given_mean", mean), ("given_std", std), ("mean", rule.mean), ("std", rule.std)
        ):  # fmt: skip
            constants = torch.tensor(values, dtype=torch.float32)[:, None, None]
            self.register_buffer(name, constants, persistent=False)

    def forward(self, prepared: Tensor) -> Tensor:
        pixels = prepared * self.given_std + self.given_mean
        resized = self._resize(pixels)
        return self._crop((self._crop_out(resized) - self.mean) / self.std)

    def _resize(self, pixels: Tensor) -> Tensor:
        size = self.rule.resized(*pixels.shape[-2:])
        if size == tuple(pixels.shape[-2:]):
            return pixels
        kind = self.rule.interpolation
        if kind == "nearest":
            return F.interpolate(pixels, size, mode=kind)
        resized = F.interpolate(pixels, size, mode=kind, antialias=True, align_corners=False)
        if kind == "bilinear":  # a mean, which cannot overshoot
            return resized
        with torch.no_grad():
            low = pixels.amin((1, 2, 3), keepdim=True).clamp(max=0)
            high = pixels.amax((1, 2, 3), keepdim=True).clamp(min=1)
        return torch.minimum(torch.maximum(resized, low), high)

    def _crop_out(self, images: Tensor) -> Tensor:
        """The centre; a side that is shorter than the crop stays."""
        top, left = (max(0, margin) for margin in self._margins(images))
        height, width = self.rule.crop
        return images[..., top : top + height, left : left + width]

    def _crop(self, images: Tensor) -> Tensor:
        """With a border of the network's mean, 0 here, where a side is shorter than the crop."""
        tall, wide = self.rule.crop
        down, right = tall - images.shape[-2], wide - images.shape[-1]
        if not down and not right:
            return images
        return F.pad(images, (right // 2, right - right // 2, down // 2, down - down // 2))

    def _margins(self, images: Tensor) -> tuple[int, int]:
        """What is left out above and on the left; rounded as torchvision does."""
        (height, width), (tall, wide) = images.shape[-2:], self.rule.crop
        return round((height - tall) / 2), round((width - wide) / 2)


def scaled(size: tuple[int, int], share: float) -> tuple[int, int]:
    """(height, width) of what a crop of a share of both sides is taken from."""
    return math.floor(size[0] / share), math.floor(size[1] / share)
