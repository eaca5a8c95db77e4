"""The stages that evaluate a representation: its features, its curves under corruption, its monosemanticity."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import gin
import torch
from torch import Tensor, nn

from monosem.corruptions import Corruption
from monosem.curves import MONOSEMANTICITY
from monosem.data import Dataset, Split
from monosem.fit import device
from monosem.metrics import Metric
from monosem.probes import Bank, Head, LinearProbe, topk_accuracy
from monosem.stage import Artifact, Count, Job, Label, Part, Stage, StageError, generator, seed_for
from monosem.training import Representation

CHUNK = 500  # images in one pass through an encoder; fixed, as noise is drawn chunk by chunk


@torch.no_grad()
def encode(network: nn.Module, data: Dataset, images: Tensor, corrupt: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    """(n, c, h, w) uint8 -> (n, d) features of the normalised and then corrupted images, one pass for every image."""
    chunks = images.split(CHUNK)
    features = torch.cat([network(corrupt(data.normalise(chunk.to(device()).float() / 255))) for chunk in chunks])
    if not features.isfinite().all():
        raise StageError("the features of some images are not finite numbers: look at what was corrupted or trained")
    return features


@dataclass(frozen=True)
class Features(Stage):
    """The clean features of a split: computed once, probed many times. Artifact: features (n, width); passes: images encoded."""

    encoder: Representation
    data: Dataset
    split: Split

    def upstream(self) -> tuple[Stage, ...]:
        return self.encoder.stages

    def run(self, job: Job) -> Artifact:
        images = self.data.split(self.split).images
        features = encode(self.encoder.network(job.get), self.data, images)
        job.log(1, 1, encoder_passes=len(images))
        return {"features": features, "passes": torch.tensor(len(images))}


class Result(NamedTuple):
    """One number of a table: `value` of `metric`, measured on `n` images."""

    severity: float
    repeat: int
    metric: str
    value: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Measurement(Stage):
    """A stage whose artifact is numbers for the table. name: what they are called there."""

    name: Label = ""
    encoder: Representation
    data: Dataset

    @property
    def axis(self) -> str:
        """What the severity of its results is, with its unit."""
        raise NotImplementedError

    def results(self, artifact: Artifact) -> Iterator[Result]:
        raise NotImplementedError


@gin.register
@dataclass(frozen=True, kw_only=True)
class Curve(Measurement):
    """Accuracy of a probe on a representation, at every severity of a corruption, several times over.

    data: what the probe is trained and tested on. severities: the points of the curve, in units of the corruption.
    repeats: independent draws of the corruption and of the probe, from which the intervals come.
    Artifact: top1, top5: (severities, repeats) percent of the test images; passes: images encoded for this curve alone.
    """

    probe: LinearProbe
    corruption: Corruption
    severities: tuple[float, ...]
    repeats: Count = 5

    @property
    def axis(self) -> str:
        return self.corruption.axis

    def validate(self) -> None:
        if not re.fullmatch(r"[\w.+-]*", self.name) or self.name.startswith(MONOSEMANTICITY):
            self.refuse("name", f"must be a word of letters, digits and . _ + - other than {MONOSEMANTICITY}, got {self.name!r}")
        if not self.severities:
            self.refuse("severities", "must hold at least one severity, got ()")
        if max(map(abs, self.severities)) > 1e9:
            self.refuse("severities", f"must be at most 1e9, got {max(map(abs, self.severities)):g}")
        if len(set(self.severities)) < len(self.severities):
            self.refuse("severities", f"must differ from one another, got {self.severities}")

    def preflight(self) -> None:
        if flaw := self.data.flaw():
            self.refuse("data", flaw)
        if self.encoder.channels not in (None, self.data.channels):
            self.refuse("data", f"must have {self.encoder.channels} channels like the images of the encoder, got {self.data.channels}")
        labels = self.data.split("train").labels
        for severity in self.severities:
            try:
                self.corruption.check_severity(severity, labels)
            except ValueError as error:
                self.refuse("severities", str(error))
        self.probe.check_size(len(labels))

    def splits(self) -> tuple[Features, Features]:
        return Features(self.encoder, self.data, "train"), Features(self.encoder, self.data, "test")

    def upstream(self) -> tuple[Stage, ...]:
        encoders = self.encoder.stages if any(map(self.corruption.touches_images, self.severities)) else ()
        return (*encoders, *self.splits())

    def draw(self, repeat: int) -> torch.Generator:
        """Neither the encoder nor the severity is among what names the noise; and it is drawn on the CPU, so that encoders
        measured on different devices meet the same."""
        return generator(type(self.corruption).__name__, repeat, self.data)

    def head(self, severity: float, repeat: int, labels: Tensor) -> Head:
        told = self.corruption.labels(labels, self.data.classes, severity, self.draw(repeat))
        examples = self.corruption.examples(labels, severity, self.draw(repeat))
        return Head(seed_for("probe", repeat), examples, told)

    def run(self, job: Job) -> Artifact:
        seen, clean = (job.get(stage)["features"].to(device()) for stage in self.splits())
        labels, (images, truth) = self.data.split("train").labels, self.data.split("test")
        truth = truth.to(device())
        pixel = 1 / torch.tensor(self.data.std, device=device())[:, None, None]
        cells = [(severity, repeat) for severity in self.severities for repeat in range(self.repeats)]
        bank, member = self.fit(seen, [self.head(*cell, labels) for cell in cells])

        network, passes, scores = None, 0, []
        for cell, (severity, repeat) in enumerate(cells):
            features = clean
            if self.corruption.touches_images(severity):
                network = network or self.encoder.network(job.get)
                draw = self.draw(repeat)
                features = encode(network, self.data, images, lambda x: self.corruption.images(x, pixel, severity, draw))  # noqa: B023
                passes += len(images)
            logits = bank.logits(features, member[cell])
            scores.append([topk_accuracy(logits, truth, k) for k in (1, 5)])
        job.log(1, 1, encoder_passes=passes)
        top1, top5 = torch.tensor(scores, dtype=torch.float64).reshape(len(self.severities), self.repeats, 2).unbind(-1)
        return {"top1": top1, "top5": top5, "passes": torch.tensor(passes)}

    def fit(self, features: Tensor, heads: list[Head]) -> tuple[Bank, list[int]]:
        """The bank of the heads that differ, and which of its members each head is. Input noise has one head a repeat."""
        different: dict[tuple[object, ...], int] = {}
        member = []
        for head in heads:
            name = (head.seed, head.examples.numpy().tobytes(), head.labels.numpy().tobytes())
            member.append(different.setdefault(name, len(different)))
        chosen = [heads[member.index(number)] for number in range(len(different))]
        return self.probe.fit(features, self.data.classes, chosen), member

    def results(self, artifact: Artifact) -> Iterator[Result]:
        n = len(self.data.split("test").labels)
        for metric in ("top1", "top5"):
            for i, severity in enumerate(self.severities):
                for repeat in range(self.repeats):
                    yield Result(severity, repeat, metric, artifact[metric][i, repeat].item(), n)


@dataclass(frozen=True, kw_only=True)
class Monosemanticity(Measurement):
    """How monosemantic a representation is on the clean test split. Artifact: one number a name, float64."""

    metrics: tuple[Metric, ...]

    @property
    def axis(self) -> str:
        return "clean test images"

    def features(self) -> Features:
        return Features(self.encoder, self.data, "test")

    def upstream(self) -> tuple[Stage, ...]:
        return (self.features(),)

    def names(self) -> list[str]:
        """What its metrics find."""
        return list(self.measure(torch.eye(6, 4), torch.arange(6) % 3))

    def preflight(self) -> None:
        try:
            self.names()
        except ValueError as error:
            self.refuse("metrics", str(error))

    def measure(self, features: Tensor, labels: Tensor) -> dict[str, float]:
        """What all metrics find. ValueError where two give one name to what they find, or something is no number."""
        values: dict[str, float] = {}
        for metric in self.metrics:
            for name, value in metric(features, labels).items():
                if name in values:
                    raise ValueError(f"must find each thing once, got {name} twice, the second time from {metric}")
                if not isinstance(value, int | float):
                    raise ValueError(f"must find numbers, got {value!r} as {name} from {metric}")
                values[name] = value
        return values

    def run(self, job: Job) -> Artifact:
        values = self.measure(job.get(self.features())["features"], self.data.split("test").labels)
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}

    def results(self, artifact: Artifact) -> Iterator[Result]:
        n = len(self.data.split("test").labels)
        for name in artifact:
            yield Result(0.0, 0, name, artifact[name].item(), n)


@gin.register
@dataclass(frozen=True, kw_only=True)
class Experiment(Part):
    """One experiment: curves under one name, and the monosemanticity of every representation among them.

    name: of the folder under runs/ and of the lines in TensorBoard. curves: a curve is called by its Gin scope.
    metrics: measured for every representation that a curve probes.
    """

    name: Label
    curves: tuple[Curve, ...]
    metrics: tuple[Metric, ...]

    def validate(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", self.name):
            self.refuse("name", f"must be a folder's name of letters, digits and . _ + -, got {self.name!r}")
        if not self.curves:
            self.refuse("curves", "must hold at least one curve, got ()")
        if not self.metrics:
            self.refuse("metrics", "must hold at least one metric: monosemanticity is measured beside every accuracy, got ()")
        names = [curve.name for curve in self.curves]
        if not all(names):
            self.refuse("curves", "must have names: a scope in Gin, or Curve.name")
        if len(set(names)) < len(names):
            self.refuse("curves", f"must have different names, got {', '.join(names)}")

    @property
    def measures(self) -> tuple[Monosemanticity, ...]:
        probed: dict[tuple[Representation, Dataset], str] = {}
        for curve in self.curves:
            probed.setdefault((curve.encoder, curve.data), f"{MONOSEMANTICITY}/{curve.name}")
        return tuple(
            Monosemanticity(name=name if len(probed) > 1 else MONOSEMANTICITY, encoder=encoder, data=data, metrics=self.metrics)
            for (encoder, data), name in probed.items()
        )

    @property
    def stages(self) -> tuple[Measurement, ...]:
        return (*self.curves, *self.measures)
