"""Representations and the stages that train them: pre-training, and sparse autoencoders on top."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import gin
import torch
from torch import Tensor, nn

from monosem.augment import Augmentation
from monosem.data import Dataset
from monosem.encoders import Encoder, Network, Projector
from monosem.fit import Optimizer, Schedule, device, seeded, train
from monosem.objectives import ACTIVATIONS, Activation, Objective, OnlineClassifier
from monosem.sparse import Autoencoder, Code, Sparsifier
from monosem.stage import Artifact, Count, Job, Part, Seed, Stage, generator

Get = Callable[[Stage], Artifact]


@dataclass(frozen=True)
class Representation(Part):
    """Whatever turns normalised images (n, c, h, w) into features (n, width): an encoder, or something on top of one."""

    @property
    def width(self) -> int:
        raise NotImplementedError

    @property
    def channels(self) -> int | None:
        """Of the images it takes; None takes any."""
        return None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages whose artifacts `network` asks for: itself, if it is one, and those that it stands on."""
        below = (getattr(self, field.name) for field in fields(self))
        own = (self,) if isinstance(self, Stage) else ()
        return own + tuple(stage for each in below if isinstance(each, Representation) for stage in each.stages)

    def network(self, get: Get) -> nn.Module:
        """The map from images to features, on the device, in evaluation mode, frozen."""
        raise NotImplementedError


def frozen(module: nn.Module) -> nn.Module:
    return module.to(device()).eval().requires_grad_(False)


# ------------------------------------------------------------------------------------------------ training


@dataclass(frozen=True, kw_only=True)
class Training(Stage):
    """A stage that trains a network on two augmented views of every image.

    views: augmentations, applied in this order. seed: with the kind of stage, names the initial weights, the order of images
    and the augmentations; nothing else does, so two objectives with one seed meet the same batches and are paired.
    """

    data: Dataset
    views: tuple[Augmentation, ...] = ()
    optimizer: Optimizer
    schedule: Schedule
    epochs: Count
    batch_size: Count
    seed: Seed = 0

    def preflight(self) -> None:
        if flaw := self.data.flaw():
            self.refuse("data", flaw)
        images = len(self.data.split("train").labels)
        if self.batch_size > images:
            self.refuse("batch_size", f"must be at most {images}, the training images, got {self.batch_size}")

    def train(self, job: Job, module: nn.Module, groups: list[dict[str, object]], losses: Callable[..., dict[str, Tensor]]) -> None:
        """Minimise losses(views (2b, c, h, w) normalised, index (2b,), labels (2b,)); what is left of an epoch is dropped."""
        images, labels = (each.to(device()) for each in self.data.split("train"))
        steps = len(labels) // self.batch_size

        def batches(epoch: int) -> Iterator[tuple[Tensor, ...]]:
            draw = generator(type(self).__name__, "order and views", self.seed, epoch, on=device())
            order = torch.randperm(len(labels), generator=draw, device=device())
            for index in order[: steps * self.batch_size].split(self.batch_size):
                index = index.repeat(2)
                pixels = images[index].float() / 255
                for augmentation in self.views:
                    pixels = augmentation(pixels, draw)
                yield self.data.normalise(pixels), index, labels[index]

        train(job, module, self.optimizer.build(groups), self.schedule, self.epochs, steps, self.batch_size, batches, losses)


