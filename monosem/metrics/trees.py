"""How well a single dimension knows a class, from decision trees."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

import gin
import torch
from torch import Tensor

from monosem.core.fields import Range
from monosem.metrics.base import Declaration, FeatureBatch, Metric, MetricResult, mean_or_zero


@gin.register
@dataclass(frozen=True)
class FeatureMonosemanticity(Metric):
    """The feature monosemanticity score FMS@p (Härle et al., arXiv:2506.19382, section 3): high
    where one dimension knows a class, no second one does, and more of them would not help.

    For every class against the others, both weighted alike, CART trees on all dimensions give
        a_0     accuracy of the root, which is one threshold in one dimension
        a_i     accuracy of the tree cut at depth i + 1
        b_p     accuracy of the root after the p dimensions that were roots before are taken away
    and from these
        local   2 (a_0 - b_p)
        global  1 - mean_{i = 1..n} (a_i - a_0)
        score   a_0 (local + global) / 2
    fms: the mean score of the classes, about 0 to 1. It is a little below 0 where a root is not
        the most accurate split.
    fms_capacity: the mean of a_0.
    fms_local: the mean of local.
    fms_global: the mean of global.

    One number a representation, as trees choose their dimensions. Accuracies are in sample, as in
    the authors' code; their trees grow until leaves are pure.

    p: dimensions that are taken away.
    n: depths beyond the root.
    """

    p: Annotated[int, Range(1, 100)] = 1
    n: Annotated[int, Range(1, 20)] = 2

    def declares(self, factors: Sequence[str] = ()) -> tuple[Declaration, ...]:
        names = ("fms", "fms_capacity", "fms_local", "fms_global")
        return tuple(Declaration(name) for name in names)

    def __call__(self, batch: FeatureBatch) -> dict[str, MetricResult]:
        # trees sort one dimension after the other: twice as fast where each lies in one piece
        features = batch.features.float().cpu().T.contiguous().numpy().T
        labels = batch.labels.cpu()

        def scores_of(label: Tensor) -> tuple[float, float, float]:
            return self.class_scores(features, (labels == label).numpy())

        # threads are enough, as trees grow outside of Python's lock
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            scores = list(threads.map(scores_of, labels.unique()))
        capacity, local, overall = torch.tensor(scores, dtype=torch.float64).reshape(-1, 3).T
        return {
            "fms": mean_or_zero(capacity * (local + overall) / 2),
            "fms_capacity": mean_or_zero(capacity),
            "fms_local": mean_or_zero(local),
            "fms_global": mean_or_zero(overall),
        }

    def class_scores(self, features: Any, is_class: Any) -> tuple[float, float, float]:
        """a_0, local and global of one class.

        features: (n, d) array.
        is_class: (n,) array of booleans.
        """
        tree = fit_tree(features, is_class, 1 + self.n)
        root_accuracy = tree_accuracy(tree, 1)
        gains = [tree_accuracy(tree, 1 + depth) - root_accuracy for depth in range(1, 1 + self.n)]
        accuracy_without = self._accuracy_without_roots(features, is_class, tree)
        return root_accuracy, 2 * (root_accuracy - accuracy_without), 1 - sum(gains) / self.n

    def _accuracy_without_roots(self, features: Any, is_class: Any, tree: Any) -> float:
        """b_p. tree: grown on all dimensions."""
        remaining = features.copy(order="K")
        for _ in range(self.p):
            root = tree.tree_.feature[0]
            if root >= 0:  # else there was nothing to split by
                remaining[:, root] = 0
            tree = fit_tree(remaining, is_class, 1)
        return tree_accuracy(tree, 1)


def fit_tree(features: Any, is_class: Any, depth: int) -> Any:
    """A CART tree by Gini impurity, the class and the rest weighted alike.

    Where several dimensions split equally well, one is drawn; it is always the same one.
    """
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(
        criterion="gini", max_depth=depth, class_weight="balanced", random_state=0
    )
    return tree.fit(features, is_class)


def tree_accuracy(tree: Any, depth: int) -> float:
    """The balanced accuracy, in sample, of a tree cut at a depth; 0.5 is chance.

    tree: of scikit-learn, weighted so that the class and the rest count alike.
    depth: 1 is the root's split alone.
    """
    nodes = tree.tree_
    depths = nodes.compute_node_depths() - 1  # the root counts as 1 there
    is_leaf = nodes.children_left < 0
    ends_here = (depths == depth) | ((depths < depth) & is_leaf)
    weights = nodes.weighted_n_node_samples
    class_weights = nodes.value[:, 0]  # (nodes, 2)
    majority = class_weights.max(-1) / class_weights.sum(-1)
    return float((weights * majority)[ends_here].sum() / weights[0])
