"""What a language model takes of memory, estimated before any work from its architecture alone."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch

from monosem.checkpoints.transformer_folder import CHECKPOINTING, bytes_of_weight, is_set
from monosem.core.device import device
from monosem.data.text import MOST_TOKENS

MIB, GIB = 2**20, 2**30
OF_ADAPTER = 16  # bytes of a weight that learns: itself, its gradient and Adam's two means
OF_LOGIT = 12  # bytes in training: float32 logits, their softmax and its gradient


class Memory(NamedTuple):
    """Bytes, by what takes them.

    weights: of the model, which stay as they are.
    adapter: its weights, their gradients and two means of Adam's.
    activations: what a step keeps for its gradients, or the keys and values of what was read.
    logits: of the tokens of a batch.
    """

    weights: int
    adapter: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return sum(self)

    def text(self, of: str) -> str:
        """A line for a person. of: what takes it."""
        parts = zip(self._fields, self, strict=True)
        listed = ", ".join(f"{name} {memory_text(size)}" for name, size in parts if size)
        here = memory_here()
        less = "" if here >= self.total else ", which is more than there is"
        return (
            f"{of}: about {memory_text(self.total)} of memory ({listed}); "
            f"{device().type} has {memory_text(here)}{less}"
        )


def memory_text(size: int) -> str:
    """Bytes, for people."""
    return f"{size / GIB:.3g} GiB" if size > GIB / 10 else f"{size / MIB:.3g} MiB"


def of_training(config: Any, weights: int, learned: int, rows: int, tokens: int) -> Memory:
    """A step of training an adapter.

    config: of transformers.
    weights: how many the model has.
    learned: how many the adapter has.
    rows, tokens: of the largest batch.

    A block keeps, of every token, about 10 vectors of its width (two norms, query, key, value, what
    attention gives and their rotations) and 3 of the width inside its feed-forward part. With
    --checkpointing a block keeps its input alone, and one block at a time the rest.
    """
    width, inner, layers = _sizes(config)
    of_block = rows * tokens * (10 * width + 3 * inner) * bytes_of_weight()
    kept = layers * of_block
    if is_set(CHECKPOINTING):
        kept = layers * rows * tokens * width * bytes_of_weight() + of_block
    return Memory(
        weights=weights * bytes_of_weight(),
        adapter=learned * OF_ADAPTER,
        activations=kept,
        logits=rows * tokens * config.vocab_size * (bytes_of_weight() + OF_LOGIT),
    )


def of_reading(config: Any, weights: int) -> Memory:
    """A batch that is read, and answered, by a model with or without an adapter."""
    width, inner, layers = _sizes(config)
    heads = config.num_attention_heads
    share = (getattr(config, "num_key_value_heads", None) or heads) / heads
    of_token = 2 * layers * width * share + 4 * width + 3 * inner
    return Memory(
        weights=weights * bytes_of_weight(),
        adapter=0,
        activations=round(MOST_TOKENS * of_token * bytes_of_weight()),
        logits=MOST_TOKENS // 256 * config.vocab_size * 4,
    )


def _sizes(config: Any) -> tuple[int, int, int]:
    """Width, width inside the feed-forward part, blocks."""
    width = int(config.hidden_size)
    return (
        width,
        int(getattr(config, "intermediate_size", 0) or 4 * width),
        int(config.num_hidden_layers),
    )


def memory_here() -> int:
    """Bytes of the device: of all GPUs together, or of the machine."""
    if device().type == "cuda":
        count = range(torch.cuda.device_count())
        return sum(torch.cuda.get_device_properties(index).total_memory for index in count)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
