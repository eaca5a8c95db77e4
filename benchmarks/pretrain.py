"""What a step of the paper's CIFAR pre-training costs (ResNet-18, projector 16384 and 2048).

    python -m benchmarks.pretrain [--batch 64] [--rounds 5] [--compile]

Three sides: here; here with one constant batch, so without data; and the reference's way of doing
it, written down as a baseline. That has PIL images augmented one by one by torchvision in worker
processes, the projector computed twice a view, LARS by a loop over parameters that waits for every
norm, and statistics by loops over dimensions on the first batch of an epoch (its seconds are shared
among the steps of an epoch of 50,000 images).

The sides are timed in turn, so that a noisy machine hits all of them; ratios are medians over the
rounds, with their range. On a GPU also the share of its measured matrix rate. The paper's files ask
for half precision, which is bfloat16 on a CPU that has instructions for it; the reference on a CPU
has single precision.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from monosem.core.device import Precision, autocast_dtype, compiled, device, to_device
from monosem.core.identity import generator
from monosem.data.augment import (
    ColorJitter,
    GaussianBlur,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    uniform,
)
from monosem.data.dataset import Examples, SplitName
from monosem.data.images import ImageDataset
from monosem.learning.encoders import Network, Projector, ResNet
from monosem.learning.loop import TrainingLoop
from monosem.learning.objectives import Contrastive, OnlineClassifier
from monosem.learning.optimizers import LARS, WarmupCosine
from monosem.models.pretrain import Pretrain

IMAGES, CLASSES, EPOCH = 2048, 100, 50_000
REFERENCE = "reference's way"
MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)


class Noise(ImageDataset):
    """As many images as there are here, of CIFAR's size: what is in them costs nothing."""

    def load(self, split: SplitName) -> Examples:
        draw = generator("benchmark")
        coarse = torch.randint(256, (IMAGES, 3, 8, 8), generator=draw, dtype=torch.uint8)
        return Examples(
            coarse.repeat_interleave(4, 2).repeat_interleave(4, 3), torch.arange(IMAGES) % CLASSES
        )


def stage(batch: int, precision: Precision) -> Pretrain:
    views = (
        RandomResizedCrop(),
        ColorJitter(),
        RandomGrayscale(),
        GaussianBlur(),
        RandomHorizontalFlip(),
    )
    return Pretrain(
        data=Noise(MEAN, STD),
        views=views,
        encoder=ResNet(18, stem_padding=2),
        projector=Projector(16384, 2048),
        objective=Contrastive(),
        classifier=OnlineClassifier(joint=True),
        optimizer=LARS(lr=0.4, weight_decay=1e-4),
        schedule=WarmupCosine(),
        epochs=1,
        batch_size=batch,
        precision=precision,
    )


class Stop(Exception):
    """Enough steps were taken."""


