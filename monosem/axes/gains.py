"""What may be asked about axes, and what the answers are made of.

`AxisGains` is what Gin binds, `axis_report` of report.py answers it.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import NamedTuple

import gin

from monosem.core.fields import Part
from monosem.results.stats import Estimate

CLEAN = "clean"  # the kind of robustness where nothing is corrupted
AS_IS, ROTATED = "as they are", "rotated"
BITS = "coded_bits"  # the metric that tells what storing an example takes


@gin.register
@dataclass(frozen=True, kw_only=True)
class AxisGains(Part):
    """What the axes of features are worth to each learner of a sweep.

        axis gain = accuracy as it is - accuracy rotated

    paired seed by seed and draw by draw; of several rotations it is the mean, and they are one more
    crossed source of variance. The difference of an encoder to the first one falls in two parts:

        encoder - first = (encoder rotated - first rotated) + (gain of encoder - gain of first)
                          what geometry is worth              what axes are worth

    A rotation-invariant learner has no gain, whatever the features are: its test is that of the
    experiment. Names are those of curves.csv. Where other bindings are swept, such as the k of an
    autoencoder, each of their values makes an encoder of its own.

    pairs: the experiment of features as they are and that of the rotated ones, the first pair is
        what others are compared with. A third name, if there is one, is drawn beside the two.
    third: what those are called there.
    learner: the swept binding whose values are the learners.
    curves: whose means over severities are taken; severity 0, where there is one, is a kind of
        robustness of its own, called clean.
    drawn: those of the curves that axis_curves.png shows severity by severity, or by bits where
        the corruption tells them.
    measures: metrics that the gains of all encoders are correlated with.
    """

    pairs: tuple[tuple[str, ...], ...]
    third: str = "third"
    learner: str = "Curve.probe"
    curves: tuple[str, ...]
    drawn: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()

    def validate(self) -> None:
        for name in ("pairs", "curves"):
            if not getattr(self, name):
                self.refuse(name, "must hold at least one, got ()")
            self.refuse_repeated(name)
        for pair in self.pairs:
            if not (2 <= len(pair) <= 3 and len(set(pair)) == len(pair)):
                self.refuse("pairs", f"must be of two or three experiments each, got {pair!r}")
        for curve in self.drawn:
            if curve not in self.curves:
                self.refuse("drawn", f"must be among AxisGains.curves, got {curve!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """All experiments that are named."""
        return tuple(name for pair in self.pairs for name in pair)


class Place(NamedTuple):
    """Where something was measured.

    kind: of robustness: a curve, or CLEAN.
    severity: None for the mean over the severities other than 0.
    learner: as the table calls it.
    encoder: the experiment of features as they are, with what else was swept of it.
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


class DrawnLine(NamedTuple):
    """A line of axis_curves.png.

    curve: which was measured.
    learner: as the table calls it.
    encoder: as in Place.
    turn: AS_IS, ROTATED, or what else is compared.
    bits: whether x is in bits an example; else it is the severity.
    points: x and accuracy, by severity.
    """

    curve: str
    learner: str
    encoder: str
    turn: str
    bits: bool
    points: tuple[tuple[float, Estimate], ...]


class AxisReport(NamedTuple):
    """What a table says about axes.

    text: in Markdown.
    gains: by place, p corrected for all of them that are of one severity, or of none (Holm).
    parts: by place, p corrected likewise, for geometry and axes together.
    lines: of the curves that are to be drawn.
    """

    text: str
    gains: dict[Place, Estimate]
    parts: dict[Place, Decomposition]
    lines: tuple[DrawnLine, ...] = ()

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
