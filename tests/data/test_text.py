"""Texts as inputs: batches by length, words among tokens, and features that are in their order."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.testing import assert_close

pytest.importorskip("transformers")

from tiny_text import WORDS, write_tokenizer

from monosem.core.device import BatchLoader
from monosem.core.fields import FieldError
from monosem.core.identity import digest, generator
from monosem.corruptions.instance_noise import InstanceNoise, MarginNoise
from monosem.data.text import MOST_PADDING, MOST_TOKENS, TextDataset, batch_ends, word_spans
from monosem.data.tokens import Tokenizer
from monosem.datasets.digits import Digits
from monosem.datasets.text_files import TextFile
from monosem.models.features import encode, encode_views
from monosem.shifts.base import SeenAs


@pytest.fixture
def data(tmp_path):
    return reviews(tmp_path)


def reviews(folder, name="a", rows=60, **fields):
    write_tokenizer(folder / "tokenizer")
    draw = torch.Generator().manual_seed(len(name))
    lines = []
    for index in range(rows):
        count = int(torch.randint(1, 14, (), generator=draw))
        chosen = torch.randint(len(WORDS), (count,), generator=draw).tolist()
        words = " ".join(WORDS[word] for word in chosen)
        lines.append(json.dumps({"text": words, "label": ["bad", "good"][index % 2]}))
    (folder / f"{name}.jsonl").write_text("\n".join(lines))
    tokenizer = fields.pop("tokenizer", Tokenizer(str(folder / "tokenizer")))
    path = str(folder / f"{name}.jsonl")
    return TextFile(**{"tokenizer": tokenizer, "train": path, "length": 16, **fields})


class MeanOfTokens(nn.Module):
    """A network of texts that padding does not change."""

    def forward(self, tokens):
        counts = tokens != 0
        return torch.stack((tokens.sum(1) / counts.sum(1), counts.sum(1)), 1).float()


def test_features_are_in_the_order_of_the_texts_whatever_the_batches(data):
    inputs = data.split("train").inputs
    one_by_one = torch.cat([MeanOfTokens()(data.prepare(row[None])) for row in inputs])
    assert_close(encode(MeanOfTokens(), data, inputs), one_by_one)
    viewed = encode_views(MeanOfTokens(), data, BatchLoader(inputs), (), generator("x"))
    assert_close(viewed, one_by_one)


def test_images_pass_through_in_their_order_in_batches_of_one_size():
    data = Digits(size=8)
    inputs = data.split("train").inputs[:7]
    assert [batch.tolist() for batch in data.batches(inputs, 3)] == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize("size", [1, 7, 500])
def test_batches_hold_every_text_once_with_little_padding(size):
    lengths = torch.randint(1, 400, (3000,), generator=torch.Generator().manual_seed(0))
    ordered = lengths.sort().values.tolist()
    first = 0
    for end in batch_ends(ordered, size):
        batch = ordered[first:end]
        area = len(batch) * batch[-1]
        assert 1 <= len(batch) <= size
        assert len(batch) == 1 or area <= MOST_TOKENS
        assert sum(batch) >= (1 - MOST_PADDING) * area
        first = end
    assert first == len(lengths)


def test_training_batches_have_every_text_once_and_are_others_in_every_epoch(data):
    def epoch(seed):
        draw = generator("epoch", seed)
        examples = torch.randperm(len(data.split("train").labels), generator=draw)
        return examples, data.training_batches(examples, 5, draw)

    examples, batches = epoch(0)
    assert {len(batch) for batch in batches} == {5}
    kept = examples[: len(examples) // 5 * 5]
    assert sorted(torch.cat(batches).tolist()) == sorted(kept.tolist())
    lengths = data.lengths(data.split("train").inputs)
    spread = sum(int(lengths[batch].max() - lengths[batch].min()) for batch in batches)
    unsorted = sum(int(lengths[batch].max() - lengths[batch].min()) for batch in kept.split(5))
    assert spread < unsorted
    again, other = epoch(0)[1], epoch(1)[1]
    assert all(map(torch.equal, batches, again))
    both = [{frozenset(batch.tolist()) for batch in epoch} for epoch in (batches, other)]
    assert both[0].isdisjoint(both[1])


def test_prepared_texts_have_no_column_of_padding_alone(data):
    for batch in data.batches(data.split("train").inputs, 10):
        prepared = data.prepare(data.split("train").inputs[batch])
        assert prepared.dtype == torch.int64
        assert (prepared[:, -1] != data.tokenizer.pad).any()
        assert torch.equal(data.lengths(prepared), (prepared != data.tokenizer.pad).sum(1))


def test_a_set_of_another_domain_is_seen_with_the_same_tokenizer(data, tmp_path):
    other = reviews(tmp_path, "other")
    seen = SeenAs(other, data)
    assert seen.misfit() is None
    inputs = seen.split("test").inputs
    assert_close(encode(MeanOfTokens(), seen, inputs), encode(MeanOfTokens(), other, inputs))
    write_tokenizer(tmp_path / "t", ["film"])
    foreign = reviews(tmp_path, "f", tokenizer=Tokenizer(str(tmp_path / "t")))
    assert "must have the tokenizer of the encoder's data" in SeenAs(foreign, data).misfit()
    assert "must be texts" in SeenAs(Digits(size=8), data).misfit()


def test_noise_that_is_linear_in_the_inputs_refuses_texts(data):
    for noise in (InstanceNoise(), MarginNoise()):
        assert "must have inputs that are measurements" in noise.incompatibility(data)


# Tokenizers


def test_the_key_has_the_files_of_the_tokenizer_and_not_their_place(tmp_path):
    for name, words in (("a", WORDS), ("b", WORDS), ("c", WORDS[1:])):
        write_tokenizer(tmp_path / name, words)
    (tmp_path / "a" / "notes.txt").write_text("no file of a tokenizer")
    keys = [digest(Tokenizer(str(tmp_path / name))) for name in "abc"]
    assert keys[0] == keys[1] != keys[2]


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(FieldError, match=r"Tokenizer.folder must be a folder .*, got .*none"):
        Tokenizer(str(tmp_path / "none")).content()
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(FieldError, match=r"must hold a tokenizer .* holds model.safetensors"):
        Tokenizer(str(tmp_path)).content()
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(FieldError, match=r"must hold a tokenizer that transformers can read"):
        Tokenizer(str(tmp_path)).encode(["a"], 8)


def test_words_are_letters_and_digits_with_hyphens_and_apostrophes_inside():
    text = "Don't you like -- 2001's 'well-made' film?"
    words = [text[start:end] for start, end in word_spans(text)]
    assert words == ["Don't", "you", "like", "2001's", "well-made", "film"]


def byte_pairs(folder):
    from tokenizers import Tokenizer as Tokens
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|end|>"]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokens = Tokens(models.BPE(vocabulary, []))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<|end|>")
    fast.save_pretrained(str(folder))
    return Tokenizer(str(folder))


def test_a_tokenizer_without_padding_pads_with_the_end_of_a_text(tmp_path):
    tokenizer = byte_pairs(tmp_path / "t")
    assert tokenizer.decode([tokenizer.pad]) == ""
    assert tokenizer.pad not in tokenizer.encode(["a film"], 64)[0]


def test_too_short_a_length_is_refused(tmp_path):
    assert TextDataset.__dataclass_fields__["length"].default == 128
    with pytest.raises(FieldError, match=r"TextFile.length must be 4 or more, got 1"):
        reviews(tmp_path, length=1)
