"""One experiment in this process: for the command line, and for a notebook.

`run_experiment` computes what is missing and leaves a run folder. `run` returns the results as
pandas DataFrames, `features` the features of a split as a tensor, and `export_saelens` writes an
autoencoder for SAELens. Nothing here knows Ray.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from monosem.checkpoints import saelens
from monosem.core.files import lock
from monosem.core.run_record import begin, cost_line, finish, is_recorded
from monosem.core.stage import Stage, closure, group_shared, key, missing_stages, plan, title
from monosem.core.store import Store
from monosem.data.counts import describe_splits
from monosem.data.dataset import Dataset, SplitName
from monosem.evaluation.experiment import Experiment
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.checkpoint import Checkpoint
from monosem.models.features import Features
from monosem.models.representation import Representation
from monosem.results.summary import tables
from monosem.results.table import Table, to_frame
from monosem.running import run_folder
from monosem.running.progress import USUAL, ConsoleProgress, Voice
from monosem.running.run_folder import SMOOTHING, describe_experiment
from monosem.specs.load import Spec

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Results:
    """What came of an experiment.

    curves: one row for each severity, repeat and metric of each curve, as in curves.csv.
    measures: one row for each measure of each representation and dimension, as in measures.csv.
    summary: Markdown: what was trained and probed, and the tables of what came of it.
    folder: the run folder, where one was written.
    """

    curves: pandas.DataFrame
    measures: pandas.DataFrame
    summary: str
    folder: Path | None = None


def run(
    spec: Spec | Experiment,
    store: str | Path | Sequence[str | Path] = "store",
    runs: str | Path | None = None,
) -> Results:
    """Compute an experiment, or find it in the store, and return its results.

    spec: what `load` reads from Gin files, or an Experiment that was made in Python.
    store: the folder where artifacts are kept and found again; or several, as `Store` takes them.
    runs: the folder that the experiment's run folder goes to; None: none is written.

    Raises FieldError where a spec does not go with its data, and StageError where a stage cannot
    go on.
    """
    if not isinstance(spec, Spec | Experiment):
        raise TypeError(f"run takes what load returns, or an Experiment, got {spec!r}")
    experiment = spec if isinstance(spec, Experiment) else spec.experiment
    config = None if isinstance(spec, Experiment) else spec.config
    for stage in closure(experiment.stages):
        stage.preflight()
    experiment.preflight()
    artifacts = Store(store)
    folder = None if runs is None else Path(runs, experiment.name)
    with artifacts.in_use():
        if folder is None:
            artifacts.callbacks = (progress_of(experiment, artifacts, USUAL),)
            compute_missing(artifacts, experiment.stages)
        else:
            update_run_folder(folder, experiment, config, artifacts)
        return collect_results(experiment, artifacts, folder)


def features(
    representation: Representation,
    data: Dataset,
    split: SplitName = "test",
    store: str | Path = "store",
) -> Tensor:
    """The features (n, d) of a split's n inputs, computed or found in the store.

    representation: a Pretrain, a SparseAutoencoder, a Checkpoint and so on.
    split: "train" or "test".
    """
    stage = Features(encoder=representation, data=data, split=split)
    artifacts = Store(store)
    with artifacts.in_use():
        return artifacts.get(stage)["features"]


def export_saelens(
    autoencoder: SparseAutoencoder | Checkpoint, folder: str | Path, store: str | Path = "store"
) -> None:
    """Write an autoencoder as a folder that SAELens reads (SAE.load_from_disk).

    Its latents there, of the same features, are those here. BatchTopK and Matryoshka become
    JumpReLU, as they do at SAELens.

    autoencoder: computed, or found in the store.
    folder: gets cfg.json and sae_weights.safetensors. One that holds another autoencoder is left
        as it is, and FileExistsError raised.

    Raises WeightsError, a ValueError, where SAELens has no such kind.
    """
    if not isinstance(autoencoder, SparseAutoencoder | Checkpoint) or autoencoder.latents is None:
        raise TypeError(f"export_saelens takes a sparse autoencoder, got {autoencoder!r}")
    trained = autoencoder.autoencoder(Store(store).get)
    about = {"trained_by": "monosem", "stage": title(autoencoder), "key": key(autoencoder)}
    saelens.write(Path(folder), trained, about)


def run_experiment(
    spec: Spec, folder: Path, root: Path | Sequence[Path], voice: Voice = USUAL
) -> None:
    """Compute whatever is missing, write the run folder and print its tables.

    folder: the run folder.
    root: of the store, or several, as `Store` takes them.
    voice: how much is said meanwhile.

    Raises StageError where a stage cannot go on.
    """
    experiment, began = spec.experiment, time.monotonic()
    store = Store(root)
    with store.in_use():
        stages = closure(experiment.stages)
        missing = missing_stages(experiment.stages, store.has)
        voice.note(f"{experiment.name}: {len(missing)} of {len(stages)} stages to compute")
        tell_data([experiment], voice)
        update_run_folder(folder, experiment, spec.config, store, voice)
        rows = experiment.rows(store.get)
        cost = cost_line(store, stages, missing, time.monotonic() - began)
    print(tables(Table(rows)))
    figures = ", ".join(run_folder.figure_names(rows))
    gallery = ", and gallery.html to look at dimensions" if experiment.shown else ""
    print(
        f"{folder}/ has index.html, {figures}, curves.csv, measures.csv, summary.md and "
        f"config.gin{gallery}"
    )
    print(f"compare runs with\n  tensorboard --logdir {folder.parent}")
    print(f"({SMOOTHING})")
    voice.note(cost)


def tell_data(experiments: Iterable[Experiment], voice: Voice) -> None:
    """Say a line for every split of the data, and what must be known before work begins."""
    experiments = list(experiments)
    datasets = dict.fromkeys(data for each in experiments for data in each.datasets)
    lines = [line for data in datasets for line in describe_splits(data)]
    lines += dict.fromkeys(caution for each in experiments for caution in each.cautions)
    for line in lines:
        voice.note(line)


def progress_of(experiment: Experiment, store: Store, voice: Voice) -> ConsoleProgress:
    return ConsoleProgress(missing_stages(experiment.stages, store.has), store, voice)


def update_run_folder(
    folder: Path,
    experiment: Experiment,
    config: str | None,
    store: Store,
    voice: Voice = USUAL,
) -> None:
    """Compute whatever is missing, and write the run folder unless it is there as it should be.

    config: the Gin text that makes the experiment; None where it was made in Python.
    """
    warn_of_another_spec(folder, config, store, voice)
    stages = closure(experiment.stages)
    has_all = all(map(store.has, experiment.stages)) and is_recorded(folder, stages)
    if has_all and run_folder.is_complete(folder, experiment, config, store):
        return
    # Heavy, and not needed where nothing is to be computed.
    from monosem.running.tensorboard import TensorBoardWriter

    with lock(folder), contextlib.closing(TensorBoardWriter(folder, stages)) as board:
        beginning = begin(folder, stages)
        board.replay(store, stages)
        store.callbacks = (progress_of(experiment, store, voice), board)
        compute_missing(store, experiment.stages)
        board.replay(store, stages)  # what another process was faster with
        figures = run_folder.write(folder, experiment, config, store)
        board.report(experiment, experiment.rows(store.get))
        for figure in figures:
            board.picture(figure)
        finish(folder, stages, beginning)


def compute_missing(store: Store, stages: Sequence[Stage]) -> None:
    """Compute the missing stages among these and upstream of them, wave by wave."""
    for wave in plan(stages, store.has):
        for group in group_shared(wave):
            store.get_together(group)


def warn_of_another_spec(folder: Path, config: str | None, store: Store, voice: Voice) -> None:
    """Say it where the run folder holds the results of another spec of that name."""
    path = folder / "config.gin"
    if path.exists() and path.read_text(encoding="utf-8") != config:
        voice.note(
            f"{folder} holds another spec's results: replaced when these are there; "
            f"artifacts stay in {store.root}"
        )


def collect_results(experiment: Experiment, store: Store, folder: Path | None) -> Results:
    """The results of an experiment whose stages have all run."""
    import pandas

    rows = experiment.rows(store.get)
    measures = run_folder.measures(experiment, store)
    return Results(
        curves=to_frame(rows),
        measures=pandas.DataFrame(measures, columns=run_folder.Measure._fields),
        summary=run_folder.summarise(rows, describe_experiment(experiment, store)),
        folder=folder,
    )
