"""The table of results and what is said from it: the figures, the summary. Nothing here reads a checkpoint."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from monosem.stage import digest, is_seed
from monosem.stats import Estimate, Sample, area, crossing, estimate, holm

MONOSEMANTICITY = "monosemanticity"  # the name, in the column `curve`, of what is measured on clean features
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


PLAIN: dict[str, type] = {name: kind for name, kind in get_type_hints(Row).items() if name != "swept"}  # columns of every table


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
                swept=tuple((name, value) for name, value in line.items() if name not in PLAIN and value.strip()),
            )
            for line in lines
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no table of curves with the columns {', '.join(PLAIN)}: {error!r}") from None


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
                raise ValueError(f"the severities of {row.curve} are {axes[row.curve]} in one table and {row.axis} in another")
    if twice := [row for row, count in Counter(row._replace(value=0.0) for row in rows).items() if count > 1]:
        raise ValueError(f"{twice[0].metric} of {twice[0].curve} at {twice[0].severity:g} is there twice for {twice[0].experiment}")
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
    said: dict[str, str] = {}
    for (binding, value), short in zip(values, last, strict=True):
        alike = {other for (_, other), each in zip(values, last, strict=True) if each == short}
        said[short if len(alike) == 1 else binding] = value  # bindings that take one value at a time are said once
    return joint.join([name, *(f"{word}{equals}{value}" for word, value in said.items())])


def cell_name(experiment: str, swept: Swept) -> str:
    """The folder of a cell: sae,k=16,seed=0. A long one ends in a digest, as file systems allow 255 bytes."""
    said = label(experiment, swept, ",", "=")
    name = re.sub(r"[^\w.+=,-]+", "_", said)
    return name if len(name.encode()) <= 120 else f"{name.encode()[:100].decode(errors='ignore')}~{digest(said)[:12]}"


class Table:
    """The rows of a table by line, curve, metric, severity and (seeds, repeat).

    lines: in the order of the rows. axes: of every curve. measures: what is drawn and compared of every curve, top-1 where there
    is one. against: the experiment that the others are compared with, by default the first one.
    """

    def __init__(self, rows: Iterable[Row], against: str | None = None):
        self.rows = list(rows)
        self.against = against or next((row.experiment for row in self.rows), "")
        self.axes = {row.curve: row.axis for row in self.rows if not row.curve.startswith(MONOSEMANTICITY)}
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
        return {severity: {each: row.value for each, row in points[severity].items()} for severity in sorted(points)}

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
            if values := {unit: value - other[unit] for unit, value in one.items() if unit in other}:
                found[severity] = values
        return found


def _bindings(sample: Sample) -> set[str]:
    return {binding for seeds, _ in sample for binding, _ in seeds}


def _averaged(sample: Sample, shared: set[str]) -> Sample:
    """The means over all seeds but those of the shared bindings."""
    units: dict[tuple[Any, int], list[float]] = {}
    for (seeds, repeat), value in sample.items():
        units.setdefault((tuple(seed for seed in seeds if seed[0] in shared), repeat), []).append(value)
    return {unit: sum(values) / len(values) for unit, values in units.items()}


def _agree(one: Swept, other: Swept) -> bool:
    values = dict(other)
    return all(values.get(binding, value) == value for binding, value in one)


def areas(samples: Mapping[float, Sample]) -> Sample:
    """The area under the curve of each seed and repeat that is there at every severity. The area of differences is the difference
    of areas."""
    whole = [each for each in next(iter(samples.values()), {}) if all(each in sample for sample in samples.values())]
    return {each: area({severity: sample[each] for severity, sample in samples.items()}) for each in whole} if len(samples) > 1 else {}


# ------------------------------------------------------------------------------------------------ words


def say(point: Estimate, sign: str = "") -> str:
    """A mean and its interval to a tenth; sign '+' shows one in front of positive numbers too."""
    spread = "" if math.isnan(point.half) else f" ± {point.half:.1f}"
    return f"{round(point.mean, 1) + 0.0:{sign}.1f}{spread}"  # never -0.0


def spoken(metric: str) -> str:
    """top1 as top-1, precision_at_10 as precision@10."""
    return re.sub(r"^top(?=\d)", "top-", metric).replace("_at_", "@")


def measured(table: Table, curves: Iterable[str] = ()) -> str:
    """What is drawn of some or all curves: top-1, if it is the same of all of them."""
    metrics = {table.measures[curve] for curve in curves or table.measures}
    return spoken(*metrics) if len(metrics) == 1 else "value"


def significant(p: float) -> bool:
    return p < 0.05


def say_difference(point: Estimate, p: float) -> str:
    """A difference, its interval and its p-value; n.s. where it is not significant, nothing more where there is no spread to tell."""
    if math.isnan(p):
        return say(point, "+")
    value = "p < .001" if p < 0.001 else f"p {p:.3f}".replace("0.", ".")
    return f"{say(point, '+')} ({value if significant(p) else f'n.s., {value}'})"


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns line up, so that it reads on a terminal too."""
    table = [list(header), *map(list, lines)]
    widths = [max(len(line[i]) for line in table) for i in range(len(header))]
    rows = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in table]
    return "\n".join([rows[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *rows[1:]])


def tables(table: Table) -> str:
    """Everything there is to read about some experiments, in Markdown: accuracy, what it is a mean of, how each differs from its
    baseline, areas, monosemanticity."""
    axes = "\n".join(f"- {curve}: {spoken(table.measures[curve])}; severity is {axis}" for curve, axis in table.axes.items())
    return (
        "\n\n".join(part for part in (accuracy_table(table), f"{_legend(table)}\n{axes}", difference_table(table), overview(table)) if part)
        + "\n"
    )


def overview(table: Table) -> str:
    """What is worth a screen: areas under the curves, where differences are significant, monosemanticity."""
    parts = (area_table(table), verdicts(table), monosemanticity_table(table))
    return "\n\n".join(part for part in parts if part)


def over(table: Table) -> tuple[str, str]:
    """How many seeds and how many draws the means of accuracies are over: '3', '5 to 10'."""
    points = [point for line in table.lines for curve in table.axes for point in map(estimate, table.samples(line, curve).values())]
    return _span(point.seeds for point in points), _span(point.repeats for point in points)


def _legend(table: Table) -> str:
    images = _span(row.n for row in table.rows if row.curve in table.axes)
    seeds, repeats = over(table)
    encoders = "one encoder each" if seeds == "1" else f"{seeds} trained encoders each"
    if repeats == seeds == "1":
        return f"Single draws, {encoders}; {images} test images."
    return f"Mean ± half of the 95 % interval (t) over {repeats} draws of corruption and probe, {encoders}; {images} test images."


def _span(numbers: Iterable[int]) -> str:
    low, *_, high = sorted({*numbers}) * 2
    return f"{low}" if low == high else f"{low} to {high}"


def _by_severity(columns: Sequence[str], lines: Mapping[str, Sequence[Mapping[float, str]]]) -> str:
    """A row for every severity of every curve; `lines` has, for a curve and column, what to say at which severity."""
    body = [
        [curve, f"{severity:g}", *(line.get(severity, "") for line in each)]
        for curve, each in lines.items()
        for severity in sorted(set().union(*each))
    ]
    return markdown(["curve", "severity", *columns], body) if body else ""


def accuracy_table(table: Table) -> str:
    """Accuracy at every severity of every curve, a column for each line; top-5 too where there is only one."""
    more = ["top5"] if len(table.lines) == 1 else []
    columns = [(line, metric) for line in table.lines for metric in (None, *more)]
    lines = {
        curve: [
            {severity: say(estimate(sample)) for severity, sample in table.samples(line, curve, metric).items()} for line, metric in columns
        ]
        for curve in table.axes
    }
    return _by_severity([f"{spoken(metric) if metric else measured(table)} of {table.say(line)}, %" for line, metric in columns], lines)


class Comparison(NamedTuple):
    """A line and its baseline at every severity of a curve: the paired difference and its p-value, corrected for their number."""

    line: Line
    base: Line
    curve: str
    points: dict[float, tuple[Estimate, float]]


def comparisons(table: Table) -> list[Comparison]:
    found = []
    for line in table.lines:
        for curve in table.axes:
            points = {severity: estimate(sample) for severity, sample in table.differences(line, curve).items()}
            base = table.baseline(line)
            if points and base is not None:
                corrected = dict(zip(points, holm([point.p for point in points.values()]), strict=True))
                found.append(Comparison(line, base, curve, {severity: (point, corrected[severity]) for severity, point in points.items()}))
    return found


def difference_table(table: Table) -> str:
    """How much every line differs from its baseline, at every severity that both have; empty for a single line."""
    made = comparisons(table)
    pairs = list(dict.fromkeys((each.line, each.base) for each in made))
    said = {(each.line, each.curve): {severity: say_difference(*point) for severity, point in each.points.items()} for each in made}
    lines = {curve: [said.get((line, curve), {}) for line, _ in pairs] for curve in table.axes}
    text = _by_severity([f"{table.say(line)} - {table.say(base)}" for line, base in pairs], lines)
    words = (
        "Paired differences, seed by seed and draw by draw: encoders meet the same noise. Intervals are of one severity.\n"
        "p: two-sided t-test, corrected for the severities of the curve (Holm), for each pair and curve by itself; n.s.: not significant\n"
        "at 5 %; no p where there is no spread to tell."
    )
    return f"{text}\n\n{words}" if text else ""


def verdicts(table: Table) -> str:
    """Where the differences to the baseline are significant and where they are not, a paragraph for every line."""
    said: dict[tuple[Line, Line], list[str]] = {}
    alone: dict[tuple[Line, Line], bool] = {}
    for each in comparisons(table):
        pair = each.line, each.base
        said.setdefault(pair, []).append(f"{each.curve} {_verdict(each)}{_crossing(table, each)}")
        alone[pair] = all(point.seeds == 1 for point, _ in each.points.values())
    lines = [
        f"- {table.say(line)} against {table.say(base)}{' (one encoder: over draws alone)' * alone[line, base]}: {'; '.join(words)}"
        for (line, base), words in said.items()
    ]
    words = "Differences that are significant (5 %, Holm-corrected within each pair and curve), by severity:"
    return "\n".join([words, "", *lines]) if lines else ""


def _verdict(compared: Comparison) -> str:
    """'higher at 0.4 to 0.7, not significant at the other 2'."""
    points = compared.points
    found = {
        "higher at": [severity for severity, (point, p) in points.items() if significant(p) and point.mean > 0],
        "lower at": [severity for severity, (point, p) in points.items() if significant(p) and point.mean < 0],
        "without spread to test at": [severity for severity, (_, p) in points.items() if math.isnan(p)],
    }
    words = [f"{word} {_runs(where, list(points))}" for word, where in found.items() if where]
    rest = len(points) - sum(map(len, found.values()))
    return ", ".join(words + [f"not significant at {'the other ' if words else 'any of '}{rest}"] * bool(rest))


def _crossing(table: Table, compared: Comparison) -> str:
    """Where the line overtakes its baseline or falls behind it, if it is significantly better somewhere and worse elsewhere."""
    signs = {point.mean > 0 for point, p in compared.points.values() if significant(p)}
    if len(signs) < 2:
        return ""
    found = crossing(table.differences(compared.line, compared.curve))
    if math.isnan(found.at):
        return ""
    interval = "" if math.isnan(found.low) else f" (95 % bootstrap interval {found.low:.3g} to {found.high:.3g})"
    return f", crossing at {found.at:.3g}{interval}"


def _runs(some: Sequence[float], severities: Sequence[float]) -> str:
    """Some of the severities, three or more in a row as a range: '0 to 0.4, 0.7'."""
    rows: list[list[float]] = []
    for severity in some:
        if rows and severities.index(severity) == severities.index(rows[-1][-1]) + 1:
            rows[-1].append(severity)
        else:
            rows.append([severity])
    return ", ".join(f"{row[0]:g} to {row[-1]:g}" if len(row) > 2 else ", ".join(f"{each:g}" for each in row) for row in rows)


def area_table(table: Table) -> str:
    """The mean accuracy under each curve, over the severities that all lines have, and how it differs from the baseline's."""
    common: dict[str, set[float]] = {}
    for curve in table.axes:
        shared = set.intersection(*(set(samples) for line in table.lines if (samples := table.samples(line, curve))))
        common |= {curve: shared} if len(shared) > 1 else {}
    if not common:
        return ""
    body = []
    for line in table.lines:
        pairs = [
            [
                areas({s: sample for s, sample in samples.items() if s in shared})
                for samples in (table.samples(line, curve), table.differences(line, curve))
            ]
            for curve, shared in common.items()
        ]
        body.append([table.say(line), *("; ".join(_area(*pair)) for pair in pairs)])
    seeds, repeats = over(table)
    words = f"Area under the curve over its width, in percent, over {seeds} x {repeats} encoders and draws"
    words += "; behind it the paired difference to the baseline, p uncorrected." if len(body) > 1 else "."
    return f"{markdown([f'mean {measured(table, common)} under', *common], body)}\n\n{words}"


def _area(own: Sample, difference: Sample) -> list[str]:
    words = [say(estimate(own))] if own else []
    return words + [say_difference(point, point.p) for point in [estimate(difference)] if difference]


def monosemanticity_table(table: Table) -> str:
    """What was measured on clean features, a column for each representation; with several seeds as mean ± half of the 95 % interval."""
    measured = {
        (line, curve): {metric: table.samples(line, curve, metric)[0.0] for other, metric in kinds if other == curve}
        for line, kinds in table.lines.items()
        for curve in dict.fromkeys(curve for curve, _ in kinds if curve.startswith(MONOSEMANTICITY))
    }
    metrics = dict.fromkeys(metric for values in measured.values() for metric in values)
    if not measured:
        return ""
    labels = [f"{table.say(line)} {curve.removeprefix(MONOSEMANTICITY).lstrip('/')}".strip() for line, curve in measured]
    return markdown(
        [MONOSEMANTICITY, *labels],
        [[metric, *(_measured(values[metric]) if metric in values else "" for values in measured.values())] for metric in metrics],
    )


def _measured(sample: Sample) -> str:
    point = estimate(sample)
    return f"{point.mean:.4g}" if math.isnan(point.half) else f"{point.mean:.4g} ± {point.half:.2g}"
