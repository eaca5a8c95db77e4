"""Accuracy under attack. Not known here: how a probe is fitted, how an attack finds its images."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import gin
import torch
from torch import Generator, Tensor, nn

from monosem.core.device import device
from monosem.core.fields import Count
from monosem.core.identity import generator
from monosem.core.stage import Artifact, Job, Stage
from monosem.data.images import ImageDataset
from monosem.models.representation import Representation
from monosem.probes.attacks import Attack, PixelScale, has_gradient, is_flat, look
from monosem.probes.base import Probe, Task, clean_task
from monosem.robustness.measurement import SeverityCurve

IMAGES = 120  # attacked at a time, as a pass that keeps all for gradients fills memory
TRIED = 8  # images, before any work
MANY = 1.0  # percent of images without a gradient, above which the summary says so


class UnderAttack(NamedTuple):
    """What becomes of the test images at an epsilon; each is (n,).

    right: whether the label is predicted.
    losses: cross-entropy.
    flat: whether the gradient is exactly 0.
    """

    right: Tensor
    losses: Tensor
    flat: Tensor


@gin.register
@dataclass(frozen=True, kw_only=True)
class Adversarial(SeverityCurve):
    """Accuracy of a probe whose test images are attacked, through the probe and the encoder.

    The attack knows all weights (white box). It is a bound from one side: a better one may find
    more. So gradient masking is looked for (Athalye et al., arXiv:1802.00420; Carlini et al.,
    arXiv:1902.06705), in `loss` and `zero_gradient`.

    data: images. The probe learns from the clean training split.
    probe: what is attacked, together with the encoder in front of it.
    attack: of the test images.
    severities: epsilons, as the attack counts them; 0 is the clean accuracy.
    repeats: draws of the probe and of the attack's random starts; encoders and epsilons share them.

    top1: in percent. An image that a smaller epsilon of the curve breaks, or that is wrong
        unattacked, counts as wrong at every larger one: what was found there is allowed here.
    loss: the mean cross-entropy of this epsilon's attack alone, in nats. It should grow.
    zero_gradient: percent of the attacked images whose gradient is exactly 0 in floating point,
        as behind a silent rectifier or a saturated softmax. True gradients are blind there; it is
        no robustness. PGD.leak is against that.
    """

    probe: Probe
    attack: Attack
    repeats: Count = 5

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("top1", "loss", "zero_gradient")

    @property
    def axis(self) -> str:
        return self.attack.axis

    def check_severity(self, severity: float) -> None:
        self.attack.check_epsilon(severity)

    def preflight(self) -> None:
        super().preflight()
        if not isinstance(self.data, ImageDataset):
            self.refuse("data", "must be of images, whose pixels an attack changes")
        self.probe.check_data(self.data)
        self.probe.check_width(self.encoder.width)
        if type(self.probe).classifiers is Probe.classifiers:
            kind = type(self.probe).__name__
            self.refuse("probe", f"must give its classifiers, to be attacked; {kind} does not")
        if not holds_pixels(self.data):
            kind = type(self.data).__name__
            self.refuse(
                "data",
                "must be prepared as its mean and std say, or epsilon has no unit; "
                f"{kind} leaves the range of pixels",
            )
        if has_gradients(self.encoder, self.data) is False:
            kind = type(self.encoder).__name__
            self.refuse(
                "encoder",
                "must have gradients, which an attack follows; "
                f"the features of {kind} have none for the images",
            )

    @property
    def task(self) -> Task:
        """What is asked of the probe: a classifier for every repeat, of the clean training set."""
        return clean_task(self.encoder, self.data, self.repeats)

    def upstream(self) -> tuple[Stage, ...]:
        return (*dict.fromkeys((*self.encoder.stages, *self.probe.upstream(self.task))),)

    def run(self, job: Job) -> Artifact:
        columns = []  # (severities, metrics) for every repeat
        passes = 0

        def count(_: nn.Module, inputs: tuple[Tensor]) -> None:
            nonlocal passes
            passes += len(inputs[0])

        for repeat, classifier in enumerate(self.probe.classifiers(self.task, job)):
            network = classifier.network(job)
            with network.register_forward_pre_hook(count):
                columns.append(self._column(network, repeat))
        job.log(1, 1, encoder_passes=passes)
        values = torch.stack(columns, 1)  # (severities, repeats, metrics)
        by_metric = dict(zip(self.metrics, values.unbind(2), strict=True))
        return {**by_metric, "passes": torch.tensor(passes)}

    def _column(self, network: nn.Module, repeat: int) -> Tensor:
        """(severities, metrics) float64 of one classifier."""
        rows: dict[float, list[float]] = {}
        right = torch.ones(len(self.data.split("test").labels), dtype=torch.bool, device=device())
        for epsilon in sorted({0.0, *self.severities}):
            outcome = self._outcome(network, epsilon, repeat)
            right = right & outcome.right
            shares = [share.double().mean().item() for share in (right, outcome.flat)]
            loss = outcome.losses.double().mean().item()
            rows[epsilon] = [100 * shares[0], loss, 100 * shares[1]]
        return torch.tensor([rows[epsilon] for epsilon in self.severities], dtype=torch.float64)

    def _outcome(self, network: nn.Module, epsilon: float, repeat: int) -> UnderAttack:
        draw = generator(type(self.attack).__name__, repeat, self.data)
        chunks = list(self._chunks(network, epsilon, draw))
        return UnderAttack(*map(torch.cat, zip(*chunks, strict=True)))

    def _chunks(self, network: nn.Module, epsilon: float, draw: Generator) -> Iterator[UnderAttack]:
        assert isinstance(self.data, ImageDataset), "preflight refuses others"
        inputs, labels, _ = self.data.split("test")
        scale = pixel_scale(self.data)
        for images, classes in zip(inputs.split(IMAGES), labels.split(IMAGES), strict=True):
            points, targets = self.data.prepare(images), classes.to(device())
            if epsilon:
                points = self.attack.perturb(network, points, targets, epsilon, scale, draw)
            attacked = look(network, points, targets)
            yield UnderAttack(attacked.right, attacked.losses, is_flat(attacked.gradient))

    def remarks(self, artifact: Artifact) -> Iterator[str]:
        losses = dict(zip(self.severities, artifact["loss"].mean(1).tolist(), strict=True))
        ascending = sorted(losses)
        for small, large in itertools.pairwise(ascending):
            if losses[large] < losses[small] - 1e-4 * (1 + losses[small]):
                yield (
                    f"the loss under attack falls from {losses[small]:.4g} at epsilon {small:g} to "
                    f"{losses[large]:.4g} at {large:g}, so gradients are masked or the attack is "
                    "too weak: these accuracies are only upper bounds"
                )
        flat = artifact["zero_gradient"].mean(1).max().item()
        if flat > MANY:
            yield (
                f"up to {flat:.1f} % of the attacked images have a gradient of exactly 0; "
                f"the attack {self.attack.where_flat}, and a better one may find more"
            )


def holds_pixels(data: ImageDataset) -> bool:
    """Whether prepared images lie where its mean and std put the pixels 0 and 1."""
    points = data.prepare(data.split("test").inputs[:TRIED])
    scale = pixel_scale(data)
    return torch.allclose(scale.moved(points, torch.zeros_like(points)), points, atol=1e-4)


@functools.cache
def has_gradients(encoder: Representation, data: ImageDataset) -> bool | None:
    """Whether features have gradients for the pixels; None where only trained weights can tell.

    Tried with the first weights of a training. So it is known before any work.
    """
    network = encoder.skeleton()
    if network is None:
        return None
    return has_gradient(network, data.prepare(data.split("test").inputs[:TRIED]))


def pixel_scale(data: ImageDataset) -> PixelScale:
    """How its prepared images are made of pixels."""
    black, white = torch.zeros(data.channels, 1, 1), torch.ones(data.channels, 1, 1)
    low, high = (data.normalise(colour.to(device())) for colour in (black, white))
    return PixelScale(data.pixel_range, low, high)
