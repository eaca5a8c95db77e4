"""Pre-training as a stage: an encoder and a projector learn from two views of every input."""

from __future__ import annotations

from dataclasses import dataclass

import gin
import torch
from torch import Generator, Tensor

from monosem.core.device import compiled, seeded, to_device
from monosem.core.stage import Artifact, Job
from monosem.data.dataset import Dataset
from monosem.learning.encoders import Encoder, Network, Projector
from monosem.learning.objectives import Objective, OnlineClassifier
from monosem.models.representation import GetArtifact, Pretrained
from monosem.models.training import Training


@gin.register
@dataclass(frozen=True, kw_only=True)
class Pretrain(Training, Pretrained):
    """An encoder trained by a contrastive objective.

    As a representation: the features of its backbone.

    encoder: the architecture of the backbone.
    projector: the network on top of it, whose output the objective compares.
    objective: what is minimised.
    classifier: learns the labels from the features as they are at every step, to watch them; None
        leaves it out.

    Artifact: the state of the network, by name.
    """

    encoder: Encoder
    projector: Projector
    objective: Objective
    classifier: OnlineClassifier | None = None

    def validate(self) -> None:
        if self.batch_size < 2:
            self.refuse(
                "batch_size",
                f"must be 2 or more: a single image has nothing to be told from, "
                f"got {self.batch_size}",
            )

    def preflight(self) -> None:
        super().preflight()
        if mismatch := self.encoder.incompatibility(self.data.sample_shape):
            self.refuse("data", mismatch)

    @property
    def width(self) -> int:
        return self.encoder.width

    def incompatibility(self, data: Dataset) -> str | None:
        return self.data.mismatch(data)

    @property
    def projection_width(self) -> int:
        return self.projector.features

    def embed(self, raw: Tensor) -> Tensor:
        return self.objective.embed(raw)

    def targets(self, index: Tensor, labels: Tensor, draw: Generator) -> Tensor:
        return self.objective.targets(index, labels, self.data.classes, draw)

    def build(self) -> Network:
        """The network with the first weights that `seed` names."""
        with seeded("Pretrain", "weights", self.seed):
            backbone = self.encoder.build(self.data.sample_shape)
            projector = self.projector.build(self.width)
            if self.classifier is None:
                return Network(backbone, projector)
            classifier = self.classifier.build(self.width, self.data.classes)
            return Network(backbone, projector, classifier)

    def stand_in(self) -> Artifact:
        return self.build().state_dict()

    def losses(
        self, network: Network, views: Tensor, targets: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """The loss of a step, and scalars to watch.

        The two halves of the batch pass one after the other, so that batch norm sees one view at a
        time, as in the authors' code.

            views            (2b, ...)       first and second views, in the same order
            halves           2 x (b, ...)
            features         (2b, width)
            raw projections  (2b, d)

        targets, labels: (2b,).

        Returns scalars: loss, the objective and the classifier's cross-entropy; objective;
        live_dimensions, those of d that are on for some view; online_accuracy of the classifier.
        """
        passes = [network(half) for half in views.chunk(2)]
        features = torch.cat([half_features for half_features, _ in passes])
        raw = torch.cat([half_raw for _, half_raw in passes])
        with torch.autocast(raw.device.type, enabled=False):
            full = raw.float() if raw.dtype.itemsize == 2 else raw
            objective = self.objective(full, targets)
        with torch.no_grad():
            live_dimensions = (self.embed(raw).abs().sum(0) > 0).sum().float()
        scalars = {"objective": objective, "loss": objective, "live_dimensions": live_dimensions}
        if self.classifier:
            cross_entropy, accuracy = self.classifier.loss(network.classifier, features, labels)
            scalars["online_accuracy"] = accuracy
            scalars["loss"] = objective + cross_entropy
        return scalars

    def parameter_groups(self, network: Network) -> list[dict[str, object]]:
        """For the optimiser: the classifier, if any, learns at a rate of its own."""
        encoder = [*network.backbone.parameters(), *network.projector.parameters()]
        groups: list[dict[str, object]] = [{"params": encoder}]
        if self.classifier:
            groups.append(
                {
                    "params": [*network.classifier.parameters()],
                    "lr": self.classifier.lr * self.optimizer.scale(self.batch_size),
                    "weight_decay": self.classifier.weight_decay,
                }
            )
        return groups

    def run(self, job: Job) -> Artifact:
        network = to_device(self.build().train())
        fast_network = compiled(network)

        def losses(views: Tensor, targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return self.losses(fast_network, views, targets, labels)

        def embeddings_of(views: Tensor) -> Tensor:
            _, raw = network(views)
            return self.embed(raw)

        self.train(job, network, self.parameter_groups(network), losses, embeddings_of)
        return network.state_dict()

    def trained(self, get: GetArtifact) -> Network:
        network = self.build()
        network.load_state_dict(get(self))
        return network
