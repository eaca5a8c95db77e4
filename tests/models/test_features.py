"""Features of a split: the same whatever the pass, and numbers all of them."""

from __future__ import annotations

import pytest
import torch
from conftest import tiny_pretrain
from torch import nn
from torch.testing import assert_close

from monosem.core.device import BatchLoader
from monosem.core.stage import StageError
from monosem.core.store import Store
from monosem.data.augment import RandomRotation
from monosem.datasets.digits import Digits
from monosem.models.features import CHUNK, Features, encode, encode_views, view_draw

DATA = Digits(size=8)


def test_inputs_are_prepared_then_corrupted_chunk_by_chunk_in_their_order():
    inputs = DATA.split("train").inputs
    chunks = []

    def doubled(chunk):
        chunks.append(chunk)
        return 2 * chunk

    features = encode(nn.Flatten(), DATA, inputs, doubled)
    assert [len(chunk) for chunk in chunks] == [CHUNK, CHUNK, 1437 - 2 * CHUNK]
    assert_close(features, 2 * DATA.prepare(inputs).flatten(1))


def test_every_input_has_one_view_and_a_number_names_the_same_views_again():
    inputs = DATA.split("train").inputs
    views = (RandomRotation(),)

    def features(number):
        return encode_views(nn.Flatten(), DATA, BatchLoader(inputs), views, view_draw(number))

    first = features(0)
    assert first.shape == (1437, 64)
    assert torch.equal(first, features(0)) and not torch.equal(first, features(1))


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(StageError, match="the features of some inputs are not finite numbers"):
        encode(nn.Flatten(), DATA, DATA.split("test").inputs, lambda inputs: inputs / 0)


@pytest.mark.parametrize("views", [(), (RandomRotation(),)], ids=["clean", "views"])
def test_an_artifact_holds_the_features_and_how_many_inputs_were_encoded(tmp_path, views):
    store, encoder = Store(tmp_path), tiny_pretrain(epochs=1)
    stage = Features(encoder, DATA, "test", views)
    artifact = store.get(stage)
    assert artifact["features"].shape == (360, encoder.width) and artifact["passes"] == 360
    assert stage.upstream() == (encoder,)
