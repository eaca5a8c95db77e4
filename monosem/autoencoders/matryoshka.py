"""Matryoshka: every prefix of the latents reconstructs as well as it can."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import gin
from torch import Tensor

from monosem.autoencoders.base import Activated, Autoencoder, Code, Rule, Sparsifier
from monosem.autoencoders.kept import Kept
from monosem.autoencoders.topk import BatchTopK
from monosem.core.fields import Count


@gin.register
@dataclass(frozen=True)
class Matryoshka(Sparsifier):
    """Nested autoencoders: the first m latents, for each of some sizes m, reconstruct alone.

    From Bussmann et al. (arXiv:2503.17547). With the error of the autoencoder:

        loss = sum_m error(W_d[:, :m] latents[:m] + pre_bias - x) + cost,   the last m is `latents`

    So the first latents learn what is general and the later ones what is left over.

    sizes: increasing numbers of latents; all of them together need not be listed.
    sparsity: which latents are on; the paper has BatchTopK.
    """

    sizes: tuple[Count, ...]
    sparsity: Sparsifier = BatchTopK()  # noqa: RUF009, frozen

    def validate(self) -> None:
        if not self.sizes:
            self.refuse("sizes", "must hold at least one number of latents, got ()")
        if any(after <= before for before, after in pairwise(self.sizes)):
            self.refuse("sizes", f"must increase, got {self.sizes}")

    def check_width(self, latents: int) -> None:
        self.sparsity.check_width(latents)
        if self.sizes[-1] > latents:
            self.refuse(
                "sizes", f"must be at most the number of latents, {latents}, got {self.sizes[-1]}"
            )

    def build(self, latents: int) -> Rule:
        return MatryoshkaRule(self, latents)


class MatryoshkaRule(Rule):
    """Matryoshka around the rule that says which latents are on."""

    sparsity: Matryoshka
    inner: Rule

    def __init__(self, sparsity: Matryoshka, latents: int):
        super().__init__(sparsity)
        self.inner = sparsity.sparsity.build(latents)
        self.sizes = tuple(size for size in sparsity.sizes if size < latents)

    def forward(self, pre: Tensor, bias: Tensor) -> Activated:
        activation: Activated = self.inner(pre, bias)
        return activation

    @property
    def few(self) -> int | None:
        return self.inner.few

    def keep(self, pre: Tensor) -> Kept:
        return self.inner.keep(pre)

    @property
    def turn_on(self) -> Tensor:
        return self.inner.turn_on

    @property
    def bounds(self) -> tuple[int, ...]:
        return self.sizes

    def cost(self, autoencoder: Autoencoder, x: Tensor, code: Code) -> Tensor:
        return self.inner.cost(autoencoder, x, code)
