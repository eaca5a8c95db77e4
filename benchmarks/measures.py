"""Are the measures any good? Every metric on features whose monosemanticity is known.

    python -m benchmarks.measures [--seeds 10] [--examples 600] [--curves runs/controls/curves.csv]

A dictionary of 30 atoms makes the examples. A class (8, of unequal size) turns on its own atom, and
one of two atoms of subclasses below it: a hierarchy. Six more factors are on or off, and correlated
with one another. An atom that is on has a strength between 0.5 and 1.5. Features are
`atoms @ weights.T`, and a dimension is as pure as the share of its variance that one atom has.

Known cases, in the order of what is monosemantic about them:
    planted     a dimension for each atom
    mixed       two atoms, drawn, in every dimension
    rotated     planted, times a random orthogonal matrix: all geometry, no axes
    rectified   the same, rectified: sparse and not negative, on axes that mean nothing
    shuffled    planted, each column in an order of its own: all of its sparsity, no meaning

Printed for every measure, over seeds of data and of weights:
    spread      the deviation of `planted` from seed to seed, in percent of its lead over `rotated`
    apart       its lead over each other case, in such deviations of both; above 3 is sure
    ranks       Spearman's correlation with purity over 30 encoders: 6 shares of mixing x 5 kinds of
                sparsity (none, rectified, thresholded, the largest 8 and 3); ± half of the 95 %
                interval over seeds. A measure of sparsity alone has 0
With --curves, of a sweep over trained encoders: the share of the variance of a measure that is
between experiments and not between seeds of one (the intraclass correlation).
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from monosem.metrics import ALL_METRICS
from monosem.metrics.base import FeatureBatch, as_number, measure
from monosem.results.rows import MONOSEMANTICITY, read_table
from monosem.results.stats import estimate, rank_correlation

CLASSES, FREE = 8, 6
ATOMS = CLASSES * 3 + FREE
MIXING = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

# Which end is monosemantic. Of sparsity and space it is what their sources take for it.
BETTER = {
    "class_consistency": 1,
    "class_entropy": -1,
    "class_selectivity": 1,
    "monosemanticity_score": 1,
    "monosemanticity_score_of_classes": 1,
    "fms": 1,
    "fms_capacity": 1,
    "fms_local": 1,
    "fms_global": 1,
    "precision_at_10": 1,
    "mean_average_precision": 1,
    "factor_information": 1,
    "factor_share": 1,
    "factor_gap": 1,
    "sparsity": 1,
    "l0": -1,
    "hoyer": 1,
    "effective_rank": 1,
    "correlation": -1,
}


class World(NamedTuple):
    """Examples of the dictionary.

    atoms: (n, ATOMS), strengths.
    batch: features are the atoms themselves.
    """

    atoms: Tensor
    batch: FeatureBatch

    def measured(self, features: Tensor) -> dict[str, float]:
        """Every measure of other features of the same examples, as one number."""
        results = measure(ALL_METRICS, self.batch._replace(features=features.float()))
        return {name: as_number(results[name]) for name in BETTER}


def world(examples: int, draw: Generator) -> World:
    """Draw a world; see the top."""
    shares = torch.linspace(1, 2, CLASSES)
    label = torch.multinomial(shares, examples, replacement=True, generator=draw)
    child = torch.randint(2, (examples,), generator=draw)
    common = torch.randn(examples, 1, generator=draw)  # what correlates the free factors
    own = torch.randn(examples, FREE, generator=draw)
    free = 0.6 * common + 0.8 * own > 0.8
    on = torch.zeros(examples, ATOMS)
    on.scatter_(1, label[:, None], 1.0)
    on.scatter_(1, (CLASSES + 2 * label + child)[:, None], 1.0)
    on[:, 3 * CLASSES :] = free.float()
    atoms = on * (0.5 + torch.rand(on.shape, generator=draw))
    factors = {"class": label, "subclass": 2 * label + child}
    factors |= {f"free_{number}": column.long() for number, column in enumerate(free.T)}
    seen = atoms @ torch.randn(ATOMS, 64, generator=draw)
    reference = seen + 0.5 * torch.randn(seen.shape, generator=draw)
    return World(atoms, FeatureBatch(atoms, label, reference, factors))


def rotation(draw: Generator) -> Tensor:
    """(ATOMS, ATOMS), orthogonal and uniform among such."""
    orthogonal, triangular = torch.linalg.qr(torch.randn(ATOMS, ATOMS, generator=draw))
    return orthogonal * triangular.diagonal().sign()


def pairs(draw: Generator) -> Tensor:
    """(ATOMS, ATOMS), every row the sum of its own atom and of another."""
    shift = 1 + int(torch.randint(ATOMS - 1, (1,), generator=draw))
    order = torch.randperm(ATOMS, generator=draw)
    weights = torch.eye(ATOMS)
    weights[order, order.roll(shift)] += 1
    return weights


def shuffled(atoms: Tensor, draw: Generator) -> Tensor:
    """Every column in an order of its own."""
    return atoms.gather(0, torch.rand(atoms.shape, generator=draw).argsort(0))


def cases(atoms: Tensor, draw: Generator) -> dict[str, Tensor]:
    """The known cases, (n, ATOMS) each; see the top."""
    turned = atoms @ rotation(draw)
    return {
        "planted": atoms,
        "mixed": atoms @ pairs(draw).T,
        "rotated": turned,
        "rectified": turned.relu(),
        "shuffled": shuffled(atoms, draw),
    }


def purity(atoms: Tensor, weights: Tensor) -> float:
    """The mean over dimensions of the share of variance that the largest atom has, as if atoms were
    uncorrelated. weights: (d, ATOMS)."""
    parts = weights.square() * atoms.var(0)
    return float((parts.amax(1) / parts.sum(1)).mean())


def largest(count: int) -> Callable[[Tensor], Tensor]:
    """Keeps the `count` largest of a row, rectified."""

    def keep(features: Tensor) -> Tensor:
        threshold = features.topk(count, dim=1).values[:, -1:]
        return (features * (features >= threshold)).relu()

    return keep


SPARSITY: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda features: features,
    "rectified": torch.relu,
    "thresholded": lambda features: features * (features > features.mean(0)),
    "largest 8": largest(8),
    "largest 3": largest(3),
}


def encoders(atoms: Tensor, draw: Generator) -> list[tuple[float, Tensor]]:
    """Purity and features of 30 encoders: atoms mixed with a rotation, then made sparse."""
    turn = rotation(draw)
    made = []
    for share in MIXING:
        weights = (1 - share) * torch.eye(ATOMS) + share * turn
        features = atoms @ weights.T
        made += [(purity(atoms, weights), sparse(features)) for sparse in SPARSITY.values()]
    return made


def ranks(one: World, draw: Generator) -> dict[str, float]:
    """How well every measure ranks the encoders of a world: Spearman with purity."""
    made = encoders(one.atoms, draw)
    truth = torch.tensor([pure for pure, _ in made]).numpy()
    measured = [one.measured(features) for _, features in made]
    correlations = {}
    for name, sign in BETTER.items():
        values = torch.tensor([sign * found[name] for found in measured]).numpy()
        correlation = float(rank_correlation(values, truth))
        correlations[name] = 0.0 if math.isnan(correlation) else correlation
    return correlations


class Audit(NamedTuple):
    """Of one measure.

    spread: in percent of the lead over `rotated`; nan where there is none, as of what no rotation
        changes.
    apart: the lead over each case, in deviations.
    rank: the mean correlation with purity.
    half: half of its 95 % interval.
    """

    spread: float
    apart: Mapping[str, float]
    rank: float
    half: float


def audited(name: str, of_cases: Mapping[str, Tensor], of_ranks: list[float]) -> Audit:
    """of_cases: (seeds,) values of a measure in each case."""
    planted = BETTER[name] * of_cases["planted"]
    apart = {}
    for case, values in of_cases.items():
        lead = planted - BETTER[name] * values
        noise = math.sqrt((float(planted.var()) + float(values.var())) / 2)
        apart[case] = float(lead.mean()) / max(noise, 1e-9)
    lead = float((planted - BETTER[name] * of_cases["rotated"]).mean())
    spread = 100 * float(planted.std()) / abs(lead) if abs(lead) > 1e-5 else math.nan
    rank = estimate({(seed, 0): value for seed, value in enumerate(of_ranks)})
    return Audit(spread, apart, rank.mean, rank.half)


def audit(seeds: int, examples: int) -> dict[str, Audit]:
    """Every measure."""
    by_case: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in BETTER}
    by_rank: dict[str, list[float]] = defaultdict(list)
    for seed in range(seeds):
        draw = torch.Generator().manual_seed(seed)
        one = world(examples, draw)
        for case, features in cases(one.atoms, draw).items():
            for name, value in one.measured(features).items():
                by_case[name][case].append(value)
        for name, correlation in ranks(one, draw).items():
            by_rank[name].append(correlation)
    return {
        name: audited(
            name,
            {case: torch.tensor(values).double() for case, values in by_case[name].items()},
            by_rank[name],
        )
        for name in BETTER
    }


def shares_between_experiments(curves: Path) -> dict[str, float]:
    """The intraclass correlation of every measure over the encoders of a sweep, in [0, 1]."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in read_table(curves):
        if row.curve == MONOSEMANTICITY:
            values[row.metric, row.experiment].append(row.value)
    shares = {}
    for name in BETTER:
        groups = [
            torch.tensor(found, dtype=torch.float64)
            for (metric, _), found in values.items()
            if metric == name and len(found) > 1
        ]
        if len(groups) > 1:
            within = float(torch.stack([group.var() for group in groups]).mean())
            size = sum(map(len, groups)) / len(groups)
            total = float(torch.stack([group.mean() for group in groups]).var())
            between = max(total - within / size, 0.0)
            shares[name] = between / max(between + within, 1e-30)
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--examples", type=int, default=600)
    parser.add_argument("--curves", type=Path, help="curves.csv of a sweep over seeds")
    arguments = parser.parse_args()
    found = audit(arguments.seeds, arguments.examples)
    trained = shares_between_experiments(arguments.curves) if arguments.curves else {}
    others = ("mixed", "rotated", "rectified", "shuffled")
    heading = ["measure", "spread, %", *(f"over {case}" for case in others), "ranks", "between"]
    print(f"| {' | '.join(heading)} |\n|{'---|' * len(heading)}")
    for name, one in sorted(found.items(), key=lambda pair: -pair[1].rank):
        apart = [f"{one.apart[case]:+.1f}" for case in others]
        between = f"{trained[name]:.2f}" if name in trained else ""
        rank = f"{one.rank:+.2f} ± {one.half:.2f}"
        spread = "" if math.isnan(one.spread) else f"{one.spread:.1f}"
        print(f"| {' | '.join([name, spread, *apart, rank, between])} |")


if __name__ == "__main__":
    main()
