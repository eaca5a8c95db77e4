"""The paper's theory in closed form: how far one dimension of the toy separates its two classes.

Beyond Interpretability (arXiv:2410.21331, section 4) scores a hidden value h of two features by

    J = (E[h | x1 > x2] - E[h | not]) / (sd[h | x1 > x2] sd[h | not])

where a feature is 0 with probability S, else uniform between 0 and 1, independently. Nothing here
is drawn: all means and deviations are integrals of that density.

    what is kept      clean J     wrong labels     noise of the inputs
    x1                6.1957      the lower line to a rate of .2427 and to a deviation of .5479,
    x1 - x2          10.1640      then the upper one                    (S = .2, a density of .8)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import gin
import torch
from torch import Tensor, nn

from monosem.core.stage import Artifact, Job
from monosem.data.dataset import Dataset
from monosem.models.representation import GetArtifact, Representation, freeze
from monosem.results.rows import SEPARATION
from monosem.robustness.measurement import SeverityCurve
from monosem.toys.superposition import TwoFeatures, two_features_mismatch


@gin.register
@dataclass(frozen=True)
class Combination(Representation):
    """A fixed combination of two features, h = w1 x1 + w2 x2: what a toy would have learnt.

    weights: (1, 0) is the paper's monosemantic dimension, (1, -1) its polysemantic one.
    """

    weights: tuple[float, ...] = (1.0, 0.0)

    def validate(self) -> None:
        if len(self.weights) != 2:
            self.refuse("weights", f"must hold 2 numbers, one a feature, got {self.weights}")

    @property
    def width(self) -> int:
        return 1

    def incompatibility(self, data: Dataset) -> str | None:
        return two_features_mismatch(data)

    def network(self, get: GetArtifact) -> nn.Module:
        linear = nn.Linear(2, 1, bias=False)
        linear.load_state_dict({"weight": torch.tensor([self.weights])})
        return freeze(nn.Sequential(nn.Flatten(), linear))


class ClassMoments(NamedTuple):
    """What is known of h in one class.

    share: the probability of the class.
    mean: of h.
    square: the mean of h^2.
    """

    share: float
    mean: float
    square: float

    @property
    def variance(self) -> float:
        return self.square - self.mean**2


def class_moments(w1: float, w2: float, density: float) -> tuple[ClassMoments, ClassMoments]:
    """h = w1 x1 + w2 x2 where not x1 > x2, and where x1 > x2.

    One of the features alone is on with probability density (1 - density), uniform in [0, 1]; both
    are with density^2, and then of the larger a and the smaller b, by symmetry each feature half of
    the time, E a = 2/3, E b = 1/3, E a^2 = 1/2, E b^2 = 1/6, E a b = 1/4. Where both are off, h is
    0, and x1 is not the larger one.
    """
    alone, either = density * (1 - density), density**2 / 2
    off = (1 - density) ** 2
    moments = []
    for larger, smaller, nothing in ((w2, w1, off), (w1, w2, 0.0)):
        share = alone + either + nothing
        mean = alone * larger / 2 + either * (2 * larger + smaller) / 3
        both = larger**2 / 2 + smaller**2 / 6 + larger * smaller / 2
        square = alone * larger**2 / 3 + either * both
        moments.append(ClassMoments(share, mean / share, square / share))
    return moments[0], moments[1]


def mixed(own: ClassMoments, other: ClassMoments, rate: float) -> ClassMoments:
    """A class as its labels have it, where a share `rate` of all labels says the other class.

    Its examples are those of its own that kept their label, (1 - rate) P(own), and those of the
    other class that lost it, rate P(other).
    """
    kept, taken = (1 - rate) * own.share, rate * other.share
    share = kept + taken
    mean = (kept * own.mean + taken * other.mean) / share
    square = (kept * own.square + taken * other.square) / share
    return ClassMoments(share, mean, square)


def separation(zero: ClassMoments, one: ClassMoments, noise: float = 0.0) -> float:
    """J of two classes. noise: a variance that is added to h in both."""
    deviations = math.sqrt((zero.variance + noise) * (one.variance + noise))
    return (one.mean - zero.mean) / deviations


@dataclass(frozen=True, kw_only=True)
class Separation(SeverityCurve):
    """J of a fixed combination of two features, at every severity of a noise, in closed form.

    encoder: the combination.
    data: their density counts, their draws do not.
    """

    encoder: Combination
    data: TwoFeatures

    LARGEST: ClassVar[float]  # severity at which a crossing is looked for

    @property
    def metrics(self) -> tuple[str, ...]:
        return (SEPARATION,)

    @property
    def classes(self) -> tuple[ClassMoments, ClassMoments]:
        """h without noise."""
        w1, w2 = self.encoder.weights
        return class_moments(w1, w2, self.data.density)

    def score(self, severity: float) -> float:
        """J."""
        raise NotImplementedError

    def crossing(self) -> float | None:
        """The severity from which on x1 separates better than x1 - x2; None where it never does."""
        low, high = 0.0, self.LARGEST
        if self._lead(low) > 0 or self._lead(high) < 0:
            return None
        while high - low > 1e-12:
            middle = (low + high) / 2
            low, high = (middle, high) if self._lead(middle) < 0 else (low, middle)
        return low

    def _lead(self, severity: float) -> float:
        """J of x1 less that of x1 - x2."""
        monosemantic, polysemantic = (
            replace(self, encoder=Combination(weights)).score(severity)
            for weights in ((1.0, 0.0), (1.0, -1.0))
        )
        return monosemantic - polysemantic

    def remarks(self, artifact: Artifact) -> Iterator[str]:
        yield f"J without noise: {self.score(0.0):.4f}"
        if at := self.crossing():
            yield f"x1 separates better than x1 - x2 from {at:.4f} on"

    def run(self, job: Job) -> Artifact:
        scores = [[self.score(severity)] for severity in self.severities]
        values: Tensor = torch.tensor(scores, dtype=torch.float64)
        return {SEPARATION: values, "passes": torch.tensor(0)}


@gin.register
@dataclass(frozen=True, kw_only=True)
class SeparationUnderWrongLabels(Separation):
    """J where a share of the labels, in both classes alike, says the other class.

    severities: the rates, from 0 to below 0.5: there both classes are the same mixture but for
        their shares.
    """

    LARGEST = 0.499

    @property
    def axis(self) -> str:
        return "share of wrong labels"

    def check_severity(self, severity: float) -> None:
        if not 0 <= severity < 0.5:
            raise ValueError(f"must be from 0 to below 0.5, shares of wrong labels, got {severity}")

    def score(self, severity: float) -> float:
        zero, one = self.classes
        return separation(mixed(zero, one, severity), mixed(one, zero, severity))


@gin.register
@dataclass(frozen=True, kw_only=True)
class SeparationUnderInputNoise(Separation):
    """J where Gaussian noise is added to either feature, and labels are those without it.

    h has it w1^2 + w2^2 times: x1 - x2 twice, x1 once.

    severities: deviations of the noise.
    """

    LARGEST = 100.0

    @property
    def axis(self) -> str:
        return "standard deviation of the noise"

    def check_severity(self, severity: float) -> None:
        if severity < 0:
            raise ValueError(f"must be 0 or more, deviations of the noise, got {severity}")

    def score(self, severity: float) -> float:
        felt = sum(weight**2 for weight in self.encoder.weights)
        return separation(*self.classes, noise=felt * severity**2)
