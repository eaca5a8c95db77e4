"""Probes: how well a classifier does on a representation, with the representation left as it is.

A curve describes its question as a `Task`. A `Probe` says how a classifier is made: it names the
stages that this needs and predicts the test labels. A `ProbeSpec` (batched_probes) is one
classifier to fit. Nothing here knows of curves, experiments or tables.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Self

import gin
from torch import Tensor

from monosem.core.device import BatchLoader, device
from monosem.core.fields import Count, Part, Range
from monosem.core.identity import seed_for
from monosem.core.stage import Artifact, Job, Stage, StageError
from monosem.data.dataset import Augmentation, Dataset, views_mismatch
from monosem.evaluation.batched_probes import (
    BatchedProbes,
    EarlyStopping,
    FitSettings,
    ProbeSpec,
    ProbeTrainer,
    fit_probes,
    unique_probes,
)
from monosem.evaluation.corruptions import Corruption, training_set
from monosem.learning.optimizers import Optimizer, Schedule
from monosem.models.features import Features, encode, encode_views, view_draw
from monosem.models.representation import Representation
from monosem.models.training import Learning


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a curve asks of its probe: training sets and test inputs under a corruption.

    A draw is one severity and one repeat.


    encoder: the representation that is probed.
    data: what the probe is trained and tested on.
    corruption: of the training labels, the training examples or the test inputs.
    severities: of the corruption.
    repeats: independent draws of the corruption and of the probe.
    """

    encoder: Representation
    data: Dataset
    corruption: Corruption
    severities: tuple[float, ...]
    repeats: int

    @property
    def draws(self) -> list[tuple[float, int]]:
        """Every (severity, repeat), severity by severity."""
        return draws_of(self.severities, self.repeats)

    @property
    def touches_inputs(self) -> bool:
        """Whether some severity changes the test inputs."""
        return any(self.corruption.touches_inputs(severity) for severity in self.severities)

    def probe_spec(self, severity: float, repeat: int) -> ProbeSpec:
        """The classifier of a draw."""
        return probe_spec(self.data, self.corruption, severity, repeat)

    def probe_specs(self) -> list[ProbeSpec]:
        """One for every draw."""
        return [self.probe_spec(severity, repeat) for severity, repeat in self.draws]

    def corrupt(self, severity: float, repeat: int) -> Callable[[Tensor], Tensor]:
        """A function that corrupts prepared test inputs, to be called chunk by chunk in order."""
        generator = self.corruption.draw(repeat, self.data)
        return lambda inputs: self.corruption.inputs(inputs, self.data, severity, generator)


def draws_of(severities: Sequence[float], repeats: int) -> list[tuple[float, int]]:
    """Every (severity, repeat), severity by severity."""
    return [(severity, repeat) for severity in severities for repeat in range(repeats)]


def probe_spec(
    data: Dataset, corruption: Corruption | None, severity: float, repeat: int
) -> ProbeSpec:
    """The classifier of a repeat.

    It learns from the corrupted training set, or from the clean one if there is no corruption.
    """
    examples, labels = training_set(data, corruption, severity, repeat)
    return ProbeSpec(seed_for("probe", repeat), examples, labels)


class Predictions(NamedTuple):
    """What a probe predicts for the test split.

    logits: (n, classes)
    passes: how many inputs passed through the encoder for these predictions alone
    """

    logits: Tensor
    passes: int


@dataclass(frozen=True)
class Probe(Part):
    """How a classifier of a representation is made."""

    def check_data(self, data: Dataset) -> None:
        """Refuse fields that do not go with a training split, for example with its size."""

    def upstream(self, task: Task) -> tuple[Stage, ...]:
        """The stages that `predictions` asks for."""
        raise NotImplementedError

    def predictions(self, task: Task, job: Job) -> Iterator[Predictions]:
        """One for every draw of the task, in that order."""
        raise NotImplementedError


@dataclass(frozen=True)
class MinibatchProbe(Probe):
    """A probe that learns by minibatches of the training split.

    optimizer: of its weights.
    schedule: of the learning rate.
    epochs: passes over the training split.
    batch_size: images a step.
    views: augmentations of the training images; none takes them as they are.
    """

    optimizer: Optimizer
    schedule: Schedule
    epochs: Count = 50
    batch_size: Count = 256
    views: tuple[Augmentation, ...] = ()

    def check_data(self, data: Dataset) -> None:
        if mismatch := views_mismatch(self.views, data):
            self.refuse("views", f"do not fit Curve.data, which {mismatch}")
        images = len(data.split("train").labels)
        if self.batch_size > images:
            reason = f"must be at most {images}, the training images, got {self.batch_size}"
            self.refuse("batch_size", reason)


