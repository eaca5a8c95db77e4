"""What a summary says of a table."""

from __future__ import annotations

import math
import re

from made_rows import MEASURED, SINGLE_RUN, named_study, row, study

from monosem.results.formatting import format_score
from monosem.results.rows import SEPARATION, Line
from monosem.results.stats import Estimate
from monosem.results.summary import overview, tables
from monosem.results.table import Table


def test_without_spread_to_tell_nothing_is_said_of_it():
    text = tables(Table([row()]))
    assert "| 90.0 " in text
    assert "90.0 ±" not in text
    assert "Single draws" in text


def test_several_experiments_stand_beside_one_another_with_gaps_where_one_has_no_such_point():
    text = tables(Table([*SINGLE_RUN, MEASURED, row(50.0, experiment="b", severity=0.3)]))
    assert "| curve    | severity | top-1 of a, % | top-1 of b, % |" in text
    assert "| gaussian | 0.3      |               | 50.0          |" in text
    assert "over 1 to 3 draws" in text


def test_an_interval_of_two_draws_gets_a_word():
    two = [row(value, repeat=repeat) for repeat, value in enumerate((80.0, 90.0))]
    assert "over 2 draws" in tables(Table(two)) and "Two draws say little" in tables(Table(two))
    assert "Two draws" not in tables(Table([*two, row(85.0, repeat=2)]))


def test_what_is_hardly_below_zero_is_written_as_zero():
    assert format_score(Estimate(-1e-5, math.nan, math.nan, 1, 1)) == "0"
    assert format_score(Estimate(-0.02, math.nan, math.nan, 1, 1)) == "-0.02"
    assert format_score(Estimate(1e-5, math.nan, math.nan, 1, 1)) == "1e-05"


def test_a_line_of_a_sweep_over_paths_shows_the_file_with_its_folder():
    swept = (("Checkpoint.path", "/a/long/way/to/run3/last.ckpt"), ("TopK.k", "4"))
    assert Line("x", swept).label == "x, path run3/last.ckpt, k 4"
    assert Line("x", (("Curve.corruption", "@a/FewShot()"),)).label == "x, corruption @a/FewShot()"


def test_it_says_how_many_encoders_a_mean_is_over():
    assert "3 trained encoders each" in tables(Table(study("sae")))


def test_nothing_is_compared_where_experiments_share_no_severity():
    assert "Paired" not in tables(Table(SINGLE_RUN))
    assert "Paired" not in tables(Table([row(), row(experiment="b", severity=0.7)]))


def test_a_comparison_of_single_encoders_says_that_it_is_over_draws_alone():
    unshared = Table([*study("a"), *study("b", shift=2.0, seed_bindings=("Other.seed",))])
    assert "- b against a (one encoder: over draws alone): " in overview(unshared)
    assert "- b against a: " in overview(Table([*study("a"), *study("b", shift=2.0)]))


def test_a_named_baseline_that_is_not_there_is_not_compared_with():
    table = Table([*study("b"), *study("c", shift=2.0)], baseline="a")
    assert "against" not in overview(table)


def test_what_has_no_spread_is_not_called_significant_nor_tested():
    better = [one._replace(experiment="b", value=one.value + 2) for one in study("a")]
    text = overview(Table([*study("a"), *better]))
    assert "gaussian without spread to test at 0, 0.5" in text


def test_areas_are_over_the_severities_that_all_lines_have():
    wider = study("b")
    for seed in "012":
        for repeat in range(3):
            swept = {"Pretrain.seed": seed}
            wider.append(row(0.0, swept, experiment="b", severity=9.0, repeat=repeat))
    lines = overview(Table([*study("a"), *wider])).splitlines()
    area_of_a = lines[2].split("|")[2].strip()
    area_of_b = lines[3].split("|")[2].split(";")[0].strip()
    assert area_of_a == area_of_b


def test_a_difference_says_whether_it_is_significant():
    same = [
        one._replace(value=one.value + (-1) ** (one.repeat + len(one.swept))) for one in study("c")
    ]
    text = tables(Table([*study("a"), *study("b", shift=2.0), *same]))
    assert "b - a" in text
    assert re.search(r"\+2\.2 ± 0\.\d \(p \.0\d\d\)", text)
    assert "(n.s., p " in text
    assert "- b against a: gaussian higher at 0, 0.5\n" in text
    assert "- c against a: gaussian not significant at any of 2" in text


def test_areas_are_named_after_the_metric_that_all_curves_share():
    text = overview(Table([*study("a"), *study("b", shift=2.0)]))
    assert "| mean top-1 under | gaussian " in text


def test_monosemanticity_of_several_seeds_has_an_interval():
    measured = [
        MEASURED._replace(value=value, swept=(("Pretrain.seed", seed),))
        for seed, value in (("0", 0.2), ("1", 0.3), ("2", 0.4))
    ]
    assert "0.3 ± 0.25" in overview(Table([*study("a"), *measured]))


def test_measures_that_are_to_be_trusted_stand_first_and_others_as_they_come():
    names = ("zeros", "class_consistency", "activity", "fms")
    measured = [MEASURED._replace(metric=name) for name in names]
    text = overview(Table([*study("a"), *measured]))
    places = [text.index(f"| {name} ") for name in ("fms", "class_consistency")]
    others = [text.index(f"| {name} ") for name in ("zeros", "activity")]
    assert places == sorted(places) and max(places) < min(others)


def test_a_score_that_is_no_accuracy_is_not_called_a_percentage():
    rows = [row(6.2, metric=SEPARATION, severity=at) for at in (0.0, 0.1)]
    text = tables(Table(rows))
    assert "| separation of a |" in text and "percent" not in text


def test_named_points_have_their_names_in_the_place_of_severities():
    text = tables(Table([*named_study("a"), *named_study("b", shift=2.0)]))
    names = re.findall(r"^\| common \| (\w+)", text, re.MULTILINE)
    assert names[:6] == ["clean", "snow", "fog"] * 2
    assert "by name:" in text
    assert "- b against a: common higher at snow, fog, without spread to test at clean\n" in text
    assert "crossing" not in text


def test_the_area_of_named_points_is_their_mean_and_the_note_says_so():
    rows = [*named_study("a"), *named_study("b", shift=2.0)]
    text = overview(Table(rows))
    values = [one.value for one in rows if one.experiment == "a" and one.point != "clean"]
    assert f"| {sum(values) / len(values):.1f} ± " in text
    assert "Of common the plain mean over all named points but clean, in percent" in text
    both = overview(Table([*study("a"), *study("b", shift=2.0), *rows]))
    assert "Area under the curve over its width; of common the plain mean" in both
    assert "by severity or name:" in both


def test_top_5_has_no_column_where_there_is_none():
    assert "top-5" in tables(Table(SINGLE_RUN))
    assert "top-5" not in tables(Table([one for one in SINGLE_RUN if one.metric != "top5"]))
