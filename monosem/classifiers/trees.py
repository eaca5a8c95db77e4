"""Trees, forests and boosted trees of scikit-learn: they cut along one axis at a time."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gin
import numpy as np
import torch
from torch import Tensor

from monosem.classifiers.kept import FeatureClassifier, fold_of_examples
from monosem.core.fields import Count, Positive
from monosem.probes.batched_probes import ProbeSpec

PARTS = 5  # of which one is held out to choose a setting


class FittedTrees(NamedTuple):
    """Fitted classifiers of scikit-learn.

    models: of every head.
    classes: how many there are; those that a model has not seen are never predicted.
    """

    models: list[Any]
    classes: int

    def logits(self, features: Tensor, position: int) -> Tensor:
        """(n, d) -> (n, classes), the logarithms of probabilities."""
        model = self.models[position]
        seen = torch.from_numpy(model.predict_proba(features.cpu().numpy()))
        every = torch.zeros(len(features), self.classes, dtype=seen.dtype)
        every[:, torch.from_numpy(model.classes_.astype(np.int64))] = seen
        return every.clamp(min=1e-30).log().to(features.device)


@dataclass(frozen=True)
class Trees(FeatureClassifier):
    """A classifier of scikit-learn.

    leaf: the least number of examples in a leaf, to choose from; a single one is taken as it is.
        Chosen is the one of least error on a fifth of the labels that a head is given, the largest
        of equal ones; where a class has one example, the smallest.
    """

    leaf: tuple[Count, ...] = (1, 5, 20)

    def validate(self) -> None:
        if not self.leaf:
            self.refuse("leaf", "must hold at least one number, got ()")

    def identity(self, head: ProbeSpec) -> Hashable:
        return head.identity  # the seed is that of ties and random choices

    def build(self, leaf: int, seed: int) -> Any:
        """A classifier of scikit-learn, not yet fitted."""
        raise NotImplementedError

    def fit(self, features: Tensor, classes: int, heads: Sequence[ProbeSpec]) -> FittedTrees:
        rows = features.cpu().numpy()
        return FittedTrees([self._fit_head(rows, head) for head in heads], classes)

    def _fit_head(self, rows: Any, head: ProbeSpec) -> Any:
        labels = head.labels[head.examples]
        own, seed = rows[head.examples.numpy()], head.seed % 2**32
        return self.build(self._best(own, labels, seed), seed).fit(own, labels.numpy())

    def _best(self, rows: Any, labels: Tensor, seed: int) -> int:
        if len(self.leaf) == 1:
            return self.leaf[0]
        folds = fold_of_examples(labels, PARTS)
        if folds is None:
            return min(self.leaf)
        held, given = (folds == 0).numpy(), labels.numpy()
        candidates = sorted(self.leaf, reverse=True)
        right = []
        for leaf in candidates:
            model = self.build(leaf, seed).fit(rows[~held], given[~held])
            right.append((model.predict(rows[held]) == given[held]).sum())
        return candidates[int(np.argmax(right))]


@gin.register
@dataclass(frozen=True)
class DecisionTree(Trees):
    """One tree (Breiman et al. 1984, CART), by Gini impurity."""

    def build(self, leaf: int, seed: int) -> Any:
        from sklearn.tree import DecisionTreeClassifier  # here, as scikit-learn takes long

        return DecisionTreeClassifier(min_samples_leaf=leaf, random_state=seed)


@gin.register
@dataclass(frozen=True)
class RandomForest(Trees):
    """The mean of trees on resampled examples, each cut by one of sqrt(d) dimensions (2001).

    trees: how many.
    """

    leaf: tuple[Count, ...] = (1, 5)
    trees: Count = 30

    def build(self, leaf: int, seed: int) -> Any:
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(self.trees, min_samples_leaf=leaf, random_state=seed)


@gin.register
@dataclass(frozen=True)
class Boosting(Trees):
    """Gradient-boosted trees on histograms (Friedman 2001; Ke et al. 2017, LightGBM).

    rounds: trees of every class.
    rate: what each tree is multiplied by.
    """

    leaf: tuple[Count, ...] = (1, 20)
    rounds: Count = 30
    rate: Positive = 0.1

    def build(self, leaf: int, seed: int) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(
            learning_rate=self.rate,
            max_iter=self.rounds,
            min_samples_leaf=leaf,
            early_stopping=False,
            random_state=seed,
        )
