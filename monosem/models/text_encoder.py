"""A transformer of somebody else's as a representation of texts: tokens in, one vector a text out.

It knows ids of tokens. Which text they were is the dataset's knowledge.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import gin
import torch
from torch import Tensor, nn

from monosem.checkpoints.transformer_folder import TransformerFolder
from monosem.core.fields import Range
from monosem.data.dataset import Dataset
from monosem.data.text import TextDataset
from monosem.data.tokens import Tokenizer
from monosem.learning.adapters import count_only
from monosem.models.representation import GetArtifact, Representation, freeze

Pool = Literal["mean", "first", "last"]


@gin.register
@dataclass(frozen=True)
class TextEncoder(TransformerFolder, Representation):
    """The hidden states of a pretrained transformer, pooled over the tokens of a text.

    It reads the folders of the transformers library (config.json and *.safetensors or *.bin), of
    encoders such as BERT and decoders such as Llama. It takes what lies there: nothing is
    downloaded, and no code of the folder is run.

    weights: the folder; 'package:NAME/FOLDER' is one inside an installed package. What it holds is
        in the key, its place is not.
    layer: the hidden layer, as transformers numbers them: 0 the embeddings of the tokens, 1 the
        first block. None is the last one.
    pool: over the tokens of a text: their mean (as sentence-transformers/all-MiniLM-L6-v2), the
        first one (BERT's class token), or the last one (of decoders, the only one that has seen
        all others).
    """

    layer: Annotated[int, Range(0)] | None = None
    pool: Pool = "mean"

    def validate(self) -> None:
        if self.layer is None or not Path(self.weights).exists():  # a missing one: see `content`
            return
        layers = self.config.num_hidden_layers
        if self.layer > layers:
            reason = f"must be from 0, the embeddings, to {layers}, the last, got {self.layer}"
            self.refuse("layer", reason)

    def incompatibility(self, data: Dataset) -> str | None:
        if not isinstance(data, TextDataset):
            return f"must be texts, as TextEncoder takes them, got {type(data).__name__}"
        if data.tokenizer.content() != self._tokenizer.content():
            return (
                "must have the tokenizer of TextEncoder.weights, "
                f"{self.weights}, got that of {data.tokenizer.folder}"
            )
        longest = getattr(self.config, "max_position_embeddings", None)
        if longest is not None and data.length > longest:
            return f"must have length of at most {longest}, as TextEncoder takes, got {data.length}"
        return None

    @property
    def width(self) -> int:
        return int(self.config.hidden_size)

    @property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(self.weights)

    def skeleton(self) -> nn.Module:
        return self.bare()

    def network(self, get: GetArtifact) -> nn.Module:
        layer = self.config.num_hidden_layers if self.layer is None else self.layer
        model = _with_shared_weights(_read_once(self, self.content()))
        return freeze(PooledTransformer(model, self._tokenizer.pad, layer, self.pool))


class PooledTransformer(nn.Module):
    """ids (n, tokens) int64, padded behind the text -> (n, width).

    model: a transformer of the transformers library, without a head.
    pad: the id that fills up a text.
    layer: whose hidden states are pooled.
    pool: how.
    """

    def __init__(self, model: nn.Module, pad: int, layer: int, pool: Pool):
        super().__init__()
        self.model = model
        self.pad, self.layer, self.pool = pad, layer, pool

    def forward(self, ids: Tensor) -> Tensor:
        mask = ids != self.pad
        mask[:, 0] = True  # a text that lost all its words still is one token
        count_only(self.model, mask)
        output = self.model(
            input_ids=ids, attention_mask=mask.long(), output_hidden_states=True, use_cache=False
        )
        return pooled(output.hidden_states[self.layer], mask, self.pool)


def pooled(states: Tensor, mask: Tensor, pool: Pool) -> Tensor:
    """One vector a text.

    states: (n, tokens, width).
    mask: (n, tokens), True where there is a token and no padding.
    Returns (n, width).
    """
    if pool == "mean":
        weights = mask / mask.sum(1, keepdim=True)
        return torch.einsum("nt,ntd->nd", weights.to(states.dtype), states)
    if pool == "first":
        return states[:, 0]
    last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(1)
    return states[torch.arange(len(states), device=mask.device), last]


@functools.lru_cache(maxsize=1)
def _read_once(encoder: TextEncoder, content: str) -> nn.Module:
    """The transformer, read once for all networks of a curve, which share its weights.

    content: the digest of the files, so that files that have changed are read again.
    """
    return freeze(encoder.loaded())


def _with_shared_weights(model: nn.Module) -> nn.Module:
    """A copy whose modules can be exchanged; its weights lie where those of the model lie."""
    shared = {id(w): nn.Parameter(w.data, requires_grad=False) for w in model.parameters()}
    return copy.deepcopy(model, shared)
