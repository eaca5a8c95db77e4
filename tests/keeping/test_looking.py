"""What --list and --diff say, of run folders that were made by hand."""

from __future__ import annotations

import pytest
from conftest import here
from made_rows import row, study
from made_runs import write_run

from monosem.keeping.differences import difference_report, read_bindings
from monosem.keeping.listing import list_runs


def curve(values, experiment="a", **fields):
    """Rows of two severities, the values of each draw after one another."""
    return [
        row(value, experiment=experiment, severity=severity, repeat=repeat, **fields)
        for severity, of_severity in zip((0.0, 1.0), values, strict=True)
        for repeat, value in enumerate(of_severity)
    ]


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


# --list


def test_a_run_is_listed_with_time_commit_clean_accuracy_and_areas(tmp_path):
    write_run(tmp_path / "one", curve([(90, 92), (70, 72)]))
    line = cells_of(list_runs(tmp_path).splitlines()[2])
    assert line[0] == "one" and line[1] == "2026-01-02 03:04" and line[2] == "0123456789"
    assert line[3:5] == ["complete", "a"]
    assert line[5].startswith("91.0") and line[6].startswith("gaussian 81.0")


def test_a_run_of_former_times_is_listed_with_what_it_has(tmp_path):
    write_run(tmp_path / "old", curve([(90,), (70,)]), needs=None)
    line = cells_of(list_runs(tmp_path).splitlines()[2])
    assert line[0] == "old" and line[2:] == ["-", "no record", "a", "90.0", "gaussian 80.0"]


def test_runs_that_are_not_complete_or_damaged_say_so(tmp_path):
    write_run(tmp_path / "cut", curve([(90,), (70,)]), complete=False)
    write_run(tmp_path / "torn", []).joinpath("curves.csv").write_text("garbage")
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "unfinished.json").write_text("{")
    (tmp_path / "no run").mkdir()
    states = {cells[0]: cells[3] for cells in map(cells_of, list_runs(tmp_path).splitlines()[2:])}
    assert states == {"cut": "incomplete", "torn": "damaged table", "begun": "no results yet"}


def test_changes_that_were_not_committed_are_told(tmp_path):
    write_run(tmp_path / "one", curve([(9,), (7,)]), code={"commit": "ab" * 20, "clean": False})
    assert "ababababab +" in list_runs(tmp_path) and "not committed" in list_runs(tmp_path)


def test_a_sweep_is_listed_line_by_line_and_a_large_one_by_its_range(tmp_path):
    lines = [row for k in range(3) for row in study(f"e{k}", shift=k)]
    write_run(tmp_path / "few", lines)
    few = list_runs(tmp_path).splitlines()[2:]
    assert [cells_of(line)[4] for line in few] == ["e0", "e1", "e2"]
    many = [row for k in range(13) for row in study(f"e{k:02}", shift=k)]
    write_run(tmp_path / "few", many)
    (one,) = list_runs(tmp_path).splitlines()[2:]
    assert cells_of(one)[4] == "13 lines" and " to " in cells_of(one)[5]


def test_a_folder_without_runs_is_said(tmp_path, capsys):
    assert list_runs(tmp_path) == f"nothing has been run in {tmp_path}"
    out = here(capsys, "--list", "--runs", tmp_path / "none")
    assert (out.returncode, out.stdout) == (2, "") and out.stderr.count("\n") == 1
    assert f"--runs: there is no folder {tmp_path / 'none'}" in out.stderr


# --diff

CONFIG = """# Parameters for Pretrain:
# ====
Pretrain.epochs = 3
Pretrain.views = \\
    (@A(),
     @B())
x/Adam.lr = 0.1
"""


@pytest.fixture
def two(tmp_path):
    first = write_run(tmp_path / "one", curve([(90, 92), (70, 72)]))
    second = write_run(tmp_path / "two", curve([(90, 92), (73, 77)], experiment="b"))
    (first / "config.gin").write_text(CONFIG)
    (second / "config.gin").write_text(CONFIG.replace("@B()", "@C()").replace("x/Adam.lr", "#"))
    return first, second


