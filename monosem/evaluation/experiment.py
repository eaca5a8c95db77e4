"""An experiment: curves under one name, the monosemanticity of whatever they are about, and the
gallery of it. It names the stages that are to be computed and makes the table of what they left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import gin

from monosem.core.fields import Count, Label, Part, Range, parts_in
from monosem.core.stage import Artifact, Stage, closure
from monosem.data.dataset import Dataset
from monosem.data.images import ImageDataset
from monosem.evaluation.dashboard import FeatureDashboard
from monosem.evaluation.monosemanticity import Monosemanticity
from monosem.evaluation.occlusion import Occlusion
from monosem.evaluation.reconstruction import Reconstruction
from monosem.learning.optimizers import Schedule
from monosem.metrics import ALL_METRICS
from monosem.metrics.base import Metric
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.baselines import Pixels
from monosem.models.checkpoint import Latents
from monosem.models.representation import Representation
from monosem.models.training import Training
from monosem.results.rows import MONOSEMANTICITY, Row, Swept
from monosem.robustness.measurement import Measurement, Panel, Series


@gin.register
@dataclass(frozen=True, kw_only=True)
class Gallery(Part):
    """How dimensions are shown by the examples that activate them most.

    by: the result that sorts them, the most monosemantic first. None takes the first result of
        Experiment.metrics that says which end is monosemantic.
    images: how many examples of each dimension are shown.
    rows: of gallery.png: so many of the most monosemantic dimensions, and as many of the least.
    dimensions: in gallery.html at most, half of them from either end.
    marked: of the examples of each dimension, in how many, the most activating ones, the words that
        matter are marked. Only where examples have parts, as texts have.
    """

    by: str | None = None
    images: Annotated[int, Range(1, 100)] = 12
    rows: Annotated[int, Range(1, 50)] = 8
    dimensions: Count = 256
    marked: Count = 3


@gin.register
@dataclass(frozen=True, kw_only=True)
class Experiment(Part):
    """Curves under one name, and the monosemanticity of every representation among them.

    name: of the folder under runs/ and of the lines in TensorBoard.
    curves: a curve is called by its Gin scope.
    metrics: measured for every representation that some curve is about. A metric that declares
        nothing for the data is left out, for example where no factors are known. () measures none.
    reference_encoder: tells the metrics that need it how alike examples are. None takes the pixels
        of images; other data have no default.
    gallery: how the examples that activate dimensions most are shown; None shows none.
    """

    name: Label
    curves: tuple[Panel, ...]
    metrics: tuple[Metric, ...] = ALL_METRICS
    reference_encoder: Representation | None = None
    gallery: Gallery | None = Gallery()

    def validate(self) -> None:
        self.refuse_no_folder_name("name")
        self._check_curves()
        self._check_reference_encoder()

    def _check_curves(self) -> None:
        if not self.curves:
            self.refuse("curves", "must hold at least one curve, got ()")
        names = [curve.name for curve in self.curves]
        if not all(names):
            self.refuse("curves", "must have names: a scope in Gin, or Curve.name")
        if len(set(names)) < len(names):
            self.refuse("curves", f"must have different names, got {', '.join(names)}")

    def _check_reference_encoder(self) -> None:
        if self.reference_encoder is not None or not self.metrics:
            return
        for curve in self._of_representations:
            if not isinstance(curve.data, ImageDataset):
                kind = type(curve.data).__name__
                self.refuse(
                    "reference_encoder",
                    f"must be set: its default, the pixels, is for images, not for {kind}",
                )

    def preflight(self) -> None:
        """Check what cannot be checked without the data."""
        by = None if self.gallery is None else self.gallery.by
        if self.gallery is None or by is None:
            return
        if not self.metrics:
            self.gallery.refuse("by", f"must be None where Experiment.metrics is (), got {by!r}")
        for stage in self.monosemanticity:
            sortable = list(stage.better)
            if by not in sortable:
                allowed = f"must be one of {', '.join(sortable)}"
                if not sortable:
                    allowed = "must be None where no metric is of dimensions"
                self.gallery.refuse("by", f"{allowed}, got {by!r}")

    @property
    def _of_representations(self) -> list[Series]:
        """The curves that are about a representation; a language model is none."""
        return [curve for curve in self.curves if isinstance(curve, Series)]

    @property
    def representations(self) -> dict[str, tuple[Representation, Dataset]]:
        """Every representation that some curve is about, and its data, once.

        By the name of its first curve; by '' where there is one alone.
        """
        first_curve: dict[tuple[Representation, Dataset], str] = {}
        for curve in self._of_representations:
            first_curve.setdefault((curve.encoder, curve.data), curve.name)
        alone = len(first_curve) == 1
        return {"" if alone else name: pair for pair, name in first_curve.items()}

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """What its curves and its trainings are about, each once."""
        stages = [stage for stage in closure(self.stages) if isinstance(stage, Training | Series)]
        return tuple(dict.fromkeys(stage.data for stage in stages))

    @property
    def cautions(self) -> tuple[str, ...]:
        """What is allowed and hardly meant, or makes a number say little.

        A warm-up that a training never leaves; a result that cannot reach its best value.
        """
        cautions: list[str] = []
        for stage in self.monosemanticity:
            labels = stage.data.split("test").labels
            for metric in stage.metrics:
                cautions += metric.cautions(labels)
        for part in parts_in(self):
            schedule, epochs = getattr(part, "schedule", None), getattr(part, "epochs", None)
            if not isinstance(schedule, Schedule) or not isinstance(epochs, int):
                continue
            if caution := schedule.caution(epochs):
                cautions.append(f"{type(part).__name__}: {caution}")
        return tuple(dict.fromkeys(cautions))

    @property
    def monosemanticity(self) -> tuple[Monosemanticity, ...]:
        """A stage for each of the representations, in their order; none without metrics."""
        if not self.metrics:
            return ()
        return tuple(
            Monosemanticity(
                name=f"{MONOSEMANTICITY}/{name}" if name else MONOSEMANTICITY,
                encoder=encoder,
                data=data,
                metrics=self.metrics,
                reference_encoder=self._reference_encoder_for(data),
            )
            for name, (encoder, data) in self.representations.items()
        )

    def _reference_encoder_for(self, data: Dataset) -> Representation:
        if self.reference_encoder is not None:
            return self.reference_encoder
        assert isinstance(data, ImageDataset), "refused when the experiment was made"
        return Pixels(data)

    @property
    def reconstructions(self) -> tuple[Reconstruction, ...]:
        """A stage for each of the representations that is the latents of an autoencoder."""
        return tuple(
            Reconstruction(
                name=f"{MONOSEMANTICITY}/{name}" if name else MONOSEMANTICITY,
                encoder=encoder,
                data=data,
            )
            for name, (encoder, data) in self.representations.items()
            if isinstance(encoder, SparseAutoencoder | Latents)
        )

    @property
    def shown(self) -> dict[str, tuple[Representation, Dataset]]:
        """The representations that the gallery shows: all or none."""
        return {} if self.gallery is None else self.representations

    @property
    def dashboards(self) -> tuple[FeatureDashboard, ...]:
        """A stage for each of the representations that are shown, in their order."""
        if self.gallery is None:
            return ()
        return tuple(
            FeatureDashboard(encoder=encoder, data=data, examples=self.gallery.images)
            for encoder, data in self.representations.values()
        )

    @property
    def occlusions(self) -> tuple[Occlusion | None, ...]:
        """A stage for each of the representations that are shown.

        None where its examples have no parts, or no metric says which dimensions are looked at.
        """
        if self.gallery is None:
            return ()
        if not self.metrics:
            return (None,) * len(self.dashboards)
        return tuple(
            Occlusion(
                dashboard=dashboard,
                monosemanticity=monosemanticity,
                by=self.sorted_by(monosemanticity),
                dimensions=self.gallery.dimensions,
                examples=self.gallery.marked,
            )
            if dashboard.data.pieces
            else None
            for dashboard, monosemanticity in zip(
                self.dashboards, self.monosemanticity, strict=True
            )
        )

    def sorted_by(self, monosemanticity: Monosemanticity) -> str:
        """The result that dimensions are sorted by; '' where none says which end is better."""
        by = None if self.gallery is None else self.gallery.by
        return by or next(iter(monosemanticity.better), "")

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """The stages that the table is made of."""
        return (*self.curves, *self.monosemanticity, *self.reconstructions)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages whose artifacts are wanted. Stages upstream of them are computed as well."""
        return (*self.measurements, *self.dashboards, *filter(None, self.occlusions))

    def rows(self, get: Callable[[Stage], Artifact], swept: Swept = ()) -> list[Row]:
        """The table. A number in it is one `Result` of one measurement, read from its artifact.

        get: the artifact of a finished stage, as of `Store.get`.
        swept: what a sweep varied, noted in every row.
        """
        rows = []
        for measurement in self.measurements:
            for result in measurement.results(get(measurement)):
                row = Row(
                    experiment=self.name,
                    curve=measurement.name,
                    severity=result.severity,
                    repeat=result.repeat,
                    metric=result.metric,
                    value=result.value,
                    n=result.n,
                    axis=measurement.axis,
                    point=result.point,
                    noun=measurement.noun,
                    swept=swept,
                )
                rows.append(row)
        return rows
