"""Accuracy on test sets of another domain than the one that the probe learned from."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import gin
import torch
from torch import Tensor

from monosem.core.device import device
from monosem.core.fields import Count
from monosem.core.stage import Artifact, Job, Stage
from monosem.data.dataset import Dataset
from monosem.probes.base import Probe, Task, clean_task
from monosem.probes.batched_probes import topk_accuracy
from monosem.robustness.common import CLEAN
from monosem.robustness.measurement import Point, Result, Series, accuracies, accuracies_of
from monosem.shifts.base import (
    LEFT_OUT,
    ClassMatch,
    SeenAs,
    ShiftedSets,
    first_few,
    match_classes,
)

AMONG_PRESENT = "top1_among_present"


class MeasuredSet(NamedTuple):
    """One point that is measured.

    data: its test split is encoded.
    labels: (n,) int64 in the numbers of the probe, LEFT_OUT where the probe lacks the class.
    present: (m,) the labels of the probe that the set has.
    """

    data: Dataset
    labels: Tensor
    present: Tensor


@gin.register
@dataclass(frozen=True, kw_only=True)
class Shift(Series):
    """Accuracy of a probe on sets that differ from its training set: out of domain.

    The paper has ImageNet-Sketch, Stylized ImageNet and ImageNet-C (ICLR 2025, figure 2). The
    probe learns from the clean training set, once for all sets. Its points are 'clean', its own
    test split, then those of every set. Examples of classes that the probe does not know are left
    out, and `n` counts the others. top1_among_present chooses among the classes of the probe that
    the set has: the other two count a confusion with an absent class as wrong.

    data: what the probe is trained on, and tested on as 'clean'.
    probe: what is trained on clean features, once for all sets.
    sets: what it is tested on besides.
    repeats: independent draws of the probe.

    Artifact:
        top1, top5, top1_among_present  (points, repeats)  float64, in percent
        images, or texts                (points,)          int64, how many were measured
    """

    probe: Probe
    sets: tuple[ShiftedSets, ...]
    repeats: Count = 5

    @property
    def metrics(self) -> tuple[str, ...]:
        return (*accuracies(self.data), AMONG_PRESENT)

    @property
    def axis(self) -> str:
        return "severity of the shift, 0 where it has none"

    @property
    def points(self) -> tuple[Point, ...]:
        return CLEAN, *(Point(*named) for shifted in self.sets for named in shifted.names)

    def validate(self) -> None:
        super().validate()
        if not self.sets:
            self.refuse("sets", "must hold at least one set, got ()")
        points = self.points
        repeated = [f"{p.name} {p.severity:g}" for p in points if points.count(p) > 1]
        if repeated:
            self.refuse("sets", f"must have points that differ, got {repeated[0]} more than once")

    def preflight(self) -> None:
        if problem := self.data.problem() or self.encoder.incompatibility(self.data):
            self.refuse("data", problem)
        self.probe.check_data(self.data)
        self.probe.check_width(self.encoder.width)
        for point, (seen, shifted) in zip(self.points[1:], self._seen(), strict=True):
            problem = seen.source.problem_of_test() or seen.misfit()
            if problem:
                self.refuse("sets", f"holds {point.name}, which {problem}")
            try:
                match = self._match(seen, shifted)
            except ValueError as error:
                self.refuse("sets", f"holds {point.name}, which {error}")
            if coverage := self._coverage(seen, match):
                say_once(f"{point.name} {coverage}")

    @property
    def task(self) -> Task:
        """What is asked of the probe: to learn from the clean training set."""
        return clean_task(self.encoder, self.data, self.repeats)

    def upstream(self) -> tuple[Stage, ...]:
        stages = list(self.probe.upstream(self.task))
        for seen, _ in self._seen():
            stages += self.probe.test_stages(self.encoder, seen)
        return tuple(dict.fromkeys(stages))

    def run(self, job: Job) -> Artifact:
        classifiers = list(self.probe.classifiers(self.task, job))
        noun = self.data.noun
        values, counts = [], []
        for test in self._tests():
            known = test.labels != LEFT_OUT
            for logits in self.probe.test_logits(self.task, classifiers, test.data, job):
                values.append(_accuracies(logits[known], test.labels[known], test.present))
            counts.append(int(known.sum()))
            job.log(len(counts), len(self.points), **{noun: counts[-1]})
        by_metric = {
            metric: torch.tensor([of_draw[metric] for of_draw in values], dtype=torch.float64)
            for metric in self.metrics
        }
        return {
            **{metric: column.reshape(-1, self.repeats) for metric, column in by_metric.items()},
            noun: torch.tensor(counts),
        }

    def results(self, artifact: Artifact) -> Iterator[Result]:
        counts = artifact[self.data.noun].tolist()
        for metric in self.metrics:
            rows = zip(self.points, counts, artifact[metric].tolist(), strict=True)
            for point, n, values in rows:
                for repeat, value in enumerate(values):
                    yield Result(point.severity, repeat, metric, value, n, point.name)

    def _seen(self) -> Iterator[tuple[SeenAs, ShiftedSets]]:
        """Every set as the probe sees it, and the part that it comes from."""
        absent = [absence for shifted in self.sets if (absence := shifted.absence())]
        if absent:
            self.refuse(
                "sets",
                f"needs files that are not there: {'; '.join(absent)}; get them, or leave such "
                "sets out to measure the others",
            )
        for shifted in self.sets:
            for point in shifted.points(self.data):
                yield SeenAs(point.data, self.data), shifted

    def _match(self, seen: SeenAs, shifted: ShiftedSets) -> ClassMatch:
        return match_classes(self.data.class_names, seen.class_names, shifted.class_map)

    def _tests(self) -> Iterator[MeasuredSet]:
        own = self.data.split("test").labels.to(device())
        yield MeasuredSet(self.data, own, torch.arange(self.data.classes, device=device()))
        for seen, shifted in self._seen():
            match = self._match(seen, shifted)
            labels = match.labels[seen.split("test").labels]
            yield MeasuredSet(seen, labels.to(device()), match.present.to(device()))

    def _coverage(self, seen: SeenAs, match: ClassMatch) -> str:
        """Which classes a set has and what is left out; '' where it has all and nothing is."""
        names = self.data.class_names
        labels = match.labels[seen.split("test").labels]
        left_out = int((labels == LEFT_OUT).sum())
        if not left_out and len(match.present) == len(names):
            return ""
        present = [names[label] for label in match.present.tolist()]
        return (
            f"has {len(present)} of the {len(names)} classes of the probe ({first_few(present)}); "
            f"{left_out} of its {len(labels)} {self.data.noun} are of others and are left out"
        )

    def remarks(self, artifact: Artifact) -> Iterator[str]:
        """Of sets that lack classes: which they have, and the accuracy among those alone."""
        among = artifact[AMONG_PRESENT].mean(1).tolist()
        sets = zip(self.points[1:], among[1:], self._seen(), strict=True)
        for point, accuracy, (seen, shifted) in sets:
            if coverage := self._coverage(seen, self._match(seen, shifted)):
                name = f"{point.name} {point.severity:g}" if point.severity else point.name
                yield (
                    f"{name} {coverage}; where only classes that it has may be chosen, top-1 is "
                    f"{accuracy:.1f} % ({AMONG_PRESENT}, {self.repeats} draws)"
                )


def _accuracies(logits: Tensor, labels: Tensor, present: Tensor) -> dict[str, float]:
    """All accuracies, and top 1 among the classes that are present, in percent."""
    absent = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
    absent[present] = False
    among_present = logits.masked_fill(absent, float("-inf"))
    return {
        **accuracies_of(logits, labels),
        AMONG_PRESENT: topk_accuracy(among_present, labels, 1),
    }


@functools.cache
def say_once(line: str) -> None:
    """Print a line for the person, once a process."""
    print(line, file=sys.stderr)
