"""Baselines that nobody fits: the inputs themselves, and maps of somebody else's features.

They show what plain sparsity does, where no monosemanticity is learnt, and what is left of features
when their axes are taken away. Maps that are fitted to features are in fitted.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import gin
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monosem.autoencoders.base import Sparsifier
from monosem.core.fields import Count, Range, Seed
from monosem.core.identity import generator
from monosem.data.dataset import Dataset
from monosem.data.images import ImageDataset
from monosem.models.fitted import Affine, Mapped
from monosem.models.representation import (
    Composed,
    FeatureMap,
    GetArtifact,
    Representation,
    freeze,
)


@gin.register
@dataclass(frozen=True)
class Pixels(Representation):
    """The normalised images themselves, shrunk by means.

    They are what any encoder starts from. They are also the default reference encoder, as no
    training made them.

    data: the dataset of images.
    side: of the shrunk images, in pixels; smaller images stay as they are.
    """

    data: ImageDataset
    side: Count = 16

    def incompatibility(self, data: Dataset) -> str | None:
        return self.data.mismatch(data)

    @property
    def width(self) -> int:
        height, width = (min(self.side, size) for size in self.data.sample_shape[-2:])
        return self.data.channels * height * width

    def network(self, get: GetArtifact) -> nn.Module:
        return freeze(nn.Sequential(Shrink(self.side), nn.Flatten()))


class Shrink(nn.Module):
    """(n, c, h, w) -> (n, c, min(h, side), min(w, side)) by means."""

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        height, width = (min(self.side, size) for size in images.shape[-2:])
        return F.adaptive_avg_pool2d(images, (height, width))


@gin.register
@dataclass(frozen=True)
class RandomProjection(Mapped):
    """A very sparse random projection (Li, Hastie & Church, KDD 2006), and a sparsifier behind it.

    It stands for an untrained autoencoder. A share `density` of the entries of its matrix is
    +- 1 / sqrt(density features), the others are 0. So norms are preserved on average.

    density: the share of entries that are not 0.
    sparsity: what makes the result sparse; None leaves it linear.
    seed: of the entries.
    """

    density: Annotated[float, Range(0, 1, open=True)] = 0.1
    sparsity: Sparsifier | None = None
    seed: Seed = 0

    def validate(self) -> None:
        if self.sparsity:
            check_untrained(self, self.sparsity, self.features)

    def matrix(self) -> Tensor:
        """(features, width of the encoder)."""
        draw = generator("RandomProjection", self.seed)
        sign_draw, density_draw = torch.rand(2, self.features, self.encoder.width, generator=draw)
        signs = torch.where(sign_draw < 0.5, -1.0, 1.0)
        return signs * (density_draw < self.density) / (self.density * self.features) ** 0.5

    def network(self, get: GetArtifact) -> nn.Module:
        linear = Affine(torch.zeros(self.encoder.width), self.matrix())
        projected = Composed(self.encoder.network(get), linear)
        if self.sparsity is None:
            return freeze(projected)
        return freeze(Composed(projected, self.sparsity.activate))


@gin.register
@dataclass(frozen=True)
class Rotated(FeatureMap):
    """Features times a random orthogonal matrix: all of their geometry, none of their axes.

    The matrix is Haar-distributed, that is uniform among the orthogonal ones: Q of the QR
    decomposition of a Gaussian matrix, its columns multiplied by the signs of the diagonal of R
    (Mezzadri, math-ph/0609050, section 5). Inner products, norms and distances stay, so a learner
    that sees nothing else cannot tell it from the encoder.

    seed: of the matrix, which is drawn and multiplied in double precision and never stored.
    """

    seed: Seed = 0

    def validate(self) -> None:
        needed, there = 3 * 8 * self.width**2, memory_of_machine()  # the Gaussian, Q and R
        if needed > there:
            self.refuse(
                "encoder",
                f"must have fewer features: a rotation of {self.width} takes {needed / 1e9:.0f} GB "
                f"of memory, and there are {there / 1e9:.0f} GB",
            )

    def matrix(self) -> Tensor:
        """(width, width) float64, on the CPU."""
        draw = generator("Rotated", self.seed)
        gaussian = torch.randn(self.width, self.width, generator=draw, dtype=torch.float64)
        orthogonal, triangular = torch.linalg.qr(gaussian)
        return orthogonal * triangular.diagonal().sign()

    def mapping(self) -> Callable[[Tensor], Tensor]:
        matrix = self.matrix()
        return lambda features: (features.double() @ matrix.to(features.device)).to(features.dtype)


@gin.register
@dataclass(frozen=True)
class Permuted(FeatureMap):
    """Features in another order of dimensions: axes stay axes, so nothing may change but ties.

    seed: of the order, uniform among all.
    """

    seed: Seed = 0

    def order(self) -> Tensor:
        """(width,), the dimension of the encoder that each dimension is."""
        return torch.randperm(self.width, generator=generator("Permuted", self.seed))

    def mapping(self) -> Callable[[Tensor], Tensor]:
        order = self.order()
        return lambda features: features[:, order.to(features.device)]


@gin.register
@dataclass(frozen=True)
class Sparsified(FeatureMap):
    """Features made sparse and not negative as they are, by a rule that needs no training.

    Of `Rotated` features: a sparse code whose axes mean nothing.

    sparsity: what makes them sparse; None rectifies them and does no more.
    """

    sparsity: Sparsifier | None = None

    def validate(self) -> None:
        if self.sparsity:
            check_untrained(self, self.sparsity, self.width)

    def mapping(self) -> Callable[[Tensor], Tensor]:
        return self.sparsity.activate if self.sparsity else F.relu


def check_untrained(part: RandomProjection | Sparsified, rule: Sparsifier, width: int) -> None:
    """Refuse a rule, the field `sparsity` of a part, that has weights to train."""
    rule.check_width(width)
    if rule.build(width).state_dict():
        kind = type(rule).__name__
        part.refuse("sparsity", f"must need no training, as TopK, got {kind}()")


def memory_of_machine() -> int:
    """Bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
