"""Adapters: small modules beside the linear layers of a network, which stay as they are.

They know modules and tensors; how an adapted network is trained is in probes/finetune.py.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import gin
import torch
from torch import Tensor, nn

from monosem.core.device import seeded
from monosem.core.fields import Count, Part, Positive, Range, nearest
from monosem.learning.objectives import ACTIVATIONS, Activation

MEASURES = ("adapter_sparsity", "dead_ranks", "update_norm")


# First weights


@dataclass(frozen=True)
class FirstWeights(Part):
    """What a weight of an adapter is before it learns."""

    def fill(self, weight: Tensor) -> None:
        """Set `weight`, (out, in), in place. It draws from torch's current generator."""
        raise NotImplementedError


@gin.register
@dataclass(frozen=True)
class Zeros(FirstWeights):
    """Zeros: what LoRA starts its up matrix with, so that nothing is changed at first."""

    def fill(self, weight: Tensor) -> None:
        nn.init.zeros_(weight)


@gin.register
@dataclass(frozen=True)
class ZerosAnyway(Zeros):
    """Zeros also where nothing can be learned from there: a control that shows just that."""


@gin.register
@dataclass(frozen=True)
class Gaussian(FirstWeights):
    """Independent normal weights of mean 0.

    std: their standard deviation.
    """

    std: Positive = 0.02

    def fill(self, weight: Tensor) -> None:
        nn.init.normal_(weight, std=self.std)


@gin.register
@dataclass(frozen=True)
class KaimingUniform(FirstWeights):
    """Uniform between -1 and 1 over the square root of `in`: nn.Linear's own, and LoRA's down."""

    def fill(self, weight: Tensor) -> None:
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))


# Modules


class AdaptedLinear(nn.Module):
    """A linear layer with a low-rank update beside it.

        x       (..., in)
        hidden  (..., rank)     middle(down(inner(dropout(x))))
        update  (..., out)      scale * outer(up(hidden))
        output  (..., out)      layer(x) + update

    layer: stays as it is.
    inner, middle, outer: the three functions.
    tally: where what passes through is counted; None counts nothing.
    """

    def __init__(
        self,
        layer: nn.Linear,
        rank: int,
        scale: float,
        dropout: float,
        functions: tuple[Activation, Activation, Activation],
    ):
        super().__init__()
        # float32 also beside half precision, where small steps would be rounded away
        where = {
            "device": layer.weight.device,
            "dtype": torch.promote_types(layer.weight.dtype, torch.float32),
        }
        self.layer = layer
        self.down = nn.Linear(layer.in_features, rank, bias=False, **where)
        self.up = nn.Linear(rank, layer.out_features, bias=False, **where)
        self.dropout = nn.Dropout(dropout)
        self.scale = scale
        self.inner, self.middle, self.outer = (ACTIVATIONS[name] for name in functions)
        self.tally: Tally | None = None

    def forward(self, x: Tensor) -> Tensor:
        base = self.layer(x)
        own = x.to(self.down.weight.dtype)
        hidden = self.middle(self.down(self.inner(self.dropout(own))))
        update = (self.scale * self.outer(self.up(hidden))).to(base.dtype)
        if self.tally is not None:
            self.tally.add(hidden, update, base)
        return base + update

    def learned(self) -> nn.ModuleDict:
        """What learns."""
        return nn.ModuleDict({"down": self.down, "up": self.up})


class Tally:
    """Counts over all rows that pass through an adapted layer. In text a token is a row.

    counted: (...) which rows of a pass count; None is all of them.
    zeros: how many activations between the two matrices are 0, of `activations`.
    alive: (rank,) whether an activation was ever other than 0.
    update, base: sums of squares of the update and of the layer's own output.
    """

    def __init__(self, adapted: AdaptedLinear):
        weight = adapted.down.weight
        self.counted: Tensor | None = None
        self.activations = 0
        self.alive = torch.zeros(len(weight), dtype=torch.bool, device=weight.device)
        self.zeros, self.update, self.base = weight.new_zeros(3, dtype=torch.float64)

    def add(self, hidden: Tensor, update: Tensor, base: Tensor) -> None:
        rows = self._rows(hidden)
        self.activations += rows.numel()
        self.zeros = self.zeros + (rows == 0).sum()
        self.alive = self.alive | (rows != 0).any(0)
        self.update = self.update + self._rows(update).double().square().sum()
        self.base = self.base + self._rows(base).double().square().sum()

    def _rows(self, passed: Tensor) -> Tensor:
        """(..., d) -> (rows, d), those that count."""
        passed = passed.detach()
        return passed.flatten(0, -2) if self.counted is None else passed[self.counted]


