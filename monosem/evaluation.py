"""The stages that evaluate a representation: its curves under corruption, its monosemanticity; and an experiment of both."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, ClassVar, NamedTuple

import gin
import torch
import torch.nn.functional as F
from torch import Tensor

from monosem.bank import Head, topk_accuracy
from monosem.corruptions import Corruption
from monosem.curves import MONOSEMANTICITY
from monosem.data import Dataset
from monosem.fit import device
from monosem.metrics import TRUTH, FactorInformation, Finding, Metric, PerDimension, Seen, by_activity, precision_at
from monosem.portrait import Portrait
from monosem.probes import Features, LinearProbe, Probe, Task
from monosem.stage import Artifact, Count, FieldError, Job, Label, Part, Range, Stage, StageError, seed_for
from monosem.stats import rank_correlation
from monosem.training import Pixels, Representation


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


@dataclass(frozen=True, kw_only=True)
class Series(Measurement):
    """A measurement at several severities: a curve in the figures.

    severities: its points. Artifact: a tensor (severities, repeats) for every metric, in percent; passes: images encoded for it alone.
    """

    severities: tuple[float, ...]
    metrics: ClassVar[tuple[str, ...]]  # the first one is drawn

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
        if flaw := self.data.flaw() or self.encoder.misfit(self.data):
            self.refuse("data", flaw)
        for severity in self.severities:
            try:
                self.check_severity(severity)
            except ValueError as error:
                self.refuse("severities", str(error))

    def check_severity(self, severity: float) -> None:
        """ValueError, saying what it must be, where it is none for this data."""

    def results(self, artifact: Artifact) -> Iterator[Result]:
        n = len(self.data.split("test").labels)
        for metric in self.metrics:
            for severity, values in zip(self.severities, artifact[metric].tolist(), strict=True):
                for repeat, value in enumerate(values):
                    yield Result(severity, repeat, metric, value, n)


@gin.register
@dataclass(frozen=True, kw_only=True)
class Curve(Series):
    """Accuracy of a probe on a representation, at every severity of a corruption, several times over.

    data: what the probe is trained and tested on. severities: the points of the curve, in units of the corruption.
    repeats: independent draws of the corruption and of the probe, from which the intervals come.
    company: what the curves ask, this one among them, whose heads are fitted together; the experiment says it, for probes that want it.
    """

    probe: Probe
    corruption: Corruption
    repeats: Count = 5
    company: tuple[Task, ...] = ()
    metrics = ("top1", "top5")

    @property
    def axis(self) -> str:
        return self.corruption.axis

    def check_severity(self, severity: float) -> None:
        self.corruption.check_severity(severity, self.data.split("train").labels)

    def preflight(self) -> None:
        super().preflight()
        self.probe.check_size(len(self.data.split("train").labels))

    @property
    def task(self) -> Task:
        values = {field.name: getattr(self, field.name) for field in fields(Task)}
        return Task(**values)

    def upstream(self) -> tuple[Stage, ...]:
        return self.probe.upstream(self.task, self.company)

    def run(self, job: Job) -> Artifact:
        truth, passes, scores = self.data.split("test").labels.to(device()), 0, []
        for answer in self.probe.answers(self.task, self.company, job):
            scores.append([topk_accuracy(answer.logits, truth, k) for k in (1, 5)])
            passes += answer.passes
        job.log(1, 1, encoder_passes=passes)
        top1, top5 = torch.tensor(scores, dtype=torch.float64).reshape(len(self.severities), self.repeats, 2).unbind(-1)
        return {"top1": top1, "top5": top5, "passes": torch.tensor(passes)}


@dataclass(frozen=True, kw_only=True)
class Kept(Series):
    """A measurement on the dimensions that are most active, by how many are kept (NCL, section 4.2). Dimensions are ranked
    without labels, by the sums of the columns of features with unit rows."""

    @property
    def axis(self) -> str:
        return "dimensions that are kept"

    def validate(self) -> None:
        super().validate()
        for count in self.severities:
            if not (count.is_integer() and 1 <= count <= self.encoder.width):
                self.refuse("severities", f"must be whole numbers of dimensions between 1 and {self.encoder.width}, got {count:g}")


@gin.register
@dataclass(frozen=True, kw_only=True)
class FeatureSelection(Kept):
    """Accuracy of a linear probe on the dimensions that are most active on the training split, which alone it sees.

    Features are rectified for the ranking alone, as in the NCL code. That swaps dimensions under a classifier after its first
    epoch, and trains on crops; here each number of dimensions has probes of its own, on images as they are.
    repeats: draws of the probe.
    """

    probe: LinearProbe
    repeats: Count = 5
    metrics = ("top1", "top5")

    def preflight(self) -> None:
        super().preflight()
        if self.probe.views:
            self.refuse("probe", "must take images as they are: LinearProbe.views are not for feature selection")
        self.probe.check_size(len(self.data.split("train").labels))

    def upstream(self) -> tuple[Stage, ...]:
        return Features(self.encoder, self.data, "train"), Features(self.encoder, self.data, "test")

    def run(self, job: Job) -> Artifact:
        seen, tested = (job.get(stage)["features"].to(device()) for stage in self.upstream())
        labels, truth = (self.data.split(split).labels for split in ("train", "test"))
        heads = [Head(seed_for("probe", repeat), torch.arange(len(labels)), labels) for repeat in range(self.repeats)]
        order = by_activity(F.relu(seen))
        scores = []
        for count in self.severities:
            kept = order[: int(count)]
            bank = self.probe.fit(seen[:, kept], self.data.classes, heads)
            logits = [bank.logits(tested[:, kept], number) for number in range(self.repeats)]
            scores.append([[topk_accuracy(each, truth.to(each.device), k) for k in (1, 5)] for each in logits])
        top1, top5 = torch.tensor(scores, dtype=torch.float64).unbind(-1)
        return {"top1": top1, "top5": top5, "passes": torch.tensor(0)}


@gin.register
@dataclass(frozen=True, kw_only=True)
class Retrieval(Kept):
    """Precision@10 of retrieving test images of the class of a test image, by their distance in the dimensions that are most
    active on the test split. Nothing is drawn, so there is one value a severity."""

    metrics = ("precision_at_10",)

    def preflight(self) -> None:
        super().preflight()
        if (images := len(self.data.split("test").labels)) < 11:
            self.refuse("data", f"must have 11 test images or more, one to ask with and ten to find, got {images}")

    def upstream(self) -> tuple[Stage, ...]:
        return (Features(self.encoder, self.data, "test"),)

    def run(self, job: Job) -> Artifact:
        (stage,) = self.upstream()
        rows = F.normalize(job.get(stage)["features"].to(device()), dim=1)
        labels, order = self.data.split("test").labels.to(rows.device), by_activity(rows)
        found = [[100 * precision_at(rows[:, order[: int(count)]], labels, 10)] for count in self.severities]
        return {"precision_at_10": torch.tensor(found, dtype=torch.float64), "passes": torch.tensor(0)}


@dataclass(frozen=True, kw_only=True)
class Monosemanticity(Measurement):
    """How monosemantic a representation is on the clean test split. Where the factors that made the images are known, also how well
    each measure of dimensions tracks what is known: Spearman's rank correlation over dimensions with their mutual information gap.

    judge: what says how alike images are. Artifact, float64: name, a number; and name/dimensions, name/said, both (d,), for what is
    measured dimension by dimension: the numbers, and for which dimensions they count.
    """

    VERSION = 3
    metrics: tuple[Metric, ...]
    judge: Representation

    @property
    def axis(self) -> str:
        return "clean test images"

    def upstream(self) -> tuple[Stage, ...]:
        return Features(self.encoder, self.data, "test"), Features(self.judge, self.data, "test")

    def names(self) -> tuple[str, ...]:
        """What its metrics find."""
        return found_by(self.metrics, self.encoder.width, tuple(self.data.split("test").factors))

    @property
    def better(self) -> dict[str, str]:
        """Of what is found dimension by dimension, whether high or low is monosemantic."""
        return better_of(self.metrics)

    @property
    def about(self) -> dict[str, str]:
        """Of the same, the first paragraph that the metric says of itself."""
        said = {metric: " ".join((metric.__doc__ or "").partition("\n\n")[0].split()) for metric in self.metrics}
        return {name: said[metric] for metric in self.metrics for name in metric.better}

    def preflight(self) -> None:
        if self.judge.misfit(self.data):
            reason = f"must take images of {self.data.channels} channels, as the data has, got one for {self.judge.channels}"
            raise FieldError("Experiment", "judge", self.judge, reason)  # in the words that were typed: nobody types this stage
        try:
            self.names()
        except ValueError as error:
            raise FieldError("Experiment", "metrics", self.metrics, str(error)) from None

    def run(self, job: Job) -> Artifact:
        features, judged = (job.get(stage)["features"].to(device()) for stage in self.upstream())
        _, labels, factors = self.data.split("test")
        where = features.device
        seen = Seen(features, labels.to(where), judged, {name: levels.to(where) for name, levels in factors.items()})
        artifact: Artifact = {}
        try:
            found = findings(self.metrics, seen)
        except ValueError as error:
            raise StageError(f"Experiment.metrics {error}") from None
        for name, value in found.items():
            if isinstance(value, PerDimension):
                artifact |= {f"{name}/dimensions": value.values.clone(), f"{name}/said": value.said.clone()}  # files hold no tensor twice
            artifact[name] = torch.tensor(value.mean if isinstance(value, PerDimension) else value, dtype=torch.float64)
        return artifact

    def results(self, artifact: Artifact) -> Iterator[Result]:
        n = len(self.data.split("test").labels)
        for name, value in artifact.items():
            if value.ndim == 0:
                yield Result(0.0, 0, name, value.item(), n)


def findings(metrics: tuple[Metric, ...], seen: Seen) -> dict[str, Finding]:
    """What all metrics find. ValueError where two give one name to what they find, or something is no number."""
    values: dict[str, Finding] = {}
    better = better_of(metrics)
    for metric in metrics:
        for name, value in _found(metric, seen).items():
            if name in values:
                raise ValueError(f"must find each thing once, got {name} twice, the second time from {metric}")
            if not isinstance(value, int | float | PerDimension):
                raise ValueError(f"must find numbers, got {value!r} as {name} from {metric}")
            width = seen.features.shape[1]
            if isinstance(value, PerDimension) and any(not isinstance(each, Tensor) or each.shape != (width,) for each in value):
                said = f"must find a number for each of {width} dimensions, as two tensors, got"
                raise ValueError(f"{said} {value!r} as {name} from {metric}".replace("\n", " "))
            if not math.isfinite(value.mean if isinstance(value, PerDimension) else value):
                raise ValueError(f"must find finite numbers, got {name} that is none from {metric}")
            values[name] = value
    if isinstance(truth := values.get(TRUTH), PerDimension):
        for name, value in [*values.items()]:
            if isinstance(value, PerDimension) and name in better and name not in FactorInformation.better:
                values[f"{name}_tracks_gap"] = tracking(value, truth, better[name])
    return values


def better_of(metrics: tuple[Metric, ...]) -> dict[str, str]:
    """Of what metrics find dimension by dimension, whether high or low is monosemantic."""
    return {name: word for metric in metrics for name, word in metric.better.items()}


@functools.cache
def found_by(metrics: tuple[Metric, ...], width: int, factors: tuple[str, ...]) -> tuple[str, ...]:
    """What metrics find, as they find it in a made-up sample of so many features; a sweep asks of every cell."""
    n = 12
    levels = dict.fromkeys(factors, torch.arange(n) % 2)
    return tuple(findings(metrics, Seen(torch.eye(n, width), torch.arange(n) % 3, torch.eye(n), levels)))


def _found(metric: Metric, seen: Seen) -> dict[str, Finding]:
    """What a metric finds, or ValueError: it may be anybody's code."""
    try:
        found: dict[Any, Finding] = dict(metric(seen))
        if odd := [name for name in found if type(name) is not str]:
            raise TypeError(f"what it finds must be called by strings, got {odd[0]!r}")
    except Exception as error:
        size = " x ".join(map(str, seen.features.shape))
        raise ValueError(f"must measure {size} features, but {type(metric).__name__} failed: {type(error).__name__}: {error}") from error
    return found


