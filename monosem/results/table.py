"""The table of results: rows by line, curve, metric, severity, seeds and repeat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from monosem.core.identity import is_seed
from monosem.results.rows import MONOSEMANTICITY, Row, Swept, label
from monosem.results.stats import Sample, area


class Line(NamedTuple):
    """What is one line of a figure: an experiment and the swept values that it has, but for seeds, which are averaged over."""

    experiment: str
    values: Swept


class Table:
    """The rows of a table by line, curve, metric, severity and (seeds, repeat).

    lines: in the order of the rows. axes: of every curve. measures: what is drawn and compared of every curve, top-1 where there
    is one. against: the experiment that the others are compared with, by default the first one.
    """

    def __init__(self, rows: Iterable[Row], against: str | None = None):
        self.rows = list(rows)
        self.against = against or next((row.experiment for row in self.rows), "")
        self.axes = {
            row.curve: row.axis for row in self.rows if not row.curve.startswith(MONOSEMANTICITY)
        }
        self.measures: dict[str, str] = {}
        for row in self.rows:
            if row.curve in self.axes and (row.metric == "top1" or row.curve not in self.measures):
                self.measures[row.curve] = row.metric
        self.lines: dict[Line, dict[tuple[str, str], dict[float, dict[tuple[Any, int], Row]]]] = {}
        for row in self.rows:
            line = Line(row.experiment, tuple(each for each in row.swept if not is_seed(each[0])))
            seeds = tuple(each for each in row.swept if is_seed(each[0]))
            points = self.lines.setdefault(line, {}).setdefault((row.curve, row.metric), {})
            points.setdefault(row.severity, {})[seeds, row.repeat] = row

    def say(self, line: Line) -> str:
        return label(*line)

    def samples(self, line: Line, curve: str, metric: str | None = None) -> dict[float, Sample]:
        """By ascending severity, the values of a line over its seeds and repeats: of what is drawn, or of another metric."""
        points = self.lines[line].get((curve, metric or self.measures[curve]), {})
        return {
            severity: {each: row.value for each, row in points[severity].items()}
            for severity in sorted(points)
        }

    def baseline(self, line: Line) -> Line | None:
        """The line that `line` is compared with: the first one of the baseline that agrees with it in what both have; for the
        baseline's other lines, its first. None for that one."""
        lines = [other for other in self.lines if other.experiment == self.against]
        if line.experiment == self.against:
            return None if line == lines[0] else lines[0]
        return next((other for other in lines if _agree(line.values, other.values)), None)

    def differences(self, line: Line, curve: str) -> dict[float, Sample]:
        """What is drawn of a line minus that of its baseline, seed by seed and draw by draw: both met the same noise, and the same
        batches in training, so their share of the spread cancels. Severities that both have. Seeds that only one of them has
        are averaged over first."""
        base = self.baseline(line)
        if base is None:
            return {}
        mine, theirs = self.samples(line, curve), self.samples(base, curve)
        found: dict[float, Sample] = {}
        for severity in (severity for severity in mine if severity in theirs):
            shared = _bindings(mine[severity]) & _bindings(theirs[severity])
            one, other = _averaged(mine[severity], shared), _averaged(theirs[severity], shared)
            if values := {
                unit: value - other[unit] for unit, value in one.items() if unit in other
            }:
                found[severity] = values
        return found


def _bindings(sample: Sample) -> set[str]:
    return {binding for seeds, _ in sample for binding, _ in seeds}


def _averaged(sample: Sample, shared: set[str]) -> Sample:
    """The means over all seeds but those of the shared bindings."""
    units: dict[tuple[Any, int], list[float]] = {}
    for (seeds, repeat), value in sample.items():
        units.setdefault((tuple(seed for seed in seeds if seed[0] in shared), repeat), []).append(
            value
        )
    return {unit: sum(values) / len(values) for unit, values in units.items()}


def _agree(one: Swept, other: Swept) -> bool:
    values = dict(other)
    return all(values.get(binding, value) == value for binding, value in one)


def areas(samples: Mapping[float, Sample]) -> Sample:
    """The area under the curve of each seed and repeat that is there at every severity. The area of differences is the difference
    of areas."""
    whole = [
        each
        for each in next(iter(samples.values()), {})
        if all(each in sample for sample in samples.values())
    ]
    return (
        {
            each: area({severity: sample[each] for severity, sample in samples.items()})
            for each in whole
        }
        if len(samples) > 1
        else {}
    )
