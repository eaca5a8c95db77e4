"""Whether monosemantic encoders are the robust ones: rank correlations over a table's encoders.

`Claim` is what Gin binds, `correlation_report` answers it in Markdown and in panels to draw.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple

import gin
import numpy as np

from monosem.core.fields import Part, Range
from monosem.results.formatting import markdown_table
from monosem.results.rows import MONOSEMANTICITY, Line, Swept
from monosem.results.stats import (
    CLEAN as CLEAN_POINT,
)
from monosem.results.stats import (
    Array,
    Key,
    Sample,
    areas,
    names_only,
    percentile_interval,
    rank_correlation,
    residual_ranks,
    severities_only,
)

if TYPE_CHECKING:
    from monosem.results.table import Table  # pandas: whoever reads a Gin file does without it

MIN_ENCODERS = 4  # with fewer there is no correlation
MIN_LINES = 8  # with fewer there is no interval

EncoderKey = tuple[Line, Swept]  # the line and the seeds
ByEncoder = Mapping[EncoderKey, float]

NOTHING, CLEAN, SEED, SPEC = "nothing", "clean accuracy", "training seed", "spec"


@gin.register
@dataclass(frozen=True, kw_only=True)
class Claim(Part):
    """Whether monosemanticity goes with robustness over the encoders of a sweep.

    Every encoder is a point: the measure, and the area under a curve. The rank correlation of the
    two is taken as it is, and with something held equal: each control in turn, clean accuracy, the
    training seed, and the spec. Names are those of curves.csv.

    measure: the metric of monosemanticity.
    curves: with a severity of 0, where accuracy is clean. Where points have names: with a clean
        point; what counts as area is the plain mean over the others.
    controls: metrics that are held equal, one at a time.
    least_clean: in percent. The tables are repeated without encoders of less clean accuracy, which
        may have learned nothing. The bound is a choice, and accuracy is part of what is explained.
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
        self._refuse_repeated("curves", self.curves, "")
        self._refuse_repeated("controls", (self.measure, *self.controls), " and not the measure")

    def _refuse_repeated(self, field: str, names: Sequence[str], besides: str) -> None:
        for name in names:
            if names.count(name) > 1:
                self.refuse(field, f"must name each thing once{besides}, got {name!r} twice")


# Encoders


class EncoderPoints(NamedTuple):
    """The n encoders of a table that have every number. The arrays are (n,), in one order.

    lines: the line that each encoder belongs to.
    seeds: the values of its seeds.
    metrics: of monosemanticity, by name.
    robustness: the area under each curve, in percent, by curve; a mean over repeats. Of named
        points it is the mean over those other than the clean one.
    clean: accuracy at the smallest severity or at the clean point, in percent, by curve; a mean
        over repeats.
    """

    lines: list[Line]
    seeds: list[tuple[str, ...]]
    metrics: dict[str, Array]
    robustness: dict[str, Array]
    clean: dict[str, Array]

    def only(self, chosen: Sequence[int]) -> EncoderPoints:
        """The encoders at these positions."""
        return EncoderPoints(
            [self.lines[index] for index in chosen],
            [self.seeds[index] for index in chosen],
            {name: values[chosen] for name, values in self.metrics.items()},
            {curve: values[chosen] for curve, values in self.robustness.items()},
            {curve: values[chosen] for curve, values in self.clean.items()},
        )

    def able(self, least_clean: float) -> EncoderPoints:
        """Those whose clean accuracy, in percent, is enough on every curve."""
        return self.only(
            [
                index
                for index in range(len(self.lines))
                if all(clean[index] >= least_clean for clean in self.clean.values())
            ]
        )


def encoder_points(table: Table, curves: Sequence[str]) -> EncoderPoints:
    """The encoders of a table that have every number. Every line has one for each choice of seeds.

    curves: whose areas and clean accuracies are taken.
    """
    # Not a pivot in pandas, which cannot tell a number that is missing from one that is nan.
    lines = table.lines
    metrics: dict[str, ByEncoder] = {}
    for metric in _monosemanticity_metrics(table):
        metrics[metric] = _by_encoder({line: _measured(table, line, metric) for line in lines})
    if not metrics:
        return EncoderPoints([], [], {}, {}, {})
    robustness: dict[str, ByEncoder] = {}
    clean: dict[str, ByEncoder] = {}
    for curve in curves:
        samples = {line: table.samples(line, curve) for line in lines}
        robustness[curve] = _by_encoder({line: areas(samples[line]) for line in lines})
        clean[curve] = _by_encoder({line: _clean(samples[line]) for line in lines})
    encoders = _complete([*metrics.values(), *robustness.values(), *clean.values()])
    return EncoderPoints(
        [line for line, _ in encoders],
        [_seed_values(seeds) for _, seeds in encoders],
        _arrays(metrics, encoders),
        _arrays(robustness, encoders),
        _arrays(clean, encoders),
    )


