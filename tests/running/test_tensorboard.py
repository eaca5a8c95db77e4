"""Event files: who writes what of which stage into which run."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import torch
from made_up import Double, Leaf, graded
from pytest import approx
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_sae import tiny_sae

from monosem.core.stage import Stage, closure
from monosem.core.store import LogEntry, Store
from monosem.metrics.firing import densities
from monosem.running.tensorboard import LiveTensorBoard, TensorBoardWriter

ONE, TWO = (Leaf(value=value, diary="/dev/null") for value in (1, 2))
TRAINING = graded(3.0, 2)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What an event file says: by tag, steps and values."""
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_a_training_has_a_section_of_its_own_and_other_scalars_one_for_each_name(tmp_path):
    with closing(TensorBoardWriter(tmp_path, [ONE, TRAINING])) as writer:
        writer.on_log(ONE, LogEntry(1, 1, {"value": 1.0}))
        writer.on_log(TRAINING, LogEntry(2, 2, {"quality": 6.0}))
    assert scalars(tmp_path) == {"value/leaf": [(1, 1.0)], "graded/quality": [(2, 6.0)]}


def test_stages_of_one_name_are_numbered_in_their_order(tmp_path):
    with closing(TensorBoardWriter(tmp_path, [ONE, TWO])) as writer:
        for stage in (TWO, ONE):
            writer.on_log(stage, LogEntry(1, 1, {"value": float(stage.value)}))
    assert scalars(tmp_path) == {"value/leaf": [(1, 1.0)], "value/leaf~2": [(1, 2.0)]}


def test_an_autoencoder_has_a_histogram_of_how_often_its_latents_fire_at_every_epoch(tmp_path):
    sae = tiny_sae()
    counts = [torch.tensor([0] * (31 - often) + [5] * often + [200]) for often in (10, 20)]
    with closing(TensorBoardWriter(tmp_path, [sae])) as writer:
        for epoch, fired in enumerate(counts, 1):
            writer.on_log(sae, LogEntry(epoch, 2, densities(fired, 1000)))
    events = EventAccumulator(str(tmp_path), size_guidance={"histograms": 0}).Reload()  # all
    (tag,) = events.Tags()["histograms"]
    assert tag == "sparse_autoencoder/log10_of_firing_rate"
    for often, event in zip((10, 20), events.Histograms(tag), strict=True):
        drawn = event.histogram_value
        # Never fired: below 1e-5. 5 of 1000 are in the decade from 1e-3, 200 in that from 1e-1.
        assert drawn.bucket_limit == [-5, -4, -3, -2, -1, 0]
        assert drawn.bucket == approx([31 - often, 0, 0, often, 0, 1])
        assert (drawn.min, drawn.max, drawn.num) == approx((-6, 0, 32))
        assert drawn.sum == approx(-5.5 * (31 - often) - 2.5 * often - 0.5)
    assert [event.step for event in events.Histograms(tag)] == [1, 2]


def test_what_was_told_live_is_not_replayed_and_what_is_not_there_neither(tmp_path):
    store, folder = Store(tmp_path / "store"), tmp_path / "run"
    stages: list[Stage] = [ONE, TWO, TRAINING]
    store.get(TRAINING)
    with closing(TensorBoardWriter(folder, stages)) as writer:
        store.callbacks = (writer,)
        store.get(ONE)
        for _ in range(2):
            writer.replay(store, stages)
    assert scalars(folder) == {"value/leaf": [(1, 1.0)], "graded/quality": [(1, 3.0), (2, 6.0)]}


def test_a_run_that_is_done_again_has_one_event_file(tmp_path):
    for _ in range(2):
        TensorBoardWriter(tmp_path, [ONE]).close()
    assert len(list(tmp_path.glob("events*"))) == 1


def test_a_training_that_runs_share_is_live_in_the_first_of_them(tmp_path):
    runs = {tmp_path / name: closure([Double(leaf=TRAINING, diary="")]) for name in ("a", "b")}
    with closing(LiveTensorBoard(runs, Store(tmp_path / "store"))) as board:
        board.on_start(TRAINING)
        board.on_log(TRAINING, LogEntry(1, 2, {"quality": 3.0}))
        assert scalars(tmp_path / "a") == {"graded/quality": [(1, 3.0)]}  # before it ends
        board.on_end(TRAINING)
    assert not (tmp_path / "b").exists()


def test_what_does_not_learn_is_not_shown_live(tmp_path):
    with closing(LiveTensorBoard({tmp_path / "a": [ONE]}, Store(tmp_path / "store"))) as board:
        board.on_start(ONE)
        board.on_log(ONE, LogEntry(1, 1, {"value": 1.0}))
        board.on_end(ONE)
    assert not (tmp_path / "a").exists()
