"""A solver of many small smooth problems at once. It knows no features and no labels.

A batch of P problems has points (P, D). What is minimised is a `Smooth` function of any A of them,
which are named by their numbers. Problems do not mix. One that is solved leaves the batch, so that
the last ones cost little.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

MEMORY = 10  # steps that L-BFGS remembers
ARMIJO = 1e-4  # the share of the promised decrease that a step must bring


class Smooth(Protocol):
    """A smooth convex function of the points of each of several problems."""

    def value(self, points: Tensor, which: Tensor) -> Tensor:
        """(A, D) points of the problems `which` (A,) -> (A,)."""

    def slope(self, points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """The value (A,) and the gradient (A, D)."""


class Stop(NamedTuple):
    """When to stop.

    tolerance: of the largest entry of a gradient, or of what stands for it.
    steps: at most.
    """

    tolerance: float
    steps: int


class _Running:
    """Which problems are still being solved, and where the others ended."""

    def __init__(self, start: Tensor):
        self.which = torch.arange(len(start), device=start.device)
        self.ended = start.clone()

    def leave(self, is_solved: Tensor, points: Tensor) -> Tensor | None:
        """Note the points of those that are solved; the positions that stay, or None if all do."""
        if not is_solved.any():
            return None
        self.ended[self.which[is_solved]] = points[is_solved]
        stay = (~is_solved).nonzero()[:, 0]
        self.which = self.which[stay]
        return stay


def lbfgs(function: Smooth, start: Tensor, stop: Stop) -> Tensor:
    """The minima of smooth convex functions by limited-memory BFGS (Nocedal & Wright, section 7.2).

    A problem whose step does not bring enough tries half of it in the next round, while the others
    go on: one call of the function a round.
    start: (P, D).
    """
    running = _Running(start)
    x = start
    value, gradient = function.slope(x, running.which)
    steps: list[tuple[Tensor, Tensor, Tensor]] = []  # s, y and 1 / (s . y); 0 says not to use it
    length = (1 / gradient.norm(dim=1).clamp(min=1e-30)).clamp(max=1)
    stalled = torch.zeros_like(length)
    smallest = torch.finfo(x.dtype).eps
    for _ in range(stop.steps):
        is_solved = (gradient.abs().amax(1) <= stop.tolerance) | (length < 1e-10) | (stalled > 2)
        stay = running.leave(is_solved, x)
        if stay is not None:
            x, value, gradient, length = x[stay], value[stay], gradient[stay], length[stay]
            stalled = stalled[stay]
            steps = [(s[stay], y[stay], inverse[stay]) for s, y, inverse in steps]
        if not len(x):
            return running.ended
        direction = -_inverse_hessian_times(gradient, steps)
        slope = (gradient * direction).sum(1)
        tried = x + length[:, None] * direction
        new_value, new_gradient = function.slope(tried, running.which)
        is_enough = new_value <= value + ARMIJO * length * slope + smallest * value.abs()
        good = is_enough[:, None]
        decrease = (value - new_value) / value.abs().clamp(min=smallest)
        stalled = torch.where(is_enough & (decrease < 4 * smallest), stalled + 1, 0)
        s = torch.where(good, tried - x, 0)
        y = torch.where(good, new_gradient - gradient, 0)
        curvature = (s * y).sum(1)
        is_curved = curvature > smallest * y.square().sum(1)
        steps.append((s, y, torch.where(is_curved, 1 / curvature.where(is_curved, 1), 0)))
        del steps[:-MEMORY]
        x, value = torch.where(good, tried, x), torch.where(is_enough, new_value, value)
        gradient = torch.where(good, new_gradient, gradient)
        length = torch.where(is_enough, 1.0, length / 2)
    running.ended[running.which] = x
    return running.ended


def _inverse_hessian_times(gradient: Tensor, steps: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """The two-loop recursion, (A, D)."""
    q, shares = gradient, []
    for s, y, inverse in reversed(steps):
        share = inverse * (s * q).sum(1)
        q = q - share[:, None] * y
        shares.append(share)
    scale = torch.ones_like(gradient[:, 0])
    for _, y, inverse in steps:  # of the last step that may be used
        length = y.square().sum(1)
        scale = torch.where(inverse > 0, 1 / (inverse * length.clamp(min=1e-30)), scale)
    q = scale[:, None] * q
    for (s, y, inverse), share in zip(steps, reversed(shares), strict=True):
        q = q + (share - inverse * (y * q).sum(1))[:, None] * s
    return q
