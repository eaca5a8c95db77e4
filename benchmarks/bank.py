"""What a curve costs: all its heads as one bank, the same heads one by one, and a single head (= one probe).

    python -m benchmarks.bank

The sides are timed in turn, so that a noisy machine hits both; ratios are medians over the rounds, with their range.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from monosem.core.identity import generator
from monosem.evaluation.batched_probes import ProbeSpec
from monosem.evaluation.probes import LinearProbe
from monosem.learning.optimizers import SGD, WarmupCosine

ROUNDS = 5


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def heads(n: int, classes: int, severities: int, repeats: int) -> list[ProbeSpec]:
    """As a label-noise curve has them: within a repeat the same order of examples, other labels."""
    draw = generator("benchmark")
    return [
        ProbeSpec(r, torch.arange(n), torch.randint(classes, (n,), generator=draw))
        for _ in range(severities)
        for r in range(repeats)
    ]


def measure(name: str, n: int, d: int, classes: int, epochs: int) -> None:
    probe = LinearProbe(SGD(lr=1.0), WarmupCosine(1.0), epochs=epochs)
    features, bank = (
        torch.randn(n, d, generator=generator("features")),
        heads(n, classes, severities=6, repeats=5),
    )
    probe.fit(features, classes, bank[:1])  # warm up
    rounds = [
        (
            seconds(lambda: probe.fit(features, classes, bank)),
            seconds(lambda: [probe.fit(features, classes, [head]) for head in bank]),
            seconds(lambda: probe.fit(features, classes, bank[:1])),
        )
        for _ in range(ROUNDS)
    ]
    for words, ratios in (
        ("one by one / bank", [alone / together for together, alone, _ in rounds]),
        ("bank / one head", [together / one for together, _, one in rounds]),
    ):
        print(
            f"{name}: {words}: {statistics.median(ratios):.1f} (range {min(ratios):.1f} to {max(ratios):.1f}, {ROUNDS} rounds)"
        )


if __name__ == "__main__":
    print(
        f"{len(heads(1, 2, 6, 5))} heads, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    measure("digits, 128 features, 10 classes", n=1437, d=128, classes=10, epochs=50)
    measure("a tenth of CIFAR-100, 512 features", n=5000, d=512, classes=100, epochs=3)
