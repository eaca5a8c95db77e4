"""One experiment from Python: its results as DataFrames, its features as a tensor."""

from __future__ import annotations

import pandas
import pytest
from conftest import TINY

from monosem.core.stage import closure
from monosem.core.store import Store
from monosem.models.features import Features
from monosem.running.local import features, run
from monosem.specs.load import load


@pytest.fixture(scope="module")
def spec():
    return load(["gin/ncl.gin"], [*TINY.strip().splitlines(), "Digits.size = 8"])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def results(spec, store):
    return run(spec, store)


def test_a_run_without_a_run_folder_writes_none(results):
    assert results.folder is None


def test_curves_have_a_row_for_each_severity_repeat_and_metric(spec, results):
    for curve in spec.experiment.curves:
        rows = results.curves[results.curves["curve"] == curve.name]
        assert len(rows) == len(curve.severities) * curve.repeats * rows["metric"].nunique()


def test_measures_have_a_row_for_each_measure_and_each_valid_dimension(results):
    measures = results.measures
    whole = measures[measures["dimension"].isna()]
    assert whole["measure"].is_unique and {"live_dimensions", "l0"} <= set(whole["measure"])
    for _, row in whole[whole["dimensions"].notna()].iterrows():
        count = (measures["measure"] == row["measure"]).sum() - 1
        assert count == row["dimensions"]


def test_the_summary_says_what_was_probed(results):
    assert "probed: Embedding of Pretrain" in results.summary


def test_an_experiment_with_a_run_folder_has_the_same_results(spec, store, results, tmp_path):
    written = run(spec.experiment, store, tmp_path)
    assert written.folder == tmp_path / "ncl"
    for name, frame in (("curves", results.curves), ("measures", results.measures)):
        pandas.testing.assert_frame_equal(getattr(written, name), frame)
        in_file = pandas.read_csv(written.folder / f"{name}.csv")
        if "point" in in_file:  # to pandas, an empty cell is a missing number
            assert in_file["point"].isna().all()
            in_file["point"] = frame["point"]
        pandas.testing.assert_frame_equal(in_file, frame, check_exact=False)


def test_an_experiment_made_in_python_replaces_one_from_gin_with_its_config(
    spec, store, tmp_path, capsys
):
    (tmp_path / "ncl").mkdir()
    (tmp_path / "ncl" / "config.gin").write_text("of another experiment")
    run(spec.experiment, store, tmp_path)
    assert f"{tmp_path / 'ncl'} holds another spec's results" in capsys.readouterr().err
    assert not (tmp_path / "ncl" / "config.gin").exists()


def test_features_are_those_that_the_probes_see(spec, store, results):
    curve = spec.experiment.curves[0]
    test_features = features(curve.encoder, curve.data, store=store)
    (stage,) = [
        stage
        for stage in closure(spec.experiment.stages)
        if isinstance(stage, Features) and stage.split == "test" and stage.encoder == curve.encoder
    ]
    assert test_features.equal(Store(store).get(stage)["features"])
    assert len(test_features) == len(curve.data.split("test").labels)
