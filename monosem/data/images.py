"""Images as inputs: pixels, the constants that normalise them, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from monosem.core.device import device
from monosem.core.fields import Positive
from monosem.data.dataset import Augmentation, Dataset

THUMBNAIL = 48  # pixels a side, at most


@dataclass(frozen=True)
class ImageDataset(Dataset):
    """Labelled images, stored as uint8 pixels (n, channels, height, width).

    normalised = (pixel / 255 - mean) / std, channel by channel.

    mean: of every channel, in units of the pixel range [0, 1].
    std: of every channel, in the same units; above 0.
    """

    mean: tuple[float, ...]
    std: tuple[Positive, ...]

    def validate(self) -> None:
        if not self.mean:
            self.refuse("mean", "must hold a value for every channel, got ()")
        if len(self.mean) != len(self.std):
            channels = len(self.mean)
            self.refuse(
                "std",
                f"must have one value per channel like mean ({channels}), got {len(self.std)}",
            )

    @property
    def noun(self) -> str:
        return "images"

    @property
    def channels(self) -> int:
        """Of every image."""
        return len(self.mean)

    def crop_for_evaluation(self, images: Tensor) -> Tensor:
        """(n, c, h, w) uint8 -> the part of them that an evaluation sees."""
        return images

    def normalise(self, pixels: Tensor) -> Tensor:
        """(n, c, h, w) in [0, 1] -> mean 0 and deviation 1 per channel, over the training split."""
        mean = torch.tensor(self.mean, dtype=pixels.dtype, device=pixels.device)
        std = torch.tensor(self.std, dtype=pixels.dtype, device=pixels.device)
        return (pixels - mean[:, None, None]) / std[:, None, None]

    @property
    def pixel_range(self) -> Tensor:
        """(c, 1, 1) how much of the normalised scale the pixel range 0 to 1 takes, per channel."""
        return 1 / torch.tensor(self.std, device=device())[:, None, None]

    def prepare(self, inputs: Tensor) -> Tensor:
        return self.prepare_uncropped(self.crop_for_evaluation(inputs))

    def prepare_uncropped(self, inputs: Tensor) -> Tensor:
        """As `prepare`, of pixels that are already the part that an evaluation sees."""
        return self.normalise(inputs.to(device()).float() / 255)

    def augment(
        self, inputs: Tensor, views: Sequence[Augmentation], generator: Generator
    ) -> Tensor:
        pixels = inputs.float() / 255
        for view in views:
            pixels = view(pixels, generator)
        return self.normalise(pixels)

    def show(self, indices: Sequence[int]) -> Tensor:
        """Thumbnails (k, side, side, 3) uint8: squares, grey or of the first three channels."""
        chosen = torch.tensor(indices, dtype=torch.int64)
        images = self.crop_for_evaluation(self.split("test").inputs[chosen]).float()
        side = min(THUMBNAIL, max(images.shape[-2:]))
        if images.shape[-2:] != (side, side):
            images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
        is_colour = images.shape[1] >= 3
        colours = images[:, :3] if is_colour else images[:, :1].expand(-1, 3, -1, -1)
        return colours.round().clamp(0, 255).byte().permute(0, 2, 3, 1)

    def mismatch(self, other: Dataset) -> str | None:
        return channel_mismatch(self.channels, other)

    def problem_of_inputs(self, inputs: Tensor) -> str | None:
        if inputs.dtype == torch.uint8 and inputs.ndim == 4 and inputs.shape[1] == self.channels:
            return None
        return (
            f"must hold uint8 images (n, {self.channels}, height, width), a channel for each mean"
        )


def must_be_rgb(data: ImageDataset) -> None:
    """Refuse constants of another number of channels."""
    if len(data.mean) != 3:
        data.refuse("mean", f"must hold 3 values, for red, green and blue, got {data.mean}")


def channel_mismatch(channels: int, data: Dataset) -> str | None:
    """Why a network of images with so many channels cannot take inputs of `data`, if it cannot."""
    if not isinstance(data, ImageDataset):
        return f"must be images, as the encoder takes them, got {type(data).__name__}"
    if data.channels != channels:
        return f"must have {channels} channels like the images of the encoder, got {data.channels}"
    return None
