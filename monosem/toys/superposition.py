"""The toy model of superposition (Elhage et al. 2022, transformer-circuits.pub/2022/toy_model).

Two features, one hidden dimension. Beyond Interpretability (arXiv:2410.21331, section 4) compares
h = x1, monosemantic, with h = x1 - x2, polysemantic, where the label is which feature is larger.
Here both are learnt, on dense and on sparse features, and a probe learns the label from few
examples.

Where the lines may come to cross: x1 - x2 tells the two classes apart without an error, x1 errs
where both features are on; so with clean labels the polysemantic one is better. But half of its
variance is x2, which means nothing where x1 is off. With sparse features, of a density below 0.47,
its linear correlation with the label is the smaller one (at density 0.3 it is 0.70, that of x1 is
0.80). That goes with an earlier crossing, though at density 0.5 there is one as well (gin/toy.gin
has the numbers). Noise on the inputs is felt twice in x1 - x2, and at once, as all inputs where
both features are off lie at its very threshold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import gin
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from monosem.core.device import device, seeded, to_device
from monosem.core.fields import Count, Positive, Range, Seed
from monosem.core.identity import generator
from monosem.core.stage import Artifact, Job
from monosem.data.dataset import Dataset, Examples, SplitName
from monosem.data.images import ImageDataset
from monosem.learning.loop import Batch, TrainingLoop
from monosem.learning.optimizers import Constant, Optimizer
from monosem.models.representation import GetArtifact, Representation, freeze
from monosem.models.training import Learning

Share = Annotated[float, Range(0, 1, open=True)]


STEPS_PER_EPOCH = 50  # an epoch is only what is logged: every step draws its features afresh
REFERENCE_DRAWS = 16384  # features by which the best start is chosen


def draw_features(n: int, density: float, draw: Generator) -> Tensor:
    """(n, 2) features: 0 with probability 1 - density, else uniform in (0, 1], independently.

    With the same generator, a lower density gives the same values, but more of them are 0.
    """
    value, chance = torch.rand(2, n, 2, generator=draw)
    return (1 - value) * (chance < density)


@gin.register
@dataclass(frozen=True)
class TwoFeatures(ImageDataset):
    """Two sparse features x1 and x2 as images of 2 channels and one pixel.

    The label is 1 where x1 > x2, else 0, also where both are off. Class 1 has a share of density -
    density^2 / 2. A feature is 0 or one of 255 levels greater than 0. Factors: whether the first is
    on, and whether the second is.

    density: the probability that a feature is on.
    train: number of images.
    test: number of images.
    seed: of all draws.
    mean: of either feature; normalised images are the features where it is 0 and std is 1.
    std: of either feature.
    """

    density: Share = 0.3
    train: Count = 50
    test: Count = 1000
    seed: Seed = 0
    mean: tuple[float, ...] = (0.0, 0.0)
    std: tuple[Positive, ...] = (1.0, 1.0)

    def validate(self) -> None:
        super().validate()
        if len(self.mean) != 2:
            self.refuse("mean", f"must hold 2 values, one a feature, got {self.mean}")

    @property
    def class_names(self) -> tuple[str, ...]:
        return ("the second or neither", "the first")

    def load(self, split: SplitName) -> Examples:
        draw = generator("TwoFeatures", split, self.seed)
        features = draw_features(getattr(self, split), self.density, draw)
        levels = (features * 255).ceil().to(torch.uint8)  # what is on stays on
        first, second = levels.unbind(1)
        return Examples(
            inputs=levels[:, :, None, None],
            labels=(first > second).long(),
            factors={"first": (first > 0).long(), "second": (second > 0).long()},
        )


def two_features_mismatch(data: Dataset) -> str | None:
    """Why data are not two features, if they are not: 'must have images of ...'."""
    shape = data.sample_shape
    if shape == (2, 1, 1):
        return None
    return f"must have images of 2 channels and one pixel, (2, 1, 1), as TwoFeatures, got {shape}"


class Toys(nn.Module):
    """Several toys trained side by side: h = W x, x' = relu(W^T h + b).

    x              (n, 2)
    weight         (starts, 1, 2)
    h              (starts, n, 1)
    bias           (starts, 2)
    x'             (starts, n, 2)
    """

    def __init__(self, starts: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(starts, 1, 2))
        self.bias = nn.Parameter(torch.zeros(starts, 2))

    def forward(self, x: Tensor, importance: Tensor) -> Tensor:
        """(starts,) means over x (n, 2) of the squared errors, weighted by importance (2,)."""
        # Sums of products, as a product of matrices this small would only wait for threads.
        hidden = (x * self.weight).sum(2, keepdim=True)
        restored = F.relu(hidden * self.weight + self.bias[:, None])
        return ((restored - x).square() * importance).sum(2).mean(1)


def orient(weight: Tensor) -> Tensor:
    """(1, 2) with its sign chosen so that the first is positive."""
    return torch.where(weight[:, :1] < 0, -weight, weight)


@gin.register
@dataclass(frozen=True, kw_only=True)
class Superposition(Learning, Representation):
    """The hidden dimension of a toy that learns to restore two features of different importance.

    As a representation: h = W x, (n, 1). Sparse features are kept in antipodal superposition,
    W = (1, -1): polysemantic. Of dense ones only the first is kept, W = (1, 0): monosemantic. As in
    the source the best of several starts is taken, since for sparse features W = (1, w) with w > 0
    is a local minimum. The sign of W means nothing; W1 is made positive.

    density: of the features that it is trained on, drawn afresh at every step.
    importance: of the second feature; the first has 1.
    optimizer: of all starts together.
    epochs: of 50 steps.
    batch_size: features of a step.
    starts: how many first weights are trained; the best result is the artifact.
    seed: of the starts and all draws. The density does not seed them, so toys of one seed are
        paired.

    Artifact:
        weight  (1, 2)
        bias    (2,)
    """

    density: Share
    importance: Share = 0.5
    optimizer: Optimizer
    epochs: Count = 6
    batch_size: Count = 512
    starts: Count = 8
    seed: Seed = 0

    @property
    def width(self) -> int:
        return 1

    def incompatibility(self, data: Dataset) -> str | None:
        return two_features_mismatch(data)

    def stand_in(self) -> Artifact:
        return {"weight": torch.ones(1, 2), "bias": torch.zeros(2)}

    def run(self, job: Job) -> Artifact:
        with seeded("Superposition", "starts", self.seed):
            toys = to_device(Toys(self.starts))
        importance = torch.tensor([1.0, self.importance], device=device())

        def losses(x: Tensor) -> dict[str, Tensor]:
            return self._losses(toys, x, importance)

        loop = TrainingLoop(
            module=toys,
            optimizer=self.optimizer.for_batches(self.batch_size).build(toys.parameters()),
            schedule=Constant(),
            epochs=self.epochs,
            steps_per_epoch=STEPS_PER_EPOCH,
            batch_size=self.batch_size,
            batches=self._batches,
            losses=losses,
        )
        loop.run(job)
        with torch.no_grad():
            best = toys(self._reference_features(), importance).argmin()
        return {"weight": orient(toys.weight[best]), "bias": toys.bias[best]}

    def _batches(self, epoch: int) -> Iterator[Batch]:
        draw = generator("Superposition", "features", self.seed, epoch)
        for _ in range(STEPS_PER_EPOCH):
            yield (draw_features(self.batch_size, self.density, draw).to(device()),)

    def _losses(self, toys: Toys, x: Tensor, importance: Tensor) -> dict[str, Tensor]:
        """The mean over starts is minimised. Starts share no weights, so gradients do not mix."""
        loss_of_start = toys(x, importance)
        best = loss_of_start.detach().argmin()
        return {
            "loss": loss_of_start.mean(),
            "best_loss": loss_of_start[best],
            "w1": toys.weight[best, 0, 0].abs(),
            "w2": orient(toys.weight[best])[0, 1],
        }

    def _reference_features(self) -> Tensor:
        draw = generator("Superposition", "judged by", self.seed)
        return draw_features(REFERENCE_DRAWS, self.density, draw).to(device())

    def network(self, get: GetArtifact) -> nn.Module:
        linear = nn.Linear(2, 1, bias=False)
        linear.load_state_dict({"weight": get(self)["weight"]})
        return freeze(nn.Sequential(nn.Flatten(), linear))