@gin.register
@dataclass(frozen=True)
class LinearProbe(MinibatchProbe):
    """Multinomial logistic regression on frozen features, many probes at once (batched_probes).

    Every probe takes epochs * (n // batch_size) steps, where n counts the whole training split.
    It takes its own examples in random orders, one order after the other. So a probe with few
    shots takes as many steps as one with all examples; the authors' code gives it fewer.

    rescale: divide features by the root of their mean squared row norm over the training split,
        one number an encoder. Then a learning rate means the same for encoders of different
        scale; geometry and sparsity do not change. The authors' code does not rescale, which is
        False.
    views: the authors' code has random crops and flips.
    cached: how many views of every image are encoded once, stored, shared by all curves and taken
        in turn, one an epoch. None encodes fresh ones in every epoch, once for all probes that
        are fitted together, and stores none.
    dropout: the share of features that is dropped at every step.
    stopping: which epoch's weights are taken; None takes those of the last epoch.
    """

    rescale: bool = True
    cached: Count | None = None
    dropout: Annotated[float, Range(0, 0.99)] = 0.0
    stopping: EarlyStopping | None = None

    def validate(self) -> None:
        if self.cached is not None and not self.views:
            self.refuse(
                "cached",
                "needs LinearProbe.views, the augmentations whose results are to be kept, "
                f"got {self.cached} without any",
            )

    @property
    def sees_fresh_views(self) -> bool:
        """Whether every epoch has views that are encoded for it alone."""
        return bool(self.views) and self.cached is None

    @property
    def settings(self) -> FitSettings:
        return FitSettings(
            optimizer=self.optimizer,
            schedule=self.schedule,
            epochs=self.epochs,
            batch_size=self.batch_size,
            rescale=self.rescale,
            dropout=self.dropout,
            stopping=self.stopping,
        )

    def fit(self, features: Tensor, classes: int, probes: Sequence[ProbeSpec]) -> BatchedProbes:
        """Fit probes on the same features in every epoch.

        features: (n, d)
        Returns the fitted probes in the order of `probes`. They take unscaled features; the scale
        is folded into the weights.
        """
        return fit_probes(lambda epoch: features, classes, probes, self.settings)

    def upstream(self, task: Task) -> tuple[Stage, ...]:
        encoders = task.encoder.stages if task.touches_inputs else ()
        trained_on = self.fitted_stages(task) if self.sees_fresh_views else self.cached_views(task)
        return (*encoders, *trained_on, Features(task.encoder, task.data, "test"))

    def predictions(self, task: Task, job: Job) -> Iterator[Predictions]:
        if self.sees_fresh_views:
            fitted = self._probes_of_stages(task, job)
        else:
            fitted = self._probes_on_cached_views(task, job)
        for (probes, position), (features, passes) in zip(
            fitted, _test_features(task, job), strict=True
        ):
            yield Predictions(probes.logits(features, position), passes)

    def cached_views(self, task: Task) -> tuple[Features, ...]:
        """The stages of the training features that are encoded once and taken in turn.

        One stage for every cached view, of which every epoch takes the next one; without any views,
        the one stage of the images as they are.
        """
        count = min(self.cached, self.epochs) if self.cached else 1
        return tuple(
            Features(task.encoder, task.data, "train", self.views, turn) for turn in range(count)
        )

    def _probes_on_cached_views(self, task: Task, job: Job) -> list[tuple[BatchedProbes, int]]:
        """For every draw, fitted probes and the position of its own among them.

        Where only test inputs are corrupted, all severities of a repeat have one probe.
        """
        stages = self.cached_views(task)
        first = job.get(stages[0])["features"].to(device())  # the only one, mostly

        def features(epoch: int) -> Tensor:
            turn = epoch % len(stages)
            return first if turn == 0 else job.get(stages[turn])["features"].to(device())

        probes, positions = unique_probes(task.probe_specs())
        fitted = fit_probes(features, task.data.classes, probes, self.settings)
        return [(fitted, position) for position in positions]

    def fitted_stage(self, task: Task, severity: float) -> FittedProbes:
        """The stage that fits the probes of a severity on fresh views.

        Severities that leave the training set clean share one stage, whatever the corruption.
        """
        touching = tuple(filter(task.corruption.touches_training, task.severities))
        is_clean = severity not in touching
        return FittedProbes(
            probe=self,
            encoder=task.encoder,
            data=task.data,
            corruption=None if is_clean else task.corruption,
            severities=() if is_clean else touching,
            repeats=task.repeats,
        )

    def fitted_stages(self, task: Task) -> tuple[FittedProbes, ...]:
        """At most two: of the clean training set and of the corrupted ones."""
        stages = [self.fitted_stage(task, severity) for severity in task.severities]
        return tuple(dict.fromkeys(stages))

    def _probes_of_stages(self, task: Task, job: Job) -> list[tuple[BatchedProbes, int]]:
        """For every draw, fitted probes and the position of its own among them."""
        fitted = {stage: stage.fitted(job) for stage in self.fitted_stages(task)}
        probes_and_position = []
        for severity, repeat in task.draws:
            stage = self.fitted_stage(task, severity)
            probes_and_position.append((fitted[stage], stage.position(severity, repeat)))
        return probes_and_position