class Clock:
    """A job that is told of every step, and stops after `steps` of them."""

    def __init__(self, steps: int):
        self.left, self.started = steps + 1, 0.0

    def restore(self) -> None:
        return None

    def on_step(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            settle()
            raise Stop
        if not self.started:
            settle()
            self.started = time.perf_counter()


def settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_a_step(run: Callable[[Clock], object], steps: int) -> float:
    clock = Clock(steps)
    with contextlib.suppress(Stop):
        run(clock)
    return (time.perf_counter() - clock.started) / steps


def ours(training: Pretrain, network: Network, constant: bool) -> Callable[[Clock], object]:
    groups: list[dict[str, Any]] = [{"params": [*network.parameters()]}]
    quick = compiled(network)

    def losses(*batch: Tensor) -> dict[str, Tensor]:
        return training.losses(quick, *batch)

    def represent(views: Tensor) -> Tensor:
        return training.embed(network(views)[1])

    if not constant:
        from_data = functools.partial(
            training.train, module=network, groups=groups, losses=losses, represent=represent
        )
        return from_data  # type: ignore[return-value]
    index = torch.arange(training.batch_size, device=device()).repeat(2)
    batch = (
        torch.randn(2 * training.batch_size, 3, 32, 32, device=device()),
        index,
        index % CLASSES,
    )

    def batches(epoch: int) -> Iterator[tuple[Tensor, ...]]:
        while True:
            yield batch

    optimizer = training.optimizer.build(groups)
    loop = TrainingLoop(
        module=network,
        optimizer=optimizer,
        schedule=training.schedule,
        epochs=1,
        steps_per_epoch=10**6,
        batch_size=training.batch_size,
        batches=batches,
        losses=losses,
        precision=training.precision,
    )
    return loop.run  # type: ignore[return-value]


class Pictures(Dataset[tuple[int, list[Tensor], int]]):
    def __init__(self) -> None:
        images, labels, _ = Noise(MEAN, STD).load("train")
        self.pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
        self.labels = labels.tolist()
        draw = generator("blur")
        self.view = transforms.Compose(
            [
                transforms.RandomResizedCrop(
                    32, (0.08, 1.0), interpolation=transforms.InterpolationMode.BICUBIC
                ),
                transforms.RandomApply([transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
                transforms.RandomGrayscale(0.2),
                transforms.RandomApply(
                    [
                        lambda image: image.filter(
                            ImageFilter.GaussianBlur(float(uniform(0.1, 2, 1, draw)))
                        )
                    ],
                    0.5,
                ),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> tuple[int, list[Tensor], int]:
        return index, [self.view(self.pictures[index]) for _ in range(2)], self.labels[index]


def loop_lars(
    parameters: list[nn.Parameter], momenta: dict[nn.Parameter, Tensor], lr: float
) -> None:
    for p in parameters:
        assert p.grad is not None
        step = p.grad
        if p.ndim != 1:
            size, slope = p.data.norm(), p.grad.norm()
            if size != 0 and slope != 0:
                trust = min(
                    0.02 * float(size) / (float(slope) + 1e-4 * float(size) + 1e-8) / lr, 1.0
                )
                step = (p.grad + 1e-4 * p.data) * trust
        momenta[p] = momenta[p] * 0.9 + step if p in momenta else step.clone()
        p.data.add_(momenta[p], alpha=-lr)


def loop_statistics(z: Tensor, labels: Tensor) -> float:
    z = F.normalize(z, dim=1)
    shares = []
    for dimension in range(z.shape[1]):
        active = labels[z[:, dimension].abs() > 1e-5]
        if len(active):
            counts = active.bincount().float()
            shares.append((counts / counts.sum()).max().item())
    values = torch.linalg.svdvals(z.float())
    columns = F.normalize(z, dim=0)
    return (
        statistics.fmean(shares) + float(values.sum()) + float((columns.T @ columns).abs().mean())
    )


def theirs(network: Network, batch: int) -> tuple[Callable[[Clock], object], Callable[[], object]]:
    """Their epoch, and their statistics of one batch."""
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = DataLoader(
        Pictures(), batch, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True
    )
    parameters, momenta = list(network.parameters()), {}  # type: ignore[var-annotated]
    scaler = torch.amp.GradScaler("cuda", enabled=device().type == "cuda")

    def epoch(clock: Clock) -> None:
        torch.use_deterministic_algorithms(False)
        try:
            steps(clock)
        finally:
            torch.use_deterministic_algorithms(True, warn_only=True)

    def steps(clock: Clock) -> None:
        while True:
            for index, views, labels in loader:
                index, labels = index.to(device()), labels.to(device())
                with torch.autocast("cuda", torch.float16, enabled=device().type == "cuda"):
                    raw, losses = [], []
                    for view in views:
                        features = network.backbone(view.to(device()))
                        network.projector(features)
                        losses.append(F.cross_entropy(network.classifier(features), labels))
                        raw.append(network.projector(features))
                    loss = Contrastive()(torch.cat(raw), index.repeat(2)) + sum(losses) / 2
                for p in parameters:
                    p.grad = None
                scaler.scale(loss).backward()
                if scaler.is_enabled():
                    gradients = [p.grad for p in parameters]
                    torch._foreach_div_(gradients, scaler.get_scale())  # type: ignore[arg-type]
                loop_lars(parameters, momenta, 0.4)
                clock.on_step()

    z, labels = (
        torch.randn(2 * batch, 2048, device=device()),
        torch.arange(2 * batch, device=device()) % CLASSES,
    )
    return epoch, lambda: loop_statistics(z, labels)


def matrix_rate() -> float:
    """Products in half precision, multiplications and additions a second."""
    a = torch.randn(8192, 8192, device=device(), dtype=torch.float16)
    a @ a
    settle()
    started = time.perf_counter()
    for _ in range(20):
        a @ a
    settle()
    return 20 * 2 * 8192**3 / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument(
        "--compile", action="store_true", help="compile the network here, as run.py --compile does"
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "float16"),
        default="float16",
        help="of both sides on a GPU; here on a CPU",
    )
    flags = parser.parse_args()
    os.environ["MONOSEM_COMPILE"] = "1" if flags.compile else ""
    training = stage(flags.batch, flags.precision)

    def network() -> Network:
        return to_device(training.build().train())

    reference_epoch, reference_statistics = theirs(network(), flags.batch)
    sides = {
        "here": ours(training, network(), False),
        "constant batch": ours(training, network(), True),
        REFERENCE: reference_epoch,
    }
    took = time_sides(sides, reference_statistics, flags)
    report(took, flags)


def time_sides(
    sides: dict[str, Callable[[Clock], object]],
    reference_statistics: Callable[[], object],
    flags: argparse.Namespace,
) -> dict[str, list[float]]:
    """Seconds a step of every side, one for each round."""
    for side in sides.values():
        seconds_a_step(side, 1)  # warm up
    took: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(flags.rounds):
        for name, side in sides.items():
            took[name].append(seconds_a_step(side, flags.steps))
        started = time.perf_counter()
        reference_statistics()
        settle()
        took[REFERENCE][-1] += (time.perf_counter() - started) / (EPOCH // flags.batch)
    return took


def report(took: dict[str, list[float]], flags: argparse.Namespace) -> None:
    precision = f"{autocast_dtype(flags.precision)}{', compiled' if flags.compile else ''}"
    print(f"batch {flags.batch}, products in {precision}; the reference's on a CPU in float32")
    for name, seconds in took.items():
        print(f"{name}: {flags.batch / statistics.median(seconds):.1f} images/s")
    for name in ("constant batch", REFERENCE):
        ratios = sorted(other / here for other, here in zip(took[name], took["here"], strict=True))
        ends = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        print(
            f"here, times {name}: {statistics.median(ratios):.2f} ({ends}), {flags.rounds} rounds"
        )
    if torch.cuda.is_available():
        # multiplications and additions of a forward pass and twice that backward, of two views
        work = 3 * 2 * flags.batch * 2 * (0.628e9 + 42e6)
        print(f"{work / statistics.median(took['here']) / matrix_rate():.0%} of the matrix rate")


if __name__ == "__main__":
    main()
