"""What is kept of the labels that a probe saw: how many were wrong, which ones, and a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

WRONG_LABELS = "wrong_labels"
MOST_CONFUSED = 3  # pairs of classes that are named


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


def label_remarks(severities: Sequence[float], records: Mapping[str, Tensor]) -> Iterator[str]:
    """What to say of the records of a curve, (severities, repeats, ...): rates, confusion, digest.

    Rates and shares are means over repeats.
    """
    rates = records[WRONG_LABELS].mean(1).tolist()
    shown = ", ".join(f"{rate:.4g} at {at:g}" for at, rate in zip(severities, rates, strict=True))
    digest = hashlib.sha256(records["label_digest"].numpy().tobytes()).hexdigest()
    yield f"wrong labels in percent: {shown}; digest of all labels {digest[:16]}"
    worst = max(range(len(rates)), key=rates.__getitem__)
    if often := _most_frequent_confusions(records["confusion"][worst]):
        yield f"most often wrong at {severities[worst]:g}: {', '.join(often)}"


def _most_frequent_confusions(confusion: Tensor) -> list[str]:
    """confusion: (repeats, classes, classes) counts."""
    counts = confusion.sum(0).double()
    shares = 100 * counts / counts.sum(1, keepdim=True).clamp(min=1)
    shares.fill_diagonal_(0)
    best = shares.flatten().topk(min(MOST_CONFUSED, shares.numel()))
    return [
        f"class {cell // len(shares)} as {cell % len(shares)} ({share:.1f} %)"
        for share, cell in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        if share > 0
    ]
