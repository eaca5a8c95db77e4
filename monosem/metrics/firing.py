"""What is watched in training: explained variance, and how often latents fire."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# Upper bounds of the histogram's bins: a latent fires for less than this share of the inputs.
DECADES = (1e-4, 1e-3, 1e-2, 1e-1)
DENSITIES = ("never_fire", "fire_1e-5", "fire_1e-4", "fire_1e-3", "fire_1e-2", "fire_1e-1")
# The same bins as intervals of the log10 of the share. What never fires has none: it stands below
# all others, one decade wide.
LOG10_EDGES = (-6, -5, -4, -3, -2, -1, 0)


def explained_variance(x: Tensor, reconstruction: Tensor) -> Tensor:
    """1 - sum |x - reconstruction|^2 / sum |x - mean of x|^2, a scalar, at most 1.

    x, reconstruction: (n, d).
    """
    return 1 - ((x - reconstruction) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()


def densities(counts: Tensor, inputs: int) -> dict[str, float]:
    """A histogram: the share of latents that never fired, and of those by decade.

    counts: (latents,), for how many of the inputs each was on.
    Returns shares by name that sum to 1: 'never_fire', and 'fire_1e-3', say, for latents that fire
    for at least a thousandth of the inputs and for less than a hundredth; the first bin of these
    has no lower bound and the last no upper one.
    """
    fired = counts > 0
    bounds = torch.tensor(DECADES, device=counts.device, dtype=torch.float64)
    decade = torch.bucketize(counts.double() / max(inputs, 1), bounds, right=True)
    bins = torch.where(fired, decade + 1, 0)
    shares = torch.bincount(bins, minlength=len(DENSITIES)) / len(counts)
    return dict(zip(DENSITIES, shares.tolist(), strict=True))


class Firing:
    """Counts over an epoch how often every latent fires."""

    def __init__(self) -> None:
        self.inputs = 0
        self.counts: Tensor | None = None

    def add(self, fired: Tensor, inputs: int) -> None:
        """fired: (latents,) for how many of the inputs each was on."""
        self.counts = fired if self.counts is None else self.counts + fired
        self.inputs += inputs

    def state(self) -> dict[str, Tensor]:
        """What was counted so far, for `restore`."""
        counts = {} if self.counts is None else {"counts": self.counts}
        return {"inputs": torch.tensor(self.inputs), **counts}

    def restore(self, state: Mapping[str, Tensor], on: torch.device) -> None:
        """Go on counting from there."""
        self.inputs = int(state["inputs"])
        self.counts = state["counts"].to(on) if "counts" in state else None

    def take(self) -> dict[str, float]:
        """The histogram of the epoch, which is forgotten then."""
        counts, inputs = self.counts, self.inputs
        self.__init__()  # type: ignore[misc]
        return {} if counts is None else densities(counts, inputs)
