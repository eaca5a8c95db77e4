"""What the logistic regressions of a curve cost, against scikit-learn's, one head after the other.

    python -m benchmarks.classifiers [digits | large]

Penalties one by one, no cross-validation, as scikit-learn's `LogisticRegression` is fitted. Of L2
the penalty of its default, C = 1, and one on each side of it, to the tolerance that ours has, a
tenth of its default. L1 is fitted by saga and by liblinear, one class against the rest, to their
default tolerance, and the faster one counts. All are timed in turn by the processor's clock, on one
thread, so that a busy machine hits all. Ratios are medians over the rounds, with their range.
Printed too is how often both predict the same class; one against the rest is another model.

digits: 30 heads of 1,437 x 128 and 10 classes, of which scikit-learn fits every third; beside them
    ridge and the linear probe by SGD. large: heads of 5,000 x 512 and 100 classes, 30 with L2, of
    which scikit-learn fits every fifteenth, and 2 with L1.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from monosem.classifiers.closed_form import Ridge, centre
from monosem.classifiers.logistic import (
    FINAL,
    Logistic,
    LogisticRegression,
    SparseLogisticRegression,
)
from monosem.core.identity import generator
from monosem.learning.optimizers import SGD, WarmupCosine
from monosem.probes.batched_probes import ProbeSpec
from monosem.probes.linear import LinearProbe


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


def l2_of_scikit_learn(penalty: float, rows: Tensor, head: ProbeSpec) -> Any:
    from sklearn.linear_model import LogisticRegression as Theirs

    model = Theirs(C=1 / (len(rows) * penalty), max_iter=1000, tol=FINAL.tolerance)
    return model.fit(rows.numpy(), head.labels.numpy())


def saga(penalty: float, rows: Tensor, head: ProbeSpec) -> Any:
    from sklearn.linear_model import LogisticRegression as Theirs

    model = Theirs(C=1 / (len(rows) * penalty), l1_ratio=1.0, solver="saga", max_iter=200)
    return model.fit(rows.numpy(), head.labels.numpy())


def liblinear(penalty: float, rows: Tensor, head: ProbeSpec) -> Any:
    from sklearn.linear_model import LogisticRegression as Theirs
    from sklearn.multiclass import OneVsRestClassifier

    model = Theirs(C=1 / (len(rows) * penalty), l1_ratio=1.0, solver="liblinear")
    return OneVsRestClassifier(model).fit(rows.numpy(), head.labels.numpy())


def largest_penalty(rows: Tensor, labels: Tensor, classes: int) -> float:
    """The smallest L1 penalty that leaves no weight."""
    targets = torch.eye(classes, dtype=rows.dtype)[labels]
    return float((rows.T @ (targets.mean(0) - targets)).abs().max() / len(rows))


class Size(NamedTuple):
    """What is fitted.

    n, d, classes: of the features.
    heads: of ours, all at once.
    every: of which scikit-learn fits one in so many.
    rounds: of timing.
    """

    n: int
    d: int
    classes: int
    heads: int
    every: int
    rounds: int


def measure(learner: Logistic, size: Size) -> None:
    """Ours for all heads against scikit-learn's, one head after the other."""
    features, heads = planted(size.n, size.d, size.classes, size.heads)
    rows = centre(features).rows
    some = range(0, len(heads), size.every)
    (penalty,) = learner.penalties
    if isinstance(learner, LogisticRegression):
        strengths, solvers = [penalty] * len(heads), [l2_of_scikit_learn]
    else:
        bounds = [largest_penalty(rows, head.labels, size.classes) for head in heads]
        strengths, solvers = [penalty * bound for bound in bounds], [liblinear, saga]
    ratios: dict[str, list[float]] = {}
    same: dict[str, list[float]] = {}
    for _ in range(size.rounds):
        at_once, ours = seconds(lambda: learner.fit(features, size.classes, heads))
        for solver in solvers:
            one_by_one, theirs = seconds(
                lambda solver=solver: [solver(strengths[i], rows, heads[i]) for i in some]
            )
            name = solver.__name__
            ratio = one_by_one / len(some) * len(heads) / at_once
            ratios.setdefault(name, []).append(ratio)
            for index, model in zip(some, theirs, strict=True):
                own = ours.logits(features, index).argmax(1).numpy()
                same.setdefault(name, []).append(float((own == model.predict(rows.numpy())).mean()))
            print(f"  {type(learner).__name__}, {name}: {ratio:.1f}", flush=True)
    for name in ratios:
        what = f"{type(learner).__name__}, {size.heads} heads of {size.n} x {size.d} x "
        report(
            f"{what}{size.classes}, penalty {penalty:.2g}, {name}",
            ratios[name],
            statistics.mean(same[name]),
        )


def measure_others(size: Size) -> None:
    """The logistic regression against the bank of linear probes; ridge for all heads and for one.

    Ridge of 30 heads would cost as much as 30 of one, had every head a decomposition of its own.
    """
    features, heads = planted(size.n, size.d, size.classes, size.heads)
    probe = LinearProbe(SGD(lr=1.0), WarmupCosine(), epochs=50)
    ours, single = LogisticRegression((1e-2,)), Ridge()
    for _ in range(size.rounds):
        times = [
            seconds(lambda learner=learner, of=of: learner.fit(features, size.classes, of))[0]
            for learner, of in (
                (ours, heads), (probe, heads), (single, heads), (single, heads[:1])
            )
        ]  # fmt: skip
        print(
            f"{len(heads)} heads: logistic {times[0]:.2f} s, linear probes by SGD {times[1]:.2f} s,"
            f" ridge {times[2]:.2f} s; ridge of one head {times[3]:.2f} s",
            flush=True,
        )


def report(name: str, ratios: Sequence[float], agreement: float) -> None:
    median, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print(
        f"{name}: scikit-learn / ours {median:.1f} (range {low:.1f} to {high:.1f}, {len(ratios)} "
        f"rounds), {100 * agreement:.2f} % of predictions the same",
        flush=True,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # that saga has not converged
    if "large" in sys.argv[1:]:
        large = Size(5000, 512, 100, heads=30, every=15, rounds=3)
        for penalty in (1e-4, 1 / large.n, 1e-2):
            measure(LogisticRegression((penalty,)), large)
        measure(SparseLogisticRegression((0.03,)), large._replace(heads=2, every=2, rounds=1))
    else:
        digits = Size(1437, 128, 10, heads=30, every=3, rounds=3)
        measure_others(digits)
        for penalty in (1e-4, 1 / digits.n, 1e-2):
            measure(LogisticRegression((penalty,)), digits)
        measure(SparseLogisticRegression((0.03,)), digits)
