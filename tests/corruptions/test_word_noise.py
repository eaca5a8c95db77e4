"""Noise of words: how many change, which, and that severities and tokenizers share their draws."""

from __future__ import annotations

import re

import pytest
import torch

pytest.importorskip("transformers")

from tiny_text import WORDS, write_tokenizer

from monosem.corruptions.base import Corruption
from monosem.corruptions.few_shot import FewShot
from monosem.corruptions.word_noise import (
    Misspelling,
    WordDropping,
    WordReplacing,
    WordSwapping,
)
from monosem.data.text import word_spans
from monosem.data.tokens import Tokenizer
from monosem.datasets.digits import Digits
from monosem.datasets.text_files import TextFile

NOISES = [WordDropping(), WordSwapping(), WordReplacing()]
NOISES += map(Misspelling, ("drop", "swap", "replace"))
TEN = "the film was good , but a story is not very dull"  # 11 words and a comma


@pytest.fixture
def data(tmp_path):
    return texts_in(tmp_path, WORDS)


def texts_in(folder, words):
    """200 test texts alike, and other training texts; a tokenizer that knows these words."""
    write_tokenizer(folder / f"tokenizer{len(words)}", words)
    rows = [
        f'"{" ".join(WORDS[i : i + 9])}",{label}\n' for i in range(12) for label in ("no", "yes")
    ]
    (folder / "train.csv").write_text("text,label\n" + "".join(rows))
    rows = [f'"{TEN}",{label}\n' for label in ("no", "yes") for _ in range(100)]
    (folder / "test.csv").write_text("text,label\n" + "".join(rows))
    return TextFile(
        tokenizer=Tokenizer(str(folder / f"tokenizer{len(words)}")),
        train=str(folder / "train.csv"),
        test=str(folder / "test.csv"),
        length=20,
    )


def noisy(noise, data, severity, repeat=0):
    """The test texts, changed."""
    draw = noise.draw(repeat, data)
    return [noise.noisy(text, data, severity, draw) for text in data.texts("test")]


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_severity_0_changes_nothing_and_draws_are_seeded(noise, data):
    assert noisy(noise, data, 0.0) == [TEN] * 200
    assert not noise.touches_inputs(0.0) and noise.touches_inputs(0.1)
    once, again, other = (noisy(noise, data, 0.6, repeat) for repeat in (0, 0, 1))
    assert once == again != other


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_the_inputs_are_the_tokens_of_the_changed_texts(noise, data):
    inputs = noise.stored_inputs(data, 0.7, noise.draw(0, data))
    clean = data.split("test").inputs
    assert (inputs.dtype, inputs.shape) == (clean.dtype, clean.shape)
    assert torch.equal(inputs, data.encode(noisy(noise, data, 0.7)))
    assert (inputs != clean).any(1).all()


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_signs_stay_and_there_is_one_space_between_words(noise, data):
    for text in noisy(noise, data, 0.7):
        assert text.count(",") == 1
        assert not re.search(r"  |^ | $", text)


@pytest.mark.parametrize("severity", [0.1, 0.25, 0.5])
def test_the_share_of_dropped_words_is_the_severity(severity, data):
    counts = torch.tensor([len(word_spans(text)) for text in noisy(WordDropping(), data, severity)])
    expected = 11 - severity * 11
    assert {*counts.tolist()} <= {int(expected), int(expected) + 1}
    assert abs(counts.double().mean() - expected) < 0.12


def test_what_is_dropped_at_a_severity_is_dropped_at_every_larger_one(data):
    rows = [noisy(WordDropping(), data, severity) for severity in (0.2, 0.5, 0.9)]
    for little, more, most in zip(*rows, strict=True):  # all words differ
        assert {*most.split()} <= {*more.split()} <= {*little.split()}


def test_replaced_words_stay_replaced_alike_at_every_larger_severity(data):
    rows = [noisy(WordReplacing(), data, severity) for severity in (0.0, 0.3, 0.8)]
    words = [[text.split() for text in texts] for texts in rows]
    changed = 0
    for clean, little, more in zip(*words, strict=True):
        for before, after, later in zip(clean, little, more, strict=True):
            assert after in (before, later)
            changed += after != before
    assert changed > 200


def test_a_text_keeps_one_word_when_all_are_dropped(data):
    assert {len(word_spans(text)) for text in noisy(WordDropping(), data, 1.0)} == {1}


def test_swapping_keeps_the_words_and_changes_their_order(data):
    for text in noisy(WordSwapping(), data, 0.5):
        assert sorted(text.split()) == sorted(TEN.split())
        assert text != TEN


def test_replacing_takes_words_of_the_training_texts(data):
    trained_on = {word for text in data.texts("train") for word in text.split()}
    replaced = {word for text in noisy(WordReplacing(), data, 1.0) for word in text.split()}
    assert replaced - {","} <= trained_on


SPELT = [("drop", 0.3, "flm"), ("swap", 0.4, "flim"), ("replace", 0.5, "fizm")]


@pytest.mark.parametrize(("change_of", "where", "spelt"), SPELT)
def test_a_misspelling_is_one_character(change_of, where, spelt):
    noise = Misspelling(change_of)
    assert noise._respelt("film", where, 0.99) == spelt
    assert len(noise._respelt("a", 0.0, 0.99)) == 1


@pytest.mark.parametrize("noise", [*NOISES, FewShot()], ids=repr)
def test_encoders_with_other_tokenizers_meet_the_same_noise(noise, data, tmp_path):
    other = texts_in(tmp_path, WORDS[:5])
    assert other.tokenizer.content() != data.tokenizer.content()
    draws = [noise.draw(1, each).initial_seed() for each in (data, other)]
    assert draws[0] == draws[1]
    if hasattr(noise, "noisy"):
        assert noisy(noise, data, 0.5, 1) == noisy(noise, other, 0.5, 1)


def test_other_texts_meet_other_noise(data, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text((tmp_path / "test.csv").read_text().replace("dull", "fine"))
    other = TextFile(tokenizer=data.tokenizer, train=data.train, test=str(path), length=20)
    seeds = [Corruption().draw(0, each).initial_seed() for each in (data, other)]
    assert seeds[0] != seeds[1]


def test_images_are_refused():
    assert "must be of texts" in WordDropping().incompatibility(Digits(size=8))
