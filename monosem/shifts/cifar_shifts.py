"""CIFAR-10-C, CIFAR-100-C and CIFAR-10.1 in the files that their authors published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import gin

from monosem.data.dataset import Dataset
from monosem.shifts.base import PublishedSets, ShiftPoint
from monosem.shifts.blocks import ArrayBlock
from monosem.shifts.commonly_corrupted import CommonlyCorrupted

CIFAR10_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAR100_NAMES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup",
    "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house",
    "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man",
    "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid",
    "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy",
    "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal",
    "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar",
    "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman",
    "worm",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CorruptedCIFAR(CommonlyCorrupted):
    """The test images of CIFAR under common corruptions (Hendrycks and Dietterich 2019).

    <corruption>.npy has the five severities one after the other, (50000, 32, 32, 3) uint8 in all,
    and labels.npy the labels of all of them.

    folder: holds the files.
    corruptions: their published names; the 15 of the paper, of 19 that are published.
    severities: from 1 to 5.
    packs: where the arrays are kept that are read later; None is `packed` in the folder.
    """

    class_labels: ClassVar[tuple[str, ...]]

    def points(self, like: Dataset) -> tuple[ShiftPoint, ...]:
        return tuple(
            ShiftPoint(name, severity, self._block(name, int(severity)))
            for name, severity in self.names
        )

    def _block(self, corruption: str, severity: int) -> ArrayBlock:
        return ArrayBlock(
            folder=self.folder,
            member_of=type(self).__name__,
            published=self.published,
            images=f"{corruption}.npy",
            labels="labels.npy",
            parts=5,
            part=severity,
            names=self.class_labels,
            packs=self.packs,
        )


@gin.register
@dataclass(frozen=True, kw_only=True)
class CIFAR10C(CorruptedCIFAR):
    """CIFAR-10-C: as CorruptedCIFAR."""

    class_labels: ClassVar[tuple[str, ...]] = CIFAR10_NAMES
    published: ClassVar[str] = "https://zenodo.org/records/2535967"


@gin.register
@dataclass(frozen=True, kw_only=True)
class CIFAR100C(CorruptedCIFAR):
    """CIFAR-100-C: as CorruptedCIFAR, with the 100 fine classes."""

    class_labels: ClassVar[tuple[str, ...]] = CIFAR100_NAMES
    published: ClassVar[str] = "https://zenodo.org/records/3555552"


@gin.register
@dataclass(frozen=True, kw_only=True)
class CIFAR101(PublishedSets):
    """CIFAR-10.1, version 6: 2,000 new images in the classes of CIFAR-10 (Recht et al. 2018).

    folder: holds cifar10.1_v6_data.npy, (2000, 32, 32, 3) uint8, and cifar10.1_v6_labels.npy.
    packs: as of CorruptedCIFAR.
    """

    published: ClassVar[str] = "https://github.com/modestyachts/CIFAR-10.1"

    @property
    def names(self) -> tuple[tuple[str, float], ...]:
        return (("cifar10.1", 0.0),)

    def points(self, like: Dataset) -> tuple[ShiftPoint, ...]:
        block = ArrayBlock(
            folder=self.folder,
            member_of=type(self).__name__,
            published=self.published,
            images="cifar10.1_v6_data.npy",
            labels="cifar10.1_v6_labels.npy",
            names=CIFAR10_NAMES,
            packs=self.packs,
        )
        return (ShiftPoint("cifar10.1", 0.0, block),)
