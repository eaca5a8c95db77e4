"""Handwritten digits that come with scikit-learn: a real dataset that needs no download."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gin
import numpy as np
import torch
import torch.nn.functional as F

from monosem.core.fields import Count, Positive
from monosem.core.identity import generator
from monosem.data.dataset import Examples, SplitName, stratified
from monosem.data.images import ImageDataset

COUNT = 1797  # all digits of the collection
FILE = "datasets/data/digits.csv.gz"  # inside scikit-learn


@gin.register
@dataclass(frozen=True)
class Digits(ImageDataset):
    """1,797 handwritten digits, scanned at 8 x 8 pixels (UCI ML; shipped inside scikit-learn).

    size: side in pixels after bicubic enlargement; crops and blur mean little at 8.
    test: number of test images, drawn once, stratified by class; the rest is for training.
    mean: measured on the training split at the size of 16.
    std: measured on the same images.
    """

    size: Count = 16
    test: Count = 360
    mean: tuple[float, ...] = (0.3099,)
    std: tuple[Positive, ...] = (0.3492,)

    def validate(self) -> None:
        super().validate()
        if not 10 <= self.test <= COUNT - 10:
            self.refuse(
                "test",
                "must leave every class an image on both sides: "
                f"between 10 and {COUNT - 10}, got {self.test}",
            )

    def load(self, split: SplitName) -> Examples:
        return _splits(self.size, self.test)[split]


@functools.lru_cache(maxsize=4)
def _splits(size: int, test: int) -> dict[str, Examples]:
    features, targets = read_digits()
    scans = torch.from_numpy(features).float().reshape(-1, 1, 8, 8) / 16  # in [0, 1]
    labels = torch.from_numpy(targets).long()
    pixels = F.interpolate(scans, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
    images = (pixels * 255).round().to(torch.uint8)
    order = stratified(labels, generator("the split of the digits"))
    return {
        "test": Examples(images[order[:test]], labels[order[:test]]),
        "train": Examples(images[order[test:]], labels[order[test:]]),
    }


def read_digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What scikit-learn's load_digits returns: (n, 64) from 0 to 16, and (n,) labels.

    Importing scikit-learn takes a second, and every run on the digits asks for them. So its file is
    read where it lies. Should a later version keep it elsewhere, load_digits knows where.
    """
    package = importlib.util.find_spec("sklearn")
    if package is not None and package.origin is not None:
        path = Path(package.origin).parent / FILE
        if path.exists():
            table = np.loadtxt(path, delimiter=",")
            return table[:, :64], table[:, 64]
    from sklearn.datasets import load_digits

    features, targets = load_digits(return_X_y=True)
    return features, targets
