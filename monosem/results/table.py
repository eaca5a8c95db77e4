"""The table of results in pandas: rows grouped into lines, samples, and differences to a baseline.

line      the rows of one experiment and one choice of swept values, seeds aside
sample    of a line, curve, metric and key: {(seeds, repeat): value}
key       a severity; the name of a point on a curve whose points have names
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from monosem.core.identity import is_seed
from monosem.results.rows import (
    COLUMNS,
    MONOSEMANTICITY,
    Line,
    Row,
    Swept,
    named_curves,
    swept_bindings,
)
from monosem.results.stats import Array, Key, Sample, mean_sample

Unit = tuple[Swept, int]  # (seeds, repeat)
Place = tuple[str, float]  # (name of the point, severity)


def to_frame(rows: Iterable[Row]) -> pd.DataFrame:
    """The rows as a tidy DataFrame, one row a number.

    Columns: experiment, curve, severity, repeat, metric, value, n, axis and point as in `Row`, and
    one for every swept binding, with values as they were typed; missing where an experiment has no
    such thing.
    """
    rows = list(rows)
    numbers = pd.DataFrame([row[: len(COLUMNS)] for row in rows], columns=list(COLUMNS))
    numbers["severity"] = numbers["severity"].astype(float)  # a severity may be written as 5

    # What was swept is the same for all rows of a cell: one line a cell, repeated for its rows.
    cells = list(dict.fromkeys(row.swept for row in rows))
    position = {swept: index for index, swept in enumerate(cells)}
    swept_of_cells = pd.DataFrame([dict(swept) for swept in cells], columns=swept_bindings(rows))
    swept_of_rows = swept_of_cells.iloc[[position[row.swept] for row in rows]]
    return pd.concat([numbers, swept_of_rows.set_axis(numbers.index)], axis=1)


class Table:
    """The rows of a table, each number once, as `rows.join` sees to it.

    rows: as they were given.
    baseline: the experiment that the others are compared with, by default the first one.
    frame: the rows as of `to_frame`, with `line` (its position in `lines`) and `seeds` (the swept
        values that are seeds) of every row.
    lines: in the order of the rows.
    contents: the (curve, metric) pairs that each line has numbers of.
    axes: what the severity of each curve is.
    named: the curves whose points have names, and those names in order of first appearance.
    metrics: what is drawn and compared of each curve, top-1 where there is one.
    """

    def __init__(self, rows: Iterable[Row], baseline: str | None = None):
        self.rows = list(rows)
        self.baseline = baseline or next((row.experiment for row in self.rows), "")
        self.lines = list(dict.fromkeys(map(_line_of, self.rows)))
        self._position = {line: position for position, line in enumerate(self.lines)}
        self.frame = _with_lines(self.rows, self._position)
        self._groups = _groups(self.frame)
        self._seeds = self.frame["seeds"].tolist()

        self.contents: dict[Line, list[tuple[str, str]]] = {line: [] for line in self.lines}
        for position, curve, metric in self._groups:
            self.contents[self.lines[position]].append((curve, metric))
        self.axes = {
            row.curve: row.axis for row in self.rows if not row.curve.startswith(MONOSEMANTICITY)
        }
        self.named = _point_names(self.rows)
        self.metrics = {curve: self._drawn_metric(curve) for curve in self.axes}

    def _drawn_metric(self, curve: str) -> str:
        metrics = [metric for _, of_curve, metric in self._groups if of_curve == curve]
        return "top1" if "top1" in metrics else metrics[0]

    def samples(self, line: Line, curve: str, metric: str | None = None) -> dict[Key, Sample]:
        """The sample at every severity of a curve, by ascending severity.

        Where points have names, the sample of every name, in order of first appearance in the
        table. Of a name with several severities it is the mean over them, unit by unit.

        metric: by default the one that is drawn.
        """
        return self._by_key(curve, self.at_places(line, curve, metric))

    def at_places(self, line: Line, curve: str, metric: str | None = None) -> dict[Place, Sample]:
        """The sample at every name and severity, no mean over severities: names in their order.

        The name is '' on ordinary curves.
        """
        group = self._position[line], curve, metric or self.metrics[curve]
        samples: dict[Place, dict[Unit, float]] = {}
        for index in self._groups.get(group, ()):
            row = self.rows[index]
            place = row.point, row.severity
            samples.setdefault(place, {})[self._seeds[index], row.repeat] = row.value
        rank = {name: rank for rank, name in enumerate(self.named.get(curve, [""]))}
        return dict(sorted(samples.items(), key=lambda item: (rank[item[0][0]], item[0][1])))

    def _by_key(self, curve: str, samples: Mapping[Place, Sample]) -> dict[Key, Sample]:
        if curve not in self.named:
            return {severity: sample for (_, severity), sample in samples.items()}
        of_names: dict[str, list[Sample]] = {}
        for (name, _), sample in samples.items():
            of_names.setdefault(name, []).append(sample)
        return {name: mean_sample(of_name) for name, of_name in of_names.items()}

    def in_order(self, curve: str, keys: Iterable[Key]) -> list[Key]:
        """Severities ascending, or names as they first appear in the table."""
        chosen = set(keys)
        if curve in self.named:
            return [name for name in self.named[curve] if name in chosen]
        return sorted(chosen)

    def baseline_of(self, line: Line) -> Line | None:
        """The line that `line` is compared with: the first of the baseline that agrees with it in
        the swept values that both have.

        The baseline's own lines are compared with its first one, and that one with none.
        """
        candidates = [other for other in self.lines if other.experiment == self.baseline]
        if line.experiment == self.baseline:
            return None if line == candidates[0] else candidates[0]
        return next((other for other in candidates if _agree(line.values, other.values)), None)

    def differences(self, line: Line, curve: str) -> dict[Key, Sample]:
        """What is drawn of a line minus that of its baseline, at every severity that both have.

        By names where points have them: of each the mean over the severities that both have.

        Paired seed by seed and draw by draw: both met the same noise, and the same batches in
        training, so their share of the spread cancels. Seeds that only one of the two has are
        averaged over first.
        """
        differences = {
            place: {unit: own - base for unit, (own, base) in pairs.items()}
            for place, pairs in self.pairs(line, curve).items()
        }
        by_key = self._by_key(curve, differences)
        return {key: difference for key, difference in by_key.items() if difference}

    def pairs(self, line: Line, curve: str) -> dict[Place, Pairs]:
        """What is drawn of a line and the same of its baseline, at every place that both have.

        Paired as `differences` are.
        """
        base = self.baseline_of(line)
        if base is None:
            return {}
        own_samples = self.at_places(line, curve)
        base_samples = self.at_places(base, curve)
        pairs = {
            place: _paired(sample, base_samples.get(place, {}))
            for place, sample in own_samples.items()
        }
        return {place: paired for place, paired in pairs.items() if paired}


Pairs = Mapping[Unit, tuple[float, float]]  # the values of a line and of its baseline


def _point_names(rows: Iterable[Row]) -> dict[str, list[str]]:
    """The names of the points of each curve that has named ones, in order of first appearance."""
    rows = list(rows)
    names: dict[str, dict[str, None]] = {curve: {} for curve in named_curves(rows)}
    for row in rows:
        if row.curve in names:
            names[row.curve][row.point] = None
    return {curve: list(of_curve) for curve, of_curve in names.items()}


def _groups(frame: pd.DataFrame) -> dict[tuple[int, str, str], Array]:
    """The positions of the rows of each (line, curve, metric), in the order of the rows."""
    groups = frame.groupby(["line", "curve", "metric"], sort=False).indices
    return dict(sorted(groups.items(), key=_first_row))


def _first_row(group: tuple[tuple[int, str, str], Array]) -> int:
    """The position of the first row of a group."""
    _, rows = group
    return int(rows[0])


def _line_of(row: Row) -> Line:
    values, _ = _split_seeds(row.swept)
    return Line(row.experiment, values)


def _with_lines(rows: Sequence[Row], position: Mapping[Line, int]) -> pd.DataFrame:
    """The tidy table with two more columns, `line` and `seeds`.

    position: of each line, which is what the column `line` holds.
    """
    lines = [position[_line_of(row)] for row in rows]
    seeds = [_split_seeds(row.swept)[1] for row in rows]
    return to_frame(rows).assign(line=lines, seeds=pd.Series(seeds, dtype=object))


@functools.cache  # once a cell, not once a row
def _split_seeds(swept: Swept) -> tuple[Swept, Swept]:
    """The swept values that are not seeds, and those that are."""
    values = tuple((binding, value) for binding, value in swept if not is_seed(binding))
    seeds = tuple((binding, value) for binding, value in swept if is_seed(binding))
    return values, seeds


def _agree(values: Swept, others: Swept) -> bool:
    """Whether two lines have equal values of the bindings that both have."""
    other_values = dict(others)
    return all(other_values.get(binding, value) == value for binding, value in values)


def _paired(sample: Sample, other: Sample) -> Pairs:
    """The values of two samples, for every unit that both have.

    Seeds that only one of the two has are averaged over first.
    """
    shared = _seed_bindings(sample) & _seed_bindings(other)
    means = _mean_over_others(sample, shared)
    other_means = _mean_over_others(other, shared)
    return {unit: (mean, other_means[unit]) for unit, mean in means.items() if unit in other_means}


def _seed_bindings(sample: Sample) -> set[str]:
    return {binding for seeds, _ in sample for binding, _ in seeds}


def _mean_over_others(sample: Sample, bindings: set[str]) -> Mapping[Unit, float]:
    """The means over the seeds whose bindings are not among these."""
    values: dict[Unit, list[float]] = {}
    for (seeds, repeat), value in sample.items():
        shared_seeds = tuple(seed for seed in seeds if seed[0] in bindings)
        values.setdefault((shared_seeds, repeat), []).append(value)
    return {unit: sum(drawn) / len(drawn) for unit, drawn in values.items()}
