"""Datasets: two tensors a split, and the constants that normalise them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, NamedTuple

import gin
import torch
from torch import Tensor

from monosem.stage import Count, Part, Positive

Split = Literal["train", "test"]


class Images(NamedTuple):
    """images: (n, channels, height, width) uint8; labels: (n,) int64, 0 .. classes - 1."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Dataset(Part):
    """Labelled images in a train and a test split. A subclass says how to `load` them.

    mean, std: per channel, in units of the pixel range [0, 1]; normalised = (pixel / 255 - mean) / std.
    """

    mean: tuple[float, ...]
    std: tuple[Positive, ...]

    def validate(self) -> None:
        if len(self.mean) != len(self.std):
            self.refuse("std", f"must have one value per channel like mean ({len(self.mean)}), got {len(self.std)}")

    def load(self, split: Split) -> Images:
        raise NotImplementedError

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def classes(self) -> int:
        return int(self.load("train").labels.max()) + 1

    def normalise(self, pixels: Tensor) -> Tensor:
        """(n, c, h, w) in [0, 1] -> zero mean and unit deviation per channel over the training split."""
        mean, std = (torch.tensor(each, dtype=pixels.dtype, device=pixels.device) for each in (self.mean, self.std))
        return (pixels - mean[:, None, None]) / std[:, None, None]


@gin.register
@dataclass(frozen=True)
class Digits(Dataset):
    """1,797 real handwritten digits, scanned at 8 x 8 (UCI ML, shipped inside scikit-learn; nothing is downloaded).

    size: side in pixels after bicubic enlargement; crops and blur mean little at 8.
    test: number of test images, drawn once, stratified by class; the rest is for training.
    """

    size: Count = 16
    test: Count = 360
    mean: tuple[float, ...] = (0.3020,)
    std: tuple[Positive, ...] = (0.3541,)

    def validate(self) -> None:
        super().validate()
        if not 10 <= self.test <= 1787:
            self.refuse("test", f"must leave every class an image on both sides: between 10 and 1787, got {self.test}")

    def load(self, split: Split) -> Images:
        return _digits(self.size, self.test)[split]


@functools.lru_cache(maxsize=4)
def _digits(size: int, test: int) -> dict[str, Images]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    scans, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(scans).float().reshape(-1, 1, 8, 8) / 16
    pixels = torch.nn.functional.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
    images, targets = (pixels * 255).round().to(torch.uint8), torch.from_numpy(labels).long()
    parts = train_test_split(torch.arange(len(targets)).numpy(), test_size=test, stratify=labels, random_state=0)
    return {name: Images(images[part], targets[part]) for name, part in zip(("train", "test"), parts, strict=True)}
