"""--diff: the bindings and the numbers in which two runs differ, from their folders alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from monosem.core.identity import is_seed
from monosem.keeping.found import CONFIG, look_at, table_of
from monosem.results.formatting import markdown_table, metric_label
from monosem.results.rows import MONOSEMANTICITY, Line, Row, Swept, place_text
from monosem.results.stats import Sample, areas, estimate

ABSENT = "-"
BINDING = re.compile(r"^([\w./]+) = (.*)$")


class Measured(NamedTuple):
    """What a number of the table is of: a metric at one point of a curve."""

    curve: str
    point: str
    severity: float
    metric: str

    @property
    def place(self) -> str:
        is_clean = self.curve.startswith(MONOSEMANTICITY)
        return "" if is_clean else place_text(self.point, self.severity)


class Numbers(NamedTuple):
    """Draws of one number, and on how many examples each was measured."""

    sample: dict[tuple[Swept, int], float]
    n: int


LineNumbers = Mapping[Measured, Numbers]


def difference_report(first: Path, second: Path) -> str:
    """What is printed. Raises ValueError where one of them is no run."""
    names = _names(first, second)
    lines, other_lines = _numbers_of(table_of(first)), _numbers_of(table_of(second))
    parts = [_bindings_part(first, second, names)]
    for label, own, other in _matched(lines, other_lines):
        parts.append(_numbers_part(label, own, other, names))
    parts += _unmatched(lines, other_lines, names)
    return "\n\n".join(filter(None, parts))


def _names(first: Path, second: Path) -> tuple[str, str]:
    """The names of the folders, or their whole paths where these are equal."""
    if first.name != second.name:
        return first.name, second.name
    return str(first), str(second)


# Bindings


def read_bindings(path: Path) -> dict[str, str]:
    """The bindings of a resolved Gin file as text, without reading anything that it names.

    A value may go on over lines that are indented or close a bracket.
    """
    bindings: dict[str, str] = {}
    last = None
    for line in path.read_text(encoding="utf-8").splitlines():
        found = BINDING.match(line)
        if found:
            last = found[1]
            bindings[last] = found[2].removesuffix("\\").strip()
        elif last and line and (line[0].isspace() or line[0] in ")]}"):
            bindings[last] = f"{bindings[last]} {line.strip()}".strip()
        else:
            last = None
    return bindings


def _bindings_of(folder: Path) -> dict[str, str] | None:
    """By binding its value; of a sweep, all values that its cells have. None: no config.gin."""
    configs = look_at(folder).configs
    if not configs:
        return None
    values: dict[str, dict[str, None]] = {}
    for config in configs:
        for name, value in read_bindings(config).items():
            values.setdefault(name, {})[value] = None
    return {name: " | ".join(of_name) for name, of_name in values.items()}


def _bindings_part(first: Path, second: Path, names: tuple[str, str]) -> str:
    own, other = _bindings_of(first), _bindings_of(second)
    if own is None or other is None:
        without = first if own is None else second
        return f"bindings: not compared, as there is no {without / CONFIG}"
    body = [
        (name, own.get(name, ABSENT), other.get(name, ABSENT))
        for name in dict.fromkeys([*own, *other])
        if own.get(name) != other.get(name)
    ]
    return markdown_table(["binding", *names], body) if body else "bindings: the same"


# Numbers


def _numbers_of(rows: Sequence[Row]) -> dict[Line, dict[Measured, Numbers]]:
    """Of each line, each number's draws."""
    lines: dict[Line, dict[Measured, Numbers]] = {}
    for row in rows:
        values = tuple(pair for pair in row.swept if not is_seed(pair[0]))
        seeds = tuple(pair for pair in row.swept if is_seed(pair[0]))
        numbers = lines.setdefault(Line(row.experiment, values), {})
        measured = Measured(row.curve, row.point, row.severity, row.metric)
        numbers.setdefault(measured, Numbers({}, row.n)).sample[seeds, row.repeat] = row.value
    return lines


def _matched(
    own: Mapping[Line, LineNumbers], other: Mapping[Line, LineNumbers]
) -> Iterator[tuple[str, LineNumbers, LineNumbers]]:
    """Lines that are compared: the only one of each run, or those of one name."""
    if len(own) == len(other) == 1:
        yield "", next(iter(own.values())), next(iter(other.values()))
        return
    for line, numbers in own.items():
        if line in other:
            yield line.label, numbers, other[line]


def _unmatched(
    own: Mapping[Line, LineNumbers], other: Mapping[Line, LineNumbers], names: tuple[str, str]
) -> Iterator[str]:
    if len(own) == len(other) == 1:
        return
    for name, lines, others in ((names[0], own, other), (names[1], other, own)):
        alone = [line.label for line in lines if line not in others]
        if alone:
            yield f"only in {name}: {'; '.join(alone)}"


def _numbers_part(label: str, own: LineNumbers, other: LineNumbers, names: tuple[str, str]) -> str:
    """A table of the numbers that differ."""
    heading = f"{label}: " if label else ""
    body = list(_rows_that_differ({**own, **_areas(own)}, {**other, **_areas(other)}))
    if not body:
        return f"{heading}numbers: the same"
    table = markdown_table(["curve", "at", "metric", *names, "paired difference"], body)
    note = (
        f"Means; the difference is {names[1]} minus {names[0]} over the draws that both have, with "
        "its 95 % interval and p, uncorrected."
    )
    return f"{heading}\n{table}\n\n{note}".lstrip("\n")


def _areas(numbers: LineNumbers) -> dict[Measured, Numbers]:
    """The area under each curve and metric, as a number of its own."""
    curves: dict[tuple[str, str], dict[float | str, Sample]] = {}
    counts: dict[tuple[str, str], int] = {}
    for measured, drawn in numbers.items():
        if measured.point or measured.curve.startswith(MONOSEMANTICITY):
            continue
        group = measured.curve, measured.metric
        curves.setdefault(group, {})[measured.severity] = drawn.sample
        counts[group] = drawn.n
    found = {group: areas(samples) for group, samples in curves.items()}
    return {
        Measured(curve, "area", 0.0, metric): Numbers(dict(sample), counts[curve, metric])
        for (curve, metric), sample in found.items()
        if sample
    }


def _rows_that_differ(own: LineNumbers, other: LineNumbers) -> Iterator[tuple[str, ...]]:
    for measured in dict.fromkeys([*own, *other]):
        drawn, drawn_there = own.get(measured), other.get(measured)
        if drawn == drawn_there:
            continue
        yield (
            measured.curve,
            measured.place,
            metric_label(measured.metric),
            _mean(drawn),
            _mean(drawn_there),
            _paired(drawn, drawn_there),
        )


def _mean(drawn: Numbers | None) -> str:
    return ABSENT if drawn is None else f"{estimate(drawn.sample).mean:.4g}"


def _paired(own: Numbers | None, other: Numbers | None) -> str:
    """`+1.2 ± 0.4 (p .012)`, over the draws that both have; why not, where there are none."""
    if own is None or other is None:
        return ABSENT
    if own.n != other.n:
        return f"{own.n} and {other.n} examples: no pairs"
    pairs = {unit: other.sample[unit] - value for unit, value in own.sample.items()
             if unit in other.sample}  # fmt: skip
    if not pairs:
        return "no pairs"
    point = estimate(pairs)
    mean = f"{round(point.mean, 9) + 0.0:+.3g}"  # what is left of rounding is no difference
    return mean if math.isnan(point.half) else f"{mean} ± {point.half:.2g} (p {point.p:.2g})"
