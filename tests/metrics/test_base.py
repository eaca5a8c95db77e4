"""Laws of every metric: it finds what it declares, and numbers in any features.

Results keep their bits in an artifact.
"""

from __future__ import annotations

import math
import re

import pytest
import torch
from conftest import ROOT

from monosem.metrics import ALL_METRICS
from monosem.metrics.base import (
    Declaration,
    FeatureBatch,
    Metric,
    PerDimension,
    as_number,
    declared,
    from_artifact,
    measure,
    numbers_from_artifact,
    per_dimension,
    to_artifact,
)
from monosem.metrics.classes import ClassConsistency, ClassSelectivity
from monosem.metrics.factors import FactorInformation
from monosem.metrics.neighbours import RetrievalPrecision
from monosem.metrics.space import Dimensions

LABELS = torch.arange(12) % 3
FEATURES = torch.rand(12, 5, generator=torch.Generator().manual_seed(0))
FACTORS = {"hue": torch.arange(12) % 2}
BATCH = FeatureBatch(FEATURES, LABELS, FEATURES, FACTORS)
TWO = PerDimension(torch.zeros(2), torch.ones(2, dtype=torch.bool))
FIVE = PerDimension(torch.zeros(5), torch.ones(5, dtype=torch.bool))


def metric_that(finds, declares):
    """A metric that finds and declares what it is told to."""

    class Odd(Metric):
        def declares(self, factors=()):
            return declares

        def __call__(self, batch):
            return finds

    return Odd()


@pytest.mark.parametrize("metric", ALL_METRICS, ids=lambda metric: type(metric).__name__)
def test_a_metric_finds_exactly_what_it_declares(metric):
    declarations = metric.declares(tuple(FACTORS))
    results = metric(BATCH)
    assert list(results) == [declaration.name for declaration in declarations]
    for declaration in declarations:
        is_per_dimension = isinstance(results[declaration.name], PerDimension)
        assert is_per_dimension == declaration.per_dimension


@pytest.mark.parametrize("metric", ALL_METRICS, ids=lambda metric: type(metric).__name__)
def test_only_results_per_dimension_say_which_end_is_monosemantic(metric):
    for declaration in metric.declares(tuple(FACTORS)):
        assert declaration.per_dimension or not declaration.better


def test_names_follow_fields_and_factors():
    assert RetrievalPrecision(k=3).declares()[0] == Declaration("precision_at_3")
    names = [declaration.name for declaration in FactorInformation().declares(("hue", "size"))]
    assert names[-2:] == ["information_of_hue", "information_of_size"]


def test_only_information_of_factors_declares_nothing_where_no_factor_is_known():
    without = [type(metric) for metric in ALL_METRICS if not metric.declares()]
    assert without == [FactorInformation]
    assert all(metric.declares(("hue",)) for metric in ALL_METRICS)


def test_measure_gives_all_results_in_the_order_of_their_declarations():
    metrics = (ClassSelectivity(), Dimensions(), ClassConsistency())
    names = [declaration.name for declaration in declared(metrics)]
    assert list(measure(metrics, BATCH)) == names


NUMBER = (Declaration("odd"),)
PER_DIMENSION = (Declaration("odd", per_dimension=True),)


@pytest.mark.parametrize(
    ("finds", "declares", "message"),
    [
        ({"odd": math.nan}, NUMBER, "must find finite numbers, got odd that is none"),
        ({"odd": "much"}, NUMBER, "must find numbers, got 'much' as odd"),
        ({"odd": FIVE}, NUMBER, "got odd for each dimension from .*Odd.*declares one number"),
        ({"odd": 1.0}, PER_DIMENSION, "must find a number for each of 5 dimensions.*got 1.0"),
        (
            {"odd": TWO},
            PER_DIMENSION,
            "must find a number for each of 5 dimensions, as two tensors, got "
            r"PerDimension\(values: float32 \(2,\), valid: bool \(2,\)\) as odd from .*Odd",
        ),
        ({"odd": torch.zeros(5)}, NUMBER, r"must find numbers, got float32 \(5,\) as odd from"),
        ({"odd": PerDimension([0], [1])}, PER_DIMENSION, "must find a number for each of 5 dim"),
        ({"even": 1.0}, NUMBER, "must find what they declare, got even from .*Odd.*declares odd"),
        ({}, NUMBER, "must find what they declare, got nothing from .*Odd"),
        ({7: 1.0}, NUMBER, "must find what they declare, got 7 from .*Odd"),
        (None, NUMBER, "must measure 12 x 5 features, but Odd failed: TypeError"),
    ],
    ids=[
        "nan",
        "word",
        "many",
        "one",
        "few",
        "tensor",
        "lists",
        "other",
        "none",
        "no string",
        "no dict",
    ],
)
def test_what_is_not_as_declared_is_refused_with_the_metric_s_name(finds, declares, message):
    with pytest.raises(ValueError, match=message) as refusal:
        measure([metric_that(finds, declares)], BATCH)
    assert "\n" not in str(refusal.value)


