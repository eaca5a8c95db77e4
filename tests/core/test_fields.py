"""Laws of fields: what they may hold, and the words in which anything else is refused."""

from __future__ import annotations

import os
import typing
from typing import Annotated, Literal

import pytest
from conftest import tiny_curve

from monosem.autoencoders.gated import L1
from monosem.core.fields import (
    Count,
    FieldError,
    Part,
    Range,
    absolute_path,
    annotations_of,
    conform,
)
from monosem.corruptions.few_shot import FewShot
from monosem.corruptions.label_noise import LabelNoise
from monosem.datasets.digits import Digits
from monosem.learning.objectives import Contrastive, NonNegative
from monosem.learning.optimizers import SGD, Constant, WarmupCosine
from monosem.probes.linear import LinearProbe


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        ("x", float, "must be a number, got 'x'"),
        (True, float, "must be a number, got True"),
        (float("inf"), float, "must be a finite number"),
        (1.5, int, "must be a whole number, got 1.5"),
        (True, int, "must be a whole number, got True"),
        (1, bool, "must be True or False, got 1"),
        (3, str, "must be a string, got 3"),
        (0, Count, "must be 1 or more, got 0"),
        (0.3, tuple[float, ...], r"must be a tuple such as \(a, b\), got 0.3"),
        ((1.0, "x"), tuple[float, ...], "must be a number, got 'x'"),
        ((1.0,), tuple[float, float], "must hold 2 values, got 1"),
        ("red", Literal["blue", "green"], "must be one of 'blue', 'green', got 'red'"),
        (1, Literal[True], "must be one of True, got 1"),
        (LabelNoise(), Digits, r"must be a Digits, got LabelNoise\(\)"),
        (Digits, Digits, r"got the class Digits \(write @Digits\(\) to make one\)"),
        (None, Digits, "must be a Digits, got None"),
        ("x", Count | None, "must be a whole number, got 'x'"),
        (2.0, Annotated[float, Range(0, 1)], "must be between 0 and 1, got 2.0"),
        (
            [1.0],
            list[float],
            r"is annotated list\[float\]; a field holds numbers, strings, parts or tuples",
        ),
        (1.0, typing.Any, "a field holds numbers"),
        ("x", int | float, "must be a number, got 'x'"),
        (
            0.0,
            Annotated[float, Range(0, 1, open=True)],
            "must be between 0 and 1, 0 excluded, got 0.0",
        ),
    ],
)
def test_values_of_the_wrong_kind_are_refused_in_words(value, kind, words):
    with pytest.raises(ValueError, match=words):
        conform(value, kind)


def test_any_arm_of_a_union_will_do():
    assert (
        conform("a", int | str) == "a"
        and conform(2, int | str) == 2
        and conform(None, int | str | None) is None
    )


def test_an_error_names_class_field_and_value():
    with pytest.raises(FieldError, match="NonNegative.temperature must be above 0, got -1") as info:
        NonNegative(temperature=-1)
    assert (info.value.owner, info.value.field, info.value.value) == (
        "NonNegative",
        "temperature",
        -1,
    )
    for make, words in (
        (lambda: tiny_curve(severities=()), "Curve.severities must hold at least one severity"),
        (
            lambda: tiny_curve(severities=(0.1, 0.1)),
            "Curve.severities must differ from one another",
        ),
        (
            lambda: tiny_curve(severities=(1.5,)).preflight(),
            "Curve.severities must be between 0 and 1, got 1.5",
        ),
        (
            lambda: tiny_curve(corruption=FewShot(), severities=(1000,)).preflight(),
            "Curve.severities must be at most 139",
        ),
        (
            lambda: tiny_curve(probe=LinearProbe(SGD(), Constant(), batch_size=9999)).preflight(),
            "LinearProbe.batch_size must be at most 1437",
        ),
        (lambda: L1(penalty=-1.0), "L1.penalty must be 0 or more"),
        (lambda: WarmupCosine(warmup=-1), "WarmupCosine.warmup must be 0 or more"),
        (lambda: Digits(test=3), "Digits.test must leave every class"),
        (lambda: Digits(mean=(0.1, 0.2)), "Digits.std must have one value per channel"),
        (lambda: Contrastive(temperature=0), "Contrastive.temperature must be above 0, got 0"),
    ):
        with pytest.raises(FieldError, match=words):
            make()


def test_every_annotation_of_every_part_can_be_checked():
    def below(cls):
        for sub in cls.__subclasses__():
            yield from (sub, *below(sub))

    for cls in set(below(Part)):
        for name, kind in annotations_of(cls).items():
            if typing.get_origin(kind) is not typing.ClassVar:
                with pytest.raises(ValueError):
                    conform(object(), kind)
                assert name


def test_a_path_may_lie_in_an_installed_package():
    import torch

    home = os.path.dirname(torch.__file__)
    assert absolute_path("package:torch/nn") == os.path.join(home, "nn")
    assert absolute_path("package:torch").rstrip("/") == home


def test_a_path_in_a_package_that_is_not_there_stays_as_it_was_typed():
    assert absolute_path("package:no_such_package/model") == "package:no_such_package/model"
