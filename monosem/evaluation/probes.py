"""Probes: how well a classifier does on a representation, with the representation left as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import gin
import torch
from torch import Generator, Tensor

from monosem.core.device import BatchLoader, device
from monosem.core.fields import Count, Part, Range
from monosem.core.identity import generator, seed_for
from monosem.core.stage import Artifact, Job, Stage
from monosem.data.dataset import Augmentation, Dataset
from monosem.evaluation.batched_probes import (
    BatchedProbes,
    EarlyStopping,
    FitSettings,
    ProbeSpec,
    fit_probes,
    unique_probes,
)
from monosem.evaluation.corruptions import Corruption
from monosem.learning.optimizers import Optimizer, Schedule
from monosem.models.features import Features, encode, encode_views, view_draw
from monosem.models.representation import Representation
from monosem.models.training import Learning

# ------------------------------------------------------------------------------------------------ what is asked of a probe


@dataclass(frozen=True, kw_only=True)
class Task(Part):
    """What a curve asks of its probe: a training set and test images for every severity and repeat of a corruption."""

    encoder: Representation
    data: Dataset
    corruption: Corruption
    severities: tuple[float, ...]
    repeats: Count

    @property
    def cells(self) -> list[tuple[float, int]]:
        return [
            (severity, repeat) for severity in self.severities for repeat in range(self.repeats)
        ]

    @property
    def touches_inputs(self) -> bool:
        return any(map(self.corruption.touches_inputs, self.severities))

    def draw(self, repeat: int) -> Generator:
        """Neither the encoder nor the severity is among what names the noise; and it is drawn on the CPU, so that encoders
        measured on different devices meet the same."""
        return generator(type(self.corruption).__name__, repeat, self.data)

    def head(self, severity: float, repeat: int) -> ProbeSpec:
        labels = self.data.split("train").labels
        told = self.corruption.labels(labels, self.data.classes, severity, self.draw(repeat))
        examples = self.corruption.examples(labels, severity, self.draw(repeat))
        return ProbeSpec(seed_for("probe", repeat), examples, told)

    def heads(self) -> list[ProbeSpec]:
        return [self.head(*cell) for cell in self.cells]

    def corrupt(self, severity: float, repeat: int) -> Callable[[Tensor], Tensor]:
        """What is done to the prepared test inputs, chunk by chunk from the first one on."""
        draw = self.draw(repeat)
        return lambda inputs: self.corruption.inputs(inputs, self.data, severity, draw)


class Predictions(NamedTuple):
    """logits: (n test images, classes); passes: images that had to be encoded for them."""

    logits: Tensor
    passes: int


@dataclass(frozen=True)
class Probe(Part):
    """How a classifier of a representation is made."""

    @property
    def in_company(self) -> bool:
        """Whether the heads of all curves of an experiment are to be fitted together."""
        return False

    def check_size(self, images: int) -> None:
        """Refuse what does not go with so many training images."""

    def upstream(self, task: Task, company: tuple[Task, ...]) -> tuple[Stage, ...]:
        raise NotImplementedError

    def predictions(self, task: Task, company: tuple[Task, ...], job: Job) -> Iterator[Predictions]:
        """For every cell of the task. company: the tasks, this one among them, whose heads are fitted with its own."""
        raise NotImplementedError


# ------------------------------------------------------------------------------------------------ linear


@gin.register
@dataclass(frozen=True)
class LinearProbe(Probe):
    """Multinomial logistic regression on frozen features, by minibatches, all heads of a curve as one bank.

    Every head takes epochs * (n // batch_size) steps, n being the whole training split, and walks through its own examples
    in a fresh order every time round; so a head with few shots takes as many steps as one with all (the reference gives it
    fewer). The bank's weights are one tensor and one batched product serves all heads; nothing couples them, so a head is
    the same alone or in company, up to the rounding of sums.

    rescale: divide features by the root of their mean squared row norm over the training split, one number an encoder, so
        that a learning rate means the same for encoders of different scale; neither geometry nor sparsity changes. The
        reference does not, which is False.
    views: augmentations of the training images; none takes them as they are. The reference has random crops and flips.
    cached: so many views of every image are encoded once, kept, shared by all probes and taken in turn, an epoch each; None
        encodes fresh ones in every epoch, once for all heads of all curves of the experiment together, and keeps none.
    dropout: the share of features that is dropped at every step. stopping: whose weights are taken; None takes the last.
    """

    optimizer: Optimizer
    schedule: Schedule
    epochs: Count = 50
    batch_size: Count = 256
    rescale: bool = True
    views: tuple[Augmentation, ...] = ()
    cached: Count | None = None
    dropout: Annotated[float, Range(0, 0.99)] = 0.0
    stopping: EarlyStopping | None = None

    def validate(self) -> None:
        if self.cached is not None and not self.views:
            self.refuse(
                "cached",
                f"needs LinearProbe.views, the augmentations whose results are to be kept, got {self.cached} without any",
            )

    @property
    def in_company(self) -> bool:
        return bool(self.views) and self.cached is None

    @property
    def recipe(self) -> FitSettings:
        return FitSettings(
            self.optimizer,
            self.schedule,
            self.epochs,
            self.batch_size,
            self.rescale,
            self.dropout,
            self.stopping,
        )

    def check_size(self, images: int) -> None:
        if self.batch_size > images:
            self.refuse(
                "batch_size",
                f"must be at most {images}, the training images, got {self.batch_size}",
            )

    def fit(self, features: Tensor, classes: int, heads: Sequence[ProbeSpec]) -> BatchedProbes:
        """features: (n, d) -> the fitted bank, in the order of `heads`, for features of that scale."""
        return fit_probes(lambda epoch: features, classes, heads, self.recipe)

    def kept(self, task: Task) -> tuple[Features, ...]:
        """The training features that are encoded once, one an epoch in turn."""
        turns = range(min(self.cached, self.epochs)) if self.cached else range(1)
        return tuple(
            Features(task.encoder, task.data, "train", self.views, number) for number in turns
        )

    def upstream(self, task: Task, company: tuple[Task, ...]) -> tuple[Stage, ...]:
        fitted: tuple[Stage, ...] = (
            (self._together(task, company),) if self.in_company else self.kept(task)
        )
        encoders = task.encoder.stages if task.touches_inputs else ()
        return (*encoders, *fitted, Features(task.encoder, task.data, "test"))

    def predictions(self, task: Task, company: tuple[Task, ...], job: Job) -> Iterator[Predictions]:
        heads, member = self._heads(task, company, job)
        clean = job.get(Features(task.encoder, task.data, "test"))["features"].to(device())
        inputs, network = task.data.split("test").inputs, None
        for head, cell in zip(member, task.cells, strict=True):
            features, passes = clean, 0
            if task.corruption.touches_inputs(cell[0]):
                network = network or task.encoder.network(job.get)
                features, passes = (
                    encode(network, task.data, inputs, task.corrupt(*cell)),
                    len(inputs),
                )
            yield Predictions(heads.logits(features, head), passes)

    def _heads(
        self, task: Task, company: tuple[Task, ...], job: Job
    ) -> tuple[BatchedProbes, list[int]]:
        """The bank, and which of its members serves each cell. Input noise has one head a repeat."""
        if self.in_company:
            together = self._together(task, company)
            _, member = unique_probes(together.heads())
            first = sum(len(each.cells) for each in together.tasks[: together.tasks.index(task)])
            artifact = job.get(together)
            weight, bias = (artifact[name].to(device()) for name in ("weight", "bias"))
            return BatchedProbes(weight, bias), member[first : first + len(task.cells)]
        heads, member = unique_probes(task.heads())
        kept = self.kept(task)
        one = job.get(kept[0])["features"].to(device())  # the only one, mostly

        def features(epoch: int) -> Tensor:
            turn = epoch % len(kept)
            return one if turn == 0 else job.get(kept[turn])["features"].to(device())

        return fit_probes(features, task.data.classes, heads, self.recipe), member

    def _together(self, task: Task, company: tuple[Task, ...]) -> FittedProbes:
        return FittedProbes(self, task.encoder, task.data, company or (task,))


@dataclass(frozen=True)
class FittedProbes(Learning):
    """The heads of several tasks on one representation, fitted on fresh views: every epoch encodes one view of every training
    image once, whatever the number of heads. Artifact: weight (h, width, classes), bias (h, classes), passes: images encoded."""

    probe: LinearProbe
    encoder: Representation
    data: Dataset
    tasks: tuple[Task, ...]

    def upstream(self) -> tuple[Stage, ...]:
        return self.encoder.stages

    def heads(self) -> list[ProbeSpec]:
        return [head for task in self.tasks for head in task.heads()]

    def run(self, job: Job) -> Artifact:
        network, feed = self.encoder.network(job.get), BatchLoader(self.data.split("train").inputs)
        different, _ = unique_probes(self.heads())

        def features(epoch: int) -> Tensor:
            return encode_views(network, self.data, feed, self.probe.views, view_draw(epoch))

        fitted = fit_probes(features, self.data.classes, different, self.probe.recipe, job)
        passes = self.probe.epochs * len(feed.inputs)
        job.log(self.probe.epochs, self.probe.epochs, encoder_passes=passes)
        return {"weight": fitted.weight, "bias": fitted.bias, "passes": torch.tensor(passes)}
