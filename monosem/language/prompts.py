"""Prompts, and what is to follow them: made of texts with labels, of instructions, or of a file."""

from __future__ import annotations

import functools
import importlib.util
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import gin
import torch

from monosem.core.fields import Fraction, Part, PathField, Seed, nearest
from monosem.core.files import known_digest
from monosem.core.identity import generator
from monosem.data.dataset import SplitName
from monosem.data.packed import PackError, path_hint
from monosem.data.text import TextDataset
from monosem.data.tokens import Tokenizer
from monosem.datasets.text_files import READERS, as_word, decoded

SST2 = "Review: {text}\nIs this review negative or positive? Answer:"
INSTRUCTION = "Instruction: {instruction}\nResponse:"
WITH_CONTEXT = "Instruction: {instruction}\nContext: {context}\nResponse:"


# the field that says which column is meant, '' where none does; and the name of the column
Columns = tuple[tuple[str, str], ...]
PlacedRow = tuple[str, dict[str, str]]  # where it is, for messages; its cells by column


class Exchange(NamedTuple):
    """A prompt and its answer.

    prompt: what a model reads.
    answer: what is to follow it; '' where nothing is known of that.
    group: what it is of: a class, a category or a subject.
    """

    prompt: str
    answer: str
    group: str


class Tokens(NamedTuple):
    """An exchange in tokens.

    prompt: with what begins every text.
    answer: without what ends it.
    exchange: the same in words.
    """

    prompt: list[int]
    answer: list[int]
    exchange: Exchange


def tokens_of(exchange: Exchange, tokenizer: Tokenizer) -> Tokens:
    """An exchange as one text, cut where it stops being the prompt.

    So the answer's first token is the one that is next to the prompt: tokenised alone, a word may
    be another token.
    """
    prompt = tokenizer.encode_open(exchange.prompt)
    together = tokenizer.encode_open(exchange.prompt + spaced(exchange.prompt, exchange.answer))
    common = 0
    for own, other in zip(prompt, together, strict=False):
        if own != other:
            break
        common += 1
    return Tokens(together[:common] if exchange.answer else prompt, together[common:], exchange)


def spaced(prompt: str, answer: str) -> str:
    """An answer as it follows a prompt."""
    return answer if not prompt or prompt[-1].isspace() else f" {answer}"


@functools.lru_cache(maxsize=8)
def drawn(
    texts: Exchanges, split: SplitName, tokenizer: Tokenizer, count: int, length: int, seed: int
) -> list[Tokens]:
    """The first `count` of a random order whose prompt and answer are `length` tokens together.

    Longer ones are left out rather than cut: an answer to half a prompt is no answer. There may be
    fewer.
    """
    exchanges = texts.exchanges(split)
    order = torch.randperm(len(exchanges), generator=generator("exchanges", split, seed))
    chosen: list[Tokens] = []
    for index in order.tolist():
        if len(chosen) == count:
            break
        tokens = tokens_of(exchanges[index], tokenizer)
        if len(tokens.prompt) + len(tokens.answer) <= length:
            chosen.append(tokens)
    return chosen


def check_template(
    part: Part, field: str, names: Sequence[str], ends_in_words: bool = False
) -> None:
    """Refuse a template that does not have each of the names in braces, and no others.

    ends_in_words: it must go on behind the last of them, so that all prompts end alike.
    """
    template: str = getattr(part, field)
    wanted = " and ".join(f"{{{name}}}" for name in names)
    try:
        found = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        part.refuse(field, f"must be a text with {wanted}: {error}, got {template!r}")
    if set(found) != set(names):
        part.refuse(field, f"must have {wanted} and no other braces, got {template!r}")
    if ends_in_words and template.rstrip().endswith("}"):
        part.refuse(field, f"must end in words, as in '... Answer:', got {template!r}")


@dataclass(frozen=True, kw_only=True)
class Exchanges(Part):
    """Prompts, most with answers, in a training and a test split."""

    def exchanges(self, split: SplitName) -> list[Exchange]:
        """Those of a split, in the order of their file. Raises FieldError."""
        raise NotImplementedError


@gin.register
@dataclass(frozen=True, kw_only=True)
class LabelWords(Exchanges):
    """Labelled texts as prompts whose answer is one word, as SST-2 is put to a language model.

    data: the texts.
    prompt: has {text}. The paper does not print its own.
    words: by label, in the order of the classes.
    """

    data: TextDataset
    prompt: str = SST2
    words: tuple[str, ...] = ("negative", "positive")

    def validate(self) -> None:
        check_template(self, "prompt", ["text"], ends_in_words=True)
        if len(set(self.words)) < max(len(self.words), 2):
            self.refuse("words", f"must be 2 or more that differ, got {self.words}")

    def exchanges(self, split: SplitName) -> list[Exchange]:
        names = self.data.class_names
        if len(names) != len(self.words):
            self.refuse(
                "words",
                f"must be {len(names)}, one for each class ({', '.join(names[:5])}), "
                f"got {len(self.words)}",
            )
        labels = self.data.split(split).labels.tolist()
        return [
            Exchange(self.prompt.format(text=text.strip()), self.words[label], self.words[label])
            for text, label in zip(self.data.texts(split), labels, strict=True)
        ]


