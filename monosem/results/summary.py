"""The table of results and what is said from it: the figures, the summary. Nothing here reads a checkpoint."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from monosem.results.rows import MONOSEMANTICITY
from monosem.results.stats import Estimate, Sample, crossing, estimate, holm
from monosem.results.table import Line, Table, areas

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
    rows = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in table
    ]
    return "\n".join(
        [rows[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *rows[1:]]
    )


def tables(table: Table) -> str:
    """Everything there is to read about some experiments, in Markdown: accuracy, what it is a mean of, how each differs from its
    baseline, areas, monosemanticity."""
    axes = "\n".join(
        f"- {curve}: {spoken(table.measures[curve])}; severity is {axis}"
        for curve, axis in table.axes.items()
    )
    return (
        "\n\n".join(
            part
            for part in (
                accuracy_table(table),
                f"{_legend(table)}\n{axes}",
                difference_table(table),
                overview(table),
            )
            if part
        )
        + "\n"
    )


def overview(table: Table) -> str:
    """What is worth a screen: areas under the curves, where differences are significant, monosemanticity."""
    parts = (area_table(table), verdicts(table), monosemanticity_table(table))
    return "\n\n".join(part for part in parts if part)


def over(table: Table) -> tuple[str, str]:
    """How many seeds and how many draws the means of accuracies are over: '3', '5 to 10'."""
    points = [
        point
        for line in table.lines
        for curve in table.axes
        for point in map(estimate, table.samples(line, curve).values())
    ]
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
            {
                severity: say(estimate(sample))
                for severity, sample in table.samples(line, curve, metric).items()
            }
            for line, metric in columns
        ]
        for curve in table.axes
    }
    return _by_severity(
        [
            f"{spoken(metric) if metric else measured(table)} of {table.say(line)}, %"
            for line, metric in columns
        ],
        lines,
    )


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
            points = {
                severity: estimate(sample)
                for severity, sample in table.differences(line, curve).items()
            }
            base = table.baseline(line)
            if points and base is not None:
                corrected = dict(
                    zip(points, holm([point.p for point in points.values()]), strict=True)
                )
                found.append(
                    Comparison(
                        line,
                        base,
                        curve,
                        {
                            severity: (point, corrected[severity])
                            for severity, point in points.items()
                        },
                    )
                )
    return found


def difference_table(table: Table) -> str:
    """How much every line differs from its baseline, at every severity that both have; empty for a single line."""
    made = comparisons(table)
    pairs = list(dict.fromkeys((each.line, each.base) for each in made))
    message = {
        (each.line, each.curve): {
            severity: say_difference(*point) for severity, point in each.points.items()
        }
        for each in made
    }
    lines = {curve: [message.get((line, curve), {}) for line, _ in pairs] for curve in table.axes}
    text = _by_severity([f"{table.say(line)} - {table.say(base)}" for line, base in pairs], lines)
    words = (
        "Paired differences, seed by seed and draw by draw: encoders meet the same noise. Intervals are of one severity.\n"
        "p: two-sided t-test, corrected for the severities of the curve (Holm), for each pair and curve by itself; n.s.: not significant\n"
        "at 5 %; no p where there is no spread to tell."
    )
    return f"{text}\n\n{words}" if text else ""


def verdicts(table: Table) -> str:
    """Where the differences to the baseline are significant and where they are not, a paragraph for every line."""
    message: dict[tuple[Line, Line], list[str]] = {}
    alone: dict[tuple[Line, Line], bool] = {}
    for each in comparisons(table):
        pair = each.line, each.base
        message.setdefault(pair, []).append(
            f"{each.curve} {_verdict(each)}{_crossing(table, each)}"
        )
        alone[pair] = all(point.seeds == 1 for point, _ in each.points.values())
    lines = [
        f"- {table.say(line)} against {table.say(base)}{' (one encoder: over draws alone)' * alone[line, base]}: {'; '.join(words)}"
        for (line, base), words in message.items()
    ]
    words = "Differences that are significant (5 %, Holm-corrected within each pair and curve), by severity:"
    return "\n".join([words, "", *lines]) if lines else ""


def _verdict(compared: Comparison) -> str:
    """'higher at 0.4 to 0.7, not significant at the other 2'."""
    points = compared.points
    found = {
        "higher at": [
            severity for severity, (point, p) in points.items() if significant(p) and point.mean > 0
        ],
        "lower at": [
            severity for severity, (point, p) in points.items() if significant(p) and point.mean < 0
        ],
        "without spread to test at": [
            severity for severity, (_, p) in points.items() if math.isnan(p)
        ],
    }
    words = [f"{word} {_runs(where, list(points))}" for word, where in found.items() if where]
    rest = len(points) - sum(map(len, found.values()))
    return ", ".join(
        words + [f"not significant at {'the other ' if words else 'any of '}{rest}"] * bool(rest)
    )


def _crossing(table: Table, compared: Comparison) -> str:
    """Where the line overtakes its baseline or falls behind it, if it is significantly better somewhere and worse elsewhere."""
    signs = {point.mean > 0 for point, p in compared.points.values() if significant(p)}
    if len(signs) < 2:
        return ""
    found = crossing(table.differences(compared.line, compared.curve))
    if math.isnan(found.at):
        return ""
    interval = (
        ""
        if math.isnan(found.low)
        else f" (95 % bootstrap interval {found.low:.3g} to {found.high:.3g})"
    )
    return f", crossing at {found.at:.3g}{interval}"


def _runs(some: Sequence[float], severities: Sequence[float]) -> str:
    """Some of the severities, three or more in a row as a range: '0 to 0.4, 0.7'."""
    rows: list[list[float]] = []
    for severity in some:
        if rows and severities.index(severity) == severities.index(rows[-1][-1]) + 1:
            rows[-1].append(severity)
        else:
            rows.append([severity])
    return ", ".join(
        f"{row[0]:g} to {row[-1]:g}" if len(row) > 2 else ", ".join(f"{each:g}" for each in row)
        for row in rows
    )


def area_table(table: Table) -> str:
    """The mean accuracy under each curve, over the severities that all lines have, and how it differs from the baseline's."""
    common: dict[str, set[float]] = {}
    for curve in table.axes:
        shared = set.intersection(
            *(set(samples) for line in table.lines if (samples := table.samples(line, curve)))
        )
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
    words += (
        "; behind it the paired difference to the baseline, p uncorrected."
        if len(body) > 1
        else "."
    )
    return f"{markdown([f'mean {measured(table, common)} under', *common], body)}\n\n{words}"


