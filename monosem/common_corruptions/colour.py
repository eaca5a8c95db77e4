"""Colours as value, saturation and a hue that is kept, for many images at once."""

from __future__ import annotations

import torch
from torch import Tensor


def split_hue(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """RGB (n, 3, h, w) -> value (n, 1, h, w), saturation (n, 1, h, w) and hue (n, 3, h, w).

    Value and saturation are those of HSV. The hue is given as a depth for every channel: how far
    it is below the value, 1 for the lowest channel and 0 for the highest one. Grey has no hue; it
    counts as red, as in scikit-image.
    """
    value, lowest = pixels.amax(1, keepdim=True), pixels.amin(1, keepdim=True)
    spread = value - lowest
    is_grey = spread == 0
    saturation = torch.where(is_grey, 0.0, spread / value.clamp(min=1e-12))
    red = torch.tensor([0.0, 1.0, 1.0], dtype=pixels.dtype, device=pixels.device)
    depth = (value - pixels) / spread.clamp(min=1e-12)
    return value, saturation, torch.where(is_grey, red[:, None, None], depth)


def join_hue(value: Tensor, saturation: Tensor, depth: Tensor) -> Tensor:
    """The RGB image of what `split_hue` gives."""
    return value * (1 - saturation * depth)
