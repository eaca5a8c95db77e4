"""Representations: whatever turns inputs into features, and functions of an encoder's projections.

Training is in pretrain.py.
"""

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

GetArtifact = Callable[[Stage], Artifact]


@dataclass(frozen=True)
class Representation(Part):
    """Whatever turns prepared inputs (n, ...) into features (n, width).

    An encoder, something on top of one, or a fixed map. One that was trained is a stage as well.
    """

    @property
    def width(self) -> int:
        """The number of features of an input."""
        raise NotImplementedError

    def incompatibility(self, data: Dataset) -> str | None:
        """Why inputs of `data` cannot be encoded, if they cannot.

        It begins with a verb, as in "must be Digits, got CIFAR10": "Curve.data" is put in front.
        Asked when a spec is read: it loads nothing.
        """
        return None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages whose artifacts `network` asks for: itself, if it is one, and those in fields.

        These are not the stages of `upstream`, whose artifacts its training asks for. A PCA, for
        example, is trained on the features of a split, but its network needs the encoder.
        """
        stages: list[Stage] = [self] if isinstance(self, Stage) else []
        for field in fields(self):
            value = getattr(self, field.name)
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, Representation):
                    stages += part.stages
        return tuple(stages)

    def skeleton(self) -> nn.Module | None:
        """The network with weights that mean nothing; None where only training can tell it.

        Asked before any work, for the names of layers or for a trial pass.
        """
        artifacts = {stage: stage.stand_in() for stage in self.stages}
        if None in artifacts.values():
            return None
        return self.network(lambda stage: artifacts[stage] or {})

    def network(self, get: GetArtifact) -> nn.Module:
        """The map from prepared inputs to features: on the device, in evaluation mode, frozen.

        get: gives the artifact of any of `stages`.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class FeatureMap(Representation):
    """A function of the features of another representation, and of nothing else.

    Where those are kept, they are mapped: no input passes through a network again (features.py).

    encoder: the representation whose features are mapped.
    """

    encoder: Representation

    @property
    def width(self) -> int:
        return self.encoder.width

    def incompatibility(self, data: Dataset) -> str | None:
        return self.encoder.incompatibility(data)

    def mapping(self) -> Callable[[Tensor], Tensor]:
        """(n, width of the encoder) -> (n, width), on the device of what it is given."""
        raise NotImplementedError

    def network(self, get: GetArtifact) -> nn.Module:
        return freeze(Composed(self.encoder.network(get), self.mapping()))


class Composed(nn.Module):
    """A network or a function after a network."""

    def __init__(self, first: nn.Module, then: Callable[[Tensor], Tensor]):
        super().__init__()
        self.first, self.then = first, then

    def forward(self, inputs: Tensor) -> Tensor:
        return self.then(self.first(inputs))


def backbone_of(network: nn.Module) -> nn.Module:
    """The innermost network of a representation: the one that takes the inputs."""
    while isinstance(network, Composed):
        network = network.first
    return network


def freeze(module: nn.Module) -> nn.Module:
    """The module on the device, in evaluation mode, without gradients for its weights."""
    return to_device(module).eval().requires_grad_(False)


@dataclass(frozen=True)
class Pretrained(Representation):
    """A backbone with a projector, whose weights are an artifact.

    As a representation: the features of its backbone.
    """

    def trained(self, get: GetArtifact) -> Network:
        """The network with its weights, in training mode, on the device where it was built."""
        raise NotImplementedError

    def embed(self, raw: Tensor) -> Tensor:
        """(n, d) raw projections -> (n, d) what its objective compares."""
        raise NotImplementedError

    @property
    def projection_width(self) -> int | None:
        """The number of features of a projection; None where there is no projector."""
        raise NotImplementedError

    def network(self, get: GetArtifact) -> nn.Module:
        return freeze(self.trained(get).backbone)


@dataclass(frozen=True)
class Projected(Representation):
    """A function of an encoder's raw projections.

    encoder: must have a projector.
    """

    encoder: Pretrained

    def validate(self) -> None:
        if self.encoder.projection_width is None:
            self.refuse("encoder", "must have a projector")

    @property
    def width(self) -> int:
        assert self.encoder.projection_width is not None, "validate refuses that"
        return self.encoder.projection_width

    def incompatibility(self, data: Dataset) -> str | None:
        return self.encoder.incompatibility(data)

    def after(self, raw: Tensor) -> Tensor:
        """(n, d) raw projections -> (n, d) features."""
        raise NotImplementedError

    def network(self, get: GetArtifact) -> nn.Module:
        trained = self.encoder.trained(get)
        projected = Composed(trained.backbone, trained.projector)
        return freeze(Composed(projected, self.after))


@gin.register
@dataclass(frozen=True)
class Projection(Projected):
    """The projector's output, rectified or not: what the probes of the authors' code see.

    activation: applied to the raw projections. The authors have relu for NCL encoders and nothing
        for those of SimCLR.
    """

    activation: Activation = "identity"

    def after(self, raw: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](raw)


@gin.register
@dataclass(frozen=True)
class Embedding(Projected):
    """What an encoder's objective compares.

    For contrastive losses unit vectors, rectified where the objective rectifies.
    """

    def validate(self) -> None:
        super().validate()
        self.after(torch.zeros(1, self.width))  # raises if the checkpoint has no objective

    def after(self, raw: Tensor) -> Tensor:
        return self.encoder.embed(raw)