def _monosemanticity_metrics(table: Table) -> list[str]:
    """The names of those that all lines have, in the order of the rows.

    Tables whose curves probe several representations have none of that name.
    """
    of_lines = [
        [metric for curve, metric in contents if curve == MONOSEMANTICITY]
        for contents in table.contents.values()
    ]
    have_some = [metrics for metrics in of_lines if metrics]
    every = dict.fromkeys(metric for metrics in have_some for metric in metrics)
    return [metric for metric in every if all(metric in metrics for metrics in have_some)]


def _measured(table: Table, line: Line, metric: str) -> Sample:
    return table.samples(line, MONOSEMANTICITY, metric).get(0.0, {})


def _clean(samples: Mapping[Key, Sample]) -> Sample:
    """The sample at the smallest severity, or at the clean point."""
    severities = severities_only(samples)
    if severities:
        return severities[min(severities)]
    return names_only(samples).get(CLEAN_POINT, {})


def _by_encoder(samples: Mapping[Line, Sample]) -> ByEncoder:
    """The means over repeats."""
    values: dict[EncoderKey, list[float]] = {}
    for line, sample in samples.items():
        for (seeds, _), value in sample.items():
            values.setdefault((line, seeds), []).append(value)
    return {encoder: sum(drawn) / len(drawn) for encoder, drawn in values.items()}


def _complete(columns: Sequence[ByEncoder]) -> list[EncoderKey]:
    """The encoders that are in every column."""
    return [encoder for encoder in columns[0] if all(encoder in column for column in columns)]


def _arrays(columns: Mapping[str, ByEncoder], encoders: Sequence[EncoderKey]) -> dict[str, Array]:
    return {
        name: np.array([column[encoder] for encoder in encoders])
        for name, column in columns.items()
    }


def _seed_values(seeds: Swept) -> tuple[str, ...]:
    """Bindings that take one value at a time are one seed."""
    return tuple(dict.fromkeys(value for _, value in seeds))


# Correlations


