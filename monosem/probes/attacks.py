"""Attacks: changes of test images within epsilon that mislead a classifier, by its gradients.

Epsilon is in units of the pixel range [0, 1], whatever the normalisation, and images stay valid
pixels. Nothing here knows of datasets, curves or how the classifier was fitted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import gin
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from monosem.core.fields import AtLeastZero, Count, Fraction, Part, Range, conform
from monosem.core.stage import StageError


class Attacked(NamedTuple):
    """What a classifier makes of images.

    losses: (n,) cross-entropy.
    right: (n,) whether the label is predicted.
    gradient: (n, ...) of the losses, with respect to the images.
    """

    losses: Tensor
    right: Tensor
    gradient: Tensor


def look(network: nn.Module, inputs: Tensor, labels: Tensor) -> Attacked:
    """What the network makes of prepared inputs. Raises StageError where it has no gradient."""
    points = inputs.detach().requires_grad_()
    with torch.enable_grad():
        logits = network(points)
        losses = F.cross_entropy(logits, labels, reduction="none")
        if not losses.requires_grad:
            raise StageError("cannot be attacked: the logits have no gradient for the inputs")
        (gradient,) = torch.autograd.grad(losses.sum(), points)
    if not (losses.isfinite().all() and gradient.isfinite().all()):
        raise StageError("cannot be attacked: losses or gradients are not finite numbers")
    return Attacked(losses.detach(), logits.argmax(1) == labels, gradient)


class PixelScale(NamedTuple):
    """How prepared inputs are made of pixels; each is (c, 1, 1).

    unit: how much of the prepared scale the pixel range 0 to 1 takes.
    low: a prepared pixel of 0.
    high: a prepared pixel of 1.
    """

    unit: Tensor
    low: Tensor
    high: Tensor

    def moved(self, inputs: Tensor, change: Tensor) -> Tensor:
        """Inputs after a change in pixel units, as far as pixels stay valid."""
        return (inputs + self.unit * change).clamp(self.low, self.high)


@dataclass(frozen=True)
class Attack(Part):
    """A way to change images within epsilon so that a classifier is wrong."""

    @property
    def axis(self) -> str:
        """What epsilon is, with its unit."""
        return "epsilon (largest change of a pixel, pixel units)"

    def check_epsilon(self, epsilon: float) -> None:
        """Raise ValueError, with what is allowed."""
        conform(epsilon, Fraction)

    def perturb(
        self,
        network: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        epsilon: float,
        pixels: PixelScale,
        generator: Generator,
    ) -> Tensor:
        """Prepared inputs (n, c, h, w) -> the same, attacked; only gradients of inputs are taken.

        generator: on the CPU. As much is drawn whatever epsilon is, so all share their draws.
        """
        raise NotImplementedError


@gin.register
@dataclass(frozen=True)
class FGSM(Attack):
    """The fast gradient sign method (Goodfellow et al., arXiv:1412.6572, section 4).

    One step of epsilon along the sign of the gradient: weak, and quick.
    """

    def perturb(
        self,
        network: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        epsilon: float,
        pixels: PixelScale,
        generator: Generator,
    ) -> Tensor:
        return pixels.moved(inputs, epsilon * look(network, inputs, labels).gradient.sign())


@gin.register
@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient descent on the negative loss (Madry et al., arXiv:1706.06083, section 2).

    From random starts; of the restarts an image keeps one that makes the classifier wrong, and
    among those the one of the largest loss.

    norm: of the change of an image; epsilon bounds it. 'linf' is its largest pixel, 'l2' the root
        of the sum of its squared pixels.
    steps: of every restart.
    step_size: the length of a step in the norm, in units of epsilon, above 0. Most of a ball lies
        near its surface, so a start may have to cross it: steps * step_size should be well above 2.
    restarts: how many random starts, uniform in the ball of epsilon.
    """

    norm: Literal["linf", "l2"] = "linf"
    steps: Count = 20
    step_size: Annotated[float, Range(0, 10, open=True)] = 0.2
    restarts: Count = 2

    @property
    def axis(self) -> str:
        return super().axis if self.norm == "linf" else "epsilon (L2 norm, pixel units)"

    def check_epsilon(self, epsilon: float) -> None:
        conform(epsilon, Fraction if self.norm == "linf" else AtLeastZero)

    def perturb(
        self,
        network: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        epsilon: float,
        pixels: PixelScale,
        generator: Generator,
    ) -> Tensor:
        starts = self.starts(inputs, generator)
        worst = self.climb(network, inputs, labels, epsilon, pixels, next(starts))
        losses, right, _ = look(network, worst, labels)
        for start in starts:
            other = self.climb(network, inputs, labels, epsilon, pixels, start)
            other_losses, other_right, _ = look(network, other, labels)
            is_worse = torch.where(other_right == right, other_losses > losses, right)
            worst = torch.where(is_worse[:, None, None, None], other, worst)
            losses = torch.where(is_worse, other_losses, losses)
            right = right & other_right
        return worst

    def starts(self, inputs: Tensor, generator: Generator) -> Iterator[Tensor]:
        """For every restart, changes in the shape of the inputs, uniform in the ball of radius 1.

        All are drawn at once.
        """
        shape = (self.restarts, *inputs.shape)
        if self.norm == "linf":
            changes = 2 * torch.rand(shape, generator=generator) - 1
        else:
            directions = torch.randn(shape, generator=generator)
            uniform = torch.rand((*shape[:2], 1, 1, 1), generator=generator)
            lengths = directions.flatten(2).norm(dim=2)[..., None, None, None]
            changes = directions / lengths * uniform ** (1 / inputs[0].numel())
        yield from changes.to(inputs.device)

    def climb(
        self,
        network: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        epsilon: float,
        pixels: PixelScale,
        start: Tensor,
    ) -> Tensor:
        """The attacked inputs of one start."""
        points = pixels.moved(inputs, epsilon * start)
        for _ in range(self.steps):
            gradient = look(network, points, labels).gradient * pixels.unit
            step = self.step_size * epsilon * self.direction(gradient)
            change = (points - inputs) / pixels.unit + step
            points = pixels.moved(inputs, self.project(change, epsilon))
        return points

    def direction(self, gradient: Tensor) -> Tensor:
        """Where the loss grows most for a step of norm 1; 0 where the gradient is 0."""
        if self.norm == "linf":
            return gradient.sign()
        tiny = torch.finfo(gradient.dtype).tiny
        scaled = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp(min=tiny)
        return scaled / lengths_of(scaled).clamp(min=tiny)

    def project(self, change: Tensor, epsilon: float) -> Tensor:
        """The nearest change within epsilon."""
        if self.norm == "linf":
            return change.clamp(-epsilon, epsilon)
        return change * (epsilon / lengths_of(change).clamp(min=1e-30)).clamp(max=1)


def lengths_of(changes: Tensor) -> Tensor:
    """(n, c, h, w) -> (n, 1, 1, 1) the L2 norm of every image."""
    return changes.flatten(1).norm(dim=1)[:, None, None, None]
