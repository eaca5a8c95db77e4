"""What a step of an adapter costs, against LoRA of peft on the same model.

    python -m benchmarks.adapters [--batch 16] [--tokens 24] [--rounds 30] [--threads 1]

The model is a BERT of MiniLM's size (6 layers, 384 features) with random weights, the targets are
query and value, rank 8, dropout .1. A step is forward, backward and Adam, here in the library's own
training loop. All sides are timed in turn on the same batches, so that a noisy machine hits all of
them; a ratio is the median over the rounds, with a 95 % interval by resampling rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from monosem.core.device import device, to_device
from monosem.learning.adapters import Adapter, LoRA, MonoLoRA
from monosem.learning.loop import TrainingLoop
from monosem.learning.optimizers import Constant

TARGETS = ("query", "value")
WIDTH = 384
JOB: Any = SimpleNamespace(
    restore=lambda: None,
    on_step=lambda *_: None,
    log=lambda *_, **__: None,
    save=lambda state: None,
)


class Classifier(nn.Module):
    """The mean of the last hidden states, and a linear classifier."""

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base, self.head = base, nn.Linear(WIDTH, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.base(input_ids=ids).last_hidden_state.mean(1))


def base() -> nn.Module:
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=WIDTH, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    return BertModel(config, add_pooling_layer=False)


def batches(flags: argparse.Namespace) -> Iterator[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(0)
    for _ in range(flags.steps):
        ids = torch.randint(1000, 30000, (flags.batch, flags.tokens), generator=draw)
        yield ids.to(device()), torch.arange(flags.batch, device=device()) % 2


def ours(adapter: Adapter, flags: argparse.Namespace) -> Callable[[], object]:
    network = Classifier(base().requires_grad_(False))
    learned = nn.ModuleList([adapter.attach(network.base), network.head])
    to_device(network).train()

    def losses(ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(network(ids), labels)}

    loop = TrainingLoop(
        module=learned,
        optimizer=torch.optim.Adam(learned.parameters(), lr=1e-4),
        schedule=Constant(),
        epochs=1,
        steps_per_epoch=flags.steps,
        batch_size=flags.batch,
        batches=lambda epoch: batches(flags),
        losses=losses,
    )
    return lambda: loop.run(JOB)


def theirs(flags: argparse.Namespace) -> Callable[[], object]:
    config = LoraConfig(r=8, lora_alpha=4, lora_dropout=0.1, target_modules=list(TARGETS))
    network = to_device(Classifier(get_peft_model(base(), config))).train()
    learned = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=1e-4)

    def run() -> None:
        for ids, labels in batches(flags):
            optimizer.zero_grad()
            F.cross_entropy(network(ids), labels).backward()
            optimizer.step()

    return run


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--steps", type=int, default=5, help="in a row, of one side")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    sides = {
        "LoRA of peft": theirs(flags),
        "LoRA": ours(LoRA(targets=TARGETS), flags),
        "MonoLoRA": ours(MonoLoRA(targets=TARGETS), flags),
    }
    for run in sides.values():
        run()  # warm up
    took = np.array([[seconds(run) for run in sides.values()] for _ in range(flags.rounds)])
    draws = np.random.default_rng(0).integers(flags.rounds, size=(2000, flags.rounds))
    for name, column in zip(sides, took.T, strict=True):
        ratios = column / took[:, 0]
        low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
        print(
            f"{name}: {1000 * np.median(column) / flags.steps:.1f} ms a step, "
            f"{np.median(ratios):.3f} times peft's ({low:.3f} to {high:.3f}), "
            f"{flags.rounds} rounds of {flags.steps} steps"
        )


if __name__ == "__main__":
    main()
