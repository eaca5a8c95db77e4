"""A measurement whose points have names goes the whole way, from a stage to every file of a run."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from conftest import here
from made_rows import named_study, study
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monosem.datasets.digits import Digits
from monosem.evaluation.experiment import Experiment, Gallery
from monosem.metrics.space import EffectiveRank
from monosem.models.baselines import Pixels
from monosem.results.rows import read_table, table_text
from monosem.robustness.measurement import Point, Result, Series
from monosem.running.local import run
from monosem.running.run_folder import figure_names

DATA = Digits(size=8)
POINTS = (Point("clean", 0), Point("mnist", 0), Point("fog", 1), Point("fog", 5))
TOP1 = [[90.0, 92.0], [70.0, 72.0], [80.0, 82.0], [60.0, 62.0]]
IMAGES = (360, 1000, 360, 360)


@dataclass(frozen=True, kw_only=True)
class AgreedOn(Series):
    """Takes no time: its accuracies were agreed on."""

    @property
    def axis(self):
        return "severity of what was agreed on"

    @property
    def points(self):
        return POINTS

    @property
    def metrics(self):
        return ("top1", "top5")

    def run(self, job):
        top1 = torch.tensor(TOP1, dtype=torch.float64)
        return {"top1": top1, "top5": top1 + 5}

    def results(self, artifact):
        for metric in self.metrics:
            values_of = zip(POINTS, IMAGES, artifact[metric].tolist(), strict=True)
            for point, n, values in values_of:
                for repeat, value in enumerate(values):
                    yield Result(point.severity, repeat, metric, value, n, point.name)


EXPERIMENT = Experiment(
    name="named",
    curves=(AgreedOn(name="sets", encoder=Pixels(DATA), data=DATA),),
    metrics=(EffectiveRank(),),
    gallery=Gallery(rows=1, images=2, dimensions=4),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("named")
    (place / "runs" / "named").mkdir(parents=True)
    (place / "runs" / "named" / "curves.png").write_text("of another experiment of that name")
    return run(EXPERIMENT, place / "store", place / "runs").folder


def test_the_file_of_rows_has_the_names_and_reads_back(folder):
    rows = [one for one in read_table(folder / "curves.csv") if one.metric == "top1"]
    assert [(one.point, one.severity, one.n, one.value) for one in rows] == [
        (*point, n, value)
        for point, n, values in zip(POINTS, IMAGES, TOP1, strict=True)
        for value in values
    ]


def test_the_figure_is_one_of_bars_and_an_older_one_of_curves_is_gone(folder):
    assert imread(folder / "sets.png")[..., :3].std() > 0.03
    assert not (folder / "curves.png").exists()


def test_the_summary_has_a_line_for_each_name_and_the_mean_over_its_severities(folder):
    text = (folder / "summary.md").read_text()
    found = [line.split("|")[2:4] for line in text.splitlines() if line.startswith("| sets")]
    values = {name.strip(): float(mean.split()[0]) for name, mean in found}
    assert values == {"clean": 91.0, "mnist": 71.0, "fog": 71.0}


def test_tensorboard_has_a_series_for_each_name(folder):
    events = EventAccumulator(str(folder)).Reload()
    of = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
    assert of["accuracy_top1/sets/clean"] == [(0, 91.0)]
    assert of["accuracy_top1/sets/mnist"] == [(0, 71.0)]
    assert of["accuracy_top1/sets/fog"] == [(1000, 81.0), (5000, 61.0)]
    assert of["accuracy_top5/sets/mnist"] == [(0, 76.0)]
    assert of["mean_top1/sets"] == [(0, 71.0)]  # of mnist and fog, each with equal weight
    assert "accuracy_top1/sets" not in of
    assert "sets" in events.Tags()["images"]


def test_a_run_that_is_whole_is_not_written_again(folder):
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    run(EXPERIMENT, folder.parent.parent / "store", folder.parent)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    (folder / "sets.png").unlink()
    run(EXPERIMENT, folder.parent.parent / "store", folder.parent)
    assert (folder / "sets.png").exists()


@pytest.mark.parametrize(
    ("rows", "figures"),
    [
        (study("a"), {"gaussian.png": "gaussian", "curves.png": ""}),
        (named_study("a"), {"common.png": "common"}),
        (
            [one._replace(swept=()) for one in [*study("a"), *named_study("a")]],
            {"common.png": "common", "curves.png": ""},
        ),
        ([one._replace(swept=()) for one in study("a")], {"curves.png": ""}),
    ],
)
def test_named_curves_are_figures_of_their_own_and_curves_png_is_of_the_others(rows, figures):
    assert figure_names(rows) == figures


def test_several_runs_are_laid_over_one_another_with_their_bars(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rows = named_study(name, shift=2.0 * (name == "b"))
        (tmp_path / name / "curves.csv").write_text(table_text(rows))
    done = here(capsys, "--gather", tmp_path / "a", tmp_path / "b", "--runs", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "- b against a: common " in done.stdout and "mCE" in done.stdout
    assert (tmp_path / "a+b" / "common.png").exists()
    assert not (tmp_path / "a+b" / "curves.png").exists()
