"""Probes: how well a classifier does on a representation, with the representation left as it is.

A curve describes what it asks as a `Task`; a `Probe` says which stages that needs and predicts
the test labels. Nothing here knows of curves, experiments or tables.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Self

import gin
from torch import Generator, Tensor

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
    def cells(self) -> list[tuple[float, int]]:
        return cells_of(self.severities, self.repeats)

    @property
    def touches_inputs(self) -> bool:
        """Whether some severity changes the test inputs."""
        return any(self.corruption.touches_inputs(severity) for severity in self.severities)

    def probe(self, severity: float, repeat: int) -> ProbeSpec:
        return probe_spec(self.data, self.corruption, severity, repeat)

    def probes(self) -> list[ProbeSpec]:
        """One for every cell."""
        return [self.probe(severity, repeat) for severity, repeat in self.cells]

    def draw(self, repeat: int) -> Generator:
        return self.corruption.draw(repeat, self.data)

    def corrupt(self, severity: float, repeat: int) -> Callable[[Tensor], Tensor]:
        """What is done to the prepared test inputs, chunk by chunk from the first one on."""
        draw = self.draw(repeat)
        return lambda inputs: self.corruption.inputs(inputs, self.data, severity, draw)


def cells_of(severities: Sequence[float], repeats: int) -> list[tuple[float, int]]:
    """Every (severity, repeat), severity by severity."""
    return [(severity, repeat) for severity in severities for repeat in range(repeats)]


def probe_spec(
    data: Dataset, corruption: Corruption | None, severity: float, repeat: int
) -> ProbeSpec:
    """The probe of a repeat on a corrupted training set; without a corruption, on the clean one."""
    examples, labels = training_set(data, corruption, severity, repeat)
    return ProbeSpec(seed_for("probe", repeat), examples, labels)


class Predictions(NamedTuple):
    """What a probe predicts for the test split.

    logits: (n, classes)
    passes: inputs that had to be encoded for them
    """

    logits: Tensor
    passes: int


@dataclass(frozen=True)
class Probe(Part):
    """How a classifier of a representation is made."""

    def check_data(self, data: Dataset) -> None:
        """Refuse what does not go with a training split, its size say."""

    def upstream(self, task: Task) -> tuple[Stage, ...]:
        """The stages that `predictions` asks for."""
        raise NotImplementedError

    def predictions(self, task: Task, job: Job) -> Iterator[Predictions]:
        """One for every cell of the task, in that order."""
        raise NotImplementedError


@dataclass(frozen=True)
class MinibatchProbe(Probe):
    """A probe that learns by minibatches of the training split.

    optimizer, schedule: of its weights.
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
    It walks through its own examples in a fresh random order each time round. So a probe with few
    shots takes as many steps as one with all examples; the reference gives it fewer.

    rescale: divide features by the root of their mean squared row norm over the training split,
        one number an encoder. Then a learning rate means the same for encoders of different
        scale; geometry and sparsity do not change. The reference does not rescale, which is
        False.
    views: the reference has random crops and flips.
    cached: how many views of every image are encoded once, stored, shared by all curves and taken
        in turn, one an epoch. None encodes fresh ones in every epoch, once for all probes that
        are fitted together, and stores none.
    dropout: the share of features that is dropped at every step.
    stopping: whose weights are taken; None takes the last ones.
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
        Returns the fitted probes in the order of `probes`, for features of that scale.
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
        """The training features that are encoded once, taken in turn, one an epoch."""
        count = min(self.cached, self.epochs) if self.cached else 1
        return tuple(
            Features(task.encoder, task.data, "train", self.views, turn) for turn in range(count)
        )

    def _probes_on_cached_views(self, task: Task, job: Job) -> list[tuple[BatchedProbes, int]]:
        """For every cell, fitted probes and the position of its own among them.

        Where only test inputs are corrupted, all severities of a repeat have one probe.
        """
        stages = self.cached_views(task)
        first = job.get(stages[0])["features"].to(device())  # the only one, mostly

        def features(epoch: int) -> Tensor:
            turn = epoch % len(stages)
            return first if turn == 0 else job.get(stages[turn])["features"].to(device())

        probes, positions = unique_probes(task.probes())
        fitted = fit_probes(features, task.data.classes, probes, self.settings)
        return [(fitted, position) for position in positions]

    def fitted_stage(self, task: Task, severity: float) -> FittedProbes:
        """The stage that fits the probes of a severity on fresh views.

        Severities that leave the training set clean have one in common, whatever the corruption.
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
        """For every cell, fitted probes and the position of its own among them."""
        fitted = {stage: stage.fitted(job) for stage in self.fitted_stages(task)}
        probes_and_position = []
        for severity, repeat in task.cells:
            stage = self.fitted_stage(task, severity)
            probes_and_position.append((fitted[stage], stage.position(severity, repeat)))
        return probes_and_position


def _test_features(task: Task, job: Job) -> Iterator[tuple[Tensor, int]]:
    """For every cell, the test features (n, d) and how many inputs were encoded for it alone."""
    clean = job.get(Features(task.encoder, task.data, "test"))["features"].to(device())
    inputs = task.data.split("test").inputs
    network = task.encoder.network(job.get) if task.touches_inputs else None
    for severity, repeat in task.cells:
        if network is not None and task.corruption.touches_inputs(severity):
            yield encode(network, task.data, inputs, task.corrupt(severity, repeat)), len(inputs)
        else:
            yield clean, 0


@dataclass(frozen=True, kw_only=True)
class FittedProbes(Learning):
    """Linear probes on one family of training sets, fitted on fresh views in every epoch.

    Only what the probes learn from is in the key. So curves that corrupt test inputs share the
    stage of the clean training set, and a curve that comes or goes changes no key of another.

    Stages with one probe, encoder and data meet the same views, so those that are missing
    together are fitted on one pass of the encoder. Every stage still has its own batched
    products, in the same shapes: its artifact has the same bits whether it is fitted alone or
    together with others, and wherever it was killed and resumed in between.

    corruption: of the training set; None leaves it clean.
    severities: of the corruption, those that change the training set; () without a corruption.
    repeats: probes a training set, each with its own draws of the corruption, first weights and
        order of examples.
    Artifact: weight (h, width, classes) and bias (h, classes), severity by severity, repeat by
        repeat.
    """

    probe: LinearProbe
    encoder: Representation
    data: Dataset
    corruption: Corruption | None
    severities: tuple[float, ...]
    repeats: Count

    def upstream(self) -> tuple[Stage, ...]:
        return self.encoder.stages

    def probes(self) -> list[ProbeSpec]:
        """h of them, in the order of the artifact."""
        severities = self.severities if self.corruption else (0.0,)
        return [
            probe_spec(self.data, self.corruption, severity, repeat)
            for severity, repeat in cells_of(severities, self.repeats)
        ]

    def position(self, severity: float, repeat: int) -> int:
        """Where the probe of a severity and repeat stands in the artifact."""
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
        """Encode the views of every epoch once, for all stages that have yet to learn from them."""
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
    """The fit of one stage, with its checkpoints and its log in the stage's own job."""

    def __init__(self, stage: FittedProbes, job: Job):
        probes, self.positions = unique_probes(stage.probes())
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
        """views: (n, d) features of this epoch; passes: images to be counted by this stage."""
        loss = self.trainer.train_epoch(views)
        self.passes += passes
        self.job.log(self.next_epoch, self.epochs, loss=loss)
        self.job.save({"trainer": self.trainer.state(), "passes": self.passes})

    def artifact(self) -> Artifact | StageError:
        """What the stage leaves, or why it leaves nothing: that is no fault of its siblings."""
        try:
            fitted = self.trainer.result()
        except StageError as error:
            return error
        if self.passes:
            self.job.log(self.epochs, self.epochs, encoder_passes=self.passes)
        return {"weight": fitted.weight[self.positions], "bias": fitted.bias[self.positions]}
