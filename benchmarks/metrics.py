"""Metrics in matrix form against the loops in which they were published, on the same features.

    python -m benchmarks.metrics [--images 10000] [--dimensions 2048] [--rounds 5]

Loops: class consistency dimension by dimension, as in the NCL code; the monosemanticity score over
all pairs of images, block by block, as Pach et al. have it. The second would take minutes, so it is
timed on a share of the pairs (--pairs) and scaled up. Both loops must agree with the matrix form,
the score on fewer images. Then every metric by itself, and how much memory it takes.
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

from monosem.metrics import ALL_METRICS
from monosem.metrics.base import FeatureBatch, Metric
from monosem.metrics.classes import class_consistency, class_counts
from monosem.metrics.neighbours import pair_similarity
from monosem.metrics.trees import FeatureMonosemanticity


def features_of(images: int, dimensions: int, classes: int, active: float) -> FeatureBatch:
    """Rectified features, a share of them active, more so for some classes.

    The reference encoder has the width of a small network.
    """
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (images,), generator=draw)
    preferences = torch.randn(classes, dimensions, generator=draw)[labels]
    raw = torch.randn(images, dimensions, generator=draw) + preferences
    features = (raw - raw.flatten()[:100_000].quantile(1 - active)).relu()
    class_centres = torch.randn(classes, 512, generator=draw)[labels]
    reference_features = class_centres + torch.randn(images, 512, generator=draw)
    factors = {"class": labels, "noise": torch.randint(8, (images,), generator=draw)}
    return FeatureBatch(F.normalize(features, dim=1), labels, reference_features, factors)


def consistency_by_loops(features: Tensor, labels: Tensor, epsilon: float = 1e-5) -> Tensor:
    """One dimension after the other: the share of the most frequent class among active images."""
    shares = []
    for d in range(features.shape[1]):
        active_labels = labels[features[:, d].abs() > epsilon]
        most_frequent = active_labels.bincount().max().item() if len(active_labels) else 0
        shares.append(most_frequent / max(len(active_labels), 1))
    return torch.tensor(shares, dtype=torch.float64)


def consistency_by_matrix(batch: FeatureBatch) -> Tensor:
    return class_consistency(class_counts(batch.features, batch.labels, 1e-5))


def score_by_pairs(
    reference_features: Tensor, weights: Tensor, blocks: int | None = None, block: int = 100
) -> tuple[Tensor, int]:
    """All pairs of images n < m, a block of n against all of m.

    reference_features: (n, e).
    weights: (n, d).
    blocks: stop after so many; None takes all.
    Returns the scores (d,), and the number of pairs that were seen.
    """
    unit, n = F.normalize(reference_features, dim=1), len(weights)
    weighted_cosines = torch.zeros(weights.shape[1])
    total_weight = torch.zeros(weights.shape[1])
    pairs = 0
    for first in list(range(0, n, block))[:blocks]:
        similarity = unit[first : first + block] @ unit.T
        for i in range(len(similarity)):
            later = slice(first + i + 1, n)
            products = weights[first + i] * weights[later]  # (pairs, d)
            weighted_cosines += similarity[i, later] @ products
            total_weight += products.sum(0)
            pairs += n - first - i - 1
    return weighted_cosines / total_weight.clamp(min=1e-30), pairs


def check_agreement(batch: FeatureBatch) -> None:
    """Both loops against the matrix form."""
    reference_features, weights = batch.reference_features[:300], batch.features[:300]
    score, pair_weight = pair_similarity(reference_features, weights)
    by_loops, _ = score_by_pairs(reference_features, weights)
    has_pairs = pair_weight > 0
    torch.testing.assert_close(score.float()[has_pairs], by_loops[has_pairs], rtol=1e-3, atol=1e-4)
    by_loops = consistency_by_loops(batch.features, batch.labels)
    torch.testing.assert_close(consistency_by_matrix(batch), by_loops)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def print_ratio(name: str, loops: list[float], matrix: list[float]) -> None:
    ratios = [slow / fast for slow, fast in zip(loops, matrix, strict=True)]
    print(
        f"{name}: loops {statistics.median(loops):.2f} s, "
        f"matrix {statistics.median(matrix):.3f} s, "
        f"{statistics.median(ratios):.1f} times faster "
        f"(range {min(ratios):.1f} to {max(ratios):.1f}, {len(ratios)} interleaved rounds)"
    )


def compare_consistency(batch: FeatureBatch, rounds: int) -> None:
    loops, matrix = [], []
    for _ in range(rounds):
        loops.append(
            seconds(lambda: consistency_by_loops(F.normalize(batch.features, dim=1), batch.labels))
        )
        matrix.append(seconds(lambda: consistency_by_matrix(batch)))
    print_ratio("class consistency", loops, matrix)


def compare_score(batch: FeatureBatch, rounds: int, blocks: int) -> None:
    reference_features, weights = batch.reference_features, batch.features
    all_pairs = len(weights) * (len(weights) - 1) / 2
    loops, matrix, pairs = [], [], 0
    for _ in range(rounds):
        started = time.perf_counter()
        _, pairs = score_by_pairs(reference_features, weights, blocks)
        loops.append((time.perf_counter() - started) * all_pairs / pairs)
        matrix.append(seconds(lambda: pair_similarity(reference_features, weights)))
    name = f"monosemanticity score (loop timed on {pairs} of {all_pairs:.0f} pairs)"
    print_ratio(name, loops, matrix)


def peak_memory() -> float:
    """Of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def time_metric(metric: Metric, batch: FeatureBatch) -> None:
    name = type(metric).__name__
    if isinstance(metric, FeatureMonosemanticity) and batch.features.numel() > 3e6:
        print(f"{name}: left out, two trees a class on so many numbers take minutes")
        return
    before = peak_memory()
    took = seconds(lambda: metric(batch))
    grown = peak_memory() - before
    print(f"{name}: {took:.2f} s, {grown:.0f} MiB more than before at its peak")


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
    batch = features_of(flags.images, flags.dimensions, flags.classes, flags.active)
    size = f"{batch.features.nbytes / 2**20:.0f} MiB"
    print(f"{flags.images} images, {flags.dimensions} dimensions, {size}; ", end="")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    check_agreement(batch)
    compare_consistency(batch, flags.rounds)
    compare_score(batch, flags.rounds, flags.pairs)
    for metric in ALL_METRICS:
        time_metric(metric, batch)


if __name__ == "__main__":
    main()
