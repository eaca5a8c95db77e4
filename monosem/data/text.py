"""Texts as inputs: tokens, packed once, and how they are batched by length and shown."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from monosem.core.device import device
from monosem.core.fields import FieldError, Range
from monosem.core.identity import digest
from monosem.data.dataset import Augmentation, Dataset, Occlusions, SplitName
from monosem.data.packed import Packed, PackError, SplitSource, Stream
from monosem.data.tokens import Tokenizer

BLOCK = 1000  # texts that are tokenised at a time
WORD = re.compile(r"\w(?:[\w'\u2019-]*\w)?")
MOST_PADDING = 0.1  # share of the tokens of a batch
POOL = 50  # training batches that are sorted by length together
MOST_TOKENS = 16_384  # of a batch: it bounds memory


class Texts(NamedTuple):
    """A split in words.

    texts: n of them.
    labels: (n,) whole numbers.
    class_names: by label.
    """

    texts: Sequence[str]
    labels: Sequence[int]
    class_names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TextDataset(Packed):
    """Labelled texts, kept as tokens (n, length) int32, the end of every row filled up with `pad`.

    A network takes int64 tokens (n, longest of these). What is not `tokenizer.pad` counts.

    tokenizer: that of the encoder.
    length: tokens of a text, special ones included; what is beyond is cut off.
    """

    pieces: ClassVar[str] = "words"
    tokenizer: Tokenizer
    length: Annotated[int, Range(4)] = 128

    @property
    def noun(self) -> str:
        return "texts"

    def read(self, split: SplitName) -> Texts:
        """The texts of a split. Raises PackError, FieldError or OSError."""
        raise NotImplementedError

    def files(self, split: SplitName) -> Sequence[str]:
        """The files that a split is read from."""
        raise NotImplementedError

    def options(self, split: SplitName) -> tuple[object, ...]:
        """What else the texts and the labels depend on; plain JSON data."""
        return ()

    def source(self, split: SplitName) -> SplitSource:
        options = (self.tokenizer.content(), self.length, *self.options(split))
        return SplitSource(self.files(split), options, functools.partial(self._stream, split))

    def _stream(self, split: SplitName) -> Stream:
        texts, labels, names = self.read(split)
        blocks = self._blocks(texts)
        return Stream(labels, (self.length,), nullcontext(blocks), names, "int32", "texts")

    def _blocks(self, texts: Sequence[str]) -> Iterator[np.ndarray[Any, Any]]:
        for start in range(0, len(texts), BLOCK):
            yield self._tokens(texts[start : start + BLOCK])

    def _tokens(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        """(texts, length) int32, padded."""
        rows = np.full((len(texts), self.length), self.tokenizer.pad, np.int32)
        tokens = self.tokenizer.encode(texts, self.length) if texts else []
        for row, of_text in zip(rows, tokens, strict=True):
            row[: len(of_text)] = of_text
        return rows

    def texts(self, split: SplitName) -> Sequence[str]:
        """The texts of a split as they were written."""
        return _read_once(self, split).texts

    @property
    def seeding(self) -> object:
        """The texts and their labels: the same for every tokenizer, length and place."""
        return type(self).__name__, *(_digest_once(self, split) for split in self.splits)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(n, length) int32: texts of any kind as the dataset stores its own."""
        return torch.from_numpy(self._tokens(texts))

    def lengths(self, tokens: Tensor) -> Tensor:
        """(n, any) tokens -> (n,) how many of them are before the padding."""
        positions = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        return ((tokens != self.tokenizer.pad) * positions).amax(1)

    def prepare(self, inputs: Tensor) -> Tensor:
        tokens = inputs.to(device()).long()
        return tokens[:, : max(int(self.lengths(tokens).max()), 1)]

    def augment(
        self, inputs: Tensor, views: Sequence[Augmentation], generator: Generator
    ) -> Tensor:
        tokens = self.prepare(inputs)
        for view in views:
            tokens = view(tokens, generator)
        return tokens

    def batches(self, inputs: Tensor, size: int) -> list[Tensor]:
        """By length, the shortest first, with at most MOST_PADDING of padding in a batch."""
        lengths, order = self.lengths(inputs).sort(stable=True)
        ends = batch_ends(lengths.tolist(), size)
        return [*order.tensor_split(ends[:-1])]

    def training_batches(self, examples: Tensor, size: int, generator: Generator) -> list[Tensor]:
        """Texts of about one length go together: POOL batches at a time are sorted by length.

        Of few texts it is a quarter of the batches, so that other texts meet in every epoch. The
        order of all batches is random.
        """
        lengths = _lengths_of_training(self).to(examples.device)
        return pooled_batches(examples, lengths, size, generator)

    def show(self, indices: Sequence[int]) -> list[str]:
        texts = self.texts("test")
        return [texts[index] for index in indices]

    def occlusions(self, index: int) -> Occlusions:
        """A test text without one of its words at a time; a word is letters, digits, ' and -."""
        (text,) = self.show([index])
        spans = word_spans(text)
        texts = [text[:start] + text[end:] for start, end in spans]
        return Occlusions(spans, self.encode(texts))

    def mismatch(self, other: Dataset) -> str | None:
        if not isinstance(other, TextDataset):
            return f"must be texts, as the encoder takes them, got {type(other).__name__}"
        if other.tokenizer.content() == self.tokenizer.content():
            return None
        return (
            f"must have the tokenizer of the encoder's data, {self.tokenizer.folder}, "
            f"got {other.tokenizer.folder}"
        )

    def problem_of_inputs(self, inputs: Tensor) -> str | None:
        if inputs.dtype == torch.int32 and inputs.ndim == 2:
            return None
        return "must hold int32 tokens (n, length)"


