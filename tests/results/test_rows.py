"""curves.csv: what is written comes back, what does not go together is refused; names of cells."""

from __future__ import annotations

import pytest
from made_rows import MEASURED, SINGLE_RUN, named_study, row, study

from monosem.results.rows import cell_name, join, label, read_table, table_text


@pytest.mark.parametrize(
    "rows",
    [
        [*SINGLE_RUN, MEASURED],
        [*study("ncl"), *study("simclr")],
        [*study("ncl"), *named_study("ncl")],
    ],
)
def test_a_table_that_is_written_and_read_has_the_same_bits(tmp_path, rows):
    (tmp_path / "curves.csv").write_text(table_text(rows))
    assert read_table(tmp_path / "curves.csv") == rows


def test_every_swept_binding_has_a_column_and_a_gap_where_an_experiment_has_no_such_thing():
    rows = [*study("simclr"), *study("sae", values={"TopK.k": "4"})]
    lines = table_text(rows).splitlines()
    assert lines[0].endswith(",axis,point,noun,Pretrain.seed,TopK.k")
    assert lines[1].endswith(",0,")
    assert lines[-1].endswith(",2,4")


def test_a_table_from_before_points_and_examples_had_names_is_read(tmp_path):
    rows = [*SINGLE_RUN, MEASURED]
    lines = table_text(rows).splitlines()
    older = "\n".join(line.rsplit(",", 2)[0] for line in lines)
    assert "point" not in older and "noun" not in older
    (tmp_path / "curves.csv").write_text(older + "\n")
    assert read_table(tmp_path / "curves.csv") == rows


def test_a_line_that_is_cut_before_its_last_cell_is_no_line(tmp_path):
    (tmp_path / "curves.csv").write_text(table_text(SINGLE_RUN).rpartition(",")[0])
    with pytest.raises(ValueError, match="fewer cells than the first"):
        read_table(tmp_path / "curves.csv")


def test_as_many_images_as_texts_are_not_to_be_compared():
    with pytest.raises(ValueError, match="360 images in one table and 360 texts in another"):
        join([[row()], [row(experiment="b", noun="texts")]])


def test_points_of_one_curve_may_be_of_different_numbers_of_images():
    named = {"curve": "sets", "severity": 0.0}
    rows = [row(point="clean", n=360, **named), row(point="mnist", n=1000, **named)]
    assert join([rows, [one._replace(experiment="b") for one in rows]])


def test_values_of_bindings_are_read_as_they_were_typed(tmp_path):
    typed = {"Adam.lr": "0.10", "RandomCrop.scale": "(0.2, 1.0)"}
    (tmp_path / "curves.csv").write_text(table_text([row(swept=typed)]))
    assert dict(read_table(tmp_path / "curves.csv")[0].swept) == typed


@pytest.mark.parametrize(
    ("others", "message"),
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
            [row(experiment="b", curve="common", point="fog")] * 2,
            "top1 of common at fog 0.5 is there twice for b",
        ),
        (
            [
                row(experiment="b", curve="common", point="fog"),
                row(experiment="b", curve="common", point="fog", n=5, repeat=1),
            ],
            "fog of common was measured on 360 images in one table and 5 in another",
        ),
        (
            [row(experiment="b", point="fog")],
            "some points of gaussian have names and others have none",
        ),
        (
            [row(experiment="b", axis="pixels")],
            "the severities of gaussian are x (units) in one table and pixels in another",
        ),
    ],
)
def test_tables_that_do_not_go_together_are_refused(others, message):
    with pytest.raises(ValueError) as error:
        join([SINGLE_RUN, others])
    assert message in str(error.value)


def test_a_table_without_a_curve_is_refused():
    with pytest.raises(ValueError, match="there is no curve in the table"):
        join([[MEASURED, MEASURED._replace(curve="monosemanticity/raw")]])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",
        table_text(SINGLE_RUN).replace("90.0", "ninety"),
        table_text(SINGLE_RUN)[:-20],
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, text):
    (tmp_path / "curves.csv").write_text(text)
    with pytest.raises(ValueError, match="curves.csv|no curve"):
        join([read_table(tmp_path / "curves.csv")])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x89PNG\xff\xfe\x00", "it is not a text file"),
        (b"curve,severity,repeat,metric,value,n,axis\n", "it has no column experiment"),
        (b"severity,value\n0,1\n", "it has no column experiment, curve, repeat, metric, n, axis"),
        (
            b"experiment,curve,severity,repeat,metric,value,n,axis\na,b,x,0,top1,9,9,c\n",
            "could not convert string to float: 'x'",
        ),
    ],
)
def test_what_is_no_table_is_refused_with_the_file_and_the_column(tmp_path, content, reason):
    path = tmp_path / "curves.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError) as info:
        read_table(path)
    assert str(info.value) == f"{path} is no table of curves: {reason}"


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no"):
        read_table(tmp_path / "nothing.csv")


def test_labels_are_short_unless_two_would_be_the_same():
    assert label("sae", (("TopK.k", "4"),)) == "sae, k 4"
    different = (("pretrain/Adam.lr", "0.1"), ("sae/Adam.lr", "0.2"))
    assert label("sae", different) == "sae, pretrain/Adam.lr 0.1, sae/Adam.lr 0.2"
    assert label("sae", (("pretrain/Adam.lr", "0.1"), ("sae/Adam.lr", "0.1"))) == "sae, lr 0.1"


def test_a_cell_s_folder_has_no_signs_that_a_shell_would_read():
    swept = (("ColorJitter.x", "(0.1, 'a/b')"), ("Pretrain.seed", "0"))
    assert cell_name("sae", swept) == "sae,x=_0.1,_a_b_,seed=0"


def test_long_cell_names_are_cut_and_stay_different():
    names = {cell_name("sae", (("A.text", "long " * 40 + end),)) for end in "xy"}
    assert len(names) == 2
    assert all(len(name.encode()) < 255 for name in names)
