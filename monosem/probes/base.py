"""Probes: how well a classifier does on a representation, with the representation left as it is.

A curve describes its question as a `Task`. A `Probe` says how a classifier is made: it names the
stages that this needs and predicts the test labels. A `ProbeSpec` (batched_probes) is one
classifier to fit. Nothing here knows of curves, experiments or tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from monosem.core.device import device
from monosem.core.fields import Count, Part
from monosem.core.identity import seed_for
from monosem.core.stage import Job, Stage
from monosem.corruptions.base import Corruption, training_set
from monosem.data.dataset import Augmentation, Dataset, views_mismatch
from monosem.learning.optimizers import Optimizer, Schedule
from monosem.models.features import Features, encode
from monosem.models.representation import Composed, Representation
from monosem.probes.batched_probes import ProbeSpec
from monosem.probes.losses import CrossEntropy, ProbeLoss


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

    @property
    def touches_labels(self) -> bool:
        """Whether some severity makes training labels wrong."""
        return any(self.corruption.touches_labels(severity) for severity in self.severities)

    @property
    def touches_features(self) -> bool:
        """Whether some severity damages the features of the test inputs."""
        return any(self.corruption.touches_features(severity) for severity in self.severities)

    @property
    def damage_stages(self) -> tuple[Features, ...]:
        """The stages that `damage` asks for: features of the training inputs, for their range."""
        return (Features(self.encoder, self.data, "train"),) if self.touches_features else ()

    def damage(self, job: Job) -> Callable[[Tensor, float, int], Tensor]:
        """What damages the test features (n, d) of a severity and a repeat."""
        if not self.touches_features:
            return lambda features, severity, repeat: features
        (stage,) = self.damage_stages
        training = job.get(stage)["features"].to(device())

        def damaged(features: Tensor, severity: float, repeat: int) -> Tensor:
            if not self.corruption.touches_features(severity):
                return features
            draw = self.corruption.draw(repeat, self.data)
            return self.corruption.features(features, training, severity, draw)

        return damaged

    def probe_spec(self, severity: float, repeat: int) -> ProbeSpec:
        """The classifier of a draw."""
        return probe_spec(self.data, self.corruption, severity, repeat)

    def probe_specs(self) -> list[ProbeSpec]:
        """One for every draw."""
        return [self.probe_spec(severity, repeat) for severity, repeat in self.draws]

    def encode_test(self, network: nn.Module, severity: float, repeat: int) -> Tensor:
        """(n, any) What a network gives for the test inputs under the corruption.

        They are corrupted as the data store them and as they are prepared; most corruptions do one
        of the two.
        """
        return encode(
            network,
            self.data,
            self._stored_inputs(severity, repeat),
            self._corrupt(severity, repeat),
        )

    def _stored_inputs(self, severity: float, repeat: int) -> Tensor:
        """The test inputs as the data store them, corrupted where the corruption does so there."""
        if not self.corruption.touches_inputs(severity):
            return self.data.split("test").inputs
        draw = self.corruption.draw(repeat, self.data)
        return self.corruption.stored_inputs(self.data, severity, draw)

    def _corrupt(self, severity: float, repeat: int) -> Callable[[Tensor], Tensor]:
        """A function that corrupts prepared test inputs, to be called chunk by chunk in order."""
        generator = self.corruption.draw(repeat, self.data)
        return lambda inputs: self.corruption.inputs(inputs, self.data, severity, generator)


def clean_task(encoder: Representation, data: Dataset, repeats: int) -> Task:
    """To learn from the clean training set: one draw of the probe for every repeat."""
    return Task(
        encoder=encoder, data=data, corruption=Corruption(), severities=(0.0,), repeats=repeats
    )


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
    features: (n, d) of the representation, from a probe that leaves it as it is
    measures: `Probe.measures` by name
    """

    logits: Tensor
    passes: int
    features: Tensor | None = None
    measures: Mapping[str, float] = MappingProxyType({})


