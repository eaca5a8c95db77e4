"""What axes are worth: accuracy on features as they are less accuracy on rotated ones.

`AxisGains` is what Gin binds, `axis_report` answers it in Markdown, in CSV and in numbers to draw.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import gin

from monosem.core.fields import Part
from monosem.results.formatting import format_difference, format_mean, markdown_table
from monosem.results.rows import Line
from monosem.results.stats import (
    Estimate,
    Sample,
    estimate,
    holm,
    mean_sample,
    severities_only,
)

if TYPE_CHECKING:
    from monosem.results.table import Table  # pandas: whoever reads a Gin file does without it

Number = TypeVar("Number")

CLEAN = "clean"  # the kind of robustness where nothing is corrupted


@gin.register
@dataclass(frozen=True, kw_only=True)
class AxisGains(Part):
    """What the axes of features are worth to each learner of a sweep.

        axis gain = accuracy as it is - accuracy rotated

    paired seed by seed and draw by draw; where there are several rotations it is their mean. The
    difference of an encoder to the first one falls in two parts:

        encoder - first = (encoder rotated - first rotated) + (gain of encoder - gain of first)
                          what geometry is worth              what axes are worth

    A rotation-invariant learner has no gain, whatever the features are: its test is that of the
    experiment. Names are those of curves.csv.

    pairs: the experiment of features as they are and that of the rotated ones, the first pair is
        what others are compared with.
    learner: the swept binding whose values are the learners.
    curves: whose means over severities are taken; severity 0, where there is one, is a kind of
        robustness of its own, called clean.
    """

    pairs: tuple[tuple[str, str], ...]
    learner: str = "Curve.probe"
    curves: tuple[str, ...]

    def validate(self) -> None:
        for name in ("pairs", "curves"):
            values = getattr(self, name)
            if not values:
                self.refuse(name, "must hold at least one, got ()")
            if len(set(values)) < len(values):
                self.refuse(name, f"must differ from one another, got {values!r}")
        for one, other in self.pairs:
            if one == other:
                self.refuse("pairs", f"must be of two experiments each, got {one!r} twice")

    @property
    def names(self) -> tuple[str, ...]:
        """All experiments that are named."""
        return tuple(name for pair in self.pairs for name in pair)


class Place(NamedTuple):
    """Where something was measured.

    kind: of robustness: a curve, or CLEAN.
    severity: None for the mean over the severities other than 0.
    learner: as the table calls it.
    encoder: the experiment of features as they are.
    """

    kind: str
    severity: float | None
    learner: str
    encoder: str


class Decomposition(NamedTuple):
    """The difference of an encoder to the first one, and its two parts."""

    total: Estimate
    geometry: Estimate
    axes: Estimate


class AxisReport(NamedTuple):
    """What a table says about axes.

    text: in Markdown.
    gains: by place, p corrected for all of them that are of one severity, or of none (Holm).
    parts: by place, p corrected likewise, for geometry and axes together.
    """

    text: str
    gains: dict[Place, Estimate]
    parts: dict[Place, Decomposition]

    def csv_text(self) -> str:
        """One row a number."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["number", *Place._fields, *Estimate._fields])
        for place, gain in self.gains.items():
            writer.writerow(["axis_gain", *place, *gain])
        for place, parts in self.parts.items():
            for name, part in zip(Decomposition._fields, parts, strict=True):
                writer.writerow([name, *place, *part])
        return text.getvalue()


def axis_report(table: Table, asked: AxisGains) -> AxisReport:
    """Gains, decompositions, and both as tables. Places that lack a number are left out."""
    samples = _paired_samples(table, asked)
    gains = {place: estimate(_minus(*pair)) for place, pair in samples.items()}
    first, _ = asked.pairs[0]
    parts = {}
    for place, pair in samples.items():
        base = samples.get(place._replace(encoder=first))
        if base and place.encoder != first:
            parts[place] = _decompose(pair, base)
    gains, parts = _corrected_gains(gains), _corrected_parts(parts)
    return AxisReport(_text(gains, parts, asked), gains, parts)


# Samples


def _paired_samples(table: Table, asked: AxisGains) -> dict[Place, tuple[Sample, Sample]]:
    """By place, the accuracies as they are and rotated."""
    learners: dict[str, None] = {}
    for line in table.lines:
        learners |= {value: None for name, value in line.values if name == asked.learner}
    pairs: dict[Place, tuple[Sample, Sample]] = {}
    for learner in learners:
        for encoder, turned in asked.pairs:
            own = _kinds(table, asked, encoder, learner)
            rotated = _kinds(table, asked, turned, learner)
            for kind, sample in own.items():
                if kind in rotated:
                    place = Place(*kind, learner=learner, encoder=encoder)
                    pairs[place] = sample, rotated[kind]
    order = [CLEAN, *asked.curves]
    return dict(sorted(pairs.items(), key=lambda pair: order.index(pair[0].kind)))


