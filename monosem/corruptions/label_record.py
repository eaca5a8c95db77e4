"""What is kept of the labels that a probe saw: how many were wrong, which ones, and a digest."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

WRONG_LABELS = "wrong_labels"


def label_record(clean: Tensor, seen: Tensor, classes: int) -> dict[str, Tensor]:
    """Of true labels (n,) and those that a probe saw (n,):

    wrong_labels  ()                  float64, percent
    confusion     (classes, classes)  int32, how many labels of a class (row) are which (column)
    label_digest  (32,)               uint8, SHA-256 of the labels seen as little-endian int64
    """
    pairs = (clean * classes + seen).bincount(minlength=classes * classes)
    digest = hashlib.sha256(seen.numpy().astype("<i8").tobytes()).digest()
    return {
        WRONG_LABELS: 100 * (clean != seen).double().mean(),
        "confusion": pairs.reshape(classes, classes).int(),
        "label_digest": torch.tensor(list(digest), dtype=torch.uint8),
    }
