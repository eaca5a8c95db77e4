"""Corruptions of an evaluation: what is done to the probe's training labels, its training examples or the test images.

A corruption overrides the one hook it means; the others leave things as they are. Every hook is handed a fresh generator,
seeded by (class of the corruption, repeat, dataset) alone, neither by the encoder nor by the severity, so every encoder meets the same
noise and severities share their draws: the labels wrong at 10 % are among those wrong at 20 %, 5 shots contain the 2 shots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gin
import torch
from torch import Generator, Tensor

from monosem.core.fields import AtLeastZero, Count, Fraction, Part, conform
from monosem.data.dataset import Dataset
from monosem.data.images import ImageDataset


@dataclass(frozen=True)
class Corruption(Part):
    """One way to make an evaluation harder, at a given severity; severity 0 is no corruption at all."""

    severities: ClassVar[Any] = AtLeastZero  # what a severity may be, as an annotation

    @property
    def axis(self) -> str:
        """What the severity is, with its unit, for figures and tables."""
        return f"severity of {type(self).__name__}"

    def check_severity(self, severity: float, labels: Tensor) -> None:
        """ValueError, saying what it must be, where it is none for these training labels (n,)."""
        conform(severity, self.severities)

    def labels(self, labels: Tensor, classes: int, severity: float, generator: Generator) -> Tensor:
        """(n,) true training labels -> (n,) the labels that the probe is told."""
        return labels

    def examples(self, labels: Tensor, severity: float, generator: Generator) -> Tensor:
        """(n,) true training labels -> (m,) the indices of the training examples that the probe sees, ascending."""
        return torch.arange(len(labels))

    def incompatibility(self, data: Dataset) -> str | None:
        """Why it cannot be done to `data`, if it cannot; goes on from the name of a field."""
        return None

    def inputs(
        self, inputs: Tensor, data: Dataset, severity: float, generator: Generator
    ) -> Tensor:
        """Prepared test inputs (n, ...) -> the same, corrupted.

        data: what they are of. Images have `data.pixel_range`, (c, 1, 1), how much of their
            normalised scale the pixel range 0 to 1 takes.
        """
        return inputs

    def touches_training(self, severity: float) -> bool:
        """Whether the probe learns from other labels or other examples than the clean ones."""
        own = type(self)
        return own.examples is not Corruption.examples or (
            severity != 0 and own.labels is not Corruption.labels
        )

    def touches_inputs(self, severity: float) -> bool:
        """Whether the test inputs have to be encoded anew at this severity."""
        return severity != 0 and type(self).inputs is not Corruption.inputs


@gin.register
@dataclass(frozen=True)
class LabelNoise(Corruption):
    """Symmetric label noise: exactly the given share of the training labels, each replaced by another class at random.

    The number of wrong labels is round(rate * n); a wrong label is uniform over the other classes and never the true one.
    """

    severities: ClassVar[Any] = Fraction

    @property
    def axis(self) -> str:
        return "wrong training labels (share)"

    def labels(self, labels: Tensor, classes: int, severity: float, generator: Generator) -> Tensor:
        chosen = torch.randperm(len(labels), generator=generator)[: round(severity * len(labels))]
        shift = torch.randint(1, max(classes, 2), (len(labels),), generator=generator)
        told = labels.clone()
        told[chosen] = (labels[chosen] + shift[chosen]) % classes
        return told


@gin.register
@dataclass(frozen=True)
class FewShot(Corruption):
    """The probe sees few training examples of every class; each smaller set is contained in the larger.

    unit: a severity counts 'shots' per class, or is the 'fraction' of every class (stratified; at least one each).
    """

    unit: Literal["shots", "fraction"] = "shots"

    @property
    def axis(self) -> str:
        return "training images per class" if self.unit == "shots" else "training images (share)"

    def touches_training(self, severity: float) -> bool:
        return not (self.unit == "fraction" and severity == 1)

    def check_severity(self, severity: float, labels: Tensor) -> None:
        if self.unit == "fraction":
            if severity == 0:
                raise ValueError("must be above 0: a fraction of 0 leaves no image")
            conform(severity, Fraction)
            return
        shots = conform(int(severity) if severity.is_integer() else severity, Count)
        smallest = labels.bincount().min().item()
        if shots > smallest:
            raise ValueError(
                f"must be at most {smallest}, the training images of the smallest class, got {shots} shots"
            )

    def examples(self, labels: Tensor, severity: float, generator: Generator) -> Tensor:
        shuffled = torch.randperm(len(labels), generator=generator)
        kept = []
        for label in labels.unique().tolist():
            members = shuffled[labels[shuffled] == label]
            count = (
                int(severity) if self.unit == "shots" else max(1, round(severity * len(members)))
            )
            kept.append(members[:count])
        return torch.cat(kept).sort().values


@dataclass(frozen=True)
class InputNoise(Corruption):
    """Noise added to the test images; training stays clean. Nothing is clamped, as in the reference.

    space: 'normalised' adds it after normalisation, as the reference does; 'pixel' in units of the pixel range [0, 1].
    """

    space: Literal["normalised", "pixel"] = "normalised"

    def noise(self, images: Tensor, generator: Generator) -> Tensor:
        """Noise of severity 1 in the shape of `images`, drawn where the generator is."""
        raise NotImplementedError

    def incompatibility(self, data: Dataset) -> str | None:
        return (
            None if isinstance(data, ImageDataset) else "must be of images, to which noise is added"
        )

    def inputs(
        self, inputs: Tensor, data: Dataset, severity: float, generator: Generator
    ) -> Tensor:
        assert isinstance(data, ImageDataset), "as incompatibility has told"
        pixel = data.pixel_range
        unit = pixel if self.space == "pixel" else torch.ones_like(pixel)
        return inputs + severity * unit * self.noise(inputs, generator).to(inputs.device)


@gin.register
@dataclass(frozen=True)
class GaussianNoise(InputNoise):
    """x + severity * N(0, 1): the severity is the standard deviation, in normalised or pixel units."""

    @property
    def axis(self) -> str:
        return f"Gaussian noise (standard deviation, {self.space} units)"

    def noise(self, images: Tensor, generator: Generator) -> Tensor:
        return torch.randn(images.shape, generator=generator, dtype=images.dtype)


@gin.register
@dataclass(frozen=True)
class UniformNoise(InputNoise):
    """x + severity * U: the severity is the width of the interval, in normalised or pixel units.

    centred: False draws from [0, width), as the reference does, so the mean moves by width / 2; True from
    [-width / 2, width / 2), the same draws without the shift.
    """

    centred: bool = False

    @property
    def axis(self) -> str:
        return f"uniform noise (width, {self.space} units, {'centred' if self.centred else 'one-sided'})"

    def noise(self, images: Tensor, generator: Generator) -> Tensor:
        draw = torch.rand(images.shape, generator=generator, dtype=images.dtype)
        return draw - 0.5 if self.centred else draw
