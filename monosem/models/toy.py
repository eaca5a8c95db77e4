"""The toy model of superposition (Elhage et al. 2022, transformer-circuits.pub/2022/toy_model): two features, one hidden dimension.

Beyond Interpretability (arXiv:2410.21331, section 4) compares h = x1, monosemantic, with h = x1 - x2, polysemantic, where the label is
which feature is larger. Here both are learnt, on dense and on sparse features, and a probe learns the label from few examples.

Where the lines may come to cross: x1 - x2 tells the two classes apart without an error, x1 errs where both features are on, so with
clean labels the polysemantic one is better. But half of its variance is x2, which means nothing where x1 is off: with sparse features,
density below 0.47, its linear correlation with the label is the smaller one (at density 0.3 it is 0.70, that of x1 0.80), and that goes
with an earlier crossing, though at density 0.5 there is one as well (gin/toy.gin has the numbers). Noise on the inputs is felt twice in
x1 - x2, and at once, as all images where both are off lie at its very threshold.
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
from monosem.learning.loop import TrainingLoop
from monosem.learning.optimizers import Constant, Optimizer
from monosem.models.representation import Get, Representation, frozen
from monosem.models.training import Learning

Share = Annotated[float, Range(0, 1, open=True)]


STEPS = 50  # in an epoch, whose only meaning is that it is logged: features are drawn afresh at every step


JUDGED = 16384  # draws that the starts are judged by


def features(n: int, density: float, draw: Generator) -> Tensor:
    """(n, 2): independently 0 with probability 1 - density, else uniform in (0, 1]. Of one generator a lower density has the same
    values and fewer of them."""
    value, chance = torch.rand(2, n, 2, generator=draw)
    return (1 - value) * (chance < density)


# ------------------------------------------------------------------------------------------------ data


@gin.register
@dataclass(frozen=True)
class TwoFeatures(ImageDataset):
    """Two sparse features x1 and x2 as images of 2 channels and one pixel; label 1 where x1 > x2, else 0, as where both are off.

    Class 1 has a share of density - density^2 / 2. A feature is 0 or one of the 255 levels above; normalised images are the features.
    Factors: whether the first and the second are on.
    density: the probability that a feature is on. train, test: number of images. seed: names all draws.
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
        x = features(getattr(self, split), self.density, generator("TwoFeatures", split, self.seed))
        levels = (x * 255).ceil().to(torch.uint8)  # what is on stays on
        on = (levels > 0).long()
        return Examples(
            levels[:, :, None, None],
            (levels[:, 0] > levels[:, 1]).long(),
            {"first": on[:, 0], "second": on[:, 1]},
        )


# ------------------------------------------------------------------------------------------------ the model


class Toys(nn.Module):
    """Several toys trained side by side: h = W x, x' = relu(W^T h + b). weight: (starts, 1, 2); bias: (starts, 2)."""

    def __init__(self, starts: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(starts, 1, 2))
        self.bias = nn.Parameter(torch.zeros(starts, 2))

    def forward(self, x: Tensor, importance: Tensor) -> Tensor:
        """x: (n, 2), importance: (2,) -> (starts,) mean over x of the squared errors, weighted by importance."""
        hidden = (x * self.weight).sum(
            2, keepdim=True
        )  # (starts, n, 1); a product of matrices would wait for threads
        restored = F.relu(hidden * self.weight + self.bias[:, None])  # (starts, n, 2)
        return ((restored - x).square() * importance).sum(2).mean(1)


@gin.register
@dataclass(frozen=True, kw_only=True)
class Superposition(Learning, Representation):
    """The hidden dimension of a toy that learns to restore two features of different importance. As a representation: h = W x, (n, 1).

    Sparse features are kept in antipodal superposition, W = (1, -1): polysemantic. Of dense ones only the first, W = (1, 0):
    monosemantic. As in the source the best of several starts is taken, since W = (1, w) with w > 0 is a local minimum of sparse features.
    The sign of W means nothing; W1 is made positive.

    density: of the features that it is trained on, freshly drawn at every step. importance: of the second feature; the first has 1.
    epochs: of 50 steps. seed: names the starts and all draws, whatever the density, so that toys of one seed are paired.
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
        shape = data.sample_shape
        return (
            None
            if shape == (2, 1, 1)
            else f"must have images of 2 channels and one pixel, (2, 1, 1), as TwoFeatures, got {shape}"
        )

    def run(self, job: Job) -> Artifact:
        with seeded("Superposition", "starts", self.seed):
            toys = to_device(Toys(self.starts))
        importance = torch.tensor([1.0, self.importance], device=device())

        def batches(epoch: int) -> Iterator[tuple[Tensor, ...]]:
            draw = generator("Superposition", "features", self.seed, epoch)
            yield from (
                (features(self.batch_size, self.density, draw).to(device()),) for _ in range(STEPS)
            )

        def losses(x: Tensor) -> dict[str, Tensor]:
            each = toys(x, importance)
            best = each.detach().argmin()
            return {
                "loss": each.mean(),
                "best_loss": each[best],
                "w1": toys.weight[best, 0, 0].abs(),
                "w2": oriented(toys.weight[best])[0, 1],
            }

        optimizer = self.optimizer.for_batches(self.batch_size).build(toys.parameters())
        loop = TrainingLoop(
            module=toys,
            optimizer=optimizer,
            schedule=Constant(),
            epochs=self.epochs,
            steps_per_epoch=STEPS,
            batch_size=self.batch_size,
            batches=batches,
            losses=losses,
        )
        loop.run(job)
        with torch.no_grad():
            reference_features = features(
                JUDGED, self.density, generator("Superposition", "judged by", self.seed)
            ).to(device())
            best = toys(reference_features, importance).argmin()
        return {"weight": oriented(toys.weight[best]), "bias": toys.bias[best]}

    def network(self, get: Get) -> nn.Module:
        linear = nn.Linear(2, 1, bias=False)
        linear.load_state_dict({"weight": get(self)["weight"]})
        return frozen(nn.Sequential(nn.Flatten(), linear))


def oriented(weight: Tensor) -> Tensor:
    """(1, 2) with its sign chosen so that the first is positive."""
    return torch.where(weight[:, :1] < 0, -weight, weight)
