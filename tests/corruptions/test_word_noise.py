"""Noise of words: how many change, which, and that severities share their draws."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from tiny_text import WORDS, write_tokenizer

from monosem.corruptions.word_noise import (
    Misspelling,
    WordDropping,
    WordReplacing,
    WordSwapping,
)
from monosem.data.tokens import Tokenizer
from monosem.datasets.digits import Digits
from monosem.datasets.text_files import TextFile

NOISES = [WordDropping(), WordSwapping(), WordReplacing()]
NOISES += map(Misspelling, ("drop", "swap", "replace"))
TEN = "the film was good , but a story is not very dull"  # 11 words and a comma


@pytest.fixture
def data(tmp_path):
    write_tokenizer(tmp_path / "tokenizer")
    rows = [f'"{TEN}",bad\n"{" ".join(WORDS[i : i + 9])}",good\n' for i in range(12)]
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(rows))
    tokenizer = Tokenizer(str(tmp_path / "tokenizer"))
    return TextFile(tokenizer=tokenizer, train=str(tmp_path / "a.csv"), length=20)


def noisy(noise, data, severity, texts=(TEN,) * 200, repeat=0):
    tokens = data.tokenizer.encode(texts, data.length)
    inputs = torch.full((len(texts), max(map(len, tokens))), data.tokenizer.pad)
    for row, of_text in zip(inputs, tokens, strict=True):
        row[: len(of_text)] = torch.tensor(of_text)
    return inputs, noise.inputs(inputs, data, severity, noise.draw(repeat, data))


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_severity_0_changes_nothing_and_draws_are_seeded(noise, data):
    inputs, same = noisy(noise, data, 0.0)
    assert torch.equal(inputs, same)
    once, again, other = (noisy(noise, data, 0.6, repeat=repeat)[1] for repeat in (0, 0, 1))
    assert torch.equal(once, again)
    assert once.shape != other.shape or not torch.equal(once, other)


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_signs_and_special_tokens_stay(noise, data):
    inputs, changed = noisy(noise, data, 0.7)
    comma, pad = data.tokenizer.encode_word(",")[0], data.tokenizer.pad
    for before, after in zip(inputs.tolist(), changed.tolist(), strict=True):
        after = [token for token in after if token != pad]
        assert (after[0], after[-1]) == (before[0], before[-1])
        assert after.count(comma) == 1


@pytest.mark.parametrize("severity", [0.1, 0.25, 0.5])
def test_the_share_of_dropped_words_is_the_severity(severity, data):
    _, changed = noisy(WordDropping(), data, severity)
    words = (data.lengths(changed) - 3).double()  # without 2 special tokens and a comma
    expected = 12 - 1 - severity * 11
    assert {*words.tolist()} <= {int(expected), int(expected) + 1}
    assert abs(words.mean() - expected) < 0.12


def test_what_is_dropped_at_a_severity_is_dropped_at_every_larger_one(data):
    rows = [noisy(WordDropping(), data, s)[1].tolist() for s in (0.2, 0.5, 0.9)]
    pad = {data.tokenizer.pad}
    for little, more, most in zip(*rows, strict=True):
        assert {*most} - pad <= {*more} - pad <= {*little}  # all words differ


def test_replaced_words_stay_replaced_alike_at_every_larger_severity(data):
    inputs, little = noisy(WordReplacing(), data, 0.3)
    _, more = noisy(WordReplacing(), data, 0.8)
    changed = little != inputs
    assert changed.any() and torch.equal(little[changed], more[changed])


def test_a_text_keeps_one_word_when_all_are_dropped(data):
    _, changed = noisy(WordDropping(), data, 1.0)
    assert data.lengths(changed).tolist() == [4] * 200


def test_swapping_keeps_the_words_and_changes_their_order(data):
    inputs, changed = noisy(WordSwapping(), data, 0.5)
    assert torch.equal(inputs.sort(1).values, changed.sort(1).values)
    assert (inputs != changed).any(1).all()


def test_replacing_takes_words_of_the_training_texts(data):
    _, changed = noisy(WordReplacing(), data, 1.0)
    assert {*changed.unique().tolist()} <= {*data.split("train").inputs.unique().tolist()}


SPELT = [("drop", 0.3, "flm"), ("swap", 0.4, "flim"), ("replace", 0.5, "fizm")]


@pytest.mark.parametrize(("change_of", "where", "spelt"), SPELT)
def test_a_misspelling_is_one_character(change_of, where, spelt):
    noise = Misspelling(change_of)
    assert noise._respelt("film", where, 0.99) == spelt
    assert len(noise._respelt("a", 0.0, 0.99)) == 1


def test_images_are_refused():
    assert "must be of texts" in WordDropping().incompatibility(Digits(size=8))
