"""Whether monosemantic encoders are the robust ones: rank correlations over the encoders of a table, with controls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import gin
import numpy as np

from monosem.core.fields import Part, Range
from monosem.results.rows import MONOSEMANTICITY
from monosem.results.stats import Array, Sample, rank_correlation, residual_ranks
from monosem.results.summary import markdown
from monosem.results.table import Line, Table, areas

CLEAN, SEED, SPEC = "clean accuracy", "training seed", "spec"


LEAST = 4  # encoders; of fewer nothing is said


class EncoderPoints(NamedTuple):
    """The encoders of a table that have every number, one place each in every array (n,).

    lines: what each is a seed of; seeds: which. measures: of monosemanticity, by name; robust: areas under curves, by curve; clean:
    accuracy at the smallest severity, by curve.
    """

    lines: list[Line]
    seeds: list[tuple[str, ...]]
    measures: dict[str, Array]
    robust: dict[str, Array]
    clean: dict[str, Array]

    def only(self, chosen: Sequence[int]) -> EncoderPoints:
        """Some of them."""
        columns = ({name: values[chosen] for name, values in kind.items()} for kind in self[2:])
        return EncoderPoints(
            [self.lines[i] for i in chosen], [self.seeds[i] for i in chosen], *columns
        )


def encoder_points(table: Table, curves: Sequence[str]) -> EncoderPoints:
    lines: list[Line] = []
    seen: list[tuple[str, ...]] = []
    kinds: tuple[list[dict[str, float]], ...] = ([], [], [])
    names = dict.fromkeys(
        metric
        for kinds in table.lines.values()
        for curve, metric in kinds
        if curve == MONOSEMANTICITY
    )
    for line in table.lines:
        samples = {curve: table.samples(line, curve) for curve in curves}
        numbers = (
            {
                name: _by_seed(table.samples(line, MONOSEMANTICITY, name).get(0.0, {}))
                for name in names
            },
            {curve: _by_seed(areas(each)) for curve, each in samples.items()},
            {curve: _by_seed(each[min(each)]) if each else {} for curve, each in samples.items()},
        )
        for seeds in next(iter(numbers[0].values()), {}):
            if all(seeds in each for kind in numbers for each in kind.values()):
                lines.append(line)
                seen.append(
                    tuple(dict.fromkeys(value for _, value in seeds))
                )  # bindings that take one value at a time are one seed
                for kept, kind in zip(kinds, numbers, strict=True):
                    kept.append({name: each[seeds] for name, each in kind.items()})
    columns = (
        {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}
        for rows in kinds
    )
    return EncoderPoints(lines, seen, *columns)


def _by_seed(sample: Sample) -> dict[Any, float]:
    """The mean over repeats for every seed."""
    values: dict[Any, list[float]] = {}
    for (seeds, _), value in sample.items():
        values.setdefault(seeds, []).append(value)
    return {seeds: sum(each) / len(each) for seeds, each in values.items()}


class Correlation(NamedTuple):
    """A rank correlation and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "cannot be told"
        return f"{self.value:+.2f}" + (
            "" if math.isnan(self.low) else f" ({self.low:+.2f} to {self.high:+.2f})"
        )


def correlate(
    lines: Sequence[Line], x: Array, y: Array, given: Sequence[Array] = (), draws: int = 2000
) -> Correlation:
    """Spearman's rank correlation of x and y over encoders, `given` held equal, with a percentile bootstrap over lines: each draw takes as
    many lines as there are, with replacement, and all their encoders. Lines are taken for a sample of all the methods there could be; of
    fewer than 8 there is no interval."""
    held = np.stack(given) if len(given) else None
    value = float(rank_correlation(x, y, held))
    number = {line: place for place, line in enumerate(dict.fromkeys(lines))}
    if len(number) < 8:
        return Correlation(value, math.nan, math.nan)
    chosen = np.random.default_rng(0).integers(len(number), size=(draws, len(number)))
    counts = np.stack([np.bincount(lot, minlength=len(number)) for lot in chosen])[
        :, [number[line] for line in lines]
    ]
    every = rank_correlation(x, y, held, counts)
    told = every[~np.isnan(every)]
    low, high = np.percentile(told, [2.5, 97.5]) if len(told) > draws / 2 else (math.nan, math.nan)
    return Correlation(value, float(low), float(high))


def controls(asked: Claim, seen: EncoderPoints, curve: str) -> dict[str, list[Array]]:
    """What is held equal, by what it is called; nothing first. Seeds and specs have no order: each is held equal by itself."""
    single = {name: [seen.measures[name]] for name in asked.controls}
    specs = [line.experiment for line in seen.lines]
    return {
        "nothing": [],
        **single,
        CLEAN: [seen.clean[curve]],
        SEED: _dummies(seen.seeds),
        SPEC: _dummies(specs),
    }


