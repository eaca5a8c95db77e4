"""What is wrong with a spec, said in the words that were typed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import NamedTuple


class SpecError(ValueError):
    """A spec that cannot be meant. The message is one line for the person who typed it."""


def _nearest(word: str, candidates: Iterable[str], phrase: str) -> str:
    found = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.5)
    return phrase.format(found[0]) if found else ""


Address = tuple[str, str, str]  # scope, complete selector of the configurable, parameter


Unread = dict[Address, Callable[[], "SpecError"]]  # what nothing reads, and what to say of it


class Binding(NamedTuple):
    """A binding as it was typed: `text`, at `where`, of `value`, the `order`-th of all. `beside`: said of all cells of a sweep
    at once, so that one may leave it unread which has no such thing."""

    text: str
    where: str
    value: object
    order: int
    beside: bool

    def __str__(self) -> str:
        return f"({self.where}: {self.text})" if self.where != "--set" else f"(--set '{self.text}')"
