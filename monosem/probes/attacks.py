"""Attacks: changes of test images within epsilon that mislead a classifier, by its gradients.

Epsilon is in units of the pixel range [0, 1], whatever the normalisation, and images stay valid
pixels. Nothing here knows of datasets, curves or how the classifier was fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import gin
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.overrides import TorchFunctionMode

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


def is_flat(gradient: Tensor) -> Tensor:
    """(n, ...) -> (n,) whether the gradient of an image is exactly 0."""
    return (gradient == 0).flatten(1).all(1)


def has_gradient(network: nn.Module, inputs: Tensor) -> bool:
    """Whether an attack on any classifier of the network's outputs could move one of these inputs.

    Rectifiers that are silent for all of them hide nothing here.
    """
    points = inputs.detach().requires_grad_()
    try:
        with torch.enable_grad(), LeakingRectifiers(1.0):
            outputs = network(points)
            weights = torch.linspace(1, 2, outputs.numel(), device=outputs.device)
            loss = (outputs.flatten() * weights).sum()
        if not loss.requires_grad:
            return False
    except RuntimeError as error:
        if "requires grad" in str(error):  # it left torch, by .numpy() for example
            return False
        raise
    (gradient,) = torch.autograd.grad(loss, points, allow_unused=True)
    return gradient is not None and not bool(is_flat(gradient).all())


class LeakingRectifiers(TorchFunctionMode):
    """Inside, torch's rectifiers have their values, and gradients as if they leaked.

    Where all rectifiers but one are silent and features are normalised, or all are, a classifier
    is flat around an image. An attack by true gradients stops there, though a larger change would
    succeed: that is gradient masking. Backward pass differentiable approximation (Athalye et al.,
    arXiv:1802.00420, section 4) keeps the forward pass and takes gradients of something smoother.

    slope: of the gradient below 0.
    """

    def __init__(self, slope: float):
        super().__init__()
        self.slope = slope

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func not in (F.relu, torch.relu, Tensor.relu):
            return func(*args, **(kwargs or {}))
        x: Tensor = args[0] if args else (kwargs or {})["input"]
        leaked = self.slope * x.clamp(max=0)
        return x.clamp(min=0) + leaked - leaked.detach()


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

    @property
    def where_flat(self) -> str:
        """What it did with images without a gradient."""
        return "could not move there"

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

    From random starts. Of all points that are visited, an image keeps one that makes the
    classifier wrong, and among those the one of the largest loss.

    norm: of the change of an image; epsilon bounds it. 'linf' is its largest pixel, 'l2' the root
        of the sum of its squared pixels.
    steps: of every restart.
    step_size: the length of a step in the norm, in units of epsilon, above 0. Most of a ball lies
        near its surface, so a start may have to cross it: steps * step_size should be well above 2.
    restarts: how many random starts, uniform in the ball of epsilon.
    leak: the slope of rectifiers below 0 where a gradient is exactly 0; see `LeakingRectifiers`.
        0 follows true gradients alone, and stops where there is none.
    """

    norm: Literal["linf", "l2"] = "linf"
    steps: Count = 20
    step_size: Annotated[float, Range(0, 10, open=True)] = 0.2
    restarts: Count = 2
    leak: Fraction = 0.1

    @property
    def axis(self) -> str:
        return super().axis if self.norm == "linf" else "epsilon (L2 norm, pixel units)"

    @property
    def where_flat(self) -> str:
        return "followed leaking rectifiers there" if self.leak else super().where_flat

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
        worst, right = inputs, torch.ones_like(labels, dtype=torch.bool)
        losses = torch.full(labels.shape, -torch.inf, device=inputs.device)
        for start in self.starts(inputs, generator):
            first = pixels.moved(inputs, epsilon * start)
            for points, outcome in self.climb(network, inputs, labels, epsilon, pixels, first):
                is_larger = outcome.losses > losses
                is_worse = torch.where(outcome.right == right, is_larger, right)
                worst = torch.where(is_worse[:, None, None, None], points, worst)
                losses = torch.where(is_worse, outcome.losses, losses)
                right = right & outcome.right
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
        points: Tensor,
    ) -> Iterator[tuple[Tensor, Attacked]]:
        """The points of one restart, from the first to the last, and what they come to."""
        for _ in range(self.steps):
            outcome = look(network, points, labels)
            yield points, outcome
            gradient = self.way_up(network, points, labels, outcome.gradient) * pixels.unit
            step = self.step_size * epsilon * self.direction(gradient)
            change = (points - inputs) / pixels.unit + step
            points = pixels.moved(inputs, self.project(change, epsilon))
        yield points, look(network, points, labels)

    def way_up(
        self, network: nn.Module, points: Tensor, labels: Tensor, gradient: Tensor
    ) -> Tensor:
        """The gradient; of leaking rectifiers where it is 0."""
        flat = is_flat(gradient)
        if not self.leak or not flat.any():
            return gradient
        with LeakingRectifiers(self.leak):
            leaked = look(network, points[flat], labels[flat]).gradient
        return gradient.index_put((flat,), leaked)

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
