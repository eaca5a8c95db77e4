"""Laws of the store: whole or absent, never computed again, going on after a kill."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from conftest import ROOT, tiny_pretrain

from monosem.core.stage import Artifact, Job, Stage, StageError, key
from monosem.core.store import Callback, LogEntry, Store, _StoreJob


@dataclass(frozen=True)
class Add(Stage):
    """The sum of what is upstream, plus one; counts how often it ran."""

    name: str
    needs: tuple[Stage, ...] = ()
    runs: ClassVar[list[str]] = []

    def run(self, job: Job) -> Artifact:
        self.runs.append(self.name)
        job.log(1, 1, size=float(len(self.needs)))
        return {"sum": sum((job.get(stage)["sum"] for stage in self.needs), torch.ones(1))}


@pytest.fixture(autouse=True)
def forget():
    Add.runs.clear()


TOP = Add("top", (Add("left", (Add("bottom"),)), Add("right", (Add("bottom"),))))


def test_a_finished_stage_is_never_computed_again(tmp_path):
    for _ in range(2):
        assert Store(tmp_path).get(TOP)["sum"] == 5
    assert sorted(Add.runs) == ["bottom", "left", "right", "top"]
    assert Store(tmp_path).history(TOP) == [LogEntry(1, 1, {"size": 2.0})]


def files(store: Store, stage: Stage):
    return {path.name for path in store.folder(stage).iterdir()}


def test_a_folder_holds_spec_history_and_artifact_and_nothing_half_made(tmp_path):
    store = Store(tmp_path)
    store.get(TOP)
    assert files(store, TOP) == {"spec.json", "history.json", "artifact.safetensors"}
    assert {path.name for path in (tmp_path / "Add").iterdir()} == {
        key(s) for s in (TOP, *TOP.needs, TOP.needs[0].needs[0])
    }
    assert (
        json.loads((store.folder(TOP) / "spec.json").read_text())["spec"]["fields"]["name"] == "top"
    )


@pytest.mark.parametrize("name", ["artifact.safetensors", "history.json", "spec.json"])
@pytest.mark.parametrize("damage", ["truncated", "altered", "missing", "empty"])
def test_a_damaged_artifact_is_set_aside_and_computed_again(tmp_path, capsys, name, damage):
    store = Store(tmp_path)
    store.get(TOP)
    path = store.folder(TOP) / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        place = (
            data.index(b'tensors": "') + 12 if name == "spec.json" else len(data) - 9
        )  # in spec.json, a digest
        flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        path.write_bytes({"truncated": data[:-5], "altered": flipped, "empty": b""}[damage])
    Add.runs.clear()
    assert store.get(TOP)["sum"] == 5
    assert Add.runs == ["top"]
    assert "is truncated or altered: set aside as" in capsys.readouterr().err
    assert store.folder(TOP).with_suffix(".damaged").exists() and files(store, TOP) == {
        "spec.json",
        "history.json",
        "artifact.safetensors",
    }


def test_a_failing_stage_leaves_nothing_that_looks_finished(tmp_path):
    @dataclass(frozen=True)
    class Fail(Stage):
        def run(self, job):
            raise RuntimeError("no")

    store = Store(tmp_path)
    with pytest.raises(RuntimeError):
        store.get(Fail())
    assert not store.has(Fail()) and not store.folder(Fail()).exists()


def test_callbacks_hear_of_every_stage_and_scalar(tmp_path):
    events = []

    class Recorder(Callback):
        def on_start(self, stage):
            events.append(f"start {stage.name}")

        def on_log(self, stage, entry):
            events.append(f"log {stage.name} {entry.scalars['size']:g}")

        def on_end(self, stage):
            events.append(f"end {stage.name}")

    Store(tmp_path, (Recorder(),)).get(TOP.needs[0])
    assert events == [
        "start left",
        "log left 1",
        "start bottom",
        "log bottom 0",
        "end bottom",
        "end left",
    ]


def spawn(store, code: str) -> subprocess.Popen:
    head = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
        "import torch; torch.set_num_threads(1)\n"
    )
    return subprocess.Popen([sys.executable, "-c", head + textwrap.dedent(code), str(store)])


TRAIN = """
    from conftest import tiny_pretrain
    from monosem.core.store import Store
    Store(sys.argv[1]).get(tiny_pretrain(epochs=12))
