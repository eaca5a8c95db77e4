"""What a store holds and what is freed: never what is needed, never while something is at work."""

from __future__ import annotations

import io
import json
import os
import time

import pytest
from conftest import here
from made_rows import SINGLE_RUN
from made_runs import write_artifact, write_run

from monosem.core.files import lock
from monosem.core.store import Store
from monosem.keeping import upkeep

A, B, C, D, F = (10 * pair for pair in ("aa", "bb", "cc", "dd", "ff"))  # keys
NEEDED, SHARED, FREE = f"Pretrain/{A}", f"Features/{B}", f"Features/{C}"


@pytest.fixture
def place(tmp_path):
    """Two runs, one artifact of one, one of both, one of none, one begun and one damaged."""
    for name in (NEEDED, SHARED, FREE):
        write_artifact(tmp_path / "store", name)
    for name in (f"Features/{D}.partial", f"Features/{A}.damaged", f"Pretrain/{F}.partial"):
        (tmp_path / "store" / name).mkdir()
        (tmp_path / "store" / name / "checkpoint").write_bytes(bytes(500))
    write_run(tmp_path / "runs" / "one", SINGLE_RUN, [NEEDED, SHARED, f"Pretrain/{F}"])
    write_run(tmp_path / "runs" / "two", SINGLE_RUN, [SHARED, "Curve/gone"])
    return tmp_path


def flags(place, *more):
    return ["--store", place / "store", "--runs", place / "runs", *more]


def left(place):
    kinds = [path for path in (place / "store").iterdir() if path.is_dir()]
    return sorted(
        str(path.relative_to(place / "store")) for kind in kinds for path in kind.iterdir()
    )


KEPT = [SHARED, NEEDED, f"Pretrain/{F}.partial"]
ALL = sorted([*KEPT, FREE, f"Features/{D}.partial", f"Features/{A}.damaged"])


