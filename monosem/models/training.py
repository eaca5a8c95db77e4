"""What stages that train on augmented views share: fields, batches, and what is logged on the way.

It knows no encoder and no autoencoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from monosem.core.device import BatchLoader, Precision, device
from monosem.core.fields import Count, Positive, Seed
from monosem.core.identity import generator
from monosem.core.stage import Job, Stage
from monosem.data.dataset import Augmentation, Dataset, views_mismatch
from monosem.learning.loop import Batch, Hooks, TrainingLoop
from monosem.learning.optimizers import Optimizer, Schedule
from monosem.metrics.base import FeatureBatch, Metric, as_number, measure
from monosem.metrics.classes import ClassConsistency, ClassSelectivity
from monosem.metrics.space import EffectiveRank, Orthogonality, Sparsity

# Cheap enough for one batch of every epoch.
WATCHED: tuple[Metric, ...] = (
    ClassConsistency(),
    ClassSelectivity(),
    Sparsity(),
    EffectiveRank(),
    Orthogonality(),
)


@dataclass(frozen=True)
class Learning(Stage):
    """A stage that learns epoch by epoch, logs each and can be resumed after each."""


@dataclass(frozen=True, kw_only=True)
class Training(Learning):
    """A stage that trains a network on two augmented views of every input.

    With b = batch_size, a batch is

        inputs           (b, *sample_shape)      as the dataset stores them
        views            (2b, ...)               first views, then second views in the same order
        targets, labels  (2b,)                   the same for both views of an input

    What is left of an epoch after the last whole batch is dropped.

    data: what is learnt from, its training split.
    views: augmentations, applied in this order.
    optimizer: its learning rates are for its own size of batch, see `Optimizer.for_batches`.
    schedule: the learning rate at every step.
    epochs: passes over the training split.
    batch_size: inputs of a batch, each with two views.
    seed: with the kind of stage, names the first weights, the order of inputs and the views.
        Nothing else does: two objectives with one seed meet the same batches and are paired.
    precision: of products, by autocast, with loss scaling for float16. The objective is computed in
        float32. On a CPU either half is bfloat16 where it has instructions for that, else float32.
    clip: the largest norm of all gradients together; None leaves them as they are.
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
        if mismatch := views_mismatch(self.views, self.data):
            self.refuse("data", mismatch)
        examples = len(self.data.split("train").labels)
        if self.batch_size > examples:
            self.refuse(
                "batch_size",
                f"must be at most {examples}, the training {self.data.noun}, got {self.batch_size}",
            )

    def targets(self, index: Tensor, labels: Tensor, draw: Generator) -> Tensor:
        """(2b,) Rows of a batch with equal targets belong together.

        index: (2b,) which input a view is of; the targets unless a stage says otherwise.
        labels: (2b,).
        draw: for targets that are random.
        """
        return index

    def train(
        self,
        job: Job,
        module: nn.Module,
        groups: list[dict[str, object]],
        losses: Callable[..., dict[str, Tensor]],
        represent: Callable[[Tensor], Tensor],
    ) -> None:
        """Train `module` in place on views, going on where the job's saved state left off.

        See `loop` for the other arguments.
        """
        self.loop(module, groups, losses, represent, self.batches()).run(job)

    def loop(
        self,
        module: nn.Module,
        groups: list[dict[str, object]],
        losses: Callable[..., dict[str, Tensor]],
        represent: Callable[[Tensor], Tensor],
        batches: Callable[[int], Iterator[Batch]],
        hooks: Hooks | None = None,
    ) -> TrainingLoop:
        """The training of `module`.

        groups: of the module's parameters, for the optimiser.
        losses: views, targets, labels -> scalars by name; 'loss' is minimised.
        represent: views (2b, ...) -> features (2b, d), whose monosemanticity is logged every epoch.
        batches: see `batches`; something may be made of their views.
        hooks: what else is done on the way.
        """

        def describe(views: Tensor, targets: Tensor, labels: Tensor) -> dict[str, float]:
            return measure_batch(module, represent, views, labels)

        return TrainingLoop(
            module=module,
            optimizer=self.optimizer.for_batches(self.batch_size).build(groups),
            schedule=self.schedule,
            epochs=self.epochs,
            steps_per_epoch=len(self.data.split("train").labels) // self.batch_size,
            batch_size=self.batch_size,
            batches=batches,
            losses=losses,
            describe=describe,
            precision=self.precision,
            clip=self.clip,
            hooks=hooks or Hooks(),
        )

    def batches(
        self, fixed: Callable[[int], BatchLoader] | None = None
    ) -> Callable[[int], Iterator[Batch]]:
        """epoch -> views, targets and labels of every batch of that epoch.

        fixed: epoch -> what stands for the views of every input in that epoch, (n, ...); a batch
            then has b rows instead of 2b. None augments the inputs.
        """
        inputs, labels, _ = self.data.split("train")
        labels = labels.to(device())
        if fixed is not None:
            return lambda epoch: self._fixed_batches(epoch, fixed(epoch), labels)
        loader = BatchLoader(inputs)
        return lambda epoch: self._batches(epoch, loader, labels)

    def _order(self, n: int, draw: Generator) -> Sequence[Tensor]:
        """The indices of the inputs of every batch of an epoch, each (b,)."""
        whole_batches = n - n % self.batch_size
        order = torch.randperm(n, generator=draw, device=device())[:whole_batches]
        return order.split(self.batch_size)

    def _fixed_batches(self, epoch: int, loader: BatchLoader, labels: Tensor) -> Iterator[Batch]:
        """What stands for the inputs, their indices and labels, of every batch of an epoch."""
        draw = generator(type(self).__name__, "order and views", self.seed, epoch, on=device())
        indices = self._order(len(labels), draw)
        for index, inputs in zip(indices, loader(indices), strict=True):
            yield inputs, index, labels[index]

    def _batches(
        self,
        epoch: int,
        loader: BatchLoader,
        labels: Tensor,
    ) -> Iterator[Batch]:
        """Views, targets and labels of every batch of an epoch.

        labels: (n,) of the training split, on the device.
        augment: inputs (2b, ...), every one of them twice -> their views.
        """
        stage = type(self).__name__
        draw = generator(stage, "order and views", self.seed, epoch, on=device())
        # With a generator in common, views would depend on how an objective draws its targets.
        target_draw = generator(stage, "targets", self.seed, epoch, on=device())
        indices = self._order(len(labels), draw)
        for index, inputs in zip(indices, loader(indices), strict=True):
            views = self.data.augment(torch.cat([inputs, inputs]), self.views, draw)
            index = index.repeat(2)
            yield views, self.targets(index, labels[index], target_draw), labels[index]


@torch.no_grad()
def measure_batch(
    module: nn.Module, represent: Callable[[Tensor], Tensor], views: Tensor, labels: Tensor
) -> dict[str, float]:
    """How monosemantic the features of a batch are, by name of the result.

    In evaluation mode, as they would be probed; so no running mean moves. Empty where a feature is
    not finite.

    module: what `represent` passes views through.
    views: (2b, ...).
    labels: (2b,).
    """
    module.eval()
    features = represent(views).float()
    module.train()
    if not features.isfinite().all():
        return {}  # the loop will say that the loss is no number
    results = measure(WATCHED, FeatureBatch(features, labels, features))
    return {name: as_number(result) for name, result in results.items()}
