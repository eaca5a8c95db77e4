"""Fine-tuning: the representation itself goes on learning, with a classifier on top."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gin
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monosem.core.device import BatchLoader, Precision, device, seeded, to_device
from monosem.core.fields import Count, Positive, Seed
from monosem.core.identity import generator
from monosem.core.stage import Artifact, Job, Stage
from monosem.data.dataset import Augmentation, Dataset
from monosem.evaluation.corruptions import Corruption
from monosem.evaluation.probes import Predictions, Probe, Task
from monosem.learning.loop import train
from monosem.learning.optimizers import Optimizer, Schedule
from monosem.models.features import encode
from monosem.models.representation import Get, Representation, innermost
from monosem.models.training import Learning


@gin.register
@dataclass(frozen=True, kw_only=True)
class FineTune(Probe):
    """A linear classifier trained together with the network below it, one network for every severity that changes what is
    learnt from, and every repeat.

    rectify: classify relu(features), with which cross-entropy becomes the non-negative cross-entropy of Wang et al.
        (arXiv:2403.12459), what the paper calls monosemantic fine-tuning.
    whole: the projector, and an autoencoder, learn too. The reference passes gradients through them but leaves them as they
        are, which is False. Batch norm uses and updates the statistics of its batches either way, as it does there.
    views: augmentations of the training images. A batch is smaller than batch_size where there are fewer examples; what is
        left of an epoch is dropped, so few shots also mean few steps, as in the reference.
    precision, clip: as of Pretrain.
    """

    optimizer: Optimizer
    schedule: Schedule
    epochs: Count = 50
    batch_size: Count = 256
    views: tuple[Augmentation, ...] = ()
    rectify: bool = False
    whole: bool = False
    precision: Precision = "float32"
    clip: Positive | None = None

    def validate(self) -> None:
        if self.batch_size < 2:
            self.refuse(
                "batch_size",
                f"must be 2 or more: batch norm wants more than one image, got {self.batch_size}",
            )

    def check_size(self, images: int) -> None:
        if self.batch_size > images:
            self.refuse(
                "batch_size",
                f"must be at most {images}, the training images, got {self.batch_size}",
            )

    def tuned(self, task: Task, severity: float, repeat: int) -> Tuned:
        """The training for a cell of a curve. What only changes test images, or nothing, leaves the clean one."""
        clean = not task.corruption.touches_training(severity)
        return Tuned(
            probe=self,
            encoder=task.encoder,
            data=task.data,
            corruption=None if clean else task.corruption,
            severity=0.0 if clean else severity,
            repeat=repeat,
        )

    def upstream(self, task: Task, company: tuple[Task, ...]) -> tuple[Stage, ...]:
        tuned = tuple(dict.fromkeys(self.tuned(task, *cell) for cell in task.cells))
        return (*task.encoder.stages, *tuned)  # what does not learn is read from below

    def predictions(self, task: Task, company: tuple[Task, ...], job: Job) -> Iterator[Predictions]:
        inputs = task.data.split("test").inputs
        for cell in task.cells:
            network = self.tuned(task, *cell).network(job.get)
            yield Predictions(encode(network, task.data, inputs, task.corrupt(*cell)), len(inputs))


class Classified(nn.Module):
    """A representation's network and a classifier of what it finds: (n, c, h, w) -> (n, classes)."""

    def __init__(self, features: nn.Module, classifier: nn.Linear, rectify: bool):
        super().__init__()
        self.features, self.classifier, self.rectify = features, classifier, rectify

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        return self.classifier(F.relu(features) if self.rectify else features)


@dataclass(frozen=True, kw_only=True)
class Tuned(Learning):
    """One fine-tuned network. Artifact: what has learnt or moved, by name.

    corruption, severity: of the training labels or examples; None leaves them. repeat: names the classifier's first weights,
    the order of images and their views, and the draw of the corruption, so that encoders are paired.
    """

    probe: FineTune
    encoder: Representation
    data: Dataset
    corruption: Corruption | None
    severity: float
    repeat: Seed

    def upstream(self) -> tuple[Stage, ...]:
        return self.encoder.stages

    def learner(self, get: Get) -> tuple[Classified, nn.Module]:
        """The network before it learns, and that part of its representation which will."""
        features = self.encoder.network(get)
        learns = features if self.probe.whole else innermost(features)
        with seeded("FineTune", "weights", self.repeat):
            classifier = nn.Linear(self.encoder.width, self.data.classes)
        return to_device(
            Classified(features, classifier, self.probe.rectify)
        ), learns.requires_grad_()

    def examples(self) -> tuple[Tensor, Tensor]:
        """Which training images are learnt from, and what is told of all of them."""
        labels = self.data.split("train").labels
        if self.corruption is None:
            return torch.arange(len(labels)), labels
        task = Task(
            encoder=self.encoder,
            data=self.data,
            corruption=self.corruption,
            severities=(self.severity,),
            repeats=self.repeat + 1,
        )
        head = task.head(self.severity, self.repeat)
        return head.examples, head.labels

    def run(self, job: Job) -> Artifact:
        probe, loader = self.probe, BatchLoader(self.data.split("train").inputs)
        network, learns = self.learner(job.get)
        network.train()
        examples, told = (each.to(device()) for each in self.examples())
        size = min(probe.batch_size, len(examples))
        steps = len(examples) // size

        def batches(epoch: int) -> Iterator[tuple[Tensor, ...]]:
            draw = generator("FineTune", "order and views", self.repeat, epoch, on=device())
            order = examples[torch.randperm(len(examples), generator=draw, device=device())][
                : steps * size
            ].split(size)
            for index, batch in zip(order, loader(order), strict=True):
                yield self.data.augment(batch, probe.views, draw), told[index]

        def losses(views: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = network(views)
            return {
                "loss": F.cross_entropy(logits, labels),
                "accuracy": (logits.argmax(1) == labels).float().mean(),
            }

        groups = [
            {"params": [*learns.parameters()]},
            {"params": [*network.classifier.parameters()]},
        ]
        optimizer = probe.optimizer.for_batches(probe.batch_size).build(groups)
        module = nn.ModuleDict({"learns": learns, "classifier": network.classifier})
        how = (probe.precision, probe.clip)
        train(
            job, module, optimizer, probe.schedule, probe.epochs, steps, size, batches, losses, *how
        )
        return module.state_dict()

    def network(self, get: Get) -> nn.Module:
        """From normalised images to logits, in evaluation mode."""
        network, learns = self.learner(get)
        module = nn.ModuleDict({"learns": learns, "classifier": network.classifier})
        module.load_state_dict(get(self))
        return network.eval().requires_grad_(False)
