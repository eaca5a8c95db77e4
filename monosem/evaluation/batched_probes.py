"""A bank: many linear heads on the same features, fitted together by batched products, equal to heads fitted one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import gin
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from monosem.core.fields import Part, Range
from monosem.core.identity import generator
from monosem.core.stage import Job, StageError
from monosem.learning.optimizers import Optimizer, Schedule


class ProbeSpec(NamedTuple):
    """One classifier to fit. seed: names its initial weights and its order of examples; examples: (m,) indices of the
    training examples it sees; labels: (n,) what it is told about each of the n training examples."""

    seed: int
    examples: Tensor
    labels: Tensor


class BatchedProbes(NamedTuple):
    """h linear classifiers. weight: (h, d, classes); bias: (h, classes)."""

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor, head: int) -> Tensor:
        """(n, d) -> (n, classes)"""
        return features @ self.weight[head] + self.bias[head]


@gin.register
@dataclass(frozen=True)
class EarlyStopping(Part):
    """Of a probe, the weights after the epoch with the lowest loss on examples that are held out of it, as it is told their labels: noise
    in them is noise here too (Prechelt, 1998). Each head has its own epoch; all are trained to the end of the schedule.

    held: the share of a head's examples that is held out, at least one, but never the last one of what it is told is a class; where there
        is no other, as with one shot, a head is judged by what it learned from.
    """

    held: Annotated[float, Range(0, 0.9, open=True)] = 0.1

    def split(self, head: ProbeSpec) -> tuple[Tensor, Tensor]:
        """(m,) examples -> those that are learned from and those that are held out."""
        order = head.examples[
            torch.randperm(
                len(head.examples), generator=generator("held out of a probe", head.seed)
            )
        ]
        told = head.labels[order]
        first = torch.stack(
            [(told == label).int().argmax() for label in told.unique()]
        )  # one of each class stays
        spare = torch.ones_like(order, dtype=torch.bool)
        spare[first] = False
        held = spare.nonzero()[: max(1, round(self.held * len(order))), 0]
        if not len(held):
            return order, order
        kept = torch.ones_like(spare)
        kept[held] = False
        return order[kept], order[held]


class FitSettings(NamedTuple):
    """How heads are fitted: epochs * (n // batch_size) steps each, n being all training examples, few as a head may see of them.
    rescale: divide features by the root of their mean squared row norm, one number. dropout: the share of features that is 0 at a step,
    others growing to make up for it (Srivastava et al., JMLR 2014); a fresh draw for every example, the same for heads of one seed."""

    optimizer: Optimizer
    schedule: Schedule
    epochs: int
    batch_size: int
    rescale: bool
    dropout: float = 0.0
    stopping: EarlyStopping | None = None


def topk_accuracy(logits: Tensor, labels: Tensor, k: int) -> float:
    """Percent of rows whose label is among the k largest logits. logits: (n, classes); labels: (n,)."""
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return 100 * (best == labels[:, None]).any(1).double().mean().item()


def unique_probes(heads: Sequence[ProbeSpec]) -> tuple[list[ProbeSpec], list[int]]:
    """The heads that differ, and which of them each head is."""
    found: dict[tuple[object, ...], int] = {}
    member = [
        found.setdefault(
            (each.seed, each.examples.numpy().tobytes(), each.labels.numpy().tobytes()), len(found)
        )
        for each in heads
    ]
    return [heads[member.index(number)] for number in range(len(found))], member


def fit_probes(
    features: Callable[[int], Tensor],
    classes: int,
    heads: Sequence[ProbeSpec],
    recipe: FitSettings,
    job: Job | None = None,
) -> BatchedProbes:
    """features(epoch) -> (n, d), what heads see in that epoch. The fitted bank, in the order of `heads`, for features of that scale.

    job: where to log the mean loss of every epoch and keep the state from which to go on.
    """
    steps = recipe.epochs * max(1, len(heads[0].labels) // recipe.batch_size)
    groups, blocks = group_by_size(heads), list[_Block]()
    state: dict[str, Any] = (job.restore() if job else None) or {
        "epoch": 0,
        "blocks": [None] * len(groups),
    }
    scale = state.get("scale")
    seen = x = torch.empty(0)
    for epoch in range(min(state["epoch"], recipe.epochs - 1), recipe.epochs):
        raw = features(epoch)
        if raw is not seen:
            if scale is None:
                scale = (
                    raw.square().sum(1).mean().sqrt().clamp(min=1e-12)
                    if recipe.rescale
                    else torch.ones(()).to(raw)
                )
            seen, x = raw, raw / scale.to(raw.device)
        if not blocks:
            kept = zip(groups, state["blocks"], strict=True)
            blocks = [
                _Block([heads[i] for i in members], classes, recipe, steps, x, each)
                for members, each in kept
            ]
        if epoch < state["epoch"]:
            break  # it was killed after its last epoch
        losses = [block.epoch(x, epoch) for block in blocks]
        if job:
            job.log(epoch + 1, recipe.epochs, loss=float(torch.cat(losses).mean()))
            job.save(
                {"epoch": epoch + 1, "scale": scale, "blocks": [block.state() for block in blocks]}
            )
    parts = [block.bank() for block in blocks]
    back = torch.tensor(
        [index for members in groups for index in members], device=x.device
    ).argsort()
    weight, bias = (torch.cat(each)[back] for each in zip(*parts, strict=True))
    if broken := int((~(weight.isfinite().flatten(1).all(1) & bias.isfinite().all(1))).sum()):
        raise StageError(
            f"the weights of {broken} of {len(heads)} probes are no finite numbers after {steps} steps "
            f"(learning rate {recipe.optimizer.lr:g}). A lower LinearProbe.optimizer learning rate usually helps."
        )
    assert scale is not None, "recipes have an epoch or more"
    return BatchedProbes(weight / scale.to(weight), bias)


class _Block:
    """Heads in groups of one size; those of a group share their minibatches. Weights are (groups, d, each, classes)."""

    def __init__(
        self,
        heads: list[ProbeSpec],
        classes: int,
        recipe: FitSettings,
        steps: int,
        x: Tensor,
        state: dict[str, Any] | None,
    ):
        """x: (n, d) features of the first epoch. state: to go on from."""
        self.classes, self.recipe, self.steps = classes, recipe, steps
        self.each = len(group_by_minibatches(heads)[0])
        self.groups = len(heads) // self.each
        (n, d), device = x.shape, x.device
        self.seeds = [leader.seed for leader in heads[:: self.each]]
        split = [
            recipe.stopping.split(head) if recipe.stopping else (head.examples, head.examples[:0])
            for head in heads[:: self.each]
        ]
        length = steps * recipe.batch_size
        self.walks = (
            torch.stack(
                [
                    minibatch_order(seed, own, length)
                    for seed, (own, _) in zip(self.seeds, split, strict=True)
                ]
            )
            .int()
            .to(device)
        )
        self.held = nn.utils.rnn.pad_sequence(
            [held for _, held in split], batch_first=True, padding_value=-1
        ).to(device)  # (groups, v)
        self.labels = (
            torch.stack([head.labels for head in heads])
            .reshape(self.groups, self.each, n)
            .to(device)
        )
        first = torch.stack([initial_weights(head, d, classes) for head in heads]).to(
            x
        )  # (heads, d + 1, classes)
        first = first.reshape(self.groups, self.each, d + 1, classes).transpose(1, 2).contiguous()
        self.weight, self.bias = (
            part.clone().requires_grad_() for part in (first[:, :d], first[:, d:])
        )
        if state is not None:
            self.weight.data, self.bias.data = state["weight"].to(x), state["bias"].to(x)
        self.kept = [self.weight, self.bias]  # what the bank is made of
        if recipe.stopping:
            self.kept = (
                [state["kept_weight"].to(x), state["kept_bias"].to(x)]
                if state
                else [each.detach().clone() for each in self.kept]
            )
            self.best = (
                state["best"].to(x)
                if state
                else torch.full((self.groups, self.each), torch.inf).to(x)
            )
        groups: list[dict[str, Any]] = [
            {"params": [self.weight]},
            {"params": [self.bias], "bias": True},
        ]
        groups = [{**group, "layer": (1, 3)} for group in groups]
        self.optimizer = recipe.optimizer.for_batches(recipe.batch_size).build(groups)
        self.lr = self.optimizer.param_groups[0]["lr"]
        if state is not None:
            self.optimizer.load_state_dict(state["optimizer"])

    def epoch(self, x: Tensor, epoch: int) -> Tensor:
        """One epoch of steps; the mean loss of every head."""
        b, per_epoch = self.recipe.batch_size, self.steps // self.recipe.epochs
        total = torch.zeros(self.groups * self.each, device=x.device)
        draws = (
            [generator("dropout of a probe", seed, epoch, on=x.device) for seed in self.seeds]
            if self.recipe.dropout
            else []
        )
        for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            batch = self.walks[:, step * b : (step + 1) * b].long()  # (groups, b)
            losses = self.losses(self._dropped(x[batch], draws), batch)
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.schedule.rate(self.lr, step, self.steps, per_epoch)
            self.optimizer.zero_grad(set_to_none=True)
            (losses.sum() / b).backward()
            self.optimizer.step()
            total += losses.detach().mean(1).flatten()
        if self.recipe.stopping:
            self._keep_the_best(x)
        return total / per_epoch

    def losses(self, rows: Tensor, examples: Tensor) -> Tensor:
        """rows: (groups, b, d), examples: (groups, b), which they are -> (groups, b, each) cross-entropy with what heads are told."""
        told = self.labels.gather(2, examples[:, None].expand(-1, self.each, -1)).transpose(
            1, 2
        )  # (groups, b, each)
        logits = torch.baddbmm(
            self.bias.flatten(2), rows, self.weight.flatten(2)
        )  # (groups, b, each * classes)
        return F.cross_entropy(
            logits.reshape(-1, self.classes), told.reshape(-1), reduction="none"
        ).reshape(told.shape)

    def _dropped(self, rows: Tensor, draws: Sequence[Generator]) -> Tensor:
        if not draws:
            return rows
        drawn = torch.stack(
            [torch.rand(rows.shape[1:], generator=draw, device=rows.device) for draw in draws]
        )
        return rows * (drawn >= self.recipe.dropout) / (1 - self.recipe.dropout)

    @torch.no_grad()
    def _keep_the_best(self, x: Tensor) -> None:
        real = (self.held >= 0)[:, :, None]
        losses = self.losses(x[self.held], self.held.clamp(min=0)) * real
        loss = losses.sum(1) / real.sum(1)
        better = (loss < self.best)[:, None, :, None]
        self.best = torch.minimum(loss, self.best)
        self.kept = [
            torch.where(better, now, kept)
            for now, kept in zip((self.weight, self.bias), self.kept, strict=True)
        ]

    def state(self) -> dict[str, Any]:
        now = {
            "weight": self.weight.detach(),
            "bias": self.bias.detach(),
            "optimizer": self.optimizer.state_dict(),
        }
        return now | (
            {"kept_weight": self.kept[0], "kept_bias": self.kept[1], "best": self.best}
            if self.recipe.stopping
            else {}
        )

    def bank(self) -> BatchedProbes:
        kept = self.kept
        if self.recipe.stopping:  # a head that never had a loss has no best weights, and the first ones are not to pass for them
            kept = [
                torch.where(self.best.isfinite()[:, None, :, None], part, torch.nan)
                for part in kept
            ]
        weight, bias = (part.detach().transpose(1, 2).flatten(0, 1) for part in kept)
        return BatchedProbes(weight, bias[:, 0])


def group_by_minibatches(heads: Sequence[ProbeSpec]) -> list[list[int]]:
    """Indices of heads that share their minibatches, as they have the same seed and examples."""
    groups: list[list[int]] = []
    for index, head in enumerate(heads):
        for group in groups:
            leader = heads[group[0]]
            if leader.seed == head.seed and torch.equal(leader.examples, head.examples):
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def group_by_size(heads: Sequence[ProbeSpec]) -> list[list[int]]:
    """Indices of heads by the size of their group, groups after one another: what one batched product can serve."""
    sizes: dict[int, list[int]] = {}
    for group in group_by_minibatches(heads):
        sizes.setdefault(len(group), []).extend(group)
    return list(sizes.values())


def minibatch_order(seed: int, examples: Tensor, length: int) -> Tensor:
    """(length,) the examples of a head in fresh random orders, one after the other."""
    draw, m = generator("order of a probe's examples", seed), len(examples)
    rounds = [examples[torch.randperm(m, generator=draw)] for _ in range(math.ceil(length / m))]
    return torch.cat(rounds)[:length]


def initial_weights(head: ProbeSpec, d: int, classes: int) -> Tensor:
    """(d + 1, classes) initial weights and, in the last row, biases: nn.Linear's default, U(-1/sqrt(d), 1/sqrt(d))."""
    draw = torch.rand(
        (d + 1, classes), generator=generator("initial weights of a probe", head.seed)
    )
    return (2 * draw - 1) / math.sqrt(d)
