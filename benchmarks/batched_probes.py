"""What a curve costs: its probes fitted at once, one by one, and a single one of them.

    python -m benchmarks.batched_probes

The three are timed in turn, so that a noisy machine hits all. Ratios are medians over the rounds,
with their range.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from monosem.core.identity import generator
from monosem.learning.optimizers import SGD, WarmupCosine
from monosem.probes.batched_probes import ProbeSpec
from monosem.probes.linear import LinearProbe

ROUNDS = 5


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def probes_of_curve(n: int, classes: int, severities: int, repeats: int) -> list[ProbeSpec]:
    """As of label noise: probes of one repeat share their order of examples, not their labels."""
    draw = generator("benchmark")
    return [
        ProbeSpec(repeat, torch.arange(n), torch.randint(classes, (n,), generator=draw))
        for _ in range(severities)
        for repeat in range(repeats)
    ]


def report(name: str, ratios: Sequence[float]) -> None:
    median, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print(f"{name}: {median:.1f} (range {low:.1f} to {high:.1f}, {len(ratios)} rounds)")


def measure(name: str, n: int, d: int, classes: int, epochs: int) -> None:
    settings = LinearProbe(SGD(lr=1.0), WarmupCosine(1.0), epochs=epochs)
    features = torch.randn(n, d, generator=generator("features"))
    probes = probes_of_curve(n, classes, severities=6, repeats=5)

    def fit_one() -> None:
        settings.fit(features, classes, probes[:1])

    def fit_one_by_one() -> None:
        for probe in probes:
            settings.fit(features, classes, [probe])

    def fit_at_once() -> None:
        settings.fit(features, classes, probes)

    fit_one()  # warm up
    speedups, costs = [], []
    for _ in range(ROUNDS):
        at_once, one_by_one, one = map(seconds, (fit_at_once, fit_one_by_one, fit_one))
        speedups.append(one_by_one / at_once)
        costs.append(at_once / one)
    report(f"{name}: one by one / at once", speedups)
    report(f"{name}: at once / one probe", costs)


if __name__ == "__main__":
    count = len(probes_of_curve(n=1, classes=2, severities=6, repeats=5))
    print(f"{count} probes, {torch.get_num_threads()} threads, torch {torch.__version__}")
    measure("digits, 128 features, 10 classes", n=1437, d=128, classes=10, epochs=50)
    measure("a tenth of CIFAR-100, 512 features", n=5000, d=512, classes=100, epochs=3)
