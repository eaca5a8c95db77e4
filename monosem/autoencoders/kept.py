"""Few kept latents: a step that touches those alone, instead of products with a matrix of zeros.

Where a kind keeps k of many latents, only the first product, which says which to keep, is dense.
The reconstruction and all gradients are sums over kept entries, k / latents of the work. Entries
lie row by row, as in a sparse matrix:

    columns  (kept,) int64    the latent of each entry
    starts   (n,) int64       the first entry of each row
    values   (kept,)          the latents
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Below this size a step is quick anyway, and stays the same to the bit as it was in the reference.
LARGE = 2**21  # rows x latents
# On one thread of an AMD EPYC, for 4096 x 512 features and 4096 latents: the sums over 32 kept
# latents of a row take 0.1 s a step, the five products that they stand for 1.3 s.
FEW = 1 / 10  # of the latents of a row; more of them take as long as the products


def pays(x: Tensor, latents: int, k: int) -> bool:
    """Whether entries are summed one by one. On a GPU dense products are quicker.

    x: (n, d). k: kept latents of a row.
    """
    is_large = len(x) * latents >= LARGE
    is_plain = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return is_plain and is_large and k <= FEW * latents


class Kept(NamedTuple):
    """Which latents are kept, see above. Without values: where they lie is all."""

    columns: Tensor
    starts: Tensor

    def rows(self) -> Tensor:
        """(kept,) the row of each entry."""
        counts = torch.diff(self.starts, append=self.starts.new_tensor([len(self.columns)]))
        return torch.arange(len(self.starts)).repeat_interleave(counts)

    def between(self, low: int, high: int) -> tuple[Kept, Tensor]:
        """Those of latents low to high - 1, and (kept,) their places among all entries."""
        places = ((self.columns >= low) & (self.columns < high)).nonzero().flatten()
        counts = torch.bincount(self.rows()[places], minlength=len(self.starts))
        return Kept(self.columns[places], counts.cumsum(0) - counts), places


def largest_of_rows(pre: Tensor, k: int) -> Kept:
    """The k largest of each row of (n, latents)."""
    columns = pre.topk(k, dim=-1, sorted=False).indices
    return Kept(columns.flatten(), torch.arange(0, columns.numel(), k))


def largest_of_all(pre: Tensor, count: int) -> Kept:
    """The positive ones among the `count` largest of (n, latents).

    A sample says above which number they probably are; what is above is sorted out exactly.
    """
    flat = pre.flatten()
    places = _candidates(flat, count)
    values = flat[places]
    if len(places) > count:
        places = places[values.topk(count, sorted=False).indices].sort().values
    rows = places // pre.shape[1]
    counts = torch.bincount(rows, minlength=len(pre))
    return Kept(places % pre.shape[1], counts.cumsum(0) - counts)


def _candidates(flat: Tensor, count: int) -> Tensor:
    """The places, in order, of all positive numbers or of at least the `count` largest of them."""
    sample = flat[:: max(len(flat) // 65536, 1)]
    wanted = count * len(sample) / len(flat)
    rank = min(int(wanted + 5 * wanted**0.5) + 1, len(sample))
    bound = sample.topk(rank).values[-1].clamp(min=0)
    places = (flat > bound).nonzero().flatten()
    if len(places) < count and bound > 0:
        return (flat > 0).nonzero().flatten()
    return places


def project(x: Tensor, weight: Tensor, bias: Tensor, pre: Tensor, kept: Kept) -> Tensor:
    """(kept,) the kept entries of pre = x @ weight.T + bias, which is at hand without a graph.

    x: (n, d). weight: (latents, d). bias: (latents,). pre: (n, latents).
    """
    values: Tensor = _Project.apply(x, weight, bias, pre, *kept)
    return values


def reconstruct(values: Tensor, kept: Kept, weight: Tensor) -> Tensor:
    """latents @ weight.T, (n, d). weight: (d, latents)."""
    table = weight.detach().t().contiguous()
    summed = _sum_of_rows(table, kept.columns, kept.starts, values)
    result: Tensor = _WithWeight.apply(summed, weight, values.detach(), *kept)
    return result


def _sum_of_rows(table: Tensor, columns: Tensor, starts: Tensor, values: Tensor) -> Tensor:
    """Row i: the sum over its entries of value * table[column]."""
    return F.embedding_bag(columns, table, starts, per_sample_weights=values, mode="sum")


def _sum_of_columns(table: Tensor, kept: Kept, values: Tensor, latents: int) -> Tensor:
    """(latents, d) Row j: the sum over the entries of latent j of value * table[row]."""
    order = kept.columns.argsort(stable=True)
    counts = torch.bincount(kept.columns, minlength=latents)
    return _sum_of_rows(table, kept.rows()[order], counts.cumsum(0) - counts, values[order])


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        pre: Tensor,
        columns: Tensor,
        starts: Tensor,
    ) -> Tensor:
        kept = Kept(columns, starts)
        ctx.save_for_backward(x, weight, columns, starts)
        return pre.flatten()[kept.rows() * pre.shape[1] + columns]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, columns, starts = ctx.saved_tensors
        for_weight = _sum_of_columns(x, Kept(columns, starts), gradient, len(weight))
        for_bias = torch.zeros_like(weight[:, 0]).index_add_(0, columns, gradient)
        for_x = _sum_of_rows(weight, columns, starts, gradient)
        return for_x, for_weight, for_bias, None, None, None


class _WithWeight(torch.autograd.Function):
    """Passes a reconstruction on, and gives the weight its gradient, which `_sum_of_rows` lacks."""

    @staticmethod
    def forward(
        ctx: Any, summed: Tensor, weight: Tensor, values: Tensor, columns: Tensor, starts: Tensor
    ) -> Tensor:
        ctx.save_for_backward(values, columns, starts)
        ctx.latents = weight.shape[1]
        return summed.view_as(summed)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, columns, starts = ctx.saved_tensors
        for_weight = _sum_of_columns(gradient, Kept(columns, starts), values, ctx.latents)
        return gradient, for_weight.t(), None, None, None
