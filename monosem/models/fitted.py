"""Linear maps that are fitted to somebody else's features, without labels.

They show what plain compression and plain scaling do, where no monosemanticity is learnt.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import gin
import torch
from torch import Tensor, nn

from monosem.core.device import device
from monosem.core.fields import Count, Seed
from monosem.core.identity import seed_for
from monosem.core.stage import Artifact, Job, Stage
from monosem.data.dataset import Dataset
from monosem.models.features import Features
from monosem.models.representation import Composed, GetArtifact, Representation, freeze


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
class FittedMap(Stage, Representation):
    """A linear map of features, fitted to those of the training split without labels.

    encoder: the representation whose features are mapped.
    data: the map is fitted to its training split.

    Artifact:
        mean        (d,)
        components  (width, d)
    """

    encoder: Representation
    data: Dataset

    @property
    def width(self) -> int:
        return self.encoder.width

    def incompatibility(self, data: Dataset) -> str | None:
        return self.encoder.incompatibility(data)

    def preflight(self) -> None:
        if problem := self.data.problem() or self.encoder.incompatibility(self.data):
            self.refuse("data", problem)

    @property
    def training_features(self) -> Features:
        return Features(self.encoder, self.data, "train")

    def upstream(self) -> tuple[Stage, ...]:
        return (self.training_features,)

    def stand_in(self) -> Artifact:
        d = self.encoder.width
        return {"mean": torch.zeros(d), "components": torch.eye(self.width, d)}

    def run(self, job: Job) -> Artifact:
        features = job.get(self.training_features)["features"].to(device()).double()
        mean = features.mean(0)
        components = self.components(features - mean)
        return {"mean": mean.float(), "components": components.float()}

    def components(self, centred: Tensor) -> Tensor:
        """(n, d) float64 of mean zero -> (width, d)."""
        raise NotImplementedError

    def network(self, get: GetArtifact) -> nn.Module:
        artifact = get(self)
        linear = Affine(artifact["mean"], artifact["components"])
        return freeze(Composed(self.encoder.network(get), linear))


@gin.register
@dataclass(frozen=True, kw_only=True)
class Standardised(FittedMap):
    """Every dimension with mean 0 and deviation 1 on the training split.

    A dimension without variance there is 0.
    """

    def components(self, centred: Tensor) -> Tensor:
        return _inverse_root(centred.square().mean(0)).diag()


@gin.register
@dataclass(frozen=True, kw_only=True)
class Whitened(FittedMap):
    """Uncorrelated dimensions of mean 0 and deviation 1, as near as can be to those of the encoder.

    The map is C^(-1/2), C the covariance on the training split: of all maps that whiten, the one
    that changes standardised features least in the mean (ZCA; Kessy, Lewin & Strimmer,
    arXiv:1512.00809). Directions without variance, up to the rounding of single precision, are 0.
    """

    def components(self, centred: Tensor) -> Tensor:
        variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
        return directions @ _inverse_root(variances).diag() @ directions.T


def _inverse_root(variances: Tensor) -> Tensor:
    """(d,) -> (d,) 1 / sqrt(variance); 0 where there is none but rounding."""
    there = variances > 1e-10 * variances.max()
    return torch.where(there, variances, 1.0).rsqrt() * there


@dataclass(frozen=True, kw_only=True)
class Compression(FittedMap, Mapped):
    """A fitted map to fewer dimensions.

    features: the number of dimensions after the map.
    """

    @property
    def width(self) -> int:
        return self.features

    def validate(self) -> None:
        width = self.encoder.width
        if self.features > width:
            self.refuse(
                "features",
                f"must be at most {width}, the features of the encoder, got {self.features}",
            )


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
