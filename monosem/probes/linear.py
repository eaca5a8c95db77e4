"""Linear probes: of features that are kept, or of fresh views in every epoch."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import gin
from torch import Tensor

from monosem.core.device import BatchLoader, device
from monosem.core.fields import Count, Range
from monosem.core.stage import Artifact, Job, Stage, StageError, run_alone
from monosem.corruptions.base import Corruption
from monosem.data.dataset import Dataset
from monosem.models.features import Features, encode_views, view_draw
from monosem.models.representation import Representation
from monosem.models.training import Learning
from monosem.probes.base import (
    Classifier,
    FrozenProbe,
    HeadClassifier,
    MinibatchProbe,
    Predictions,
    Task,
    draws_of,
    probe_spec,
)
from monosem.probes.batched_probes import (
    BatchedProbes,
    EarlyStopping,
    FitSettings,
    ProbeSpec,
    ProbeTrainer,
    fit_probes,
    unique_probes,
)


@gin.register
@dataclass(frozen=True)
class LinearProbe(MinibatchProbe, FrozenProbe):
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
    mixup: alpha of the Beta(alpha, alpha) that features and losses are mixed by (Zhang et al. 2018,
        arXiv:1710.09412), one draw a minibatch; 0 mixes nothing.
    """

    rescale: bool = True
    cached: Count | None = None
    dropout: Annotated[float, Range(0, 0.99)] = 0.0
    stopping: EarlyStopping | None = None
    mixup: Annotated[float, Range(0, 100)] = 0.0

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
            loss=self.loss,
            mixup=self.mixup,
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
        test = Features(task.encoder, task.data, "test")
        return (*encoders, *trained_on, test, *task.damage_stages)

    def predictions(self, task: Task, job: Job) -> Iterator[Predictions]:
        for (probes, position), (features, passes) in zip(
            self._fitted(task, job), _test_features(task, job), strict=True
        ):
            yield Predictions(probes.logits(features, position), passes, features)

    def classifiers(self, task: Task, job: Job) -> Iterator[Classifier]:
        for probes, position in self._fitted(task, job):
            yield LinearClassifier(task.encoder, probes.weight[position], probes.bias[position])

    def _fitted(self, task: Task, job: Job) -> list[tuple[BatchedProbes, int]]:
        """For every draw, fitted probes and the position of its own among them."""
        if self.sees_fresh_views:
            return self._probes_of_stages(task, job)
        return self._probes_on_cached_views(task, job)

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


class LinearClassifier(HeadClassifier):
    """A linear probe.

    encoder: the representation under it.
    weight: (d, classes).
    bias: (classes,).
    """

    def __init__(self, encoder: Representation, weight: Tensor, bias: Tensor):
        self.encoder, self.weight, self.bias = encoder, weight, bias

    def head(self, features: Tensor) -> Tensor:
        return features @ self.weight + self.bias


def _test_features(task: Task, job: Job) -> Iterator[tuple[Tensor, int]]:
    """For every draw, the test features (n, d) and how many inputs were encoded for it alone."""
    clean = job.get(Features(task.encoder, task.data, "test"))["features"].to(device())
    network = task.encoder.network(job.get) if task.touches_inputs else None
    damage = task.damage(job)
    for severity, repeat in task.draws:
        if network is not None and task.corruption.touches_inputs(severity):
            features = task.encode_test(network, severity, repeat)
            yield features, len(features)
        else:
            yield damage(clean, severity, repeat), 0


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
        return run_alone(self, job)

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
