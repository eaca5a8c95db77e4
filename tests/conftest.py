"""What tests share: golden files, and a small experiment that goes the whole way in seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monosem.cli import main
from monosem.corruptions.label_noise import LabelNoise
from monosem.data.augment import ColorJitter, GaussianBlur, RandomResizedCrop, RandomRotation
from monosem.datasets.digits import Digits
from monosem.learning.encoders import Projector, SmallConv
from monosem.learning.objectives import NonNegative
from monosem.learning.optimizers import SGD, Constant, WarmupCosine
from monosem.models.pretrain import Pretrain
from monosem.models.representation import Embedding
from monosem.probes.linear import LinearProbe
from monosem.robustness.curves import Curve
from monosem.specs.study import Study, read

# Ray puts its processes last in line (15): where something else is busy they would starve.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112, as Ray spells it
if "PYTEST_XDIST_WORKER" in os.environ:  # with several workers, torch's threads would queue up
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start
    torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(os.environ.get("MONOSEM_GOLDEN", ROOT / "tests" / "golden"))

TINY = """
Pretrain.epochs = 2
Pretrain.encoder = @SmallConv()
SmallConv.channels = 4
SmallConv.features = 16
Projector.hidden = 16
Projector.features = 16
LinearProbe.epochs = 2
Curve.repeats = 2
Gallery.rows = 1
Gallery.images = 4
"""


PATIENCE = 900  # seconds after which a test gives up on a process; nothing is measured


@pytest.fixture
def golden() -> Callable[[str], dict[str, Any]]:
    """Reads a golden file: arrays as tensors, numbers and words as they are."""

    def read(name: str) -> dict[str, Any]:
        if name.endswith(".json"):
            return json.loads((GOLDEN / name).read_text())
        arrays = np.load(GOLDEN / f"{name}.npz", allow_pickle=False)
        return {
            key: torch.from_numpy(a) if (a := arrays[key]).dtype.kind in "fiu" and a.ndim else a[()]
            for key in arrays.files
        }

    return read


@pytest.fixture
def tiny_gin(tmp_path: Path) -> Path:
    """A Gin file that makes any of gin/*.gin small."""
    path = tmp_path / "tiny.gin"
    path.write_text(TINY)
    return path


def tiny_pretrain(**fields: Any) -> Pretrain:
    """A pre-training of a second."""
    standard: dict[str, Any] = {
        "data": Digits(size=8),
        "views": (RandomRotation(), RandomResizedCrop(), ColorJitter(), GaussianBlur()),
        "encoder": SmallConv(channels=4, features=16),
        "projector": Projector(hidden=16, features=16),
        "objective": NonNegative(),
        "optimizer": SGD(lr=0.05),
        "schedule": WarmupCosine(warmup=1.0),
        "epochs": 3,
        "batch_size": 256,
    }
    return Pretrain(**{**standard, **fields})


def tiny_curve(**fields: Any) -> Curve:
    """A curve of two severities on a pre-training of a second."""
    standard: dict[str, Any] = {
        "name": "label_noise",
        "encoder": Embedding(tiny_pretrain()),
        "data": Digits(size=8),
        "corruption": LabelNoise(),
        "probe": LinearProbe(SGD(lr=1.0), Constant(), epochs=2),
        "severities": (0.0, 0.5),
        "repeats": 2,
    }
    return Curve(**{**standard, **fields})


def here(
    capsys: pytest.CaptureFixture[str], *arguments: object
) -> subprocess.CompletedProcess[str]:
    """What python run.py with these arguments does, without starting a process."""
    capsys.readouterr()
    try:
        code = main([*map(str, arguments)], prog="run.py")
    except SystemExit as exit:  # argparse
        code = int(exit.code or 0)
    valid = capsys.readouterr()
    return subprocess.CompletedProcess(["run.py"], code, valid.out, valid.err)


def run(*arguments: object, cwd: Path = ROOT, **options: Any) -> subprocess.CompletedProcess[str]:
    """python run.py with these arguments."""
    command = [sys.executable, str(ROOT / "run.py"), *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, **options
    )


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """One Ray for all tests that do not end it: a node with two CPUs; a test may add nodes."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    yield cluster
    cluster.shutdown()


SMALL_SWEEP = f"""
{TINY}
Sweep.name = 'try'
Sweep.specs = ('gin/simclr.gin', 'gin/sae.gin')
"""


@pytest.fixture
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs in the folder that holds gin/ and sweeps/."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def read_sweep(tmp_path: Path) -> Callable[..., Study]:
    """Loads a small sweep of simclr.gin and sae.gin with more text in its file, and bindings."""

    def read_text(text: str, *bindings: str) -> Study:
        (tmp_path / "sweep.gin").write_text(SMALL_SWEEP + text)
        sweep = read([str(tmp_path / "sweep.gin")], bindings)
        assert isinstance(sweep, Study)
        return sweep

    return read_text