def adapted_layers(network: nn.Module) -> list[AdaptedLinear]:
    """The layers of a network that have an adapter, in its order."""
    return [module for module in network.modules() if isinstance(module, AdaptedLinear)]


def count_only(network: nn.Module, counted: Tensor) -> None:
    """Tell the adapters of a network which rows of the next pass count: those of no padding, say.

    counted: True or False, in the shape of what passes through, without its last dimension.
    """
    for layer in adapted_layers(network):
        if layer.tally is not None:
            layer.tally.counted = counted


@contextlib.contextmanager
def watched(network: nn.Module) -> Iterator[Callable[[], dict[str, float]]]:
    """Inside, what passes through the adapters of a network is counted; padding of texts is not.

    Gives a function that returns, over all adapters, in percent:
        adapter_sparsity  activations between the two matrices that are exactly 0, as in the paper
        dead_ranks        ranks whose activation was 0 for every row
        update_norm       the norm of all updates over the norm of what the layers give by
                          themselves
    """
    layers = adapted_layers(network)
    tallies = [Tally(layer) for layer in layers]
    for layer, tally in zip(layers, tallies, strict=True):
        layer.tally = tally
    try:
        yield lambda: _measures(tallies)
    finally:
        for layer in layers:
            layer.tally = None


def _measures(tallies: list[Tally]) -> dict[str, float]:
    zeros = sum(float(tally.zeros) for tally in tallies)
    activations = sum(tally.activations for tally in tallies)
    dead = sum(int((~tally.alive).sum()) for tally in tallies)
    ranks = sum(len(tally.alive) for tally in tallies)
    update = sum(float(tally.update) for tally in tallies)
    base = sum(float(tally.base) for tally in tallies)
    values = (zeros / activations, dead / ranks, math.sqrt(update / base))
    return {name: 100 * value for name, value in zip(MEASURES, values, strict=True)}


# Parts


