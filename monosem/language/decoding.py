"""What a causal language model says next: one token, or greedily many. No text is known here.

rows           n lists of tokens, of any lengths
ids, mask      (n, longest) int64, filled up on the left, so that all rows end in one column
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monosem.core.device import device
from monosem.data.text import batch_ends
from monosem.learning.adapters import count_only

MOST_ROWS = 64  # of a batch; `batch_ends` bounds its tokens

Rows = Sequence[Sequence[int]]


def padded(rows: Rows, pad: int, left: bool) -> tuple[Tensor, Tensor]:
    """Rows as one tensor on the device.

    left: whether short rows are filled up on the left, or else on the right.
    Returns ids and mask (n, longest), the mask 1 where there is a token.
    """
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        place = slice(longest - len(row), None) if left else slice(len(row))
        ids[index, place] = torch.tensor(row)
        mask[index, place] = 1
    return ids.to(device()), mask.to(device())


def positions(mask: Tensor) -> Tensor:
    """(n, tokens) the place of every token in its row, from 0, whatever is filled up before it."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def by_length(rows: Rows) -> list[list[int]]:
    """The indices of rows that pass through a model together, the shortest first."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    ends = batch_ends([len(rows[index]) for index in order], MOST_ROWS)
    return [order[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def each_batch(
    rows: Rows,
    of_batch: Callable[[Rows], Tensor],
    report: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """A tensor for every row, computed batch by batch, in the order of the rows.

    of_batch: k rows -> (k, ...), the other sizes the same for all batches.
    report: is told after every batch how many rows are done.
    """
    found: dict[int, Tensor] = {}
    for batch in by_length(rows):
        values = of_batch([rows[index] for index in batch]).cpu()
        found |= zip(batch, values, strict=True)
        report(len(found))
    return torch.stack([found[index] for index in range(len(rows))])


@torch.no_grad()
def next_logits(model: nn.Module, rows: Rows, pad: int) -> Tensor:
    """(n, vocabulary) float32: of the token that follows each row."""
    ids, mask = padded(rows, pad, left=True)
    count_only(model, mask.bool())
    output = model(
        input_ids=ids,
        attention_mask=mask,
        use_cache=False,
        **_fitting(model, position_ids=positions(mask), logits_to_keep=1),
    )
    logits: Tensor = output.logits[:, -1].float()
    return logits


@torch.no_grad()
def greedy(model: nn.Module, rows: Rows, tokens: int, ends: Sequence[int], pad: int) -> Tensor:
    """The most probable token, again and again.

    tokens: so many at most.
    ends: tokens after which a row is done; they are left out.
    Returns (n, tokens) int32, -1 where a row is done.
    """
    ids, mask = padded(rows, pad, left=True)
    stops = torch.tensor([*ends], dtype=torch.int64, device=ids.device)
    said = torch.full((len(rows), tokens), -1, dtype=torch.int32)
    goes_on = torch.ones(len(rows), dtype=torch.bool, device=ids.device)
    for token, place in zip(_most_probable(model, ids, mask, pad), range(tokens), strict=False):
        goes_on &= ~torch.isin(token, stops)
        said[:, place] = torch.where(goes_on, token, -1).cpu()
        if not goes_on.any():
            break
        count_only(model, goes_on[:, None])
    return said


def _most_probable(model: nn.Module, ids: Tensor, mask: Tensor, pad: int) -> Iterator[Tensor]:
    """(n,) of every step. What was read is kept, so that a step reads one token a row."""
    past: Any = None
    count_only(model, mask.bool())
    while True:
        last = positions(mask)[:, -ids.shape[1] :]
        output = model(
            input_ids=ids,
            attention_mask=mask,
            use_cache=True,
            **_fitting(model, position_ids=last, logits_to_keep=1),
            **_fitting(model, cache=past, past_key_values=past),  # its name, and the earlier one
        )
        past = output["cache"] if "cache" in output else output["past_key_values"]
        token = output.logits[:, -1].argmax(1)
        yield token
        ids = token[:, None]
        mask = torch.cat([mask, torch.ones_like(ids)], 1)


def _fitting(model: nn.Module, **arguments: object) -> dict[str, object]:
    """Those arguments that the model takes; not every architecture takes all."""
    taken = inspect.signature(model.forward).parameters
    return {name: value for name, value in arguments.items() if name in taken}