def _area(own: Sample, difference: Sample) -> list[str]:
    words = [say(estimate(own))] if own else []
    return words + [
        say_difference(point, point.p) for point in [estimate(difference)] if difference
    ]


def monosemanticity_table(table: Table) -> str:
    """What was measured on clean features, a column for each representation; with several seeds as mean ± half of the 95 % interval."""
    measured = {
        (line, curve): {
            metric: table.samples(line, curve, metric)[0.0]
            for other, metric in kinds
            if other == curve
        }
        for line, kinds in table.lines.items()
        for curve in dict.fromkeys(curve for curve, _ in kinds if curve.startswith(MONOSEMANTICITY))
    }
    metrics = dict.fromkeys(metric for values in measured.values() for metric in values)
    if not measured:
        return ""
    labels = [
        f"{table.say(line)} {curve.removeprefix(MONOSEMANTICITY).lstrip('/')}".strip()
        for line, curve in measured
    ]
    return markdown(
        [MONOSEMANTICITY, *labels],
        [
            [
                metric,
                *(
                    _measured(values[metric]) if metric in values else ""
                    for values in measured.values()
                ),
            ]
            for metric in metrics
        ],
    )


def _measured(sample: Sample) -> str:
    point = estimate(sample)
    return f"{point.mean:.4g}" if math.isnan(point.half) else f"{point.mean:.4g} ± {point.half:.2g}"