def tracking(measure: PerDimension, truth: PerDimension, better: str) -> float:
    """The rank correlation of the two over the dimensions that both speak of, in [-1, 1], 1 where they agree on which is more
    monosemantic; 0 where there is nothing to tell, as of one dimension or of many that do not differ."""
    both = measure.said & truth.said
    found = float(rank_correlation(measure.values[both].cpu().numpy(), truth.values[both].cpu().numpy())) if both.any() else math.nan
    return 0.0 if math.isnan(found) else found if better == "high" else -found


@gin.register
@dataclass(frozen=True, kw_only=True)
class Gallery(Part):
    """How dimensions are shown by the images that activate them most.

    by: the measure that sorts them, the most monosemantic first; None takes the first of Experiment.metrics that says which way that is.
    images: shown of each dimension. rows: of gallery.png, so many of the most monosemantic dimensions and as many of the least.
    dimensions: in gallery.html at most, half of them the most monosemantic ones and half the least.
    """

    by: str | None = None
    images: Annotated[int, Range(1, 100)] = 12
    rows: Annotated[int, Range(1, 50)] = 8
    dimensions: Count = 256


@gin.register
@dataclass(frozen=True, kw_only=True)
class Experiment(Part):
    """One experiment: curves under one name, and the monosemanticity of every representation among them.

    name: of the folder under runs/ and of the lines in TensorBoard. curves: a curve is called by its Gin scope.
    metrics: measured for every representation that a curve probes. judge: what says for them how alike images are; None leaves it to
    their pixels. gallery: how the images that activate dimensions most are shown.
    """

    name: Label
    curves: tuple[Series, ...]
    metrics: tuple[Metric, ...]
    judge: Representation | None = None
    gallery: Gallery = Gallery()

    def validate(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", self.name):
            self.refuse("name", f"must be a folder's name of letters, digits and . _ + -, got {self.name!r}")
        if not self.curves:
            self.refuse("curves", "must hold at least one curve, got ()")
        if not self.metrics:
            self.refuse("metrics", "must hold at least one metric: monosemanticity is measured beside every accuracy, got ()")
        if any(isinstance(curve, Curve) and curve.company for curve in self.curves):
            self.refuse("curves", "say by themselves which of them are fitted together: leave Curve.company")
        names = [curve.name for curve in self.curves]
        if not all(names):
            self.refuse("curves", "must have names: a scope in Gin, or Curve.name")
        if len(set(names)) < len(names):
            self.refuse("curves", f"must have different names, got {', '.join(names)}")

    def preflight(self) -> None:
        """Refuse what only the data can tell to be wrong."""
        for measure in self.measures:
            known = [name for name in measure.names() if name in measure.better]
            if self.gallery.by is not None and self.gallery.by not in known:
                words = f"must be one of {', '.join(known)}" if known else "must be None where no metric is of dimensions"
                self.gallery.refuse("by", f"{words}, got {self.gallery.by!r}")

    @property
    def probed(self) -> dict[str, tuple[Representation, Dataset]]:
        """Every representation and data that some curve is about; by name where there is more than one, that of its first curve."""
        found: dict[tuple[Representation, Dataset], str] = {}
        for curve in self.curves:
            found.setdefault((curve.encoder, curve.data), curve.name)
        return {name if len(found) > 1 else "": what for what, name in found.items()}

    @property
    def measures(self) -> tuple[Monosemanticity, ...]:
        return tuple(
            Monosemanticity(
                name=f"{MONOSEMANTICITY}/{name}" if name else MONOSEMANTICITY,
                encoder=encoder, data=data, metrics=self.metrics, judge=self.judge or Pixels(data),
            )
            for name, (encoder, data) in self.probed.items()
        )  # fmt: skip

    @property
    def portraits(self) -> tuple[Portrait, ...]:
        """One for each measurement of monosemanticity, in that order."""
        return tuple(Portrait(encoder=encoder, data=data, images=self.gallery.images) for encoder, data in self.probed.values())

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """What the table is made of."""
        return (*map(self._with_company, self.curves), *self.measures)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (*self.measurements, *self.portraits)

    def _with_company(self, curve: Series) -> Series:
        """The curve, and where its probe wants the heads of several curves at once, those that it can be fitted with."""
        if not isinstance(curve, Curve) or not curve.probe.in_company:
            return curve
        own = (curve.encoder, curve.data, curve.probe)
        others = [each for each in self.curves if isinstance(each, Curve) and (each.encoder, each.data, each.probe) == own]
        return replace(curve, company=tuple(dict.fromkeys(each.task for each in others)))