@dataclass(frozen=True, kw_only=True)
class Adapter(Part):
    """What is put beside linear layers of a network, and learns in their place.

    targets: names of linear layers. 'query' is every layer whose name is query or ends in .query,
        as in peft.
    rank: of the update.
    alpha: the update is multiplied by alpha / rank.
    dropout: share of the inputs of the update that is set to 0 while it learns.
    down, up: first weights of the matrix to the rank and of that back from it.

    The standard values are those of the paper's language part (rank 8, alpha 4, dropout .1).
    """

    targets: tuple[str, ...]
    rank: Count = 8
    alpha: Positive = 4.0
    dropout: Annotated[float, Range(0, 1)] = 0.1
    down: FirstWeights = KaimingUniform()
    up: FirstWeights = Zeros()

    @property
    def functions(self) -> tuple[Activation, Activation, Activation]:
        """What is applied to the input, between the two matrices, and to the update."""
        raise NotImplementedError

    def validate(self) -> None:
        if not self.targets:
            self.refuse("targets", "must name at least one linear layer, got ()")
        if self.dropout == 1:
            self.refuse("dropout", "must be below 1, which leaves nothing to learn from, got 1")
        asked_for = any(isinstance(first, ZerosAnyway) for first in (self.down, self.up))
        if not asked_for and not self._has_a_gradient():
            self.refuse(
                "up" if isinstance(self.up, Zeros) else "down",
                f"must not be Zeros(): {type(self).__name__} has no gradient at zeros and never "
                "trains; ZerosAnyway() asks for just that",
            )

    def attach(self, network: nn.Module) -> nn.ModuleDict:
        """Put adapters beside the chosen layers of a network, in place.

        It draws from torch's current generator. Returns what learns, by the name of the layer with
        / for a dot.
        """
        learned = nn.ModuleDict()
        for name, layer in self.chosen(network).items():
            adapted = self._beside(layer)
            owner, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(owner), attribute, adapted)
            learned[name.replace(".", "/")] = adapted.learned()
        return learned

    def chosen(self, network: nn.Module) -> dict[str, nn.Linear]:
        """The layers of a network that `targets` name; on the meta device too.

        Raises FieldError where there is none, or where the rank is above a width.
        """
        linear = {
            name: module
            for name, module in network.named_modules()
            if type(module) is nn.Linear  # attention of torch reads its subclass past `forward`
        }
        if not linear:
            self.refuse("targets", "must name linear layers, and the encoder has none")
        for target in self.targets:
            self._check_target(target, network, list(linear))
        named = {name: layer for name, layer in linear.items() if self._names(name)}
        for name, layer in named.items():
            width = min(layer.in_features, layer.out_features)
            if self.rank > width:
                self.refuse(
                    "rank",
                    f"must be at most {width}, the smaller side of {name}, got {self.rank}",
                )
        return named

    def _names(self, name: str) -> bool:
        return any(f".{name}".endswith(f".{target}") for target in self.targets)

    def _check_target(self, target: str, network: nn.Module, linear: list[str]) -> None:
        if any(f".{name}".endswith(f".{target}") for name in linear):
            return
        others = {
            type(module).__name__
            for name, module in network.named_modules()
            if name and f".{name}".endswith(f".{target}")
        }
        if others:
            self.refuse("targets", f"has {target!r}, which is no Linear but {min(others)}")
        words = target.count(".") + 1
        endings = sorted({".".join(name.split(".")[-words:]) for name in linear})
        hint = nearest(target, endings, "; did you mean '{}'?")
        hint = hint or f"; there are {', '.join(endings[:12])}"
        self.refuse("targets", f"has {target!r}, but no linear layer has that name{hint}")

    def _beside(self, layer: nn.Linear) -> AdaptedLinear:
        adapted = AdaptedLinear(
            layer, self.rank, self.alpha / self.rank, self.dropout, self.functions
        )
        # drawn where torch's CPU generator is, so that every device has the same first weights
        for first, weight in ((self.down, adapted.down.weight), (self.up, adapted.up.weight)):
            drawn = torch.empty_like(weight, device="cpu")
            first.fill(drawn)
            with torch.no_grad():
                weight.copy_(drawn)
        return adapted

    def _has_a_gradient(self) -> bool:
        """Whether any of its weights would move in the first step beside some layer."""
        with seeded("Adapter", "has a gradient"):
            adapted = self._beside(nn.Linear(64, 64))
            (adapted.eval()(torch.randn(64, 64)) * torch.randn(64, 64)).sum().backward()
        weights = (adapted.down.weight, adapted.up.weight)
        return any(weight.grad is not None and bool(weight.grad.any()) for weight in weights)


@gin.register
@dataclass(frozen=True, kw_only=True)
class LoRA(Adapter):
    """y = W0 x + alpha / rank * B A x (Hu et al., arXiv:2106.09685, equation 3).

    A is `down`, (rank, in), and B is `up`, (out, rank); it starts at zero, as published.
    """

    @property
    def functions(self) -> tuple[Activation, Activation, Activation]:
        return "identity", "identity", "identity"


@gin.register
@dataclass(frozen=True, kw_only=True)
class MonoLoRA(Adapter):
    """y = W0 x + alpha / rank * s(A s(B s(x))) (arXiv:2410.21331, first version, equation 5).

    B is `down`, (rank, in), and A is `up`, (out, rank). It cannot be merged into W0. The paper says
    nothing of the first weights. LoRA's zeros are refused: behind the outer ReLU they have no
    gradient.

    inner, middle, outer: s of x, of B s(x) and of A s(B s(x)).
    """

    up: FirstWeights = Gaussian()
    inner: Activation = "relu"
    middle: Activation = "relu"
    outer: Activation = "relu"

    @property
    def functions(self) -> tuple[Activation, Activation, Activation]:
        return self.inner, self.middle, self.outer
