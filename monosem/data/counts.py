"""What is in the splits of a dataset, in a line each, and what makes numbers about them say little.

It counts labels. Nothing is refused here: a split may lack classes, and somebody should know it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from monosem.data.dataset import Dataset, SplitName

FEW_NAMES = 5  # of classes, in a line


def describe_splits(data: Dataset) -> list[str]:
    """A line for every split, and one for what must be known of it."""
    kind = type(data).__name__
    lines = [f"{kind}, {describe_split(data, split)}" for split in data.splits]
    return [*lines, *(f"{kind}, {caution}" for caution in cautions(data))]


def describe_split(data: Dataset, split: SplitName) -> str:
    """`train: 36 images of 3 classes, 12 a class; left out: 2 hidden`."""
    counts = class_counts(data, split)
    present = counts[counts > 0].tolist()
    least, most = min(present, default=0), max(present, default=0)
    each = f"{least}" if least == most else f"{least} to {most}"
    number = "1 class" if len(present) == 1 else f"{len(present)} classes"
    line = f"{split}: {int(counts.sum())} {data.noun} of {number}, {each} a class"
    return "; ".join([line, *data.remarks(split)])


def class_counts(data: Dataset, split: SplitName) -> torch.Tensor:
    """(classes,) how many examples of each class a split has."""
    return torch.bincount(data.split(split).labels, minlength=data.classes)


def cautions(data: Dataset) -> Iterator[str]:
    """What a reader of accuracies on the test split must know."""
    if "test" not in data.splits:
        return
    counts = class_counts(data, "test")
    absent = [data.class_names[label] for label in (counts == 0).nonzero().flatten().tolist()]
    if not absent or len(data.splits) == 1:
        return
    rest = len(absent) - FEW_NAMES
    names = ", ".join(absent[:FEW_NAMES]) + (f" and {rest} more" if rest > 0 else "")
    there = len(counts) - len(absent)
    yield (
        f"test: it has {there} of the {len(counts)} classes, none of {names}: "
        "accuracies and measures of classes are of those that are there"
    )
