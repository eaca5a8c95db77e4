"""MNIST-C in the files that its authors published."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gin
import numpy as np
import torch

from monosem.core.fields import Count, Positive
from monosem.data.dataset import Dataset
from monosem.datasets.mnist import SIDE, Side, fit
from monosem.shifts.base import PublishedSets, ShiftPoint, refuse_repeated
from monosem.shifts.blocks import ArrayBlock

MNISTCorruption = Literal[
    "identity", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "shear", "scale",
    "rotate", "brightness", "translate", "stripe", "fog", "spatter", "dotted_line", "zigzag",
    "canny_edges",
]  # fmt: skip
PUBLISHED_AS_HARD: tuple[MNISTCorruption, ...] = (
    "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "shear", "scale", "rotate",
    "brightness", "translate", "stripe", "fog", "spatter", "dotted_line", "zigzag", "canny_edges",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MNISTBlock(ArrayBlock):
    """Images of 28 x 28 grey pixels, which are cropped and fitted as those of MNIST are.

    crop: as of MNIST.
    size: as of MNIST.
    """

    side: ClassVar[int] = SIDE

    crop: Side
    size: Count
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Positive, ...] = (1.0,)

    @property
    def options(self) -> tuple[object, ...]:
        return self.crop, self.size

    def arranged(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
        return fit(images, self.crop, self.size).numpy()


@gin.register
@dataclass(frozen=True, kw_only=True)
class MNISTC(PublishedSets):
    """The test images of MNIST under 15 corruptions of one severity (Mu and Gilmer 2019).

    <corruption>/test_images.npy has (10000, 28, 28, 1) uint8, <corruption>/test_labels.npy their
    labels.

    folder: holds the folders of the corruptions; called mnist_c as it is published.
    corruptions: their published names; without others all but `identity`.
    crop: as of MNIST. Must be that of the probe's data.
    size: as of MNIST. Must be that of the probe's data.
    packs: where the arrays are kept that are read later; None is `packed` in the folder.
    """

    published: ClassVar[str] = "https://zenodo.org/records/3239543"

    corruptions: tuple[MNISTCorruption, ...] = PUBLISHED_AS_HARD
    crop: Side = SIDE
    size: Count = 32

    def validate(self) -> None:
        refuse_repeated(self, "corruptions")

    @property
    def names(self) -> tuple[tuple[str, float], ...]:
        return tuple((name, 0.0) for name in self.corruptions)

    def points(self, like: Dataset) -> tuple[ShiftPoint, ...]:
        block = functools.partial(
            MNISTBlock,
            folder=self.folder,
            member_of=type(self).__name__,
            published=self.published,
            names=tuple(map(str, range(10))),
            crop=self.crop,
            size=self.size,
            packs=self.packs,
        )
        return tuple(
            ShiftPoint(
                name,
                0.0,
                block(images=f"{name}/test_images.npy", labels=f"{name}/test_labels.npy"),
            )
            for name in self.corruptions
        )
