"""What a loss of a code is, and what it is told of the rows of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from monosem.core.fields import AtLeastZero, Part


class Rows(NamedTuple):
    """What is known of the n rows of a batch.

    which: (n,) int64, which input a row is of; the two views of an input share theirs.
    alike: (n, e), features whose cosines say how alike rows are.
    """

    which: Tensor
    alike: Tensor


@dataclass(frozen=True)
class CodeLoss(Part):
    """What a batch of latents costs beside their reconstruction.

    name: in the log of a training, where it stands without the coefficient.
    compares: whether it reads `Rows.alike`.

    coefficient: of the loss in the sum that is minimised.
    """

    name: ClassVar[str]
    compares: ClassVar[bool] = False

    coefficient: AtLeastZero

    def __call__(self, latents: Tensor, rows: Rows) -> Tensor:
        """A scalar, without the coefficient.

        latents: (n, latents), not negative.
        """
        raise NotImplementedError


def losses_of_code(
    losses: Sequence[CodeLoss], latents: Tensor, rows: Rows
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of coefficient * loss, a scalar, and the losses themselves by name.

    They are computed in float32 or better, whatever the autoencoder is computed in.
    """
    with torch.autocast(latents.device.type, enabled=False):
        if latents.dtype.itemsize == 2:
            latents = latents.float()
        rows = Rows(rows.which, rows.alike.to(latents.dtype))
        total, by_name = latents.new_zeros(()), {}
        for loss in losses:
            by_name[loss.name] = loss(latents, rows)
            total = total + loss.coefficient * by_name[loss.name]
    return total, by_name
