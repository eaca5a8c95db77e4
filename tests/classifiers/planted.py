"""Planted features and training sets that the tests of classifiers share."""

from __future__ import annotations

import torch
from torch import Tensor

from monosem.probes.batched_probes import ProbeSpec

CLASSES, DIMENSIONS = 4, 12


def features(n: int = 160, seed: int = 0, codes: bool = False) -> tuple[Tensor, Tensor]:
    """(n, 12), float32, with 4 overlapping classes. codes: rectified, with many zeros."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    values = torch.randn(n, DIMENSIONS, generator=draw)
    values[:, :CLASSES] += 1.5 * torch.eye(CLASSES)[labels]
    return (values.relu() if codes else values), labels


def heads(labels: Tensor) -> list[ProbeSpec]:
    """Three of all examples, with 0, 20 and 50 % wrong labels, and one of a few examples."""
    draw = torch.Generator().manual_seed(1)
    made = []
    for seed, share in enumerate((0.0, 0.2, 0.5)):
        is_wrong = torch.rand(len(labels), generator=draw) < share
        noisy = torch.where(is_wrong, (labels + 1) % CLASSES, labels)
        made.append(ProbeSpec(seed, torch.arange(len(labels)), noisy))
    made.append(ProbeSpec(3, torch.arange(0, 5 * CLASSES), labels))
    return made


def given(head: ProbeSpec, values: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and the labels that a head learns from."""
    return values[head.examples], head.labels[head.examples]
