"""A run of an experiment or a sweep; with --plan, what it would compute and what is there."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from monosem.cli.finished import take_along
from monosem.cli.outcomes import DONE, FAILED, RunError, UsageError
from monosem.cli.settings import (
    check_folder,
    compile_networks,
    is_read_only,
    read_spec,
    set_threads,
    store_folders,
    usable_folder,
)

if TYPE_CHECKING:
    from monosem.inquiries.load import Inquiry
    from monosem.specs.load import Spec
    from monosem.specs.study import Study


def run(flags: argparse.Namespace) -> int:
    """Computes what is missing and leaves the run folder."""
    spec = read_spec(flags)
    set_threads(flags)
    if flags.compile:
        compile_networks()
    folder = usable_folder(Path(flags.runs, spec.name), "--runs")
    stores = _usable_stores(flags, spec)

    from monosem.core.stage import StageError
    from monosem.running.local import run_experiment
    from monosem.running.progress import Voice
    from monosem.specs.load import Spec

    try:
        if isinstance(spec, Spec):
            run_experiment(spec, folder, stores, Voice(flags.quiet, flags.verbose))
            code = DONE
        else:
            code = _run_trials(spec, folder, stores, flags)
        take_along(flags, folder)
        return code
    except (StageError, OSError) as error:
        raise RunError(str(error)) from None


def _usable_stores(flags: argparse.Namespace, spec: Spec | Study | Inquiry) -> list[Path]:
    """The stores; the first is made, or must hold everything where it cannot be written to."""
    folders = store_folders(flags)
    if not is_read_only(folders[0]):
        usable_folder(folders[0], "--store")
        return folders
    from monosem.core.stage import missing_stages
    from monosem.core.store import Store

    stages = [stage for cell in spec.experiments.values() for stage in cell.stages]
    if missing := len(missing_stages(stages, Store(folders).has)):
        raise UsageError(
            f"--store: the folder {folders[0]} cannot be written to, and {missing} stages are "
            "missing; name one that can be in front of it"
        )
    return folders


def _run_trials(
    spec: Study | Inquiry, folder: Path, stores: Sequence[Path], flags: argparse.Namespace
) -> int:
    from monosem.inquiries.load import Inquiry
    from monosem.inquiries.run import run_report
    from monosem.running.progress import Voice
    from monosem.running.sweep import run_sweep
    from monosem.running.trials import RunOptions

    address = flags.address or os.environ.get("RAY_ADDRESS")
    gpus = 0.0 if flags.device == "cpu" else flags.gpus
    voice = Voice(flags.quiet, flags.verbose)
    options = RunOptions(address, flags.cpus, gpus, flags.jobs, voice)
    if isinstance(spec, Inquiry):
        is_whole = run_report(spec, folder, stores, options)
    else:
        is_whole = run_sweep(spec, folder, stores, options)
    return DONE if is_whole else FAILED


def show_plan(flags: argparse.Namespace) -> int:
    """Prints the missing stages, wave by wave, and those that are there.

    Nothing is computed, downloaded or packed for good, and neither folder is made.
    """
    from monosem.core.stage import closure, key, plan
    from monosem.core.store import Store
    from monosem.data.packed import packs_not_kept
    from monosem.datasets.cifar import no_downloads
    from monosem.running.local import tell_data
    from monosem.running.progress import Voice

    # Reading a spec opens its data, as what they hold is in the keys.
    with no_downloads(), packs_not_kept():
        spec = read_spec(flags)
        check_folder(Path(flags.runs, spec.name), "--runs")
        store = Store(store_folders(flags))
        tell_data(spec.experiments.values(), Voice(flags.quiet, flags.verbose))
    lines = _stage_lines(spec)
    stages = [stage for cell in spec.experiments.values() for stage in cell.stages]
    waves = plan(stages, store.has)
    for position, wave in enumerate(waves, 1):
        for stage in wave:
            print(f"wave {position}  to do  {lines[key(stage)]}")
    for stage in closure(stages):
        if store.has(stage):
            print(f"        there  {lines[key(stage)]}")
    missing = sum(map(len, waves))
    total = f"{missing} to compute, in {len(waves)} waves" if missing else "all there"
    print(f"{spec.name}: {total}{_of_cells(spec)}")
    return DONE


def _stage_lines(spec: Spec | Study | Inquiry) -> dict[str, str]:
    """Key and title of every stage, by its key; of a sweep with the first cell that needs it."""
    from monosem.core.stage import closure, key
    from monosem.running.progress import stage_label

    lines: dict[str, str] = {}
    for cell, experiment in spec.experiments.items():
        for stage in closure(experiment.stages):
            line = f"{key(stage)}  {stage_label(stage)}"
            lines.setdefault(key(stage), f"{line}  {cell}" if cell else line)
    return lines


def _of_cells(spec: Spec | Study | Inquiry) -> str:
    from monosem.specs.load import Spec

    return "" if isinstance(spec, Spec) else f", for {len(spec.experiments)} cells"
