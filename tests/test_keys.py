"""No key changes unless somebody means it: all stages of all Gin files, against a recorded list.

A key that differs computes everything anew, for everybody. Where that is meant, record the list
again and say so in the commit:

    PYTHONPATH=. python tests/test_keys.py
"""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import pytest
import torch

from monosem.core.stage import closure, key
from monosem.data.dataset import Examples, load_once
from monosem.data.packed import Packed
from monosem.data.tokens import Tokenizer
from monosem.datasets.mnist import MNIST
from monosem.evaluation.experiment import Experiment
from monosem.language.models import TokenModel
from monosem.language.prompts import PromptTable
from monosem.models.checkpoint import Checkpoint
from monosem.models.text_encoder import TextEncoder
from monosem.pretrained.weight_sources import StoredWeights
from monosem.shifts.base import PublishedSets
from monosem.specs import load as loading

ROOT = Path(__file__).resolve().parent.parent
RECORDED = Path(__file__).with_name("keys.json")
FILES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "gin").rglob("*.gin")
    if "Experiment.name" in path.read_text()
)
NOTHING = Examples(torch.zeros(0), torch.zeros(0))


def keys_of(file: str) -> dict[str, list[str]]:
    """The keys of all stages by their kind, as if all files that data are read from were alike."""
    bindings = ["Checkpoint.path = '/x.ckpt'"] if "checkpoint" in file else []
    if "gin/pretrained" in file:
        pytest.importorskip("timm", reason="the networks of these files are timm's")
    key.cache_clear()  # keys of real files, which a test before this one may have met
    with (
        mock.patch.object(Packed, "content", lambda self: "content"),
        mock.patch.object(Packed, "load", lambda self, split: NOTHING),  # asked for its factors
        mock.patch.object(Tokenizer, "content", lambda self: "content"),
        mock.patch.object(TextEncoder, "content", lambda self: "content"),
        mock.patch.object(TextEncoder, "incompatibility", lambda self, data: None),
        mock.patch.object(MNIST, "content", lambda self: "content"),
        mock.patch.object(StoredWeights, "check", lambda self, architecture: "digest"),
        mock.patch.object(PublishedSets, "absence", lambda self: None),
        mock.patch.object(Checkpoint, "content", lambda self: "content"),
        mock.patch.object(TokenModel, "content", lambda self: "content"),
        mock.patch.object(PromptTable, "content", lambda self: "content"),
        mock.patch.object(Experiment, "preflight", lambda self: None),
        mock.patch.object(loading, "closure", lambda stages: []),  # no look at the data
    ):
        experiment = loading.load([str(ROOT / file)], bindings).experiment
        keys: dict[str, list[str]] = {}
        for stage in closure(experiment.stages):
            keys.setdefault(type(stage).__name__, []).append(key(stage))
    key.cache_clear()  # those of files that are only said to be alike
    load_once.cache_clear()
    return {kind: sorted(found) for kind, found in sorted(keys.items())}


@pytest.mark.parametrize("file", FILES)
def test_the_keys_of_a_gin_file_are_the_recorded_ones(file: str) -> None:
    assert keys_of(file) == json.loads(RECORDED.read_text())[file]


if __name__ == "__main__":
    RECORDED.write_text(json.dumps({file: keys_of(file) for file in FILES}, indent=0) + "\n")
