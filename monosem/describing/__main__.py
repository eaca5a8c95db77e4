"""python -m monosem.describing [PAGE]: writes the tables of docs/parts.md anew."""

from __future__ import annotations

import sys
from pathlib import Path

from monosem.describing.catalog import catalog
from monosem.describing.page import renewed

if __name__ == "__main__":
    parts = [part for part in catalog() if part.is_own]
    page = Path(*sys.argv[1:2] or ["docs/parts.md"])
    page.write_text(renewed(page.read_text("utf-8"), parts), "utf-8")
    print(f"written: {page}")
