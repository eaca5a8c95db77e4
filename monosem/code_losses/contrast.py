"""The contrastive loss of Contrastive Sparse Representation (CSR)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import gin
import torch
import torch.nn.functional as F
from torch import Tensor

from monosem.code_losses.base import CodeLoss, Rows
from monosem.core.fields import AtLeastZero, Positive


@gin.register
@dataclass(frozen=True)
class CodeContrast(CodeLoss):
    """Inputs share few latents: the non-negative contrastive loss of CSR.

    From Wen et al. (arXiv:2503.01776). With T the temperature:

        z_i = latents_i / |latents_i|
        loss = - mean_i log( sum_{j in P(i)} exp(z_i.z_j / T) / sum_j exp(z_i.z_j / T) )
        P(i) = {j: which_j = which_i}

    Where features are kept, every input has one row, P(i) is {i}, and this is the paper's loss: no
    z_i.z_j is negative, so it falls as inputs share fewer latents. With views, the two of an input
    are not told apart. A row of zeros is alike to none.

    The paper's equation has neither the unit length nor T; its authors' code has both, and counts
    every other input twice.

    coefficient: gamma, 1 in the authors' code.
    temperature: T, .2 in the authors' code.
    """

    name: ClassVar[str] = "code_contrast"

    coefficient: AtLeastZero = 1.0
    temperature: Positive = 0.2

    def __call__(self, latents: Tensor, rows: Rows) -> Tensor:
        z = F.normalize(latents, dim=1)
        similarity = z @ z.T / self.temperature
        same = rows.which[:, None] == rows.which
        of_the_same = similarity.masked_fill(~same, -torch.inf).logsumexp(1)
        return (similarity.logsumexp(1) - of_the_same).mean()
