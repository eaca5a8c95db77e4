"""Representations and the stages that train them: pre-training, and sparse autoencoders on top."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import gin
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from monosem.augment import Augmentation
from monosem.data import Dataset
from monosem.encoders import Encoder, Network, Projector
from monosem.fit import Feed, Optimizer, Precision, Schedule, compiled, device, placed, seeded, train
from monosem.metrics import ClassConsistency, ClassSelectivity, EffectiveRank, Metric, Orthogonality, PerDimension, Seen, Sparsity
from monosem.objectives import ACTIVATIONS, Activation, Objective, OnlineClassifier
from monosem.sparse import Autoencoder, Code, Sparsifier
from monosem.stage import Artifact, Count, Job, Part, Positive, Seed, Stage, generator

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

    def misfit(self, data: Dataset) -> str | None:
        """Why images of `data` cannot be encoded, if they cannot."""
        if self.channels in (None, data.channels):
            return None
        return f"must have {self.channels} channels like the images of the encoder, got {data.channels}"

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
    return placed(module).eval().requires_grad_(False)


@gin.register
@dataclass(frozen=True)
class Pixels(Representation):
    """The normalised images themselves, shrunk by means to at most side x side: what any encoder starts from, and a judge of how alike
    images are that had no part in anybody's training.

    data: whose images.
    """

    data: Dataset
    side: Count = 16

    @property
    def channels(self) -> int:
        return self.data.channels

    @property
    def width(self) -> int:
        height, width = (min(self.side, each) for each in self.data.split("test").images.shape[-2:])
        return self.channels * height * width

    def network(self, get: Get) -> nn.Module:
        return frozen(nn.Sequential(Shrink(self.side), nn.Flatten()))


class Shrink(nn.Module):
    """(n, c, h, w) -> (n, c, min(h, side), min(w, side)) by means."""

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        height, width = (min(self.side, each) for each in images.shape[-2:])
        return F.adaptive_avg_pool2d(images, (height, width))


# ------------------------------------------------------------------------------------------------ training


@dataclass(frozen=True)
class Learning(Stage):
    """A stage that learns epoch by epoch, logs each and can be resumed after each."""


@dataclass(frozen=True, kw_only=True)
class Training(Learning):
    """A stage that trains a network on two augmented views of every image.

    views: augmentations, applied in this order. seed: with the kind of stage, names the initial weights, the order of images
    and the augmentations; nothing else does, so two objectives with one seed meet the same batches and are paired.
    precision: of products, by autocast, with loss scaling for float16; the objective is computed in float32. On a CPU either half
    is bfloat16 where it has instructions for that, else float32. clip: the largest norm of all gradients together; None
    leaves them.
    """

    data: Dataset
    views: tuple[Augmentation, ...] = ()
    optimizer: Optimizer
    schedule: Schedule
    epochs: Count
    batch_size: Count
    seed: Seed = 0
    precision: Precision = "float32"
    clip: Positive | None = None

    def preflight(self) -> None:
        if flaw := self.data.flaw():
            self.refuse("data", flaw)
        images = len(self.data.split("train").labels)
        if self.batch_size > images:
            self.refuse("batch_size", f"must be at most {images}, the training images, got {self.batch_size}")

    def targets(self, index: Tensor, labels: Tensor, draw: Generator) -> Tensor:
        """(2b,) what tells which rows of a batch belong together: the image, unless labels do."""
        return index

    def train(
        self,
        job: Job,
        module: nn.Module,
        groups: list[dict[str, object]],
        losses: Callable[..., dict[str, Tensor]],
        represent: Callable[[Tensor], Tensor],
    ) -> None:
        """Minimise losses(views (2b, c, h, w) normalised, targets (2b,), labels (2b,)); what is left of an epoch is dropped.
        represent(views): what the monosemanticity of is logged at every epoch."""
        images, labels, _ = self.data.split("train")
        feed, labels = Feed(images), labels.to(device())
        steps = len(labels) // self.batch_size

        def batches(epoch: int) -> Iterator[tuple[Tensor, ...]]:
            draw = generator(type(self).__name__, "order and views", self.seed, epoch, on=device())
            order = torch.randperm(len(labels), generator=draw, device=device())[: steps * self.batch_size].split(self.batch_size)
            own = generator(type(self).__name__, "targets", self.seed, epoch, on=device())  # or views would depend on the objective
            for index, batch in zip(order, feed(order), strict=True):
                pixels = self.data.normalise(augmented(batch.repeat(2, 1, 1, 1), self.views, draw))
                index = index.repeat(2)
                yield pixels, self.targets(index, labels[index], own), labels[index]

        optimizer = self.optimizer.for_batches(self.batch_size).build(groups)

        def describe(views: Tensor, targets: Tensor, labels: Tensor) -> dict[str, float]:
            return described(module, represent, views, labels)

        how = (self.precision, self.clip)
        train(job, module, optimizer, self.schedule, self.epochs, steps, self.batch_size, batches, losses, *how, describe)


WATCHED: tuple[Metric, ...] = (ClassConsistency(), ClassSelectivity(), Sparsity(), EffectiveRank(), Orthogonality())


@torch.no_grad()
def described(module: nn.Module, represent: Callable[[Tensor], Tensor], views: Tensor, labels: Tensor) -> dict[str, float]:
    """How monosemantic the features of a batch are, as they would be probed: in evaluation mode, which moves no running mean.
    views: (2b, c, h, w); labels: (2b,)."""
    module.eval()
    features = represent(views).float()
    module.train()
    seen = Seen(features, labels, features)
    found = [finding for metric in WATCHED for finding in metric(seen).items()]
    return {name: value.mean if isinstance(value, PerDimension) else value for name, value in found}


# ------------------------------------------------------------------------------------------------ encoders


@dataclass(frozen=True)
class Pretrained(Representation):
    """A backbone with a projector whose weights are an artifact. As a representation: its backbone's features."""

    def trained(self, get: Get) -> Network:
        """The network with its weights, where it was built and as it is trained."""
        raise NotImplementedError

    def embed(self, raw: Tensor) -> Tensor:
        """(n, d) raw projections -> (n, d) what its objective compares."""
        raise NotImplementedError

    @property
    def features(self) -> int | None:
        """How many a projection has; None where there is no projector."""
        raise NotImplementedError

    def network(self, get: Get) -> nn.Module:
        return frozen(self.trained(get).backbone)


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
            self.refuse("batch_size", f"must be 2 or more: a single image has nothing to be told from, got {self.batch_size}")

    @property
    def width(self) -> int:
        return self.encoder.width

    @property
    def channels(self) -> int:
        return self.data.channels

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
            backbone, projector = self.encoder.build(self.data.channels), self.projector.build(self.width)
            online = self.classifier.build(self.width, self.data.classes) if self.classifier else None
        return Network(backbone, projector, online)

    def losses(self, network: Network, views: Tensor, targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The objective plus, where there is an online classifier, its cross-entropy.

        The two halves of the batch pass one after the other, so that batch norm sees one view at a time, as in the reference.
        """
        features, raw = (torch.cat(halves) for halves in zip(*map(network, views.chunk(2)), strict=True))
        with torch.autocast(raw.device.type, enabled=False):
            scalars = {"objective": self.objective(raw.float() if raw.dtype.itemsize == 2 else raw, targets)}
        scalars["loss"] = scalars["objective"]
        with torch.no_grad():
            scalars["live_dimensions"] = (self.embed(raw).abs().sum(0) > 0).sum().float()
        if self.classifier:
            loss, scalars["online_accuracy"] = self.classifier.loss(network.classifier, features, labels)
            scalars["loss"] = scalars["loss"] + loss
        return scalars

    def run(self, job: Job) -> Artifact:
        network = placed(self.build().train())
        groups: list[dict[str, object]] = [{"params": [*network.backbone.parameters(), *network.projector.parameters()]}]
        if self.classifier:
            rate = self.classifier.lr * self.optimizer.scale(self.batch_size)
            rates = {"lr": rate, "weight_decay": self.classifier.weight_decay}
            groups.append({"params": [*network.classifier.parameters()], **rates})
        quick = compiled(network)
        self.train(job, network, groups, lambda *batch: self.losses(quick, *batch), lambda views: self.embed(network(views)[1]))
        return network.state_dict()

    def trained(self, get: Get) -> Network:
        network = self.build()
        network.load_state_dict(get(self))
        return network


def augmented(images: Tensor, views: Sequence[Augmentation], draw: Generator) -> Tensor:
    """(n, c, h, w) uint8 -> the same in [0, 1], augmented one after the other."""
    pixels = images.float() / 255
    for augmentation in views:
        pixels = augmentation(pixels, draw)
    return pixels


class Then(nn.Module):
    """A network or a function after a network."""

    def __init__(self, first: nn.Module, then: Callable[[Tensor], Tensor]):
        super().__init__()
        self.first, self.then = first, then

    def forward(self, images: Tensor) -> Tensor:
        return self.then(self.first(images))


@dataclass(frozen=True)
class Projected(Representation):
    """A function of an encoder's raw projections."""

    encoder: Pretrained

    def validate(self) -> None:
        if self.encoder.features is None:
            self.refuse("encoder", "must have a projector")

    @property
    def width(self) -> int:
        assert self.encoder.features is not None, "as validate has seen"
        return self.encoder.features

    @property
    def channels(self) -> int | None:
        return self.encoder.channels

    def after(self, raw: Tensor) -> Tensor:
        """(n, d) raw projections -> (n, d) features."""
        raise NotImplementedError

    def network(self, get: Get) -> nn.Module:
        trained = self.encoder.trained(get)
        return frozen(Then(Then(trained.backbone, trained.projector), self.after))


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

    def validate(self) -> None:
        super().validate()
        self.after(torch.zeros(1, self.width))  # a checkpoint may know of no objective

    def after(self, raw: Tensor) -> Tensor:
        return self.encoder.embed(raw)


def innermost(network: nn.Module) -> nn.Module:
    """The network that sees the images: the backbone of a representation's network."""
    while isinstance(network, Then):
        network = network.first
    return network


class Encode(nn.Module):
    """An autoencoder up to its latents."""

    def __init__(self, autoencoder: Autoencoder):
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, inputs: Tensor) -> Tensor:
        return self.autoencoder.encode(inputs)


