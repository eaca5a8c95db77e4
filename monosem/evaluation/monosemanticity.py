"""TODO."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monosem.core.device import device
from monosem.core.fields import FieldError
from monosem.core.stage import Artifact, Job, Stage, StageError
from monosem.evaluation.curves import Measurement, Result
from monosem.metrics.base import FeatureBatch, Metric, MetricResult, PerDimension
from monosem.metrics.factors import TRUTH, FactorInformation
from monosem.models.features import Features
from monosem.models.representation import Representation
from monosem.results.stats import rank_correlation


@dataclass(frozen=True, kw_only=True)
class Monosemanticity(Measurement):
    """How monosemantic a representation is on the clean test split. Where the factors that made the images are known, also how well
    each measure of dimensions tracks what is known: Spearman's rank correlation over dimensions with their mutual information gap.

    judge: what says how alike images are. Artifact, float64: name, a number; and name/dimensions, name/said, both (d,), for what is
    measured dimension by dimension: the numbers, and for which dimensions they count.
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

    def names(self) -> tuple[str, ...]:
        """What its metrics find."""
        return found_by(self.metrics, self.encoder.width, tuple(self.data.split("test").factors))

    @property
    def better(self) -> dict[str, str]:
        """Of what is found dimension by dimension, whether high or low is monosemantic."""
        return better_of(self.metrics)

    @property
    def about(self) -> dict[str, str]:
        """Of the same, the first paragraph that the metric says of itself."""
        valid = {
            metric: " ".join((metric.__doc__ or "").partition("\n\n")[0].split())
            for metric in self.metrics
        }
        return {name: valid[metric] for metric in self.metrics for name in metric.better}

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
        seen = FeatureBatch(
            features,
            labels.to(where),
            reference_features,
            {name: levels.to(where) for name, levels in factors.items()},
        )
        artifact: Artifact = {}
        try:
            found = findings(self.metrics, seen)
        except ValueError as error:
            raise StageError(f"Experiment.metrics {error}") from None
        for name, value in found.items():
            if isinstance(value, PerDimension):
                artifact |= {
                    f"{name}/dimensions": value.values.clone(),
                    f"{name}/said": value.valid.clone(),
                }  # files hold no tensor twice
            artifact[name] = torch.tensor(
                value.mean if isinstance(value, PerDimension) else value, dtype=torch.float64
            )
        return artifact

    def results(self, artifact: Artifact) -> Iterator[Result]:
        n = len(self.data.split("test").labels)
        for name, value in artifact.items():
            if value.ndim == 0:
                yield Result(0.0, 0, name, value.item(), n)


def findings(metrics: tuple[Metric, ...], seen: FeatureBatch) -> dict[str, MetricResult]:
    """What all metrics find. ValueError where two give one name to what they find, or something is no number."""
    values: dict[str, MetricResult] = {}
    better = better_of(metrics)
    for metric in metrics:
        for name, value in _found(metric, seen).items():
            if name in values:
                raise ValueError(
                    f"must find each thing once, got {name} twice, the second time from {metric}"
                )
            if not isinstance(value, int | float | PerDimension):
                raise ValueError(f"must find numbers, got {value!r} as {name} from {metric}")
            width = seen.features.shape[1]
            if isinstance(value, PerDimension) and any(
                not isinstance(each, Tensor) or each.shape != (width,) for each in value
            ):
                valid = f"must find a number for each of {width} dimensions, as two tensors, got"
                raise ValueError(f"{valid} {value!r} as {name} from {metric}".replace("\n", " "))
            if not math.isfinite(value.mean if isinstance(value, PerDimension) else value):
                raise ValueError(f"must find finite numbers, got {name} that is none from {metric}")
            values[name] = value
    if isinstance(truth := values.get(TRUTH), PerDimension):
        for name, value in [*values.items()]:
            if (
                isinstance(value, PerDimension)
                and name in better
                and name not in FactorInformation.better
            ):
                values[f"{name}_tracks_gap"] = tracking(value, truth, better[name])
    return values


def better_of(metrics: tuple[Metric, ...]) -> dict[str, str]:
    """Of what metrics find dimension by dimension, whether high or low is monosemantic."""
    return {name: word for metric in metrics for name, word in metric.better.items()}


@functools.cache
def found_by(metrics: tuple[Metric, ...], width: int, factors: tuple[str, ...]) -> tuple[str, ...]:
    """What metrics find, as they find it in a made-up sample of so many features; a sweep asks of every cell."""
    n = 12
    levels = dict.fromkeys(factors, torch.arange(n) % 2)
    return tuple(
        findings(
            metrics, FeatureBatch(torch.eye(n, width), torch.arange(n) % 3, torch.eye(n), levels)
        )
    )


def _found(metric: Metric, seen: FeatureBatch) -> dict[str, MetricResult]:
    """What a metric finds, or ValueError: it may be anybody's code."""
    try:
        found: dict[Any, MetricResult] = dict(metric(seen))
        if odd := [name for name in found if type(name) is not str]:
            raise TypeError(f"what it finds must be called by strings, got {odd[0]!r}")
    except Exception as error:
        size = " x ".join(map(str, seen.features.shape))
        raise ValueError(
            f"must measure {size} features, but {type(metric).__name__} failed: {type(error).__name__}: {error}"
        ) from error
    return found


def tracking(measure: PerDimension, truth: PerDimension, better: str) -> float:
    """The rank correlation of the two over the dimensions that both speak of, in [-1, 1], 1 where they agree on which is more
    monosemantic; 0 where there is nothing to tell, as of one dimension or of many that do not differ."""
    both = measure.valid & truth.valid
    found = (
        float(
            rank_correlation(measure.values[both].cpu().numpy(), truth.values[both].cpu().numpy())
        )
        if both.any()
        else math.nan
    )
    return 0.0 if math.isnan(found) else found if better == "high" else -found
