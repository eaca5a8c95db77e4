"""TODO."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from monosem.core.device import BatchLoader, Precision, device
from monosem.core.fields import Count, Positive, Seed
from monosem.core.identity import generator
from monosem.core.stage import Job, Stage
from monosem.data.dataset import Augmentation, Dataset
from monosem.learning.loop import TrainingLoop
from monosem.learning.optimizers import Optimizer, Schedule
from monosem.metrics.base import FeatureBatch, Metric, as_number, measure
from monosem.metrics.classes import ClassConsistency, ClassSelectivity
from monosem.metrics.space import EffectiveRank, Orthogonality, Sparsity

# ------------------------------------------------------------------------------------------------ training


@dataclass(frozen=True)
class Learning(Stage):
    """A stage that learns epoch by epoch, logs each and can be resumed after each."""


@dataclass(frozen=True, kw_only=True)
class Training(Learning):
    """A stage that trains a network on two augmented views of every image.

    views: augmentations, applied in this order. seed: with the kind of stage, names the initial weights, the order of images
    and the augmentations; nothing else does, so two objectives with one seed meet the same batches and are paired.
    precision: of products, by autocast, with loss scaling for float16; the objective is computed in float32. On a CPU either half
    is bfloat16 where it has instructions for that, else float32. clip: the largest norm of all gradients together; None
    leaves them.
    """

    data: Dataset
    views: tuple[Augmentation, ...] = ()
    optimizer: Optimizer
    schedule: Schedule
    epochs: Count
    batch_size: Count
    seed: Seed = 0
    precision: Precision = "float32"
    clip: Positive | None = None

    def preflight(self) -> None:
        if problem := self.data.problem():
            self.refuse("data", problem)
        images = len(self.data.split("train").labels)
        if self.batch_size > images:
            self.refuse(
                "batch_size",
                f"must be at most {images}, the training images, got {self.batch_size}",
            )

    def targets(self, index: Tensor, labels: Tensor, draw: Generator) -> Tensor:
        """(2b,) what tells which rows of a batch belong together: the image, unless labels do."""
        return index

    def train(
        self,
        job: Job,
        module: nn.Module,
        groups: list[dict[str, object]],
        losses: Callable[..., dict[str, Tensor]],
        represent: Callable[[Tensor], Tensor],
    ) -> None:
        """Minimise losses(views (2b, c, h, w) normalised, targets (2b,), labels (2b,)); what is left of an epoch is dropped.
        represent(views): what the monosemanticity of is logged at every epoch."""
        inputs, labels, _ = self.data.split("train")
        loader, labels = BatchLoader(inputs), labels.to(device())
        steps = len(labels) // self.batch_size

        def batches(epoch: int) -> Iterator[tuple[Tensor, ...]]:
            draw = generator(type(self).__name__, "order and views", self.seed, epoch, on=device())
            order = torch.randperm(len(labels), generator=draw, device=device())[
                : steps * self.batch_size
            ].split(self.batch_size)
            own = generator(
                type(self).__name__, "targets", self.seed, epoch, on=device()
            )  # or views would depend on the objective
            for index, batch in zip(order, loader(order), strict=True):
                twice = torch.cat([batch, batch])
                views = self.data.augment(twice, self.views, draw)
                index = index.repeat(2)
                yield views, self.targets(index, labels[index], own), labels[index]

        optimizer = self.optimizer.for_batches(self.batch_size).build(groups)

        def describe(views: Tensor, targets: Tensor, labels: Tensor) -> dict[str, float]:
            return described(module, represent, views, labels)

        loop = TrainingLoop(
            module=module,
            optimizer=optimizer,
            schedule=self.schedule,
            epochs=self.epochs,
            steps_per_epoch=steps,
            batch_size=self.batch_size,
            batches=batches,
            losses=losses,
            describe=describe,
            precision=self.precision,
            clip=self.clip,
        )
        loop.run(job)


WATCHED: tuple[Metric, ...] = (
    ClassConsistency(),
    ClassSelectivity(),
    Sparsity(),
    EffectiveRank(),
    Orthogonality(),
)


@torch.no_grad()
def described(
    module: nn.Module, represent: Callable[[Tensor], Tensor], views: Tensor, labels: Tensor
) -> dict[str, float]:
    """How monosemantic the features of a batch are, as they would be probed: in evaluation mode, which moves no running mean.
    views: (2b, c, h, w); labels: (2b,)."""
    module.eval()
    features = represent(views).float()
    module.train()
    results = measure(WATCHED, FeatureBatch(features, labels, features))
    return {name: as_number(result) for name, result in results.items()}
