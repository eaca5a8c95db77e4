"""TODO."""

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
from monosem.models.representation import Get, Pretrained
from monosem.models.training import Training


@gin.register
@dataclass(frozen=True, kw_only=True)
class Pretrain(Training, Pretrained):
    """An encoder trained by a contrastive objective. As a representation: its backbone's features.

    classifier: the online classifier; None leaves it out.
    """

    encoder: Encoder
    projector: Projector
    objective: Objective
    classifier: OnlineClassifier | None = None

    def validate(self) -> None:
        if self.batch_size < 2:
            self.refuse(
                "batch_size",
                f"must be 2 or more: a single image has nothing to be told from, got {self.batch_size}",
            )

    @property
    def width(self) -> int:
        return self.encoder.width

    def incompatibility(self, data: Dataset) -> str | None:
        return self.data.mismatch(data)

    @property
    def features(self) -> int:
        return self.projector.features

    def embed(self, raw: Tensor) -> Tensor:
        return self.objective.embed(raw)

    def targets(self, index: Tensor, labels: Tensor, draw: Generator) -> Tensor:
        return self.objective.targets(index, labels, self.data.classes, draw)

    def build(self) -> Network:
        """The network with the weights that `seed` names."""
        with seeded("Pretrain", "weights", self.seed):
            backbone, projector = (
                self.encoder.build(self.data.sample_shape),
                self.projector.build(self.width),
            )
            online = (
                self.classifier.build(self.width, self.data.classes) if self.classifier else None
            )
        return Network(backbone, projector, online)

    def losses(
        self, network: Network, views: Tensor, targets: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """The objective plus, where there is an online classifier, its cross-entropy.

        The two halves of the batch pass one after the other, so that batch norm sees one view at a time, as in the reference.
        """
        features, raw = (
            torch.cat(halves) for halves in zip(*map(network, views.chunk(2)), strict=True)
        )
        with torch.autocast(raw.device.type, enabled=False):
            scalars = {
                "objective": self.objective(
                    raw.float() if raw.dtype.itemsize == 2 else raw, targets
                )
            }
        scalars["loss"] = scalars["objective"]
        with torch.no_grad():
            scalars["live_dimensions"] = (self.embed(raw).abs().sum(0) > 0).sum().float()
        if self.classifier:
            loss, scalars["online_accuracy"] = self.classifier.loss(
                network.classifier, features, labels
            )
            scalars["loss"] = scalars["loss"] + loss
        return scalars

    def run(self, job: Job) -> Artifact:
        network = to_device(self.build().train())
        groups: list[dict[str, object]] = [
            {"params": [*network.backbone.parameters(), *network.projector.parameters()]}
        ]
        if self.classifier:
            rate = self.classifier.lr * self.optimizer.scale(self.batch_size)
            rates = {"lr": rate, "weight_decay": self.classifier.weight_decay}
            groups.append({"params": [*network.classifier.parameters()], **rates})
        quick = compiled(network)
        self.train(
            job,
            network,
            groups,
            lambda *batch: self.losses(quick, *batch),
            lambda views: self.embed(network(views)[1]),
        )
        return network.state_dict()

    def trained(self, get: Get) -> Network:
        network = self.build()
        network.load_state_dict(get(self))
        return network
