"""The stage behind the gallery: largest activations, maps and histograms of dimensions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import tiny_pretrain
from torch.testing import assert_close

from monosem.core.store import Store
from monosem.datasets.digits import Digits
from monosem.evaluation.dashboard import BINS, FeatureDashboard, most_activating
from monosem.models.features import Features
from monosem.models.representation import Embedding

DATA = Digits(size=8)
ENCODER = Embedding(tiny_pretrain(epochs=1))
LABELS = DATA.split("test").labels


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def dashboard(store):
    return store.get(FeatureDashboard(encoder=ENCODER, data=DATA, examples=3))


@pytest.fixture(scope="module")
def features(store):
    return store.get(Features(ENCODER, DATA, "test"))["features"]


@pytest.mark.parametrize("chunk", [1, 7, 50, 1000])
def test_chunks_of_any_size_give_the_largest_activations_of_the_whole(chunk):
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(200, 5, generator=draw).relu().mul(4).round()  # many ties
    values, rows = most_activating(features.split(chunk), 9)
    expected, order = features.sort(dim=0, descending=True, stable=True)
    assert torch.equal(values, expected[:9])
    assert torch.equal(rows, order[:9])


def test_of_few_examples_there_are_few_to_show():
    values, rows = most_activating(torch.tensor([[1.0], [3.0]]).split(1), 5)
    assert values.flatten().tolist() == [3, 1]
    assert rows.flatten().tolist() == [1, 0]


def test_the_map_of_classes_holds_their_means(dashboard, features):
    for label in range(10):
        means = features[label == LABELS].double().mean(0)
        assert dashboard["class_map"][label].tolist() == pytest.approx(means.tolist(), abs=1e-9)


def test_a_dimension_is_active_where_it_is_not_zero(dashboard, features):
    for dimension in range(16):
        share = np.count_nonzero(features[:, dimension]) / len(features)
        assert dashboard["active"][dimension] == pytest.approx(share)


def test_histograms_count_the_class_with_the_largest_mean_apart_from_the_others(
    dashboard, features
):
    for dimension in range(16):
        column = features[:, dimension]
        means = [column[label == LABELS].double().mean().item() for label in range(10)]
        own = int(np.argmax(means)) == LABELS
        bounds = (column.min().item(), column.max().item() or 1e-9)
        for group, members in enumerate((own, ~own)):
            expected, _ = np.histogram(column[members].numpy(), BINS, bounds)
            counts = dashboard["histogram"][group, :, dimension]
            assert counts.sum() == int(members.sum())
            assert abs(counts.numpy() - expected).sum() <= 4  # an edge rounds either way


def test_cosines_are_those_of_the_live_dimensions(dashboard, features):
    order = dashboard["order"]
    live = (features != 0).any(0)
    assert len(order) == int(live.sum())
    assert live[order].all()
    columns = torch.nn.functional.normalize(features[:, order], dim=0)
    assert_close(dashboard["correlation"], columns.T @ columns)
