"""Fine-tuning: the representation itself goes on learning, with a classifier on top.

`FineTune` is the probe, `Tuned` the stage that trains one network. Nothing here knows of curves.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import gin
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monosem.core.device import (
    BatchLoader,
    Precision,
    device,
    draws_of_layers,
    seed_layers,
    seeded,
    to_device,
)
from monosem.core.fields import FieldError, Positive, Seed
from monosem.core.identity import generator
from monosem.core.stage import Artifact, Job, Stage, StageError
from monosem.corruptions.base import Corruption, TrainingSet, training_set
from monosem.data.dataset import Dataset
from monosem.learning.adapters import MEASURES, Adapter, watched
from monosem.learning.loop import TrainingLoop
from monosem.models.representation import GetArtifact, Representation, backbone_of
from monosem.models.training import Learning
from monosem.probes.base import Classifier, MinibatchProbe, Predictions, Task


@gin.register
@dataclass(frozen=True, kw_only=True)
class FineTune(MinibatchProbe):
    """A linear classifier that is trained together with the representation's network.

    Every repeat has a network of its own, and so has every severity that changes the training set.

    batch_size: a batch is smaller where there are fewer examples. The incomplete last batch of an
        epoch is dropped, so few shots also mean few steps, as in the authors' code.
    rectify: classify relu(features). Then cross-entropy is the non-negative cross-entropy of Wang
        et al. (arXiv:2403.12459), which the paper calls monosemantic fine-tuning.
    whole: the projector, and an autoencoder, learn too. The authors' code passes gradients through
        them but leaves them as they are, which is False. Batch norm uses and updates the
        statistics of its batches either way, as it does there.
    precision: as of Pretrain.
    clip: as of Pretrain.
    adapter: learns in place of the network, which stays as it is, batch norm's statistics too.
        Then only the adapter and the classifier are in the artifact.
    """

    rectify: bool = False
    whole: bool = False
    precision: Precision = "float32"
    clip: Positive | None = None
    adapter: Adapter | None = None

    @property
    def measures(self) -> tuple[str, ...]:
        return MEASURES if self.adapter else ()

    def validate(self) -> None:
        if self.whole and self.adapter:
            self.refuse("whole", "must be False with an adapter, which learns in its place")
        if self.batch_size < 2:
            self.refuse(
                "batch_size",
                f"must be 2 or more: batch norm wants more than one example, got {self.batch_size}",
            )

    def tuned(self, task: Task, severity: float, repeat: int) -> Tuned:
        """The training for a draw; that on the clean set where the training set stays clean."""
        is_clean = not task.corruption.touches_training(severity)
        return Tuned(
            probe=self,
            encoder=task.encoder,
            data=task.data,
            corruption=None if is_clean else task.corruption,
            severity=0.0 if is_clean else severity,
            repeat=repeat,
        )

    def upstream(self, task: Task) -> tuple[Stage, ...]:
        tuned = [self.tuned(task, severity, repeat) for severity, repeat in task.draws]
        encoders = task.encoder.stages  # what does not learn is read from them
        return (*encoders, *dict.fromkeys(tuned))

    def predictions(self, task: Task, job: Job) -> Iterator[Predictions]:
        for severity, repeat in task.draws:
            network = self.tuned(task, severity, repeat).network(job.get)
            with watched(network) as measures:
                logits = task.encode_test(network, severity, repeat)
                measured = measures() if self.adapter else {}
            yield Predictions(logits, len(logits), measures=measured)

    def classifiers(self, task: Task, job: Job) -> Iterator[Classifier]:
        for severity, repeat in task.draws:
            yield TunedClassifier(self.tuned(task, severity, repeat))


class ClassifierOnFeatures(nn.Module):
    """A representation's network and a linear classifier of its features: (n, ...) -> (n, classes).

    rectify: classify relu(features).
    """

    def __init__(self, features: nn.Module, classifier: nn.Linear, rectify: bool):
        super().__init__()
        self.features = features
        self.classifier = classifier
        self.rectify = rectify

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.features(inputs)
        return self.classifier(F.relu(features) if self.rectify else features)


class TunedClassifier(Classifier):
    """The classifier of a fine-tuned network.

    tuned: the stage that trains it.
    """

    def __init__(self, tuned: Tuned):
        self.tuned = tuned

    def network(self, job: Job) -> nn.Module:
        return self.tuned.network(job.get)


@dataclass(frozen=True, kw_only=True)
class Tuned(Learning):
    """One fine-tuned network.

    probe: how it is trained.
    encoder: the representation that goes on learning.
    data: its training split is learned from.
    corruption: of the training set; None leaves it clean.
    severity: of the corruption; 0 without one.
    repeat: seeds the classifier's first weights, the order of images and their views, and the
        draw of the corruption. So encoders are paired.

    Artifact: the state of all that learns, by name, batch norm's statistics among it.

    With an adapter its measures (learning/adapters.py) are logged in every epoch, of the first
    batch.
    """

    probe: FineTune
    encoder: Representation
    data: Dataset
    corruption: Corruption | None
    severity: float
    repeat: Seed

    def upstream(self) -> tuple[Stage, ...]:
        return self.encoder.stages

    def preflight(self) -> None:
        if self.probe.adapter and (skeleton := _skeleton(self.encoder)):
            self.probe.adapter.chosen(skeleton)

    def training_set(self) -> TrainingSet:
        return training_set(self.data, self.corruption, self.severity, self.repeat)

    def learner(self, get: GetArtifact) -> tuple[ClassifierOnFeatures, nn.ModuleDict]:
        """The network before it learns, and those parts of it that will."""
        features = self.encoder.network(get)
        with seeded("FineTune", "weights", self.repeat):
            classifier = nn.Linear(self.encoder.width, self.data.classes)
        learns = own_weights(self._what_learns(features)).requires_grad_()
        network = to_device(ClassifierOnFeatures(features, classifier, self.probe.rectify))
        return network, nn.ModuleDict({"learns": learns, "classifier": network.classifier})

    def _what_learns(self, features: nn.Module) -> nn.Module:
        """The part of the representation's network that learns; an adapter is put in."""
        if self.probe.adapter:
            try:
                with seeded("FineTune", "adapter", self.repeat):
                    return self.probe.adapter.attach(features)
            except FieldError as error:  # of a network that has no skeleton
                raise StageError(str(error)) from None
        return features if self.probe.whole else backbone_of(features)

    def run(self, job: Job) -> Artifact:
        probe = self.probe
        network, learner = self.learner(job.get)
        self._train_mode(network)
        examples, labels = (tensor.to(device()) for tensor in self.training_set())
        batch_size = min(probe.batch_size, len(examples))
        steps_per_epoch = len(examples) // batch_size
        loader = BatchLoader(self.data.split("train").inputs)

        def batches(epoch: int) -> Iterator[tuple[Tensor, ...]]:
            draw = generator("FineTune", "order and views", self.repeat, epoch, on=device())
            seed_layers("FineTune", "dropout", self.repeat, epoch)
            shuffled = examples[torch.randperm(len(examples), generator=draw, device=device())]
            order = self.data.training_batches(shuffled, batch_size, draw)
            for index, batch in zip(order, loader(order), strict=True):
                yield self.data.augment(batch, probe.views, draw), labels[index]

        def losses(views: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = network(views)
            return {
                "loss": probe.loss.mean(logits, labels),
                "accuracy": (logits.argmax(1) == labels).float().mean(),
            }

        @torch.no_grad()
        def describe(views: Tensor, labels: Tensor) -> dict[str, float]:
            if not probe.adapter:
                return {}
            with watched(network.eval()) as measures:
                network(views)
            self._train_mode(network)
            return measures()

        optimizer = probe.optimizer.for_batches(probe.batch_size).build(
            [{"params": [*part.parameters()]} for part in learner.values()]
        )
        loop = TrainingLoop(
            module=learner,
            optimizer=optimizer,
            schedule=probe.schedule,
            epochs=probe.epochs,
            steps_per_epoch=steps_per_epoch,
            batch_size=batch_size,
            batches=batches,
            losses=losses,
            describe=describe,
            precision=probe.precision,
            clip=probe.clip,
        )
        with draws_of_layers():
            loop.run(job)
        return learner.state_dict()

    def _train_mode(self, network: nn.Module) -> None:
        """With an adapter, the statistics of batch norm are the network's, and stay."""
        network.train()
        for module in network.modules():
            if self.probe.adapter and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def network(self, get: GetArtifact) -> nn.Module:
        """From prepared inputs to logits, in evaluation mode."""
        network, learner = self.learner(get)
        learner.load_state_dict(get(self))
        return network.eval().requires_grad_(False)


def own_weights(module: nn.Module) -> nn.Module:
    """The module with weights of its own: other networks may share those that it was given."""
    for weight in module.parameters():
        weight.data = weight.data.clone()
    return module


@functools.lru_cache(maxsize=8)
def _skeleton(encoder: Representation) -> nn.Module | None:
    """Asked by every fine-tuned network of a curve."""
    return encoder.skeleton()
