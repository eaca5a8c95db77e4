"""What a sweep costs over the work itself: trivial cells through Ray Tune, and the same in process.

    python -m benchmarks.sweep [CELLS]

Every cell is an encoder of its own, trained for one epoch of one step: six stages a cell, and the
pixels of the test images once. Afterwards the same command again, which computes nothing, and the
driver's memory on the way.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRIVIAL = """
Sweep.name = 'trivial'
Sweep.specs = ('gin/simclr.gin',)
Sweep.grid = {'Pretrain.seed': %seeds}
Experiment.curves = (@label_noise/Curve(),)
label_noise/Curve.severities = (0.0, 0.5)
Curve.repeats = 1
LinearProbe.epochs = 1
LinearProbe.batch_size = 1437
Digits.size = 8
Pretrain.views = ()
Pretrain.epochs = 1
Pretrain.batch_size = 1437
SmallConv.channels = 1
SmallConv.features = 2
Projector.hidden = 2
Projector.features = 2
"""
WATCH_SECONDS = 0.5
SHARES = (0.1, 0.4, 0.7, 0.95)  # of the stages, at which the driver's memory is printed


def memory(pid: int) -> int:
    """MiB that a process holds; 0 once it has ended."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") // 2**20


def run(folder: Path, file: Path) -> tuple[float, dict[int, int]]:
    """Seconds that run.py takes, and its memory by the number of stages that were finished then."""
    places = ["--runs", str(folder / "runs"), "--store", str(folder / "store")]
    command = [sys.executable, "run.py", "--gin", str(file), *places]
    sizes: dict[int, int] = {}
    started = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            if size := memory(process.pid):
                sizes[len(list((folder / "store").glob("*/*/spec.json")))] = size
            time.sleep(WATCH_SECONDS)
    assert process.returncode == 0
    return time.perf_counter() - started, sizes


def in_process(folder: Path, file: Path) -> float:
    """Seconds that the stages alone take here, with as many threads as a trial has."""
    import torch

    from monosem.core.store import Store
    from monosem.specs.study import Study, read

    torch.set_num_threads(1)
    asked = read([str(file)])
    assert isinstance(asked, Study)
    store = Store(folder)
    started = time.perf_counter()
    for cell in asked.cells:
        for stage in cell.experiment.stages:
            store.get(stage)
    return time.perf_counter() - started


def main(cells: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        file = folder / "trivial.gin"
        file.write_text(TRIVIAL.replace("%seeds", str(tuple(range(cells)))))
        work = in_process(folder / "alone", file)
        whole, sizes = run(folder, file)
        again, _ = run(folder, file)
    jobs = os.cpu_count() or 1
    stages = max(sizes)
    tax = (whole - work / jobs) / cells
    print(
        f"{cells} cells, {stages} stages, {jobs} at a time: {whole:.1f} s under Ray, "
        f"{work:.1f} s of work one by one in process"
    )
    print(f"tax: {tax:.2f} s per cell; the same command again: {again:.1f} s")
    counts = [min(sizes, key=lambda count: abs(count - stages * share)) for share in SHARES]
    on_the_way = ", ".join(f"{sizes[count]} MiB after {count} stages" for count in counts)
    print(f"driver: {on_the_way}, {sizes[stages]} MiB while gathering")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
