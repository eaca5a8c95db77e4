"""python -m monosem.cli: the same as python -m monosem."""

from __future__ import annotations

import sys

from monosem.cli import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m monosem"))
