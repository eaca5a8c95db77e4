"""Noise of words in the test texts: dropped, swapped, replaced, or misspelt."""

from __future__ import annotations

import functools
import string
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import gin
import torch
from torch import Generator, Tensor

from monosem.core.fields import Fraction
from monosem.corruptions.base import Corruption
from monosem.data.dataset import Dataset
from monosem.data.text import TextDataset, word_spans

DRAWS = 3  # uniform numbers of every word: which come first, and two for what becomes of it
MOST_TEXTS = 10_000  # of the training split, whose words replace others


class Draws(NamedTuple):
    """Uniform numbers for a text of w words. They do not depend on the severity.

    of_words: (w, DRAWS).
    rounding: whether severity * w is rounded up.
    """

    of_words: list[list[float]]
    rounding: float


@dataclass(frozen=True)
class WordNoise(Corruption):
    """A share of the words of every test text is changed; the severity is that share.

    Of w words it is severity * w, rounded up or down at random so that the mean is exact. The
    words changed at a severity are among those changed at every larger one. Words are those of
    `word_spans`, in the text as it was written, which is then cut into tokens anew. So encoders
    with other tokenizers meet the same noise.
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

    def change(self, words: list[str], at: int, draws: list[float], data: TextDataset) -> None:
        """Change a word, in place.

        words: all of the text; '' where one was dropped.
        at: which of them.
        draws: uniform numbers that decide how, DRAWS - 1.
        """
        raise NotImplementedError

    def stored_inputs(self, data: Dataset, severity: float, generator: Generator) -> Tensor:
        assert isinstance(data, TextDataset), "as incompatibility says"
        texts = data.texts("test")
        return data.encode([self.noisy(text, data, severity, generator) for text in texts])

    def noisy(self, text: str, data: TextDataset, severity: float, generator: Generator) -> str:
        """A text with that share of its words changed."""
        spans = word_spans(text)
        words = [text[start:end] for start, end in spans]
        draws = _draws(len(words), generator)
        order = sorted(range(len(words)), key=lambda index: draws.of_words[index][0])
        count = min(int(severity * len(words) + draws.rounding), len(words))
        for index in order[:count]:
            self.change(words, index, draws.of_words[index][1:], data)
        return _joined(text, spans, words)


def _draws(words: int, generator: Generator) -> Draws:
    numbers = torch.rand(words * DRAWS + 1, generator=generator).tolist()
    rounding = numbers.pop()
    return Draws(
        [numbers[first : first + DRAWS] for first in range(0, len(numbers), DRAWS)], rounding
    )


def _joined(text: str, spans: list[tuple[int, int]], words: list[str]) -> str:
    """The text with other words at its spans; a dropped one takes the space before it along."""
    pieces: list[str] = []
    done = 0
    for (start, end), word in zip(spans, words, strict=True):
        between = text[done:start]
        pieces += [between if word else between.removesuffix(" "), word]
        done = end
    return "".join([*pieces, text[done:]]).strip()


@gin.register
@dataclass(frozen=True)
class WordDropping(WordNoise):
    """Words are left out. A text without any would be nothing: the last word of all stays."""

    what: ClassVar[str] = "dropped"

    def change(self, words: list[str], at: int, draws: list[float], data: TextDataset) -> None:
        if sum(map(bool, words)) > 1:
            words[at] = ""


@gin.register
@dataclass(frozen=True)
class WordSwapping(WordNoise):
    """A word changes places with the next one; the last word with the first."""

    what: ClassVar[str] = "swapped"

    def change(self, words: list[str], at: int, draws: list[float], data: TextDataset) -> None:
        other = (at + 1) % len(words)
        words[at], words[other] = words[other], words[at]


@gin.register
@dataclass(frozen=True)
class WordReplacing(WordNoise):
    """A word becomes a random word of the training texts, the frequent ones more often."""

    what: ClassVar[str] = "replaced"

    def change(self, words: list[str], at: int, draws: list[float], data: TextDataset) -> None:
        pool = _training_words(data)
        words[at] = pool[int(draws[0] * len(pool))]


@functools.lru_cache(maxsize=4)
def _training_words(data: TextDataset) -> list[str]:
    """Every word of the training texts, as often as it occurs."""
    texts = data.texts("train")[:MOST_TEXTS]
    return [text[start:end] for text in texts for start, end in word_spans(text)]


@gin.register
@dataclass(frozen=True)
class Misspelling(WordNoise):
    """A random character of a word is dropped, swapped with the next one, or replaced.

    A word of one character stays as it is, unless it is replaced.

    change_of: 'drop', 'swap' or 'replace', by a random letter from a to z.
    """

    what: ClassVar[str] = "misspelt"

    change_of: Literal["drop", "swap", "replace"] = "swap"

    @property
    def axis(self) -> str:
        return f"words of the test texts that are misspelt (share, {self.change_of})"

    def change(self, words: list[str], at: int, draws: list[float], data: TextDataset) -> None:
        words[at] = self._respelt(words[at], *draws)

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
