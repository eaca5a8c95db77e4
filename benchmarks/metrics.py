"""Measures of monosemanticity in matrix form against the loops in which they were published, side by side on the same features.

    python -m benchmarks.metrics [--images 10000] [--dimensions 2048] [--rounds 5]

Loops: class consistency dimension by dimension, as in the NCL code; the monosemanticity score over all pairs of images, block by block, as
Pach et al. have it. The second would take minutes, so it is timed on a share of the pairs (--pairs) and scaled up. Both loops must agree
with the matrix form, the score on fewer images. Then every measure by itself, and how much memory all of them take.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from monosem.metrics.base import FeatureBatch
from monosem.metrics.classes import (
    ClassConsistency,
    ClassSelectivity,
    class_consistency,
    class_counts,
)
from monosem.metrics.factors import FactorInformation
from monosem.metrics.neighbours import MonosemanticityScore, RetrievalPrecision, pair_similarity
from monosem.metrics.space import Dimensions, EffectiveRank, Orthogonality, Sparsity
from monosem.metrics.trees import FeatureMonosemanticity


def features_of(images: int, dimensions: int, classes: int, active: float) -> FeatureBatch:
    """Rectified features of which a share is active, more so for some classes; a judge as wide as a small network."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (images,), generator=draw)
    likes = torch.randn(classes, dimensions, generator=draw)[labels]
    raw = torch.randn(images, dimensions, generator=draw) + likes
    features = (raw - raw.flatten()[:100_000].quantile(1 - active)).relu()
    reference_features = torch.randn(classes, 512, generator=draw)[labels] + torch.randn(
        images, 512, generator=draw
    )
    factors = {"class": labels, "noise": torch.randint(8, (images,), generator=draw)}
    return FeatureBatch(F.normalize(features, dim=1), labels, reference_features, factors)


def consistency_by_loops(features: Tensor, labels: Tensor, epsilon: float = 1e-5) -> Tensor:
    """One dimension after the other: the labels of the images that activate it, and the share of the most frequent."""
    found = []
    for d in range(features.shape[1]):
        told = labels[features[:, d].abs() > epsilon]
        found.append(told.bincount().max().item() / len(told) if len(told) else 0.0)
    return torch.tensor(found, dtype=torch.float64)


def score_by_pairs(
    reference_features: Tensor, weights: Tensor, blocks: int | None = None, block: int = 100
) -> tuple[Tensor, int]:
    """All pairs of images n < m, a block of n against all of m: products of activations times similarity, summed over pairs, for every
    dimension. blocks: stop after so many; the number of pairs that were seen comes back too."""
    unit, n = F.normalize(reference_features, dim=1), len(weights)
    above, below, seen = torch.zeros(weights.shape[1]), torch.zeros(weights.shape[1]), 0
    for number, first in enumerate(range(0, n, block)):
        if number == blocks:
            break
        rows = slice(first, first + block)
        similarity = unit[rows] @ unit.T
        for i in range(len(similarity)):
            later = slice(first + i + 1, n)
            autocast_dtype = weights[first + i] * weights[later]  # (pairs, d)
            above += similarity[i, later] @ autocast_dtype
            below += autocast_dtype.sum(0)
            seen += n - first - i - 1
    return above / below.clamp(min=1e-30), seen


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ratio(name: str, slow: list[float], fast: list[float]) -> None:
    ratios = [one / two for one, two in zip(slow, fast, strict=True)]
    print(
        f"{name}: loops {statistics.median(slow):.2f} s, matrix {statistics.median(fast):.3f} s, "
        f"{statistics.median(ratios):.1f} times faster (range {min(ratios):.1f} to {max(ratios):.1f}, {len(ratios)} interleaved rounds)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--active", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--pairs",
        type=int,
        default=1,
        help="blocks of 100 images against all others that the loop over pairs is timed on",
    )
    flags = parser.parse_args()
    seen = features_of(flags.images, flags.dimensions, flags.classes, flags.active)
    size = f"{flags.images} images, {flags.dimensions} dimensions, {seen.features.nbytes / 2**20:.0f} MiB"
    print(f"{size}; torch {torch.__version__}, {torch.get_num_threads()} threads")

    small = slice(0, 300)
    some, pairs = pair_similarity(seen.reference_features[small], seen.features[small])
    loop, _ = score_by_pairs(seen.reference_features[small], seen.features[small])
    torch.testing.assert_close(some.float()[pairs > 0], loop[pairs > 0], rtol=1e-3, atol=1e-4)
    ours = class_consistency(class_counts(seen.features, seen.labels, 1e-5))
    torch.testing.assert_close(ours, consistency_by_loops(seen.features, seen.labels))

    slow: tuple[list[float], list[float]] = ([], [])
    fast: tuple[list[float], list[float]] = ([], [])
    everything = flags.images * (flags.images - 1) / 2
    for _ in range(flags.rounds):
        slow[0].append(
            timed(lambda: consistency_by_loops(F.normalize(seen.features, dim=1), seen.labels))
        )
        fast[0].append(
            timed(lambda: class_consistency(class_counts(seen.features, seen.labels, 1e-5)))
        )
        started = time.perf_counter()
        _, done = score_by_pairs(seen.reference_features, seen.features, flags.pairs)
        slow[1].append((time.perf_counter() - started) * everything / done)
        fast[1].append(timed(lambda: pair_similarity(seen.reference_features, seen.features)))
    ratio("class consistency", slow[0], fast[0])
    ratio(
        f"monosemanticity score (loop timed on {done:.0f} of {everything:.0f} pairs)",
        slow[1],
        fast[1],
    )

    for metric in (
        ClassConsistency(), ClassSelectivity(), MonosemanticityScore(), RetrievalPrecision(), Sparsity(), Dimensions(), EffectiveRank(),
        Orthogonality(), FactorInformation(), FeatureMonosemanticity(),
    ):  # fmt: skip
        if isinstance(metric, FeatureMonosemanticity) and flags.images * flags.dimensions > 3e6:
            print(
                f"{type(metric).__name__}: left out, two trees a class on so many numbers take minutes"
            )
            continue
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        took = timed(lambda metric=metric: metric(seen))  # type: ignore[misc]
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(
            f"{type(metric).__name__}: {took:.2f} s, {grown:.0f} MiB more than before at its peak"
        )


if __name__ == "__main__":
    main()
