"""What the numbers of all questions say, and the report in Markdown."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from monosem.questions.question import POINTS, Finding, Report, ReportQuestion
from monosem.results.formatting import format_p, is_significant, markdown_table
from monosem.results.rows import Row
from monosem.results.stats import holm

AGAINST, FOR, OPEN = "against the claim", "as the claim says", "cannot be told"


class Judged(NamedTuple):
    """A number with p corrected for all numbers of the report, and what it says."""

    number: Finding
    p: float
    verdict: str


class Answer(NamedTuple):
    """A question with its numbers."""

    question: ReportQuestion
    judged: tuple[Judged, ...]

    def count(self, verdict: str) -> int:
        return Counter(each.verdict for each in self.judged)[verdict]

    def alone(self, sign: int) -> int:
        """How many have a p below .05 that is not corrected, and this sign."""
        return sum(
            is_significant(each.number.p) and each.number.value * sign > 0 for each in self.judged
        )

    @property
    def share_against(self) -> float:
        return self.count(AGAINST) / max(1, len(self.judged))


def answer(report: Report, rows: Mapping[str, Sequence[Row]]) -> list[Answer]:
    """The questions, those with the largest share of numbers against the claim first.

    rows: by the name of the sweep.
    """
    asked = [_numbers(question, rows) for question in report.questions]
    corrected = iter(holm([number.p for numbers in asked for number in numbers]))
    answers = [
        Answer(question, tuple(_judge(number, next(corrected)) for number in numbers))
        for question, numbers in zip(report.questions, asked, strict=True)
    ]
    return sorted(answers, key=lambda each: -each.share_against)


def _numbers(question: ReportQuestion, rows: Mapping[str, Sequence[Row]]) -> list[Finding]:
    """Those of sweeps of which some cell is finished."""
    there = [asked for asked in question.asked if rows[asked.sweep]]
    return [number for asked in there for number in asked.numbers(rows[asked.sweep])]


def _judge(number: Finding, p: float) -> Judged:
    if math.isnan(p) or not is_significant(p):
        return Judged(number, p, OPEN)
    return Judged(number, p, FOR if number.value > 0 else AGAINST)


def csv_text(answers: Sequence[Answer]) -> str:
    """One row a number, in the order of the report."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["question", *Finding._fields, "p_corrected", "verdict"])
    for each in answers:
        for judged in each.judged:
            writer.writerow([each.question.text, *judged.number, judged.p, judged.verdict])
    return text.getvalue()


def figure_name(position: int | str) -> str:
    """Of the figure of the question at a position, from 1; '*' gives a pattern for all of them."""
    return f"question_{position}.png"


def markdown(report: Report, answers: Sequence[Answer], methods: str) -> str:
    """The whole report, with its figures beside it.

    methods: how the numbers were made.
    """
    total = sum(len(each.judged) for each in answers)
    tested = sum(not math.isnan(one.p) for each in answers for one in each.judged)
    parts = [
        f"# {report.title}",
        f"{len(answers)} questions were fixed in a file before anything ran. The claim predicts "
        f"every number to be above 0. p-values are corrected for all {tested} numbers that have "
        f"one (Holm); {total - tested} have no spread, or too few encoders for an interval. A "
        "number is for or against the claim where that p is below .05. Questions with the largest "
        "share against it come first.",
        "## What was found",
        _overview(answers),
        *(_section(position, each) for position, each in enumerate(answers, 1)),
        "## How it was measured",
        methods,
    ]
    return "\n\n".join(parts) + "\n"


def _overview(answers: Sequence[Answer]) -> str:
    header = ["question", AGAINST, FOR, OPEN, "each alone: against", "for"]
    rows = [
        [
            f"{position}. {each.question.text}",
            *(f"{each.count(verdict)}" for verdict in (AGAINST, FOR, OPEN)),
            f"{each.alone(-1)}",
            f"{each.alone(+1)}",
        ]
        for position, each in enumerate(answers, 1)
    ]
    note = (
        "The last two columns count numbers whose own p, not corrected, is below .05. Of as many "
        "that mean nothing one in twenty would be."
    )
    return f"{markdown_table(header, rows)}\n\n{note}"


def _section(position: int, each: Answer) -> str:
    header = ["sweep", "number", "value, 95 % interval", "p, corrected", ""]
    order = [AGAINST, FOR, OPEN]
    judged = sorted(each.judged, key=lambda one: order.index(one.verdict))
    rows = [
        [
            one.number.sweep,
            one.number.what,
            _value(one.number),
            "" if math.isnan(one.p) else format_p(one.p),
            one.verdict,
        ]
        for one in judged
    ]
    if not rows:
        return f"## {position}. {each.question.text}\n\nNo number of it is there."
    counts = ", ".join(f"{each.count(verdict)} {verdict}" for verdict in order)
    figure = f"![{each.question.text}]({figure_name(position)})"
    return (
        f"## {position}. {each.question.text}\n\nOf {len(rows)} numbers: {counts}.\n\n{figure}\n\n"
        f"{markdown_table(header, rows)}"
    )


def _value(number: Finding) -> str:
    digits = 1 if number.unit == POINTS else 2
    value = f"{round(number.value, digits) + 0.0:+.{digits}f}"
    if math.isnan(number.low):
        return value
    return f"{value} ({number.low:+.{digits}f} to {number.high:+.{digits}f})"
