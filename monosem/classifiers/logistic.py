"""Multinomial logistic regression: with an L2 penalty, which sees no axes, and with L1, which does.

    rows                 (m, r)               of all examples of a group of heads
    a problem            one head, one penalty, one fold that is left out
    weights of examples  (problems, m)        0 where an example is left out; they sum to 1
    point                (problems, (r + 1) * classes), the last row for biases
    logits               (m, problems, classes)

All problems of a group are solved in one batch (solvers.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import gin
import torch
import torch.nn.functional as F
from torch import Tensor

from monosem.classifiers.closed_form import Centred, Penalties, centre, fit_by_group
from monosem.classifiers.kept import CrossValidated, fold_of_examples
from monosem.classifiers.solvers import Stop, lbfgs
from monosem.classifiers.sparse import SparseLoss, minimise_sparse
from monosem.core.fields import Range
from monosem.probes.batched_probes import BatchedProbes, ProbeSpec

# Of trials on held-out examples, and of what is kept: probabilities have two digits or more.
TRIAL, FINAL = Stop(1e-3, 300), Stop(1e-5, 3000)
SINGLE = 1e-5  # the least tolerance that single precision is enough for
LARGEST_BATCH = 2**26  # numbers in the logits and in the memory of a batch of problems


class Problems(NamedTuple):
    """Some problems of one group of heads.

    head: (P,), whose labels they have.
    fold: (P,), the fold that is left out; -1 for none.
    penalty: (P,), of half the squared norm, or of all in units of that which leaves no weight.
    """

    head: Tensor
    fold: Tensor
    penalty: Tensor

    def at(self, which: slice) -> Problems:
        return Problems(self.head[which], self.fold[which], self.penalty[which])


class Group(NamedTuple):
    """What heads of the same examples learn from.

    rows: (m, r).
    labels: (heads, m).
    folds: (heads, m), -1 everywhere where none can be made.
    classes: how many there are.
    """

    rows: Tensor
    labels: Tensor
    folds: Tensor
    classes: int

    def to(self, dtype: torch.dtype) -> Group:
        return self._replace(rows=self.rows.to(dtype))

    def weights(self, problems: Problems) -> Tensor:
        """(P, m) of the examples that a problem learns from; they sum to 1."""
        used = self.folds[problems.head] != problems.fold[:, None]
        used |= problems.fold[:, None] < 0
        return used.to(self.rows.dtype) / used.sum(1, keepdim=True)


def in_turn(stop: Stop) -> Iterator[tuple[torch.dtype, Stop]]:
    """Single precision, and from there double where that is not close enough."""
    rough = stop._replace(tolerance=max(stop.tolerance, SINGLE))
    yield torch.float32, rough
    if rough.tolerance > stop.tolerance:
        yield torch.float64, stop


class MeanLoss:
    """The mean cross-entropy of problems, and half of an L2 penalty on their weights.

    scale: (P, r), what the rows of a point are multiplied by to give weights. A solver that wants
        all curvatures alike gets them so.
    ridge: (P,), of half the squared norm of weights.
    """

    def __init__(self, group: Group, problems: Problems, scale: Tensor, ridge: Tensor):
        self.rows, self.classes = group.rows, group.classes
        self.labels = group.labels[problems.head]
        self.weights = group.weights(problems)
        self.scale, self.ridge = scale.to(self.rows.dtype), ridge.to(self.rows.dtype)

    def _parts(self, points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (A, r, classes) and log-probabilities (m, A, classes)."""
        shaped = points.reshape(len(points), -1, self.classes)
        weight, bias = shaped[:, :-1] * self.scale[which][:, :, None], shaped[:, -1]
        flat = weight.transpose(0, 1).reshape(self.rows.shape[1], -1)
        logits = (self.rows @ flat).reshape(len(self.rows), *bias.shape) + bias
        return weight, F.log_softmax(logits, dim=2)

    def _value(self, weight: Tensor, log_p: Tensor, which: Tensor) -> Tensor:
        of_label = log_p.gather(2, self.labels[which].T[:, :, None])[:, :, 0]
        loss = -(of_label * self.weights[which].T).sum(0)
        return loss + self.ridge[which] / 2 * weight.square().sum((1, 2))

    def value(self, points: Tensor, which: Tensor) -> Tensor:
        return self._value(*self._parts(points, which), which)

    def slope(self, points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        weight, log_p = self._parts(points, which)
        value = self._value(weight, log_p, which)
        shares = self.weights[which].T[:, :, None]
        residual = (log_p.exp_() * shares).scatter_add_(
            2, self.labels[which].T[:, :, None], -shares
        )
        of_weight = (self.rows.T @ residual.flatten(1)).reshape(-1, *residual.shape[1:])
        of_weight = of_weight.transpose(0, 1) + self.ridge[which][:, None, None] * weight
        of_weight = of_weight * self.scale[which][:, :, None]
        return value, torch.cat([of_weight, residual.sum(0)[:, None]], 1).flatten(1)

    def held_out(self, points: Tensor, held: Tensor) -> Tensor:
        """(P,) the mean loss on the examples that each problem has left out. held: (P, m)."""
        everything = torch.arange(len(points), device=points.device)
        _, log_p = self._parts(points, everything)
        of_label = log_p.gather(2, self.labels.T[:, :, None])[:, :, 0]
        return -(of_label.T * held).sum(1) / held.sum(1).clamp(min=1)


@dataclass(frozen=True)
class Logistic(CrossValidated):
    """Multinomial logistic regression; the penalty of every head is chosen by cross-validation.

    Features are centred and divided by one number, so that their mean squared norm is 1. Chosen is
    the penalty of least mean cross-entropy on held-out labels as the head is given them, noise
    included. Where a class has one example nothing can be held out: the smallest penalty is taken.

    penalties: to choose from, above 0; a single one is taken as it is.
    """

    penalties: Penalties = ()

    def validate(self) -> None:
        if not self.penalties:
            self.refuse("penalties", "must hold at least one penalty, got ()")

    def fit(self, features: Tensor, classes: int, heads: Sequence[ProbeSpec]) -> BatchedProbes:
        return fit_by_group(
            features, heads, lambda rows, labels: self._fit_group(rows, labels, classes)
        )

    def _fit_group(self, rows: Tensor, labels: Tensor, classes: int) -> BatchedProbes:
        centred = centre(rows)
        folds = [fold_of_examples(of_head, self.folds) for of_head in labels]
        no_fold = torch.full_like(labels[0], -1)
        stacked = torch.stack([no_fold if fold is None else fold for fold in folds])
        to = centred.rows.device
        group = Group(centred.rows, labels.to(to), stacked.to(to), classes)
        return self.solve(centred, group)

    def solve(self, centred: Centred, group: Group) -> BatchedProbes:
        """The classifiers of a group's heads, which take features as they are."""
        penalties = self._choose(group)
        heads = torch.arange(len(group.labels), device=group.rows.device)
        problems = Problems(heads, torch.full_like(heads, -1), penalties)
        weight, bias = self.minimise(group, problems, FINAL)
        return centred.unscaled(weight, bias)

    def minimise(self, group: Group, problems: Problems, stop: Stop) -> tuple[Tensor, Tensor]:
        """(P, r, classes) weights and (P, classes) biases of centred rows."""
        raise NotImplementedError

    def _choose(self, group: Group) -> Tensor:
        """(heads,) the penalty of every head."""
        device = group.rows.device
        candidates = torch.tensor(sorted(self.penalties), dtype=torch.float64, device=device)
        count = group.folds.amax(1) + 1  # 0 where there are none
        chosen = candidates[:1].repeat(len(group.labels))
        foldable = [head for head in range(len(count)) if count[head] > 0]
        if len(candidates) == 1 or not foldable:
            return chosen
        held_out = [(head, fold) for head in foldable for fold in range(int(count[head]))]
        triples = [
            (head, fold, index)
            for index in reversed(range(len(candidates)))
            for head, fold in held_out
        ]
        head, fold, index = torch.tensor(triples, device=device).T
        losses = self._trial_losses(
            group.to(torch.float32), Problems(head, fold, candidates[index])
        )
        total = torch.zeros(len(count), len(candidates), dtype=losses.dtype, device=device)
        total.index_put_((head, index), losses, accumulate=True)
        best = candidates[total.argmin(1)]
        return torch.where(count > 0, best, chosen)

    def _trial_losses(self, group: Group, problems: Problems) -> Tensor:
        """(P,) the mean loss of every problem on what it leaves out."""
        m, r = group.rows.shape
        batch = max(1, LARGEST_BATCH // (max(m, 20 * (r + 1)) * group.classes))
        losses = []
        for start in range(0, len(problems.head), batch):
            some = problems.at(slice(start, start + batch))
            weight, bias = self.minimise(group, some, TRIAL)
            plain = MeanLoss(group, some, torch.ones_like(weight[:, :, 0]), 0 * some.penalty)
            held = group.folds[some.head] == some.fold[:, None]
            losses.append(plain.held_out(torch.cat([weight, bias[:, None]], 1).flatten(1), held))
        return torch.cat(losses)


@gin.register
@dataclass(frozen=True)
class LogisticRegression(Logistic):
    """With penalty / 2 * |W|^2 beside the mean cross-entropy, by L-BFGS. Rotation-invariant.

    scikit-learn's C is 1 / (m * penalty). The solver works in the principal axes of the rows, each
    divided by the root of a bound of its curvature, s^2 / (2 m) + penalty (Böhning 1992): the
    answer is the same, and found in fewer steps.
    """

    VERSION = 2

    penalties: Penalties = (1e-4, 1e-3, 1e-2, 1e-1)

    def minimise(self, group: Group, problems: Problems, stop: Stop) -> tuple[Tensor, Tensor]:
        m, rows = len(group.rows), group.rows.double()
        _, singular, right = torch.linalg.svd(rows, full_matrices=False)
        turned = group._replace(rows=rows @ right.T)
        scale = (singular.square() / (2 * m) + problems.penalty[:, None]).rsqrt()
        points = rows.new_zeros(len(problems.head), (len(singular) + 1) * group.classes)
        for precision, until in in_turn(stop):
            loss = MeanLoss(turned.to(precision), problems, scale, problems.penalty)
            points = lbfgs(loss, points.to(precision), until)
        shaped = points.to(group.rows.dtype).reshape(len(points), -1, group.classes)
        weight = right.T.to(shaped.dtype) @ (shaped[:, :-1] * scale[:, :, None].to(shaped.dtype))
        return weight, shaped[:, -1]


@gin.register
@dataclass(frozen=True)
class SparseLogisticRegression(Logistic):
    """With lambda * (mix * |W|_1 + (1 - mix) / 2 * |W|^2), the elastic net (Zou & Hastie 2005).

    By accelerated proximal steps (sparse.py), on axes as they are: it sees them, and needs a number
    of examples that grows with the logarithm of useless dimensions (Ng, ICML 2004).

    penalties: lambda in units of the smallest one that leaves no weight, below 1.
    mix: the share of L1, above 0; 1 is the lasso.
    """

    VERSION = 2

    penalties: tuple[Annotated[float, Range(1e-6, 0.999)], ...] = (0.01, 0.03, 0.1, 0.3)
    mix: Annotated[float, Range(0, 1, open=True)] = 1.0

    def minimise(self, group: Group, problems: Problems, stop: Stop) -> tuple[Tensor, Tensor]:
        point = self._without_weights(group.to(torch.float32), problems)
        for precision, until in in_turn(stop):
            some = group.to(precision)
            point = self._sparse_point(some, problems, point.to(precision), until)
        points = point.transpose(0, 1).to(group.rows.dtype)
        return points[:, :-1], points[:, -1]

    def _sparse_point(self, group: Group, problems: Problems, start: Tensor, stop: Stop) -> Tensor:
        """(r + 1, P, classes)."""
        weights = group.weights(problems)
        labels = group.labels[problems.head]
        nothing = torch.zeros_like(weights[:, 0])
        loss = SparseLoss(group.rows, labels, weights, nothing, nothing)
        everything = torch.arange(len(labels), device=labels.device)
        without = self._without_weights(group, problems)
        _, gradient = loss.slope(loss.logits(without), everything)
        largest = gradient[:-1].abs().amax((0, 2))
        strength = problems.penalty.to(largest.dtype) * largest / self.mix
        loss.lasso = (self.mix * strength)[:, None]
        loss.ridge = ((1 - self.mix) * strength)[:, None]
        return minimise_sparse(loss, start, stop)

    def _without_weights(self, group: Group, problems: Problems) -> Tensor:
        """(r + 1, P, classes): biases alone, at the logarithms of the classes' shares."""
        members = F.one_hot(group.labels[problems.head], group.classes).to(group.rows.dtype)
        shares = (group.weights(problems)[:, :, None] * members).sum(1)
        weight = shares.new_zeros(group.rows.shape[1], *shares.shape)
        return torch.cat([weight, shares.clamp(min=1e-3).log()[None]])
