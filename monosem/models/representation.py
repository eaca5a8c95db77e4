"""Representations and the stages that train them: pre-training, and sparse autoencoders on top."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import gin
import torch
from torch import Tensor, nn

from monosem.core.device import to_device
from monosem.core.fields import Part
from monosem.core.stage import Artifact, Stage
from monosem.data.dataset import Dataset
from monosem.learning.encoders import Network
from monosem.learning.objectives import ACTIVATIONS, Activation

Get = Callable[[Stage], Artifact]


@dataclass(frozen=True)
class Representation(Part):
    """Whatever turns normalised images (n, c, h, w) into features (n, width): an encoder, or something on top of one."""

    @property
    def width(self) -> int:
        raise NotImplementedError

    def incompatibility(self, data: Dataset) -> str | None:
        """Why inputs of `data` cannot be encoded, if they cannot; goes on from the name of a field."""
        return None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages whose artifacts `network` asks for: itself, if it is one, and those that it stands on."""
        below = (getattr(self, field.name) for field in fields(self))
        own = (self,) if isinstance(self, Stage) else ()
        return own + tuple(
            stage for each in below if isinstance(each, Representation) for stage in each.stages
        )

    def network(self, get: Get) -> nn.Module:
        """The map from images to features, on the device, in evaluation mode, frozen."""
        raise NotImplementedError


def frozen(module: nn.Module) -> nn.Module:
    return to_device(module).eval().requires_grad_(False)


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

    def incompatibility(self, data: Dataset) -> str | None:
        return self.encoder.incompatibility(data)

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
