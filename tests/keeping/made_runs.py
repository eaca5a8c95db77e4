"""Run folders and stores that are made by hand: files of the right names, nothing computed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from monosem.results.rows import Row, table_text

CODE = {"commit": "0123456789abcdef", "clean": True}


def write_run(
    folder: Path, rows: Sequence[Row], needs: Iterable[str] | None = (), **record: Any
) -> Path:
    """A finished run folder.

    needs: the places that its record names; None: it has no record, as in former times.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "curves.csv").write_text(table_text(rows))
    if needs is not None:
        usual = {
            "complete": True,
            "started": "2026-01-02T03:00:00+0000",
            "finished": "2026-01-02T03:04:05+0000",
            "code": CODE,
            "stages": sorted(needs),
        }
        (folder / "provenance.json").write_text(json.dumps({**usual, **record}))
    return folder


def write_artifact(root: Path, place: str, size: int = 1000) -> Path:
    """A folder of the store that looks finished."""
    folder = root / place
    folder.mkdir(parents=True)
    (folder / "artifact.safetensors").write_bytes(bytes(size))
    manifest = {"key": folder.name, "files": {"artifact.safetensors": "0"}, "made": {}}
    (folder / "spec.json").write_text(json.dumps(manifest))
    return folder
