"""Accuracy and retrieval by the number of dimensions that labels, however wrong or few, choose."""

from __future__ import annotations

from dataclasses import dataclass, field

import gin
import torch
from torch import Tensor

from monosem.classifiers.best_dimensions import AnovaF, Ranking
from monosem.classifiers.logistic import LogisticRegression
from monosem.core.device import device
from monosem.core.fields import Count
from monosem.core.stage import Artifact, Job, Stage
from monosem.corruptions.base import Corruption
from monosem.metrics.neighbours import precision_at
from monosem.models.features import Features
from monosem.probes.base import probe_spec
from monosem.probes.batched_probes import ProbeSpec
from monosem.robustness.measurement import accuracies, accuracies_of
from monosem.robustness.selection import NEIGHBOURS, TopDimensions


@gin.register
@dataclass(frozen=True, kw_only=True)
class ChosenDimensions(TopDimensions):
    """How many dimensions does it take? A logistic regression on the best m, for every m.

    Both the choice and the classifier see the training set that a draw of the corruption gives.
    Beside accuracy stands retrieval in the same dimensions (NCL, arXiv:2403.12459, section 4.2):
    the share of their own class among the 10 nearest test examples, by Euclidean distance.

    severities: m, whole numbers from 1 to the width of the encoder.
    corruption: of the training set.
    level: its severity.
    rule: which dimensions are the best.
    classifier: of those that are kept.
    repeats: draws of the corruption.
    """

    corruption: Corruption
    level: float
    rule: Ranking = field(default_factory=AnovaF)
    classifier: LogisticRegression = field(default_factory=LogisticRegression)
    repeats: Count = 5

    @property
    def metrics(self) -> tuple[str, ...]:
        return (*accuracies(self.data), f"precision_at_{NEIGHBOURS}")

    def preflight(self) -> None:
        super().preflight()
        if mismatch := self.corruption.incompatibility(self.data):
            self.refuse("data", mismatch)
        try:
            self.corruption.check_severity(self.level, self.data.split("train").labels)
        except ValueError as error:
            self.refuse("level", str(error))
        if not self.corruption.touches_training(self.level) and self.level:
            kind = type(self.corruption).__name__
            self.refuse("corruption", f"must be of training labels or examples, got {kind}")
        self.classifier.check_data(self.data)

    def upstream(self) -> tuple[Stage, ...]:
        return Features(self.encoder, self.data, "train"), Features(self.encoder, self.data, "test")

    def run(self, job: Job) -> Artifact:
        train, test = (job.get(stage)["features"].to(device()) for stage in self.upstream())
        columns: dict[str, list[float]] = {metric: [] for metric in self.metrics}
        for repeat in range(self.repeats):
            head = probe_spec(self.data, self.corruption, self.level, repeat)
            for dimensions in self.top_dimensions(self._order(train, head)):
                values = self._measure(train[:, dimensions], test[:, dimensions], head)
                for metric, column in columns.items():
                    column.append(values[metric])
        shape = self.repeats, len(self.severities)
        by_metric = {
            metric: torch.tensor(column, dtype=torch.float64).reshape(shape).T.contiguous()
            for metric, column in columns.items()
        }
        return {**by_metric, "passes": torch.tensor(0)}

    def _order(self, train: Tensor, head: ProbeSpec) -> Tensor:
        rows = train[head.examples.to(train.device)].double()
        labels = head.labels[head.examples].to(train.device)
        return self.rule.order(rows, labels, self.data.classes)

    def _measure(self, train: Tensor, test: Tensor, head: ProbeSpec) -> dict[str, float]:
        """Of features of the chosen dimensions alone."""
        fitted = self.classifier.fit(train, self.data.classes, [head])
        labels = self.data.split("test").labels.to(test.device)
        precision = 100 * precision_at(test, labels, NEIGHBOURS)
        return {
            **accuracies_of(fitted.logits(test, 0), labels),
            f"precision_at_{NEIGHBOURS}": precision,
        }
