"""The table of results and what is said from it: intervals, the figure, the summary. Nothing here reads a checkpoint."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_type_hints

MONOSEMANTICITY = "monosemanticity"  # the name, in the column `curve`, of what is measured on clean features


class Row(NamedTuple):
    """One number. `axis` says what `severity` is, with its unit; accuracies are in percent; `n` images were measured."""

    experiment: str
    curve: str
    severity: float
    repeat: int
    metric: str
    value: float
    n: int
    axis: str


def table_text(rows: Iterable[Row]) -> str:
    """The rows as CSV. Numbers are written in full, so that reading gives the same bits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(rows)
    return text.getvalue()


def read_table(path: Path) -> list[Row]:
    """Raises ValueError where the file is no such table."""
    if not path.is_file():
        raise ValueError(f"there is no {path}; a finished run leaves one")
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    kinds = get_type_hints(Row)
    try:
        return [Row(**{name: kind(line[name]) for name, kind in kinds.items()}) for line in lines]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no table of curves with the columns {', '.join(Row._fields)}: {error!r}") from None


def join(tables: Sequence[Sequence[Row]]) -> list[Row]:
    """One table of several. Raises ValueError where they do not go together: lines of one name would become one line."""
    rows = [row for table in tables for row in table]
    owners: dict[str, int] = {}
    axes: dict[str, str] = {}
    for number, table in enumerate(tables):
        for row in table:
            if owners.setdefault(row.experiment, number) != number:
                raise ValueError(f"two of the tables hold an experiment called {row.experiment}")
            if axes.setdefault(row.curve, row.axis) != row.axis:
                raise ValueError(f"the severities of {row.curve} are {axes[row.curve]} in one table and {row.axis} in another")
    if not axes.keys() - {MONOSEMANTICITY}:
        raise ValueError("there is no curve in the table")
    return rows


