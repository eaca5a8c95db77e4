"""TODO."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import gin
import numpy as np
import torch
import torch.nn.functional as F

from monosem.core.fields import Count, Positive
from monosem.core.identity import generator
from monosem.data.dataset import Examples, SplitName, stratified
from monosem.data.images import ImageDataset


@gin.register
@dataclass(frozen=True)
class Digits(ImageDataset):
    """1,797 real handwritten digits, scanned at 8 x 8 (UCI ML, shipped inside scikit-learn; nothing is downloaded).

    size: side in pixels after bicubic enlargement; crops and blur mean little at 8.
    test: number of test images, drawn once, stratified by class; the rest is for training.
    mean, std: measured on the training split at the size of 16.
    """

    size: Count = 16
    test: Count = 360
    mean: tuple[float, ...] = (0.3099,)
    std: tuple[Positive, ...] = (0.3492,)

    def validate(self) -> None:
        super().validate()
        if not 10 <= self.test <= 1787:
            self.refuse(
                "test",
                f"must leave every class an image on both sides: between 10 and 1787, got {self.test}",
            )

    def load(self, split: SplitName) -> Examples:
        return _digits(self.size, self.test)[split]


@functools.lru_cache(maxsize=4)
def _digits(size: int, test: int) -> dict[str, Examples]:
    """Both splits. The file is read as load_digits reads it; importing scikit-learn for that would take a second."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.origin is not None, "scikit-learn is in requirements.txt"
    table = torch.from_numpy(
        np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")
    )
    scans, labels = table[:, :64].float().reshape(-1, 1, 8, 8) / 16, table[:, 64].long()
    pixels = F.interpolate(scans, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
    images = (pixels * 255).round().to(torch.uint8)
    order = stratified(labels, generator("the split of the digits"))
    return {
        name: Examples(images[part], labels[part])
        for name, part in (("test", order[:test]), ("train", order[test:]))
    }
