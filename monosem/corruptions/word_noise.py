"""Noise of words in the test texts: dropped, swapped, replaced, or misspelt."""

from __future__ import annotations

import functools
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import gin
import torch
from torch import Generator, Tensor

from monosem.core.fields import Fraction
from monosem.corruptions.base import Corruption
from monosem.data.dataset import Dataset
from monosem.data.text import TextDataset

DRAWS = 3  # uniform numbers of every word
MOST_TEXTS = 10_000  # of the training split, whose words replace others


class Word(NamedTuple):
    """A word that is to be changed.

    place: which piece of the text it is.
    draws: uniform numbers that decide how, (DRAWS - 1,).
    """

    place: int
    draws: tuple[float, ...]


@dataclass(frozen=True)
class WordNoise(Corruption):
    """A share of the words of every test text is changed; the severity is that share.

    Of w words it is severity * w, rounded up or down at random so that the mean is exact. The
    words changed at a severity are among those changed at every larger one. Words are those of
    `Tokenizer.words`: a comma is none, and parts of don't may be two.
    """

    severities: ClassVar[Any] = Fraction
    what: ClassVar[str]

    @property
    def axis(self) -> str:
        return f"words of the test texts that are {self.what} (share)"

    def incompatibility(self, data: Dataset) -> str | None:
        if isinstance(data, TextDataset):
            return None
        return f"must be of texts, whose words are {self.what}, got {type(data).__name__}"

    def change(
        self, pieces: list[list[int]], places: Sequence[int], word: Word, data: TextDataset
    ) -> None:
        """Change a word, in place.

        pieces: the tokens of a text, piece by piece.
        places: which of them are words, ascending.
        """
        raise NotImplementedError

    def inputs(
        self, inputs: Tensor, data: Dataset, severity: float, generator: Generator
    ) -> Tensor:
        assert isinstance(data, TextDataset), "as incompatibility says"
        draws = torch.rand(*inputs.shape, DRAWS, generator=generator).tolist()
        roundings = torch.rand(len(inputs), generator=generator).tolist()
        rows = []
        for tokens, draws_of_row, rounding in zip(
            _unpadded(inputs, data), draws, roundings, strict=True
        ):
            rows.append(self._changed(tokens, data, severity, draws_of_row, rounding))
        longest = max(map(len, rows))
        pad = data.tokenizer.pad
        padded = [[*row, *[pad] * (longest - len(row))] for row in rows]
        return torch.tensor(padded, dtype=inputs.dtype, device=inputs.device)

    def _changed(
        self,
        tokens: list[int],
        data: TextDataset,
        severity: float,
        draws: Sequence[Sequence[float]],
        rounding: float,
    ) -> list[int]:
        spans = data.tokenizer.words(tokens)
        pieces, places = _pieces(tokens, spans)
        ranks = sorted(range(len(places)), key=lambda index: draws[index][0])
        count = min(int(severity * len(places) + rounding), len(places))
        for index in ranks[:count]:
            self.change(pieces, places, Word(places[index], tuple(draws[index][1:])), data)
        changed = [token for piece in pieces for token in piece]
        end = tokens[spans[-1][1] :] if spans else []
        if len(changed) <= max(data.length, len(tokens)):
            return changed if any(pieces[place] for place in places) else tokens
        return [*changed[: data.length - len(end)], *end]


def _unpadded(inputs: Tensor, data: TextDataset) -> list[list[int]]:
    lengths = data.lengths(inputs).tolist()
    rows = zip(inputs.tolist(), lengths, strict=True)
    return [row[: max(length, 1)] for row, length in rows]


def _pieces(
    tokens: list[int], spans: Sequence[tuple[int, int]]
) -> tuple[list[list[int]], list[int]]:
    """The tokens cut into words and what is between them; and which pieces are the words."""
    pieces: list[list[int]] = []
    places: list[int] = []
    done = 0
    for first, end in spans:
        pieces.append(tokens[done:first])
        places.append(len(pieces))
        pieces.append(tokens[first:end])
        done = end
    return [*pieces, tokens[done:]], places


@gin.register
@dataclass(frozen=True)
class WordDropping(WordNoise):
    """Words are left out. A text without any would be nothing: the last word of all stays."""

    what: ClassVar[str] = "dropped"

    def change(
        self, pieces: list[list[int]], places: Sequence[int], word: Word, data: TextDataset
    ) -> None:
        if sum(bool(pieces[place]) for place in places) > 1:
            pieces[word.place] = []


@gin.register
@dataclass(frozen=True)
class WordSwapping(WordNoise):
    """A word changes places with the next one; the last word with the first."""

    what: ClassVar[str] = "swapped"

    def change(
        self, pieces: list[list[int]], places: Sequence[int], word: Word, data: TextDataset
    ) -> None:
        other = places[(places.index(word.place) + 1) % len(places)]
        pieces[word.place], pieces[other] = pieces[other], pieces[word.place]


@gin.register
@dataclass(frozen=True)
class WordReplacing(WordNoise):
    """A word becomes a random word of the training texts, the frequent ones more often."""

    what: ClassVar[str] = "replaced"

    def change(
        self, pieces: list[list[int]], places: Sequence[int], word: Word, data: TextDataset
    ) -> None:
        pool = _training_words(data)
        pieces[word.place] = [*pool[int(word.draws[0] * len(pool))]]


@functools.lru_cache(maxsize=4)
def _training_words(data: TextDataset) -> list[tuple[int, ...]]:
    """The tokens of every word of the training texts, as often as it occurs."""
    words: list[tuple[int, ...]] = []
    for tokens in _unpadded(data.split("train").inputs[:MOST_TEXTS], data):
        words += [tuple(tokens[first:end]) for first, end in data.tokenizer.words(tokens)]
    return words


@gin.register
@dataclass(frozen=True)
class Misspelling(WordNoise):
    """A random character of a word is dropped, swapped with the next one, or replaced.

    A word of one character stays as it is, unless it is replaced. The word is tokenised anew.

    change_of: 'drop', 'swap' or 'replace', by a random letter from a to z.
    """

    what: ClassVar[str] = "misspelt"

    change_of: Literal["drop", "swap", "replace"] = "swap"

    @property
    def axis(self) -> str:
        return f"words of the test texts that are misspelt (share, {self.change_of})"

    def change(
        self, pieces: list[list[int]], places: Sequence[int], word: Word, data: TextDataset
    ) -> None:
        spelt = data.tokenizer.spell(pieces[word.place])
        changed = self._respelt(spelt, *word.draws)
        if changed != spelt:
            pieces[word.place] = data.tokenizer.encode_word(changed)

    def _respelt(self, word: str, where: float, which: float) -> str:
        if self.change_of == "replace":
            at = int(where * len(word))
            return word[:at] + string.ascii_lowercase[int(which * 26)] + word[at + 1 :]
        if len(word) < 2:
            return word
        if self.change_of == "drop":
            at = int(where * len(word))
            return word[:at] + word[at + 1 :]
        at = int(where * (len(word) - 1))
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
