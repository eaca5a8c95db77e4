"""Steps of every kind of sparse autoencoder, against the training classes of SAELens.

    python -m benchmarks.autoencoders [--rounds 5] [--kinds TopK L1] [--quality] [--clock]

A step is forward, loss, backward and Adam on the same 4096 x 512 features, 4096 latents; 32 of them
on where a kind is told a number. Ours are the stage's own losses, with everything that is logged;
theirs are training_forward_pass and the counts of their trainer, without its clipping. Both sides
start from the same weights and are timed in turn. Times are CPU seconds of the process, to which a
busy machine adds less than to those of a clock; with --clock those of a clock. A ratio is theirs /
ours, the median over the rounds. Peak memory is what a step allocates at most above what it found,
by torch's own profiler of allocations. With --quality both sides train equally long on the same
features, from the same weights, and explained variance and L0 on held-out rows stand side by side;
kinds that look at the batch do so there too, so that L0 is equal whatever their thresholds are.

Gave with --rounds 5 on one thread of an AMD EPYC, with priority over other work (load 16), CPU
seconds of a step of ours and theirs, the ratio, and megabytes of both:

    TopK           0.48  1.90  3.97  114  296
    BatchTopK      0.66  2.20  3.42  173  408
    Matryoshka     0.60  2.74  4.44  173  425
    L1             1.64  2.04  1.20  280  400
    Gated          2.76  4.49  1.75  416  616
    JumpReLU       1.85  2.69  1.43  344  488
    JumpReLU tanh  2.23  2.92  1.31  344  488

With --quality --steps 500 --seeds 3 explained variance, its spread over orders of batches, and L0:

    TopK           0.8077 +- 0.0004 (32.0)  0.8077 +- 0.0004 (32.0)
    BatchTopK      0.8026 +- 0.0005 (32.0)  0.8026 +- 0.0005 (32.0)
    Matryoshka     0.8498 +- 0.0002 (32.0)  0.8499 +- 0.0002 (32.0)
    L1             0.8607 +- 0.0003 (82.6)  0.8607 +- 0.0003 (82.6)
    Gated          0.8884 +- 0.0005 (88.2)  0.8797 +- 0.0005 (84.9)
    JumpReLU       0.6732 +- 0.0002 (22.8)  0.6732 +- 0.0002 (22.8)
    JumpReLU tanh  0.7914 +- 0.0002 (56.7)  0.7914 +- 0.0002 (56.7)

Gated is trained differently: ours freezes the decoder in the auxiliary error, as its paper does,
and theirs does not, the one difference that tests/autoencoders/test_against_saelens.py knows of. By
the thresholds that they would be saved with, BatchTopK has .8111 at L0 33.6 and .8128 at 34.0:
theirs starts its running mean at 0.

Needs sae-lens 6.54 and gin-config.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import sae_lens
import torch
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor

from monosem.autoencoders.base import Autoencoder, Sparsifier
from monosem.autoencoders.errors import SquaredError
from monosem.autoencoders.gated import L1, Gated
from monosem.autoencoders.jumprelu import JumpReLU, StepPrice, TanhPrice
from monosem.autoencoders.matryoshka import Matryoshka
from monosem.autoencoders.revival import AuxK
from monosem.autoencoders.topk import BatchTopK, TopK
from monosem.metrics.firing import Firing, explained_variance
from monosem.models.autoencoder import SparseAutoencoder

K = 32
TOP_K = {"k": K, "rescale_acts_by_decoder_norm": False, "aux_loss_coefficient": 1 / 32}
JUMP = {"jumprelu_bandwidth": 0.05, "jumprelu_init_threshold": 0.01}
PENALTY = 0.05


class Kind(NamedTuple):
    """One kind on both sides. theirs: the beginning of the names of SAELens's two classes."""

    ours: Sparsifier
    theirs: str
    settings: dict[str, Any]


def jump(price: Any, **fields: Any) -> JumpReLU:
    return JumpReLU(price, threshold=0.01, bandwidth=0.05, **fields)


