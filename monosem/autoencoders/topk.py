"""Kinds that keep the largest pre-activations: of every row, or of a whole batch."""

from __future__ import annotations

from dataclasses import dataclass

import gin
import torch
import torch.nn.functional as F
from torch import Tensor

from monosem.autoencoders.base import Activation, Autoencoder, Code, Rule, Sparsifier
from monosem.autoencoders.kept import Kept, largest_of_all, largest_of_rows
from monosem.core.fields import AtLeastZero, Count, Fraction


@dataclass(frozen=True)
class KeepsLargest(Sparsifier):
    """A kind of a given number of active latents.

    k: latents that may be active at once.
    """

    k: Count

    def check_width(self, latents: int) -> None:
        if self.k > latents:
            self.refuse("k", f"must be at most the number of latents, {latents}, got {self.k}")


@gin.register
@dataclass(frozen=True)
class TopK(KeepsLargest):
    """Keep the k largest pre-activations of each row and rectify them.

    From Makhzani & Frey (arXiv:1312.5663) and Gao et al. (arXiv:2406.04093).

    k: latents that may be active at once; the authors' code has 256 of 2048. Fewer are active where
        one of the k is negative.
    """

    k: Count = 256

    def activate(self, pre: Tensor) -> Tensor:
        top, where = pre.topk(self.k, dim=-1)
        return torch.zeros_like(pre).scatter(-1, where, F.relu(top))

    def build(self, latents: int) -> Rule:
        return TopKRule(self)


class KeepsLargestRule(Rule):
    """What the rules of these kinds share: they cost nothing."""

    sparsity: KeepsLargest

    @property
    def few(self) -> int | None:
        return self.sparsity.k

    def cost(self, autoencoder: Autoencoder, x: Tensor, code: Code) -> Tensor:
        return x.new_zeros(())


class TopKRule(KeepsLargestRule):
    """TopK."""

    def keep(self, pre: Tensor) -> Kept:
        return largest_of_rows(pre, self.sparsity.k)


@gin.register
@dataclass(frozen=True)
class MultiTopK(TopK):
    """TopK whose larger codes reconstruct too, so that a code may be cut off elsewhere.

    From Gao et al. (arXiv:2406.04093), and the half of Contrastive Sparse Representation that
    reconstructs (Wen et al., arXiv:2503.01776, section 3); CodeContrast is the other half, and AuxK
    what it does for dead latents. With L(k) the error at k active latents:

        loss = L(k) + weight L(multiple k)

    Latents are those at k.

    k: latents that may be active at once.
    multiple: how many times as many latents reconstruct as well; both papers have 4.
    weight: of the error at multiple k; both papers have 1/8.
    """

    multiple: Count = 4
    weight: AtLeastZero = 1 / 8

    def check_width(self, latents: int) -> None:
        super().check_width(latents)
        if self.multiple * self.k > latents:
            self.refuse(
                "multiple",
                f"times k, {self.k}, must be at most the number of latents, {latents}, "
                f"got {self.multiple}",
            )

    def build(self, latents: int) -> Rule:
        return MultiTopKRule(self)


class MultiTopKRule(Rule):
    """MultiTopK, whose second reconstruction is a cost."""

    sparsity: MultiTopK

    def cost(self, autoencoder: Autoencoder, x: Tensor, code: Code) -> Tensor:
        more = TopK(self.sparsity.multiple * self.sparsity.k).activate(code.pre)
        return self.sparsity.weight * autoencoder.error(autoencoder.decode(more) - x, x)


@gin.register
@dataclass(frozen=True)
class BatchTopK(KeepsLargest):
    """Keep the k n largest rectified pre-activations of a batch of n rows.

    From Bussmann et al. (arXiv:2412.06410). So k latents are active on average, more for rows that
    need more. In evaluation mode, where a row must not depend on others, a latent is on above a
    threshold that is the same for all: the mean over batches of the smallest value that was kept,

        latents = pre [pre > threshold]

    k: active latents of a row, on average.
    momentum: weight of the newest batch in the running mean; the first batches count alike until
        there are 1 / momentum of them.
    """

    k: Count = 256
    momentum: Fraction = 0.01

    def build(self, latents: int) -> Rule:
        return BatchTopKRule(self)


class BatchTopKRule(KeepsLargestRule):
    """BatchTopK with its threshold.

    threshold: () float64, as a float32 would stop moving at small steps.
    batches: () int64, how many the threshold has seen.
    """

    sparsity: BatchTopK
    threshold: Tensor
    batches: Tensor

    def __init__(self, sparsity: BatchTopK):
        super().__init__(sparsity)
        self.register_buffer("threshold", torch.zeros((), dtype=torch.float64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, pre: Tensor, bias: Tensor) -> Activation:
        if not self.training:
            return Activation(pre, pre * (pre > self.threshold.to(pre.dtype)))
        flat = F.relu(pre).flatten()
        top, where = flat.topk(self.sparsity.k * len(pre), sorted=False)
        self._follow(top.detach())
        latents = torch.zeros_like(flat).scatter(0, where, top).view_as(pre)
        return Activation(pre, latents)

    def keep(self, pre: Tensor) -> Kept:
        kept = largest_of_all(pre, self.sparsity.k * len(pre))
        self._follow(pre.flatten()[kept.rows() * pre.shape[1] + kept.columns])
        return kept

    @torch.no_grad()
    def _follow(self, kept: Tensor) -> None:
        """Move the threshold towards the smallest positive value that was kept, if there is one."""
        values = torch.cat([torch.where(kept > 0, kept, torch.inf), kept.new_tensor([torch.inf])])
        smallest = values.min().double()
        weight = (1 / (self.batches + 1)).clamp(min=self.sparsity.momentum)
        moved = self.threshold + weight * (smallest - self.threshold)
        self.threshold = torch.where(smallest.isfinite(), moved, self.threshold)
        self.batches = self.batches + smallest.isfinite()
