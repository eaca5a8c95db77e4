"""The table of results in pandas: rows grouped into lines, samples, and differences to a baseline.

line      the rows of one experiment and one choice of swept values, seeds aside
sample    of a line, curve, metric and severity: {(seeds, repeat): value}
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from monosem.core.identity import is_seed
from monosem.results.rows import COLUMNS, MONOSEMANTICITY, Line, Row, Swept, swept_bindings
from monosem.results.stats import Array, Sample

Unit = tuple[Swept, int]  # (seeds, repeat)


def to_frame(rows: Iterable[Row]) -> pd.DataFrame:
    """The rows as a tidy DataFrame, one row a number.

    Columns: experiment, curve, severity, repeat, metric, value, n and axis as in `Row`, and one for
    every swept binding, with values as they were typed; missing where an experiment has no such
    thing.
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
        self.metrics = {curve: self._drawn_metric(curve) for curve in self.axes}

    def _drawn_metric(self, curve: str) -> str:
        metrics = [metric for _, of_curve, metric in self._groups if of_curve == curve]
        return "top1" if "top1" in metrics else metrics[0]

    def samples(self, line: Line, curve: str, metric: str | None = None) -> dict[float, Sample]:
        """The sample at every severity of a curve, by ascending severity.

        metric: by default the one that is drawn.
        """
        group = self._position[line], curve, metric or self.metrics[curve]
        samples: dict[float, dict[Unit, float]] = {}
        for index in self._groups.get(group, ()):
            row = self.rows[index]
            samples.setdefault(row.severity, {})[self._seeds[index], row.repeat] = row.value
        return dict(sorted(samples.items()))

    def baseline_of(self, line: Line) -> Line | None:
        """The line that `line` is compared with: the first of the baseline that agrees with it in
        the swept values that both have.

        The baseline's own lines are compared with its first one, and that one with none.
        """
        candidates = [other for other in self.lines if other.experiment == self.baseline]
        if line.experiment == self.baseline:
            return None if line == candidates[0] else candidates[0]
        return next((other for other in candidates if _agree(line.values, other.values)), None)

    def differences(self, line: Line, curve: str) -> dict[float, Sample]:
        """What is drawn of a line minus that of its baseline, at every severity that both have.

        Paired seed by seed and draw by draw: both met the same noise, and the same batches in
        training, so their share of the spread cancels. Seeds that only one of the two has are
        averaged over first.
        """
        base = self.baseline_of(line)
        if base is None:
            return {}
        own_samples = self.samples(line, curve)
        base_samples = self.samples(base, curve)
        differences: dict[float, Sample] = {}
        for severity, sample in own_samples.items():
            difference = _paired_difference(sample, base_samples.get(severity, {}))
            if difference:
                differences[severity] = difference
        return differences


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


def _paired_difference(minuend: Sample, subtrahend: Sample) -> Sample:
    """The differences of two samples, for every unit that both have.

    Seeds that only one of the two has are averaged over first.
    """
    shared = _seed_bindings(minuend) & _seed_bindings(subtrahend)
    means = _mean_over_others(minuend, shared)
    other_means = _mean_over_others(subtrahend, shared)
    return {unit: mean - other_means[unit] for unit, mean in means.items() if unit in other_means}


def _seed_bindings(sample: Sample) -> set[str]:
    return {binding for seeds, _ in sample for binding, _ in seeds}


def _mean_over_others(sample: Sample, bindings: set[str]) -> Mapping[Unit, float]:
    """The means over the seeds whose bindings are not among these."""
    values: dict[Unit, list[float]] = {}
    for (seeds, repeat), value in sample.items():
        shared_seeds = tuple(seed for seed in seeds if seed[0] in bindings)
        values.setdefault((shared_seeds, repeat), []).append(value)
    return {unit: sum(drawn) / len(drawn) for unit, drawn in values.items()}
