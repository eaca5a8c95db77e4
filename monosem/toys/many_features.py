"""The toy of the paper's figure: 40 features in 20 dimensions, h = W^T W x.

Beyond Interpretability (arXiv:2410.21331, figure 5): the label is the largest feature, and a linear
readout learns it from h. The paper does not say how W is found. A linear map that restores equally
important features knows no superposition (Elhage et al. 2022, "linear model"): training W ends in
some m orthogonal directions, whichever, as long as the direction of the mean is among them. So the
polysemantic W is drawn here and not trained, and what it would be trained to is a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import gin
import torch
from torch import Tensor, nn

from monosem.core.fields import Count, Positive, Range, Seed
from monosem.core.identity import generator
from monosem.data.dataset import Dataset, Examples, SplitName
from monosem.data.images import ImageDataset
from monosem.models.representation import GetArtifact, Representation, freeze
from monosem.toys.superposition import Share


@gin.register
@dataclass(frozen=True)
class LargestFeature(ImageDataset):
    """Sparse features as images of one row, a pixel a feature; the label is the largest one.

    A feature is 0 with probability 1 - density, else one of 255 levels up to 1, all alike. Of equal
    ones the first is the label, also where all are off. Factors: whether each feature is on.

    features: how many there are, and classes.
    density: the probability that a feature is on; the paper's S is 1 - density.
    train: number of images.
    test: number of images.
    seed: of all draws.
    mean: of the pixels; normalised images are the features where it is 0 and std is 1.
    std: of the pixels.
    """

    features: Annotated[int, Range(2, 1000)] = 40
    density: Share = 0.8
    train: Count = 10000
    test: Count = 2000
    seed: Seed = 0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Positive, ...] = (1.0,)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(f"feature {number}" for number in range(self.features))

    def load(self, split: SplitName) -> Examples:
        draw = generator("LargestFeature", split, self.seed)
        value, chance = torch.rand(2, getattr(self, split), self.features, generator=draw)
        levels = ((1 - value) * (chance < self.density) * 255).ceil().to(torch.uint8)
        factors = {f"x{number}": (column > 0).long() for number, column in enumerate(levels.T)}
        return Examples(levels[:, None, None, :], first_largest(levels), factors)


def first_largest(levels: Tensor) -> Tensor:
    """(n, features) uint8 -> (n,) int64, the first of the largest."""
    features = levels.shape[1]
    later = torch.arange(features)
    return (levels.long() * features - later).argmax(1)


@dataclass(frozen=True)
class Tied(Representation):
    """h = W^T W x of rows x (n, features), W (dimensions, features) with orthonormal rows.

    features: how many x has.
    dimensions: how many W keeps.
    """

    features: Annotated[int, Range(2, 1000)] = 40
    dimensions: Count = 20

    def validate(self) -> None:
        if self.dimensions > self.features:
            self.refuse(
                "dimensions",
                f"must be at most {self.features}, the number of features, got {self.dimensions}",
            )

    @property
    def width(self) -> int:
        return self.features

    def incompatibility(self, data: Dataset) -> str | None:
        if data.sample_shape == (1, 1, self.features):
            return None
        return f"must have images of {self.features} pixels in a row, as LargestFeature"

    def weight(self) -> Tensor:
        """W: (dimensions, features) float64 with orthonormal rows."""
        raise NotImplementedError

    def network(self, get: GetArtifact) -> nn.Module:
        weight = self.weight()
        linear = nn.Linear(self.features, self.features, bias=False)
        linear.load_state_dict({"weight": (weight.T @ weight).float()})
        return freeze(nn.Sequential(nn.Flatten(), linear))


@gin.register
@dataclass(frozen=True)
class FirstFeatures(Tied):
    """The first features as they are, nothing of the others: monosemantic."""

    def weight(self) -> Tensor:
        return torch.eye(self.dimensions, self.features, dtype=torch.float64)


@gin.register
@dataclass(frozen=True)
class TrainedDirections(Tied):
    """What training leaves of W where all features matter alike: polysemantic.

    E|x - W^T W x|^2 is least for the first principal directions of E[x x^T] = variance I + mean^2
    (1 1^T): the direction of the mean, and any others at right angles to it, which are drawn.

    seed: of the directions.
    """

    seed: Seed = 0

    def weight(self) -> Tensor:
        draw = generator("TrainedDirections", self.seed)
        drawn = torch.randn(self.features, self.dimensions, generator=draw, dtype=torch.float64)
        drawn[:, 0] = 1
        return torch.linalg.qr(drawn).Q.T
