"""A report from its Gin file to its page, on sweeps that are there, so without Ray."""

from __future__ import annotations

import json

import pytest
from conftest import TINY, here

from monosem.core.store import Store
from monosem.inquiries.load import read
from monosem.specs.errors import SpecError

SWEEP = """
{tiny}
Sweep.name = '{name}'
Sweep.specs = ('gin/simclr.gin', 'gin/ncl.gin')
Sweep.grid = {{'Pretrain.seed': (0, 1)}}
Experiment.curves = (@label_noise/Curve(),)
Experiment.metrics = (@ClassConsistency(),)
label_noise/Curve.severities = (0.0, 0.5)
"""

REPORT = """
Report.name = 'small'
Report.title = 'Is it so?'
Report.sweeps = ('{folder}/one.gin', '{folder}/two.gin')
Report.questions = (@first/ReportQuestion(), @second/ReportQuestion())
first/ReportQuestion.text = 'Does NCL gain?'
first/ReportQuestion.asked = (@GainOver(),)
second/ReportQuestion.text = 'And over encoders?'
second/ReportQuestion.asked = (@GoesWith(),)
GainOver.sweep = 'one'
GainOver.experiments = ('ncl',)
GainOver.over = 'simclr'
GainOver.curves = ('label_noise',)
GoesWith.sweep = 'two'
GoesWith.curves = ('label_noise',)
GoesWith.measures = ('class_consistency',)
"""


@pytest.fixture
def report_gin(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.gin").write_text(SWEEP.format(tiny=TINY, name=name))
    path = tmp_path / "report.gin"
    path.write_text(REPORT.format(folder=tmp_path))
    return path


def test_a_report_is_one_page_of_all_its_questions_and_is_made_again_from_the_store(
    report_gin, tmp_path, capsys
):
    store = Store(tmp_path / "store")
    inquiry = read([str(report_gin)])
    for experiment in inquiry.experiments.values():
        for stage in experiment.stages:
            store.get(stage)
    flags = ("--gin", report_gin, "--runs", tmp_path / "runs", "--store", tmp_path / "store")
    first = here(capsys, *flags)
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "runs" / "small"
    page = (folder / "index.html").read_text()
    assert "<h1>Is it so?</h1>" in page
    for question in ("Does NCL gain?", "And over encoders?"):
        assert question in page and question in first.stdout
    assert page.count("data:image/png;base64") == 2  # one for each question, inside the page
    assert 'src="question' not in page
    assert "Report.name = &#x27;small&#x27;" in page
    assert "1,437" in page or "1437 images" in page  # the methods, from the specs
    assert (folder / "one" / "curves.csv").exists() and (folder / "two" / "index.html").exists()
    record = json.loads((folder / "provenance.json").read_text())
    assert record["complete"] and any(stage.startswith("Pretrain/") for stage in record["stages"])
    listed = here(capsys, "--list", "--runs", tmp_path / "runs").stdout
    assert "complete report" in listed
    before = (folder / "answers.csv").read_bytes()
    assert here(capsys, *flags).returncode == 0
    assert (folder / "answers.csv").read_bytes() == before


def test_bindings_of_the_command_line_go_into_every_sweep(report_gin):
    inquiry = read([str(report_gin)], ["Pretrain.epochs = 3", "Report.title = 'Or so?'"])
    assert inquiry.report.title == "Or so?"
    epochs = {
        experiment.curves[0].encoder.encoder.epochs for experiment in inquiry.experiments.values()
    }
    assert epochs == {3}


def test_the_plan_of_a_report_names_the_cells_of_its_sweeps(report_gin, tmp_path, capsys):
    out = here(capsys, "--gin", report_gin, "--plan", "--store", tmp_path / "nothing")
    assert out.returncode == 0, out.stderr
    assert "one/simclr,seed=0" in out.stdout
    assert out.stdout.splitlines()[-1].endswith("for 8 cells")


@pytest.mark.parametrize(
    "change, said",
    [
        (("GainOver.over = 'simclr'", "GainOver.over = 'simclrr'"), "did you mean simclr?"),
        (("'label_noise',)", "'few_shots',)"), "must name a curve of the sweep"),
        (("GainOver.sweep = 'one'", "GainOver.sweep = 'three'"), "there are one, two"),
        (("/two.gin", "/nothing.gin"), "nothing.gin"),
        (("Report.title = 'Is it so?'\n", ""), "Report.title must be set"),
        (("Report.name = 'small'", "Report.name = 'a b/c'"), "must be a folder's name"),
        (("Report.title", "Pretrain.seed = 3\nReport.title"), "Pretrain.seed"),
        (("{folder}/two.gin", "{folder}/one.gin"), "must differ"),
    ],
    ids=["experiment", "curve", "sweep", "file", "title", "name", "unread", "twice"],
)
def test_bad_reports_are_one_line_before_any_work(change, said, report_gin, tmp_path, capsys):
    old, new = (text.format(folder=tmp_path) for text in change)
    text = report_gin.read_text()
    assert old in text
    report_gin.write_text(text.replace(old, new, 1))
    out = here(capsys, "--gin", report_gin, "--runs", tmp_path / "runs")
    assert out.returncode == 2
    assert said in out.stderr and len(out.stderr.strip().splitlines()) == 1, out.stderr
    assert not (tmp_path / "runs").exists()


def test_a_file_that_is_no_sweep_and_two_sweeps_of_one_name_are_refused(report_gin, tmp_path):
    two = tmp_path / "two.gin"
    two.write_text(SWEEP.format(tiny=TINY, name="one"))
    with pytest.raises(SpecError, match="two sweeps of the name one"):
        read([str(report_gin)])
    two.write_text("include 'gin/simclr.gin'")
    with pytest.raises(SpecError, match="describes an experiment; it must be a sweep"):
        read([str(report_gin)])


@pytest.mark.parametrize("flag, value", [("--seeds", "2"), ("--grid", "Pretrain.seed = (0, 1)")])
def test_a_report_takes_no_axes(flag, value, report_gin, capsys):
    out = here(capsys, "--gin", report_gin, flag, value)
    assert (out.returncode, out.stderr.count("\n")) == (2, 1)
    assert f"{flag} does not go with a report" in out.stderr