class Correlation(NamedTuple):
    """A rank correlation in [-1, 1] and its 95 % interval; nan where there is none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "cannot be told"
        if math.isnan(self.low):
            return f"{self.value:+.2f}"
        return f"{self.value:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def correlate(
    lines: Sequence[Hashable], x: Array, y: Array, given: Sequence[Array] = (), draws: int = 2000
) -> Correlation:
    """Spearman's rank correlation of x and y over encoders, `given` held equal.

        lines   n, the line of each encoder
        x, y    (n,)
        given   c of (n,)

    The interval is a percentile bootstrap over lines: each draw takes as many lines as there are,
    with replacement, and all their encoders. Lines are treated as a sample of all possible methods.
    With fewer than 8 lines there is no interval.
    """
    held = np.stack(given) if len(given) else None
    value = float(rank_correlation(x, y, held))
    if len(set(lines)) < MIN_LINES:
        return Correlation(value, math.nan, math.nan)
    counts = _bootstrap_counts(lines, draws)
    return Correlation(value, *percentile_interval(rank_correlation(x, y, held, counts)))


def _bootstrap_counts(lines: Sequence[Hashable], draws: int) -> Array:
    """(draws, n): how often each encoder is in each resample of lines."""
    position = {line: index for index, line in enumerate(dict.fromkeys(lines))}
    size = len(position)
    chosen = np.random.default_rng(0).integers(size, size=(draws, size))
    counts = np.stack([np.bincount(resample, minlength=size) for resample in chosen])
    return counts[:, [position[line] for line in lines]]


def controls(claim: Claim, points: EncoderPoints, curve: str) -> dict[str, list[Array]]:
    """What is held equal in turn, by its name; nothing first.

    Seeds and specs have no order, so each of their values is an indicator of its own.
    """
    metrics = {name: [points.metrics[name]] for name in claim.controls}
    return {
        NOTHING: [],
        **metrics,
        CLEAN: [points.clean[curve]],
        SEED: _indicators(points.seeds),
        SPEC: _indicators([line.experiment for line in points.lines]),
    }


def _indicators(kinds: Sequence[Hashable]) -> list[Array]:
    """For every kind but the first, (n,): whether an encoder is of that kind."""
    _, *others = dict.fromkeys(kinds)
    return [np.array([kind == other for kind in kinds]) for other in others]


# Report


class ScatterPanel(NamedTuple):
    """A point for each encoder, and their correlation.

    curve: whose area is y.
    held: what is held equal; unless it is nothing, x and y are the residuals of ranks.
    x: the metric of monosemanticity, (n,).
    y: robustness, (n,).
    """

    curve: str
    held: str
    x: Array
    y: Array
    correlation: Correlation


class CorrelationReport(NamedTuple):
    """What a table says about a claim.

    text: in Markdown.
    lines: of every encoder.
    panels: a row for each curve, a panel for each control; like lines, empty where there are too
        few encoders.
    """

    text: str
    lines: list[Line]
    panels: list[list[ScatterPanel]]


def correlation_report(table: Table, claim: Claim) -> CorrelationReport:
    """The correlation of the claim's metric with robustness, controls held equal in turn.

    Repeated for the encoders that have enough clean accuracy; then the correlations of all metrics.
    """
    points = encoder_points(table, claim.curves)
    count = len(points.lines)
    if count < MIN_ENCODERS:
        text = f"Only {count} encoders are finished: too few to correlate anything."
        return CorrelationReport(text, [], [])
    tables = _tables_of(points, claim)
    parts = [_method(claim, [curve for curve in claim.curves if curve in table.named])]
    parts.append(tables.claim)
    appendix = ["All measures, nothing held equal:", tables.metrics]
    able = points.able(claim.least_clean)
    if MIN_ENCODERS <= len(able.lines) < count:
        able_tables = _tables_of(able, claim)
        bound = f"below {claim.least_clean:g} %:"
        parts += [f"Without those whose clean accuracy is {bound}", able_tables.claim]
        appendix += [f"All measures, without those {bound}", able_tables.metrics]
    return CorrelationReport("\n\n".join(parts + appendix), points.lines, tables.panels)


class _Tables(NamedTuple):
    """The correlations over some encoders, in Markdown and to draw.

    claim: those of the claim's metric, controls held equal in turn.
    metrics: those of all metrics, nothing held equal.
    panels: as in CorrelationReport.
    """

    claim: str
    metrics: str
    panels: list[list[ScatterPanel]]


def _tables_of(points: EncoderPoints, claim: Claim) -> _Tables:
    panels = scatter_panels(points, claim)
    return _Tables(_claim_table(points, panels, claim), _metrics_table(points, claim), panels)


def scatter_panels(points: EncoderPoints, claim: Claim) -> list[list[ScatterPanel]]:
    """A row of panels for each curve, one for each control."""
    x = points.metrics[claim.measure]
    rows = []
    for curve, y in points.robustness.items():
        row = []
        for held, given in controls(claim, points, curve).items():
            correlation = correlate(points.lines, x, y, given, claim.draws)
            row.append(ScatterPanel(curve, held, *_axes(x, y, given), correlation))
        rows.append(row)
    return rows


def _axes(x: Array, y: Array, given: Sequence[Array]) -> tuple[Array, Array]:
    """The x and y of a panel: the values, or the residuals of their ranks."""
    if not given:
        return x, y
    held = np.stack(given)
    return residual_ranks(x, held), residual_ranks(y, held)


def _method(claim: Claim, named: Sequence[str]) -> str:
    text = (
        "Spearman's rank correlation over encoders, with a 95 % bootstrap interval over lines, "
        f"that is all seeds of one together ({claim.draws} draws), as if lines were a sample of "
        f"all methods; of fewer than {MIN_LINES} lines there is none. 0 is nothing; partial where "
        "something is held equal, the spec among others, as lines of one spec are alike."
    )
    if named:
        text += f" The area of {', '.join(named)} is the mean over all named points but the clean."
    return text


def _claim_table(
    points: EncoderPoints, panels: Sequence[Sequence[ScatterPanel]], claim: Claim
) -> str:
    """A row for each curve, a column for each control."""
    encoders, lines = len(points.lines), len(set(points.lines))
    heading = f"{claim.measure}, {encoders} encoders on {lines} lines, with the area under"
    controls_held = [f"{panel.held} held equal" for panel in panels[0]]
    body = [[row[0].curve, *(str(panel.correlation) for panel in row)] for row in panels]
    return markdown_table([heading, *controls_held], body)


def _metrics_table(points: EncoderPoints, claim: Claim) -> str:
    """A row for each metric that varies, a column for each curve."""
    body = []
    for metric, x in points.metrics.items():
        if np.ptp(x) > 0:
            correlations = [
                correlate(points.lines, x, y, (), claim.draws) for y in points.robustness.values()
            ]
            body.append([metric, *map(str, correlations)])
    return markdown_table(["measure", *points.robustness], body)
