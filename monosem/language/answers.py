"""What a language model answers to prompts, kept once for whatever judges it; and ROUGE-L of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import gin
import torch
from torch import Tensor

from monosem.core.fields import Count, Range, Seed
from monosem.core.stage import Artifact, Job, Stage
from monosem.language.decoding import Rows, each_batch, greedy
from monosem.language.models import ALL, LanguageModel, LanguagePanel
from monosem.language.prompts import Exchange, Exchanges, Tokens, drawn, require
from monosem.learning.adapters import watched
from monosem.robustness.measurement import Result

MEASURE = "measure/"  # before the names of an adapter's measures in an artifact


@dataclass(frozen=True, kw_only=True)
class Answers(Stage):
    """What a language model says to the prompts of a test split, word by most probable word.

    model: that answers.
    texts: the prompts.
    examples: so many of them, drawn; fewer where there are fewer that fit.
    length: tokens of a prompt and its right answer, where one is known; longer ones are left out.
    new_tokens: of an answer, at most.
    seed: of the draw.

    Artifact:
        tokens     (n, new_tokens)  int32, -1 behind the end of an answer
        measure/*  ()               of the adapter, while it answered
    """

    model: LanguageModel
    texts: Exchanges
    examples: Count
    length: Annotated[int, Range(1)]
    new_tokens: Count
    seed: Seed

    def preflight(self) -> None:
        self.model.check_reading()
        transformer = self.model.transformer
        transformer.check_length(self, "new_tokens", self.length + self.new_tokens)
        if not self.drawn():
            reason = f"must leave prompts; all of them have more than {self.length} tokens"
            self.refuse("length", reason)

    def upstream(self) -> tuple[Stage, ...]:
        return self.model.stages

    def drawn(self) -> list[Tokens]:
        """The prompts, in the order of the answers."""
        tokenizer = self.model.transformer.tokenizer
        return drawn(self.texts, "test", tokenizer, self.examples, self.length, self.seed)

    def exchanges(self) -> list[Exchange]:
        """The prompts with their right answers."""
        return [tokens.exchange for tokens in self.drawn()]

    def spoken(self, artifact: Artifact) -> list[str]:
        """The answers in words."""
        tokenizer = self.model.transformer.tokenizer
        return [
            tokenizer.decode(token for token in row if token >= 0)
            for row in artifact["tokens"].tolist()
        ]

    def run(self, job: Job) -> Artifact:
        network = self.model.network(job.get)
        transformer = self.model.transformer
        ends, pad = transformer.ends, transformer.tokenizer.pad
        prompts = [tokens.prompt for tokens in self.drawn()]

        def answer(rows: Rows) -> Tensor:
            return greedy(network, rows, self.new_tokens, ends, pad)

        def report(done: int) -> None:
            job.log(done, len(prompts), answers=done)

        with watched(network) as measures:
            tokens = each_batch(prompts, answer, report)
            measured = measures() if self.model.measures else {}
        return {"tokens": tokens, **as_tensors(measured)}


def as_tensors(measured: Mapping[str, float]) -> dict[str, Tensor]:
    """An adapter's measures for an artifact."""
    return {
        f"{MEASURE}{name}": torch.tensor(value, dtype=torch.float64)
        for name, value in measured.items()
    }


def measures_in(artifact: Artifact) -> dict[str, float]:
    """The same, read back."""
    return {
        name.removeprefix(MEASURE): float(value)
        for name, value in artifact.items()
        if name.startswith(MEASURE)
    }


def measure_results(artifact: Artifact, point: str, n: int) -> Iterator[Result]:
    """An adapter's measures as numbers of the table, at one point."""
    for name, value in measures_in(artifact).items():
        yield Result(0.0, 0, name, value, n, point)


def measure_remark(artifact: Artifact) -> Iterator[str]:
    """An adapter's measures as a line of the summary."""
    if measured := measures_in(artifact):
        yield ", ".join(f"{name} {value:.2f} %" for name, value in measured.items())


@dataclass(frozen=True, kw_only=True)
class AnsweredPanel(LanguagePanel):
    """A measurement of what a language model answers.

    length: tokens of a prompt; longer ones are left out.
    new_tokens: of an answer, at most.
    examples: so many prompts, drawn; fewer where there are fewer.
    seed: of the draw.
    """

    length: Annotated[int, Range(1)] = 512
    new_tokens: Count = 128
    examples: Count = 1000
    seed: Seed = 0

    @property
    def prompts(self) -> Exchanges:
        """What is asked."""
        raise NotImplementedError

    @property
    def answers(self) -> Answers:
        """The stage that answers; several panels may have one in common."""
        return Answers(
            model=self.model,
            texts=self.prompts,
            examples=self.examples,
            length=self.length,
            new_tokens=self.new_tokens,
            seed=self.seed,
        )

    def upstream(self) -> tuple[Stage, ...]:
        return (*self.model.stages, self.answers)


@gin.register
@dataclass(frozen=True, kw_only=True)
class Generation(AnsweredPanel):
    """How much of the right answers a language model says: ROUGE-L (Lin 2004), in percent.

    With l the length of the longest common subsequence of the words of both, p = l / words said and
    r = l / right words, ROUGE-L is 2 p r / (p + r); a mean over prompts. By the package
    rouge-score, which makes lower case and leaves signs out.

    texts: prompts and their right answers; of the test split.
    stemming: words are cut to their stems first (Porter), so that 'answers' is 'answered'.

    Artifact:
        rouge_l    (n,)  float64
        measure/*  ()    of the adapter, while it answered
    """

    texts: Exchanges
    stemming: bool = False

    @property
    def prompts(self) -> Exchanges:
        return self.texts

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("rouge_l", *self.model.measures)

    def preflight(self) -> None:
        require("rouge-score", self, "texts")

    def run(self, job: Job) -> Artifact:
        answered = job.get(self.answers)
        right = [exchange.answer for exchange in self.answers.exchanges()]
        scores = rouge_l(right, self.answers.spoken(answered), self.stemming)
        return {
            "rouge_l": torch.tensor(scores, dtype=torch.float64),
            **as_tensors(measures_in(answered)),
        }

    def results(self, artifact: Artifact) -> Iterator[Result]:
        scores = artifact["rouge_l"]
        yield Result(0.0, 0, "rouge_l", 100 * float(scores.mean()), len(scores), ALL)
        yield from measure_results(artifact, ALL, len(scores))

    def remarks(self, artifact: Artifact) -> Iterator[str]:
        yield from measure_remark(artifact)


def rouge_l(right: Sequence[str], said: Sequence[str], stemming: bool) -> list[float]:
    """Of every pair, from 0 to 1."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer: Any = RougeScorer(["rougeL"], use_stemmer=stemming)
    pairs = zip(right, said, strict=True)
    return [float(scorer.score(target, text)["rougeL"].fmeasure) for target, text in pairs]
