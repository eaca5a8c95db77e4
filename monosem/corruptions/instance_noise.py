"""Wrong labels that depend on the inputs, and on no encoder: every encoder meets the same ones."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import gin
import torch
from torch import Generator, Tensor

from monosem.core.fields import Positive
from monosem.core.identity import generator as seeded_generator
from monosem.corruptions.label_noise import WrongLabels, make_wrong
from monosem.data.dataset import Dataset

CHUNK = 4096  # inputs that are prepared at once
LARGEST_INPUT = 12_288  # numbers of an input, 3 x 64 x 64, whose Gram matrix takes 1.2 GB
HALVINGS = 50  # of an interval of rates


class WrongOnes(NamedTuple):
    """What may become wrong.

    order: (n,) examples, those that become wrong first in front.
    wrong: (n,) the wrong label of every example.
    """

    order: Tensor
    wrong: Tensor


@gin.register
@dataclass(frozen=True)
class InstanceNoise(WrongLabels):
    """Instance-dependent noise (Xia et al. 2020, arXiv:2006.07836, appendix, algorithm 2).

    An input x of class y is projected by random weights of that class, p = x W_y, W_y standard
    normal; its wrong label is drawn from softmax(p) without y. Its flip rate is from a normal
    distribution around the severity, truncated to [0, 1].

    Not as published: exactly round(severity * n) labels are wrong, and those at a smaller severity
    are among them. An example becomes wrong at the rate where its flip rate, at a quantile of its
    own, passes a uniform draw of its own; the first ones are taken. x is the prepared input in one
    row.

    spread: the standard deviation of the flip rates, before truncation; 0.1 as published.
    """

    spread: Positive = 0.1

    @property
    def axis(self) -> str:
        return "wrong training labels that depend on the input (share)"

    def incompatibility(self, data: Dataset) -> str | None:
        return _problem_of_inputs(data) or super().incompatibility(data)

    def labels(
        self, labels: Tensor, data: Dataset, severity: float, generator: Generator
    ) -> Tensor:
        seed = int(torch.randint(2**62, (), generator=generator))
        order, wrong = _instance_dependent(data, self.spread, seed)
        return make_wrong(labels, order, wrong, round(severity * len(labels)))


def _problem_of_inputs(data: Dataset) -> str | None:
    """Why there is no linear function of the inputs, if there is none."""
    if data.prepare(data.split("train").inputs[:1]).is_floating_point():
        return None
    kind = type(data).__name__
    return f"must have inputs that are measurements, as pixels are, got {kind}, which has tokens"


@functools.lru_cache(maxsize=16)
def _instance_dependent(data: Dataset, spread: float, seed: int) -> WrongOnes:
    """Asked for at every severity. seed: of all draws."""
    labels = data.split("train").labels
    draw = seeded_generator("instance noise", seed)
    quantile, uniform, choice = torch.rand(3, len(labels), generator=draw, dtype=torch.float64)
    wrong = labels.clone()
    for label in range(data.classes):
        members = (labels == label).nonzero()[:, 0]
        weight = None
        for chosen, rows in input_rows(data, members):
            if weight is None:
                weight = torch.randn(rows.shape[1], data.classes, generator=draw)
            scores = rows @ weight
            scores[:, label] = -torch.inf
            edges = scores.double().softmax(1).cumsum(1)
            target = torch.searchsorted(edges, choice[chosen, None] * edges[:, -1:], right=True)
            wrong[chosen] = target[:, 0]
    return WrongOnes(flip_order(quantile, uniform, spread), wrong)


def flip_order(quantile: Tensor, uniform: Tensor, spread: float) -> Tensor:
    """(n,) examples in the order in which a growing rate flips them.

    quantile: (n,) where in its distribution the flip rate of an example is.
    uniform: (n,) what a flip rate has to pass.
    """
    low, high = torch.zeros_like(uniform), torch.ones_like(uniform)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        flips = truncated_normal(quantile, middle, spread) > uniform
        low, high = torch.where(flips, low, middle), torch.where(flips, middle, high)
    rest = uniform - truncated_normal(quantile, high, spread)  # ranks what flips at 0, or not at 1
    return (high + rest).argsort(stable=True)


def truncated_normal(quantile: Tensor, mean: Tensor, spread: float) -> Tensor:
    """Quantiles of N(mean, spread^2) truncated to [0, 1]; they grow with the mean."""
    below = torch.special.ndtr(-mean / spread)
    above = torch.special.ndtr((1 - mean) / spread)
    inner = torch.special.ndtri(below + quantile * (above - below))
    return (mean + spread * inner).clamp(0, 1)


@gin.register
@dataclass(frozen=True)
class MarginNoise(WrongLabels):
    """The training images that are the hardest to tell apart become the class they resemble.

    A ridge regression of the inputs on one-hot labels, in closed form, is fitted to the clean
    training set. The margin of an image is the score of its class less the highest other score.
    The round(severity * n) smallest margins get the class of that other score. So nothing is
    random, and repeats differ by their probes alone.

    penalty: of the ridge regression, in mean variances of an input number.
    """

    penalty: Positive = 0.01

    @property
    def axis(self) -> str:
        return "wrong training labels, smallest margins first (share)"

    def incompatibility(self, data: Dataset) -> str | None:
        if problem := _problem_of_inputs(data):
            return problem
        numbers = data.prepare(data.split("train").inputs[:1]).numel()
        if numbers > LARGEST_INPUT:
            return (
                f"must have inputs of at most {LARGEST_INPUT} numbers, for the linear classifier "
                f"of MarginNoise, got {numbers}"
            )
        return super().incompatibility(data)

    def labels(
        self, labels: Tensor, data: Dataset, severity: float, generator: Generator
    ) -> Tensor:
        order, wrong = _by_margin(data, self.penalty)
        return make_wrong(labels, order, wrong, round(severity * len(labels)))


@functools.lru_cache(maxsize=4)
def _by_margin(data: Dataset, penalty: float) -> WrongOnes:
    """Asked for at every severity and repeat."""
    labels = data.split("train").labels
    scores = ridge_scores(data, penalty)
    own = scores.gather(1, labels[:, None])[:, 0]
    others = scores.scatter(1, labels[:, None], -torch.inf)
    best, runner_up = others.max(1)
    return WrongOnes((own - best).argsort(stable=True), runner_up)


def ridge_scores(data: Dataset, penalty: float) -> Tensor:
    """(n, classes) float64: a ridge regression of the training inputs on their one-hot labels."""
    labels = data.split("train").labels
    everything = torch.arange(len(labels))
    targets = torch.nn.functional.one_hot(labels, data.classes).double()
    targets -= targets.mean(0)
    sums = [rows.double().sum(0) for _, rows in input_rows(data, everything)]
    mean = torch.stack(sums).sum(0) / len(labels)
    width = len(mean)
    gram, moments = torch.zeros(width, width).double(), torch.zeros(width, data.classes).double()
    for chosen, rows in input_rows(data, everything):
        centred = rows.double() - mean
        gram += centred.T @ centred
        moments += centred.T @ targets[chosen]
    ridge = penalty * gram.trace().clamp(min=1e-12) / width
    weight = torch.linalg.solve(gram + ridge * torch.eye(width, dtype=torch.float64), moments)
    scores = [(rows.double() - mean) @ weight for _, rows in input_rows(data, everything)]
    return torch.cat(scores)


def input_rows(data: Dataset, examples: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Some training examples, and their prepared inputs in rows (m, numbers), chunk by chunk.

    On the CPU, so that a GPU does not change labels by its own rounding.
    """
    inputs = data.split("train").inputs
    for chosen in examples.split(CHUNK):
        yield chosen, data.prepare(inputs[chosen]).cpu().flatten(1)
