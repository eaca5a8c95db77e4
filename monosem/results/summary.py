"""The sentences and Markdown tables of a summary, made of a table of results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from monosem.results.corruption_error import corruption_error_table
from monosem.results.formatting import (
    by_trust,
    format_difference,
    format_key,
    format_mean,
    format_ranges,
    format_score,
    format_span,
    is_significant,
    markdown_table,
    metric_label,
)
from monosem.results.rows import MONOSEMANTICITY, SEPARATION, Line
from monosem.results.stats import (
    CLEAN,
    Estimate,
    Key,
    Sample,
    areas,
    crossing,
    estimate,
    holm,
    severities_only,
)
from monosem.results.table import Table


def tables(table: Table) -> str:
    """All tables about some experiments, in Markdown.

    Accuracy, what it is a mean of, how each line differs from its baseline, areas, monosemanticity.
    """
    compared = comparisons(table)
    parts = (
        accuracy_table(table),
        f"{_legend(table)}\n{_axes(table)}",
        difference_table(table, compared),
        _overview(table, compared),
    )
    return _paragraphs(parts) + "\n"


def overview(table: Table) -> str:
    """The short version for a terminal: areas, significant differences, monosemanticity."""
    return _overview(table, comparisons(table))


def _overview(table: Table, compared: Sequence[Comparison]) -> str:
    parts = (
        area_table(table),
        corruption_error_table(table),
        significance_list(compared),
        monosemanticity_table(table),
    )
    return _paragraphs(parts)


def _paragraphs(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part)


# Accuracy


def accuracy_table(table: Table) -> str:
    """Accuracy at every severity or named point of every curve, a column for each line.

    Top-5 has a column too where there is only one line and more than five classes.
    """
    drawn = common_metric_label(table, table.axes)
    unit = ", %" if _in_percent(table) else ""
    headings = [f"{drawn} of {line.label}{unit}" for line in table.lines]
    columns: list[tuple[Line, str | None]] = [(line, None) for line in table.lines]
    has_top5 = any(metric == "top5" for line in table.lines for _, metric in table.contents[line])
    if len(table.lines) == 1 and has_top5:
        (line,) = table.lines
        headings.append(f"{metric_label('top5')} of {line.label}, %")
        columns.append((line, "top5"))
    cells = {
        curve: [_format_means(table.samples(line, curve, metric)) for line, metric in columns]
        for curve in table.axes
    }
    return _severity_table(table, headings, cells)


def _format_means(samples: Mapping[Key, Sample]) -> dict[Key, str]:
    return {key: format_mean(estimate(sample)) for key, sample in samples.items()}


def _severity_table(
    table: Table, headings: Sequence[str], cells: Mapping[str, Sequence[Mapping[Key, str]]]
) -> str:
    """A row for every severity or name of every curve; empty without any.

    cells: for each curve, one mapping for each heading, from severities or names to texts.
    """
    body = []
    for curve, columns in cells.items():
        keys: set[Key] = set().union(*columns)
        for key in table.in_order(curve, keys):
            texts = [column.get(key, "") for column in columns]
            body.append([curve, format_key(key), *texts])
    return markdown_table(["curve", "severity", *headings], body) if body else ""


def _legend(table: Table) -> str:
    """What the means of the accuracy table are over."""
    of_curves = table.frame["curve"].isin(table.axes)
    counts = format_span(table.frame.loc[of_curves, "n"])
    tested_on = f"{counts} test {' or '.join(table.frame.loc[of_curves, 'noun'].unique())}"
    seeds, repeats = sample_sizes(table)
    encoders = "one encoder each" if seeds == "1" else f"{seeds} trained encoders each"
    if repeats == seeds == "1":
        return f"Single draws, {encoders}; {tested_on}."
    return (
        f"Mean ± half of the 95 % interval (t) over {repeats} draws of corruption and probe, "
        f"{encoders}; {tested_on}.{_of_two(repeats, seeds)}"
    )


def _of_two(repeats: str, seeds: str) -> str:
    """A word where an interval stands on two draws: t is then 12.7, six times that of many."""
    if (repeats, seeds) != ("2", "1"):
        return ""
    return " Two draws say little: their interval is often wider than what they are to tell."


def _axes(table: Table) -> str:
    """What the severities of each curve are, as a list."""
    lines = []
    for curve, axis in table.axes.items():
        line = f"- {curve}: {metric_label(table.metrics[curve])}; "
        if curve in table.named:
            line += f"points by name, of each the mean over its severities ({axis})"
        else:
            line += f"severity is {axis}"
        lines.append(line)
    return "\n".join(lines)


def common_metric_label(table: Table, curves: Iterable[str]) -> str:
    """The metric that is drawn of these curves, for example `top-1`; `value` where they differ."""
    metrics = {table.metrics[curve] for curve in curves}
    return metric_label(metrics.pop()) if len(metrics) == 1 else "value"


def _in_percent(table: Table) -> bool:
    """Whether what is drawn is accuracies, as of all but theory."""
    return SEPARATION not in table.metrics.values()


def sample_sizes(table: Table) -> tuple[str, str]:
    """Over how many seeds and over how many repeats the means of accuracies are: `3`, `5 to 10`."""
    seeds: set[int] = set()
    repeats: set[int] = set()
    for line in table.lines:
        for curve in table.axes:
            for sample in table.samples(line, curve).values():
                point = estimate(sample)
                seeds.add(point.seeds)
                repeats.add(point.repeats)
    return format_span(seeds), format_span(repeats)


# Differences


class Comparison(NamedTuple):
    """A line and its baseline on one curve.

    differences: paired, for every severity or name that both have.
    points: their means, with p-values corrected for their number (Holm).
    """

    line: Line
    base: Line
    curve: str
    differences: Mapping[Key, Sample]
    points: Mapping[Key, Estimate]


def comparisons(table: Table) -> list[Comparison]:
    """Every line with its baseline, on every curve where they share a severity."""
    compared = []
    for line in table.lines:
        base = table.baseline_of(line)
        if base is None:
            continue
        for curve in table.axes:
            differences = table.differences(line, curve)
            if differences:
                points = _corrected_estimates(differences)
                compared.append(Comparison(line, base, curve, differences, points))
    return compared


def _corrected_estimates(differences: Mapping[Key, Sample]) -> dict[Key, Estimate]:
    points = [estimate(sample) for sample in differences.values()]
    corrected = holm([point.p for point in points])
    return {
        key: point._replace(p=p)
        for key, point, p in zip(differences, points, corrected, strict=True)
    }


DIFFERENCES_NOTE = (
    "Paired differences, seed by seed and draw by draw: encoders meet the same noise. "
    "Intervals are of one severity.\n"
    "p: two-sided t-test, corrected for the severities of the curve (Holm), "
    "for each pair and curve by itself; n.s.: not significant\n"
    "at 5 %; no p where there is no spread to tell."
)
NAMED_NOTE = "Where points have names, these stand for severities."


def difference_table(table: Table, compared: Sequence[Comparison]) -> str:
    """How much every line differs from its baseline, at every severity that both have.

    Empty for a single line.
    """
    base_of = {comparison.line: comparison.base for comparison in compared}
    texts = {
        (comparison.line, comparison.curve): _format_differences(comparison)
        for comparison in compared
    }
    cells = {curve: [texts.get((line, curve), {}) for line in base_of] for curve in table.axes}
    headings = [f"{line.label} - {base.label}" for line, base in base_of.items()]
    differences = _severity_table(table, headings, cells)
    note = f"{DIFFERENCES_NOTE}\n{NAMED_NOTE}" if table.named else DIFFERENCES_NOTE
    return f"{differences}\n\n{note}" if differences else ""


def _format_differences(comparison: Comparison) -> dict[Key, str]:
    return {key: format_difference(point) for key, point in comparison.points.items()}


def significance_list(compared: Sequence[Comparison]) -> str:
    """Where differences to the baseline are significant and where not, an item for every line."""
    of_lines: dict[Line, list[Comparison]] = {}
    for comparison in compared:
        of_lines.setdefault(comparison.line, []).append(comparison)
    if not of_lines:
        return ""
    keys = [key for comparison in compared for key in comparison.points]
    kinds = {"name" if isinstance(key, str) else "severity": None for key in keys}
    heading = (
        "Differences that are significant (5 %, Holm-corrected within each pair and curve), "
        f"by {' or '.join(kinds)}:"
    )
    items = [_significance_item(comparisons_of_line) for comparisons_of_line in of_lines.values()]
    return "\n".join([heading, "", *items])


def _significance_item(comparisons_of_line: Sequence[Comparison]) -> str:
    """One line of the list, all of its curves."""
    line, base = comparisons_of_line[0].line, comparisons_of_line[0].base
    one_encoder = all(
        point.seeds == 1
        for comparison in comparisons_of_line
        for point in comparison.points.values()
    )
    remark = " (one encoder: over draws alone)" if one_encoder else ""
    verdicts = [
        f"{comparison.curve} {_verdict(comparison.points)}{_crossing_clause(comparison)}"
        for comparison in comparisons_of_line
    ]
    return f"- {line.label} against {base.label}{remark}: {'; '.join(verdicts)}"


def _verdict(points: Mapping[Key, Estimate]) -> str:
    """`higher at 0.4 to 0.7, not significant at the other 2`."""
    keys_of: dict[str, list[Key]] = {
        "higher": [],
        "lower": [],
        "without spread to test": [],
    }
    others = 0
    for key, point in points.items():
        if math.isnan(point.p):
            keys_of["without spread to test"].append(key)
        elif is_significant(point.p):
            keys_of["higher" if point.mean > 0 else "lower"].append(key)
        else:
            others += 1
    clauses = [
        f"{outcome} at {format_ranges(keys, list(points))}"
        for outcome, keys in keys_of.items()
        if keys
    ]
    if others:
        clauses.append(f"not significant at {'the other' if clauses else 'any of'} {others}")
    return ", ".join(clauses)


def _crossing_clause(comparison: Comparison) -> str:
    """Where the line overtakes its baseline or falls behind it.

    Empty unless it is significantly better somewhere and significantly worse elsewhere, and where
    points have names: they have no order.
    """
    signs = {point.mean > 0 for point in comparison.points.values() if is_significant(point.p)}
    if len(signs) < 2:
        return ""
    at, low, high = crossing(severities_only(comparison.differences))
    if math.isnan(at):
        return ""
    if math.isnan(low):
        return f", crossing at {at:.3g}"
    return f", crossing at {at:.3g} (95 % bootstrap interval {low:.3g} to {high:.3g})"


# Areas


def area_table(table: Table) -> str:
    """The mean accuracy under each curve and how it differs from the baseline's.

    Over the severities that all lines have; empty where they share fewer than two. Of named points
    it is the mean over those other than the clean one that all lines have.
    """
    shared = shared_keys(table)
    if not shared:
        return ""
    heading = f"mean {common_metric_label(table, shared)} under"
    body = [
        [line.label, *(_area_cell(table, line, curve, shared[curve]) for curve in shared)]
        for line in table.lines
    ]
    seeds, repeats = sample_sizes(table)
    named = [curve for curve in shared if curve in table.named]
    kinds = ["Area under the curve over its width"] if len(named) < len(shared) else []
    if named:
        kinds.append(f"of {', '.join(named)} the plain mean over all named points but {CLEAN}")
    unit = ", in percent" if _in_percent(table) else ""
    note = f"{'; '.join(kinds)}{unit}, over {seeds} x {repeats} encoders and draws"
    note = note[0].upper() + note[1:]
    if len(body) > 1:
        note += "; behind it the paired difference to the baseline, p uncorrected"
    return f"{markdown_table([heading, *shared], body)}\n\n{note}."


def shared_keys(table: Table) -> dict[str, set[Key]]:
    """The severities or names that all lines have that have a curve at all.

    Curves with two or more, or with a name beside the clean one.
    """
    shared: dict[str, set[Key]] = {}
    for curve in table.axes:
        of_lines = [set(table.samples(line, curve)) for line in table.lines]
        keys = set.intersection(*filter(None, of_lines))
        if (keys - {CLEAN}) if curve in table.named else len(keys) > 1:
            shared[curve] = keys
    return shared


def _area_cell(table: Table, line: Line, curve: str, keys: set[Key]) -> str:
    """`81.3 ± 0.4; +1.2 ± 0.3 (p .004)`."""
    own = areas(_at(table.samples(line, curve), keys))
    difference = areas(_at(table.differences(line, curve), keys))
    texts = []
    if own:
        texts.append(format_mean(estimate(own)))
    if difference:
        texts.append(format_difference(estimate(difference)))
    return "; ".join(texts)


def _at(samples: Mapping[Key, Sample], keys: set[Key]) -> dict[Key, Sample]:
    return {key: sample for key, sample in samples.items() if key in keys}


# Monosemanticity


def monosemanticity_table(table: Table) -> str:
    """What was measured on clean features, a column for each representation of each line.

    What is to be trusted most stands first.

    With several seeds as mean ± half of the 95 % interval.
    """
    scores: dict[tuple[Line, str], dict[str, str]] = {}
    for line, contents in table.contents.items():
        for curve, metric in contents:
            if curve.startswith(MONOSEMANTICITY):
                sample = table.samples(line, curve, metric)[0.0]
                scores.setdefault((line, curve), {})[metric] = format_score(estimate(sample))
    if not scores:
        return ""
    headings = [_representation_label(line, curve) for line, curve in scores]
    metrics = by_trust(metric for column in scores.values() for metric in column)
    body = [[metric, *(column.get(metric, "") for column in scores.values())] for metric in metrics]
    return markdown_table([MONOSEMANTICITY, *headings], body)


def _representation_label(line: Line, curve: str) -> str:
    """The line, and the representation where an experiment has several."""
    representation = curve.removeprefix(MONOSEMANTICITY).lstrip("/")
    return f"{line.label} {representation}".strip()