def test_values_are_float64_and_0_where_they_are_not_valid():
    valid = torch.tensor([True, False, True, False, False])
    result = PerDimension(torch.full((5,), torch.nan).masked_fill(valid, 2.0), valid)
    metric = metric_that({"odd": result}, PER_DIMENSION)
    values = measure([metric], BATCH)["odd"].values
    assert values.dtype == torch.float64
    assert values.tolist() == [2, 0, 2, 0, 0]


def test_a_metric_that_raises_is_named_with_the_size_and_the_error():
    class Broken(Metric):
        def declares(self, factors=()):
            return NUMBER

        def __call__(self, batch):
            return {"odd": float(batch.features[0, 10**6])}

    with pytest.raises(ValueError, match="must measure 12 x 5 features, but Broken failed: Index"):
        measure([Broken()], BATCH)


def test_a_metric_without_declarations_is_refused():
    class Silent(Metric):
        def __call__(self, batch):
            return {"x": 1.0}

    with pytest.raises(ValueError, match="must declare what they find, but Silent failed: NotImp"):
        declared([Silent()])


@pytest.mark.parametrize(
    ("declares", "message"),
    [
        (("odd",), "must declare what they find as Declaration, got 'odd' from .*Odd"),
        ((Declaration(7),), "must call what they find by strings, got 7 from .*Odd"),
    ],
)
def test_what_is_no_declaration_is_refused(declares, message):
    with pytest.raises(ValueError, match=message):
        declared([metric_that({}, declares)])


def test_two_results_of_one_name_are_refused():
    metrics = (ClassConsistency(), ClassConsistency(epsilon=0.1))
    message = "must find each thing once, got class_consistency twice, the second time from Class"
    with pytest.raises(ValueError, match=message):
        declared(metrics)
    with pytest.raises(ValueError, match=message):
        measure(metrics, BATCH)


def test_results_keep_their_bits_in_an_artifact():
    results = measure(ALL_METRICS, BATCH)
    artifact = to_artifact(results)
    restored = from_artifact(artifact)
    assert list(restored) == list(results)
    for name, result in results.items():
        if isinstance(result, PerDimension):
            assert torch.equal(restored[name].values, result.values)
            assert torch.equal(restored[name].valid, result.valid)
            assert artifact[name].item() == result.mean
        else:
            assert restored[name] == result


def test_no_two_tensors_of_an_artifact_share_memory():
    valid = torch.ones(5, dtype=torch.bool)
    first = per_dimension(torch.zeros(5), valid)
    second = per_dimension(torch.zeros(5), valid)
    artifact = to_artifact({"first": first, "second": second})
    assert len({tensor.data_ptr() for tensor in artifact.values()}) == len(artifact)


def test_the_metric_of_one_s_own_in_the_docs_measures_what_it_declares():
    page = (ROOT / "docs" / "measures.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names = {"__name__": "docs_measures"}
    exec(code, names)
    dead = FEATURES * (torch.arange(5) > 0)
    result = measure([names["LargestShare"]()], BATCH._replace(features=dead))["largest_share"]
    expected = FEATURES.amax(0) / FEATURES.sum(0)
    assert result.values[1:].tolist() == pytest.approx(expected[1:].tolist())
    assert result.valid.tolist() == [False, True, True, True, True]


ODD_FEATURES = {
    "zeros": torch.zeros(6, 3),
    "ones": torch.ones(6, 3),
    "one": torch.eye(6)[:, :1],
    "minus": -torch.eye(6),
    "tiny": 1e-30 * torch.eye(6),
    "huge": 1e15 * torch.eye(6),
}


@pytest.mark.parametrize("metric", ALL_METRICS, ids=lambda metric: type(metric).__name__)
@pytest.mark.parametrize("features", ODD_FEATURES.values(), ids=ODD_FEATURES.keys())
def test_dead_constant_and_negative_features_are_never_nan(metric, features):
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    results = metric(FeatureBatch(features, labels, features, {"hue": labels}))
    assert results
    for result in results.values():
        assert math.isfinite(as_number(result))
        if isinstance(result, PerDimension):
            assert result.values.isfinite().all()
            assert not result.values[~result.valid].any()


def test_one_class_and_one_level_are_nothing_to_stumble_over():
    labels = torch.zeros(12, dtype=torch.long)
    results = measure(ALL_METRICS, FeatureBatch(FEATURES, labels, FEATURES, {"hue": labels}))
    assert all(math.isfinite(as_number(result)) for result in results.values())


def test_the_numbers_of_an_artifact_are_those_that_were_written():
    artifact = to_artifact({"a": 0.1, "b": per_dimension(torch.rand(7), torch.ones(7).bool())})
    artifact["b"] = torch.tensor(0.123, dtype=torch.float64)  # as if another machine had added up
    assert numbers_from_artifact(artifact) == {"a": 0.1, "b": 0.123}
