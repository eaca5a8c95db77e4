"""How time and memory grow: every size doubled three times, and the exponent of each.

    python -m benchmarks.growth [--out growth.png] [--rounds 3]

Every measurement is a process of its own with one thread: CPU seconds of the work alone, the least
of the rounds, and how far the work raises the largest memory of the process. An exponent is the
slope of a line through the logarithms; 1 is a time that doubles with the size. Features are random.

    heads     linear probes of kept features, 10 epochs: images, dimensions, classes, heads
    measures  all but trees (FMS), of a representation: images, dimensions, classes
    trees     FMS: images, dimensions, classes
    cells     reading a sweep of gin/simclr.gin over training seeds
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.machine import OtherLoad
from benchmarks.metrics import features_of
from monosem.learning.optimizers import SGD, WarmupCosine
from monosem.metrics import ALL_METRICS
from monosem.metrics.trees import FeatureMonosemanticity
from monosem.probes.batched_probes import ProbeSpec
from monosem.probes.linear import LinearProbe

Sizes = dict[str, int]


class Measured(NamedTuple):
    """What is measured, and the sizes that are doubled."""

    prepare: Callable[..., Callable[[], object]]
    sizes: Sizes


def heads(images: int, dimensions: int, classes: int, heads: int) -> Callable[[], object]:
    batch = features_of(images, dimensions, classes, active=0.2)
    labels = batch.labels
    specs = [ProbeSpec(seed, torch.arange(images), labels.roll(seed)) for seed in range(heads)]
    probe = LinearProbe(SGD(lr=1.0), WarmupCosine(), epochs=10)
    return lambda: probe.fit(batch.features, classes, specs)


def measures(images: int, dimensions: int, classes: int) -> Callable[[], object]:
    batch = features_of(images, dimensions, classes, active=0.2)
    others = [one for one in ALL_METRICS if not isinstance(one, FeatureMonosemanticity)]
    return lambda: [metric(batch) for metric in others]


def trees(images: int, dimensions: int, classes: int) -> Callable[[], object]:
    batch = features_of(images, dimensions, classes, active=0.2)
    return lambda: FeatureMonosemanticity()(batch)


def cells(cells: int) -> Callable[[], object]:
    from monosem.specs.study import read

    with tempfile.NamedTemporaryFile("w", suffix=".gin", delete=False) as file:
        seeds = tuple(range(cells))
        file.write("Sweep.name = 's'\nSweep.specs = ('gin/simclr.gin',)\n")
        file.write(f"Sweep.grid = {{'Pretrain.seed': {seeds}}}\n")
    return functools.partial(read, [file.name])


MEASURED = {
    "heads": Measured(heads, {"images": 4000, "dimensions": 256, "classes": 20, "heads": 16}),
    "measures": Measured(measures, {"images": 1000, "dimensions": 128, "classes": 10}),
    "trees": Measured(trees, {"images": 1000, "dimensions": 64, "classes": 5}),
    "cells": Measured(cells, {"cells": 8}),
}


def cost(work: str, sizes: Sizes, rounds: int) -> tuple[float, float]:
    """CPU seconds, and MiB by which the work raises the largest memory. In a process of its own."""
    torch.set_num_threads(1)
    run = MEASURED[work].prepare(**sizes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took = []
    for _ in range(rounds):
        started = time.process_time()
        run()
        took.append(time.process_time() - started)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return min(took), (after - before) / 1024


def doubled(rounds: int) -> Iterator[tuple[str, str, list[int], list[tuple[float, float]]]]:
    """What is measured, the size that is doubled, its values, and the cost at each."""
    context = multiprocessing.get_context("spawn")
    for work, measured in MEASURED.items():
        for name, smallest in measured.sizes.items():
            values = [smallest * 2**power for power in range(4)]
            costs = []
            for value in values:
                with context.Pool(1) as process:
                    sizes = {**measured.sizes, name: value}
                    costs.append(process.apply(cost, (work, sizes, rounds)))
            yield work, name, values, costs


def exponent(values: list[int], costs: list[float]) -> float:
    """The slope of a line through the logarithms; nan where something costs nothing."""
    if min(costs) <= 0:
        return float("nan")
    return float(np.polyfit(np.log(values), np.log(costs), 1)[0])


def draw(found: list[tuple[str, str, list[int], list[float]]], path: Path) -> None:
    from matplotlib import pyplot

    from monosem.figures.style import MARKERS, open_frame, save

    works = list(dict.fromkeys(work for work, *_ in found))
    size = 3.2 * len(works), 3.0
    figure, panels = pyplot.subplots(1, len(works), figsize=size, layout="constrained")
    for panel, work in zip(panels, works, strict=True):
        lines = [line for line in found if line[0] == work]
        for index, (_, name, values, seconds) in enumerate(lines):
            ratios: Any = np.array(values) / values[0]
            label = f"{name}, {exponent(values, seconds):.2f}"
            panel.loglog(ratios, seconds, base=2, marker=MARKERS[index], markersize=4, label=label)
        panel.set_title(work)
        panel.set_xlabel("size, times the smallest")
        panel.legend(fontsize=7, frameon=False)
        open_frame(panel)
    panels[0].set_ylabel("CPU seconds")
    save(figure, "Each size doubled three times, with its exponent", path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("growth.png"))
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f}", flush=True)
    found, others = [], OtherLoad()
    for work, name, values, costs in doubled(flags.rounds):
        seconds, memory = [each[0] for each in costs], [each[1] for each in costs]
        found.append((work, name, values, seconds))
        print(
            f"{work:9} {name:11} {values[0]} to {values[-1]}: time {exponent(values, seconds):.2f}"
            f" ({seconds[0]:.2f} to {seconds[-1]:.2f} s), memory {exponent(values, memory):.2f} "
            f"({memory[0]:.0f} to {memory[-1]:.0f} MiB)",
            flush=True,
        )
    print(others.verdict())
    draw(found, flags.out)


if __name__ == "__main__":
    main()
