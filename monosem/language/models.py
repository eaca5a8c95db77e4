"""Causal language models: what they are read from, and the panels that measure them."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import gin
from torch import nn

from monosem.checkpoints.transformer_folder import TransformerFolder
from monosem.core.fields import Part
from monosem.core.files import known_digest
from monosem.core.identity import digest
from monosem.core.stage import Stage
from monosem.data.tokens import Tokenizer
from monosem.language.memory import of_reading
from monosem.models.representation import GetArtifact
from monosem.robustness.measurement import Panel, Point
from monosem.robustness.shift import say_once

GENERATION = "generation_config.json"  # names the tokens that end an answer
ALL = "all"


@dataclass(frozen=True)
class LanguageModel(Part):
    """Whatever tells the next token of a text."""

    @property
    def transformer(self) -> CausalTransformer:
        """What it stands on."""
        raise NotImplementedError

    @property
    def measures(self) -> tuple[str, ...]:
        """What is counted in it while it reads."""
        return ()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages whose artifacts `network` asks for."""
        return (self,) if isinstance(self, Stage) else ()

    def network(self, get: GetArtifact) -> nn.Module:
        """A model of transformers: in evaluation mode, frozen."""
        raise NotImplementedError

    def check_reading(self) -> None:
        """Refuse what no transformer is; say what memory reading takes."""
        transformer = self.transformer
        transformer.check_architecture()
        needed = of_reading(transformer.config, transformer.parameters)
        say_once(needed.text(f"reading with {Path(transformer.weights).name}"))


@dataclass(frozen=True)
class TokenModel(TransformerFolder):
    """A transformer that reads texts by the tokenizer in its own folder."""

    def content(self) -> str:
        path = Path(self.weights, GENERATION)
        generation = known_digest(path) if path.is_file() else ""
        return digest([super().content(), self.tokenizer.content(), generation])

    @property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer(self.weights)

    @property
    def longest(self) -> int | None:
        """How many tokens it can read; None where nothing says so."""
        return getattr(self.config, "max_position_embeddings", None)

    @property
    def parameters(self) -> int:
        """How many weights it has."""
        return _count(self)

    def check_length(self, owner: Part, field: str, tokens: int) -> None:
        """Refuse a field of `owner` that asks for more tokens than it can read."""
        if self.longest is not None and tokens > self.longest:
            owner.refuse(
                field,
                f"must leave at most {self.longest} tokens in all, which {Path(self.weights).name} "
                f"can read, got {tokens}",
            )


@gin.register
@dataclass(frozen=True)
class CausalTransformer(TokenModel, LanguageModel):
    """A causal language model such as Llama, from a folder of the transformers library.

    Its tokenizer is in the same folder. The tokens that end an answer are those of
    generation_config.json, or else of config.json.
    """

    head: ClassVar[str] = "AutoModelForCausalLM"
    architecture: ClassVar[tuple[str, ...]] = ("ForCausalLM", "LMHeadModel")

    @property
    def transformer(self) -> CausalTransformer:
        return self

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        path = Path(self.weights, GENERATION)
        named = json.loads(path.read_text()).get("eos_token_id") if path.is_file() else None
        if named is None:
            named = getattr(self.config, "eos_token_id", None)
        candidates: Sequence[int | None] = named if isinstance(named, list) else [named]
        own = self.tokenizer.end
        return tuple(dict.fromkeys(end for end in (own, *candidates) if end is not None))

    def check_architecture(self) -> None:
        super().check_architecture()
        if not self.ends:
            self.refuse("weights", f"must have a token that ends a text; {self.weights} names none")

    def network(self, get: GetArtifact) -> nn.Module:
        return self.placed()


@dataclass(frozen=True, kw_only=True)
class LanguagePanel(Panel):
    """A measurement of a language model: points with names.

    model: what is measured.
    """

    model: LanguageModel

    @property
    def subject(self) -> Part:
        return self.model

    @property
    def noun(self) -> str:
        return "prompts"

    @property
    def axis(self) -> str:
        return "0, as points have names"

    @property
    def points(self) -> tuple[Point, ...]:
        return tuple(Point(name, 0) for name in self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its points."""
        return (ALL,)

    def upstream(self) -> tuple[Stage, ...]:
        return self.model.stages


@functools.lru_cache(maxsize=8)
def _count(folder: TransformerFolder) -> int:
    return sum(weight.numel() for weight in folder.bare().parameters())
