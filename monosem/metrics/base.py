"""What a metric is, what it sees and gives back, and how results are checked and stored.

No metric in particular is known here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from monosem.core.fields import Part

CHUNK = 2048  # rows or columns at a time, which bounds memory


class FeatureBatch(NamedTuple):
    """What a metric sees of n examples.

    features: (n, d) float, of the representation that is measured.
    labels: (n,) int64, classes from 0 on.
    reference_features: (n, e) float, of the same examples by a reference encoder that had no part
        in the features.
    factors: (n,) int64 by name, the level of every factor that made the examples; empty where
        nobody knows them.
    """

    features: Tensor
    labels: Tensor
    reference_features: Tensor
    factors: Mapping[str, Tensor] = MappingProxyType({})


class PerDimension(NamedTuple):
    """A result that has one number for each dimension.

    values: (d,) float64; 0 where a dimension has no value.
    valid: (d,) bool, the dimensions that have a value.
    """

    values: Tensor
    valid: Tensor

    @property
    def mean(self) -> float:
        """Over the valid dimensions; 0 where there are none."""
        return mean_or_zero(self.values[self.valid])


MetricResult = float | PerDimension


class Declaration(NamedTuple):
    """One result that a metric announces.

    name: in tables.
    per_dimension: whether the result is a PerDimension; else it is one number.
    better: which end is monosemantic, for results per dimension alone; '' is neither. The
        gallery can sort dimensions by a result that has one.
    from_factors: whether it is computed from the known factors. Such a result is not compared with
        them.
    """

    name: str
    per_dimension: bool = False
    better: Literal["high", "low", ""] = ""
    from_factors: bool = False


@dataclass(frozen=True)
class Metric(Part):
    """Something measured on the features of a split. A subclass has `declares` and `__call__`."""

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        """What a call gives back, in this order.

        factors: the names of the factors that are known for the data.
        """
        raise NotImplementedError("it has no method `declares` that names its results")

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        """The results by name: exactly what is declared for the factors of the batch."""
        raise NotImplementedError("it has no method `__call__` that measures")

    def cautions(self, labels: Tensor) -> Iterator[str]:
        """What a reader must know of its results on examples of these classes (n,), if anything."""
        yield from ()


def declared(metrics: Sequence[Metric], factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
    """What several metrics give together.

    Raises ValueError where two results share a name, or a metric cannot say what it finds.
    """
    declarations: dict[str, Declaration] = {}
    for metric in metrics:
        for declaration in _declarations_of(metric, factors):
            name = declaration.name
            if name in declarations:
                raise ValueError(
                    f"must find each thing once, got {name} twice, the second time from {metric}"
                )
            declarations[name] = declaration
    return tuple(declarations.values())


def measure(metrics: Sequence[Metric], batch: FeatureBatch) -> dict[str, MetricResult]:
    """The results of several metrics by name, in the order in which they are declared.

    Values are float64, and 0 where they are not valid, whatever a metric left there.

    Raises ValueError where a metric fails, or gives something else than it declares.
    """
    factors = tuple(batch.factors)
    declared(metrics, factors)  # refuses a name that stands twice
    results: dict[str, MetricResult] = {}
    for metric in metrics:
        declarations = _declarations_of(metric, factors)
        own_results = _call(metric, batch)
        _check_names(own_results, declarations, metric)
        for declaration in declarations:
            result = own_results[declaration.name]
            _check_result(result, declaration, metric, batch.features.shape[1])
            if isinstance(result, PerDimension):
                result = per_dimension(result.values, result.valid)
            results[declaration.name] = result
    return results


def as_number(result: MetricResult) -> float:
    """The number of a whole representation: a mean where the result is one per dimension."""
    return result.mean if isinstance(result, PerDimension) else result


def _declarations_of(metric: Metric, factors: Sequence[str]) -> tuple[Declaration, ...]:
    """What a metric declares, or ValueError: it may be anybody's code."""
    try:
        declarations = tuple(metric.declares(factors))
    except Exception as error:
        raise ValueError(
            f"must declare what they find, but {type(metric).__name__} failed: {_in_words(error)}"
        ) from error
    for declaration in declarations:
        if not isinstance(declaration, Declaration):
            raise ValueError(
                f"must declare what they find as Declaration, got {declaration!r} from {metric}"
            )
        if not isinstance(declaration.name, str):
            raise ValueError(
                f"must call what they find by strings, got {declaration.name!r} from {metric}"
            )
    return declarations


def _call(metric: Metric, batch: FeatureBatch) -> dict[str, MetricResult]:
    """What a metric gives back, or ValueError: it may be anybody's code."""
    try:
        return dict(metric(batch))
    except Exception as error:
        size = " x ".join(map(str, batch.features.shape))
        raise ValueError(
            f"must measure {size} features, but {type(metric).__name__} failed: {_in_words(error)}"
        ) from error


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")


