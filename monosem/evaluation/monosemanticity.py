"""The stage that measures how monosemantic a representation is, by metrics that it is given."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from monosem.core.device import device
from monosem.core.fields import FieldError
from monosem.core.stage import Artifact, Job, Stage, StageError
from monosem.metrics.base import (
    Declaration,
    FeatureBatch,
    Metric,
    MetricResult,
    PerDimension,
    declared,
    from_artifact,
    measure,
    numbers_from_artifact,
    to_artifact,
)
from monosem.metrics.factors import GROUND_TRUTH
from monosem.models.features import Features
from monosem.models.representation import Representation
from monosem.results.stats import rank_correlation
from monosem.robustness.measurement import CleanTestMeasurement, Result


@dataclass(frozen=True, kw_only=True)
class Monosemanticity(CleanTestMeasurement):
    """How monosemantic a representation is on the clean test split.

    Where the factors that made the examples are known, it also says how well each metric tracks
    them: Spearman's rank correlation over dimensions with their mutual information gap.

    encoder: the representation that is measured.
    data: what it is measured on.
    metrics: what is measured; a metric that declares nothing for the data is left out.
    reference_encoder: tells the metrics that need it how alike examples are.

    Artifact: the results as `metrics.base.to_artifact` lays them out.
    """

    VERSION = 4
    encoder: Representation
    metrics: tuple[Metric, ...]
    reference_encoder: Representation

    def upstream(self) -> tuple[Stage, ...]:
        return (
            Features(self.encoder, self.data, "test"),
            Features(self.reference_encoder, self.data, "test"),
        )

    @property
    def declarations(self) -> tuple[Declaration, ...]:
        """What the table will have. ValueError where metrics contradict one another."""
        own = declared(self.metrics, self._factors())
        agreement = [Declaration(tracking_name(name)) for name in tracked(own)]
        return (*own, *agreement)

    def names(self) -> tuple[str, ...]:
        """The names of all results."""
        return tuple(declaration.name for declaration in self.declarations)

    @property
    def better(self) -> dict[str, str]:
        """Which end is monosemantic, 'high' or 'low', of the results that say so."""
        return {result.name: result.better for result in self.declarations if result.better}

    @property
    def about(self) -> dict[str, str]:
        """What each result is: the first paragraph that its metric says of itself."""
        texts: dict[str, str] = {}
        for metric in self.metrics:
            paragraph = (metric.__doc__ or "").partition("\n\n")[0]
            for declaration in metric.declares(self._factors()):
                texts[declaration.name] = " ".join(paragraph.split())
        return texts

    def preflight(self) -> None:
        # Both in the words that were typed: nobody types this stage.
        if mismatch := self.reference_encoder.incompatibility(self.data):
            reason = f"must take the inputs of the data, which {mismatch}"
            raise FieldError("Experiment", "reference_encoder", self.reference_encoder, reason)
        try:
            self.names()
        except ValueError as error:
            raise FieldError("Experiment", "metrics", self.metrics, str(error)) from None

    def run(self, job: Job) -> Artifact:
        own, reference = self.upstream()
        features = job.get(own)["features"].to(device())
        reference_features = job.get(reference)["features"].to(device())
        _, labels, factors = self.data.split("test")
        on = features.device
        levels = {name: factor.to(on) for name, factor in factors.items()}
        batch = FeatureBatch(features, labels.to(on), reference_features, levels)
        try:
            results = measure(self.metrics, batch)
        except ValueError as error:
            raise StageError(f"Experiment.metrics {error}") from None
        return to_artifact(results | tracking_results(results, self.declarations))

    def results(self, artifact: Artifact) -> Iterator[Result]:
        n = len(self.data.split("test").labels)
        for name, number in numbers_from_artifact(artifact).items():
            yield Result(0.0, 0, name, number, n)

    def remarks(self, artifact: Artifact) -> Iterator[str]:
        labels = self.data.split("test").labels
        for metric in self.metrics:
            yield from metric.cautions(labels)

    def _factors(self) -> tuple[str, ...]:
        return tuple(self.data.split("test").factors)


def tracking_name(name: str) -> str:
    """What the agreement of a result with the known factors is called in tables."""
    return f"{name}_tracks_gap"


def tracked(declarations: Sequence[Declaration]) -> dict[str, str]:
    """The names that are compared with the known factors, and which end of each is monosemantic.

    Empty where no factors are known, or FactorInformation is not among the metrics.
    """
    if GROUND_TRUTH not in (declaration.name for declaration in declarations):
        return {}
    return {
        declaration.name: declaration.better
        for declaration in declarations
        if declaration.better and not declaration.from_factors
    }


def tracking_results(
    results: Mapping[str, MetricResult], declarations: Sequence[Declaration]
) -> dict[str, MetricResult]:
    """How well each result per dimension tracks the known factors, by `tracking_name`."""
    correlations: dict[str, MetricResult] = {}
    for name, better in tracked(declarations).items():
        result, truth = results[name], results[GROUND_TRUTH]
        assert isinstance(result, PerDimension)
        assert isinstance(truth, PerDimension)
        correlations[tracking_name(name)] = tracking(result, truth, better)
    return correlations


def tracking(result: PerDimension, truth: PerDimension, better: str) -> float:
    """Spearman's rank correlation of two results over the dimensions that are valid in both.

    better: which end of the result is monosemantic, 'high' or 'low'; high is, of the truth.
    Returns a number in [-1, 1], 1 where they agree on which dimensions are more monosemantic; 0
    where there is nothing to rank, for example one dimension, or several with equal values.
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


# Which dimensions are looked at


def per_dimension_results(artifact: Artifact) -> dict[str, PerDimension]:
    """What a stage of monosemanticity left, without the results of a whole representation."""
    results = from_artifact(artifact).items()
    return {name: result for name, result in results if isinstance(result, PerDimension)}


def sorted_dimensions(
    active: Tensor, results: dict[str, PerDimension], better: dict[str, str], by: str
) -> list[int]:
    """The most monosemantic dimension first; of equal ones, the one that more examples activate.

    active: (d,) share of the examples that activate a dimension.
    by: a result; '' sorts by activity.
    """
    values, valid = results[by] if by else (active, active > 0)
    sign = 1 if better.get(by) == "low" else -1
    dimensions = valid.nonzero().flatten().tolist()
    return sorted(dimensions, key=lambda d: (sign * float(values[d]), -float(active[d])))


def both_ends(order: Sequence[int], count: int) -> tuple[list[int], list[int]]:
    """At most `count` of them, half from either end; the first half is the larger."""
    count = min(count, len(order))
    first = -(-count // 2)
    return list(order[:first]), list(order[len(order) - (count - first) :])
