"""Feature selection and retrieval: curves by the number of most active dimensions."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from conftest import tiny_pretrain

from monosem.core.fields import FieldError
from monosem.core.store import Store
from monosem.corruptions.label_noise import LabelNoise
from monosem.data.augment import RandomResizedCrop
from monosem.datasets.digits import Digits
from monosem.learning.objectives import Contrastive
from monosem.learning.optimizers import SGD, Constant
from monosem.metrics.neighbours import precision_at
from monosem.metrics.space import by_activity
from monosem.models.features import Features
from monosem.models.representation import Embedding
from monosem.probes.linear import LinearProbe
from monosem.robustness.curves import Curve
from monosem.robustness.selection import FeatureSelection, Retrieval

DATA = Digits(size=8)
ENCODER = Embedding(tiny_pretrain(objective=Contrastive()))  # 16 dimensions
PROBE = LinearProbe(SGD(lr=1.0), Constant(), epochs=5)
SELECTION = FeatureSelection(
    name="selection", encoder=ENCODER, data=DATA, probe=PROBE, severities=(2, 16), repeats=2
)
RETRIEVAL = Retrieval(name="retrieval", encoder=ENCODER, data=DATA, severities=(2, 16))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def test_feature_selection_has_a_row_for_every_number_of_dimensions_and_repeat(store):
    rows = [*SELECTION.results(store.get(SELECTION))]
    cells = {(row.metric, row.severity, row.repeat) for row in rows}
    assert len(rows) == len(cells) == 2 * 2 * 2
    assert {row.metric for row in rows} == {"top1", "top5"}


def test_retrieval_has_a_row_for_every_number_of_dimensions(store):
    rows = [*RETRIEVAL.results(store.get(RETRIEVAL))]
    assert [(row.metric, row.severity, row.repeat) for row in rows] == [
        ("precision_at_10", 2, 0),
        ("precision_at_10", 16, 0),
    ]


def test_more_dimensions_are_better(store):
    top1, precision = store.get(SELECTION)["top1"], store.get(RETRIEVAL)["precision_at_10"]
    assert top1[1, 0] > top1[0, 0]
    assert precision[1, 0] > precision[0, 0]


def test_retrieval_in_all_dimensions_is_the_precision_of_the_features(store):
    features = store.get(Features(ENCODER, DATA, "test"))["features"]
    rows = F.normalize(features, dim=1)
    rows = rows[:, by_activity(rows)]  # another order rounds otherwise: neighbours that tie change
    precision = precision_at(rows, DATA.split("test").labels, 10)
    measured = store.get(RETRIEVAL)["precision_at_10"][1, 0]
    assert measured == pytest.approx(100 * precision)


def test_feature_selection_of_all_dimensions_is_about_the_clean_accuracy(store):
    clean = Curve(
        encoder=ENCODER,
        data=DATA,
        probe=PROBE,
        corruption=LabelNoise(),
        severities=(0.0,),
        repeats=2,
    )  # its dimensions are in another order
    assert abs(store.get(clean)["top1"].mean() - store.get(SELECTION)["top1"][1].mean()) < 15


def test_every_dimension_has_a_rank(store):
    features = store.get(Features(ENCODER, DATA, "train"))["features"]
    assert sorted(by_activity(features).tolist()) == list(range(16))


@pytest.mark.parametrize("count", [0, 17, 1.5])
def test_impossible_numbers_of_dimensions_are_refused(count):
    with pytest.raises(
        FieldError,
        match=r"Retrieval.severities must be whole numbers of dimensions between 1 and 16",
    ):
        Retrieval(encoder=ENCODER, data=DATA, severities=(count,)).preflight()


def test_feature_selection_on_augmented_views_is_refused():
    probe = LinearProbe(SGD(), Constant(), views=(RandomResizedCrop(),))
    with pytest.raises(FieldError, match=r"FeatureSelection.probe must take inputs as they are"):
        FeatureSelection(encoder=ENCODER, data=DATA, severities=(2,), probe=probe).preflight()