def line_of(report: str, first: str) -> list[str]:
    (line,) = [line for line in report.splitlines() if line.startswith(f"| {first} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


# --store-info


def test_a_report_has_sizes_by_kind_and_says_who_needs_what(place, capsys):
    out = here(capsys, "--store-info", *flags(place))
    assert out.returncode == 0
    kind = line_of(out.stdout, "Features")
    assert kind[1:4] == ["2", "1", "1"] and kind[6] == "one, two"
    assert line_of(out.stdout, "one")[1] == "2 of 3" and line_of(out.stdout, "two")[1] == "1 of 2"
    assert line_of(out.stdout, "two")[3] == "0 B"  # what it needs, the other needs too
    assert "6 artifacts" in out.stdout and "no run folder needs 3 artifacts" in out.stdout
    assert left(place) == ALL


def test_a_store_that_is_not_there_is_refused(tmp_path, capsys):
    for flag in ("--store-info", "--prune"):
        out = here(capsys, flag, "--store", tmp_path / "none", "--runs", tmp_path)
        assert out.returncode == 2 and out.stderr.count("\n") == 1
        assert f"--store: there is no folder {tmp_path / 'none'}" in out.stderr
    assert not list(tmp_path.iterdir())


# --prune


def test_only_what_no_run_needs_and_what_is_damaged_is_freed(place, capsys):
    out = here(capsys, "--prune", "--yes", *flags(place))
    assert out.returncode == 0, out.stderr
    assert left(place) == KEPT
    assert line_of(out.stdout, "Features")[1] == "3" and "(one, two)" in out.stdout
    assert "nothing to free" in here(capsys, "--prune", *flags(place)).stdout


@pytest.mark.parametrize(("answer", "after"), [("y\n", KEPT), ("\n", ALL), ("n\n", ALL), ("", ALL)])
def test_it_asks_and_frees_only_after_a_yes(place, capsys, monkeypatch, answer, after):
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    out = here(capsys, "--prune", *flags(place))
    assert out.returncode == 0 and "[y/N]" in out.stdout
    assert left(place) == after


def test_what_was_made_longer_ago_is_freed_whoever_needs_it(place, capsys):
    old = time.time() - 40 * upkeep.DAY
    os.utime(place / "store" / NEEDED / "spec.json", (old, old))
    out = here(capsys, "--prune", "--yes", "--older", "30", *flags(place))
    assert left(place) == [name for name in ALL if name != NEEDED]
    assert line_of(out.stdout, "Pretrain")[1:] == ["1", "1.1 kB", "1"]  # one of them is needed


def test_nothing_is_kept_for_a_forgotten_run(place, capsys):
    out = here(capsys, "--prune", "--yes", *flags(place, "--forget", place / "runs" / "one"))
    assert out.returncode == 0 and left(place) == [SHARED]


def test_nothing_is_freed_while_a_run_is_at_work(place, capsys):
    with Store(place / "store").in_use():
        out = here(capsys, "--prune", "--yes", *flags(place))
    assert out.returncode == 2 and "in use by a run: nothing was freed" in out.stderr
    assert left(place) == ALL


def test_nothing_is_freed_while_a_stage_is_being_computed(place, capsys):
    with lock(place / "store" / "Features" / f"{D}.partial"):
        out = here(capsys, "--prune", "--yes", *flags(place))
    assert out.returncode == 2 and f"Features/{D} is being computed" in out.stderr
    assert left(place) == ALL


def test_what_a_run_began_to_need_after_the_question_is_kept(place, capsys, monkeypatch):
    class Late(io.StringIO):
        def readline(self, *size):
            write_run(place / "runs" / "three", SINGLE_RUN, [FREE])
            return "y\n"

    monkeypatch.setattr("sys.stdin", Late())
    assert here(capsys, "--prune", *flags(place)).returncode == 0
    assert left(place) == sorted([*KEPT, FREE])


def test_an_interrupted_prune_leaves_whole_artifacts_and_the_next_goes_on(
    place, capsys, monkeypatch
):
    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(upkeep.shutil, "rmtree", killed)
        assert here(capsys, "--prune", "--yes", *flags(place)).returncode == 130
    whole = [one.place for one in upkeep.contents(place / "store") if one.state == upkeep.WHOLE]
    assert {NEEDED, SHARED} <= set(whole)
    assert all(len(list((place / "store" / name).iterdir())) == 2 for name in whole)
    assert here(capsys, "--prune", "--yes", *flags(place)).returncode == 0
    assert left(place) == KEPT and not (place / "store" / upkeep.PRUNED).exists()


def test_a_folder_that_is_no_artifact_is_never_touched(place, capsys):
    notes = place / "store" / "docs" / "my notes"
    notes.mkdir(parents=True)
    (notes / "file").touch()
    (place / "store" / "Pretrain" / f"{A}.old").mkdir()
    assert here(capsys, "--prune", "--yes", *flags(place)).returncode == 0
    assert left(place) == sorted([*KEPT, f"Pretrain/{A}.old", "docs/my notes"])
    assert (notes / "file").exists()


# Runs of which it is not known what they need


def test_a_run_made_in_python_before_there_were_records_makes_it_refuse(place, capsys):
    old = write_run(place / "runs" / "old", SINGLE_RUN, needs=None)
    (old / "measures.csv").touch()
    out = here(capsys, "--prune", "--yes", *flags(place))
    assert out.returncode == 2 and out.stderr.count("\n") == 1 and left(place) == ALL
    assert f"not known what {old} needs" in out.stderr and f"--forget {old}" in out.stderr
    assert f"{old}: not known what it needs" in here(capsys, "--store-info", *flags(place)).stdout
    assert here(capsys, "--prune", "--yes", *flags(place, "--forget", old)).returncode == 0
    assert left(place) == KEPT


def test_a_sweep_whose_first_cells_are_being_computed_needs_what_it_says(place, capsys):
    """Killed there, it does not stand in the way of --prune."""
    begun = place / "runs" / "begun"
    begun.mkdir()
    (begun / "cells.txt").write_text("a,seed=0\n")
    (begun / "unfinished.json").write_text(json.dumps({"started": "now", "stages": [FREE]}))
    assert here(capsys, "--prune", "--yes", *flags(place)).returncode == 0
    assert left(place) == sorted([*KEPT, FREE])


def test_runs_laid_over_one_another_need_nothing(place, capsys):
    write_run(place / "runs" / "one+two", SINGLE_RUN, needs=None)
    assert here(capsys, "--prune", "--yes", *flags(place)).returncode == 0
    assert left(place) == KEPT


def test_a_config_that_cannot_be_read_or_names_nothing_of_the_store_makes_it_refuse(place, capsys):
    old = write_run(place / "runs" / "old", SINGLE_RUN, needs=None)
    for text in ("garbage = (", "Experiment.name = 'x'\n"):
        (old / "config.gin").write_text(text)
        out = here(capsys, "--prune", "--yes", *flags(place))
        assert out.returncode == 2 and f"not known what {old} needs" in out.stderr
    assert left(place) == ALL


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--gin", "gin/ncl.gin"], "--prune goes only with --store"),
        (["--older", "-1"], "argument --older: must be 0 or more, got -1"),
        (["--older", "x"], "argument --older: invalid number value: 'x'"),
        (["--forget", "elsewhere"], "--forget: elsewhere is no run folder in"),
        (["--runs", "nowhere"], "--runs: there is no folder nowhere, so not known what is needed"),
        (["--store", "."], "name one --store"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_and_nothing_freed(place, capsys, more, said):
    out = here(capsys, "--prune", "--yes", *flags(place, *more))
    assert out.returncode == 2 and said in out.stderr and out.stderr.count("\n") == 1
    assert left(place) == ALL


@pytest.mark.parametrize("flag", ["--older=3", "--forget=x", "--yes"])
def test_flags_of_prune_go_with_it_alone(capsys, flag):
    out = here(capsys, "--gin", "gin/ncl.gin", flag)
    assert out.returncode == 2 and f"{flag.split('=')[0]} goes only with --prune" in out.stderr
