"""Labels that people gave, from the files of CIFAR-10N and CIFAR-100N or from the data's raters."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gin
import torch
from torch import Generator, Tensor

from monosem.checkpoints.array_file import load_columns
from monosem.checkpoints.safe_load import WeightsError
from monosem.core.fields import PathField
from monosem.core.files import known_digest
from monosem.corruptions.label_noise import WrongLabels, make_wrong
from monosem.data.dataset import Dataset

CLEAN = "clean_label"


@gin.register
@dataclass(frozen=True)
class HumanNoise(WrongLabels):
    """The labels that people gave to the training images (Wei et al. 2022, arXiv:2110.12088).

    The severity is the share of their wrong labels that is applied, round(severity * wrong) of
    them, drawn from all: 0 is the clean labels, 1 is the published ones.

    file: CIFAR-10_human.pt or CIFAR-100_human.pt, which github.com/UCSC-REAL/cifar-10-100n has.
        Its clean labels must be those of the data, in order.
    column: which labels of it. CIFAR-10N has 'aggre_label' (9.03 % wrong), 'random_label1' to
        'random_label3' (17.23, 18.12, 17.64 %) and 'worse_label' (40.21 %), CIFAR-100N has
        'noisy_label' (40.20 %).
    """

    file: PathField
    column: str

    @property
    def axis(self) -> str:
        return f"wrong human labels that are applied (share of {self.column})"

    def content(self) -> str:
        path = Path(self.file)
        if not path.is_file():
            self.refuse("file", f"must be a file, got {path}, which is none")
        try:
            return known_digest(path)
        except OSError as error:
            self.refuse("file", f"cannot be read: {path}: {error.strerror}")

    def incompatibility(self, data: Dataset) -> str | None:
        columns = self._columns()
        missing = [name for name in (CLEAN, self.column) if name not in columns]
        if missing:
            known = ", ".join(columns) or "none"
            self.refuse(
                "column", f"must be in {self.file}, which lacks {missing[0]}: it has {known}"
            )
        labels, clean, human = data.split("train").labels, columns[CLEAN], columns[self.column]
        if not len(labels) == len(clean) == len(human):
            return (
                f"must have as many training images as {self.file} has labels, "
                f"{len(clean)} clean and {len(human)} {self.column}, got {len(labels)}"
            )
        if not torch.equal(labels, clean):
            first = int((labels != clean).nonzero()[0])
            return (
                f"must have the clean labels of {self.file} in the same order; "
                f"{int((labels != clean).sum())} differ, first that of image {first}: "
                f"{int(labels[first])}, where the file has {int(clean[first])}"
            )
        if human.min() < 0 or human.max() >= data.classes:
            return (
                f"must have classes for all labels of {self.column}, "
                f"{int(human.min())} to {int(human.max())}, got {data.classes} classes"
            )
        return super().incompatibility(data)

    def _columns(self) -> dict[str, Tensor]:
        try:
            return _read_once(self.file, self.content())
        except WeightsError as error:
            self.refuse("file", f"cannot be used: {error}")

    def labels(
        self, labels: Tensor, data: Dataset, severity: float, generator: Generator
    ) -> Tensor:
        human = self._columns()[self.column]
        wrong = (human != labels).nonzero()[:, 0]
        order = wrong[torch.randperm(len(wrong), generator=generator)]
        return make_wrong(labels, order, human, round(severity * len(wrong)))


@functools.lru_cache(maxsize=4)
def _read_once(file: str, content: str) -> dict[str, Tensor]:
    """content: the digest of the file, so that a file that has changed is read again."""
    return load_columns(Path(file))


@gin.register
@dataclass(frozen=True)
class RaterNoise(WrongLabels):
    """The label of a single rater in place of that of all raters together.

    Every training example gets one of its raters; those who gave no label are not asked. The
    severity is the share of the wrong labels among theirs that is applied, round(severity * wrong)
    of them, drawn from all: 0 is the clean labels, 1 is those of single raters.

    pick: 'random' is any rater, another one in every repeat. 'worst' is one who is wrong, wherever
        there is one, as the worse_label of CIFAR-10N.
    """

    pick: Literal["random", "worst"] = "random"

    @property
    def axis(self) -> str:
        return f"wrong labels of single raters that are applied (share, {self.pick} rater)"

    def incompatibility(self, data: Dataset) -> str | None:
        if data.rater_labels() is None:
            return (
                "must have the labels of single raters for RaterNoise, as VaderReviews has, "
                f"got {type(data).__name__}"
            )
        return super().incompatibility(data)

    def labels(
        self, labels: Tensor, data: Dataset, severity: float, generator: Generator
    ) -> Tensor:
        given = data.rater_labels()
        assert given is not None, "as incompatibility says"
        priority = torch.rand(given.shape, generator=generator)
        if self.pick == "worst":
            priority += given != labels[:, None]
        priority[given < 0] = -1
        human = given.gather(1, priority.argmax(1, keepdim=True))[:, 0]
        wrong = ((human != labels) & (human >= 0)).nonzero()[:, 0]
        order = wrong[torch.randperm(len(wrong), generator=generator)]
        return make_wrong(labels, order, human, round(severity * len(wrong)))