class Point(NamedTuple):
    """A mean over `repeats` and the half-width of its 95 % interval (nan for a single repeat)."""

    severity: float
    mean: float
    half: float
    repeats: int
    n: int


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % confidence interval of the mean: t(0.975, r - 1) * s / sqrt(r), for r independent repeats."""
    from scipy.special import stdtrit

    r = len(values)
    if r < 2:
        return math.nan
    mean = sum(values) / r
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (r - 1))
    return float(stdtrit(r - 1, 0.975)) * deviation / math.sqrt(r)


def points(rows: Iterable[Row], experiment: str, curve: str, metric: str) -> list[Point]:
    """The points of one line, by ascending severity."""
    values: dict[float, list[Row]] = {}
    for row in rows:
        if (row.experiment, row.curve, row.metric) == (experiment, curve, metric):
            values.setdefault(row.severity, []).append(row)
    return [
        Point(severity, sum(r.value for r in some) / len(some), half_width([r.value for r in some]), len(some), some[0].n)
        for severity, some in sorted(values.items())
    ]


def names(rows: Iterable[Row]) -> tuple[list[str], dict[str, str]]:
    """The experiments, and the axis of every curve of accuracies, in the order of the table."""
    rows = list(rows)
    axes = {row.curve: row.axis for row in rows if not row.curve.startswith(MONOSEMANTICITY)}
    return list(dict.fromkeys(row.experiment for row in rows)), axes


# ------------------------------------------------------------------------------------------------ words


def say(point: Point, sign: str = "") -> str:
    """A mean and its interval to a tenth; sign '+' shows one in front of positive numbers too."""
    spread = "" if math.isnan(point.half) else f" ± {point.half:.1f}"
    return f"{point.mean:{sign}.1f}{spread}"


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns line up, so that it reads on a terminal too."""
    table = [list(header), *map(list, lines)]
    widths = [max(len(line[i]) for line in table) for i in range(len(header))]
    rows = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in table]
    return "\n".join([rows[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *rows[1:]])


def tables(rows: Sequence[Row]) -> str:
    """Everything there is to read about some experiments, in Markdown: accuracy, what it is a mean of, how each differs from the
    first, monosemanticity."""
    images = _span(row.n for row in rows if not row.curve.startswith(MONOSEMANTICITY))
    mean = f"Mean ± half of the 95 % interval (t) over {_draws(rows)} draws" if _draws(rows) != "1" else "Single draws"
    axes = "\n".join(f"- {curve}: severity is {axis}" for curve, axis in names(rows)[1].items())
    return (
        f"{accuracy_table(rows)}\n\n"
        f"{mean} of corruption and probe, one encoder each; {images} test images.\n{axes}\n\n"
        f"{difference_table(rows)}{monosemanticity_table(rows)}\n"
    )


def _span(numbers: Iterable[int]) -> str:
    low, *_, high = sorted({*numbers}) * 2
    return f"{low}" if low == high else f"{low} to {high}"


def _draws(rows: Iterable[Row]) -> str:
    """How many draws the means of accuracies are over: '5', or '3 to 5'."""
    accuracies = (row for row in rows if not row.curve.startswith(MONOSEMANTICITY))
    return _span(Counter((row.experiment, row.curve, row.severity, row.metric) for row in accuracies).values())


def _by_severity(columns: Sequence[str], lines: Mapping[str, Sequence[Mapping[float, str]]]) -> str:
    """A row for every severity of every curve; `lines` has, for a curve and column, what to say at which severity."""
    body = [
        [curve, f"{severity:g}", *(line.get(severity, "") for line in each)]
        for curve, each in lines.items()
        for severity in sorted(set().union(*each))
    ]
    return markdown(["curve", "severity", *columns], body) if body else ""


def accuracy_table(rows: Sequence[Row]) -> str:
    """Accuracy at every severity of every curve, a column for each experiment; top-5 too where there is only one."""
    experiments, axes = names(rows)
    columns = [(e, metric) for e in experiments for metric in (("top1", "top5") if len(experiments) == 1 else ("top1",))]
    lines = {curve: [{p.severity: say(p) for p in points(rows, e, curve, metric)} for e, metric in columns] for curve in axes}
    return _by_severity([f"{metric.replace('top', 'top-')} of {e}, %" for e, metric in columns], lines)


def paired(rows: Iterable[Row], experiment: str, baseline: str, curve: str) -> list[Point]:
    """Top-1 of `experiment` minus that of `baseline`, draw by draw: both met the same noise, so its share of the spread cancels."""
    values = {(r.experiment, r.severity, r.repeat): r for r in rows if (r.curve, r.metric) == (curve, "top1")}
    return points(
        [
            row._replace(value=row.value - values[baseline, severity, repeat].value)
            for (name, severity, repeat), row in values.items()
            if name == experiment and (baseline, severity, repeat) in values
        ],
        experiment, curve, "top1",
    )  # fmt: skip


def difference_table(rows: Sequence[Row]) -> str:
    """How much every experiment differs from the first, at every severity that both have; empty for a single experiment."""
    (baseline, *others), axes = names(rows)
    lines = {curve: [{p.severity: say(p, "+") for p in paired(rows, e, baseline, curve)} for e in others] for curve in axes}
    table = _by_severity([f"{e} - {baseline}" for e in others], lines)
    return f"{table}\n\nPaired differences in top-1, draw by draw: encoders meet the same noise.\n\n" if table else ""


def monosemanticity_table(rows: Sequence[Row]) -> str:
    """What was measured on clean features, a column for each representation."""
    values = {(row.experiment, row.curve, row.metric): f"{row.value:.4g}" for row in rows if row.curve.startswith(MONOSEMANTICITY)}
    owners = dict.fromkeys(key[:2] for key in values)
    labels = [f"{experiment} {curve.removeprefix(MONOSEMANTICITY).lstrip('/')}".strip() for experiment, curve in owners]
    metrics = dict.fromkeys(key[2] for key in values)
    return markdown([MONOSEMANTICITY, *labels], [[metric, *(values.get((*owner, metric), "") for owner in owners)] for metric in metrics])


# ------------------------------------------------------------------------------------------------ pictures


def draw(rows: Sequence[Row], path: Path) -> None:
    """One panel per curve, one line per experiment: mean top-1 and its 95 % interval over repeats."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    experiments, axes = names(rows)
    figure, panels = pyplot.subplots(1, len(axes), figsize=(3.6 * len(axes), 3.4), sharey=True, squeeze=False, layout="constrained")
    for panel, (curve, axis) in zip(panels[0], axes.items(), strict=True):
        for number, experiment in enumerate(experiments):
            line = points(rows, experiment, curve, "top1")
            if not line:
                continue
            x, mean = [p.severity for p in line], [p.mean for p in line]
            half = [0 if math.isnan(p.half) else p.half for p in line]
            color, marker = f"C{number}", "osD^vP*X"[number % 8]
            panel.plot(x, mean, color=color, marker=marker, markersize=4, label=experiment)
            panel.fill_between(x, [m - h for m, h in zip(mean, half, strict=True)], [m + h for m, h in zip(mean, half, strict=True)],
                               color=color, alpha=0.2, linewidth=0)  # fmt: skip
            if min(x) > 0 and max(x) >= 20 * min(x):
                panel.set_xscale("log")
                panel.set_xticks(x, [f"{value:g}" for value in x], minor=False)
                panel.minorticks_off()
        panel.set_title(curve.replace("_", " "))
        panel.set_xlabel(axis.replace(" (", "\n("))
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("top-1 accuracy (%)")
    panels[0][0].legend(frameon=False, loc="lower left")
    interval = f"mean and 95 % interval over {_draws(rows)} draws" if _draws(rows) != "1" else "single draws"
    figure.suptitle(f"Linear probe: {interval}, one encoder each", fontsize="medium")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