def _check_names(
    results: Mapping[str, MetricResult], declarations: Sequence[Declaration], metric: Metric
) -> None:
    names = [declaration.name for declaration in declarations]
    if set(results) != set(names):
        raise ValueError(
            f"must find what they declare, got {_listed(results)} from {metric}, "
            f"which declares {_listed(names)}"
        )


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    return ", ".join(map(str, names)) or "nothing"


def _check_result(result: object, declaration: Declaration, metric: Metric, width: int) -> None:
    name = declaration.name
    if not isinstance(result, int | float | PerDimension):
        raise ValueError(f"must find numbers, got {_described(result)} as {name} from {metric}")
    if declaration.per_dimension or isinstance(result, PerDimension):
        if not _has_width(result, width):
            raise ValueError(
                f"must find a number for each of {width} dimensions, as two tensors, "
                f"got {_described(result)} as {name} from {metric}"
            )
        if not declaration.per_dimension:
            raise ValueError(
                f"must find what they declare, got {name} for each dimension from {metric}, "
                f"which declares one number"
            )
    if not math.isfinite(as_number(result)):
        raise ValueError(f"must find finite numbers, got {name} that is none from {metric}")


def _described(result: object) -> str:
    """A result for a message: of a tensor its type and shape, not its numbers."""
    if isinstance(result, Tensor):
        return f"{str(result.dtype).removeprefix('torch.')} {tuple(result.shape)}"
    if isinstance(result, PerDimension):
        fields = [f"{name}: {_described(value)}" for name, value in result._asdict().items()]
        return f"PerDimension({', '.join(fields)})"
    return repr(result).replace("\n", " ")


def _has_width(result: object, width: int) -> bool:
    """Whether it is a PerDimension of `width` dimensions."""
    if not isinstance(result, PerDimension):
        return False
    values: object = result.values  # whatever anybody's code left there
    valid: object = result.valid
    if not isinstance(values, Tensor) or not isinstance(valid, Tensor):
        return False
    return values.shape == (width,) and valid.shape == (width,) and valid.dtype == torch.bool


def to_artifact(results: Mapping[str, MetricResult]) -> dict[str, Tensor]:
    """Results as tensors by name.

    name                 ()     float64, the number of the whole representation
    name/dimensions      (d,)   float64, one a dimension; only of a PerDimension
    name/valid           (d,)   bool, which dimensions have a value; only of a PerDimension
    """
    artifact: dict[str, Tensor] = {}
    for name, result in results.items():
        if isinstance(result, PerDimension):
            # clones, as a file holds no tensor twice and a metric may give one `valid` to several
            artifact[f"{name}/dimensions"] = result.values.clone()
            artifact[f"{name}/valid"] = result.valid.clone()
        artifact[name] = torch.tensor(as_number(result), dtype=torch.float64)
    return artifact


def from_artifact(artifact: Mapping[str, Tensor]) -> dict[str, MetricResult]:
    """The results that `to_artifact` wrote."""
    results: dict[str, MetricResult] = {}
    for name, tensor in artifact.items():
        if tensor.ndim > 0:
            continue  # the part of a PerDimension
        if f"{name}/dimensions" in artifact:
            results[name] = PerDimension(artifact[f"{name}/dimensions"], artifact[f"{name}/valid"])
        else:
            results[name] = tensor.item()
    return results


def numbers_from_artifact(artifact: Mapping[str, Tensor]) -> dict[str, float]:
    """The numbers of the whole representation, as they were written.

    A mean that is taken again, on another machine, could differ in its last bit.
    """
    return {name: tensor.item() for name, tensor in artifact.items() if tensor.ndim == 0}


def per_dimension(values: Tensor, valid: Tensor) -> PerDimension:
    """(d,) values and (d,) bool -> a result whose invalid dimensions hold 0."""
    return PerDimension(torch.where(valid, values.double(), 0.0), valid)


def mean_or_zero(values: Tensor) -> float:
    """The mean in float64; 0 of no values."""
    return float(values.double().mean()) if values.numel() else 0.0


def live(features: Tensor) -> Tensor:
    """(n, d) -> (d,) bool: dimensions that are other than 0 on some example."""
    return features.abs().amax(0) > 0


def varying(features: Tensor) -> Tensor:
    """(n, d) -> (d,) bool: dimensions that differ between examples."""
    return features.amax(0) > features.amin(0)


def rows_of(n: int) -> Iterator[slice]:
    """The rows from 0 to n, `CHUNK` at a time."""
    return (slice(first, first + CHUNK) for first in range(0, n, CHUNK))
