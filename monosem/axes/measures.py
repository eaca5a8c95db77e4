"""Whether the axes of monosemantic encoders are worth more: rank correlations over encoders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from monosem.axes.gains import AxisGains, Place
from monosem.axes.turned import ComparedEncoder, Turned, by_severity
from monosem.results.correlation import MIN_ENCODERS, correlate
from monosem.results.formatting import markdown_table
from monosem.results.rows import MONOSEMANTICITY
from monosem.results.stats import mean_sample

if TYPE_CHECKING:
    from monosem.results.table import Table


def measures_text(
    table: Table,
    asked: AxisGains,
    encoders: Sequence[ComparedEncoder],
    samples: Mapping[Place, Turned],
) -> str:
    """Rank correlations of gains with measures, over encoders with all their seeds."""
    body = []
    count: tuple[int, int] = (0, 0)
    for place in dict.fromkeys(place._replace(encoder="") for place in samples):
        if place.severity is not None:
            continue
        cells = []
        for measure in asked.measures:
            found = list(_measured_gains(table, encoders, samples, place, measure))
            labels = [label for label, _, _ in found]
            count = max(count, (len(found), len(set(labels))))
            x, y = (np.array([one[column] for one in found]) for column in (1, 2))
            is_enough = len(found) >= MIN_ENCODERS and np.ptp(y) > 1e-9
            cells.append(str(correlate(labels, x, y)) if is_enough else "")
        body.append([place.learner, place.kind, *cells])
    learners = list(dict.fromkeys(row[0] for row in body))
    body.sort(key=lambda row: learners.index(row[0]))
    return (
        "Spearman's rank correlation of the axis gain with measures of the features as they are, "
        f"over {count[0]} encoders of {count[1]} kinds, with a 95 % bootstrap interval over kinds "
        "where there are 8 or more.\n\n"
        + markdown_table(["learner", "robustness", *asked.measures], body)
    )


def _measured_gains(
    table: Table,
    encoders: Sequence[ComparedEncoder],
    samples: Mapping[Place, Turned],
    place: Place,
    measure: str,
) -> Iterator[tuple[str, float, float]]:
    """The label, the measure and the gain of every encoder and seed."""
    for each in encoders:
        turned = samples.get(place._replace(encoder=each.label))
        measured = by_severity(table, each.own, MONOSEMANTICITY, measure).get(0.0, {})
        if turned is None or each.learner != place.learner:
            continue
        gain = mean_sample(turned.gains)
        for seeds in dict.fromkeys(seeds for seeds, _ in gain):
            y = [value for (of_seeds, _), value in gain.items() if of_seeds == seeds]
            x = [value for (of_seeds, _), value in measured.items() if of_seeds == seeds]
            if x:
                yield each.label, sum(x) / len(x), sum(y) / len(y)
