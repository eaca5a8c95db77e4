"""Corruptions: of the probe's training labels or examples, of the test inputs or their features.

A corruption overrides one hook; the other hooks change nothing. Every hook is handed a fresh
generator, seeded by the class of the corruption, the repeat and `Dataset.seeding` alone. The
encoder does not seed it, so every encoder meets the same noise. The severity does not seed it
either, so severities share their draws: the labels wrong at 10 % are among those wrong at 20 %,
and 5 shots contain the 2 shots. Nothing here knows of probes or encoders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Generator, Tensor

from monosem.core.fields import AtLeastZero, Part, conform
from monosem.core.identity import generator as seeded_generator
from monosem.data.dataset import Dataset


@dataclass(frozen=True)
class Corruption(Part):
    """A way to make an evaluation harder, at a severity; severity 0 is no corruption at all."""

    severities: ClassVar[Any] = AtLeastZero  # what a severity may be, as an annotation
    measures: ClassVar[tuple[str, ...]] = ()  # the names of what `measure` tells

    @property
    def axis(self) -> str:
        """What the severity is, with its unit, for figures and tables."""
        return f"severity of {type(self).__name__}"

    def axis_of(self, data: Dataset) -> str:
        """The same in the words of the data: of images or of texts."""
        return self.axis

    def check_severity(self, severity: float, labels: Tensor) -> None:
        """ValueError, with what is allowed, where these training labels (n,) do not allow it."""
        conform(severity, self.severities)

    def check_width(self, severity: float, width: int) -> None:
        """ValueError, with what is allowed, where so many features do not allow it."""

    def incompatibility(self, data: Dataset) -> str | None:
        """Why it cannot be done to `data`, or None.

        It begins with a verb, as in "must be of images": "Curve.data" is put in front.
        """
        return None

    def draw(self, repeat: int, data: Dataset) -> Generator:
        """What the hooks draw from: the same for every encoder and severity.

        It is on the CPU, so that encoders measured on different devices meet the same noise.
        """
        return seeded_generator(type(self).__name__, repeat, data.seeding)

    def labels(
        self, labels: Tensor, data: Dataset, severity: float, generator: Generator
    ) -> Tensor:
        """(n,) true training labels -> (n,) the labels that the probe sees.

        data: the dataset that they are from: its training inputs, how many classes it has.
        """
        return labels

    def examples(self, labels: Tensor, severity: float, generator: Generator) -> Tensor:
        """(n,) true training labels -> (m,) examples that the probe sees, ascending indices."""
        return torch.arange(len(labels))

    def inputs(
        self, inputs: Tensor, data: Dataset, severity: float, generator: Generator
    ) -> Tensor:
        """Prepared test inputs (n, ...) -> the same, corrupted.

        data: the dataset that they are from. One of images has `pixel_range`, (c, 1, 1): how much
            of their normalised scale the pixel range 0 to 1 takes.
        """
        return inputs

    def stored_inputs(self, data: Dataset, severity: float, generator: Generator) -> Tensor:
        """The test inputs (n, ...) as `data` stores them, corrupted before they are prepared.

        For what is easier to change there than in what a network takes: words, say, in texts.
        """
        return data.split("test").inputs

    def features(
        self, features: Tensor, training: Tensor, severity: float, generator: Generator
    ) -> Tensor:
        """Features (n, d) of the test inputs -> the same, damaged.

        training: (m, d) of the training inputs, as they are.
        """
        return features

    def measure(self, features: Tensor, severity: float) -> Mapping[str, float]:
        """What is known of damaged features (n, d), by the names in `measures`."""
        return {}

    def touches_features(self, severity: float) -> bool:
        """Whether the features of the test inputs are damaged at this severity."""
        return severity != 0 and type(self).features is not Corruption.features

    def touches_training(self, severity: float) -> bool:
        """Whether the probe learns from other labels or other examples than the clean ones."""
        chooses_examples = type(self).examples is not Corruption.examples
        return chooses_examples or self.touches_labels(severity)

    def touches_labels(self, severity: float) -> bool:
        """Whether some training labels may be wrong at this severity."""
        return severity != 0 and type(self).labels is not Corruption.labels

    def touches_inputs(self, severity: float) -> bool:
        """Whether the test inputs have to be encoded anew at this severity."""
        kind = type(self)
        changes_stored = kind.stored_inputs is not Corruption.stored_inputs
        return severity != 0 and (changes_stored or kind.inputs is not Corruption.inputs)


class TrainingSet(NamedTuple):
    """What a probe learns from.

    examples: (m,) indices of the training examples that it sees, ascending
    labels: (n,) the labels of all training examples as it sees them
    """

    examples: Tensor
    labels: Tensor


def training_set(
    data: Dataset, corruption: Corruption | None, severity: float, repeat: int
) -> TrainingSet:
    """The training set of a repeat at a severity; without a corruption, the clean one."""
    labels = data.split("train").labels
    if corruption is None:
        return TrainingSet(torch.arange(len(labels)), labels)
    examples = corruption.examples(labels, severity, corruption.draw(repeat, data))
    noisy_labels = corruption.labels(labels, data, severity, corruption.draw(repeat, data))
    return TrainingSet(examples, noisy_labels)