def _dummies(kinds: Sequence[object]) -> list[Array]:
    """1 where an encoder is of a kind and 0 where it is not, for every kind but the first."""
    return [np.array([each == kind for each in kinds]) for kind in [*dict.fromkeys(kinds)][1:]]


class ScatterPanel(NamedTuple):
    """One panel: a point for each encoder. held: what is held equal; then both axes are what is left of ranks."""

    curve: str
    held: str
    x: Array
    y: Array
    correlation: Correlation


class CorrelationReport(NamedTuple):
    """What a table says of the claim. text: in Markdown. lines: of every encoder; clouds: a row for each curve, a panel for each control;
    both empty where there are too few encoders."""

    text: str
    lines: list[Line]
    clouds: list[list[ScatterPanel]]


def correlation_report(table: Table, asked: Claim) -> CorrelationReport:
    """The correlation of the measure with each robustness, controls held equal in turn; the same of the encoders alone that have learned
    something; and the correlations of all measures."""
    seen = encoder_points(table, asked.curves)
    if len(seen.lines) < LEAST:
        return CorrelationReport(
            f"Only {len(seen.lines)} encoders are finished: too few to correlate anything.", [], []
        )
    able = seen.only(
        [
            i
            for i in range(len(seen.lines))
            if all(clean[i] >= asked.least_clean for clean in seen.clean.values())
        ]
    )
    rows = clouds(seen, asked)
    words = (
        "Spearman's rank correlation over encoders, with a 95 % bootstrap interval over lines, that is all seeds of one together "
        f"({asked.draws} draws), as if lines were a sample of all methods; of fewer than 8 lines there is none. 0 is nothing; partial "
        "where something is held equal, the spec among others, as lines of one spec are alike."
    )
    parts, every = (
        [words, _of(seen, rows, asked)],
        ["All measures, nothing held equal:", _every(seen, asked)],
    )
    if LEAST <= len(able.lines) < len(seen.lines):
        parts += [
            f"Without those whose clean accuracy is below {asked.least_clean:g} %:",
            _of(able, clouds(able, asked), asked),
        ]
        every += [
            f"All measures, without those below {asked.least_clean:g} %:",
            _every(able, asked),
        ]
    return CorrelationReport("\n\n".join(parts + every), seen.lines, rows)


def clouds(seen: EncoderPoints, asked: Claim) -> list[list[ScatterPanel]]:
    """A row of panels for each curve, one for each control."""
    x = seen.measures[asked.measure]
    rows = []
    for curve, y in seen.robust.items():
        row = []
        for held, given in controls(asked, seen, curve).items():
            known = np.stack(given) if given else None
            pair = (residual_ranks(x, known), residual_ranks(y, known)) if given else (x, y)
            row.append(
                ScatterPanel(curve, held, *pair, correlate(seen.lines, x, y, given, asked.draws))
            )
        rows.append(row)
    return rows


def _of(seen: EncoderPoints, rows: Sequence[Sequence[ScatterPanel]], asked: Claim) -> str:
    header = f"{asked.measure}, {len(seen.lines)} encoders on {len(set(seen.lines))} lines, with the area under"
    body = [[row[0].curve, *(str(cloud.correlation) for cloud in row)] for row in rows]
    return markdown([header, *(f"{cloud.held} held equal" for cloud in rows[0])], body)


def _every(seen: EncoderPoints, asked: Claim) -> str:
    body = [
        [
            name,
            *(str(correlate(seen.lines, values, y, (), asked.draws)) for y in seen.robust.values()),
        ]
        for name, values in seen.measures.items()
        if np.ptp(values) > 0
    ]
    return markdown(["measure", *seen.robust], body)


# ------------------------------------------------------------------------------------------------ the claim


@gin.register
@dataclass(frozen=True, kw_only=True)
class Claim(Part):
    """Whether monosemanticity goes with robustness over the encoders of a sweep, in the words of curves.csv: one point each, the area under
    each of the `curves` against `measure`, with rank correlations; and the same with each of `controls`, with clean accuracy, the training
    seed and the spec held equal. curves: with a severity of 0, where accuracy is clean. least_clean: in percent; all is said once more
    without encoders of less clean accuracy, which may have learned nothing. It is a choice, and accuracy is part of what is explained.
    draws: of the bootstrap, over lines with all their seeds.
    """

    measure: str = "class_consistency"
    curves: tuple[str, ...]
    controls: tuple[str, ...] = ("l0", "live_dimensions")
    least_clean: Annotated[float, Range(0, 100)] = 0.0
    draws: Annotated[int, Range(100, 100_000)] = 2000

    def validate(self) -> None:
        if not self.curves:
            self.refuse("curves", "must name at least one curve, got ()")
        for field, names in (("curves", self.curves), ("controls", (self.measure, *self.controls))):
            if twice := [name for name in names if names.count(name) > 1]:
                self.refuse(
                    field,
                    f"must name each thing once{' and not the measure' * (field == 'controls')}, got {twice[0]!r} twice",
                )
