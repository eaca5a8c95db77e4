"""What tests of pretrained networks share: pictures, grey or coloured, and how to write weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from monosem.data.dataset import Examples
from monosem.data.images import ImageDataset


@dataclass(frozen=True)
class Pictures(ImageDataset):
    """Smooth pictures with hard edges; as many channels as there are means."""

    mean: tuple[float, ...] = (0.4, 0.5, 0.6)
    std: tuple[float, ...] = (0.2, 0.3, 0.25)
    height: int = 40
    width: int = 40
    count: int = 10

    def load(self, split):
        draw = torch.Generator().manual_seed(len(split))
        coarse = torch.rand(self.count, self.channels, 5, 5, generator=draw)
        size = (self.height, self.width)
        pixels = F.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
        pixels[..., ::8] = (pixels[..., ::8] > 0.5).float()
        return Examples((pixels * 255).round().byte(), torch.arange(self.count) % 2)


GREY = Pictures(mean=(0.4,), std=(0.2,))


def as_picture(pixels: Tensor) -> Image.Image:
    """(c, h, w) uint8 as other libraries take it, in colour."""
    return Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy())


def write_weights(network: nn.Module, path: Path, rename=lambda name: name) -> dict[str, Tensor]:
    """Weights that no initialiser gives, in a file; also put into the network."""
    draw = torch.Generator().manual_seed(0)
    state = network.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=draw)
            tensor.copy_(1 + 0.05 * noise.abs() if "var" in name else tensor + 0.02 * noise)
    torch.save({rename(name): tensor for name, tensor in state.items()}, path)
    return state
