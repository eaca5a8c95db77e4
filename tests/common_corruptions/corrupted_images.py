"""Images for the tests of the common corruptions, and how far corrupted ones are from them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from samples import random_pixels


def by_name(corruption):
    return corruption.published


def pixels_of(*shape, seed=0):
    return torch.from_numpy(random_pixels(*shape, seed=seed)).float() / 255


def smooth_images(n, channels, side):
    rough = pixels_of(n, channels, 6, 6)
    smooth = F.interpolate(rough, (side, side), mode="bicubic").clamp(0, 1)
    return (smooth * 255).round() / 255


def distance(ours, theirs):
    """Mean over the pixels, in grey levels."""
    return (ours - theirs).abs().mean() * 255


def as_array(image):
    return (image.permute(1, 2, 0) * 255).round().byte().numpy()


def as_image(array):
    return torch.from_numpy(np.uint8(array)).permute(2, 0, 1) / 255
