"""Decoding: greedy answers against transformers' generate, and padding that changes nothing."""

from __future__ import annotations

import pytest
import torch
from tiny_language import VOCABULARY, llama
from torch.testing import assert_close

from monosem.language.decoding import by_length, each_batch, greedy, next_logits, padded
from monosem.language.models import CausalTransformer

transformers = pytest.importorskip("transformers", reason="the extra 'language'")

NEW = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = llama(tmp_path_factory.mktemp("decoding") / "llama", initializer_range=0.6)
    return CausalTransformer(str(folder)).network(lambda stage: {})


def rows(count=9):
    draw = torch.Generator().manual_seed(2)
    sizes = [1 + 3 * index % 8 for index in range(count)]
    return [
        [2, *torch.randint(5, len(VOCABULARY), (size,), generator=draw).tolist()] for size in sizes
    ]


def generated(model, row, ends):
    """What transformers gives for one row by itself, up to its end."""
    settings = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=NEW, eos_token_id=list(ends), pad_token_id=0
    )
    ids = torch.tensor([row])
    said = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    tokens = said[0, len(row) :].tolist()
    stops = [place for place, token in enumerate(tokens) if token in ends]
    return tokens[: stops[0]] if stops else tokens


@pytest.mark.parametrize("ends", [(3,), (3, 9, 17, 30)])
def test_answers_of_a_padded_batch_are_what_transformers_generates_row_by_row(model, ends):
    expected = [generated(model, row, ends) for row in rows()]
    assert len(set(map(len, expected))) > 1 or ends == (3,), "some end early"
    said = greedy(model, rows(), NEW, ends, pad=0)
    assert said.shape == (9, NEW) and said.dtype == torch.int32
    for row, tokens in zip(said.tolist(), expected, strict=True):
        assert row == tokens + [-1] * (NEW - len(tokens))


def test_left_padding_gives_the_logits_that_rows_have_one_by_one(model):
    together = next_logits(model, rows(), pad=0)
    for row, logits in zip(rows(), together, strict=True):
        alone = model(input_ids=torch.tensor([row])).logits[0, -1]
        assert_close(logits, alone, atol=1e-5, rtol=1e-4)


def test_rows_are_filled_up_on_the_side_that_is_asked_for():
    ids, mask = padded([[5, 6, 7], [8]], pad=1, left=True)
    assert ids.tolist() == [[5, 6, 7], [1, 1, 8]] and mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    ids, mask = padded([[5, 6, 7], [8]], pad=1, left=False)
    assert ids.tolist() == [[5, 6, 7], [8, 1, 1]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_rows_come_back_in_their_order_whatever_the_batches(model):
    many = rows(90)
    batches = by_length(many)
    assert len(batches) > 2
    assert sorted(index for batch in batches for index in batch) == list(range(90))
    told = []
    sums = each_batch(many, lambda some: torch.tensor([sum(row) for row in some]), told.append)
    assert sums.tolist() == [sum(row) for row in many]
    assert told[-1] == 90 and told == sorted(told)
