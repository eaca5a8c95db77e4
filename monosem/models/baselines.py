"""Baselines: the inputs themselves, and linear maps of somebody else's features.

They show what plain compression and plain sparsity do, where no monosemanticity is learnt, and
what is left of features when their axes are taken away.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import gin
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monosem.autoencoders.base import Sparsifier
from monosem.core.device import device
from monosem.core.fields import Count, Range, Seed
from monosem.core.identity import generator, seed_for
from monosem.core.stage import Artifact, Job, Stage
from monosem.data.dataset import Dataset
from monosem.data.images import ImageDataset
from monosem.models.features import Features
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


class Affine(nn.Module):
    """(n, d) -> (n, features): (x - mean) @ components^T.

    mean: (d,).
    components: (features, d).
    """

    mean: Tensor
    components: Tensor

    def __init__(self, mean: Tensor, components: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("components", components)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) @ self.components.T


@dataclass(frozen=True)
class Mapped(Representation):
    """A map of another representation's features (n, d) to some of its own (n, features).

    encoder: the representation whose features are mapped.
    features: the number of features after the map.
    """

    encoder: Representation
    features: Count

    @property
    def width(self) -> int:
        return self.features

    def incompatibility(self, data: Dataset) -> str | None:
        return self.encoder.incompatibility(data)


@dataclass(frozen=True, kw_only=True)
class Compression(Stage, Mapped):
    """A linear map to fewer dimensions, fitted to features of the training split without labels.

    encoder: the representation whose features are mapped.
    features: the number of dimensions after the map.
    data: the map is fitted to its training split.

    Artifact:
        mean        (d,)
        components  (features, d)
    """

    data: Dataset

    def validate(self) -> None:
        width = self.encoder.width
        if self.features > width:
            self.refuse(
                "features",
                f"must be at most {width}, the features of the encoder, got {self.features}",
            )

    def preflight(self) -> None:
        if problem := self.data.problem() or self.encoder.incompatibility(self.data):
            self.refuse("data", problem)

    @property
    def training_features(self) -> Features:
        return Features(self.encoder, self.data, "train")

    def upstream(self) -> tuple[Stage, ...]:
        return (self.training_features,)

    def stand_in(self) -> Artifact:
        width = self.encoder.width
        return {"mean": torch.zeros(width), "components": torch.eye(self.features, width)}

    def run(self, job: Job) -> Artifact:
        features = job.get(self.training_features)["features"].to(device()).double()
        mean = features.mean(0)
        components = self.components(features - mean)
        return {"mean": mean.float(), "components": components.float()}

    def components(self, centred: Tensor) -> Tensor:
        """(n, d) float64 of mean zero -> (features, d)."""
        raise NotImplementedError

    def network(self, get: GetArtifact) -> nn.Module:
        artifact = get(self)
        linear = Affine(artifact["mean"], artifact["components"])
        return freeze(Composed(self.encoder.network(get), linear))


@gin.register
@dataclass(frozen=True, kw_only=True)
class PCA(Compression):
    """Principal components: orthogonal directions, that of the largest variance first.

    The largest entry of each is positive. Components without variance, up to the rounding of single
    precision, are 0.
    """

    def components(self, centred: Tensor) -> Tensor:
        variances, directions = torch.linalg.eigh(centred.T @ centred)  # the smallest first
        directions = directions * (variances > 1e-10 * variances[-1])
        components = directions.T.flip(0)[: self.features]
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        return components * largest.sign()


@gin.register
@dataclass(frozen=True, kw_only=True)
class ICA(Compression):
    """Independent components of unit variance by FastICA (Hyvärinen & Oja, 2000), scikit-learn's.

    Features are first whitened to as many principal components as there are to be dimensions. If
    the method has not converged after 1000 rounds, the components of the last round are taken. If
    features vary in fewer directions, up to the rounding of single precision, the other components
    are 0.

    seed: of the first guess.
    """

    seed: Seed = 0

    def components(self, centred: Tensor) -> Tensor:
        components = centred.new_zeros(self.features, centred.shape[1])
        rank = min(self.features, int(torch.linalg.matrix_rank(centred, rtol=1e-5)))
        if rank:
            components[:rank] = self._independent(centred, rank)
        return components

    def _independent(self, centred: Tensor, count: int) -> Tensor:
        """(n, d) -> (count, d)."""
        from sklearn.decomposition import FastICA

        method = FastICA(
            count,
            whiten="unit-variance",
            max_iter=1000,
            random_state=seed_for("FastICA", self.seed) % 2**32,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            method.fit(centred.cpu().numpy())
        return torch.from_numpy(method.components_).to(centred.device)


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
            self.sparsity.check_width(self.features)
            if self.sparsity.build(self.features).state_dict():
                kind = type(self.sparsity).__name__
                self.refuse("sparsity", f"must need no training, as TopK, got {kind}()")

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


def memory_of_machine() -> int:
    """Bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
