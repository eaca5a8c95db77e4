"""What questions take of tables, what their numbers say, and how a report tells it."""

from __future__ import annotations

import csv
import io
import math
import re

import numpy as np
import pytest
from made_rows import row, study

from monosem.core.fields import FieldError
from monosem.figures.answers import draw_answers
from monosem.questions.answers import AGAINST, FOR, OPEN, answer, csv_text, markdown
from monosem.questions.axis_worth import GainByAxes
from monosem.questions.correlations import GoesWith, p_value
from monosem.questions.differences import GainOver
from monosem.questions.question import POINTS, RANK, Report, ReportQuestion
from monosem.results.correlation import Correlation
from monosem.results.rows import MONOSEMANTICITY
from monosem.results.stats import Estimate, areas, estimate
from monosem.results.table import Table


def gain(**fields):
    usual = {"sweep": "s", "curves": ("gaussian",), "experiments": ("b",), "over": "a"}
    return GainOver(**{**usual, **fields})


def report(*questions, **fields):
    usual = {"name": "r", "title": "What?", "sweeps": ("s.gin",), "questions": questions}
    return Report(**{**usual, **fields})


def asks(*asked, text="More?"):
    return ReportQuestion(text=text, asked=asked)


def rows_of(better=2.0):
    return [*study("a"), *study("b", better)]


def test_a_gain_is_the_paired_difference_of_areas():
    (number,) = gain().numbers(rows_of())
    table = Table(rows_of(), "a")
    expected = estimate(areas(table.differences(table.lines[1], "gaussian")))
    assert number[:3] == ("s", "gaussian, b - a", POINTS)
    assert number.value == pytest.approx(expected.mean)
    assert (number.low, number.high) == pytest.approx(
        (expected.mean - expected.half, expected.mean + expected.half)
    )
    assert number.p == expected.p


def test_lines_that_agree_in_what_is_swept_are_compared():
    rows = [
        each
        for probe, better in (("@Ridge()", 1.0), ("@KNN()", -2.0))
        for name, shift in (("a", 0.0), ("b", better))
        for each in study(name, shift, {"Curve.probe": probe})
    ]
    ridge, neighbours = gain().numbers(rows)
    assert (ridge.what, neighbours.what) == ("gaussian, b, @Ridge() - a", "gaussian, b, @KNN() - a")
    assert ridge.value > 0.9 and neighbours.value < -1.8
    assert gain(without=("@KNN()",)).numbers(rows) == [ridge]


def test_an_axis_gain_is_over_seeds_draws_and_rotations():
    own = study("a", 3.0)
    turned = [
        each._replace(value=each.value + 0.1 * int(turn))
        for turn in "012"
        for each in study("a_rotated", 0.0, {"rotation": turn})
    ]
    asked = GainByAxes(sweep="s", curves=("gaussian",), pairs=(("a", "a_rotated"),))
    numbers = {number.what: number for number in asked.numbers([*own, *turned])}
    assert set(numbers) == {"clean, a, ", "gaussian, a, "}
    expected = 3.0 * (1 + 0.1 + 0.01) - 0.1
    assert numbers["gaussian, a, "].value == pytest.approx(expected)


def encoders(count=12, with_spread=1.0):
    """Encoders whose area grows with a measure; clean accuracy has nothing to do with it."""
    random, rows = np.random.default_rng(0), []
    for k in range(count):
        for seed in "01":
            swept = {"TopK.k": str(k), "Pretrain.seed": seed}
            usual = {"experiment": "e", "swept": swept}
            clean = 90 + random.normal()
            area = 2 * k + with_spread * random.normal()
            rows += [
                row(clean, severity=0.0, **usual),
                row(60 + area, severity=0.5, **usual),
                row(
                    k / count,
                    curve=MONOSEMANTICITY,
                    metric="class_consistency",
                    severity=0.0,
                    **usual,
                ),
            ]
    return rows


def test_a_correlation_over_encoders_has_an_interval_and_a_p():
    asked = GoesWith(sweep="s", curves=("gaussian",), measures=("class_consistency", "absent"))
    (number,) = asked.numbers(encoders())
    assert number.what == "gaussian, class_consistency over 24 encoders"
    assert number.unit == RANK
    assert 0.8 < number.low <= number.value <= number.high <= 1
    assert number.p < 1e-3
    (few,) = GoesWith(sweep="s", curves=("gaussian",), measures=("class_consistency",)).numbers(
        encoders(count=4)
    )
    assert math.isnan(few.p)


@pytest.mark.parametrize("value, low, high", [(0.3, 0.0, 0.55), (-0.4, -0.7, 0.0)])
def test_an_interval_that_ends_at_0_has_a_p_near_5_percent(value, low, high):
    assert 0.02 < p_value(Correlation(value, low, high)) < 0.09


