"""A report: its sweeps one after the other, then its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monosem.core.files import lock
from monosem.core.run_record import begin, finish
from monosem.core.store import Store
from monosem.inquiries.load import Inquiry
from monosem.inquiries.write import write
from monosem.questions.answers import AGAINST, FOR, OPEN
from monosem.running.sweep import all_stages, run_sweep
from monosem.running.trials import RunOptions


def run_report(
    inquiry: Inquiry, folder: Path, root: Path | Sequence[Path], options: RunOptions
) -> bool:
    """Compute whatever is missing, then write the folder of the report and those of its sweeps.

    Killed at any moment, the same call goes on where it was, as every sweep does.

    Returns whether no cell failed.
    """
    store = Store(root)
    stages = [stage for one in inquiry.studies.values() for stage in all_stages(one)]
    with lock(folder), store.in_use():
        beginning = begin(folder, stages)
        is_whole = True
        for position, (name, one) in enumerate(inquiry.studies.items(), 1):
            options.voice.note(f"sweep {position} of {len(inquiry.studies)}: {name}")
            is_whole &= run_sweep(one, folder / name, root, options)
        told = write(inquiry, folder, store)
        finish(folder, stages, beginning, complete=is_whole)
    for position, each in enumerate(told, 1):
        counts = ", ".join(f"{each.count(verdict)} {verdict}" for verdict in (AGAINST, FOR, OPEN))
        print(f"{position}. {each.question.text}\n   {counts}")
    print(f"{folder}/ has index.html, the report in one page, and answers.csv, its numbers")
    return is_whole
