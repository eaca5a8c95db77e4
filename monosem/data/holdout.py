"""A test split for data that come without one: a share of every class, drawn once for all.

It knows names of files, and neither what is in them nor where they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import gin

from monosem.core.fields import Part, Range, Seed
from monosem.core.identity import seed_for


@gin.register
@dataclass(frozen=True)
class Holdout(Part):
    """Takes a share of the files of every class as the test split; the others are for training.

    Files are drawn by their names. So the same ones are drawn wherever the folder lies, and a file
    more moves hardly any other. Photographs of one scene may come to lie in both splits: give such
    data folders `train` and `val` instead.

    share: of the files of a class, rounded; at least one of them, and not all.
    seed: names the draw.
    """

    share: Annotated[float, Range(0, 1, open=True)] = 0.2
    seed: Seed = 0

    def test_files(self, names: Sequence[str]) -> set[str]:
        """The names of those of one class that are for testing. names: at least two."""
        count = min(max(round(self.share * len(names)), 1), len(names) - 1)
        drawn = sorted(names, key=lambda name: seed_for("held out", self.seed, name))
        return set(drawn[:count])
