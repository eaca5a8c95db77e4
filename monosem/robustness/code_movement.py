"""How the features themselves move under a corruption, and which dimension answers where a probe
is right: pure functions of features, labels and outcomes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from monosem.metrics.classes import active_dimensions, class_consistency, class_counts

ACTIVE = 1e-5  # a dimension is active where |f| is above this share of the row's norm
MOVEMENT = ("cosine", "stay_active", "same_top_dimension")
OUTCOMES = ("consistency_of_right", "consistency_of_wrong")


def code_movement(clean: Tensor, corrupted: Tensor) -> dict[str, float]:
    """How much of the features of clean inputs is left in those of corrupted ones, in percent.

    clean, corrupted: (n, d), of the same inputs.

    cosine: the mean cosine of the two features of an input; 0 where one of them is 0.
    stay_active: of all pairs of an input and a dimension that is active on it, the share that is
        active on the corrupted input too; nan where no dimension is active on any input.
    same_top_dimension: the share of inputs whose largest |f| stays in the same dimension.
    """
    cosines = F.cosine_similarity(clean.double(), corrupted.double(), dim=1)
    before, after = (active_dimensions(rows, ACTIVE) for rows in (clean, corrupted))
    active = before.sum().item()
    stay = (before & after).sum().item()
    same = top_dimension(clean) == top_dimension(corrupted)
    return {
        "cosine": 100 * cosines.mean().item(),
        "stay_active": 100 * stay / active if active else float("nan"),
        "same_top_dimension": 100 * same.double().mean().item(),
    }


def top_dimension(features: Tensor) -> Tensor:
    """(n, d) -> (n,) the dimension of the largest |f| of every input; the first of equal ones."""
    return features.abs().argmax(1)


def top_consistency(features: Tensor, labels: Tensor) -> Tensor:
    """(n, d), (n,) -> (n,) the class consistency of the top dimension of every input, in [0, 1]."""
    consistency = class_consistency(class_counts(features, labels, ACTIVE))
    return consistency[top_dimension(features)]


def by_outcome(consistency: Tensor, right: Tensor) -> dict[str, float]:
    """The mean consistency, in percent, of inputs that a probe gets right and of those it does not.

    It is what figure 4c of the paper compares. nan where there is no such input.

    consistency: (n,) as of `top_consistency`.
    right: (n,) whether the probe predicts the label.
    """
    means = [100 * consistency[chosen].mean().item() for chosen in (right, ~right)]
    return dict(zip(OUTCOMES, means, strict=True))
