"""How numbers, metrics and tables are written: intervals, p-values, names, Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from monosem.results.stats import Estimate, Key

SIGNIFICANCE_LEVEL = 0.05
ROUNDING = 1e-4


def format_mean(point: Estimate, sign: str = "") -> str:
    """A mean and its interval to a tenth: `97.1 ± 0.3`.

    sign: "+" shows one in front of positive numbers too.
    """
    spread = "" if math.isnan(point.half) else f" ± {point.half:.1f}"
    mean = round(point.mean, 1) + 0.0  # never -0.0
    return f"{mean:{sign}.1f}{spread}"


def format_difference(point: Estimate) -> str:
    """A difference, its interval and its p-value: `+1.2 ± 0.4 (p .012)`.

    `n.s.` where it is not significant; no p where there is no spread to test.
    """
    if math.isnan(point.p):
        return format_mean(point, "+")
    p_value = f"p {format_p(point.p)}"
    if not is_significant(point.p):
        p_value = f"n.s., {p_value}"
    return f"{format_mean(point, '+')} ({p_value})"


def format_p(p: float) -> str:
    """A p-value: `.012`, `< .001`."""
    return "< .001" if p < 0.001 else f"{p:.3f}".replace("0.", ".")


def format_score(point: Estimate) -> str:
    """A metric of monosemanticity and its interval; metrics differ in size by orders."""
    mean = without_rounding_error(point.mean)
    return f"{mean:.4g}" if math.isnan(point.half) else f"{mean:.4g} ± {point.half:.2g}"


def without_rounding_error(number: float) -> float:
    """0 for what is hardly below it: an entropy of -0.00001 has an epsilon inside its logarithm."""
    return 0.0 if -ROUNDING < number < 0 else number


def is_significant(p: float) -> bool:
    return p < SIGNIFICANCE_LEVEL


def metric_label(metric: str) -> str:
    """`top1` as top-1, `precision_at_10` as precision@10."""
    return re.sub(r"^top(?=\d)", "top-", metric).replace("_at_", "@")


def format_span(counts: Iterable[int]) -> str:
    """`3`, or `5 to 10`."""
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def format_key(key: Key) -> str:
    """A severity, or the name of a point as it is."""
    return key if isinstance(key, str) else f"{key:g}"


def format_ranges(chosen: Sequence[Key], keys: Sequence[Key]) -> str:
    """Some of the severities, three or more in a row as a range: `0 to 0.4, 0.7`.

    Names make no range: `snow, fog, frost`.
    """
    position = {key: index for index, key in enumerate(keys)}
    runs: list[list[Key]] = []
    for key in chosen:
        if runs and position[key] == position[runs[-1][-1]] + 1 and not isinstance(key, str):
            runs[-1].append(key)
        else:
            runs.append([key])
    return ", ".join(_format_run(run) for run in runs)


def _format_run(run: Sequence[Key]) -> str:
    if len(run) > 2:
        return f"{format_key(run[0])} to {format_key(run[-1])}"
    return ", ".join(map(format_key, run))


# Of measures of monosemanticity: what tells known cases apart, best first (docs/measures.md).
TRUSTED = (
    "fms", "factor_gap", "factor_information", "class_selectivity",
    "monosemanticity_score_of_classes", "monosemanticity_score", "class_consistency",
    "class_entropy",
)  # fmt: skip


def by_trust(measures: Iterable[str]) -> list[str]:
    """Different measures as a table orders them: `TRUSTED` ones first, the rest as they come."""
    found = dict.fromkeys(measures)
    first = [measure for measure in TRUSTED if measure in found]
    return [*first, *(measure for measure in found if measure not in TRUSTED)]


def markdown_table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns line up, so that it reads on a terminal too."""
    rows = [header, *body]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append(f"| {' | '.join(cells)} |")
    rule = "|".join("-" * (width + 2) for width in widths)
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])
