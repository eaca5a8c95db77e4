"""Linear maps of somebody else's features: what plain compression and plain sparsity do without any monosemanticity being learned."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Annotated

import gin
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monosem.core.device import device
from monosem.core.fields import Count, Range, Seed
from monosem.core.identity import generator, seed_for
from monosem.core.stage import Artifact, Job, Stage
from monosem.data.dataset import Dataset
from monosem.data.images import ImageDataset
from monosem.learning.sparse import Sparsifier
from monosem.models.features import Features
from monosem.models.representation import Get, Representation, Then, frozen


@gin.register
@dataclass(frozen=True)
class Pixels(Representation):
    """The normalised images themselves, shrunk by means to at most side x side: what any encoder starts from, and a judge of how alike
    images are that had no part in anybody's training.

    data: whose images.
    """

    data: ImageDataset
    side: Count = 16

    def incompatibility(self, data: Dataset) -> str | None:
        return self.data.mismatch(data)

    @property
    def width(self) -> int:
        height, width = (min(self.side, size) for size in self.data.sample_shape[-2:])
        return self.data.channels * height * width

    def network(self, get: Get) -> nn.Module:
        return frozen(nn.Sequential(Shrink(self.side), nn.Flatten()))


class Shrink(nn.Module):
    """(n, c, h, w) -> (n, c, min(h, side), min(w, side)) by means."""

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        height, width = (min(self.side, each) for each in images.shape[-2:])
        return F.adaptive_avg_pool2d(images, (height, width))


class Affine(nn.Module):
    """(n, d) -> (n, features): (x - mean) @ components^T."""

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
    """A map of another representation's features to so many of its own."""

    encoder: Representation
    features: Count

    @property
    def width(self) -> int:
        return self.features

    def incompatibility(self, data: Dataset) -> str | None:
        return self.encoder.incompatibility(data)


@dataclass(frozen=True, kw_only=True)
class Compression(Stage, Mapped):
    """A linear map to fewer dimensions, fitted to the features of clean training images, without labels.

    encoder: whose features. data: the images. features: how many dimensions are kept. Artifact: mean (d,), components (features, d).
    """

    data: Dataset

    def validate(self) -> None:
        if self.features > self.encoder.width:
            self.refuse(
                "features",
                f"must be at most {self.encoder.width}, the features of the encoder, got {self.features}",
            )

    def preflight(self) -> None:
        if problem := self.data.problem() or self.encoder.incompatibility(self.data):
            self.refuse("data", problem)

    def upstream(self) -> tuple[Stage, ...]:
        return (Features(self.encoder, self.data, "train"),)

    def run(self, job: Job) -> Artifact:
        (stage,) = self.upstream()
        seen = job.get(stage)["features"].to(device()).double()
        mean = seen.mean(0)
        return {"mean": mean.float(), "components": self.components(seen - mean).float()}

    def components(self, centred: Tensor) -> Tensor:
        """(n, d) float64 -> (features, d)"""
        raise NotImplementedError

    def network(self, get: Get) -> nn.Module:
        artifact = get(self)
        return frozen(
            Then(self.encoder.network(get), Affine(artifact["mean"], artifact["components"]))
        )


@gin.register
@dataclass(frozen=True, kw_only=True)
class PCA(Compression):
    """Principal components: the directions of largest variance, orthogonal, each with its largest entry positive. Directions without
    variance, up to the rounding of single precision, are no components: those are 0."""

    def components(self, centred: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(centred.T @ centred)
        found = (vectors * (values > 1e-10 * values[-1])).T.flip(0)[: self.features]
        return found * found.gather(1, found.abs().argmax(1, keepdim=True)).sign()


@gin.register
@dataclass(frozen=True, kw_only=True)
class ICA(Compression):
    """Independent components of unit variance by FastICA (Hyvärinen & Oja, 2000; scikit-learn's), after whitening to so many principal
    components; where it has not converged after 1000 rounds they are what it had by then. Where features vary in fewer directions, up
    to the rounding of single precision, fewer are found and the others are 0. seed: of its first guess.
    """

    seed: Seed = 0

    def components(self, centred: Tensor) -> Tensor:
        from sklearn.decomposition import FastICA

        rank = min(self.features, int(torch.linalg.matrix_rank(centred, rtol=1e-5)))
        found = torch.zeros(
            self.features, centred.shape[1], dtype=torch.float64, device=centred.device
        )
        if rank:
            method = FastICA(
                rank,
                whiten="unit-variance",
                max_iter=1000,
                random_state=seed_for("FastICA", self.seed) % 2**32,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it has not converged
                method.fit(centred.cpu().numpy())
            found[:rank] = torch.from_numpy(method.components_).to(centred.device)
        return found


@gin.register
@dataclass(frozen=True)
class RandomProjection(Mapped):
    """A very sparse random projection (Li, Hastie & Church, KDD 2006), and a sparsifier behind it: an autoencoder that nobody trained.

    Entries are 0 but for a share `density`, which are +- 1 / sqrt(density features), so that norms are kept on average.
    sparsity: what makes the result sparse; None leaves it linear. seed: names the entries.
    """

    density: Annotated[float, Range(0, 1, open=True)] = 0.1
    sparsity: Sparsifier | None = None
    seed: Seed = 0

    def validate(self) -> None:
        if self.sparsity:
            self.sparsity.check_width(self.features)

    def matrix(self) -> Tensor:
        """(features, encoder's width)"""
        draw = torch.rand(
            2, self.features, self.encoder.width, generator=generator("RandomProjection", self.seed)
        )
        signs = torch.where(draw[0] < 0.5, -1.0, 1.0)
        return signs * (draw[1] < self.density) / (self.density * self.features) ** 0.5

    def network(self, get: Get) -> nn.Module:
        linear = Affine(torch.zeros(self.encoder.width), self.matrix())
        projected = Then(self.encoder.network(get), linear)
        return frozen(Then(projected, self.sparsity.activate) if self.sparsity else projected)
