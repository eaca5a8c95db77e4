"""The sweep over adapters of a text encoder, on a tiny model and a small archive of texts."""

from __future__ import annotations

import pytest
from tiny_text import tiny_bert, write_vader

from monosem.datasets.published_texts import FILES
from monosem.learning.adapters import LoRA, MonoLoRA
from monosem.probes.linear import LinearProbe
from monosem.specs.study import read

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("in_root")


def test_the_sweep_of_texts_has_a_head_and_two_adapters_that_meet_the_same_noise(tmp_path):
    model = tiny_bert(tmp_path / "bert")
    archive = write_vader(tmp_path / "vader.tar.gz", domains=FILES.values())
    bindings = [
        f"MODEL = '{model}'",
        f"VaderReviews.archive = '{archive}'",
        f"VaderReviews.packs = '{tmp_path / 'packs'}'",
        "VaderReviews.length = 32",
        "few_shot/Curve.severities = (2, 4)",
        "FineTune.batch_size = 4",
        "LinearProbe.batch_size = 4",
    ]
    experiments = [cell.experiment for cell in read(["sweeps/text.gin"], bindings).cells]
    assert [e.name for e in experiments] == ["text_head", "text_lora", "text_monolora"]
    head, *adapted = [e.curves for e in experiments]
    assert all(isinstance(curve.probe, LinearProbe) for curve in head)
    for curves, kind in zip(adapted, (LoRA, MonoLoRA), strict=True):
        assert all(type(curve.probe.adapter) is kind for curve in curves)
        for curve, other in zip(curves, head, strict=True):
            assert (curve.name, curve.points) == (other.name, other.points)
            assert getattr(curve, "corruption", None) == getattr(other, "corruption", None)
            assert (curve.data, curve.encoder, curve.repeats) == (other.data, other.encoder, 3)
