"""Laws of the spine: what a key depends on, what fields may hold, in which order stages run."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import typing
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from conftest import ROOT, tiny_pretrain

from monosem.core.fields import Count, FieldError, Part, Range, annotations_of, conform, is_in_key
from monosem.core.identity import generator, seed_for
from monosem.core.stage import Stage, closure, key, plan
from monosem.data.digits import Digits
from monosem.evaluation.corruptions import FewShot, LabelNoise
from monosem.evaluation.curves import Curve
from monosem.evaluation.monosemanticity import Monosemanticity
from monosem.evaluation.probes import LinearProbe
from monosem.learning.objectives import Contrastive, NonNegative, OnlineClassifier
from monosem.learning.optimizers import SGD, Constant, WarmupCosine
from monosem.learning.sparse import L1, TopK
from monosem.metrics.space import Dimensions
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.baselines import Pixels
from monosem.models.features import Features
from monosem.models.representation import Embedding


def curve(**fields):
    standard = {
        "name": "label_noise", "encoder": Embedding(tiny_pretrain()), "data": Digits(size=8), "corruption": LabelNoise(),
        "probe": LinearProbe(SGD(lr=1.0), Constant(), epochs=2), "severities": (0.0, 0.5), "repeats": 2,
    }  # fmt: skip
    return Curve(**{**standard, **fields})


SAE = SparseAutoencoder(
    data=Digits(size=8), encoder=Embedding(tiny_pretrain()), sparsity=TopK(4), latents=32, optimizer=SGD(), schedule=Constant(),
    epochs=2, batch_size=64,
)  # fmt: skip
EXAMPLES = [tiny_pretrain(classifier=OnlineClassifier()), SAE, curve(), Features(SAE, Digits(), "test"),
            Monosemanticity(encoder=SAE, data=Digits(), metrics=(Dimensions(),), reference_encoder=Pixels(Digits()))]  # fmt: skip


def other(value: object) -> object:
    """A value of the same kind that differs."""
    swaps = {
        "test": "train",
        "train": "test",
        "relu": "gelu",
        "shots": "fraction",
        "bicubic": "bilinear",
        "cifar": "imagenet",
        "float32": "float16",
    }
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 + 0.01
    if isinstance(value, str):
        return swaps[value]
    if isinstance(value, tuple):
        return (
            value[:-1]
            if value and isinstance(value[-1], Part)
            else (*value[:-1], other(value[-1]))
            if value
            else value
        )
    return None


def changes(part: Part):
    """The part with one value changed, for every value anywhere inside it that counts for a result."""
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if not is_in_key(annotations_of(type(part))[field.name]):
            continue
        if isinstance(value, Part):
            yield from (
                (f"{field.name}.{name}", dataclasses.replace(part, **{field.name: new}))
                for name, new in changes(value)
            )
        elif (new := other(value)) is not None and new != value:
            yield field.name, dataclasses.replace(part, **{field.name: new})


@pytest.mark.parametrize("stage", EXAMPLES, ids=lambda s: type(s).__name__)
def test_changing_any_value_changes_the_key(stage):
    seen = {key(stage): "nothing"}
    changed = dict(changes(stage))
    assert len(changed) >= 10
    for name, new in changed.items():
        assert key(new) not in seen, f"{name} has the key of {seen[key(new)]}"
        seen[key(new)] = name


def test_a_label_is_no_part_of_the_key():
    assert key(curve(name="a")) == key(curve(name="b"))


def test_the_same_spec_gives_the_same_key_in_every_process():
    code = "from test_stage import EXAMPLES\nfrom monosem.core.stage import key\nprint(*map(key, EXAMPLES))"
    for salt in ("0", "1"):
        out = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'tests' / 'core'}", "PYTHONHASHSEED": salt, "PATH": ""},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert out.stdout.split() == [key(stage) for stage in EXAMPLES]


def test_raising_a_version_changes_the_keys_of_all_that_use_the_part(monkeypatch):
    before = [key(stage) for stage in EXAMPLES]
    monkeypatch.setattr(NonNegative, "VERSION", 2)
    key.cache_clear()
    assert all(key(stage) != old for stage, old in zip(EXAMPLES, before, strict=True))
    monkeypatch.undo()
    key.cache_clear()


def test_a_version_of_a_derived_stage_counts_for_those_below_it(monkeypatch):
    before = key(curve())
    monkeypatch.setattr(Features, "VERSION", 2)
    key.cache_clear()
    assert key(curve()) != before
    monkeypatch.undo()
    key.cache_clear()


def test_whole_numbers_lists_and_minus_zero_are_the_same_spec():
    assert curve(severities=[-0.0, 1]) == curve(severities=(0.0, 1.0))
    assert key(curve(severities=[-0.0, 1])) == key(curve(severities=(0.0, 1.0)))


def test_changing_a_probe_reuses_the_encoder():
    one, two = curve(), curve(probe=LinearProbe(SGD(lr=0.1), Constant()))
    assert key(one) != key(two) and set(map(key, one.upstream())) == set(map(key, two.upstream()))


@dataclass(frozen=True)
class Link(Stage):
    name: str
    above: tuple[Stage, ...] = ()


def test_a_plan_has_waves_of_missing_unique_stages():
    a, b = Link("a"), Link("b")
    c, d = Link("c", (a, b)), Link("d", (a,))
    e = Link("e", (c, d, a))
    assert plan([e, d], lambda stage: False) == [[a, b], [c, d], [e]]
    assert plan([e], lambda stage: stage is c) == [[a], [d], [e]]
    assert plan([e], lambda stage: stage is e) == []
    assert closure([e, d]) == [a, b, c, d, e]


def test_what_is_done_needs_nothing_above_it():
    a = Link("a")
    b = Link("b", (a,))
    c = Link("c", (b,))
    assert plan([c], lambda stage: stage is b) == [[c]]


def test_seeds_depend_on_all_that_is_named_and_on_nothing_else():
    assert seed_for("a", 1) == seed_for("a", 1) != seed_for("a", 2)
    assert seed_for(LabelNoise()) != seed_for(FewShot())
    assert generator("a").initial_seed() == generator("a").initial_seed()


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


def test_editing_a_class_from_outside_changes_its_key(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    keys = set()
    for body in ("return 1", "return 2", "return 1"):
        (tmp_path / "outside.py").write_text(
            "from dataclasses import dataclass\nfrom monosem.core.stage import Stage\n\n"
            f"@dataclass(frozen=True)\nclass Mine(Stage):\n    def run(self, job):\n        {body}\n"
        )
        code = "import outside; from monosem.core.stage import key; print(key(outside.Mine()))"
        out = subprocess.run(
            [sys.executable, "-B", "-c", code],
            env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": ""},
            capture_output=True,
            text=True,
        )
        keys.add(out.stdout.strip())
    assert len(keys) == 2 and "" not in keys


def test_an_error_names_class_field_and_value():
    with pytest.raises(FieldError, match="NonNegative.temperature must be above 0, got -1") as info:
        NonNegative(temperature=-1)
    assert (info.value.owner, info.value.field, info.value.value) == (
        "NonNegative",
        "temperature",
        -1,
    )
    for make, words in (
        (lambda: curve(severities=()), "Curve.severities must hold at least one severity"),
        (lambda: curve(severities=(0.1, 0.1)), "Curve.severities must differ from one another"),
        (
            lambda: curve(severities=(1.5,)).preflight(),
            "Curve.severities must be between 0 and 1, got 1.5",
        ),
        (
            lambda: curve(corruption=FewShot(), severities=(1000,)).preflight(),
            "Curve.severities must be at most 139",
        ),
        (
            lambda: curve(probe=LinearProbe(SGD(), Constant(), batch_size=9999)).preflight(),
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
