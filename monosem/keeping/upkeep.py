"""The store's house: what is in it, who needs it, and freeing what may go.

What is freed is first moved to <root>/.pruned, artifact by artifact, and removed from there: a
process that ends in between leaves a store of whole artifacts, and the next --prune goes on.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from monosem.core.files import sole_lock
from monosem.core.store import IN_USE, MANIFEST, read_manifest
from monosem.keeping.found import RunFolder, places_needed
from monosem.results.formatting import markdown_table

PRUNED = ".pruned"
NAME = re.compile(r"([0-9a-f]{20})(\.partial|\.damaged\d*|)")  # others are not ours
DAY = 24 * 60 * 60
WHOLE, PARTIAL, DAMAGED = "whole", "begun", "damaged"


class StoreInUse(RuntimeError):
    """Something is at work in the store, so that nothing is freed."""


class StoredFolder(NamedTuple):
    """A folder of the store.

    place: `<Stage>/<key>`, by which runs name it; a begun and a damaged one have it too.
    state: WHOLE, PARTIAL (a stage that is being computed, or was) or DAMAGED (set aside).
    size: in bytes.
    made: when, in seconds since 1970.
    """

    folder: Path
    place: str
    state: str
    size: int
    made: float

    @property
    def kind(self) -> str:
        return self.folder.parent.name


class Needs(NamedTuple):
    """Who needs what.

    of_runs: by the name of a run folder, the places that it needs.
    unknown: the runs of which it cannot be told.
    """

    of_runs: dict[str, set[str]]
    unknown: list[RunFolder]

    @property
    def places(self) -> set[str]:
        return {place for places in self.of_runs.values() for place in places}


def contents(root: Path) -> list[StoredFolder]:
    """Everything that a store holds, by kind."""
    kinds = sorted(path for path in root.iterdir() if path.is_dir() and path.name != PRUNED)
    return [kept for kind in kinds for kept in _of_kind(kind)]


def _of_kind(kind: Path) -> Iterator[StoredFolder]:
    for folder in sorted(path for path in kind.iterdir() if path.is_dir()):
        found = NAME.fullmatch(folder.name)
        if found is None:
            continue
        name, ending = found.groups()
        is_whole = not ending and read_manifest(folder) is not None
        state = PARTIAL if ending == ".partial" else WHOLE if is_whole else DAMAGED
        with contextlib.suppress(FileNotFoundError):  # another process has just renamed it
            yield StoredFolder(folder, f"{kind.name}/{name}", state, _size(folder), _made(folder))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _made(folder: Path) -> float:
    manifest = folder / MANIFEST
    return (manifest if manifest.exists() else folder).stat().st_mtime


def needs(runs: Iterable[RunFolder], kept: Sequence[StoredFolder]) -> Needs:
    """What runs need; an artifact needs no other once it is there, but runs name all."""
    there = {one.place for one in kept}
    of_runs: dict[str, set[str]] = {}
    unknown = []
    for run in runs:
        places = places_needed(run, there)
        if places is None:
            unknown.append(run)
        else:
            of_runs[run.path.name] = places
    return Needs(of_runs, unknown)


# --store-info


def store_report(root: Path, runs: Sequence[RunFolder]) -> str:
    """What a store holds, by kind of stage and by run, in tables."""
    kept = contents(root)
    needed = needs(runs, kept)
    parts = [
        f"{root}: {_count(kept)}, of which no run folder needs {_count(unneeded(kept, needed))}",
        _kinds_table(kept, needed),
        _runs_table(kept, needed),
        *(f"{run.path}: not known what it needs" for run in needed.unknown),
    ]
    return "\n\n".join(filter(None, parts))


def _kinds_table(kept: Sequence[StoredFolder], needed: Needs) -> str:
    body = []
    for kind, own in _by_kind(kept):
        free = unneeded(own, needed)
        places = {one.place for one in own}
        runs = [name for name, wanted in needed.of_runs.items() if wanted & places]
        states = [sum(one.state == state for one in own) for state in (WHOLE, PARTIAL, DAMAGED)]
        body.append(
            (kind, *map(str, states), size_text(_total(own)), size_text(_total(free)), _few(runs))
        )
    header = ["kind of stage", WHOLE, PARTIAL, DAMAGED, "size", "needed by none", "needed by"]
    return markdown_table(header, body) if body else ""


def _runs_table(kept: Sequence[StoredFolder], needed: Needs) -> str:
    """What each run needs, and what would be free without it."""
    body = []
    for name, places in needed.of_runs.items():
        without = Needs({run: own for run, own in needed.of_runs.items() if run != name}, [])
        others = without.places
        there = [one for one in kept if one.place in places]
        alone = [one for one in there if one.place not in others]
        found = len({one.place for one in there if one.state == WHOLE})
        body.append(
            (name, f"{found} of {len(places)}", size_text(_total(there)), size_text(_total(alone)))
        )
    return markdown_table(["run", "artifacts here", "size", "its alone"], body) if body else ""


def _by_kind(folders: Iterable[StoredFolder]) -> list[tuple[str, list[StoredFolder]]]:
    """Folders of each kind of stage, the largest kind first."""
    kinds: dict[str, list[StoredFolder]] = {}
    for one in folders:
        kinds.setdefault(one.kind, []).append(one)
    return sorted(kinds.items(), key=lambda item: -_total(item[1]))


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more or "-"


# --prune


def unneeded(kept: Sequence[StoredFolder], needed: Needs) -> list[StoredFolder]:
    """What no run needs, and what is damaged."""
    places = needed.places
    return [one for one in kept if one.state == DAMAGED or one.place not in places]


def older(kept: Sequence[StoredFolder], days: float) -> list[StoredFolder]:
    """What was made more than so many days ago, whoever needs it."""
    limit = time.time() - days * DAY
    return [one for one in kept if one.made < limit]


def choice_table(chosen: Sequence[StoredFolder], places: set[str]) -> str:
    """What would be freed, by kind.

    places: what runs need, which would be computed again for them.
    """
    body = [
        (
            kind,
            str(len(own)),
            size_text(_total(own)),
            str(sum(one.place in places and one.state != DAMAGED for one in own)),
        )
        for kind, own in _by_kind(chosen)
    ]
    return markdown_table(["kind of stage", "to free", "size", "of them needed"], body)


def free(root: Path, choose: Callable[[], Sequence[StoredFolder]]) -> int:
    """Remove folders of a store; the number of bytes that are free now.

    choose: says which, while nothing else is at work in the store.

    Raises StoreInUse, with everything still there, where a run reads from the store or a stage is
    being computed.
    """
    with contextlib.ExitStack() as locks:
        if not locks.enter_context(sole_lock(root / IN_USE)):
            raise StoreInUse(f"{root} is in use by a run: nothing was freed")
        for one in contents(root):
            if one.state == PARTIAL and not locks.enter_context(sole_lock(one.folder)):
                raise StoreInUse(f"{one.place} is being computed: nothing was freed")
        waiting = leftovers(root)
        moved = [one for one in choose() if _move(root, one)]
        shutil.rmtree(root / PRUNED, ignore_errors=True)
    return _total(moved) + waiting


def leftovers(root: Path) -> int:
    """The bytes that an interrupted --prune has left to be removed."""
    return _size(root / PRUNED) if (root / PRUNED).is_dir() else 0


def _move(root: Path, one: StoredFolder) -> bool:
    """Take an artifact out of the store at once; False where it is gone already."""
    target = root / PRUNED / one.kind / one.folder.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)  # of an interrupted --prune
    try:
        one.folder.rename(target)
    except FileNotFoundError:
        return False
    return True


# For people


def _total(kept: Iterable[StoredFolder]) -> int:
    return sum(one.size for one in kept)


def _count(kept: Sequence[StoredFolder]) -> str:
    return f"{len(kept)} artifacts ({size_text(_total(kept))})"


def size_text(size: float) -> str:
    """512 B, 3.4 MB: thousands, as disks count."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def run_names(runs: Sequence[RunFolder]) -> str:
    """Some of their paths."""
    return _few([str(run.path) for run in runs])