def _test_features(task: Task, job: Job) -> Iterator[tuple[Tensor, int]]:
    """For every draw, the test features (n, d) and how many inputs were encoded for it alone."""
    clean = job.get(Features(task.encoder, task.data, "test"))["features"].to(device())
    inputs = task.data.split("test").inputs
    network = task.encoder.network(job.get) if task.touches_inputs else None
    for severity, repeat in task.draws:
        if network is not None and task.corruption.touches_inputs(severity):
            yield encode(network, task.data, inputs, task.corrupt(severity, repeat)), len(inputs)
        else:
            yield clean, 0


@dataclass(frozen=True, kw_only=True)
class FittedProbes(Learning):
    """Linear probes that are fitted on fresh views in every epoch.

    Their training sets are all severities and repeats of one corruption, or the clean set. Only
    what the probes learn from is in the key. So curves that corrupt test inputs share the stage of
    the clean training set, and adding or dropping a curve changes no other key.

    Stages with equal probe, encoder and data see the same views. If several of them are missing,
    every view is encoded once for all of them. Every stage still has its own batched products, in
    the same shapes. So its artifact has the same bits whether it is fitted alone or together with
    others, and whether or not it was killed and resumed.

    corruption: of the training set; None leaves it clean.
    severities: of the corruption, those that change the training set; () without a corruption.
    repeats: for each severity; every repeat has its own draw of the corruption, first weights and
        order of examples.

    Artifact, severity by severity, repeat by repeat:
        weight  (probes, width, classes)
        bias    (probes, classes)
    """

    probe: LinearProbe
    encoder: Representation
    data: Dataset
    corruption: Corruption | None
    severities: tuple[float, ...]
    repeats: Count

    def upstream(self) -> tuple[Stage, ...]:
        return self.encoder.stages

    def probe_specs(self) -> list[ProbeSpec]:
        """The classifiers to fit, in the order of the artifact."""
        severities = self.severities if self.corruption else (0.0,)
        return [
            probe_spec(self.data, self.corruption, severity, repeat)
            for severity, repeat in draws_of(severities, self.repeats)
        ]

    def position(self, severity: float, repeat: int) -> int:
        """The position in the artifact of the probe of a draw."""
        row = self.severities.index(severity) if self.corruption else 0
        return row * self.repeats + repeat

    def fitted(self, job: Job) -> BatchedProbes:
        artifact = job.get(self)
        return BatchedProbes(artifact["weight"].to(device()), artifact["bias"].to(device()))

    def shared_work(self) -> Hashable:
        return self.probe, self.encoder, self.data

    def run(self, job: Job) -> Artifact:
        (artifact,) = self.run_together([self], [job])
        if isinstance(artifact, StageError):
            raise artifact
        return artifact

    @classmethod
    def run_together(
        cls, stages: Sequence[Self], jobs: Sequence[Job]
    ) -> list[Artifact | StageError]:
        """Encode every epoch's views once, for all stages that have not trained on that epoch."""
        probe, encoder, data = stages[0].probe, stages[0].encoder, stages[0].data
        network = encoder.network(jobs[0].get)
        loader = BatchLoader(data.split("train").inputs)
        fits = [_StageFit(stage, job) for stage, job in zip(stages, jobs, strict=True)]
        for epoch in range(min(fit.next_epoch for fit in fits), probe.epochs):
            views = encode_views(network, data, loader, probe.views, view_draw(epoch))
            passes = len(views)
            for fit in fits:
                if fit.next_epoch == epoch:
                    fit.train_epoch(views, passes)
                    passes = 0  # counted once, by the first of the stages
        return [fit.artifact() for fit in fits]


class _StageFit:
    """The fit of one stage, with its checkpoints and its log in the stage's own job.

    passes: how many inputs passed through the encoder for this stage.
    """

    def __init__(self, stage: FittedProbes, job: Job):
        probes, self.positions = unique_probes(stage.probe_specs())
        self.job = job
        self.epochs = stage.probe.epochs
        self.passes = 0
        self.trainer = ProbeTrainer(
            probes, stage.encoder.width, stage.data.classes, stage.probe.settings, device()
        )
        state = job.restore()
        if state is not None:
            self.trainer.load_state(state["trainer"])
            self.passes = state["passes"]

    @property
    def next_epoch(self) -> int:
        return self.trainer.next_epoch

    def train_epoch(self, views: Tensor, passes: int) -> None:
        """Train one epoch, then log it and save a checkpoint.

        views: (n, d), the features of this epoch.
        passes: how many of the inputs that passed through the encoder this stage counts.
        """
        loss = self.trainer.train_epoch(views)
        self.passes += passes
        self.job.log(self.next_epoch, self.epochs, loss=loss)
        self.job.save({"trainer": self.trainer.state(), "passes": self.passes})

    def artifact(self) -> Artifact | StageError:
        """The artifact of the stage, or its error, which does not stop the other stages."""
        try:
            fitted = self.trainer.result()
        except StageError as error:
            return error
        if self.passes:
            self.job.log(self.epochs, self.epochs, encoder_passes=self.passes)
        return {"weight": fitted.weight[self.positions], "bias": fitted.bias[self.positions]}
