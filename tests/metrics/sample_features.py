"""Small features on which metrics are compared with plain loops."""

from __future__ import annotations

import torch

from monosem.metrics.base import FeatureBatch


def draw(seed):
    return torch.Generator().manual_seed(seed)


DEAD = 2  # the dimension of FEATURES that is zero on every image
LABELS = torch.randint(0, 4, (50,), generator=draw(1))
FEATURES = torch.randn(50, 9, generator=draw(0)).relu() * (torch.arange(9) != DEAD)
REFERENCE_FEATURES = torch.randn(50, 5, generator=draw(2))
FACTORS = {
    "hue": torch.randint(0, 3, (50,), generator=draw(3)),
    "size": torch.randint(0, 2, (50,), generator=draw(4)),
}


def batch_of(features, labels=LABELS, reference_features=None, factors=None):
    """A batch whose reference encoder, unless one is given, sees what the features hold."""
    if reference_features is None:
        reference_features = features
    return FeatureBatch(features, labels, reference_features, factors or {})
