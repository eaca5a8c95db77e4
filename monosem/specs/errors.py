"""What may be wrong with a spec or a cluster, and the nearest name. Imports nothing heavy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SpecError(ValueError):
    """A spec that cannot be meant. The message is one line for the person who typed it."""


class ClusterError(RuntimeError):
    """There is no such cluster, or it has not what is asked of it."""


def nearest(word: str, candidates: Iterable[str], phrase: str, cutoff: float = 0.6) -> str:
    """`phrase`, with {} replaced by the candidate that looks most like `word`; '' if none does.

    cutoff: how alike they must be, from 0 to 1.
    """
    matches = difflib.get_close_matches(word, list(candidates), n=1, cutoff=cutoff)
    return phrase.format(matches[0]) if matches else ""