@gin.register
@dataclass(frozen=True, kw_only=True)
class SparseAutoencoder(Training, Representation):
    """An autoencoder trained on a frozen representation of augmented views. As a representation: its latents.

    Its input at probe time is what it was trained on, as it reads the same `encoder` both times; and the encoder stays in
    evaluation mode, so its batch norm never moves. (The reference does neither: it probes with un-normalised projections.)
    encoder: what is encoded, and where gradients stop. The reference's is Embedding of a SimCLR encoder.
    decoder_lr: the learning rate of the decoder alone, which does not grow with the batch; None gives it the optimiser's. The
        reference has 0.3.
    """

    encoder: Representation
    sparsity: Sparsifier
    latents: Count
    decoder_lr: Positive | None = None

    def upstream(self) -> tuple[Stage, ...]:
        return self.encoder.stages

    def validate(self) -> None:
        self.sparsity.check_width(self.latents)
        if misfit := self.encoder.misfit(self.data):
            self.refuse("data", misfit)

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
        autoencoder = placed(self.build())
        decoder: dict[str, object] = {"params": [*autoencoder.decoder.parameters()]}
        if self.decoder_lr is not None:
            decoder["lr"] = self.decoder_lr
        others = [each for name, each in autoencoder.named_parameters() if not name.startswith("decoder.")]

        def losses(views: Tensor, targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                inputs = encode(views)
            return self.losses(autoencoder, inputs)

        self.train(job, autoencoder, [{"params": others}, decoder], losses, lambda views: autoencoder.encode(encode(views)))
        return autoencoder.state_dict()

    def autoencoder(self, get: Get) -> Autoencoder:
        """The trained one."""
        autoencoder = self.build()
        autoencoder.load_state_dict(get(self))
        return autoencoder

    def network(self, get: Get) -> nn.Module:
        return frozen(Then(self.encoder.network(get), Encode(self.autoencoder(get))))
