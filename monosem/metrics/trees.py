"""TODO."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

import gin
import torch

from monosem.core.fields import Range
from monosem.metrics.base import Declaration, FeatureBatch, Metric, MetricResult, mean_or_zero


@gin.register
@dataclass(frozen=True)
class FeatureMonosemanticity(Metric):
    """The feature monosemanticity score FMS@p (Härle et al., arXiv:2506.19382, section 3), about 0 to 1: a little below 0 where a root is
    not the most accurate split.

    For every class against the others, with classes weighted alike, CART trees on all dimensions: a_0 is the accuracy of the root,
    which is one threshold in one dimension; a_i that of the tree cut at depth i + 1; b_p that of the root after the p dimensions that
    were roots before are gone. local = 2 (a_0 - b_p), global = 1 - mean_i (a_i - a_0), i from 1 to n; the score is the mean over
    classes of a_0 (local + global) / 2. High where one dimension knows a class, no second one does, and more would not help.

    p: dimensions taken away. n: depths beyond the root. In sample, as in its authors' code; their trees grow until leaves are pure.
    Features and labels alone; one number a representation, as trees choose their dimensions.
    """

    p: Annotated[int, Range(1, 100)] = 1
    n: Annotated[int, Range(1, 20)] = 2

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        return tuple(
            Declaration(name) for name in ("fms", "fms_capacity", "fms_local", "fms_global")
        )

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        table, labels = batch.features.float().cpu().numpy(), batch.labels.cpu()
        with ThreadPoolExecutor(
            torch.get_num_threads()
        ) as threads:  # trees grow outside of Python's lock
            scores = [
                *threads.map(
                    lambda label: self.of_concept(table, (labels == label).numpy()), labels.unique()
                )
            ]
        capacity, local, whole = torch.tensor(scores, dtype=torch.float64).reshape(-1, 3).T
        return {
            "fms": mean_or_zero(capacity * (local + whole) / 2), "fms_capacity": mean_or_zero(capacity), "fms_local": mean_or_zero(local),
            "fms_global": mean_or_zero(whole),
        }  # fmt: skip

    def of_concept(self, table: Any, concept: Any) -> tuple[float, float, float]:
        """a_0, local and global of one concept. table: (n, d) array; concept: (n,) booleans."""
        left = table.copy()
        tree = grown(left, concept, 1 + self.n)
        root, *deeper = (tree_accuracy(tree, depth) for depth in range(1, 2 + self.n))
        for gone in range(self.p):
            feature = (tree if gone == 0 else grown(left, concept, 1)).tree_.feature[0]
            left[:, max(feature, 0)] = 0  # -2: there was nothing to split, and nothing to take away
        rest = tree_accuracy(grown(left, concept, 1), 1)
        return root, 2 * (root - rest), 1 - sum(each - root for each in deeper) / self.n


def grown(table: Any, concept: Any, depth: int) -> Any:
    """A CART tree by Gini impurity, concept and rest weighted alike; of dimensions that split alike one is drawn, always the same."""
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(
        criterion="gini", max_depth=depth, class_weight="balanced", random_state=0
    ).fit(table, concept)


def tree_accuracy(tree: Any, depth: int) -> float:
    """The balanced accuracy, in sample, of a tree cut at a depth; 0.5 is chance and depth 0 is no tree."""
    inner = tree.tree_
    depths = inner.compute_node_depths() - 1  # the root counts as 1 there
    ends = (depths == depth) | ((depths < depth) & (inner.children_left < 0))
    weights = inner.weighted_n_node_samples
    best = inner.value[:, 0].max(-1) / inner.value[:, 0].sum(-1)
    return float((weights * best)[ends].sum() / weights[0])
