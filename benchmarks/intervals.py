"""What another seed buys: coverage and width of the intervals of `results.stats.estimate`.

    python -m benchmarks.intervals [--tables 2000]

Tables (seeds, repeats) are drawn by the model that the intervals assume,

    value[s, r] = a[s] + b[r] + e[s, r]

with normal a, b and e whose variances sum to 1. For every number of seeds and repeats it prints, of
nominal 95 % intervals of the mean: how often they hold the truth; their median width over that of
an oracle who knows the variances, so what ignorance costs; their median half in units of the
deviation of one value, so what is to be expected in a table; and the power, how often a mean of 1
such deviation is told from 0 at p < .05.
"""

from __future__ import annotations

import argparse
import math
from typing import NamedTuple

import numpy as np

from monosem.results.stats import estimate

SEEDS, REPEATS = (2, 3, 5, 8), (3, 5)
EFFECT = 1.0  # in deviations of one value


class Variances(NamedTuple):
    """Of the three parts of a value; they sum to 1."""

    seeds: float
    repeats: float
    rest: float


SITUATIONS = {
    "encoders differ most": Variances(0.6, 0.2, 0.2),
    "all alike": Variances(1 / 3, 1 / 3, 1 / 3),
    "draws differ most": Variances(0.1, 0.6, 0.3),
    "nothing but the rest": Variances(0.0, 0.0, 1.0),
}


class Outcome(NamedTuple):
    """Of many intervals; see the top.

    coverage: in [0, 1].
    width: of the median interval, in units of the oracle's.
    half: of the median interval, in deviations of one value.
    power: in [0, 1].
    """

    coverage: float
    width: float
    half: float
    power: float


def oracle_half(variances: Variances, seeds: int, repeats: int) -> float:
    """Half of the 95 % interval of a mean whose variance is known."""
    of_mean = variances.seeds / seeds + variances.repeats / repeats
    return 1.959964 * math.sqrt(of_mean + variances.rest / (seeds * repeats))


def drawn_tables(
    variances: Variances, seeds: int, repeats: int, tables: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """(tables, seeds, repeats), of mean 0."""
    draw = np.random.default_rng(seeds * 100 + repeats)
    of_seeds = draw.normal(0, math.sqrt(variances.seeds), (tables, seeds, 1))
    of_repeats = draw.normal(0, math.sqrt(variances.repeats), (tables, 1, repeats))
    rest = draw.normal(0, math.sqrt(variances.rest), (tables, seeds, repeats))
    return of_seeds + of_repeats + rest


def simulate(variances: Variances, seeds: int, repeats: int, tables: int) -> Outcome:
    """What many intervals of one design are like."""
    held, halves, found = 0, [], 0
    for table in drawn_tables(variances, seeds, repeats, tables):
        cells = {(str(s), r): float(value) for (s, r), value in np.ndenumerate(table)}
        truth = estimate(cells)
        held += abs(truth.mean) <= truth.half
        halves.append(truth.half)
        found += estimate({cell: value + EFFECT for cell, value in cells.items()}).p < 0.05
    half = float(np.median(halves))
    width = half / oracle_half(variances, seeds, repeats)
    return Outcome(held / tables, width, half, found / tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=2000, help="drawn for each design")
    tables = parser.parse_args().tables
    for name, variances in SITUATIONS.items():
        shares = ", ".join(f"{share:.2f}" for share in variances)
        print(f"\n{name} (variances of seeds, repeats, rest: {shares}), {tables} tables each\n")
        print("| seeds x repeats | coverage | width over the oracle's | half | power |")
        print("|---|---|---|---|---|")
        for seeds in SEEDS:
            for repeats in REPEATS:
                outcome = simulate(variances, seeds, repeats, tables)
                print(
                    f"| {seeds} x {repeats} | {outcome.coverage:.1%} | {outcome.width:.2f} "
                    f"| {outcome.half:.2f} | {outcome.power:.0%} |"
                )


if __name__ == "__main__":
    main()