def kinds(latents: int) -> dict[str, Kind]:
    tanh = {"jumprelu_sparsity_loss_mode": "tanh", "jumprelu_ste_to_input": True}
    sizes = (latents // 16, latents // 4)
    widths = {"matryoshka_widths": [*sizes, latents]}
    return {
        "TopK": Kind(TopK(K), "TopK", TOP_K),
        "BatchTopK": Kind(BatchTopK(K), "BatchTopK", TOP_K),
        "Matryoshka": Kind(
            Matryoshka(sizes, BatchTopK(K)), "MatryoshkaBatchTopK", {**TOP_K, **widths}
        ),
        "L1": Kind(L1(PENALTY), "Standard", {"l1_coefficient": PENALTY}),
        "Gated": Kind(Gated(PENALTY), "Gated", {"l1_coefficient": PENALTY}),
        "JumpReLU": Kind(jump(StepPrice(PENALTY)), "JumpReLU", {**JUMP, "l0_coefficient": PENALTY}),
        "JumpReLU tanh": Kind(
            jump(TanhPrice(PENALTY), to_encoder=True),
            "JumpReLU",
            {**JUMP, **tanh, "l0_coefficient": PENALTY},
        ),
    }


def features(rows: int, d: int, seed: int) -> Tensor:
    """Sums of a few of 2 d directions with a mean, as features of networks roughly are."""
    draw = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(2 * d, d, generator=draw), dim=1)
    draw.manual_seed(seed)
    on = torch.rand(rows, 2 * d, generator=draw) < 16 / (2 * d)
    return (on * torch.rand(rows, 2 * d, generator=draw)) @ directions + 0.1


class Ours:
    """The losses of the stage, and Adam."""

    def __init__(self, kind: Kind, d: int, latents: int, rate: float = 1e-3):
        torch.manual_seed(0)
        self.model = Autoencoder(d, latents, kind.ours, SquaredError())
        columns = torch.nn.functional.normalize(torch.randn(d, latents), dim=0)
        with torch.no_grad():
            self.model.decoder.weight.copy_(columns)
            self.model.encoder.weight.copy_(columns.T)
        revival = AuxK(1 / 32) if "k" in kind.settings else None
        labels = SimpleNamespace(labels=range(1000 * 4096))  # dead: off for 1000 steps
        data = SimpleNamespace(split=lambda name: labels)
        self.stage: Any = SimpleNamespace(
            revival=revival, data=data, batch_size=4096, code_losses=()
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=rate)
        self.firing = Firing()

    def step(self, x: Tensor) -> None:
        losses = SparseAutoencoder.losses(self.stage, self.model, x, self.firing)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        self.optimizer.step()

    def quality(self, x: Tensor) -> tuple[float, float]:
        with torch.no_grad():
            code = self.model(x)
        return quality(x, code.latents, code.reconstruction)


class Theirs:
    """SAELens's forward pass and what its trainer counts at every step, and Adam."""

    def __init__(self, kind: Kind, d: int, latents: int, rate: float = 1e-3):
        config = getattr(sae_lens, f"{kind.theirs}TrainingSAEConfig")
        model = getattr(sae_lens, f"{kind.theirs}TrainingSAE")
        self.model: Any = model(config(d_in=d, d_sae=latents, device="cpu", **kind.settings))
        torch.manual_seed(0)
        Autoencoder(d, latents, kind.ours)  # draws as many numbers
        columns = torch.nn.functional.normalize(torch.randn(d, latents), dim=0)
        with torch.no_grad():
            self.model.W_dec.copy_(columns.T)
            self.model.W_enc.copy_(columns)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=rate)
        self.since_fired = torch.zeros(latents)
        self.fired = torch.zeros(latents)
        self.coefficients = {
            name: getattr(value, "value", value)
            for name, value in self.model.get_coefficients().items()
        }

    def step(self, x: Tensor) -> None:
        output = self.model.training_forward_pass(
            TrainStepInput(
                sae_in=x,
                coefficients=self.coefficients,
                dead_neuron_mask=self.since_fired > 1000,
                n_training_steps=0,
                is_logging_step=False,
            )
        )
        with torch.no_grad():
            firing = (output.feature_acts > 0).float()
            self.since_fired += 1
            self.since_fired[firing.sum(0) > 0] = 0
            self.fired += firing.sum(0)
        self.optimizer.zero_grad()
        output.loss.backward()
        self.optimizer.step()

    def quality(self, x: Tensor) -> tuple[float, float]:
        with torch.no_grad():
            latents = self.model.encode(x)
            return quality(x, latents, self.model.decode(latents))


