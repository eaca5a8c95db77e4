"""MonoLoss: the monosemanticity score of a batch, as something to be trained for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import gin
import torch
import torch.nn.functional as F
from torch import Tensor

from monosem.code_losses.base import CodeLoss, Rows
from monosem.core.fields import AtLeastZero


@gin.register
@dataclass(frozen=True)
class MonoLoss(CodeLoss):
    """1 - the monosemanticity score of a batch (Nasiri-Sarvi et al., arXiv:2602.12403).

    The score of Pach et al. (arXiv:2504.02821), which the metric MonosemanticityScore measures:

        a_nj = (latent_nj - min_n latent_nj) / (max_n latent_nj - min_n latent_nj)
        score_j = sum_{n < m} a_nj a_mj cos_nm / sum_{n < m} a_nj a_mj
        loss = 1 - mean_j score_j

    cos_nm says how alike rows n and m are. The mean is over latents that are above their smallest
    value on two rows or more; without any the loss is 1. With E the rows (n, e) at unit length, the
    sums over pairs take one pass over rows, O(n e latents):

        sum_{n < m} a_nj a_mj cos_nm = (|E^T a_j|^2 - sum_n a_nj^2 |E_n|^2) / 2
        sum_{n < m} a_nj a_mj        = ((sum_n a_nj)^2 - sum_n a_nj^2) / 2

    The gradient goes through a, and through its smallest and largest value too, as in the authors'
    code; cosines are fixed. `SparseAutoencoder.reference_encoder` says where they come from.

    coefficient: in the authors' scripts .09 to .14 for TopK and 1e-4 to 7e-4 for BatchTopK and
        JumpReLU, all of them found by a search.
    """

    name: ClassVar[str] = "mono_loss"
    compares: ClassVar[bool] = True

    coefficient: AtLeastZero = 0.1

    def __call__(self, latents: Tensor, rows: Rows) -> Tensor:
        low, high = latents.amin(0), latents.amax(0)
        varies = high > low
        weights = (latents - low) / torch.where(varies, high - low, 1)
        scores, of_pairs = scores_of_pairs(F.normalize(rows.alike, dim=1), weights)
        valid = of_pairs & varies
        return 1 - (scores * valid).sum() / valid.sum().clamp(min=1)


def scores_of_pairs(unit: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The mean cosine of all pairs of different rows, each weighted by a product of weights.

    metrics.neighbours.pair_similarity is the same in double precision and without gradients.

    unit: (n, e), rows of length 1, or 0 where nothing is known.
    weights: (n, latents), from 0 to 1.
    Returns the means (latents,), and which of them are of a pair at all (latents,), bool. What is
    left of a single row by rounding is no pair.
    """
    squared = weights.square()
    squares = squared.sum(0)
    total = weights.sum(0).square()
    pairs = total - squares
    of_pairs = pairs > 8 * torch.finfo(weights.dtype).eps * total
    similarity = (unit.T @ weights).square().sum(0) - unit.square().sum(1) @ squared
    return similarity / torch.where(of_pairs, pairs, 1), of_pairs
