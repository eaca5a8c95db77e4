"""The table, and what is said from it."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.image
import pytest

from monosem.results.figures import draw_curves
from monosem.results.rows import (
    MONOSEMANTICITY,
    Row,
    cell_name,
    join,
    label,
    read_table,
    table_text,
)
from monosem.results.stats import areas, estimate
from monosem.results.summary import overview, tables
from monosem.results.table import Line, Table


def row(
    value=90.0,
    experiment="a",
    curve="gaussian",
    severity=0.5,
    repeat=0,
    metric="top1",
    n=360,
    axis="x (units)",
    **swept,
):
    return Row(
        experiment,
        curve,
        severity,
        repeat,
        metric,
        value,
        n,
        axis,
        tuple((k.replace("_", "."), v) for k, v in swept.items()),
    )


ROWS = [
    row(v, severity=s, repeat=r, metric=m)
    for s in (0.0, 0.1)
    for r, v in enumerate((90.0, 91.5, 1 / 3))
    for m in ("top1", "top5")
]
MEASURED = row(0.25, curve=MONOSEMANTICITY, severity=0.0, metric="class_consistency")


def grid(
    experiment,
    shift=0.0,
    values=(("TopK_k", "4"),),
    seeds=("0", "1", "2"),
    seed_names=("Pretrain_seed",),
):
    """Two severities, three repeats and seeds, with effects of seed and repeat that all experiments share."""
    return [
        row(80 + shift * (1 + 0.1 * int(s) + 0.01 * r) - 10 * severity + 3 * int(s) + r, experiment, severity=severity, repeat=r,
            **{**dict(values), **dict.fromkeys(seed_names, s)})
        for s in seeds for severity in (0.0, 0.5) for r in range(3)
    ]  # fmt: skip


def test_without_spread_to_tell_nothing_is_said_of_it():
    assert (
        "| 90.0 " in tables(Table([row()]))
        and "90.0 ±" not in tables(Table([row()]))
        and "Single draws" in tables(Table([row()]))
    )


@pytest.mark.parametrize("rows", [[*ROWS, MEASURED], [*grid("ncl"), *grid("simclr", values=())]])
def test_a_table_that_is_written_and_read_has_the_same_bits(tmp_path: Path, rows):
    (tmp_path / "curves.csv").write_text(table_text(rows))
    assert read_table(tmp_path / "curves.csv") == rows


def test_every_swept_binding_has_a_column_and_a_gap_where_an_experiment_has_no_such_thing():
    lines = table_text([*grid("simclr", values=()), *grid("sae")]).splitlines()
    assert lines[0].endswith(",axis,Pretrain.seed,TopK.k")
    assert lines[1].endswith(",0,") and lines[-1].endswith(",2,4")


def test_points_are_by_ascending_severity_over_repeats():
    samples = Table(reversed(ROWS)).samples(Line("a", ()), "gaussian")
    assert list(samples) == [0.0, 0.1] and estimate(samples[0.0]).mean == pytest.approx(
        (90 + 91.5 + 1 / 3) / 3
    )


def test_several_experiments_stand_beside_one_another_with_gaps_where_one_has_no_such_point():
    text = tables(Table([*ROWS, MEASURED, row(50.0, experiment="b", severity=0.3)]))
    assert "| curve    | severity | top-1 of a, % | top-1 of b, % |" in text
    assert "| gaussian | 0.3      |               | 50.0          |" in text
    assert "over 1 to 3 draws" in text


def test_seeds_are_averaged_over_and_other_swept_values_are_lines():
    table = Table([*grid("sae"), *grid("sae", values=(("TopK_k", "8"),))])
    assert [line.label for line in table.lines] == ["sae, k 4", "sae, k 8"]
    point = estimate(table.samples(next(iter(table.lines)), "gaussian")[0.5])
    assert (point.seeds, point.repeats) == (3, 3)
    assert "3 trained encoders each" in tables(table)


def test_a_line_is_compared_with_the_baseline_that_agrees_in_what_both_have():
    lines = [
        *grid("simclr", values=(("Pretrain_epochs", "5"),)),
        *grid("simclr", values=(("Pretrain_epochs", "9"),)),
        *grid("sae", values=(("Pretrain_epochs", "9"), ("TopK_k", "4"))),
    ]
    table = Table(lines)
    first, second, sae = table.lines
    assert (
        table.baseline_of(first) is None
        and table.baseline_of(second) == first
        and table.baseline_of(sae) == second
    )


def test_differences_are_taken_seed_by_seed_and_draw_by_draw():
    sae = grid("sae", shift=2.0, seed_names=("Pretrain_seed", "SparseAutoencoder_seed"))
    table = Table([*grid("simclr", values=()), *sae])
    found = table.differences(list(table.lines)[1], "gaussian")
    assert list(found) == [0.0, 0.5]
    assert sorted(found[0.5].values()) == pytest.approx(
        sorted(2 * (1 + 0.1 * s + 0.01 * r) for s in range(3) for r in range(3))
    )
    assert "Paired" not in tables(Table(ROWS)) and "Paired" not in tables(
        Table([row(), row(experiment="b", severity=0.7)])
    )


def test_seeds_that_only_one_side_has_are_averaged_over_first():
    sae = grid("sae", shift=2.0, values=(), seeds=("0",), seed_names=("Pretrain_seed",))
    more = [
        row(v, "simclr", repeat=r, Pretrain_seed="0", Other_seed=s)
        for r in range(3)
        for s, v in (("0", 70.0), ("1", 71.0))
    ]
    table = Table([*more, *sae])
    found = table.differences(list(table.lines)[1], "gaussian")
    assert {severity: len(sample) for severity, sample in found.items()} == {
        0.5: 3
    }  # one encoder, three draws: not six pairs
    assert min(found[0.5].values()) == pytest.approx(75 + 2 - 70.5)
    unshared = Table(
        [*grid("a", values=()), *grid("b", shift=2.0, values=(), seed_names=("Other_seed",))]
    )
    assert estimate(unshared.differences(list(unshared.lines)[1], "gaussian")[0.5]).seeds == 1
    assert "- b against a (one encoder: over draws alone): " in overview(unshared)


def test_a_named_baseline_that_is_not_there_is_not_replaced_by_another():
    table = Table([*grid("b", values=()), *grid("c", shift=2.0, values=())], baseline="a")
    assert not any(table.differences(line, "gaussian") for line in table.lines)
    assert "against" not in overview(table)


def test_what_has_no_spread_is_not_called_significant_nor_tested():
    better = [r._replace(experiment="b", value=r.value + 2) for r in grid("a", values=())]
    assert "gaussian without spread to test at 0, 0.5" in overview(
        Table([*grid("a", values=()), *better])
    )


def test_areas_are_over_the_severities_that_all_lines_have():
    wider = [
        *grid("b", values=()),
        *(row(0.0, "b", severity=9.0, repeat=r, Pretrain_seed=s) for r in range(3) for s in "012"),
    ]
    words = overview(Table([*grid("a", values=()), *wider])).splitlines()
    assert words[2].split("|")[2].strip() == words[3].split("|")[2].split(";")[0].strip()


def test_a_difference_says_whether_it_is_significant():
    better, same = (
        grid("b", shift=2.0, values=()),
        [
            r._replace(value=r.value + (-1) ** (r.repeat + len(r.swept)))
            for r in grid("c", values=())
        ],
    )
    text = tables(Table([*grid("a", values=()), *better, *same]))
    assert (
        "b - a" in text and re.search(r"\+2\.2 ± 0\.\d \(p \.0\d\d\)", text) and "(n.s., p " in text
    )
    assert "- b against a: gaussian higher at 0, 0.5\n" in text
    assert "- c against a: gaussian not significant at any of 2" in text


def test_the_area_of_differences_is_the_difference_of_areas():
    table = Table([*grid("a", values=()), *grid("b", shift=2.0, values=())])
    one, other = table.lines
    mine, theirs = (estimate(areas(table.samples(line, "gaussian"))).mean for line in (other, one))
    assert estimate(areas(table.differences(other, "gaussian"))).mean == pytest.approx(
        mine - theirs
    )
    assert "| mean top-1 under | gaussian " in overview(table)


def test_monosemanticity_of_several_seeds_has_an_interval():
    values = [
        MEASURED._replace(value=v, swept=(("Pretrain.seed", str(s)),))
        for s, v in enumerate((0.2, 0.3, 0.4))
    ]
    assert "0.3 ± 0.25" in overview(Table([*grid("a", values=()), *values]))


def test_labels_are_short_unless_two_would_be_the_same():
    assert label("sae", (("TopK.k", "4"),)) == "sae, k 4"
    assert (
        label("sae", (("pretrain/Adam.lr", "0.1"), ("sae/Adam.lr", "0.2")))
        == "sae, pretrain/Adam.lr 0.1, sae/Adam.lr 0.2"
    )
    assert label("sae", (("pretrain/Adam.lr", "0.1"), ("sae/Adam.lr", "0.1"))) == "sae, lr 0.1"
    assert (
        cell_name("sae", (("ColorJitter.x", "(0.1, 'a/b')"), ("Pretrain.seed", "0")))
        == "sae,x=_0.1,_a_b_,seed=0"
    )


@pytest.mark.parametrize("lines", [1, 12])
def test_a_figure_has_room_for_every_line(tmp_path, lines):
    rows = [r for k in range(lines) for r in grid("sae", values=(("TopK_k", str(k)),))]
    draw_curves(Table(rows), tmp_path / "figure.png", ["gaussian"])
    image = matplotlib.image.imread(tmp_path / "figure.png")
    assert image[..., :3].std() > 0.03 and image.shape[0] > 400


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([row(severity=0.7)], "two of the tables hold an experiment called a"),
        (
            [row(experiment="b", n=10_000)],
            "gaussian was measured on 360 images in one table and 10000 in another",
        ),
        (
            [row(experiment="b"), row(1.0, experiment="b")],
            "top1 of gaussian at 0.5 is there twice for b",
        ),
        (
            [row(experiment="b", axis="pixels")],
            "the severities of gaussian are x (units) in one table and pixels in another",
        ),
    ],
)
def test_tables_that_do_not_go_together_are_refused(others, words):
    with pytest.raises(ValueError) as info:
        join([ROWS, others])
    assert words in str(info.value)


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", table_text(ROWS).replace("90.0", "ninety"), table_text(ROWS)[:-20]]
)
def test_a_file_that_is_no_table_is_refused(tmp_path, text):
    (tmp_path / "curves.csv").write_text(text)
    with pytest.raises(ValueError, match="curves.csv|no curve"):
        join([read_table(tmp_path / "curves.csv")])
    with pytest.raises(ValueError, match="there is no"):
        read_table(tmp_path / "nothing.csv")
