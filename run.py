"""Run experiments that Gin files describe: python run.py --gin gin/ncl.gin"""

from __future__ import annotations

import sys

from monosem.cli import main

if __name__ == "__main__":
    sys.exit(main(prog="run.py"))
