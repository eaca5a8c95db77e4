"""What a table says about axes: gains, decompositions, curves, correlations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from monosem.axes.drawn import drawn_lines
from monosem.axes.gains import AxisGains, AxisReport, Decomposition, Place
from monosem.axes.measures import measures_text
from monosem.axes.turned import base_of, compared_encoders, decompose, paired_samples
from monosem.results.formatting import format_difference, format_mean, markdown_table
from monosem.results.stats import Estimate, estimate_over, holm

if TYPE_CHECKING:
    from monosem.results.table import Table

Number = TypeVar("Number")


def axis_report(table: Table, asked: AxisGains) -> AxisReport:
    """Gains, decompositions, and both as tables. Places that lack a number are left out."""
    encoders = compared_encoders(table, asked)
    compared = [each for each in encoders if each.rotated]
    samples = paired_samples(table, asked, compared)
    gains = {place: estimate_over(turned.gains) for place, turned in samples.items()}
    parts = {}
    for place, turned in samples.items():
        base = samples.get(place._replace(encoder=base_of(place.encoder, compared)))
        if base and base is not turned:
            parts[place] = decompose(turned, base)
    gains, parts = _corrected_gains(gains), _corrected_parts(parts)
    rotations = max((len(turned.rotated) for turned in samples.values()), default=0)
    text = _text(gains, parts, asked, rotations)
    if asked.measures:
        text += f"\n\n{measures_text(table, asked, compared, samples)}"
    drawn = [line for each in encoders for line in drawn_lines(table, asked, each)]
    return AxisReport(text, gains, parts, tuple(drawn))


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
    gains: Mapping[Place, Estimate],
    parts: Mapping[Place, Decomposition],
    asked: AxisGains,
    rotations: int,
) -> str:
    if not gains:
        return "No pair of experiments is finished: there is no axis gain to tell."
    means = {place: gain for place, gain in gains.items() if place.severity is None}
    sizes = next(iter(means.values()))
    first = asked.pairs[0][0]
    paragraphs = [
        "Axis gain: accuracy on features as they are less accuracy on rotated ones, in points, "
        f"paired over {sizes.seeds} seeds x {sizes.repeats} draws x {rotations} rotations, ± half "
        "of the 95 % interval, rotations being a crossed source of variance. "
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