class Classifier:
    """The fitted classifier of one draw, for other test sets and for attacks."""

    def network(self, job: Job) -> nn.Module:
        """From prepared inputs to logits, frozen, on the device. Inputs may have a gradient."""
        raise NotImplementedError


@dataclass(frozen=True)
class Probe(Part):
    """How a classifier of a representation is made.

    frozen: whether it leaves the representation as it is and predicts from its features, which
        are among its predictions then.
    """

    frozen: ClassVar[bool] = False

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of what it measures beside its predictions, on the test split."""
        return ()

    def check_data(self, data: Dataset) -> None:
        """Refuse fields that do not go with a training split, for example with its size."""

    def check_width(self, width: int) -> None:
        """Refuse fields that do not go with so many features."""

    def upstream(self, task: Task) -> tuple[Stage, ...]:
        """The stages that `predictions` asks for."""
        raise NotImplementedError

    def predictions(self, task: Task, job: Job) -> Iterator[Predictions]:
        """One for every draw of the task, in that order."""
        raise NotImplementedError

    def classifiers(self, task: Task, job: Job) -> Iterator[Classifier]:
        """One for every draw of the task, in that order."""
        raise NotImplementedError

    def test_stages(self, encoder: Representation, test: Dataset) -> tuple[Stage, ...]:
        """The stages, beside those of `upstream`, that `test_logits` of `test` asks for."""
        return ()

    def test_logits(
        self, task: Task, classifiers: Sequence[Classifier], test: Dataset, job: Job
    ) -> Iterator[Tensor]:
        """(n, classes) of the test split of any dataset, as it is, for every classifier.

        classifiers: of the task.
        """
        inputs = test.split("test").inputs
        for classifier in classifiers:
            yield encode(classifier.network(job), test, inputs)


class HeadClassifier(Classifier):
    """A classifier of the features of a representation, which stays as it is.

    encoder: the representation.
    """

    encoder: Representation

    def head(self, features: Tensor) -> Tensor:
        """(n, d) -> (n, classes)."""
        raise NotImplementedError

    def network(self, job: Job) -> nn.Module:
        return Composed(self.encoder.network(job.get), self.head)


@dataclass(frozen=True)
class FrozenProbe(Probe):
    """A probe that leaves the representation as it is; its classifiers are of HeadClassifier.

    So the features of a test set are kept, and serve all of its classifiers.
    """

    frozen = True

    def test_stages(self, encoder: Representation, test: Dataset) -> tuple[Stage, ...]:
        return (Features(encoder, test, "test"),)

    def test_logits(
        self, task: Task, classifiers: Sequence[Classifier], test: Dataset, job: Job
    ) -> Iterator[Tensor]:
        (stage,) = self.test_stages(task.encoder, test)
        features = job.get(stage)["features"].to(device())  # read once for all of them
        for classifier in classifiers:
            assert isinstance(classifier, HeadClassifier), "a frozen probe makes no others"
            yield classifier.head(features)


@dataclass(frozen=True)
class MinibatchProbe(Probe):
    """A probe that learns by minibatches of the training split.

    optimizer: of its weights.
    schedule: of the learning rate.
    epochs: passes over the training split.
    batch_size: examples a step.
    views: augmentations of the training examples; none takes them as they are.
    loss: what is minimised.
    """

    optimizer: Optimizer
    schedule: Schedule
    epochs: Count = 50
    batch_size: Count = 256
    views: tuple[Augmentation, ...] = ()
    loss: ProbeLoss = CrossEntropy()  # noqa: RUF009, frozen

    def check_data(self, data: Dataset) -> None:
        if mismatch := views_mismatch(self.views, data):
            self.refuse("views", f"do not fit the data of the probe, which {mismatch}")
        examples = len(data.split("train").labels)
        if self.batch_size > examples:
            reason = f"must be at most {examples}, the training {data.noun}, got {self.batch_size}"
            self.refuse("batch_size", reason)
