"""Accuracy under the common corruptions: a bar for every corruption and severity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import gin
import torch
from torch import Tensor, nn

from monosem.common_corruptions.base import SEVERITIES, CommonCorruption
from monosem.common_corruptions.blur import (
    CommonGaussianBlur,
    DefocusBlur,
    GlassBlur,
    MotionBlur,
    ZoomBlur,
)
from monosem.common_corruptions.digital import (
    Contrast,
    ElasticTransform,
    JPEGCompression,
    Pixelate,
    Saturate,
)
from monosem.common_corruptions.noise import (
    CommonGaussianNoise,
    ImpulseNoise,
    ShotNoise,
    SpeckleNoise,
)
from monosem.common_corruptions.weather import Brightness, Fog, Frost, Snow, Spatter
from monosem.core.device import device
from monosem.core.fields import Count, Range
from monosem.core.stage import Artifact, Job, Stage
from monosem.models.features import encode
from monosem.probes.base import Classifier, HeadClassifier, Probe, Task, clean_task
from monosem.robustness.measurement import Point, Result, Series, accuracies, accuracies_of

CLEAN = Point("clean", 0)
PUBLISHED: tuple[CommonCorruption, ...] = (  # in the order of the paper's tables
    CommonGaussianNoise(),
    ShotNoise(),
    ImpulseNoise(),
    DefocusBlur(),
    GlassBlur(),
    MotionBlur(),
    ZoomBlur(),
    Snow(),
    Frost(),
    Fog(),
    Brightness(),
    Contrast(),
    ElasticTransform(),
    Pixelate(),
    JPEGCompression(),
)
EXTRA: tuple[CommonCorruption, ...] = (  # to choose settings on; no part of the published mean
    SpeckleNoise(),
    CommonGaussianBlur(),
    Spatter(),
    Saturate(),
)
Reader = tuple[nn.Module, Callable[[Tensor], Tensor]]  # a network, then logits of its features


@gin.register
@dataclass(frozen=True, kw_only=True)
class CommonCorruptions(Series):
    """Accuracy of a probe under the common corruptions of Hendrycks and Dietterich (2019).

    The probe learns from the clean training set, once for all corruptions. Its points are 'clean',
    then every corruption by its published name, at every severity.

    data: images; the probe is trained on them and tested on their corrupted test split.
    probe: what is trained on clean features, once for all corruptions.
    corruptions: the published fifteen, unless others are listed. The four extra ones (appendix B of
        the paper) are listed in gin/common_corruptions/extra.gin.
    severities: whole numbers from 1 to 5.
    repeats: independent draws of the random corruptions and of the probe.

    Artifact:
        top1, top5  (points, repeats)  float64, in percent
        passes      ()                 how many inputs passed through the encoder for this alone
    """

    probe: Probe
    corruptions: tuple[CommonCorruption, ...] = PUBLISHED
    severities: tuple[Annotated[int, Range(1, SEVERITIES)], ...] = (1, 2, 3, 4, 5)
    repeats: Count = 5

    @property
    def metrics(self) -> tuple[str, ...]:
        return accuracies(self.data)

    @property
    def axis(self) -> str:
        return f"severity of common corruptions, 1 to {SEVERITIES}"

    @property
    def steps(self) -> tuple[tuple[CommonCorruption, int], ...]:
        """Every corruption at every severity, in the order of the points."""
        return tuple((kind, severity) for kind in self.corruptions for severity in self.severities)

    @property
    def points(self) -> tuple[Point, ...]:
        return CLEAN, *(Point(kind.published, severity) for kind, severity in self.steps)

    def validate(self) -> None:
        super().validate()
        for field in ("corruptions", "severities"):
            if not getattr(self, field):
                self.refuse(field, "must hold at least one, got ()")
            self.refuse_repeated(field)

    def preflight(self) -> None:
        if problem := self.data.problem() or self.encoder.incompatibility(self.data):
            self.refuse("data", problem)
        for corruption in self.corruptions:
            if mismatch := corruption.incompatibility(self.data):
                self.refuse("data", mismatch)
        self.probe.check_data(self.data)
        self.probe.check_width(self.encoder.width)

    @property
    def task(self) -> Task:
        """What is asked of the probe: to learn from the clean training set."""
        return clean_task(self.encoder, self.data, self.repeats)

    def upstream(self) -> tuple[Stage, ...]:
        test = self.probe.test_stages(self.encoder, self.data)
        return (*self.encoder.stages, *self.probe.upstream(self.task), *test)

    def run(self, job: Job) -> Artifact:
        labels = self.data.split("test").labels.to(device())
        classifiers = list(self.probe.classifiers(self.task, job))
        readers = self._readers(classifiers, job)
        clean = self.probe.test_logits(self.task, classifiers, self.data, job)
        values = [[*accuracies_of(logits, labels).values()] for logits in clean]
        passes = 0
        for corruption, severity in self.steps:
            features: dict[tuple[nn.Module, int], Tensor] = {}  # one entry a pass
            for repeat, (network, head) in enumerate(readers):
                draw = repeat if corruption.is_random else 0
                if (network, draw) not in features:
                    features[network, draw] = self._encoded(network, corruption, severity, draw)
                    passes += len(labels)
                logits = head(features[network, draw])
                values.append([*accuracies_of(logits, labels).values()])
        job.log(1, 1, encoder_passes=passes)
        table = torch.tensor(values, dtype=torch.float64).reshape(-1, self.repeats, 2)
        top1, top5 = table.unbind(2)
        return {
            "top1": top1.contiguous(),
            "top5": top5.contiguous(),
            "passes": torch.tensor(passes),
        }

    def _readers(self, classifiers: list[Classifier], job: Job) -> list[Reader]:
        """For every repeat; heads of one encoder share its network."""
        shared = self.encoder.network(job.get)
        return [
            (shared, classifier.head)
            if isinstance(classifier, HeadClassifier)
            else (classifier.network(job), nn.Identity())
            for classifier in classifiers
        ]

    def _encoded(
        self, network: nn.Module, corruption: CommonCorruption, severity: int, repeat: int
    ) -> Tensor:
        """What a network makes of the corrupted test split."""
        generator = corruption.draw(repeat, self.data)
        return encode(
            network,
            self.data,
            self.data.split("test").inputs,
            lambda inputs: corruption.inputs(inputs, self.data, severity, generator),
        )

    def results(self, artifact: Artifact) -> Iterator[Result]:
        n = len(self.data.split("test").labels)
        for metric in self.metrics:
            for point, values in zip(self.points, artifact[metric].tolist(), strict=True):
                for repeat, value in enumerate(values):
                    yield Result(point.severity, repeat, metric, value, n, point.name)
