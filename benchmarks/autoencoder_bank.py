"""Eight sparse autoencoders together, against the same eight one by one.

    python -m benchmarks.autoencoder_bank [--rounds 3] [--epochs 4] [--threads 1]

The setting is gin/sae.gin, on an encoder that is there already: 128 features of handwriting, 1024
latents, batches of 256. The eight are of TopK, BatchTopK, L1, Gated and JumpReLU. `fresh` sees two
augmented views of every image, which stages of equal shared_work share; `kept` reads features of
the store, which are not shared: there `together` is what sharing would give. Both sides have
checkpoints, measures of every epoch and a store of their own, and are timed in turn. CPU seconds of
the process and seconds of a clock, medians over the rounds; a ratio is together / one by one.

With --rounds 3 --epochs 2 on an Intel Xeon beside other work: fresh 4.8 CPU seconds one by one, 2.0
together, ratio 0.43 (0.41 to 0.47; by the clock 0.46, 0.45 to 0.54); kept 0.87 and 0.88, 1.03 (1.01
to 1.03; by the clock 0.92, 0.75 to 1.01).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

import monosem
from monosem.autoencoders.gated import L1, Gated
from monosem.autoencoders.jumprelu import JumpReLU
from monosem.autoencoders.topk import BatchTopK, TopK
from monosem.core.stage import closure
from monosem.core.store import Store
from monosem.models.autoencoder import SparseAutoencoder

KINDS = (
    TopK(8), TopK(16), TopK(32), BatchTopK(16), L1(0.1), L1(0.3), Gated(0.3), JumpReLU(),
)  # fmt: skip


def bank(epochs: int, kept: bool) -> list[SparseAutoencoder]:
    """The eight, of gin/sae.gin but for what is said above."""
    spec = monosem.load("gin/sae.gin", ["Pretrain.epochs = 1"])
    sae = spec.experiment.curves[0].encoder
    assert isinstance(sae, SparseAutoencoder)
    views = () if kept else sae.views
    sae = replace(sae, epochs=epochs, latents=1024, batch_size=256, views=views)
    return [replace(sae, sparsity=kind) for kind in KINDS]


def one_by_one(store: Store, stages: list[SparseAutoencoder]) -> None:
    for stage in stages:
        store.get_together([stage])


def together(store: Store, stages: list[SparseAutoencoder]) -> None:
    store.get_together(stages)


def timed(
    way: Callable[[Store, list[SparseAutoencoder]], None],
    stages: list[SparseAutoencoder],
    upstream: Path,
) -> tuple[float, float]:
    """CPU seconds and seconds, in a new store that has what is upstream."""
    with tempfile.TemporaryDirectory() as folder:
        for place in upstream.iterdir():
            Path(folder, place.name).symlink_to(place)
        store = Store(folder)
        cpu, clock = time.process_time(), time.perf_counter()
        way(store, stages)
        return time.process_time() - cpu, time.perf_counter() - clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as root:
        for name in ("fresh", "kept"):
            stages = bank(options.epochs, kept=name == "kept")
            upstream = Store(root)
            for stage in closure(stages):
                if not isinstance(stage, SparseAutoencoder):
                    upstream.get(stage)
            times: dict[str, list[tuple[float, float]]] = {"one by one": [], "together": []}
            for _ in range(options.rounds):
                for label, way in (("one by one", one_by_one), ("together", together)):
                    times[label].append(timed(way, stages, upstream.root))
            report(name, times)


def report(name: str, times: dict[str, list[tuple[float, float]]]) -> None:
    for number, what in enumerate(("CPU", "clock")):
        apart, bank = ([round[number] for round in rounds] for rounds in times.values())
        ratios = [b / a for a, b in zip(apart, bank, strict=True)]
        print(
            f"{name}, {what}: one by one {statistics.median(apart):.2f} s, "
            f"together {statistics.median(bank):.2f} s, ratio {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
