"""Many linear probes on the same features, fitted at once by batched products.

Nothing couples them: a probe is the same alone or among others, up to the rounding of sums. The
module knows features and labels; it knows no encoder, no corruption and no stage.

    features                 (n, d)                           of all training examples
    minibatch order          (groups, steps * batch)          a group shares its minibatches
    rows of a minibatch      (groups, batch, d)
    weight                   (groups, d, probes, classes)     a group's probes, side by side
    logits = rows @ weight   (groups, batch, probes, classes)
    labels that probes see   (groups, batch, probes)
    loss                     (groups, batch, probes)          summed: no weight is shared,
                                                              so gradients do not mix

One such product wants groups with equal numbers of probes. So there is one `ProbeGroups` for
every size of group, and `ProbeTrainer` steps through the epochs of all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import gin
import torch
from torch import Generator, Tensor, nn

from monosem.core.fields import Part, Range
from monosem.core.identity import generator
from monosem.core.stage import StageError
from monosem.learning.optimizers import Optimizer, Schedule
from monosem.probes.losses import CrossEntropy, ProbeLoss


class ProbeSpec(NamedTuple):
    """One classifier to fit.

    seed: names its initial weights and its order of examples.
    examples: (m,) indices of the training examples that it learns from.
    labels: (n,) the label of every training example as the probe sees it, noise included.
    """

    seed: int
    examples: Tensor
    labels: Tensor

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for probes that would train to the same weights."""
        return self.seed, self.examples.numpy().tobytes(), self.labels.numpy().tobytes()


class BatchedProbes(NamedTuple):
    """Fitted linear classifiers.

    weight: (probes, d, classes)
    bias: (probes, classes)
    """

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor, position: int) -> Tensor:
        """Features (n, d) -> logits (n, classes) of the probe at a position."""
        return features @ self.weight[position] + self.bias[position]


@gin.register
@dataclass(frozen=True)
class EarlyStopping(Part):
    """Take a probe's weights after the epoch with the lowest held-out loss (Prechelt, 1998).

    The held-out labels are those that the probe sees, so noise in them is noise here too. Every
    probe has its own best epoch; all are trained to the end of the schedule.

    held: the share of a probe's examples that is held out, at least one example. One example of
        every class is never held out. If there are no others, as with one shot, nothing is held
        out: the loss is then that on the examples that the probe learns from.
    """

    VERSION = 2

    held: Annotated[float, Range(0, 0.9, open=True)] = 0.1

    def split(self, probe: ProbeSpec) -> tuple[Tensor, Tensor]:
        """The probe's (m,) examples -> those to learn from and those held out."""
        draw = generator("held out of a probe", probe.seed)
        order = probe.examples[torch.randperm(len(probe.examples), generator=draw)]
        labels = probe.labels[order]
        may_be_held = torch.ones_like(order, dtype=torch.bool)
        for label in labels.unique():
            first_of_class = (labels == label).int().argmax()
            may_be_held[first_of_class] = False
        count = max(1, round(self.held * len(order)))
        is_held = torch.zeros_like(may_be_held)
        is_held[may_be_held.nonzero()[:count, 0]] = True
        if not is_held.any():
            return order, order
        return order[~is_held], order[is_held]


