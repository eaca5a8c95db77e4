"""Do monosemantic features make models more robust, and by how much?

    spec = monosem.load("ncl.gin", ["Pretrain.epochs = 20"])
    results = monosem.run(spec)
    results.curves  # a DataFrame

The names below are what a notebook or a class of one's own needs; docs/python.md shows them at
work. Each is imported when it is first used, so that `import monosem` takes no time.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what type checkers see; _HOMES says the same to Python
    from monosem.autoencoders.base import Sparsifier
    from monosem.code_losses.base import CodeLoss
    from monosem.core.fields import FieldError, Part
    from monosem.core.stage import Stage, StageError
    from monosem.core.store import Store
    from monosem.corruptions.base import Corruption
    from monosem.data.dataset import Augmentation, Dataset, Examples
    from monosem.data.images import ImageDataset
    from monosem.evaluation.experiment import Experiment
    from monosem.learning.encoders import Encoder
    from monosem.learning.objectives import Objective
    from monosem.metrics.base import Declaration, FeatureBatch, Metric, PerDimension
    from monosem.models.representation import Representation
    from monosem.probes.base import Probe
    from monosem.robustness.curves import Curve
    from monosem.running.local import export_saelens, features, run
    from monosem.specs.errors import SpecError
    from monosem.specs.load import load

__all__ = [
    "Augmentation", "CodeLoss", "Corruption", "Curve", "Dataset", "Declaration", "Encoder",
    "Examples", "Experiment", "FeatureBatch", "FieldError", "ImageDataset", "Metric", "Objective",
    "Part", "PerDimension", "Probe", "Representation", "Sparsifier", "SpecError", "Stage",
    "StageError", "Store", "export_saelens", "features", "load", "run",
]  # fmt: skip

_COMMANDS = ("monosem.__main__", "monosem.cli", "monosem.describing")

_HOMES = {
    "Augmentation": "data.dataset",
    "CodeLoss": "code_losses.base",
    "Corruption": "corruptions.base",
    "Curve": "robustness.curves",
    "Dataset": "data.dataset",
    "Declaration": "metrics.base",
    "Encoder": "learning.encoders",
    "Examples": "data.dataset",
    "Experiment": "evaluation.experiment",
    "FeatureBatch": "metrics.base",
    "FieldError": "core.fields",
    "ImageDataset": "data.images",
    "Metric": "metrics.base",
    "Objective": "learning.objectives",
    "Part": "core.fields",
    "PerDimension": "metrics.base",
    "Probe": "probes.base",
    "Representation": "models.representation",
    "Sparsifier": "autoencoders.base",
    "SpecError": "specs.errors",
    "Stage": "core.stage",
    "StageError": "core.stage",
    "Store": "core.store",
    "export_saelens": "running.local",
    "features": "running.local",
    "load": "specs.load",
    "run": "running.local",
}


def _refuse_what_is_no_command() -> None:
    """`python -m monosem.x` would end at once and say nothing: only the command itself runs."""
    if sys.argv[:1] != ["-m"]:  # Python has it so while it looks for the module
        return
    asked = sys.orig_argv[sys.orig_argv.index("-m") + 1] if "-m" in sys.orig_argv else ""
    if asked.startswith("monosem.") and asked not in _COMMANDS:
        print(f"{asked} is no command: python -m monosem --help", file=sys.stderr)
        raise SystemExit(2)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


_refuse_what_is_no_command()
