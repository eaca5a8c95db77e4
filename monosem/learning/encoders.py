"""Encoders: networks from normalised images to features, and the projector that contrastive learning puts on top."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import gin
import torch
from torch import Tensor, nn

from monosem.core.fields import Count, Part


@dataclass(frozen=True)
class Encoder(Part):
    """The architecture of a backbone: (n, channels, h, w) normalised images -> (n, width) features."""

    @property
    def width(self) -> int:
        raise NotImplementedError

    def build(self, sample_shape: tuple[int, ...]) -> nn.Module:
        """A freshly initialised backbone.

        sample_shape: of one input, (channels, height, width) for images. Of a checkpoint only the
            channels are known.

        Draws from torch's current generator: seed it around the call.
        """
        raise NotImplementedError


@gin.register
@dataclass(frozen=True)
class SmallConv(Encoder):
    """Four 3 x 3 convolutions with batch norm, the first and the third of stride 2, then the mean over what is left.

    Made for small images on a CPU: 0.24 M parameters as it stands. channels: of the first layer, doubled by the next two;
    features: of the last.
    """

    channels: Count = 32
    features: Count = 128

    @property
    def width(self) -> int:
        return self.features

    def build(self, sample_shape: tuple[int, ...]) -> nn.Module:
        channels, c = sample_shape[0], self.channels
        plan = [(channels, c, 2), (c, 2 * c, 1), (2 * c, 4 * c, 2), (4 * c, self.features, 1)]
        layers: list[nn.Module] = []
        for wide_in, wide_out, stride in plan:
            layers += [
                nn.Conv2d(wide_in, wide_out, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(wide_out),
                nn.ReLU(),
            ]
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return network.to(
            memory_format=torch.channels_last
        )  # a quarter less time a step on an AVX-512 CPU


@gin.register
@dataclass(frozen=True)
class ResNet(Encoder):
    """torchvision's ResNet without its last layer (He et al., arXiv:1512.03385), randomly initialised.

    stem: 'imagenet' is the 7 x 7 convolution and the pooling of the paper; 'cifar' a 3 x 3 convolution without pooling.
    stem_padding: of the CIFAR stem. 1 keeps 32 x 32; the reference code has 2, which makes it 34 x 34.
    """

    depth: Literal[18, 34, 50] = 18
    stem: Literal["cifar", "imagenet"] = "cifar"
    stem_padding: Count = 1

    @property
    def width(self) -> int:
        return 2048 if self.depth == 50 else 512

    def build(self, sample_shape: tuple[int, ...]) -> nn.Module:
        channels = sample_shape[0]
        from torchvision.models import resnet

        network = getattr(resnet, f"resnet{self.depth}")(weights=None)
        network.fc = nn.Identity()
        if self.stem == "cifar":
            network.conv1 = nn.Conv2d(
                channels, 64, 3, stride=1, padding=self.stem_padding, bias=False
            )
            network.maxpool = nn.Identity()
        elif channels != 3:
            network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        return network.to(memory_format=torch.channels_last)


@gin.register
@dataclass(frozen=True)
class Projector(Part):
    """Linear - ReLU - Linear with biases and no batch norm, as in the reference: (n, width) -> (n, features)."""

    hidden: Count = 2048
    features: Count = 256

    def build(self, width: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(width, self.hidden), nn.ReLU(), nn.Linear(self.hidden, self.features)
        )


class Network(nn.Module):
    """backbone, projector and, where there is one, the online classifier; parameter names as in solo-learn's checkpoints."""

    def __init__(
        self, backbone: nn.Module, projector: nn.Module, classifier: nn.Module | None = None
    ):
        super().__init__()
        self.backbone, self.projector = backbone, projector
        if classifier is not None:
            self.classifier = classifier

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(n, c, h, w) -> backbone features (n, width), raw projections (n, d)."""
        features = self.backbone(images)
        return features, self.projector(features)
