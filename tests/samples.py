"""Small datasets that the tests of this folder share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from monosem.data.dataset import Dataset, Examples


def random_pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@dataclass(frozen=True)
class Classes(Dataset):
    """Vectors of so many classes, in turn; each class has a mean of its own."""

    count: int
    n: int = 1000
    width: int = 5
    groups: tuple[int, ...] = ()

    def load(self, split):
        labels = torch.arange(self.n) % self.count
        draw = torch.Generator().manual_seed(len(split))
        means = torch.randn(self.count, self.width, generator=draw)
        return Examples(means[labels] + torch.randn(self.n, self.width, generator=draw), labels)

    def prepare(self, inputs):
        return inputs

    @property
    def classes(self):
        return self.count

    @property
    def groupings(self):
        return {"mine": self.groups} if self.groups else {}
