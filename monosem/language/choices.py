"""The next word among a few: the label of a text, or the letter of a choice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import gin
import torch
from torch import Tensor

from monosem.core.fields import Count, Part, Range, Seed
from monosem.core.stage import Artifact, Job
from monosem.data.dataset import SplitName
from monosem.data.tokens import Tokenizer
from monosem.language.answers import as_tensors, measure_remark, measure_results
from monosem.language.decoding import Rows, each_batch, next_logits
from monosem.language.models import ALL, LanguageModel, LanguagePanel
from monosem.language.prompts import (
    Exchange,
    Exchanges,
    LabelWords,
    PromptTable,
    check_template,
    drawn,
    tokens_of,
)
from monosem.learning.adapters import watched
from monosem.robustness.measurement import Result

LETTERS = ("A", "B", "C", "D")
QUESTION = "{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\nAnswer:"


class Question(NamedTuple):
    """A prompt and which of the words is to follow it.

    tokens: of the prompt.
    right: the position of the word.
    group: what it is of.
    """

    tokens: list[int]
    right: int
    group: str


def first_tokens(
    part: Part, field: str, tokenizer: Tokenizer, prompt: str, words: Sequence[str]
) -> list[int]:
    """The token that each of these words begins with, where it follows a prompt.

    Refuses a field of `part` where two begin alike, or where the vocabulary lacks one: the next
    token could not tell.
    """
    first: dict[int, str] = {}
    for word in words:
        answer = tokens_of(Exchange(prompt, word, ""), tokenizer).answer
        if not answer or not tokenizer.knows(answer[:1]):
            part.refuse(field, f"must be words that the model knows, got {word!r}")
        if answer[0] in first:
            part.refuse(
                field, f"must begin with tokens that differ, not so {first[answer[0]]!r}, {word!r}"
            )
        first[answer[0]] = word
    return list(first)


def chosen(
    model: LanguageModel, questions: Sequence[Question], words: Sequence[int], job: Job
) -> tuple[Tensor, dict[str, float]]:
    """What a model says next.

    words: the first tokens of those that it may choose from.
    Returns (n, 2) int64, the word that is most probable among them and whether it is the most
    probable of all tokens (1, or 0); and the measures of an adapter.
    """
    network, pad = model.network(job.get), model.transformer.tokenizer.pad

    def choose(rows: Rows) -> Tensor:
        logits = next_logits(network, rows, pad)
        best = logits[:, list(words)].argmax(1)
        among = torch.tensor(words, device=logits.device)[best]
        return torch.stack([best, (logits.argmax(1) == among).long()], 1)

    def report(done: int) -> None:
        job.log(done, len(questions), answers=done)

    with watched(network) as measures:
        said = each_batch([question.tokens for question in questions], choose, report)
        return said, measures() if model.measures else {}


@gin.register
@dataclass(frozen=True, kw_only=True)
class NextWord(LanguagePanel):
    """How often the word of a text's class is the next word after its prompt.

    label_accuracy: it is more probable than the words of the other classes. word_accuracy: it is
    the most probable of the whole vocabulary, so that it would be said. Both by the first token of
    a word, in percent. The paper does not say which it has.

    texts: of the test split.
    examples: so many of them, drawn; the paper has 1,000. Fewer where there are fewer.
    length: tokens of a prompt and its word; longer ones are left out.
    seed: of the draw.

    Artifact:
        right, said  (n,)  int64, whether each of the two holds
        measure/*    ()    of the adapter, while it read
    """

    texts: LabelWords
    examples: Count = 1000
    length: Annotated[int, Range(4)] = 512
    seed: Seed = 0

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("label_accuracy", "word_accuracy", *self.model.measures)

    def preflight(self) -> None:
        self.model.check_reading()
        self.model.transformer.check_length(self, "length", self.length)
        self._words()
        if not self._questions():
            self.refuse("length", f"must leave texts; all have more than {self.length} tokens")

    def _words(self) -> list[int]:
        texts = self.texts
        tokenizer = self.model.transformer.tokenizer
        return first_tokens(texts, "words", tokenizer, texts.prompt.format(text=""), texts.words)

    def _questions(self) -> list[Question]:
        tokenizer = self.model.transformer.tokenizer
        words = self.texts.words
        return [
            Question(tokens.prompt, words.index(tokens.exchange.answer), tokens.exchange.group)
            for tokens in drawn(
                self.texts, "test", tokenizer, self.examples, self.length, self.seed
            )
        ]

    def run(self, job: Job) -> Artifact:
        questions = self._questions()
        said, measured = chosen(self.model, questions, self._words(), job)
        right = said[:, 0] == torch.tensor([question.right for question in questions])
        return {
            "right": right.long(),
            "said": (right & (said[:, 1] == 1)).long(),
            **as_tensors(measured),
        }

    def results(self, artifact: Artifact) -> Iterator[Result]:
        for metric, name in (("label_accuracy", "right"), ("word_accuracy", "said")):
            values = artifact[name].double()
            yield Result(0.0, 0, metric, 100 * float(values.mean()), len(values), ALL)
        yield from measure_results(artifact, ALL, len(artifact["right"]))

    def remarks(self, artifact: Artifact) -> Iterator[str]:
        said = 100 * float(artifact["said"].double().mean())
        yield f"the right word is the next of the whole vocabulary for {said:.2f} %"
        yield from measure_remark(artifact)


# Multiple choice


@gin.register
@dataclass(frozen=True, kw_only=True)
class ChoiceFile(PromptTable, Exchanges):
    """Questions with four choices and the letter of the right one, as MMLU has them.

    Columns: question, A, B, C, D, answer.

    subject: the name of the column of subjects; None has them all in one, 'all'.
    prompt: has {question}, {A}, {B}, {C} and {D}.
    """

    subject: str | None = None
    prompt: str = QUESTION

    def validate(self) -> None:
        check_template(self, "prompt", ["question", *LETTERS], ends_in_words=True)

    def exchanges(self, split: SplitName) -> list[Exchange]:
        columns = [("", name) for name in ("question", *LETTERS, "answer")]
        if self.subject is not None:
            columns.append(("subject", self.subject))
        exchanges = []
        for place, row in self.rows(tuple(columns)):
            if row["answer"] not in LETTERS:
                reason = f"must have answers A, B, C or D; {place} has {row['answer']!r}"
                self.refuse("file", reason)
            shown = {name: row[name] for name in ("question", *LETTERS)}
            group = row[self.subject] if self.subject is not None else ALL
            exchanges.append(Exchange(self.prompt.format(**shown), row["answer"], group))
        return exchanges


@gin.register
@dataclass(frozen=True, kw_only=True)
class MultipleChoice(LanguagePanel):
    """The share of questions whose right letter is the most probable of the four, in percent.

    Nothing is shown before a question ('zero-shot'). Its points are the subjects, and 'all': of all
    questions, each counted alike.

    questions: all of the file.

    Artifact:
        right      (n,)  int64, 1 or 0
        measure/*  ()    of the adapter, while it read
    """

    questions: ChoiceFile

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("right_letter", *self.model.measures)

    @property
    def names(self) -> tuple[str, ...]:
        exchanges = self.questions.exchanges("test")
        return tuple(dict.fromkeys([*(exchange.group for exchange in exchanges), ALL]))

    def preflight(self) -> None:
        self.model.check_reading()
        self._letters()
        longest = max(len(question.tokens) for question in self._questions())
        self.model.transformer.check_length(self, "questions", longest + 1)

    def _letters(self) -> list[int]:
        template = self.questions.prompt
        prompt = template.format(question="", **dict.fromkeys(LETTERS, ""))
        tokenizer = self.model.transformer.tokenizer
        return first_tokens(self.questions, "prompt", tokenizer, prompt, LETTERS)

    def _questions(self) -> list[Question]:
        tokenizer = self.model.transformer.tokenizer
        return [
            Question(
                tokens_of(exchange, tokenizer).prompt,
                LETTERS.index(exchange.answer),
                exchange.group,
            )
            for exchange in self.questions.exchanges("test")
        ]

    def run(self, job: Job) -> Artifact:
        questions = self._questions()
        said, measured = chosen(self.model, questions, self._letters(), job)
        right = said[:, 0] == torch.tensor([question.right for question in questions])
        return {"right": right.long(), **as_tensors(measured)}

    def results(self, artifact: Artifact) -> Iterator[Result]:
        right = artifact["right"].double()
        groups = [exchange.group for exchange in self.questions.exchanges("test")]
        for name in self.names:
            members = torch.tensor([name in (group, ALL) for group in groups])
            values = right[members]
            yield Result(0.0, 0, "right_letter", 100 * float(values.mean()), len(values), name)
        yield from measure_results(artifact, ALL, len(right))

    def remarks(self, artifact: Artifact) -> Iterator[str]:
        yield from measure_remark(artifact)
