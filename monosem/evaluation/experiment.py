"""TODO."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import gin

from monosem.core.fields import Count, Label, Part, Range
from monosem.core.stage import Stage
from monosem.data.dataset import Dataset
from monosem.evaluation.curves import Measurement, SeverityCurve
from monosem.evaluation.dashboard import FeatureDashboard
from monosem.evaluation.monosemanticity import Monosemanticity
from monosem.metrics.base import Metric
from monosem.models.baselines import Pixels
from monosem.models.representation import Representation
from monosem.results.rows import MONOSEMANTICITY


@gin.register
@dataclass(frozen=True, kw_only=True)
class Gallery(Part):
    """How dimensions are shown by the images that activate them most.

    by: the measure that sorts them, the most monosemantic first; None takes the first of Experiment.metrics that says which way that is.
    images: shown of each dimension. rows: of gallery.png, so many of the most monosemantic dimensions and as many of the least.
    dimensions: in gallery.html at most, half of them the most monosemantic ones and half the least.
    """

    by: str | None = None
    images: Annotated[int, Range(1, 100)] = 12
    rows: Annotated[int, Range(1, 50)] = 8
    dimensions: Count = 256


@gin.register
@dataclass(frozen=True, kw_only=True)
class Experiment(Part):
    """One experiment: curves under one name, and the monosemanticity of every representation among them.

    name: of the folder under runs/ and of the lines in TensorBoard. curves: a curve is called by its Gin scope.
    metrics: measured for every representation that a curve probes. judge: what says for them how alike images are; None leaves it to
    their pixels. gallery: how the images that activate dimensions most are shown.
    """

    name: Label
    curves: tuple[SeverityCurve, ...]
    metrics: tuple[Metric, ...]
    reference_encoder: Representation | None = None
    gallery: Gallery = Gallery()

    def validate(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", self.name):
            self.refuse(
                "name", f"must be a folder's name of letters, digits and . _ + -, got {self.name!r}"
            )
        if not self.curves:
            self.refuse("curves", "must hold at least one curve, got ()")
        if not self.metrics:
            self.refuse(
                "metrics",
                "must hold at least one metric: monosemanticity is measured beside every accuracy, got ()",
            )
        names = [curve.name for curve in self.curves]
        if not all(names):
            self.refuse("curves", "must have names: a scope in Gin, or Curve.name")
        if len(set(names)) < len(names):
            self.refuse("curves", f"must have different names, got {', '.join(names)}")

    def preflight(self) -> None:
        """Refuse what only the data can tell to be wrong."""
        for measure in self.measures:
            known = [name for name in measure.names() if name in measure.better]
            if self.gallery.by is not None and self.gallery.by not in known:
                words = (
                    f"must be one of {', '.join(known)}"
                    if known
                    else "must be None where no metric is of dimensions"
                )
                self.gallery.refuse("by", f"{words}, got {self.gallery.by!r}")

    @property
    def probed(self) -> dict[str, tuple[Representation, Dataset]]:
        """Every representation and data that some curve is about; by name where there is more than one, that of its first curve."""
        found: dict[tuple[Representation, Dataset], str] = {}
        for curve in self.curves:
            found.setdefault((curve.encoder, curve.data), curve.name)
        return {name if len(found) > 1 else "": what for what, name in found.items()}

    @property
    def measures(self) -> tuple[Monosemanticity, ...]:
        return tuple(
            Monosemanticity(
                name=f"{MONOSEMANTICITY}/{name}" if name else MONOSEMANTICITY,
                encoder=encoder, data=data, metrics=self.metrics, reference_encoder=self.reference_encoder or Pixels(data),
            )
            for name, (encoder, data) in self.probed.items()
        )  # fmt: skip

    @property
    def dashboards(self) -> tuple[FeatureDashboard, ...]:
        """One for each measurement of monosemanticity, in that order."""
        return tuple(
            FeatureDashboard(encoder=encoder, data=data, images=self.gallery.images)
            for encoder, data in self.probed.values()
        )

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """What the table is made of."""
        return (*self.curves, *self.measures)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (*self.measurements, *self.dashboards)