"""


@pytest.mark.slow
def test_a_killed_training_goes_on_with_the_same_bits(tmp_path):
    stage = tiny_pretrain(epochs=12)
    assert spawn(tmp_path / "whole", TRAIN).wait() == 0
    interrupted = Store(tmp_path / "killed")
    checkpoint = interrupted.folder(stage).with_suffix(".partial") / "checkpoint"
    for _ in range(2):  # twice, each time some epochs further on
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = spawn(tmp_path / "killed", TRAIN)
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            assert process.poll() is None, "it finished before it could be killed"
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() != 0
        assert not interrupted.has(stage)
    epochs = torch.load(io.BytesIO(checkpoint.read_bytes()[32:]), weights_only=True)["state"][
        "epoch"
    ]
    assert 2 <= epochs < 12
    assert spawn(tmp_path / "killed", TRAIN).wait() == 0
    whole = Store(tmp_path / "whole").folder(stage)
    for name in ("artifact.safetensors", "history.json"):
        assert (whole / name).read_bytes() == (interrupted.folder(stage) / name).read_bytes()


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
def test_a_damaged_checkpoint_starts_the_stage_anew_with_the_same_bits(tmp_path, capsys, damage):
    stage = tiny_pretrain()
    expected = Store(tmp_path / "whole").get(stage)
    store = Store(tmp_path / "other")
    checkpoint = store.folder(stage).with_suffix(".partial") / "checkpoint"
    checkpoint.parent.mkdir(parents=True)
    state = {"module": expected, "optimizer": {}, "epoch": 2}
    saved = _StoreJob(Store(tmp_path / "third"), stage, checkpoint.parent)
    saved.save(state)
    data = checkpoint.read_bytes()
    half = len(data) // 2
    checkpoint.write_bytes(
        {
            "truncated": data[:half],
            "altered": data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :],
            "empty": b"",
        }[damage]
    )
    artifact = store.get(stage)
    assert all(torch.equal(artifact[name], expected[name]) for name in expected)
    assert "is truncated or altered: Pretrain starts anew" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_on_one_store_compute_a_stage_once(tmp_path):
    code = """
        import time
        from dataclasses import dataclass
        from pathlib import Path
        from monosem.core.stage import Stage
        from monosem.core.store import Store

        @dataclass(frozen=True)
        class Slow(Stage):
            def run(self, job):
                with Path(sys.argv[1], "runs").open("a") as file:
                    file.write("x")
                time.sleep(1)
                return {"x": torch.ones(1)}

        Store(sys.argv[1]).get(Slow())
    """
    processes = [spawn(tmp_path, code) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / "runs").read_text() == "x"


def test_two_processes_that_find_one_damaged_artifact_compute_it_once(tmp_path, monkeypatch):
    store, other = Store(tmp_path), Store(tmp_path)
    store.get(TOP)
    (store.folder(TOP) / "artifact.safetensors").write_bytes(b"")
    Add.runs.clear()
    look = Store._read

    def late(self, stage):  # `store` sees the damage; before it acts, `other` has repaired it
        found = look(self, stage)
        monkeypatch.setattr(Store, "_read", look)
        other.get(stage)
        return found

    monkeypatch.setattr(Store, "_read", late)
    assert store.get(TOP)["sum"] == 5
    assert Add.runs == ["top"]
    assert sorted(
        path.name.rpartition(".")[2] for path in (tmp_path / "Add").glob(f"{key(TOP)}*")
    ) == sorted([key(TOP), "damaged"])


@dataclass(frozen=True)
class Scaled(Stage):
    """`factor` times a number that is costly to make; stages with one `source` make it once."""

    source: int
    factor: int
    passes: ClassVar[list[int]] = []

    def shared_work(self) -> int:
        return self.source

    @classmethod
    def run_together(cls, stages, jobs):
        cls.passes.append(len(stages))
        for stage, job in zip(stages, jobs, strict=True):
            job.log(1, 1, factor=float(stage.factor))
        return [{"x": torch.tensor(stage.source * stage.factor)} for stage in stages]


@pytest.fixture
def passes():
    Scaled.passes.clear()
    return Scaled.passes


def test_the_missing_ones_of_a_group_are_computed_by_one_call_with_an_artifact_each(
    tmp_path, passes
):
    store, group = Store(tmp_path), [Scaled(5, factor) for factor in (1, 2, 3)]
    store.get(group[1])
    store.get_together(group)
    assert passes == [1, 2]
    assert [int(store.get(stage)["x"]) for stage in group] == [5, 10, 15] and passes == [1, 2]
    assert store.history(group[2]) == [LogEntry(1, 1, {"factor": 3.0})]
    store.get_together(group)
    assert passes == [1, 2]


def test_one_stage_twice_in_a_group_is_computed_once(tmp_path, passes):
    Store(tmp_path).get_together([Scaled(5, 1), Scaled(5, 1)])
    assert passes == [1]


def test_an_artifact_has_the_mode_that_the_umask_gives(tmp_path):
    before = os.umask(0o022)
    try:
        store = Store(tmp_path)
        store.get(TOP)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in store.folder(TOP).iterdir()}
    assert modes == dict.fromkeys(("artifact.safetensors", "history.json", "spec.json"), 0o644)


@dataclass(frozen=True)
class Fragile(Stage):
    """Shares work with all of its kind; one that is sick gives an error."""

    name: str
    sick: bool = False

    def shared_work(self) -> str:
        return "all"

    @classmethod
    def run_together(cls, stages, jobs):
        error = StageError("its loss is no number")
        return [error if stage.sick else {"x": torch.ones(1)} for stage in stages]


def test_a_stage_that_fails_in_a_group_takes_none_of_the_others_along(tmp_path):
    store, group = Store(tmp_path), [Fragile("a"), Fragile("b", sick=True), Fragile("c")]
    with pytest.raises(StageError, match="no number"):
        store.get_together(group)
    assert [store.has(stage) for stage in group] == [True, False, True]
