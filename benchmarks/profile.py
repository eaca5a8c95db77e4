"""Where the time of a command goes: a table, and a flame graph.

    python -m benchmarks.profile gin/ncl.gin [--out profile] [--threads 2]

The experiment is run whole, from an empty store, in this process. Every 5 ms the stack of the main
thread is looked at, and the time since the last look is put down to what it was in: so modules that
are imported count, and torch's own threads count as what waits for them. What is in the middle of
several things is the innermost of them; backward and optimiser are those of trained encoders, as
heads have their own. `profile.svg` opens in a browser, `profile.folded` is for other viewers.
"""

from __future__ import annotations

import argparse
import html
import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from benchmarks.machine import OtherLoad

SECONDS = 0.005  # between two looks
ROOMS = {  # of monosem/, or a file in one
    "data/augment.py": "augmentation",
    "data/": "data",
    "datasets/": "data",
    "corruptions/": "data",
    "probes/": "heads",
    "classifiers/": "heads",
    "metrics/": "metrics",
    "figures/": "pictures",
    "running/gallery.py": "pictures",
    "running/tensorboard.py": "TensorBoard",
    "core/store.py": "store",
    "core/files.py": "store",
    "core/identity.py": "store",
    "learning/optimizers.py": "optimiser",
    "learning/": "encoder forward",
    "models/": "encoder forward",
    "specs/": "reading Gin",
    "results/": "tables",
}
LOOP = "learning/loop.py"  # calls autograd and the optimiser
ENCODER = ("encoder forward", "encoder backward", "optimiser")

Stack = tuple[str, ...]


def frames_of(frame: FrameType | None) -> list[tuple[str, str]]:
    """(file, function), the outermost first."""
    found = []
    while frame is not None:
        found.append((frame.f_code.co_filename, frame.f_code.co_name))
        frame = frame.f_back
    return found[::-1]


def kind_of(frames: Sequence[tuple[str, str]]) -> str:
    """What a stack is in the middle of."""
    if any(file.startswith("<frozen importlib") for file, _ in frames):
        return "imports"
    for place in range(len(frames) - 1, -1, -1):
        file, _ = frames[place]
        _, found, room = file.rpartition("/monosem/")
        if not found:
            continue
        inner = frames[place:]
        if room == LOOP and any("/torch/autograd/" in each for each, _ in inner):
            return "encoder backward"
        if room == LOOP and any("/torch/optim/" in each for each, _ in inner):
            return "optimiser"
        named = [kind for prefix, kind in ROOMS.items() if room.startswith(prefix)]
        if named:
            return named[0]
    return "other"


class Sampler:
    """Looks at the main thread until it is told to stop.

    seconds: by kind.
    stacks: seconds by stack, of names.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.stacks: defaultdict[Stack, float] = defaultdict(float)
        self._is_over = threading.Event()
        self._main = threading.main_thread().ident
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        last = time.perf_counter()
        while not self._is_over.wait(SECONDS):
            frames = frames_of(sys._current_frames().get(self._main or 0))
            now = time.perf_counter()
            self.seconds[kind_of(frames)] += now - last
            self.stacks[tuple(map(_name, frames))] += now - last
            last = now


def _name(frame: tuple[str, str]) -> str:
    file, function = frame
    return f"{'/'.join(file.split('/')[-2:])}:{function}"


# The flame graph

WIDTH, ROW, LEAST = 1200.0, 16, 0.4  # pixels; narrower boxes are left out


def boxes(stacks: Mapping[Stack, float]) -> Iterator[tuple[Stack, float, float]]:
    """(path, where it begins, seconds) of every call, alphabetically beside one another."""
    totals: defaultdict[Stack, float] = defaultdict(float)
    for stack, seconds in stacks.items():
        for depth in range(1, len(stack) + 1):
            totals[stack[:depth]] += seconds
    begins: dict[Stack, float] = {}
    filled: defaultdict[Stack, float] = defaultdict(float)  # of a parent, by its children so far
    for path in sorted(totals):
        parent = path[:-1]
        begins[path] = begins.get(parent, 0.0) + filled[parent]
        filled[parent] += totals[path]
        yield path, begins[path], totals[path]


def flame_graph(stacks: Mapping[Stack, float]) -> str:
    """An SVG; what a box is and how long it took shows when the mouse is on it."""
    total = sum(stacks.values())
    scale = WIDTH / max(total, 1e-9)
    drawn = [
        (path, x * scale, seconds * scale, seconds)
        for path, x, seconds in boxes(stacks)
        if seconds * scale >= LEAST
    ]
    depth = max((len(path) for path, *_ in drawn), default=0)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH:.0f}" height="{ROW * depth}" '
        'font-family="sans-serif" font-size="11">'
    ]
    for path, x, width, seconds in drawn:
        y, name = ROW * (len(path) - 1), html.escape(path[-1])
        hue = sum(map(ord, path[-1])) % 60
        letters = int(width / 6.5)
        text = html.escape(path[-1][:letters]) if letters > 3 else ""
        lines.append(
            f"<g><title>{name}: {seconds:.2f} s, {100 * seconds / total:.1f} %</title>"
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 1}" '
            f'fill="hsl({hue} 80% 70%)"/><text x="{x + 2:.1f}" y="{y + 11}">{text}</text></g>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


def table(seconds: Mapping[str, float]) -> str:
    total = sum(seconds.values())
    ranked = sorted(seconds.items(), key=lambda item: -item[1])
    lines = [f"{kind:17} {took:7.2f} s  {100 * took / total:5.1f} %" for kind, took in ranked]
    encoder = sum(seconds.get(kind, 0.0) for kind in ENCODER)
    lines.append(f"{'all':17} {total:7.2f} s; encoder arithmetic {100 * encoder / total:.1f} %")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help="a Gin file of an experiment")
    parser.add_argument("--out", default="profile", help="of profile.svg and profile.folded")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--set", action="append", default=[], help="as of monosem")
    flags = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f}", flush=True)
    others = OtherLoad()
    with tempfile.TemporaryDirectory() as folder, Sampler() as sampler:
        from monosem.cli import main as monosem  # in here, so that imports are counted

        folders = ["--store", f"{folder}/store", "--runs", f"{folder}/runs"]
        bindings = [word for text in flags.set for word in ("--set", text)]
        arguments = ["--gin", flags.file, *folders, "--threads", flags.threads, *bindings]
        code = monosem([*arguments, "--quiet"])
    if code:
        return code
    Path(f"{flags.out}.svg").write_text(flame_graph(sampler.stacks))
    folded = [f"{';'.join(stack)} {1000 * s:.0f}\n" for stack, s in sampler.stacks.items()]
    Path(f"{flags.out}.folded").write_text("".join(folded))
    print(table(sampler.seconds))
    print(others.verdict())
    return 0


if __name__ == "__main__":
    sys.exit(main())