def _kinds(
    table: Table, asked: AxisGains, experiment: str, learner: str
) -> dict[tuple[str, float | None], Sample]:
    """By kind and severity, the sample of an experiment and a learner, a mean over its lines.

    Seeds are named by their values alone, so that those of rotated features can be paired.
    """
    lines = [
        line
        for line in table.lines
        if line.experiment == experiment and (asked.learner, learner) in line.values
    ]
    kinds: dict[tuple[str, float | None], Sample] = {}
    for curve in asked.curves:
        by_severity = {
            severity: mean_sample([_at(table, line, curve, severity) for line in lines])
            for severity in _shared_severities(table, lines, curve)
        }
        clean = by_severity.pop(0.0, None)
        if clean:
            kinds.setdefault((CLEAN, None), clean)
        for severity, sample in by_severity.items():
            kinds[curve, severity] = sample
        if by_severity:
            kinds[curve, None] = mean_sample(list(by_severity.values()))
    return {kind: sample for kind, sample in kinds.items() if sample}


def _shared_severities(table: Table, lines: Sequence[Line], curve: str) -> list[float]:
    of_lines = [set(severities_only(table.samples(line, curve))) for line in lines]
    return sorted(set.intersection(*of_lines)) if of_lines else []


def _at(table: Table, line: Line, curve: str, severity: float) -> Sample:
    sample = table.samples(line, curve)[severity]
    return {(_seed_values(seeds), repeat): value for (seeds, repeat), value in sample.items()}


def _seed_values(seeds: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Bindings that take one value at a time are one seed."""
    return tuple(dict.fromkeys(value for _, value in seeds))


def _minus(one: Sample, other: Sample) -> Sample:
    return {unit: value - other[unit] for unit, value in one.items() if unit in other}


def _decompose(own: tuple[Sample, Sample], base: tuple[Sample, Sample]) -> Decomposition:
    """own, base: accuracies as they are and rotated."""
    total, geometry = _minus(own[0], base[0]), _minus(own[1], base[1])
    axes = _minus(_minus(*own), _minus(*base))
    return Decomposition(estimate(total), estimate(geometry), estimate(axes))


# Corrections


def _corrected_gains(gains: Mapping[Place, Estimate]) -> dict[Place, Estimate]:
    corrected = dict(gains)
    for is_mean in (True, False):
        places = [place for place in gains if (place.severity is None) == is_mean]
        p_values = holm([gains[place].p for place in places])
        for place, p in zip(places, p_values, strict=True):
            corrected[place] = gains[place]._replace(p=p)
    return corrected


def _corrected_parts(parts: Mapping[Place, Decomposition]) -> dict[Place, Decomposition]:
    corrected = dict(parts)
    for is_mean in (True, False):
        places = [place for place in parts if (place.severity is None) == is_mean]
        both = [parts[place].geometry.p for place in places]
        both += [parts[place].axes.p for place in places]
        p_values = holm(both)
        for index, place in enumerate(places):
            own = parts[place]
            corrected[place] = own._replace(
                geometry=own.geometry._replace(p=p_values[index]),
                axes=own.axes._replace(p=p_values[len(places) + index]),
            )
    return corrected


# Text


def _text(
    gains: Mapping[Place, Estimate], parts: Mapping[Place, Decomposition], asked: AxisGains
) -> str:
    if not gains:
        return "No pair of experiments is finished: there is no axis gain to tell."
    means = {place: gain for place, gain in gains.items() if place.severity is None}
    sizes = next(iter(means.values()))
    first = asked.pairs[0][0]
    paragraphs = [
        "Axis gain: accuracy on features as they are less accuracy on rotated ones, in points, "
        f"paired over {sizes.seeds} seeds x {sizes.repeats} draws, ± half of the 95 % interval. "
        "Of every curve it is the mean over its severities without 0; clean is severity 0. "
        f"p: of a t-test, corrected for the {len(means)} numbers of this table (Holm); no p where "
        "nothing varies, as where a learner cannot tell the two apart.",
        _table(means, format_difference, ("learner", "robustness")),
    ]
    shown = {place: of_place for place, of_place in parts.items() if place.severity is None}
    if shown:
        paragraphs += [
            f"The difference to {first} = geometry (both rotated) + axes (difference of the gains)"
            f"; p of both parts corrected for all {2 * len(shown)} of them.",
            _table(shown, _format_parts, ("learner", "robustness")),
        ]
    return "\n\n".join(paragraphs)


def _table(
    numbers: Mapping[Place, Number],
    to_text: Callable[[Number], str],
    headings: tuple[str, str],
) -> str:
    """A row for each learner and kind of robustness, a column for each encoder."""
    encoders = list(dict.fromkeys(place.encoder for place in numbers))
    rows = dict.fromkeys((place.learner, place.kind) for place in numbers)
    body = []
    learners = list(dict.fromkeys(learner for learner, _ in rows))
    for learner, kind in sorted(rows, key=lambda row: learners.index(row[0])):
        cells = [numbers.get(Place(kind, None, learner, encoder)) for encoder in encoders]
        body.append([learner, kind, *("" if cell is None else to_text(cell) for cell in cells)])
    return markdown_table([*headings, *encoders], body)


def _format_parts(parts: Decomposition) -> str:
    return (
        f"{format_mean(parts.total, '+')} = {format_difference(parts.geometry)} geometry, "
        f"{format_difference(parts.axes)} axes"
    )