def word_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of every word: letters and digits, with ' and - inside."""
    return [match.span() for match in WORD.finditer(text)]


def pooled_batches(
    examples: Tensor, lengths: Tensor, size: int, generator: Generator
) -> list[Tensor]:
    """Batches of `size` texts that are of about one length, in a random order.

    examples: (m,) in a random order, on the device of the generator.
    lengths: (n,) tokens of all texts.
    """
    count = len(examples) // size
    batches: list[Tensor] = []
    for pool in examples[: count * size].split(size * min(max(count // 4, 1), POOL)):
        batches += pool[lengths[pool].argsort(stable=True)].split(size)
    turns = torch.randperm(len(batches), generator=generator, device=generator.device)
    return [batches[turn] for turn in turns.tolist()]


def batch_ends(lengths: Sequence[int], size: int) -> list[int]:
    """Where batches of texts end, the last one included.

    lengths: (n,) tokens of the texts, ascending.
    size: texts of a batch, at most.
    """
    ends: list[int] = []
    first, tokens = 0, 0
    for index, length in enumerate(lengths):
        rows = index - first + 1
        tokens += length
        padding = 1 - tokens / max(rows * length, 1)
        if rows > 1 and (rows > size or rows * length > MOST_TOKENS or padding > MOST_PADDING):
            ends.append(index)
            first, tokens = index, length
    return [*ends, len(lengths)]


@functools.lru_cache(maxsize=8)
def _lengths_of_training(data: TextDataset) -> Tensor:
    """Asked for at every epoch."""
    return data.lengths(data.split("train").inputs)


@functools.lru_cache(maxsize=8)
def _read_once(data: TextDataset, split: SplitName) -> Texts:
    try:
        return data.read(split)
    except (PackError, OSError) as error:  # files that have changed since they were packed
        raise FieldError(type(data).__name__, data.origin(split), "", str(error)) from None


@functools.lru_cache(maxsize=8)
def _digest_once(data: TextDataset, split: SplitName) -> str:
    """Asked for at every draw."""
    texts, labels, _ = _read_once(data, split)
    return digest([*texts], [*labels])
