"""Corruptions: of the probe's training labels, its training examples or the test inputs.

A corruption overrides one hook; the other hooks change nothing. Every hook is
handed a fresh generator, seeded by (class of the corruption, repeat, dataset) alone. The encoder
does not seed it, so every encoder meets the same noise. The severity does not seed it either, so
severities share their draws: the labels wrong at 10 % are among those wrong at 20 %, and 5 shots
contain the 2 shots. Nothing here knows of probes or encoders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import gin
import torch
from torch import Generator, Tensor

from monosem.core.fields import AtLeastZero, Count, Fraction, Part, conform
from monosem.core.identity import generator as seeded_generator
from monosem.data.dataset import Dataset
from monosem.data.images import ImageDataset


@dataclass(frozen=True)
class Corruption(Part):
    """A way to make an evaluation harder, at a severity; severity 0 is no corruption at all."""

    severities: ClassVar[Any] = AtLeastZero  # what a severity may be, as an annotation

    @property
    def axis(self) -> str:
        """What the severity is, with its unit, for figures and tables."""
        return f"severity of {type(self).__name__}"

    def check_severity(self, severity: float, labels: Tensor) -> None:
        """ValueError, with what is allowed, where these training labels (n,) do not allow it."""
        conform(severity, self.severities)

    def incompatibility(self, data: Dataset) -> str | None:
        """Why it cannot be done to `data`, or None.

        It begins with a verb, as in "must be of images": "Curve.data" is put in front.
        """
        return None

    def draw(self, repeat: int, data: Dataset) -> Generator:
        """What the hooks draw from: the same for every encoder and severity.

        It is on the CPU, so that encoders measured on different devices meet the same noise.
        """
        return seeded_generator(type(self).__name__, repeat, data)

    def labels(self, labels: Tensor, classes: int, severity: float, generator: Generator) -> Tensor:
        """(n,) true training labels -> (n,) the labels that the probe sees."""
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

    def touches_training(self, severity: float) -> bool:
        """Whether the probe learns from other labels or other examples than the clean ones."""
        chooses_examples = type(self).examples is not Corruption.examples
        changes_labels = type(self).labels is not Corruption.labels
        return chooses_examples or (changes_labels and severity != 0)

    def touches_inputs(self, severity: float) -> bool:
        """Whether the test inputs have to be encoded anew at this severity."""
        return severity != 0 and type(self).inputs is not Corruption.inputs


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
    noisy_labels = corruption.labels(labels, data.classes, severity, corruption.draw(repeat, data))
    return TrainingSet(examples, noisy_labels)


@gin.register
@dataclass(frozen=True)
class LabelNoise(Corruption):
    """Symmetric label noise: exactly the given share of the training labels is wrong.

    That is round(severity * n) labels. A wrong label is uniform over the other classes and never
    the true one.
    """

    severities: ClassVar[Any] = Fraction

    @property
    def axis(self) -> str:
        return "wrong training labels (share)"

    def labels(self, labels: Tensor, classes: int, severity: float, generator: Generator) -> Tensor:
        n = len(labels)
        wrong = torch.randperm(n, generator=generator)[: round(severity * n)]
        shift = torch.randint(1, max(classes, 2), (n,), generator=generator)
        noisy_labels = labels.clone()
        noisy_labels[wrong] = (labels[wrong] + shift[wrong]) % classes
        return noisy_labels


@gin.register
@dataclass(frozen=True)
class FewShot(Corruption):
    """The probe sees few training examples of every class; a smaller set is part of a larger one.

    unit: what a severity counts. 'shots' are examples of every class; 'fraction' is the share of
        every class, at least one example each.
    """

    unit: Literal["shots", "fraction"] = "shots"

    @property
    def axis(self) -> str:
        return "training images per class" if self.unit == "shots" else "training images (share)"

    def check_severity(self, severity: float, labels: Tensor) -> None:
        if self.unit == "fraction":
            _check_fraction(severity)
        else:
            _check_shots(severity, smallest_class=int(labels.bincount().min()))

    def examples(self, labels: Tensor, severity: float, generator: Generator) -> Tensor:
        shuffled = torch.randperm(len(labels), generator=generator)
        chosen = []
        for label in labels.unique().tolist():
            members = shuffled[labels[shuffled] == label]
            chosen.append(members[: self._count(severity, len(members))])
        return torch.cat(chosen).sort().values

    def _count(self, severity: float, members: int) -> int:
        """How many of the members of a class the probe sees."""
        return int(severity) if self.unit == "shots" else max(1, round(severity * members))

    def touches_training(self, severity: float) -> bool:
        return not (self.unit == "fraction" and severity == 1)


def _check_fraction(severity: float) -> None:
    if severity == 0:
        raise ValueError("must be above 0: a fraction of 0 leaves no image")
    conform(severity, Fraction)


def _check_shots(severity: float, smallest_class: int) -> None:
    shots = conform(int(severity) if severity.is_integer() else severity, Count)
    if shots > smallest_class:
        raise ValueError(
            f"must be at most {smallest_class}, the training images of the smallest class, "
            f"got {shots} shots"
        )


@dataclass(frozen=True)
class InputNoise(Corruption):
    """Noise added to the test images, which are not clamped, as in the authors' code.

    space: 'normalised' adds it after normalisation, as the authors' code does; 'pixel' adds it in
        units of the pixel range [0, 1].
    """

    space: Literal["normalised", "pixel"] = "normalised"

    def noise(self, images: Tensor, generator: Generator) -> Tensor:
        """Noise of severity 1 in the shape of `images`, drawn where the generator is."""
        raise NotImplementedError

    def incompatibility(self, data: Dataset) -> str | None:
        if isinstance(data, ImageDataset):
            return None
        return "must be of images, to which noise is added"

    def inputs(
        self, inputs: Tensor, data: Dataset, severity: float, generator: Generator
    ) -> Tensor:
        assert isinstance(data, ImageDataset), "as incompatibility says"
        pixel = data.pixel_range
        unit = pixel if self.space == "pixel" else torch.ones_like(pixel)
        return inputs + severity * unit * self.noise(inputs, generator).to(inputs.device)


@gin.register
@dataclass(frozen=True)
class GaussianNoise(InputNoise):
    """x + severity * N(0, 1): the severity is the standard deviation, in units of `space`."""

    @property
    def axis(self) -> str:
        return f"Gaussian noise (standard deviation, {self.space} units)"

    def noise(self, images: Tensor, generator: Generator) -> Tensor:
        return torch.randn(images.shape, generator=generator, dtype=images.dtype)


@gin.register
@dataclass(frozen=True)
class UniformNoise(InputNoise):
    """x + severity * U: the severity is the width of the interval, in normalised or pixel units.

    centred: False draws from [0, width), as the authors' code does, so the mean moves by width / 2.
        True draws from [-width / 2, width / 2), which is the same without the shift.
    """

    centred: bool = False

    @property
    def axis(self) -> str:
        interval = "centred" if self.centred else "one-sided"
        return f"uniform noise (width, {self.space} units, {interval})"

    def noise(self, images: Tensor, generator: Generator) -> Tensor:
        uniform = torch.rand(images.shape, generator=generator, dtype=images.dtype)
        return uniform - 0.5 if self.centred else uniform
