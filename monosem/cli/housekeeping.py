"""What looks after a store: --store-info, and --prune, which shows, asks and frees."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from monosem.cli.outcomes import DONE, UsageError
from monosem.cli.settings import is_read_only, store_folders

if TYPE_CHECKING:
    from monosem.keeping.found import RunFolder
    from monosem.keeping.upkeep import StoredFolder


def store_info(flags: argparse.Namespace) -> int:
    """Prints what each store holds and who needs it; nothing is touched."""
    from monosem.keeping.found import find_runs
    from monosem.keeping.upkeep import store_report

    folders = _stores_there(flags)
    runs = find_runs(Path(flags.runs))
    print("\n\n".join(store_report(folder, runs) for folder in folders))
    return DONE


def prune(flags: argparse.Namespace) -> int:
    """Frees what no run needs, or what is old, after showing it and asking."""
    from monosem.keeping.upkeep import StoreInUse, free, leftovers, size_text

    root = _store_to_prune(flags)
    chosen = _choose(flags, root)
    waiting = leftovers(root)
    if not chosen and not waiting:
        print(f"{root}: nothing to free")
        return DONE
    _show(flags, root, chosen, waiting)
    total = sum(one.size for one in chosen) + waiting
    if not flags.yes and not _agrees(f"free {size_text(total)} of {root}?"):
        print("nothing was freed")
        return DONE
    shown = {one.folder for one in chosen}
    try:
        freed = free(root, lambda: [one for one in _choose(flags, root) if one.folder in shown])
    except StoreInUse as error:
        raise UsageError(f"--prune: {error}") from None
    print(f"freed {size_text(freed)}")
    return DONE


def _show(
    flags: argparse.Namespace, root: Path, chosen: Sequence[StoredFolder], waiting: int
) -> None:
    """What would be freed, and for whom the rest is kept.

    waiting: the bytes that an earlier --prune has left to be removed.
    """
    from monosem.keeping.upkeep import choice_table, contents, needs, size_text

    runs = _runs_that_keep(flags)
    if chosen:
        print(choice_table(chosen, needs(runs, contents(root)).places))
    if waiting:
        print(f"{size_text(waiting)} are left to be removed of an earlier --prune")
    if flags.older is None:
        names = ", ".join(run.path.name for run in runs) or "none"
        print(f"kept: what the runs of {Path(flags.runs).absolute()} need ({names})")


def _choose(flags: argparse.Namespace, root: Path) -> list[StoredFolder]:
    """What is to be freed. Raises UsageError where it is not known what some run needs."""
    from monosem.keeping.upkeep import contents, needs, older, run_names, unneeded

    runs = _runs_that_keep(flags)
    kept = contents(root)
    if flags.older is not None:
        return older(kept, flags.older)
    needed = needs(runs, kept)
    if needed.unknown:
        one = needed.unknown[0].path
        raise UsageError(
            f"--prune: not known what {run_names(needed.unknown)} needs; compute it again, which "
            f"notes it, or say --forget {one}"
        )
    return unneeded(kept, needed)


def _store_to_prune(flags: argparse.Namespace) -> Path:
    folders = _stores_there(flags)
    if len(folders) > 1:
        raise UsageError("--prune frees from one store: name one --store")
    if is_read_only(folders[0]):
        raise UsageError(f"--store: the folder {folders[0]} cannot be written to")
    return folders[0]


def _stores_there(flags: argparse.Namespace) -> list[Path]:
    folders = store_folders(flags)
    if not folders[0].is_dir():
        raise UsageError(f"--store: there is no folder {folders[0]}")
    return folders


def _runs_that_keep(flags: argparse.Namespace) -> list[RunFolder]:
    """The runs whose artifacts are kept: all but those to be forgotten.

    Raises UsageError where there is no folder of runs: a mistyped name would free everything.
    """
    from monosem.keeping.found import find_runs

    folder = Path(flags.runs)
    if not folder.is_dir() and flags.older is None:
        raise UsageError(f"--runs: there is no folder {folder}, so not known what is needed")
    runs = find_runs(folder)
    forgotten = [Path(name).resolve() for name in flags.forget]
    present = [run.path.resolve() for run in runs]
    for name, path in zip(flags.forget, forgotten, strict=True):
        if path not in present:
            raise UsageError(f"--forget: {name} is no run folder in {folder}")
    return [run for run in runs if run.path.resolve() not in forgotten]


def _agrees(question: str) -> bool:
    """Whether the person says y; without a person, no."""
    print(f"{question} [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
