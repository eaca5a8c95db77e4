"""What a study costs here, beside the reference's protocol, on equal encoders.

    python -m benchmarks.study [--rounds 6] [--store DIR] [--specs FILE ...]

Here: the curves of an experiment and the features that they need, from trained encoders.
The reference's protocol, written down as a baseline: one job for every severity and repeat, which
reads fresh crops of its training images in every epoch, passes each of them through the encoder
three times a step, updates one head, and passes the whole test split through it three times after
every epoch. Nothing is kept between jobs.

A round takes one spec: all its curves here, then one job of every curve, drawn at random. The time
of all jobs is the mean of those drawn of a curve times their number. So the baseline is
extrapolated, and its passes are counted by the formula that the jobs that ran obey. Heads have the
same rate, schedule and scale of features on both sides; the accuracies are compared.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.machine import OtherLoad
from monosem.core.identity import generator
from monosem.core.stage import Stage, closure
from monosem.core.store import Store
from monosem.data.augment import RandomResizedCrop
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.pretrain import Pretrain
from monosem.probes.linear import LinearProbe
from monosem.robustness.curves import Curve
from monosem.running.local import compute_missing
from monosem.specs.load import Spec
from monosem.specs.study import read

PASSES_A_STEP = 3  # of the authors' code: base_forward, the loss, and the metrics, each anew
TRAINED = (Pretrain, SparseAutoencoder)
CROPS = (RandomResizedCrop(scale=(0.5, 1.0)),)  # as gin/digits.gin crops for the objective


class Job(NamedTuple):
    """A probe of the baseline.

    draw: its position in the curve, severity by severity.
    """

    curve: Curve
    draw: int


class Round(NamedTuple):
    """What one round measured.

    here: seconds of all curves of a spec.
    passes: encoder passes that they took.
    all_jobs: seconds of all jobs of the spec by the protocol, extrapolated from those that ran.
    all_passes: encoder passes of all jobs.
    jobs: of each job that ran, its accuracy by the protocol and here, in percent.
    """

    here: float
    passes: int
    all_jobs: float
    all_passes: int
    jobs: list[tuple[float, float]]


class Counter:
    """Counts the inputs that go through the first layer of a network."""

    def __init__(self) -> None:
        self.inputs = 0

    def __call__(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if isinstance(module, nn.Conv2d) and module.in_channels == 1:  # images are grey
            self.inputs += len(arguments[0])


@contextmanager
def counted() -> Iterator[Counter]:
    counter = Counter()
    hook = nn.modules.module.register_module_forward_pre_hook(counter)
    try:
        yield counter
    finally:
        hook.remove()


def training_set(job: Job) -> tuple[Tensor, Tensor]:
    """The inputs and labels that the probe of a job learns from."""
    seen = job.curve.task.probe_specs()[job.draw]
    images = job.curve.data.split("train").inputs[seen.examples]
    return images, seen.labels[seen.examples]


def passes_of(job: Job) -> int:
    """Encoder passes of a job by the protocol."""
    probe = linear_probe(job.curve)
    images, _ = training_set(job)
    tested = len(job.curve.data.split("test").labels)
    return probe.epochs * PASSES_A_STEP * (len(images) + tested)


def linear_probe(curve: Curve) -> LinearProbe:
    assert isinstance(curve.probe, LinearProbe), "the protocol is of a linear probe"
    return curve.probe


def passed(network: nn.Module, images: Tensor) -> Tensor:
    """Features of a batch, by as many passes as the protocol makes of it."""
    for _ in range(PASSES_A_STEP):
        features = network(images)
    return features


@torch.no_grad()
def scale_of(network: nn.Module, images: Tensor) -> float:
    """The root of the mean squared norm of the features, as LinearProbe.rescale takes it."""
    return float(network(images).square().sum(1).mean().sqrt())


def fit_by_protocol(job: Job, network: nn.Module) -> float:
    """Fit and test the probe of one job as the reference does it; its last accuracy in percent."""
    probe, data, task = linear_probe(job.curve), job.curve.data, job.curve.task
    images, labels = training_set(job)
    draw = generator("benchmark", job.draw)
    scale = scale_of(network, data.prepare(data.split("train").inputs))
    head = nn.Linear(job.curve.encoder.width, data.classes)
    optimizer = probe.optimizer.build([{"params": list(head.parameters())}])
    batches = -(-len(images) // probe.batch_size)
    severity, repeat = task.draws[job.draw]
    accuracy = 0.0
    for epoch in range(probe.epochs):
        order = torch.randperm(len(images), generator=draw)
        for position, batch in enumerate(order.split(probe.batch_size)):
            step = epoch * batches + position
            rate = probe.schedule.rate(probe.optimizer.lr, step, probe.epochs * batches, batches)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.no_grad():
                features = passed(network, data.augment(images[batch], CROPS, draw)) / scale
            optimizer.zero_grad()
            F.cross_entropy(head(features), labels[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            for _ in range(PASSES_A_STEP):
                tested = task.encode_test(network, severity, repeat)
            right = head(tested / scale).argmax(1) == data.split("test").labels
            accuracy = 100 * float(right.float().mean())
    return accuracy


def accuracy_here(store: Store, job: Job) -> float:
    severity, repeat = divmod(job.draw, job.curve.repeats)
    return float(store.get(job.curve)["top1"][severity, repeat])


def curves_of(spec: Spec) -> list[Curve]:
    return [stage for stage in spec.experiment.curves if isinstance(stage, Curve)]


def copy_trained(trained: Store, stages: Sequence[Stage], root: Path) -> Store:
    """A store that holds the trained encoders alone."""
    store = Store(root)
    for stage in closure(stages):
        if isinstance(stage, TRAINED):
            shutil.copytree(trained.folder(stage), store.folder(stage))
    return store


def measure(spec: Spec, trained: Store, draw: torch.Generator) -> Round:
    """One spec: all its curves here, then a drawn job of every curve by the protocol."""
    curves = curves_of(spec)
    with tempfile.TemporaryDirectory() as folder:
        store = copy_trained(trained, curves, Path(folder))
        with counted() as counter:
            started = time.perf_counter()
            compute_missing(store, curves)
            here = time.perf_counter() - started
        jobs, all_jobs, all_passes = [], 0.0, 0
        for curve in curves:
            drawn = Job(curve, int(torch.randint(len(curve.task.draws), (), generator=draw)))
            seconds, accuracy = run_by_protocol(drawn, store)
            passes = sum(passes_of(Job(curve, draw)) for draw in range(len(curve.task.draws)))
            jobs.append((accuracy, accuracy_here(store, drawn)))
            all_jobs += seconds / passes_of(drawn) * passes
            all_passes += passes
    return Round(here, counter.inputs, all_jobs, all_passes, jobs)


def run_by_protocol(job: Job, store: Store) -> tuple[float, float]:
    """Seconds and accuracy of a job; it must make as many passes as the formula says."""
    network = job.curve.encoder.network(store.get).eval()
    with counted() as counter:
        started = time.perf_counter()
        accuracy = fit_by_protocol(job, network)
        seconds = time.perf_counter() - started
    for_scale = len(job.curve.data.split("train").labels)  # one pass more, none of the protocol's
    assert counter.inputs - for_scale == passes_of(job), "the formula counts what ran"
    return seconds, accuracy


def in_words(values: Sequence[float], digits: int = 0) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} (range {low:,.{digits}f} to {high:,.{digits}f})"


def report(rounds: Sequence[Round], training: float) -> None:
    here, all_jobs = [r.here for r in rounds], [r.all_jobs for r in rounds]
    ratios = [r.all_jobs / r.here for r in rounds]
    with_training = [(r.all_jobs + training) / (r.here + training) for r in rounds]
    print(f"seconds of all curves of a spec, here: {in_words(here, 1)}")
    print(f"seconds by the protocol, extrapolated: {in_words(all_jobs)}")
    print(f"ratio: {in_words(ratios)}")
    print(f"training of its encoders: {training:.1f} s a spec; ratio with it: ", end="")
    print(in_words(with_training))
    passes = [r.all_passes / r.passes for r in rounds]
    print(
        f"encoder passes, here: {in_words([r.passes for r in rounds])}; by the protocol: ", end=""
    )
    print(f"{in_words([r.all_passes for r in rounds])}; ratio {in_words(passes)}")
    differences = [there - ours for r in rounds for there, ours in r.jobs]
    spread = statistics.stdev(differences) / len(differences) ** 0.5
    print(
        f"accuracy by the protocol less that here, {len(differences)} probes: "
        f"{statistics.mean(differences):+.2f} points, standard error {spread:.2f}"
    )


def training_seconds(trained: Store, specs: Sequence[Spec]) -> float:
    """Seconds of training encoders, a spec; one that two specs share is counted once."""
    stages = {stage for spec in specs for stage in closure(curves_of(spec))}
    made = [
        trained.provenance(s)["seconds_in_last_process"] for s in stages if isinstance(s, TRAINED)
    ]
    return sum(made) / len(specs)


def passes_at_paper_size() -> None:
    """ImageNet-100: 126,689 and 5,000 images, 50 epochs, 9 severities, 5 repeats, label noise."""
    train, test, epochs, jobs = 126_689, 5_000, 50, 45
    protocol = jobs * epochs * PASSES_A_STEP * (train + test)
    kept, fresh = train + test, epochs * train + test
    print(
        f"passes of one curve at the paper's size, counted: by the protocol {protocol:,}; here "
        f"{kept:,} with kept views ({protocol / kept:,.0f} times fewer), {fresh:,} with fresh ones "
        f"({protocol / fresh:,.0f} times fewer)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--store", default="store", help="where the encoders are, or will be")
    parser.add_argument(
        "--specs", nargs="+", default=["gin/simclr.gin", "gin/ncl.gin", "gin/sae.gin"]
    )
    flags = parser.parse_args()
    specs = [read([file], []) for file in flags.specs]
    assert all(isinstance(spec, Spec) for spec in specs), "a spec each, no sweep"
    trained = Store(flags.store)
    for spec in specs:
        compute_missing(trained, [s for s in closure(curves_of(spec)) if isinstance(s, TRAINED)])
    draw = generator("study")
    threads, others = torch.get_num_threads(), OtherLoad()
    print(f"{threads} threads, torch {torch.__version__}, load before {os.getloadavg()[0]:.2f}")
    rounds = [measure(specs[i % len(specs)], trained, draw) for i in range(flags.rounds)]
    report(rounds, training_seconds(trained, specs))
    passes_at_paper_size()
    print(others.verdict())


if __name__ == "__main__":
    main()