class FitSettings(NamedTuple):
    """How probes are fitted.

    optimizer: its learning rate is for batches of `batch_size`.
    schedule: of the learning rate, step by step.
    epochs: of `steps_per_epoch` steps each.
    batch_size: examples a step.
    rescale: divide features by the root of their mean squared row norm, which is one number.
    dropout: the share of features that is 0 at a step; the others grow to make up for it
        (Srivastava et al., JMLR 2014). A fresh draw for every example of a minibatch; probes that
        share the minibatch share the draw.
    stopping: which epoch's weights are taken; None takes those of the last epoch.
    loss: what is minimised. The held-out loss of early stopping is the same, without mixup.
    mixup: alpha of Beta(alpha, alpha), 0 for none. Of every minibatch one draw is the share that a
        row keeps; the rest is another row of the minibatch, and so is the loss. Probes that share
        the minibatch share the draw.
    """

    optimizer: Optimizer
    schedule: Schedule
    epochs: int
    batch_size: int
    rescale: bool
    dropout: float = 0.0
    stopping: EarlyStopping | None = None
    loss: ProbeLoss = CrossEntropy()
    mixup: float = 0.0

    def steps_per_epoch(self, examples: int) -> int:
        """examples: in the whole training split, however few of them a probe sees."""
        return max(1, examples // self.batch_size)

    def split(self, probe: ProbeSpec) -> tuple[Tensor, Tensor]:
        """The probe's (m,) examples -> those to learn from and those held out.

        Without early stopping none is held out.
        """
        if self.stopping is None:
            return probe.examples, probe.examples[:0]
        return self.stopping.split(probe)

    def minibatches(self, probe: ProbeSpec) -> tuple[object, ...]:
        """Equal for probes that learn from the same examples in the same order.

        Early stopping looks at a probe's labels, so probes of different labels differ with it.
        """
        learned, held = self.split(probe)
        return probe.seed, learned.numpy().tobytes(), held.numpy().tobytes()


def topk_accuracy(logits: Tensor, labels: Tensor, k: int) -> float:
    """Percent of rows whose label is among the k largest logits.

    logits: (n, classes)
    labels: (n,)
    """
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return 100 * (best == labels[:, None]).any(1).double().mean().item()


def fit_probes(
    features: Callable[[int], Tensor],
    classes: int,
    probes: Sequence[ProbeSpec],
    settings: FitSettings,
) -> BatchedProbes:
    """Fit probes from their first epoch to their last.

    features: epoch -> (n, d), float32; what the probes see in that epoch.
    Returns the fitted probes in the order of `probes`. They take unscaled features; the scale is
    folded into the weights.
    """
    views = features(0)
    trainer = ProbeTrainer(probes, views.shape[1], classes, settings, views.device)
    trainer.train_epoch(views)
    for epoch in range(1, settings.epochs):
        trainer.train_epoch(features(epoch))
    return trainer.result()


def unique_probes(probes: Sequence[ProbeSpec]) -> tuple[list[ProbeSpec], list[int]]:
    """The different ones among some probes: probes that would train to equal weights count once.

    Returns them in order of first appearance, and for each of `probes` its position among them.
    """
    unique: dict[tuple[object, ...], ProbeSpec] = {}
    for probe in probes:
        unique.setdefault(probe.identity, probe)
    position = {identity: index for index, identity in enumerate(unique)}
    return list(unique.values()), [position[probe.identity] for probe in probes]


def group_by_minibatches(probes: Sequence[ProbeSpec], settings: FitSettings) -> list[list[int]]:
    """Positions of probes, those that share their minibatches together."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for position, probe in enumerate(probes):
        groups.setdefault(settings.minibatches(probe), []).append(position)
    return list(groups.values())


def group_by_size(groups: Sequence[list[int]]) -> list[list[list[int]]]:
    """The groups, those with equally many members together: what one batched product can serve."""
    by_size: dict[int, list[list[int]]] = {}
    for group in groups:
        by_size.setdefault(len(group), []).append(group)
    return list(by_size.values())


def minibatch_order(seed: int, examples: Tensor, length: int) -> Tensor:
    """(m,) examples -> (length,) the same in fresh random orders, one after the other."""
    draw = generator("order of a probe's examples", seed)
    m = len(examples)
    orders = [examples[torch.randperm(m, generator=draw)] for _ in range(math.ceil(length / m))]
    return torch.cat(orders)[:length]


def initial_weights(probe: ProbeSpec, width: int, classes: int) -> Tensor:
    """nn.Linear's default, U(-1/sqrt(d), 1/sqrt(d)): (d + 1, classes), the last row for biases."""
    draw = generator("initial weights of a probe", probe.seed)
    uniform = torch.rand((width + 1, classes), generator=draw)
    return (2 * uniform - 1) / math.sqrt(width)


def drop_features(rows: Tensor, share: float, draws: Sequence[Generator]) -> Tensor:
    """Dropout.

    rows: (groups, batch, d)
    draws: a generator for each group
    """
    if not share:
        return rows
    uniform = [torch.rand(rows.shape[1:], generator=draw, device=rows.device) for draw in draws]
    return rows * (torch.stack(uniform) >= share) / (1 - share)


class Mixing(NamedTuple):
    """How the rows of a minibatch are mixed, for every group.

    share: (groups, 1, 1), how much of itself a row keeps, in [0, 1].
    partner: (groups, batch), the position in the minibatch of what is mixed in.
    """

    share: Tensor
    partner: Tensor

    def rows(self, rows: Tensor) -> Tensor:
        """(groups, batch, d) -> the same, mixed."""
        others = rows.gather(1, self.partner[:, :, None].expand_as(rows))
        return self.share * rows + (1 - self.share) * others


def draw_mixing(
    alpha: float, batch: int, draws: Sequence[Generator], device: torch.device
) -> Mixing:
    """draws: a generator for each group, on the CPU."""
    from scipy.special import betaincinv  # here, as scipy takes long to import

    uniform = torch.cat([torch.rand(1, generator=draw, dtype=torch.float64) for draw in draws])
    share = torch.from_numpy(betaincinv(alpha, alpha, uniform.numpy())).float()
    partner = torch.stack([torch.randperm(batch, generator=draw) for draw in draws])
    return Mixing(share[:, None, None].to(device), partner.to(device))


class ProbeTrainer:
    """Fits probes epoch by epoch. Its state can be saved after any epoch and loaded again.

    next_epoch: the one that `train_epoch` trains next, from 0.
    scale: what features are divided by; None before the first epoch, whose features decide it.
    """

    def __init__(
        self,
        probes: Sequence[ProbeSpec],
        width: int,
        classes: int,
        settings: FitSettings,
        device: torch.device,
    ):
        """width: d of the features, which lie on `device`."""
        self.settings = settings
        self.examples = len(probes[0].labels)
        self.next_epoch = 0
        self.scale: Tensor | None = None
        self._groups_by_size: list[ProbeGroups] = []
        self._positions: list[int] = []  # in `probes`, of all groups' probes one after the other
        for positions_of_groups in group_by_size(group_by_minibatches(probes, settings)):
            groups = []
            for positions in positions_of_groups:
                groups.append([probes[position] for position in positions])
                self._positions.extend(positions)
            self._groups_by_size.append(ProbeGroups(groups, width, classes, settings, device))

    def train_epoch(self, features: Tensor) -> float:
        """One epoch of all probes.

        features: (n, d), what the probes see in this epoch.
        Returns the mean loss of all probes.
        """
        if self.scale is None:
            self.scale = self._scale_of(features)
        scaled = features / self.scale.to(features.device)
        losses = [groups.train_epoch(scaled, self.next_epoch) for groups in self._groups_by_size]
        self.next_epoch += 1
        return float(torch.cat(losses).mean())

    def result(self) -> BatchedProbes:
        """The fitted probes. They take unscaled features; the scale is folded into the weights.

        Raises StageError where a weight is not a finite number.
        """
        assert self.scale is not None, "an epoch or more has been trained"
        fitted = [groups.fitted() for groups in self._groups_by_size]
        weight = torch.cat([probes.weight for probes in fitted])
        bias = torch.cat([probes.bias for probes in fitted])
        self._check_finite(weight, bias)
        order = torch.tensor(self._positions, device=weight.device).argsort()
        return BatchedProbes(weight[order] / self.scale.to(weight), bias[order])

    def state(self) -> dict[str, Any]:
        """All that is needed to go on after this epoch."""
        return {
            "epoch": self.next_epoch,
            "scale": self.scale,
            "groups": [groups.state() for groups in self._groups_by_size],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.next_epoch = state["epoch"]
        self.scale = state["scale"]
        for groups, groups_state in zip(self._groups_by_size, state["groups"], strict=True):
            groups.load_state(groups_state)

    def _scale_of(self, features: Tensor) -> Tensor:
        if not self.settings.rescale:
            return torch.ones((), device=features.device)
        return features.square().sum(1).mean().sqrt().clamp(min=1e-12)

    def _check_finite(self, weight: Tensor, bias: Tensor) -> None:
        is_finite = weight.isfinite().flatten(1).all(1) & bias.isfinite().all(1)
        broken = int((~is_finite).sum())
        if broken:
            steps = self.settings.epochs * self.settings.steps_per_epoch(self.examples)
            raise StageError(
                f"the weights of {broken} of {len(weight)} probes are no finite numbers after "
                f"{steps} steps (learning rate {self.settings.optimizer.lr:g}). "
                "A lower LinearProbe.optimizer learning rate usually helps."
            )


class ProbeGroups:
    """Groups with equally many probes: their weights, their loss and a step of their optimiser.

    weight: (groups, d, probes, classes)
    bias: (groups, 1, probes, classes)
    labels: (groups, probes, n), as each probe sees them
    order: (groups, steps * batch), the examples that each group learns from, step by step
    best: the weights that early stopping takes; None without it
    """

    def __init__(
        self,
        groups: Sequence[Sequence[ProbeSpec]],
        width: int,
        classes: int,
        settings: FitSettings,
        device: torch.device,
    ):
        leaders = [group[0] for group in groups]
        splits = [settings.split(leader) for leader in leaders]
        self.settings = settings
        self.classes = classes
        self.steps_per_epoch = settings.steps_per_epoch(len(leaders[0].labels))
        self.steps = settings.epochs * self.steps_per_epoch
        self.seeds = [leader.seed for leader in leaders]
        self.labels = _stacked(groups, lambda probe: probe.labels).to(device)
        self.order = self._minibatch_orders([learned for learned, _ in splits]).to(device)
        self.weight, self.bias = _first_weights(groups, width, classes, device)
        optimizer = settings.optimizer.for_batches(settings.batch_size)
        self.base_rate = optimizer.lr
        self.optimizer = optimizer.build(self._parameter_groups())
        self.best: BestWeights | None = None
        if settings.stopping:
            held_out = [held for _, held in splits]
            self.best = BestWeights(held_out, self.weight, self.bias)

    def _parameter_groups(self) -> list[dict[str, Any]]:
        one_probe = (1, 3)  # the axes of d and classes: a probe is a layer of its own
        return [
            {"params": [self.weight], "layer": one_probe},
            {"params": [self.bias], "layer": one_probe, "bias": True},
        ]

    def _minibatch_orders(self, learned: Sequence[Tensor]) -> Tensor:
        length = self.steps * self.settings.batch_size
        orders = [
            minibatch_order(seed, examples, length)
            for seed, examples in zip(self.seeds, learned, strict=True)
        ]
        return torch.stack(orders).int()  # half the memory of int64

    def train_epoch(self, features: Tensor, epoch: int) -> Tensor:
        """One epoch of all probes.

        features: (n, d), scaled.
        Returns the mean loss of every probe, (groups * probes,).
        """
        batch = self.settings.batch_size
        draws = [
            generator("dropout of a probe", seed, epoch, on=features.device) for seed in self.seeds
        ]
        mixing_draws = [generator("mixup of a probe", seed, epoch) for seed in self.seeds]
        total = torch.zeros(self.labels.shape[:2], device=features.device)
        first_step = epoch * self.steps_per_epoch
        for step in range(first_step, first_step + self.steps_per_epoch):
            examples = self.order[:, step * batch : (step + 1) * batch].long()
            rows, mixing = features[examples], None
            if self.settings.mixup:
                mixing = draw_mixing(self.settings.mixup, batch, mixing_draws, features.device)
                rows = mixing.rows(rows)
            rows = drop_features(rows, self.settings.dropout, draws)
            total += self.step(rows, examples, step, mixing)
        if self.best:
            self.best.update(self.held_out_losses(features, self.best), self.weight, self.bias)
        return total.flatten() / self.steps_per_epoch

    def step(
        self, rows: Tensor, examples: Tensor, step: int, mixing: Mixing | None = None
    ) -> Tensor:
        """One step of the optimiser.

        rows: (groups, batch, d)
        examples: (groups, batch), which ones the rows are of
        mixing: how the rows have been mixed, if they have.
        Returns the mean loss of every probe before the step, (groups, probes).
        """
        losses = self.losses(rows, examples)
        if mixing is not None:
            others = self.losses(rows, examples.gather(1, mixing.partner))
            losses = mixing.share * losses + (1 - mixing.share) * others
        rate = self.settings.schedule.rate(self.base_rate, step, self.steps, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        (losses.sum() / self.settings.batch_size).backward()
        self.optimizer.step()
        return losses.detach().mean(1)

    def losses(self, rows: Tensor, examples: Tensor) -> Tensor:
        """The loss with the labels that each probe sees.

        rows: (groups, batch, d)
        examples: (groups, batch), which ones the rows are of
        Returns (groups, batch, probes).
        """
        probes = self.labels.shape[1]
        index = examples[:, None].expand(-1, probes, -1)
        labels = self.labels.gather(2, index).transpose(1, 2)
        logits = torch.baddbmm(self.bias.flatten(2), rows, self.weight.flatten(2))
        flat = self.settings.loss(logits.reshape(-1, self.classes), labels.reshape(-1))
        return flat.reshape(labels.shape)

    @torch.no_grad()
    def held_out_losses(self, features: Tensor, best: BestWeights) -> Tensor:
        """The mean loss of every probe on its held-out examples, (groups, probes)."""
        is_held = best.is_held[:, :, None]
        losses = self.losses(features[best.held_out], best.held_out) * is_held
        return losses.sum(1) / is_held.sum(1)

    def fitted(self) -> BatchedProbes:
        """The fitted probes, which take scaled features.

        weight: (groups * probes, d, classes)
        bias: (groups * probes, classes)
        """
        weight, bias = self.best.result() if self.best else (self.weight, self.bias)
        weight = weight.detach().transpose(1, 2).flatten(0, 1)
        bias = bias.detach().transpose(1, 2).flatten(0, 1)
        return BatchedProbes(weight, bias[:, 0])

    def state(self) -> dict[str, Any]:
        return {
            "weight": self.weight.detach(),
            "bias": self.bias.detach(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best.state() if self.best else {},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.weight.copy_(state["weight"])
            self.bias.copy_(state["bias"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.best:
            self.best.load_state(state["best"])


class BestWeights:
    """Of every probe, the weights with the lowest held-out loss so far.

    held_out: (groups, v), the held-out examples of each group, filled up with 0
    is_held: (groups, v), False for the filling
    loss: (groups, probes), the lowest so far
    weight: as in ProbeGroups
    bias: as in ProbeGroups
    """

    def __init__(self, held_out: Sequence[Tensor], weight: Tensor, bias: Tensor):
        padded = nn.utils.rnn.pad_sequence([*held_out], batch_first=True, padding_value=-1)
        padded = padded.to(weight.device)
        self.held_out = padded.clamp(min=0)
        self.is_held = padded >= 0
        self.loss = torch.full((len(weight), weight.shape[2]), torch.inf, device=weight.device)
        self.weight = weight.detach().clone()
        self.bias = bias.detach().clone()

    @torch.no_grad()
    def update(self, losses: Tensor, weight: Tensor, bias: Tensor) -> None:
        """losses: (groups, probes) of these weights on the held-out examples."""
        is_better = (losses < self.loss)[:, None, :, None]
        self.loss = torch.minimum(losses, self.loss)
        self.weight = torch.where(is_better, weight, self.weight)
        self.bias = torch.where(is_better, bias, self.bias)

    def result(self) -> tuple[Tensor, Tensor]:
        """Weight and bias, NaN for a probe that never had a finite loss.

        Its first weights must not pass for a result.
        """
        had_a_loss = self.loss.isfinite()[:, None, :, None]
        weight = torch.where(had_a_loss, self.weight, torch.nan)
        bias = torch.where(had_a_loss, self.bias, torch.nan)
        return weight, bias

    def state(self) -> dict[str, Tensor]:
        return {"loss": self.loss, "weight": self.weight, "bias": self.bias}

    def load_state(self, state: dict[str, Tensor]) -> None:
        device = self.weight.device
        self.loss = state["loss"].to(device)
        self.weight = state["weight"].to(device)
        self.bias = state["bias"].to(device)


def _first_weights(
    groups: Sequence[Sequence[ProbeSpec]], width: int, classes: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Weight and bias as in ProbeGroups, with gradients."""
    first = _stacked(groups, lambda probe: initial_weights(probe, width, classes)).to(device)
    first = first.transpose(1, 2).contiguous()  # (groups, d + 1, probes, classes)
    weight = first[:, :-1].clone().requires_grad_()
    bias = first[:, -1:].clone().requires_grad_()
    return weight, bias


def _stacked(
    groups: Sequence[Sequence[ProbeSpec]], of_probe: Callable[[ProbeSpec], Tensor]
) -> Tensor:
    """(groups, probes, ...): a tensor of every probe."""
    return torch.stack([torch.stack([of_probe(probe) for probe in group]) for group in groups])
