"""Rows, the numbers of curves.csv: written, read, joined, and named for people and folders.

No pandas here: worker processes and `--plan` need these names and no table.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from monosem.core.identity import digest

MONOSEMANTICITY = "monosemanticity"  # in the column `curve`: measured on clean features
SEPARATION = "separation"  # a score of toys: of all that is drawn the one that is no percentage
FIGURES = (  # .png, of no single curve
    "axis_curves", "axis_gains", "claim", "curves", "decomposition", "gallery", "histograms",
    "space",
)  # fmt: skip

Swept = tuple[tuple[str, str], ...]  # (binding, value) pairs that a sweep varied


class Row(NamedTuple):
    """One number.

    experiment: the name of the experiment.
    curve: what was corrupted, or MONOSEMANTICITY for what was measured on clean features.
    severity: of the corruption, on the scale that `axis` names.
    repeat: which draw of the corruption and of the probe.
    metric: `top1`, `top5` or the name of a metric of monosemanticity.
    value: the number; accuracies are in percent.
    n: how many test examples were measured.
    axis: what `severity` is, with its unit.
    point: the name of what was measured, where points have names; '' on ordinary curves.
    noun: what the examples are, in the plural: images or texts.
    swept: bindings that a sweep varied and their values, a column each in the file; those that the
        experiment lacks are left out.
    """

    experiment: str
    curve: str
    severity: float
    repeat: int
    metric: str
    value: float
    n: int
    axis: str
    point: str = ""
    noun: str = "images"
    swept: Swept = ()


COLUMNS: dict[str, type] = {
    name: kind for name, kind in get_type_hints(Row).items() if name != "swept"
}  # of every table; the swept bindings follow
OPTIONAL = frozenset(Row._field_defaults)  # files that were written before it was there lack it


def swept_bindings(rows: Iterable[Row]) -> list[str]:
    """The bindings that the rows have values of, in order of first appearance."""
    every_swept = dict.fromkeys(row.swept for row in rows)
    return list(dict.fromkeys(binding for swept in every_swept for binding, _ in swept))


def named_curves(rows: Iterable[Row]) -> list[str]:
    """The curves whose points have names, in order of first appearance."""
    return list(dict.fromkeys(row.curve for row in rows if row.point))


def place_text(point: str, severity: float) -> str:
    """Where a number was measured, for people: `0.5`, `mnist` or `fog 3`."""
    if not point:
        return f"{severity:g}"
    return f"{point} {severity:g}" if severity else point


def table_text(rows: Sequence[Row]) -> str:
    """The rows as CSV. Numbers are written in full, so that reading gives the same bits."""
    bindings = swept_bindings(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *bindings])
    for row in rows:
        swept = dict(row.swept)
        swept_values = [swept.get(binding, "") for binding in bindings]
        writer.writerow([*row[: len(COLUMNS)], *swept_values])
    return text.getvalue()


def read_table(path: Path) -> list[Row]:
    """The rows of a file that `table_text` wrote. Raises ValueError where it is no such table."""
    if not path.is_file():
        raise ValueError(f"there is no {path}; a finished run leaves one")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            present = {*(table.fieldnames or ()), *OPTIONAL}
            missing = [name for name in COLUMNS if name not in present]
            lines = list(table)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no table of curves: it is not a text file") from None
    except csv.Error as error:
        raise ValueError(f"{path} is no table of curves: {error}") from None
    if missing:
        raise ValueError(f"{path} is no table of curves: it has no column {', '.join(missing)}")
    try:
        return [_parse(line) for line in lines]
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no table of curves: {error}") from None


def _parse(line: Mapping[str, Any]) -> Row:
    """One line of the file. Swept bindings with an empty cell are left out."""
    if None in line.values():
        raise ValueError("a line has fewer cells than the first")
    values = {
        name: kind(line[name])
        for name, kind in COLUMNS.items()
        if name in line or name not in OPTIONAL
    }
    swept = tuple(
        (name, value) for name, value in line.items() if name not in COLUMNS and value.strip()
    )
    return Row(**values, swept=swept)


def join(tables: Sequence[Sequence[Row]]) -> list[Row]:
    """One table of several.

    Raises ValueError where they do not go together: numbers that cannot be compared, or lines of
    one name that would become one line.
    """
    rows = [row for table in tables for row in table]
    _check_examples(rows)
    _check_experiments(tables)
    _check_axes(rows)
    _check_names(rows)
    _check_repetitions(rows)
    if all(row.curve.startswith(MONOSEMANTICITY) for row in rows):
        raise ValueError("there is no curve in the table")
    return rows


def _check_examples(rows: Iterable[Row]) -> None:
    examples: dict[tuple[str, str], tuple[int, str]] = {}
    for row in rows:
        n, noun = examples.setdefault((row.curve, row.point), (row.n, row.noun))
        if (n, noun) != (row.n, row.noun):
            measured = f"{row.point} of {row.curve}" if row.point else row.curve
            other = row.n if noun == row.noun else f"{row.n} {row.noun}"
            raise ValueError(
                f"{measured} was measured on {n} {noun} in one table and {other} in another: "
                "not to be compared"
            )


def _check_experiments(tables: Iterable[Iterable[Row]]) -> None:
    taken: set[str] = set()
    for table in tables:
        experiments = dict.fromkeys(row.experiment for row in table)
        for experiment in experiments:
            if experiment in taken:
                raise ValueError(f"two of the tables hold an experiment called {experiment}")
        taken.update(experiments)


def _check_axes(rows: Iterable[Row]) -> None:
    axes: dict[str, str] = {}
    for row in rows:
        axis = axes.setdefault(row.curve, row.axis)
        if axis != row.axis:
            raise ValueError(
                f"the severities of {row.curve} are {axis} in one table and {row.axis} in another"
            )


def _check_names(rows: Iterable[Row]) -> None:
    has_names: dict[str, bool] = {}
    for row in rows:
        if has_names.setdefault(row.curve, bool(row.point)) != bool(row.point):
            raise ValueError(f"some points of {row.curve} have names and others have none")


def _check_repetitions(rows: Iterable[Row]) -> None:
    places = Counter(row._replace(value=0.0) for row in rows)
    for row, count in places.items():
        if count > 1:
            raise ValueError(
                f"{row.metric} of {row.curve} at {place_text(row.point, row.severity)} "
                f"is there twice for {row.experiment}"
            )


def short_names(swept: Swept) -> Swept:
    """`TopK.k` becomes `k`, unless bindings that end alike have different values: then all of them
    keep their full names. Bindings of one last word and one value are said once."""
    values_of: dict[str, set[str]] = {}
    for binding, value in swept:
        values_of.setdefault(_last_word(binding), set()).add(value)
    names: dict[str, str] = {}
    for binding, value in swept:
        word = _last_word(binding)
        names[word if len(values_of[word]) == 1 else binding] = value
    return tuple(names.items())


def _last_word(binding: str) -> str:
    return binding.rpartition(".")[2]


def label(experiment: str, swept: Swept, separator: str = ", ", equals: str = " ") -> str:
    """For a legend: `simclr`, or `sae, k 16`."""
    values = [f"{name}{equals}{value}" for name, value in short_names(swept)]
    return separator.join([experiment, *values])


def short_path(value: str) -> str:
    """A path as a legend has it, the file with its folder: `/data/runs/a/last.ckpt`, `a/last.ckpt`.

    What is no path stays as it is, such as `@noise/Curve()`.
    """
    if "/" not in value or value.startswith(("@", "%", "(", "[")):
        return value
    return "/".join(value.rstrip("/").split("/")[-2:])


class Line(NamedTuple):
    """What is drawn as one line of a figure.

    experiment: its name.
    values: its swept values without the seeds, which are averaged over.
    """

    experiment: str
    values: Swept

    @property
    def label(self) -> str:
        """For people: `sae, k 16`."""
        values = tuple((name, short_path(value)) for name, value in self.values)
        return label(self.experiment, values)


def cell_name(experiment: str, swept: Swept) -> str:
    """The folder of a cell: `sae,k=16,seed=0`.

    A long name ends in a digest, as file systems allow 255 bytes.
    """
    text = label(experiment, swept, separator=",", equals="=")
    name = re.sub(r"[^\w.+=,-]+", "_", text)
    if len(name.encode()) <= 120:
        return name
    beginning = name.encode()[:100].decode(errors="ignore")
    return f"{beginning}~{digest(text)[:12]}"
