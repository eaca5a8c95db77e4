"""Reconstruction errors: what an autoencoder is punished for, one number a batch."""

from __future__ import annotations

from dataclasses import dataclass

import gin
from torch import Tensor

from monosem.core.fields import Part


@dataclass(frozen=True)
class ReconstructionError(Part):
    """What a difference between features and their reconstruction costs."""

    def __call__(self, difference: Tensor, x: Tensor) -> Tensor:
        """The mean over rows, a scalar.

        difference: (n, d).
        x: (n, d), the features themselves, for errors that are relative to them.
        """
        raise NotImplementedError


@gin.register
@dataclass(frozen=True)
class RelativeError(ReconstructionError):
    """mean_rows( mean_d difference^2 / mean_d x^2 ), as in the authors' code.

    Rows of zeros have no scale and are left out.
    """

    def __call__(self, difference: Tensor, x: Tensor) -> Tensor:
        energy = (x**2).mean(-1)
        error = (difference**2).mean(-1)
        relative_error = error[energy > 0] / energy[energy > 0]
        return relative_error.sum() / max(len(relative_error), 1)


@gin.register
@dataclass(frozen=True)
class SquaredError(ReconstructionError):
    """mean_rows sum_d difference^2, as in most papers on sparse autoencoders.

    Their penalties are in units of this error, so for unit vectors also in those of RelativeError.
    """

    def __call__(self, difference: Tensor, x: Tensor) -> Tensor:
        return (difference**2).sum(-1).mean()
