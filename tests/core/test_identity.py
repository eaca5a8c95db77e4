"""Laws of identity: what a key depends on, and seeds that are named by what is drawn."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from conftest import ROOT, tiny_curve, tiny_pretrain

from monosem.autoencoders.topk import TopK
from monosem.core.fields import Part, annotations_of, is_in_key
from monosem.core.identity import generator, seed_for
from monosem.core.stage import key
from monosem.corruptions.few_shot import FewShot
from monosem.corruptions.label_noise import LabelNoise
from monosem.datasets.digits import Digits
from monosem.evaluation.monosemanticity import Monosemanticity
from monosem.learning.objectives import NonNegative, OnlineClassifier
from monosem.learning.optimizers import SGD, Constant
from monosem.metrics.space import Dimensions
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.baselines import Pixels
from monosem.models.features import Features
from monosem.models.representation import Embedding
from monosem.probes.linear import LinearProbe

SAE = SparseAutoencoder(
    data=Digits(size=8),
    encoder=Embedding(tiny_pretrain()),
    sparsity=TopK(4),
    latents=32,
    optimizer=SGD(),
    schedule=Constant(),
    epochs=2,
    batch_size=64,
)
EXAMPLES = [
    tiny_pretrain(classifier=OnlineClassifier()),
    SAE,
    tiny_curve(),
    Features(SAE, Digits(), "test"),
    Monosemanticity(
        encoder=SAE, data=Digits(), metrics=(Dimensions(),), reference_encoder=Pixels(Digits())
    ),
]


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
    """The part with one value changed, for every value inside it that counts for a result."""
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
    assert key(tiny_curve(name="a")) == key(tiny_curve(name="b"))


@pytest.mark.slow
def test_the_same_spec_gives_the_same_key_in_every_process():
    code = (
        "from test_identity import EXAMPLES\n"
        "from monosem.core.stage import key\n"
        "print(*map(key, EXAMPLES))"
    )
    path = f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'tests' / 'core'}"
    for salt in ("0", "1"):
        out = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": path, "PYTHONHASHSEED": salt, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        assert out.stdout.split() == [key(stage) for stage in EXAMPLES]


def test_raising_a_version_changes_the_keys_of_all_that_use_the_part(monkeypatch):
    before = [key(stage) for stage in EXAMPLES]
    monkeypatch.setattr(NonNegative, "VERSION", 2)
    key.cache_clear()
    assert all(key(stage) != old for stage, old in zip(EXAMPLES, before, strict=True))
    monkeypatch.undo()
    key.cache_clear()


def test_a_version_of_a_derived_stage_counts_for_those_below_it(monkeypatch):
    before = key(tiny_curve())
    monkeypatch.setattr(Features, "VERSION", 2)
    key.cache_clear()
    assert key(tiny_curve()) != before
    monkeypatch.undo()
    key.cache_clear()


def test_whole_numbers_lists_and_minus_zero_are_the_same_spec():
    assert tiny_curve(severities=[-0.0, 1]) == tiny_curve(severities=(0.0, 1.0))
    assert key(tiny_curve(severities=[-0.0, 1])) == key(tiny_curve(severities=(0.0, 1.0)))


def test_changing_a_probe_reuses_the_encoder():
    one, two = tiny_curve(), tiny_curve(probe=LinearProbe(SGD(lr=0.1), Constant()))
    assert key(one) != key(two) and set(map(key, one.upstream())) == set(map(key, two.upstream()))


@pytest.mark.slow
def test_editing_a_class_from_outside_changes_its_key(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    keys = set()
    for body in ("return 1", "return 2", "return 1"):
        (tmp_path / "outside.py").write_text(
            "from dataclasses import dataclass\nfrom monosem.core.stage import Stage\n\n"
            "@dataclass(frozen=True)\nclass Mine(Stage):\n"
            f"    def run(self, job):\n        {body}\n"
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


def test_seeds_depend_on_all_that_is_named_and_on_nothing_else():
    assert seed_for("a", 1) == seed_for("a", 1) != seed_for("a", 2)
    assert seed_for(LabelNoise()) != seed_for(FewShot())
    assert generator("a").initial_seed() == generator("a").initial_seed()
