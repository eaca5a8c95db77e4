"""Tuning: an adapter beside a language model learns what follows prompts. The model stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import gin
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monosem.checkpoints.transformer_folder import CHECKPOINTING, is_set, keep_inputs_alone
from monosem.core.device import device, draws_of_layers, seed_layers, seeded
from monosem.core.fields import Count, Positive, Range, Seed
from monosem.core.identity import generator
from monosem.core.stage import Artifact, Job
from monosem.data.text import pooled_batches
from monosem.language.decoding import padded
from monosem.language.memory import of_training
from monosem.language.models import CausalTransformer, LanguageModel
from monosem.language.prompts import Exchanges, Tokens, drawn
from monosem.learning.adapters import MEASURES, Adapter, count_only, watched
from monosem.learning.loop import Batch, TrainingLoop
from monosem.learning.optimizers import Optimizer, Schedule
from monosem.models.representation import GetArtifact
from monosem.models.training import Learning
from monosem.robustness.shift import say_once


class AdaptedModel(NamedTuple):
    """A language model with an adapter.

    network: as of transformers.
    learned: what learns in it.
    """

    network: nn.Module
    learned: nn.ModuleDict


@gin.register
@dataclass(frozen=True, kw_only=True)
class LanguageTuning(Learning, LanguageModel):
    """A causal language model whose adapter has learned the answers to prompts.

    The loss is the mean cross-entropy of the tokens of the answers of a batch, the token that ends
    an answer among them; those of prompts count for nothing. As a LanguageModel: the model with
    that adapter.

    model: stays as it is.
    adapter: what learns. The paper's is beside the q and v projections.
    texts: its training split is learned from.
    examples: so many of them, drawn; the paper has 5,000. Fewer where there are fewer that fit.
    length: tokens of a prompt and its answer together; longer ones are left out.
    optimizer, schedule, epochs, batch_size: the paper names the last two and the rate.
    seed: of the first weights, the draw of examples, their order, and dropout.
    clip: the largest norm of all gradients together; None leaves them as they are.

    Artifact: the state of the adapter, by the names of its layers.

    The measures of the adapter are logged in every epoch, of the first batch.
    """

    model: CausalTransformer
    adapter: Adapter
    texts: Exchanges
    examples: Count = 5000
    length: Annotated[int, Range(4)] = 512
    optimizer: Optimizer
    schedule: Schedule
    epochs: Count
    batch_size: Count
    seed: Seed = 0
    clip: Positive | None = None

    @property
    def transformer(self) -> CausalTransformer:
        return self.model

    @property
    def measures(self) -> tuple[str, ...]:
        return MEASURES

    def preflight(self) -> None:
        self.model.check_architecture()
        self.model.check_length(self, "length", self.length)
        bare = self.model.bare()
        chosen = self.adapter.chosen(bare)
        count = len(self._drawn())
        if self.batch_size > count:
            self.refuse(
                "batch_size",
                f"must be at most {count}, the examples of at most {self.length} tokens, "
                f"got {self.batch_size}",
            )
        learned = sum(self.adapter.rank * sum(layer.weight.shape) for layer in chosen.values())
        rows = sorted((len(row) for row in self._rows()), reverse=True)[: self.batch_size]
        needed = of_training(
            self.model.config, self.model.parameters, learned, self.batch_size, rows[0]
        )
        say_once(needed.text(f"{type(self).__name__} ({self.batch_size} x {rows[0]} tokens)"))

    def _drawn(self) -> list[Tokens]:
        room = self.length - 1  # for the token that ends an answer
        tokenizer = self.model.tokenizer
        return drawn(self.texts, "train", tokenizer, self.examples, room, self.seed)

    def _rows(self) -> list[list[int]]:
        """Prompt, answer, end: of every example."""
        end = self.model.ends[0]
        return [[*tokens.prompt, *tokens.answer, end] for tokens in self._drawn()]

    def adapted(self) -> AdaptedModel:
        """The model with the adapter before it learns."""
        network = self.model.network(lambda stage: {})
        with seeded("LanguageTuning", "adapter", self.seed):
            learned = self.adapter.attach(network)
        return AdaptedModel(network, learned)

    def network(self, get: GetArtifact) -> nn.Module:
        network, learned = self.adapted()
        learned.load_state_dict(get(self))
        return network.eval().requires_grad_(False)

    def run(self, job: Job) -> Artifact:
        network, learned = self.adapted()
        if is_set(CHECKPOINTING):
            keep_inputs_alone(network)
        network.train()
        rows = self._rows()
        asked = [len(tokens.prompt) for tokens in self._drawn()]

        def losses(ids: Tensor, mask: Tensor, is_answer: Tensor) -> dict[str, Tensor]:
            logits, wanted = answer_logits(network, ids, mask, is_answer)
            right = (logits.argmax(1) == wanted).float().mean()
            return {"loss": F.cross_entropy(logits, wanted), "token_accuracy": right}

        @torch.no_grad()
        def describe(ids: Tensor, mask: Tensor, is_answer: Tensor) -> dict[str, float]:
            with watched(network.eval()) as measures:
                answer_logits(network, ids, mask, is_answer)
            network.train()
            return measures()

        loop = TrainingLoop(
            module=learned,
            optimizer=self.optimizer.for_batches(self.batch_size).build(learned.parameters()),
            schedule=self.schedule,
            epochs=self.epochs,
            steps_per_epoch=len(rows) // self.batch_size,
            batch_size=self.batch_size,
            batches=self._batches(rows, asked),
            losses=losses,
            describe=describe,
            clip=self.clip,
        )
        with draws_of_layers():
            loop.run(job)
        return learned.state_dict()

    def _batches(
        self, rows: Sequence[list[int]], asked: Sequence[int]
    ) -> Callable[[int], Iterator[Batch]]:
        """Batches of about one length, in another order in every epoch.

        asked: how many tokens of every row are of the prompt.
        """
        lengths = torch.tensor([len(row) for row in rows])
        pad = self.model.tokenizer.pad

        def batches(epoch: int) -> Iterator[Batch]:
            draw = generator("LanguageTuning", "order", self.seed, epoch)
            seed_layers("LanguageTuning", "dropout", self.seed, epoch)
            order = torch.randperm(len(rows), generator=draw)
            for batch in pooled_batches(order, lengths, self.batch_size, draw):
                chosen = batch.tolist()
                ids, mask = padded([rows[index] for index in chosen], pad, left=False)
                prompts = torch.tensor([asked[index] for index in chosen], device=device())
                place = torch.arange(ids.shape[1], device=device())
                yield ids, mask, (place >= prompts[:, None]) & mask.bool()

        return batches


def answer_logits(
    network: nn.Module, ids: Tensor, mask: Tensor, is_answer: Tensor
) -> tuple[Tensor, Tensor]:
    """What is predicted of every token of the answers, and what it is.

    ids, mask: (n, tokens) int64; filled up on the right.
    is_answer: (n, tokens) bool, whether a token is of an answer.
    Returns (answers' tokens, vocabulary) float32 and (answers' tokens,).
    """
    count_only(network, mask.bool())
    logits = network(input_ids=ids, attention_mask=mask, use_cache=False).logits
    predicted = is_answer[:, 1:].to(logits.device)  # a token is told by the one before it
    wanted = ids[:, 1:].to(logits.device)[predicted]
    return logits[:, :-1][predicted].float().to(device()), wanted.to(device())
