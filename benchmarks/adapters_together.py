"""Several adapters on one frozen model: what is the quickest way to train them on two cores?

    python -m benchmarks.adapters_together [--members 4] [--batch 16] [--tokens 24] [--rounds 5]

`in turn` is one process that trains them one after another, with all threads. `trials` is what a
sweep does with `--jobs`: a process for every thread, each with one thread and its share of them.
`one batch` puts the batches of all members together for one pass of the model. It is a bound: here
the members share one adapter, so that what a member's own would add is left out; and it would not
give the numbers of a member alone, as a transformer draws its dropout for a whole batch.

The model is that of benchmarks.adapters, with LoRA. All ways take the same number of steps of every
member, and are timed in turn by the clock; a ratio is to `in turn`, median and range.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.pool import Pool

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.adapters import TARGETS, Classifier, base
from monosem.learning.adapters import LoRA


def train(members: int, batch: int, tokens: int, steps: int) -> None:
    """Steps of adapters on the CPU, one adapter after another."""
    for _ in range(members):
        network, learned = _network()
        optimizer = torch.optim.Adam(learned.parameters(), lr=1e-4)
        labels = torch.arange(batch) % 2
        for _ in range(steps):
            ids = torch.randint(1000, 30000, (batch, tokens))
            optimizer.zero_grad()
            F.cross_entropy(network(ids), labels).backward()
            optimizer.step()


_made: list[tuple[nn.Module, nn.Module]] = []


def _network() -> tuple[nn.Module, nn.Module]:
    """One a process: to read a model is no part of what is timed."""
    if not _made:
        network = Classifier(base().requires_grad_(False))
        learned = nn.ModuleList([LoRA(targets=TARGETS).attach(network.base), network.head])
        _made.append((network.train(), learned))
    return _made[0]


def warm_up(threads: int) -> None:
    torch.set_num_threads(threads)
    train(1, 2, 8, 1)


def ways(flags: argparse.Namespace, pool: Pool) -> dict[str, Callable[[], object]]:
    members, batch, tokens, steps = flags.members, flags.batch, flags.tokens, flags.steps
    share = (members // flags.threads, batch, tokens, steps)
    return {
        "in turn": lambda: train(members, batch, tokens, steps),
        "trials": lambda: pool.starmap(train, [share] * flags.threads, chunksize=1),
        "one batch": lambda: train(1, members * batch, tokens, steps),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=4, help="a multiple of --threads")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--steps", type=int, default=5, help="of every member")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    flags = parser.parse_args()
    if flags.members % flags.threads:
        parser.error(f"--members must be a multiple of {flags.threads}, got {flags.members}")
    with multiprocessing.get_context("spawn").Pool(flags.threads, warm_up, (1,)) as pool:
        warm_up(flags.threads)
        took: dict[str, list[float]] = {}
        for _ in range(flags.rounds):
            for name, way in ways(flags, pool).items():
                started = time.perf_counter()
                way()
                took.setdefault(name, []).append(time.perf_counter() - started)
    for name, seconds in took.items():
        ratios = [one / other for one, other in zip(took["in turn"], seconds, strict=True)]
        print(
            f"{name}: {statistics.median(seconds):.2f} s, {statistics.median(ratios):.2f} times as "
            f"fast as in turn ({min(ratios):.2f} to {max(ratios):.2f}, {flags.rounds} rounds)"
        )


if __name__ == "__main__":
    main()