def test_values_over_several_lines_are_read_whole(two):
    bindings = read_bindings(two[0] / "config.gin")
    assert bindings == {
        "Pretrain.epochs": "3", "Pretrain.views": "(@A(), @B())", "x/Adam.lr": "0.1"
    }  # fmt: skip


def test_only_bindings_that_differ_are_shown(two):
    lines = [cells_of(line) for line in difference_report(*two).splitlines() if "|" in line]
    assert ["Pretrain.views", "(@A(), @B())", "(@A(), @C())"] in lines
    assert ["x/Adam.lr", "0.1", "-"] in lines
    assert not any("epochs" in line[0] for line in lines)


def test_only_numbers_that_differ_are_shown_with_the_paired_difference(two):
    lines = [cells_of(line) for line in difference_report(*two).splitlines() if "gaussian" in line]
    assert [line[1] for line in lines] == ["1", "area"]  # nothing differs at 0
    at_1, area = lines
    assert at_1[2:5] == ["top-1", "71", "75"]
    # 3 and 5 more in two draws: their mean, and half of Student's interval, 12.7 * sqrt(2 / 2)
    assert at_1[5].startswith("+4 ± 13 (p 0.16") and area[5].startswith("+2 ± 6.4")


def test_numbers_of_other_examples_and_of_one_run_alone_have_no_pairs(tmp_path):
    first = write_run(tmp_path / "one", curve([(90,), (70,)]))
    other = [*curve([(91,), (70,)], n=180), row(1.0, curve="uniform")]
    report = difference_report(first, write_run(tmp_path / "two", other))
    assert "360 and 180 examples: no pairs" in report
    assert report.startswith(f"bindings: not compared, as there is no {first / 'config.gin'}")
    (alone,) = [cells_of(line) for line in report.splitlines() if "uniform" in line]
    assert alone[3] == "-" and alone[5] == "-"


def test_sweeps_are_compared_line_by_line_and_seed_by_seed(tmp_path):
    shared, alone = study("a", shift=1.0), study("c")
    first = write_run(tmp_path / "one", [*study("a"), *study("b")])
    second = write_run(tmp_path / "two", [*shared, *study("b"), *alone])
    report = difference_report(first, second)
    assert "only in two: c" in report and "b: numbers: the same" in report
    (at_0, *_) = [cells_of(line) for line in report.splitlines() if line.startswith("| gaussian")]
    assert at_0[5].startswith("+1.11 ± ")


def test_a_cell_of_a_sweep_is_compared_by_its_rows_of_the_table(tmp_path):
    sweep = write_run(tmp_path / "sweep", [*study("a"), *study("b", shift=1.0)])
    cells = [f"{name},seed={seed}" for name in "ab" for seed in range(3)]
    (sweep / "cells.txt").write_text("\n".join(cells))
    for cell in cells:
        (sweep / cell).mkdir()
    report = difference_report(sweep / "a,seed=1", sweep / "b,seed=1")
    (at_0, *_) = [cells_of(line) for line in report.splitlines() if line.startswith("| gaussian")]
    assert at_0[3:5] == ["84", "85.11"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("one", "tow"), "did you mean {}/two?"),
        (("one", "nothing"), "there is no folder {}/nothing"),
        (("one", "one"), "is named twice"),
        (("one", "empty"), "there is no {}/empty/curves.csv"),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(two, tmp_path, capsys, names, said):
    (tmp_path / "empty").mkdir()
    out = here(capsys, "--diff", *(tmp_path / name for name in names))
    assert (out.returncode, out.stdout) == (2, "") and out.stderr.count("\n") == 1
    assert said.format(tmp_path) in out.stderr


def test_looking_changes_nothing(two, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert here(capsys, "--diff", *two).returncode == 0
    assert here(capsys, "--list", "--runs", tmp_path).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
