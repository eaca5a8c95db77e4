"""--list: what has been run, from the records and tables of run folders alone."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monosem.core.run_record import UNFINISHED
from monosem.keeping.found import TABLE, RunFolder, find_runs, table_of
from monosem.results.formatting import format_mean, markdown_table
from monosem.results.rows import Line
from monosem.results.stats import CLEAN, areas, estimate
from monosem.results.table import Table

MOST_LINES = 12  # of a sweep; of a larger one only the range is told
UNKNOWN = "-"


class Listed(NamedTuple):
    """One line of the list.

    run: the name of the folder; '' on the further lines of a sweep.
    clean: accuracy without corruption, in percent, or the range of it.
    areas: the mean accuracy under each curve, in percent, or its range.
    """

    run: str
    when: str
    commit: str
    state: str
    line: str
    clean: str
    areas: str


def listing(runs: Sequence[RunFolder]) -> str:
    """A table of runs, the latest last."""
    lines = [line for run in sorted(runs, key=_when) for line in _lines_of(run)]
    header = ["run", "when", "commit", "state", "line", "clean", "areas under"]
    text = markdown_table(header, lines)
    has_changes = any(line.commit.endswith("+") for line in lines)
    return f"{text}\n\n+: with changes that were not committed." if has_changes else text


def _when(run: RunFolder) -> float:
    """Seconds since 1970: when it ended, else when it began; of old ones, when files changed."""
    said = run.made.get("finished") or run.made.get("started")
    try:
        return time.mktime(time.strptime(str(said)[:19], "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        paths = [run.path / TABLE, run.path]
        return next(path for path in paths if path.exists()).stat().st_mtime


def _state_of_no_table(run: RunFolder) -> str:
    """Of a report, whose numbers are in the folders of its sweeps, or of a run that has begun."""
    return "complete report" if run.record and run.record.get("complete") else "no results yet"


def _lines_of(run: RunFolder) -> list[Listed]:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(_when(run)))
    commit = _commit(run.made)
    try:
        table = Table(table_of(run.path))
    except ValueError:
        is_damaged = (run.path / TABLE).exists()
        state = "damaged table" if is_damaged else _state_of_no_table(run)
        return [Listed(run.path.name, when, commit, state, UNKNOWN, UNKNOWN, UNKNOWN)]
    numbers = [_numbers(table, line) for line in table.lines]
    if len(numbers) > MOST_LINES:
        numbers = [_range(table, numbers)]
    first = Listed(run.path.name, when, commit, _state(run), *numbers[0])
    return [first, *(Listed("", "", "", "", *further) for further in numbers[1:])]


def _commit(made: dict[str, Any]) -> str:
    code = made.get("code") or {}
    if not code.get("commit"):
        return UNKNOWN
    return f"{code['commit'][:10]}{' +' if code.get('clean') is False else ''}"


def _state(run: RunFolder) -> str:
    if (run.path / UNFINISHED).exists():
        return "begun again" if run.record else "incomplete"
    if run.record is None:
        return "no record"
    return "complete" if run.record.get("complete") else "incomplete"


def _numbers(table: Table, line: Line) -> tuple[str, str, str]:
    """The name, the clean accuracy and the areas of one line."""
    under = [
        f"{curve} {format_mean(estimate(sample))}"
        for curve in table.axes
        if (sample := areas(table.samples(line, curve)))
    ]
    return line.label, _clean(table, line), ", ".join(under) or UNKNOWN


def _clean(table: Table, line: Line) -> str:
    """Of the first curve that has a point without corruption."""
    for curve in table.axes:
        samples = table.samples(line, curve)
        for place in (CLEAN, 0.0):
            if place in samples:
                return format_mean(estimate(samples[place]))
    return UNKNOWN


def _range(table: Table, numbers: Sequence[tuple[str, str, str]]) -> tuple[str, str, str]:
    """Of a large sweep: how many lines, and from where to where they go."""
    under = []
    for curve in table.axes:
        means = [
            estimate(sample).mean
            for line in table.lines
            if (sample := areas(table.samples(line, curve)))
        ]
        under.append(f"{curve} {_span(means)}")
    clean = [float(text.split()[0]) for _, text, _ in numbers if text != UNKNOWN]
    return f"{len(numbers)} lines", _span(clean), ", ".join(under) or UNKNOWN


def _span(values: Sequence[float]) -> str:
    known = [value for value in values if not math.isnan(value)]
    return f"{min(known):.1f} to {max(known):.1f}" if known else UNKNOWN


def list_runs(runs: Path) -> str:
    """What is printed. Raises ValueError where there is no such folder."""
    if not runs.is_dir():
        raise ValueError(f"there is no folder {runs}")
    found = find_runs(runs)
    return listing(found) if found else f"nothing has been run in {runs}"
