"""What the logistic regressions of a curve cost, against scikit-learn's, one head after the other.

    python -m benchmarks.classifiers

One penalty, no cross-validation, as scikit-learn's `LogisticRegression` is fitted, to the
tolerance that it has by default. Both are timed in turn by the processor's clock, on one thread, so
that a busy machine hits both. Ratios are medians over the rounds, with their range. Printed too is
how often both predict the same class.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from monosem.classifiers.closed_form import centre
from monosem.classifiers.logistic import Logistic, LogisticRegression, SparseLogisticRegression
from monosem.core.identity import generator
from monosem.probes.batched_probes import ProbeSpec

ROUNDS = 3


def seconds(work: Callable[[], object]) -> tuple[float, Any]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def planted(n: int, d: int, classes: int, count: int) -> tuple[Tensor, list[ProbeSpec]]:
    """Rectified features with a direction for each class, and heads with more and more noise."""
    draw = generator("benchmark of classifiers")
    labels = torch.randint(classes, (n,), generator=draw)
    directions = torch.randn(classes, d, generator=draw) / d**0.5
    features = (4 * directions[labels] + torch.randn(n, d, generator=draw) / 2).relu()
    heads = []
    for head in range(count):
        is_wrong = torch.rand(n, generator=draw) < 0.8 * head / count
        random = torch.randint(classes, (n,), generator=draw)
        heads.append(ProbeSpec(head, torch.arange(n), torch.where(is_wrong, random, labels)))
    return features, heads


def of_scikit_learn(learner: Logistic, rows: Tensor, head: ProbeSpec, largest: float) -> Any:
    from sklearn.linear_model import LogisticRegression as Theirs

    (penalty,) = learner.penalties
    if isinstance(learner, LogisticRegression):
        model = Theirs(C=1 / (len(rows) * penalty), max_iter=1000)
    else:
        strength = 1 / (len(rows) * penalty * largest)
        model = Theirs(C=strength, l1_ratio=1.0, solver="saga", max_iter=1000)
    return model.fit(rows.numpy(), head.labels.numpy())


def largest_penalty(rows: Tensor, labels: Tensor, classes: int) -> float:
    """The smallest L1 penalty that leaves no weight."""
    targets = torch.eye(classes, dtype=rows.dtype)[labels]
    return float((rows.T @ (targets.mean(0) - targets)).abs().max() / len(rows))


def measure(name: str, learner: Logistic, sizes: tuple[int, int, int], count: int) -> None:
    n, d, classes = sizes
    features, heads = planted(n, d, classes, count)
    rows = centre(features).rows
    bounds = [largest_penalty(rows, head.labels, classes) for head in heads]
    ratios, agreement = [], 0.0
    for _ in range(ROUNDS):
        at_once, ours = seconds(lambda: learner.fit(features, classes, heads))
        one_by_one, theirs = seconds(
            lambda: [
                of_scikit_learn(learner, rows, head, bound)
                for head, bound in zip(heads, bounds, strict=True)
            ]
        )
        ratios.append(one_by_one / at_once)
        same = [
            (ours.logits(features, index).argmax(1).numpy() == model.predict(rows.numpy())).mean()
            for index, model in enumerate(theirs)
        ]
        agreement = statistics.mean(map(float, same))
    report(f"{name}, {count} heads", ratios, agreement)


def report(name: str, ratios: Sequence[float], agreement: float) -> None:
    median, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print(
        f"{name}: scikit-learn / ours {median:.1f} (range {low:.1f} to {high:.1f}, {len(ratios)} "
        f"rounds), {100 * agreement:.2f} % of predictions the same"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # that saga has not converged
    digits = (1437, 128, 10)
    measure("L2 on digits' size", LogisticRegression((1e-2,)), digits, count=30)
    measure("L1 on digits' size", SparseLogisticRegression((0.03,)), digits, count=30)
