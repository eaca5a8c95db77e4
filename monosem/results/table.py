"""TODO."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from monosem.core.identity import digest, is_seed
from monosem.results.stats import Sample, area

MONOSEMANTICITY = (
    "monosemanticity"  # the name, in the column `curve`, of what is measured on clean features
)


Swept = tuple[tuple[str, str], ...]


class Row(NamedTuple):
    """One number. `axis` says what `severity` is, with its unit; accuracies are in percent; `n` images were measured.
    swept: bindings that a sweep varied and their values, a column each in the file; those that the experiment lacks are left out."""

    experiment: str
    curve: str
    severity: float
    repeat: int
    metric: str
    value: float
    n: int
    axis: str
    swept: Swept = ()


PLAIN: dict[str, type] = {
    name: kind for name, kind in get_type_hints(Row).items() if name != "swept"
}  # columns of every table


def table_text(rows: Sequence[Row]) -> str:
    """The rows as CSV. Numbers are written in full, so that reading gives the same bits."""
    swept = list(dict.fromkeys(name for row in rows for name, _ in row.swept))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*PLAIN, *swept])
    for row in rows:
        values = dict(row.swept)
        writer.writerow([*row[: len(PLAIN)], *(values.get(name, "") for name in swept)])
    return text.getvalue()


def read_table(path: Path) -> list[Row]:
    """Raises ValueError where the file is no such table."""
    if not path.is_file():
        raise ValueError(f"there is no {path}; a finished run leaves one")
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    try:
        return [
            Row(
                **{name: kind(line[name]) for name, kind in PLAIN.items()},
                swept=tuple(
                    (name, value)
                    for name, value in line.items()
                    if name not in PLAIN and value.strip()
                ),
            )
            for line in lines
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} is no table of curves with the columns {', '.join(PLAIN)}: {error!r}"
        ) from None


def join(tables: Sequence[Sequence[Row]]) -> list[Row]:
    """One table of several. Raises ValueError where they do not go together: lines of one name would become one line."""
    rows = [row for table in tables for row in table]
    owners: dict[str, int] = {}
    axes: dict[str, str] = {}
    images: dict[str, int] = {}
    for number, table in enumerate(tables):
        for row in table:
            if images.setdefault(row.curve, row.n) != row.n:
                raise ValueError(
                    f"{row.curve} was measured on {images[row.curve]} images in one table and {row.n} in another: not to be compared"
                )
            if owners.setdefault(row.experiment, number) != number:
                raise ValueError(f"two of the tables hold an experiment called {row.experiment}")
            if axes.setdefault(row.curve, row.axis) != row.axis:
                raise ValueError(
                    f"the severities of {row.curve} are {axes[row.curve]} in one table and {row.axis} in another"
                )
    if twice := [
        row for row, count in Counter(row._replace(value=0.0) for row in rows).items() if count > 1
    ]:
        raise ValueError(
            f"{twice[0].metric} of {twice[0].curve} at {twice[0].severity:g} is there twice for {twice[0].experiment}"
        )
    if not axes.keys() - {MONOSEMANTICITY}:
        raise ValueError("there is no curve in the table")
    return rows


# ------------------------------------------------------------------------------------------------ lines


class Line(NamedTuple):
    """What is one line of a figure: an experiment and the swept values that it has, but for seeds, which are averaged over."""

    experiment: str
    values: Swept


def label(name: str, values: Swept, joint: str = ", ", equals: str = " ") -> str:
    """simclr, or sae, k 16: parameters without their classes unless two would be the same."""
    last = [binding.rpartition(".")[2] for binding, _ in values]
    text: dict[str, str] = {}
    for (binding, value), short in zip(values, last, strict=True):
        alike = {other for (_, other), each in zip(values, last, strict=True) if each == short}
        text[short if len(alike) == 1 else binding] = (
            value  # bindings that take one value at a time are said once
        )
    return joint.join([name, *(f"{word}{equals}{value}" for word, value in text.items())])


def cell_name(experiment: str, swept: Swept) -> str:
    """The folder of a cell: sae,k=16,seed=0. A long one ends in a digest, as file systems allow 255 bytes."""
    text = label(experiment, swept, ",", "=")
    name = re.sub(r"[^\w.+=,-]+", "_", text)
    return (
        name
        if len(name.encode()) <= 120
        else f"{name.encode()[:100].decode(errors='ignore')}~{digest(text)[:12]}"
    )


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