def quality(x: Tensor, latents: Tensor, reconstruction: Tensor) -> tuple[float, float]:
    """Explained variance and L0."""
    l0 = (latents > 0).float().sum(1).mean()
    return float(explained_variance(x, reconstruction)), float(l0)


def seconds(work: Callable[[], object], now: Callable[[], float]) -> float:
    started = now()
    work()
    return now() - started


def peak_megabytes(work: Callable[[], object]) -> float:
    """The most that is allocated at once in `work`, above what there was before."""
    with torch.profiler.profile(profile_memory=True) as profile:
        work()
    events = [event for event in profile.profiler.kineto_results.events()]
    changes = sorted(
        (event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"
    )
    total = peak = 0
    for _, change in changes:
        total += change
        peak = max(peak, total)
    return peak / 2**20


def chosen(flags: argparse.Namespace, latents: int) -> list[tuple[str, Kind]]:
    """The kinds that were asked for."""
    every = kinds(latents)
    return [(name, every[name]) for name in flags.kinds or every]


def speed(flags: argparse.Namespace) -> None:
    now = time.perf_counter if flags.clock else time.process_time
    x = features(flags.batch, flags.width, seed=1)
    print(f"{'kind':14} {'ours s':>7} {'theirs s':>8} {'ratio':>6} {'MB':>6} {'theirs':>6}")
    ratios = []
    for name, kind in chosen(flags, flags.latents):
        sides = [side(kind, flags.width, flags.latents) for side in (Ours, Theirs)]
        peaks = [peak_megabytes(lambda side=side: side.step(x)) for side in sides]
        times = [
            [seconds(lambda side=side: side.step(x), now) for side in sides]
            for _ in range(flags.rounds)
        ]
        ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(other / own for own, other in times)
        ratios.append(ratio)
        print(
            f"{name:14} {ours:7.2f} {theirs:8.2f} {ratio:6.2f} {peaks[0]:6.0f} {peaks[1]:6.0f}",
            flush=True,
        )
    print(f"median ratio {statistics.median(ratios):.2f}, least {min(ratios):.2f}")


def compare_quality(flags: argparse.Namespace) -> None:
    d, latents, batch = 64, 512, 256
    x, held_out = features(20_000, d, seed=1), features(4_000, d, seed=2)
    print(
        f"{'kind':14} explained variance (L0) of ours and theirs, {flags.seeds} orders of batches"
    )
    for name, kind in chosen(flags, latents):
        pairs = []
        for seed in range(flags.seeds):
            sides = [side(kind, d, latents) for side in (Ours, Theirs)]
            draw = torch.Generator().manual_seed(seed)
            for _ in range(flags.steps):
                rows = x[torch.randint(len(x), (batch,), generator=draw)]
                for side in sides:
                    side.step(rows)
            pairs.append([side.quality(held_out) for side in sides])
        for number, side in enumerate(("ours", "theirs")):
            variances = [pair[number][0] for pair in pairs]
            l0 = statistics.mean(pair[number][1] for pair in pairs)
            mean, spread = statistics.mean(variances), statistics.pstdev(variances)
            print(f"{name:14} {side:7} {mean:.4f} +- {spread:.4f} ({l0:.1f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--latents", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", action="store_true")
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", help="all of them if not given")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    compare_quality(flags) if flags.quality else speed(flags)


if __name__ == "__main__":
    main()
