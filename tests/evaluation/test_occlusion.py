"""Which parts of an example matter to a dimension: those without which it falls."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
import torch

from monosem.core.store import Store
from monosem.data.dataset import Dataset, Examples, Occlusions
from monosem.evaluation.dashboard import FeatureDashboard
from monosem.evaluation.monosemanticity import Monosemanticity
from monosem.evaluation.occlusion import Occlusion, marks_by_row
from monosem.metrics.classes import ClassConsistency
from monosem.models.representation import Representation

LETTERS = "abcd"


@dataclass(frozen=True)
class Words(Dataset):
    """Texts as counts of four letters."""

    pieces = "words"

    def load(self, split):
        counts = torch.tensor([self.counts(text) for text in self.show(range(12))])
        return Examples(counts, torch.arange(12) % 2)

    def counts(self, text):
        return [text.count(letter) for letter in LETTERS]

    def prepare(self, inputs):
        return inputs.float()

    def show(self, indices):
        return [f"{'ab'[i % 2] * (i + 1)} {'cd'[i % 2]} a" for i in indices]

    def occlusions(self, index):
        (text,) = self.show([index])
        spans = [match.span() for match in re.finditer(r"\w+", text)]
        texts = [text[:start] + text[end:] for start, end in spans]
        return Occlusions(spans, torch.tensor([self.counts(text) for text in texts]))


class Counts(Representation):
    width = 4

    def network(self, get):
        return torch.nn.Identity()


@pytest.fixture
def stage():
    encoder, data = Counts(), Words()
    return Occlusion(
        dashboard=FeatureDashboard(encoder=encoder, data=data, examples=5),
        monosemanticity=Monosemanticity(
            name="m",
            encoder=encoder,
            data=data,
            metrics=(ClassConsistency(),),
            reference_encoder=encoder,
        ),
        by="",
        dimensions=10,
        examples=3,
    )


def test_a_part_matters_by_what_the_dimension_loses_without_it(stage, tmp_path):
    artifact = Store(tmp_path).get(stage)
    data = stage.dashboard.data
    for dimension, example, (start, end), activation, fall in zip(
        *(artifact[name].tolist() for name in ("dimension", "example", "span")),
        artifact["activation"].tolist(),
        artifact["fall"].tolist(),
        strict=True,
    ):
        (text,) = data.show([example])
        assert activation == text.count(LETTERS[dimension])
        assert fall == text[start:end].count(LETTERS[dimension])


def test_the_most_activating_examples_alone_are_looked_at(stage, tmp_path):
    store = Store(tmp_path)
    artifact, dashboard = store.get(stage), store.get(stage.dashboard)
    for dimension in range(4):
        examples = artifact["example"][artifact["dimension"] == dimension].unique().tolist()
        assert examples == sorted(dashboard["top"][:3, dimension].tolist())


def test_words_that_matter_are_marked_by_their_share(stage, tmp_path):
    marks = marks_by_row(Store(tmp_path).get(stage))
    assert marks[0, 10] == [[0, 11, round(11 / 12, 3)], [14, 15, round(1 / 12, 3)]]