@gin.register
@dataclass(frozen=True, kw_only=True)
class Pretrain(Training, Representation):
    """An encoder trained by a contrastive objective. As a representation: its backbone's features.

    classifier: the online classifier; None leaves it out.
    """

    encoder: Encoder
    projector: Projector
    objective: Objective
    classifier: OnlineClassifier | None = None

    def validate(self) -> None:
        if self.batch_size < 2:
            self.refuse("batch_size", f"must be 2 or more: a single image has nothing to be told from, got {self.batch_size}")

    @property
    def width(self) -> int:
        return self.encoder.width

    @property
    def channels(self) -> int:
        return self.data.channels

    def build(self) -> Network:
        """The network with the weights that `seed` names."""
        with seeded("Pretrain", "weights", self.seed):
            backbone, projector = self.encoder.build(self.data.channels), self.projector.build(self.width)
            online = self.classifier.build(self.width, self.data.classes) if self.classifier else None
        return Network(backbone, projector, online)

    def losses(self, network: Network, views: Tensor, index: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The objective plus, where there is an online classifier, its cross-entropy.

        The two halves of the batch pass one after the other, so that batch norm sees one view at a time, as in the reference.
        """
        features, raw = (torch.cat(halves) for halves in zip(*map(network, views.chunk(2)), strict=True))
        scalars = {"objective": self.objective(raw, index)}
        scalars["loss"] = scalars["objective"]
        with torch.no_grad():
            scalars["live_dimensions"] = (self.objective.embed(raw).abs().sum(0) > 0).sum().float()
        if self.classifier:
            loss, scalars["online_accuracy"] = self.classifier.loss(network.classifier, features, labels)
            scalars["loss"] = scalars["loss"] + loss
        return scalars

    def run(self, job: Job) -> Artifact:
        network = self.build().to(device()).train()
        groups: list[dict[str, object]] = [{"params": [*network.backbone.parameters(), *network.projector.parameters()]}]
        if self.classifier:
            rates = {"lr": self.classifier.lr, "weight_decay": self.classifier.weight_decay}
            groups.append({"params": [*network.classifier.parameters()], **rates})
        self.train(job, network, groups, lambda *batch: self.losses(network, *batch))
        return network.state_dict()

    def trained(self, get: Get) -> Network:
        network = self.build()
        network.load_state_dict(get(self))
        return network

    def network(self, get: Get) -> nn.Module:
        return frozen(self.trained(get).backbone)


class Then(nn.Module):
    """A function after a network."""

    def __init__(self, first: nn.Module, then: Callable[[Tensor], Tensor]):
        super().__init__()
        self.first, self.then = first, then

    def forward(self, images: Tensor) -> Tensor:
        return self.then(self.first(images))


@dataclass(frozen=True)
class Projected(Representation):
    """A function of an encoder's raw projections."""

    encoder: Pretrain

    @property
    def width(self) -> int:
        return self.encoder.projector.features

    @property
    def channels(self) -> int:
        return self.encoder.channels

    def after(self, raw: Tensor) -> Tensor:
        """(n, d) raw projections -> (n, d) features."""
        raise NotImplementedError

    def network(self, get: Get) -> nn.Module:
        trained = self.encoder.trained(get)
        return frozen(Then(nn.Sequential(trained.backbone, trained.projector), self.after))


@gin.register
@dataclass(frozen=True)
class Projection(Projected):
    """The raw projector output of an encoder, rectified or not: what the reference's probes see.

    activation: applied to the raw projections; the reference has relu for NCL encoders and nothing for SimCLR's.
    """

    activation: Activation = "identity"

    def after(self, raw: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](raw)


@gin.register
@dataclass(frozen=True)
class Embedding(Projected):
    """What an encoder's objective compares: for contrastive losses unit vectors, rectified where the objective rectifies."""

    def after(self, raw: Tensor) -> Tensor:
        return self.encoder.objective.embed(raw)


@gin.register
@dataclass(frozen=True, kw_only=True)
class SparseAutoencoder(Training, Representation):
    """An autoencoder trained on a frozen representation of augmented views. As a representation: its latents.

    Its input at probe time is what it was trained on, as it reads the same `encoder` both times; and the encoder stays in
    evaluation mode, so its batch norm never moves. (The reference does neither: it probes with un-normalised projections.)
    encoder: what is encoded, and where gradients stop. The reference's is Embedding of a SimCLR encoder.
    """

    encoder: Representation
    sparsity: Sparsifier
    latents: Count

    def upstream(self) -> tuple[Stage, ...]:
        return self.encoder.stages

    def validate(self) -> None:
        self.sparsity.check_width(self.latents)

    @property
    def width(self) -> int:
        return self.latents

    @property
    def channels(self) -> int | None:
        return self.encoder.channels

    def build(self) -> Autoencoder:
        """The autoencoder with the weights that `seed` names."""
        with seeded("SparseAutoencoder", "weights", self.seed):
            return Autoencoder(self.encoder.width, self.latents, self.sparsity)

    def losses(self, autoencoder: Autoencoder, inputs: Tensor) -> dict[str, Tensor]:
        """Reconstruction error and price of sparsity; how many latents are on, and how many were off for a whole epoch."""
        code: Code = autoencoder(inputs)
        on = code.latents.detach() > 0
        autoencoder.idle = torch.where(on.any(0), 0, autoencoder.idle + 1)
        epoch = len(self.data.split("train").labels) // self.batch_size
        return {
            "loss": autoencoder.loss(inputs, code),
            "l0": on.float().sum(1).mean(),
            "dead_latents": (autoencoder.idle >= epoch).float().sum(),
        }

    def run(self, job: Job) -> Artifact:
        encode = self.encoder.network(job.get)
        autoencoder = self.build().to(device())

        def losses(views: Tensor, index: Tensor, labels: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                inputs = encode(views)
            return self.losses(autoencoder, inputs)

        self.train(job, autoencoder, [{"params": [*autoencoder.parameters()]}], losses)
        return autoencoder.state_dict()

    def network(self, get: Get) -> nn.Module:
        autoencoder = self.build()
        autoencoder.load_state_dict(get(self))
        frozen(autoencoder)
        return frozen(Then(self.encoder.network(get), autoencoder.encode))
