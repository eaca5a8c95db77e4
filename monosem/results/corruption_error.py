"""Mean corruption error: how much a line errs under corruptions for every error of the baseline.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (ICLR 2019), section 4. Of curves whose named points have severities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from monosem.results.formatting import format_mean, markdown_table
from monosem.results.rows import Line
from monosem.results.stats import CLEAN, Sample, estimate, mean_sample
from monosem.results.table import Pairs, Place, Table, Unit

ACCURACY = "top1"  # of which errors are 100 % minus


class ErrorRatio(NamedTuple):
    """The mean of ratios over corruptions, in percent.

    sample: for each unit, that is for each pair of a training seed and a draw.
    left_out: corruptions without a part in the mean, as what would be divided by is not above 0 in
        some unit.
    """

    sample: Sample
    left_out: list[str]


class CorruptionError(NamedTuple):
    """What a line errs on a curve, in percent of what its baseline errs.

    mean: the mean corruption error, mCE.
    relative: the same of what is lost against the clean point, relative mCE.
    """

    mean: ErrorRatio
    relative: ErrorRatio


def rated_curves(table: Table) -> list[str]:
    """The curves of accuracy with a clean point and corruptions that have severities."""
    places: dict[str, set[Place]] = {curve: set() for curve in table.named}
    for row in table.rows:
        if row.curve in places and row.metric == ACCURACY:
            places[row.curve].add((row.point, row.severity))
    return [
        curve
        for curve, of_curve in places.items()
        if any(name == CLEAN for name, _ in of_curve) and _severities(of_curve)
    ]


def corruption_error(table: Table, line: Line, curve: str) -> CorruptionError:
    """Of a line against its baseline; empty where they share no clean point or no corruption.

        CE(c)           = sum over s of E(s, c)         / sum over s of E_base(s, c)
        relative CE(c)  = sum over s of E(s, c) - E     / sum over s of E_base(s, c) - E_base

    E(s, c) is the error under corruption c at severity s, E the clean one; both sums are over the
    severities that line and baseline have. The means of both are over the corruptions.
    """
    pairs = table.pairs(line, curve)
    clean = next((pairs[place] for place in pairs if place[0] == CLEAN), {})
    corrupted = {
        name: [pairs[place] for place in places] for name, places in _severities(pairs).items()
    }
    return CorruptionError(
        mean=_mean_ratio(clean, corrupted, _error),
        relative=_mean_ratio(clean, corrupted, _loss_against(clean)),
    )


def _severities(places: Mapping[Place, Pairs] | set[Place]) -> dict[str, list[Place]]:
    """The places of each corruption; a point without a severity is none."""
    of_names: dict[str, list[Place]] = {}
    for name, severity in places:
        if name != CLEAN and severity > 0:
            of_names.setdefault(name, []).append((name, severity))
    return of_names


Measured = Callable[[Unit, Pairs], tuple[float, float]]  # of a line and of its baseline


def _error(unit: Unit, accuracies: Pairs) -> tuple[float, float]:
    own, base = accuracies[unit]
    return 100 - own, 100 - base


def _loss_against(clean: Pairs) -> Measured:
    def loss(unit: Unit, accuracies: Pairs) -> tuple[float, float]:
        own_clean, base_clean = clean[unit]
        own, base = accuracies[unit]
        return own_clean - own, base_clean - base

    return loss


def _mean_ratio(
    clean: Pairs, corrupted: Mapping[str, Sequence[Pairs]], measured: Measured
) -> ErrorRatio:
    """Over the corruptions, for the units that are everywhere.

    corrupted: by corruption, at each severity.
    """
    everywhere = [accuracies for of_name in corrupted.values() for accuracies in of_name]
    units = [unit for unit in clean if all(unit in accuracies for accuracies in everywhere)]
    ratios = {name: _ratios(units, of_name, measured) for name, of_name in corrupted.items()}
    whole = [of_name for of_name in ratios.values() if len(of_name) == len(units)]
    left_out = [name for name, of_name in ratios.items() if len(of_name) < len(units)]
    means = mean_sample(whole) if whole else {}
    return ErrorRatio({unit: 100 * mean for unit, mean in means.items()}, left_out)


def _ratios(units: Sequence[Unit], corrupted: Sequence[Pairs], measured: Measured) -> Sample:
    """The sum over severities of a line over that of its baseline, where the latter is above 0."""
    ratios = {}
    for unit in units:
        values = [measured(unit, accuracies) for accuracies in corrupted]
        base = sum(of_base for _, of_base in values)
        if base > 1e-9:
            ratios[unit] = sum(own for own, _ in values) / base
    return ratios


NOTE = (
    "Mean corruption error (mCE), in percent of the baseline's errors: less is better, 100 is the "
    "baseline.\nRelative mCE is the same of the accuracy that is lost against the clean point. "
    "Ratios are of each encoder and draw by\nitself and of the baseline's under the same noise, so "
    "their mean is not quite the ratio of means (Hendrycks and\nDietterich, 2019, section 4). "
    "± is half of the 95 % interval over encoders and draws: where it holds 100, no difference is "
    "shown."
)


def corruption_error_table(table: Table) -> str:
    """A row for every line and curve, with 95 % intervals; empty without anything to compare."""
    body, left_out = [], []
    for curve in rated_curves(table):
        for line in table.lines:
            base = table.baseline_of(line)
            error = corruption_error(table, line, curve)
            if base and error.mean.sample:
                texts = [_format_sample(ratio.sample) for ratio in error]
                body.append([curve, f"{line.label} against {base.label}", *texts])
                left_out += _left_out(error, f"of {curve} for {line.label}")
    if not body:
        return ""
    note = NOTE
    if left_out:
        note += (
            "\nLeft out, as the baseline errs or loses nothing there in some draw: "
            f"{'; '.join(left_out)}."
        )
    heading = ["curve", "line", "mCE, %", "relative mCE, %"]
    return f"{markdown_table(heading, body)}\n\n{note}"


def _left_out(error: CorruptionError, whose: str) -> list[str]:
    names = {"mCE": error.mean.left_out, "relative mCE": error.relative.left_out}
    return [f"from {kind}, {', '.join(out)} {whose}" for kind, out in names.items() if out]


def _format_sample(sample: Sample) -> str:
    return format_mean(estimate(sample)) if sample else ""
