"""What a run folder says about itself: which stages it needs, who made it when, and what it cost.

    provenance.json     of a run whose results are there: code, machine, command, times, stages
    unfinished.json     the same of one that has begun and whose results are not all there yet

Both name the stages by `<Stage>/<key>`, as the store does, so that nobody frees what a run needs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monosem.core.files import write_text
from monosem.core.provenance import now, provenance
from monosem.core.stage import Stage, key
from monosem.core.store import Store

RECORD, UNFINISHED = "provenance.json", "unfinished.json"
NAMED_KINDS = 4  # of stages in the line about costs; the others are added up


class Beginning(NamedTuple):
    """When a run began: for people, and as a clock that never jumps."""

    at: str
    clock: float


def place_of(stage: Stage) -> str:
    """Where a store keeps the artifact of a stage: Pretrain/0123456789abcdef0123."""
    return f"{type(stage).__name__}/{key(stage)}"


def begin(folder: Path, stages: Sequence[Stage]) -> Beginning:
    """Note that a run has begun, and what it needs.

    stages: all of them, upstream too.
    """
    beginning = Beginning(now(), time.monotonic())
    record = {"started": beginning.at, **provenance(), "stages": sorted(map(place_of, stages))}
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / UNFINISHED, json.dumps(record, indent=1))
    return beginning


def finish(
    folder: Path, stages: Sequence[Stage], beginning: Beginning, complete: bool = True
) -> None:
    """Note that the results are there.

    complete: False where some cells of a sweep are not.
    """
    record = {
        "complete": complete,
        "started": beginning.at,
        "finished": now(),
        "seconds": round(time.monotonic() - beginning.clock, 3),
        **provenance(),
        "stages": sorted(map(place_of, stages)),
    }
    write_text(folder / RECORD, json.dumps(record, indent=1))
    (folder / UNFINISHED).unlink(missing_ok=True)


def is_recorded(folder: Path, stages: Sequence[Stage]) -> bool:
    """Whether the folder says of just these stages that all results are there."""
    record = read_record(folder / RECORD)
    if record is None or not record.get("complete") or (folder / UNFINISHED).exists():
        return False
    return record["stages"] == sorted(map(place_of, stages))


def read_record(path: Path) -> dict[str, Any] | None:
    """What `begin` or `finish` wrote; None where it is not there or damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        is_whole = isinstance(record["stages"], list) and isinstance(record["started"], str)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(record) if is_whole else None


# Costs


def cost_line(
    store: Store, stages: Sequence[Stage], computed: Sequence[Stage], seconds: float
) -> str:
    """What a run cost, in one line.

    stages: all that it needs, upstream too.
    computed: those that were missing when it began.
    seconds: what it took, by the clock.
    """
    missing = set(map(place_of, computed))
    kinds: dict[str, float] = {}
    count, kept = 0, 0.0
    for stage in stages:
        own = _seconds(store, stage)
        if own is None:
            continue
        if place_of(stage) in missing:
            count += 1
            kind = type(stage).__name__
            kinds[kind] = kinds.get(kind, 0.0) + own
        else:
            kept += own
    of_kinds = f" ({_by_kind(kinds)})" if kinds else ""
    read = len({place_of(stage) for stage in stages} - missing)
    from_store = f"; {read} read from the store, which had taken {duration(kept)}" if read else ""
    return f"cost: {duration(seconds)} for {count} of {len(stages)} stages{of_kinds}{from_store}"


def _seconds(store: Store, stage: Stage) -> float | None:
    """The share of a stage in what was computed together with it; None: it has not finished."""
    made = store.provenance(stage)
    if not made:
        return None
    return float(made.get("seconds_in_last_process", 0.0)) / made.get("computed_together", 1)


def _by_kind(kinds: Mapping[str, float]) -> str:
    """Pretrain 8.1 s, FittedProbes 5.0 s: the dearest first."""
    ranked = sorted(kinds.items(), key=lambda item: -item[1])
    named = [f"{kind} {duration(seconds)}" for kind, seconds in ranked[:NAMED_KINDS]]
    rest = sum(seconds for _, seconds in ranked[NAMED_KINDS:])
    return ", ".join([*named, f"others {duration(rest)}"] if ranked[NAMED_KINDS:] else named)


def duration(seconds: float) -> str:
    """For people: 8.1 s, 12 min or 3.4 h."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
