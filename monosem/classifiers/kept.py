"""What all classifiers of kept features share: where features are from, training sets, folds."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Tensor

from monosem.core.device import device
from monosem.core.fields import Count, Range
from monosem.core.identity import generator
from monosem.core.stage import Artifact, Job, Stage
from monosem.corruptions.base import Corruption
from monosem.data.dataset import Dataset
from monosem.models.features import Features, KeptFeatures
from monosem.models.representation import FeatureMap, Representation
from monosem.probes.base import (
    Classifier,
    FrozenProbe,
    HeadClassifier,
    Predictions,
    Task,
    draws_of,
)
from monosem.probes.batched_probes import ProbeSpec


class Fitted(Protocol):
    """Fitted classifiers."""

    def logits(self, features: Tensor, position: int) -> Tensor:
        """Features (n, d) -> (n, classes), the largest for the class that is predicted."""


@dataclass(frozen=True)
class FeatureClassifier(FrozenProbe):
    """A classifier that is fitted to kept features of the training images as they are.

    All classifiers of a curve are fitted at once. Settings with several choices are decided by
    labels that are held out of those that the classifier is given: they are as noisy as the given
    ones, and nothing is ever decided by test images.
    """

    def fit(self, features: Tensor, classes: int, heads: Sequence[ProbeSpec]) -> Fitted:
        """Fit one classifier for each head.

        features: (n, d) of all training examples.
        """
        raise NotImplementedError

    def identity(self, head: ProbeSpec) -> Hashable:
        """Equal for heads that would be fitted alike. Without draws the seed does not count."""
        return head.examples.numpy().tobytes(), head.labels.numpy().tobytes()

    def upstream(self, task: Task) -> tuple[Stage, ...]:
        corrupted = (corrupted_features(task),) if task.touches_inputs else ()
        return (*corrupted, *_clean_features(task))

    def predictions(self, task: Task, job: Job) -> Iterator[Predictions]:
        fitted, positions = self._fitted(task, job)
        for position, features in zip(positions, _test_features(task, job), strict=True):
            yield Predictions(fitted.logits(features, position), 0, features)

    def classifiers(self, task: Task, job: Job) -> Iterator[Classifier]:
        fitted, positions = self._fitted(task, job)
        for position in positions:
            yield FittedClassifier(task.encoder, fitted, position)

    def _fitted(self, task: Task, job: Job) -> tuple[Fitted, list[int]]:
        """The different classifiers, and which of them is that of each draw."""
        train, _ = _clean_features(task)
        features = job.get(train)["features"].to(device())
        different: dict[Hashable, ProbeSpec] = {}
        identities = []
        for head in task.probe_specs():
            identities.append(self.identity(head))
            different.setdefault(identities[-1], head)
        position = {identity: index for index, identity in enumerate(different)}
        fitted = self.fit(features, task.data.classes, list(different.values()))
        return fitted, [position[identity] for identity in identities]


@dataclass(frozen=True, kw_only=True)
class CrossValidated(FeatureClassifier):
    """One whose settings are chosen by cross-validation.

    folds: at most as many as the smallest class has training examples.
    """

    folds: Annotated[int, Range(2)] = 3

    def check_data(self, data: Dataset) -> None:
        smallest = int(data.split("train").labels.bincount().min())
        if self.folds > smallest:
            self.refuse(
                "folds",
                f"must be at most {smallest}, the training {data.noun} of the smallest class, "
                f"got {self.folds}",
            )


class FittedClassifier(HeadClassifier):
    """One of several fitted classifiers.

    encoder: the representation under it.
    position: which of the fitted ones it is.
    """

    def __init__(self, encoder: Representation, fitted: Fitted, position: int):
        self.encoder, self.fitted, self.position = encoder, fitted, position

    def head(self, features: Tensor) -> Tensor:
        return self.fitted.logits(features, self.position)


# Test features


def _clean_features(task: Task) -> tuple[Features, Features]:
    """Of the training and of the test split."""
    return Features(task.encoder, task.data, "train"), Features(task.encoder, task.data, "test")


def corrupted_features(task: Task) -> CorruptedFeatures:
    """The stage of the test features under the corruption of a task."""
    touched = tuple(filter(task.corruption.touches_inputs, task.severities))
    return CorruptedFeatures(
        encoder=task.encoder,
        data=task.data,
        corruption=task.corruption,
        severities=touched,
        repeats=task.repeats,
    )


def _test_features(task: Task, job: Job) -> Iterator[Tensor]:
    """For every draw, the test features (n, d)."""
    clean = job.get(_clean_features(task)[1])["features"].to(device())
    corrupted: dict[tuple[float, int], Tensor] = {}
    if task.touches_inputs:
        stage = corrupted_features(task)
        draws = draws_of(stage.severities, stage.repeats)
        corrupted = dict(zip(draws, job.get(stage)["features"], strict=True))
    damage = task.damage(job)
    for draw in task.draws:
        features = corrupted[draw].to(device()) if draw in corrupted else clean
        yield damage(features, *draw)


@dataclass(frozen=True, kw_only=True)
class CorruptedFeatures(KeptFeatures):
    """The features of corrupted test inputs, encoded once for all classifiers and all turns.

    severities: those that change inputs.
    repeats: draws of each.

    Artifact:
        features  (severities * repeats, n, width)
    """

    data: Dataset
    corruption: Corruption
    severities: tuple[float, ...]
    repeats: Count

    def run(self, job: Job) -> Artifact:
        if isinstance(self.encoder, FeatureMap) and self.source:
            mapping = self.encoder.mapping()
            kept = job.get(self.source)["features"]
            return {"features": torch.stack([mapping(of_draw) for of_draw in kept])}
        task = Task(
            encoder=self.encoder,
            data=self.data,
            corruption=self.corruption,
            severities=self.severities,
            repeats=self.repeats,
        )
        network = self.encoder.network(job.get)
        features = torch.stack([task.encode_test(network, *draw) for draw in task.draws])
        job.log(1, 1, encoder_passes=features.shape[0] * features.shape[1])
        return {"features": features}


# Training sets


def group_by_examples(heads: Sequence[ProbeSpec]) -> list[list[int]]:
    """Positions of heads, those of the same examples together: they share their features."""
    groups: dict[bytes, list[int]] = {}
    for position, head in enumerate(heads):
        groups.setdefault(head.examples.numpy().tobytes(), []).append(position)
    return list(groups.values())


def fold_of_examples(labels: Tensor, count: int) -> Tensor | None:
    """(m,) labels -> (m,) the fold in which each example is held out, from 0, stratified.

    There are `count` folds, or as many as the smallest class has examples. None where that is one:
    then nothing can be held out. The draw is the same for all training sets of m examples.
    """
    count = min(count, int(labels.bincount()[labels.unique()].min()))
    if count < 2:
        return None
    order = torch.randperm(len(labels), generator=generator("folds", len(labels)))
    folds = torch.empty_like(labels)
    for label in labels.unique():
        members = order[labels[order] == label]
        folds[members] = torch.arange(len(members)) % count
    return folds


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(heads, m) labels -> (heads, classes, m) float64."""
    return (labels[:, None] == torch.arange(classes)[:, None]).double()


def labels_of(heads: Sequence[ProbeSpec]) -> Tensor:
    """(heads, m): the labels that heads of the same examples see."""
    return torch.stack([head.labels[head.examples] for head in heads])
