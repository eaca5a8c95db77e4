"""Probes: classifiers on frozen features, fitted many at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import gin
import torch
import torch.nn.functional as F
from torch import Tensor

from monosem.fit import Optimizer, Schedule
from monosem.stage import Count, Part, StageError, generator


class Head(NamedTuple):
    """One classifier to fit. seed: names its initial weights and its order of examples; examples: (m,) indices of the
    training examples it sees; labels: (n,) what it is told about each of the n training examples."""

    seed: int
    examples: Tensor
    labels: Tensor


class Bank(NamedTuple):
    """h linear classifiers. weight: (h, d, classes); bias: (h, classes)."""

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor, head: int) -> Tensor:
        """(n, d) -> (n, classes)"""
        return features @ self.weight[head] + self.bias[head]


def topk_accuracy(logits: Tensor, labels: Tensor, k: int) -> float:
    """Percent of rows whose label is among the k largest logits. logits: (n, classes); labels: (n,)."""
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return 100 * (best == labels[:, None]).any(1).double().mean().item()


@gin.register
@dataclass(frozen=True)
class LinearProbe(Part):
    """Multinomial logistic regression on frozen features, by minibatches, all heads of a curve as one bank.

    Every head takes epochs * (n // batch_size) steps, n being the whole training split, and walks through its own examples
    in a fresh order every time round; so a head with few shots takes as many steps as one with all (the reference gives it
    fewer). The bank's weights are one tensor and one batched product serves all heads; nothing couples them, so a head is
    the same alone or in company, up to the rounding of sums.

    rescale: divide features by the root of their mean squared row norm over the training split, one number an encoder, so
        that a learning rate means the same for encoders of different scale; neither geometry nor sparsity changes. The
        reference does not, which is False.
    """

    optimizer: Optimizer
    schedule: Schedule
    epochs: Count = 50
    batch_size: Count = 256
    rescale: bool = True

    def check_size(self, images: int) -> None:
        """Refuse what does not go with so many training images."""
        if self.batch_size > images:
            self.refuse("batch_size", f"must be at most {images}, the training images, got {self.batch_size}")

    def fit(self, features: Tensor, classes: int, heads: Sequence[Head]) -> Bank:
        """features: (n, d) -> the fitted bank, in the order of `heads`, for features of that scale."""
        (n, d), device = features.shape, features.device
        scale = features.square().sum(1).mean().sqrt().clamp(min=1e-12) if self.rescale else torch.ones(()).to(features)
        x = features / scale
        groups = companions(heads)
        each = len(groups[0])
        order = [index for group in groups for index in group]
        labels = torch.stack([heads[index].labels for index in order]).reshape(len(groups), each, n).to(device)

        per_epoch = max(1, n // self.batch_size)
        steps = self.epochs * per_epoch
        walks = torch.stack([walk(heads[group[0]], steps * self.batch_size) for group in groups]).to(device)
        first = torch.stack([initial(heads[index], d, classes) for index in order]).to(x)  # (h, d + 1, classes)
        first = first.reshape(len(groups), each, d + 1, classes).transpose(1, 2).reshape(len(groups), d + 1, -1)
        weight, bias = (part.clone().requires_grad_() for part in (first[:, :d], first[:, d:]))
        optimizer = self.optimizer.build([weight, bias])

        for step in range(steps):
            batch = walks[:, step * self.batch_size : (step + 1) * self.batch_size]  # (groups, b)
            told = labels.gather(2, batch[:, None].expand(-1, each, -1)).transpose(1, 2)  # (groups, b, each)
            logits = torch.baddbmm(bias, x[batch], weight)  # (groups, b, each * classes)
            loss = F.cross_entropy(logits.reshape(-1, classes), told.reshape(-1), reduction="sum") / self.batch_size
            for group in optimizer.param_groups:
                group["lr"] = self.schedule.rate(self.optimizer.lr, step, steps, per_epoch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        back = torch.tensor(order, device=device).argsort()
        weight = weight.detach().reshape(len(groups), d, each, classes).transpose(1, 2).reshape(-1, d, classes)[back]
        bias = bias.detach().reshape(-1, classes)[back]
        if not (weight.isfinite().all() and bias.isfinite().all()):
            raise StageError(
                f"the probe's weights are no finite numbers after {steps} steps (learning rate {self.optimizer.lr:g}). "
                "A lower LinearProbe.optimizer learning rate usually helps."
            )
        return Bank(weight / scale, bias)


def companions(heads: Sequence[Head]) -> list[list[int]]:
    """Indices of heads that share their minibatches, as they have the same seed and examples: groups of one size."""
    groups: list[list[int]] = []
    for index, head in enumerate(heads):
        for group in groups:
            leader = heads[group[0]]
            if leader.seed == head.seed and torch.equal(leader.examples, head.examples):
                group.append(index)
                break
        else:
            groups.append([index])
    even = len({len(group) for group in groups}) == 1
    return groups if even else [[index] for index in range(len(heads))]


def walk(head: Head, length: int) -> Tensor:
    """(length,) the examples of a head in fresh random orders, one after the other."""
    draw, m = generator("order of a probe's examples", head.seed), len(head.examples)
    rounds = [head.examples[torch.randperm(m, generator=draw)] for _ in range(math.ceil(length / m))]
    return torch.cat(rounds)[:length]


def initial(head: Head, d: int, classes: int) -> Tensor:
    """(d + 1, classes) initial weights and, in the last row, biases: nn.Linear's default, U(-1/sqrt(d), 1/sqrt(d))."""
    draw = torch.rand((d + 1, classes), generator=generator("initial weights of a probe", head.seed))
    return (2 * draw - 1) / math.sqrt(d)