# Files


@dataclass(frozen=True, kw_only=True)
class PromptTable(Part):
    """What is read from a table: .csv, .tsv (with a first line of names) or .jsonl (UTF-8).

    file: the table. What it holds is in the key, its place is not.
    """

    file: PathField

    def content(self) -> str:
        path = Path(self.file)
        if not path.is_file():
            self.refuse("file", f"must be there, got {path}{path_hint(path)}")
        return known_digest(path)

    def rows(self, columns: Columns) -> list[PlacedRow]:
        """All rows. Raises FieldError."""
        return _read(self, self.content(), columns)

    def read(self, columns: Columns) -> list[PlacedRow]:
        """The same, from the file."""
        suffix = Path(self.file).suffix.lower()
        if suffix not in READERS:
            self.refuse("file", f"must be one of {', '.join(READERS)}, got {self.file}")
        rows: list[PlacedRow] = []
        try:
            text = decoded(Path(self.file).read_bytes(), self.file)
            for line, row in READERS[suffix](text, self.file):
                place = f"{self.file}, line {line}"
                self._check_columns(row, columns, place)
                rows.append((place, {name: _cell(row[name]) for _, name in columns}))
        except PackError as error:
            self.refuse("file", str(error))
        if not rows:
            self.refuse("file", f"must hold prompts; {self.file} holds none")
        return rows

    def _check_columns(self, row: dict[str, Any], wanted: Columns, at: str) -> None:
        for field, name in wanted:
            if name not in row:
                hint = nearest(name, row, "; did you mean {}?")
                columns = ", ".join(map(str, row))
                self.refuse(
                    field or "file", f"must be a column, got {name!r}; {at} has {columns}{hint}"
                )


def _cell(value: object) -> str:
    return as_word(value).strip()


@gin.register
@dataclass(frozen=True, kw_only=True)
class Dolly(PromptTable, Exchanges):
    """Instructions that people wrote and answered, as in databricks-dolly-15k.jsonl.

    Columns: instruction, context (may be empty), response, category. Rows without an instruction
    or a response are left out. The file has no splits: `share` of a seeded order is the test.

    prompt: has {instruction}. The paper does not print its own.
    prompt_with_context: has {instruction} and {context}; for rows that have one.
    share: of the rows that is for the test.
    seed: of that split.
    """

    COLUMNS: ClassVar = ("instruction", "context", "response", "category")
    prompt: str = INSTRUCTION
    prompt_with_context: str = WITH_CONTEXT
    share: Fraction = 0.1
    seed: Seed = 0

    def validate(self) -> None:
        check_template(self, "prompt", ["instruction"])
        check_template(self, "prompt_with_context", ["instruction", "context"])

    def exchanges(self, split: SplitName) -> list[Exchange]:
        everything = self.rows(tuple(("", name) for name in self.COLUMNS))
        rows = [row for _, row in everything if row["instruction"] and row["response"]]
        order = torch.randperm(len(rows), generator=generator("split", self.seed)).tolist()
        held_out = round(self.share * len(rows))
        if not 0 < held_out < len(rows):
            self.refuse("share", f"must leave rows in both splits of {len(rows)}, got {self.share}")
        chosen = sorted(order[:held_out] if split == "test" else order[held_out:])
        return [self._exchange(rows[index]) for index in chosen]

    def _exchange(self, row: dict[str, str]) -> Exchange:
        template = self.prompt_with_context if row["context"] else self.prompt
        prompt = template.format(instruction=row["instruction"], context=row["context"])
        return Exchange(prompt, row["response"], row["category"] or "none")


@gin.register
@dataclass(frozen=True, kw_only=True)
class PromptFile(PromptTable, Exchanges):
    """Prompts of a file that a model is to answer, without any right answer.

    text: the name of the column of prompts.
    category: that of their categories; None has them all in one, 'all'.
    prompt: has {text}; what a chat model needs around it.
    """

    text: str = "prompt"
    category: str | None = "category"
    prompt: str = "{text}"

    def validate(self) -> None:
        check_template(self, "prompt", ["text"])

    def exchanges(self, split: SplitName) -> list[Exchange]:
        columns = [("text", self.text)]
        if self.category is not None:
            columns.append(("category", self.category))
        exchanges = []
        for place, row in self.rows(tuple(columns)):
            group = row[self.category] if self.category is not None else "all"
            if not row[self.text] or not group:
                reason = f"must have a prompt and a category everywhere; {place} has not"
                self.refuse("file", reason)
            exchanges.append(Exchange(self.prompt.format(text=row[self.text]), "", group))
        return exchanges


@functools.lru_cache(maxsize=8)
def _read(table: PromptTable, content: str, columns: Columns) -> list[PlacedRow]:
    """content: so that a file that has changed is read again."""
    return table.read(columns)


def require(package: str, part: Part, field: str) -> None:
    """Refuse a field that needs a package which is not installed."""
    if importlib.util.find_spec(package.replace("-", "_")) is None:
        part.refuse(field, f"needs {package}: pip install {package}")
