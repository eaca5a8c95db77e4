"""Which lines of a table are compared, and their accuracies as they are and rotated, in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from monosem.axes.gains import CLEAN, AxisGains, Decomposition, Place
from monosem.results.rows import Line, Swept
from monosem.results.stats import Sample, estimate, estimate_over, mean_sample, severities_only

if TYPE_CHECKING:
    from monosem.results.table import Table  # pandas: whoever reads a Gin file does without it

# Encoders


class ComparedEncoder(NamedTuple):
    """One pair, one choice of what else is swept of it, one learner.

    label: the experiment of features as they are, and what was chosen.
    pair: the position of the pair.
    swept: what was chosen, the learner aside.
    learner: '' where the experiment has none.
    own: the line of features as they are.
    rotated: those of rotated ones, by what tells rotations apart.
    other: of the third experiment of the pair.
    """

    label: str
    pair: int
    swept: Swept
    learner: str
    own: Line
    rotated: dict[Swept, Line]
    other: Line | None


def compared_encoders(table: Table, asked: AxisGains) -> list[ComparedEncoder]:
    """In the order of pairs; of each, in that of lines."""
    found = []
    for position, pair in enumerate(asked.pairs):
        own = [line for line in table.lines if line.experiment == pair[0]]
        variants = {line: _without(line.values, {asked.learner}) for line in own}
        is_alone = len(set(variants.values())) == 1
        for line in own:
            swept = variants[line]
            learner = dict(line.values).get(asked.learner, "")
            label = pair[0] if is_alone else f"{pair[0]}, {_swept_text(swept)}"
            others = [_turns(table, name, line, asked.learner) for name in pair[1:]]
            other = next(iter(others[1].values()), None) if len(others) > 1 else None
            found.append(ComparedEncoder(label, position, swept, learner, line, others[0], other))
    return found


def _without(values: Swept, names: set[str]) -> Swept:
    return tuple((name, value) for name, value in values if name not in names)


def _swept_text(swept: Swept) -> str:
    return ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in swept)


def _turns(table: Table, experiment: str, own: Line, learner: str) -> dict[Swept, Line]:
    """The lines of an experiment that agree with one, by the bindings that it lacks."""
    values = dict(own.values)
    lines = {}
    for line in table.lines:
        agrees = all(values.get(name, value) == value for name, value in line.values)
        if line.experiment == experiment and agrees:
            lines[_without(line.values, {*values, learner})] = line
    return lines


def base_of(label: str, encoders: Sequence[ComparedEncoder]) -> str:
    """The label of what an encoder is compared with: that of the first pair that agrees with it."""
    swept = next(dict(each.swept) for each in encoders if each.label == label)
    first = [each for each in encoders if each.pair == encoders[0].pair]
    for each in first:
        if all(swept.get(name, value) == value for name, value in each.swept):
            return each.label
    return first[0].label


# Samples


class Turned(NamedTuple):
    """Accuracies of one place.

    own: of features as they are.
    rotated: by rotation.
    """

    own: Sample
    rotated: Mapping[Swept, Sample]

    @property
    def gains(self) -> list[Sample]:
        return [minus(self.own, sample) for sample in self.rotated.values()]


def paired_samples(
    table: Table, asked: AxisGains, encoders: Sequence[ComparedEncoder]
) -> dict[Place, Turned]:
    """By place, the accuracies as they are and rotated, curve by curve."""
    found: dict[Place, Turned] = {}
    for each in encoders:
        own = _kinds(table, asked, each.own)
        rotated = {turn: _kinds(table, asked, line) for turn, line in each.rotated.items()}
        for kind, sample in own.items():
            turned = {turn: kinds[kind] for turn, kinds in rotated.items() if kind in kinds}
            if turned:
                found[Place(*kind, each.learner, each.label)] = Turned(sample, turned)
    learners = list(dict.fromkeys(place.learner for place in found))
    order = [CLEAN, *asked.curves]
    ranked = sorted(
        found.items(), key=lambda item: (order.index(item[0].kind), learners.index(item[0].learner))
    )
    return dict(ranked)


def _kinds(table: Table, asked: AxisGains, line: Line) -> dict[tuple[str, float | None], Sample]:
    """By kind and severity, the sample of a line.

    Seeds are named by their values alone, so that those of rotated features can be paired.
    """
    kinds: dict[tuple[str, float | None], Sample] = {}
    for curve in asked.curves:
        samples = by_severity(table, line, curve)
        clean = samples.pop(0.0, None)
        if clean:
            kinds.setdefault((CLEAN, None), clean)
        for severity, sample in samples.items():
            kinds[curve, severity] = sample
        if samples:
            kinds[curve, None] = mean_sample(list(samples.values()))
    return kinds


def by_severity(
    table: Table, line: Line, curve: str, metric: str | None = None
) -> dict[float, Sample]:
    return {
        severity: {(_seed_values(seeds), repeat): value for (seeds, repeat), value in each.items()}
        for severity, each in severities_only(table.samples(line, curve, metric)).items()
    }


def _seed_values(seeds: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Bindings that take one value at a time are one seed."""
    return tuple(dict.fromkeys(value for _, value in seeds))


def minus(one: Sample, other: Sample) -> Sample:
    return {unit: value - other[unit] for unit, value in one.items() if unit in other}


def decompose(own: Turned, base: Turned) -> Decomposition:
    """A rotation that only one of the two has is left out of both parts."""
    shared = [turn for turn in own.rotated if turn in base.rotated]
    geometry = [minus(own.rotated[turn], base.rotated[turn]) for turn in shared]
    total = minus(own.own, base.own)
    axes = [minus(total, of_turn) for of_turn in geometry]
    return Decomposition(estimate(total), estimate_over(geometry), estimate_over(axes))
