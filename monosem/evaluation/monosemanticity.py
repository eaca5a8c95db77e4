"""TODO."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from monosem.core.device import device
from monosem.core.fields import FieldError
from monosem.core.stage import Artifact, Job, Stage, StageError
from monosem.evaluation.curves import Measurement, Result
from monosem.metrics.base import (
    Declaration,
    FeatureBatch,
    Metric,
    MetricResult,
    PerDimension,
    declared,
    measure,
    to_artifact,
)
from monosem.metrics.factors import GROUND_TRUTH, FactorInformation
from monosem.models.features import Features
from monosem.models.representation import Representation
from monosem.results.stats import rank_correlation


@dataclass(frozen=True, kw_only=True)
class Monosemanticity(Measurement):
    """How monosemantic a representation is on the clean test split. Where the factors that made the images are known, also how well
    each measure of dimensions tracks what is known: Spearman's rank correlation over dimensions with their mutual information gap.

    reference_encoder: says how alike images are.
    Artifact: see `monosem.metrics.base.to_artifact`.
    """

    VERSION = 3
    metrics: tuple[Metric, ...]
    reference_encoder: Representation

    @property
    def axis(self) -> str:
        return "clean test images"

    def upstream(self) -> tuple[Stage, ...]:
        return Features(self.encoder, self.data, "test"), Features(
            self.reference_encoder, self.data, "test"
        )

    @property
    def declarations(self) -> tuple[Declaration, ...]:
        """What its metrics find, and then how well that tracks the known factors."""
        factors = tuple(self.data.split("test").factors)
        declarations = declared(self.metrics, factors)
        tracking_names = [f"{name}_tracks_gap" for name in tracked(declarations)]
        return (*declarations, *map(Declaration, tracking_names))

    def names(self) -> tuple[str, ...]:
        """What its metrics find."""
        return tuple(declaration.name for declaration in self.declarations)

    @property
    def better(self) -> dict[str, str]:
        """Of what is found dimension by dimension, whether high or low is monosemantic."""
        return {
            declaration.name: declaration.better
            for declaration in self.declarations
            if declaration.better
        }

    @property
    def about(self) -> dict[str, str]:
        """Of the same, the first paragraph that the metric says of itself."""
        texts: dict[str, str] = {}
        for metric in self.metrics:
            paragraph = " ".join((metric.__doc__ or "").partition("\n\n")[0].split())
            for declaration in metric.declares(tuple(self.data.split("test").factors)):
                if declaration.better:
                    texts[declaration.name] = paragraph
        return texts

    def preflight(self) -> None:
        if mismatch := self.reference_encoder.incompatibility(self.data):
            reason = f"must take the inputs of the data, which {mismatch}"
            raise FieldError(
                "Experiment", "reference_encoder", self.reference_encoder, reason
            )  # in the words that were typed: nobody types this stage
        try:
            self.names()
        except ValueError as error:
            raise FieldError("Experiment", "metrics", self.metrics, str(error)) from None

    def run(self, job: Job) -> Artifact:
        features, reference_features = (
            job.get(stage)["features"].to(device()) for stage in self.upstream()
        )
        _, labels, factors = self.data.split("test")
        where = features.device
        batch = FeatureBatch(
            features,
            labels.to(where),
            reference_features,
            {name: levels.to(where) for name, levels in factors.items()},
        )
        try:
            results = measure(self.metrics, batch)
        except ValueError as error:
            raise StageError(f"Experiment.metrics {error}") from None
        return to_artifact({**results, **tracking_results(results, self.declarations)})

    def results(self, artifact: Artifact) -> Iterator[Result]:
        n = len(self.data.split("test").labels)
        for name, value in artifact.items():
            if value.ndim == 0:
                yield Result(0.0, 0, name, value.item(), n)


def tracked(declarations: Sequence[Declaration]) -> dict[str, str]:
    """The names that are compared with the known factors, and which end of each is monosemantic.

    Empty where no factors are known, or FactorInformation is not among the metrics.
    """
    better = {
        declaration.name: declaration.better for declaration in declarations if declaration.better
    }
    if GROUND_TRUTH not in better:
        return {}
    from_factors = {declaration.name for declaration in FactorInformation().declares(("any",))}
    return {name: end for name, end in better.items() if name not in from_factors}


def tracking_results(
    results: Mapping[str, MetricResult], declarations: Sequence[Declaration]
) -> dict[str, MetricResult]:
    """How well each result per dimension tracks the known factors, by `name_tracks_gap`."""
    correlations: dict[str, MetricResult] = {}
    for name, better in tracked(declarations).items():
        result, truth = results[name], results[GROUND_TRUTH]
        assert isinstance(result, PerDimension) and isinstance(truth, PerDimension)
        correlations[f"{name}_tracks_gap"] = tracking(result, truth, better)
    return correlations


def tracking(result: PerDimension, truth: PerDimension, better: str) -> float:
    """Spearman's rank correlation of two results over the dimensions that are valid in both.

    better: which end of the result is monosemantic, 'high' or 'low'; high is, of the truth.
    Returns a number in [-1, 1], 1 where they agree on which dimensions are more monosemantic; 0
    where there is nothing to rank, as of one dimension or of many that do not differ.
    """
    both = result.valid & truth.valid
    if not both.any():
        return 0.0
    correlation = float(
        rank_correlation(result.values[both].cpu().numpy(), truth.values[both].cpu().numpy())
    )
    if math.isnan(correlation):
        return 0.0
    return correlation if better == "high" else -correlation
