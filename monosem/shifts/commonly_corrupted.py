"""What published sets under the common corruptions share: names, severities, order of points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from monosem.shifts.base import PublishedSets, refuse_repeated
from monosem.shifts.blocks import Severity

CommonName = Literal[
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur",
    "zoom_blur", "snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate",
    "jpeg_compression", "speckle_noise", "gaussian_blur", "spatter", "saturate",
]  # fmt: skip
FIFTEEN: tuple[CommonName, ...] = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur",
    "zoom_blur", "snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate",
    "jpeg_compression",
)  # fmt: skip
SEVERITIES: tuple[Severity, ...] = (1, 2, 3, 4, 5)


@dataclass(frozen=True, kw_only=True)
class CommonlyCorrupted(PublishedSets):
    """A test set under common corruptions (Hendrycks and Dietterich 2019).

    corruptions: their published names; the 15 of the paper, of 19 that are published.
    severities: from 1 to 5.
    """

    corruptions: tuple[CommonName, ...] = FIFTEEN
    severities: tuple[Severity, ...] = SEVERITIES

    def validate(self) -> None:
        refuse_repeated(self, "corruptions", "severities")

    @property
    def names(self) -> tuple[tuple[str, float], ...]:
        return tuple((name, float(s)) for name in self.corruptions for s in self.severities)