def test_the_p_of_a_correlation_is_small_where_the_interval_is_far_from_0_and_nan_without_one():
    assert p_value(Correlation(0.6, 0.4, 0.75)) < 1e-4
    assert p_value(Correlation(0.05, -0.4, 0.45)) > 0.5
    assert math.isnan(p_value(Correlation(0.5, math.nan, math.nan)))


def test_p_is_corrected_over_all_questions_and_says_what_a_number_is():
    asked = report(
        asks(gain(), text="First?"),
        asks(gain(experiments=("c",)), text="Second?"),
        asks(gain(experiments=("d",)), text="Third?"),
    )
    rows = [*rows_of(), *study("c", -2.0), *study("d", 0.0)]
    answers = answer(asked, {"s": rows})
    assert [each.question.text for each in answers] == ["Second?", "First?", "Third?"]
    verdicts = [each.judged[0].verdict for each in answers]
    assert verdicts == [AGAINST, FOR, OPEN]
    first = answers[1].judged[0]
    assert first.p == pytest.approx(2 * first.number.p)  # the third has no spread
    assert math.isnan(answers[2].judged[0].p)


def test_the_report_tells_what_is_against_the_claim_first_and_every_number_once():
    asked = report(asks(gain(), text="First?"), asks(gain(experiments=("c",)), text="Second?"))
    answers = answer(asked, {"s": [*rows_of(), *study("c", -2.0)]})
    text = markdown(asked, answers, "By hand.")
    assert text.startswith("# What?\n")
    assert text.index("1. Second?") < text.index("2. First?")
    assert re.search(r"\| 1\. Second\? +\| 1 +\| 0 +\| 0 +\| 1 +\| 0 +\|", text)
    assert "Of 1 numbers: 1 against the claim, 0 as the claim says, 0 cannot be told." in text
    assert re.findall(r"!\[.*\]\((.*)\)", text) == ["question_1.png", "question_2.png"]
    assert text.endswith("## How it was measured\n\nBy hand.\n")
    lines = list(csv.DictReader(io.StringIO(csv_text(answers))))
    assert [line["verdict"] for line in lines] == [AGAINST, FOR]
    assert float(lines[0]["value"]) == answers[0].judged[0].number.value


def test_a_question_without_any_number_says_so():
    asked = report(asks(gain(experiments=("nobody",))))
    text = markdown(asked, answer(asked, {"s": rows_of()}), "")
    assert "No number of it is there." in text
    assert not answer(asked, {"s": []})[0].judged  # no cell is finished


def test_numbers_of_both_units_are_drawn(tmp_path):
    asked = report(
        asks(gain(), GoesWith(sweep="e", curves=("gaussian",), measures=("class_consistency",)))
    )
    (told,) = answer(asked, {"s": rows_of(), "e": encoders()})
    draw_answers(told.judged, tmp_path / "q.png")
    assert (tmp_path / "q.png").read_bytes().startswith(b"\x89PNG")


SWEEPS = {"s": {"a": ["gaussian"], "b": ["gaussian", "label_noise"]}}


@pytest.mark.parametrize(
    "asked, said",
    [
        (gain(sweep="ss"), "sweep must name a sweep of Report.sweeps, got 'ss'; did you mean s?"),
        (gain(over="c"), "over must name an experiment of the sweep s, got 'c'; there are a, b"),
        (
            gain(curves=("label_nose",)),
            "curves must name a curve of the sweep s, got 'label_nose'; did you mean label_noise?",
        ),
        (
            GainByAxes(sweep="s", curves=("gaussian",), pairs=(("a", "a_turned"),)),
            "pairs must name an experiment of the sweep s, got 'a_turned'",
        ),
    ],
    ids=["sweep", "experiment", "curve", "pair"],
)
def test_names_that_are_not_there_are_refused(asked, said):
    with pytest.raises(FieldError, match=re.escape(said)):
        asked.check(SWEEPS)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: gain(curves=()), "curves must hold at least one"),
        (lambda: gain(curves=("gaussian", "gaussian")), "curves must differ"),
        (lambda: gain(over="b"), "over must not be among GainOver.experiments"),
        (lambda: GoesWith(sweep="s", curves=("gaussian",), measures=()), "measures must hold"),
        (lambda: GainByAxes(sweep="s", curves=("gaussian",), pairs=()), "pairs must hold"),
        (lambda: ReportQuestion(text="?", asked=()), "asked must hold at least one"),
        (lambda: report(), "questions must hold at least one"),
        (lambda: report(asks(gain()), sweeps=()), "sweeps must hold at least one"),
        (lambda: report(asks(gain()), name="a/b"), "name must be a folder's name"),
    ],
)
def test_impossible_questions_are_refused(make, said):
    with pytest.raises(FieldError, match=said):
        make()


def test_an_estimate_without_spread_has_no_interval():
    number = gain().number("x", Estimate(1.0, math.nan, math.nan, 3, 3))
    assert math.isnan(number.low) and math.isnan(number.p)
