"""Encoders: networks from prepared inputs to features, and what contrastive learning puts on top.

They know the shape of one input, and no dataset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import gin
import torch
from torch import Tensor, nn

from monosem.core.fields import Count, Part


@dataclass(frozen=True)
class Encoder(Part):
    """The architecture of a backbone: prepared inputs (n, *sample_shape) -> features (n, width)."""

    @property
    def width(self) -> int:
        """The number of features."""
        raise NotImplementedError

    def build(self, sample_shape: tuple[int, ...]) -> nn.Module:
        """A freshly initialised backbone.

        It draws from torch's current generator: seed that around the call.

        sample_shape: of one input, (channels, height, width) for images. Of a checkpoint only the
            channels are known.
        """
        raise NotImplementedError

    def incompatibility(self, sample_shape: tuple[int, ...]) -> str | None:
        """Why it cannot take inputs of this shape, if it cannot: 'must be of images ...'."""
        return None


@dataclass(frozen=True)
class ImageEncoder(Encoder):
    """The architecture of a backbone for images, (n, channels, height, width)."""

    def incompatibility(self, sample_shape: tuple[int, ...]) -> str | None:
        if len(sample_shape) == 3:
            return None
        kind = type(self).__name__
        return f"must be of images, which {kind} takes, got inputs of the shape {sample_shape}"


@gin.register
@dataclass(frozen=True)
class SmallConv(ImageEncoder):
    """Four 3 x 3 convolutions with batch norm, then the mean over space. For small images on a CPU.

        images      (n, channels in, h, w)
        layer 1     (n, channels, h / 2, w / 2)
        layer 2     (n, 2 channels, h / 2, w / 2)
        layer 3     (n, 4 channels, h / 4, w / 4)
        layer 4     (n, features, h / 4, w / 4)
        mean        (n, features)

    With its defaults it has 0.24 M parameters.

    channels: of the first layer.
    features: of the last layer.
    """

    channels: Count = 32
    features: Count = 128

    @property
    def width(self) -> int:
        return self.features

    def build(self, sample_shape: tuple[int, ...]) -> nn.Module:
        widths = [sample_shape[0], self.channels, 2 * self.channels, 4 * self.channels]
        widths.append(self.features)
        layers: list[nn.Module] = []
        for index, stride in enumerate([2, 1, 2, 1]):
            width_in, width_out = widths[index], widths[index + 1]
            layers += [
                nn.Conv2d(width_in, width_out, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(width_out),
                nn.ReLU(),
            ]
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        # a step takes a quarter less time on a CPU that has AVX-512
        return network.to(memory_format=torch.channels_last)


@gin.register
@dataclass(frozen=True)
class ResNet(ImageEncoder):
    """torchvision's ResNet (He et al., arXiv:1512.03385) without its last layer, not pre-trained.

    depth: 18, 34 or 50 layers.
    stem: 'imagenet' is the 7 x 7 convolution and the pooling of the paper; 'cifar' is a 3 x 3
        convolution without pooling.
    stem_padding: of the CIFAR stem. 1 keeps 32 x 32; the reference code has 2, which makes it
        34 x 34.
    """

    depth: Literal[18, 34, 50] = 18
    stem: Literal["cifar", "imagenet"] = "cifar"
    stem_padding: Count = 1

    @property
    def width(self) -> int:
        return 2048 if self.depth == 50 else 512

    def build(self, sample_shape: tuple[int, ...]) -> nn.Module:
        from torchvision.models import resnet

        channels = sample_shape[0]
        network = getattr(resnet, f"resnet{self.depth}")(weights=None)
        network.fc = nn.Identity()
        if self.stem == "cifar":
            padding = self.stem_padding
            network.conv1 = nn.Conv2d(channels, 64, 3, stride=1, padding=padding, bias=False)
            network.maxpool = nn.Identity()
        elif channels != 3:
            network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        return network.to(memory_format=torch.channels_last)


@gin.register
@dataclass(frozen=True)
class Projector(Part):
    """Linear, ReLU, Linear: (n, width) -> (n, features). With biases, as in the reference.

    hidden: between the two layers.
    features: of a projection.
    """

    hidden: Count = 2048
    features: Count = 256

    def build(self, width: int) -> nn.Module:
        """A freshly initialised projector of backbone features (n, width)."""
        first = nn.Linear(width, self.hidden)
        second = nn.Linear(self.hidden, self.features)
        return nn.Sequential(first, nn.ReLU(), second)


class Network(nn.Module):
    """What contrastive learning trains. Parameters are named as in solo-learn's checkpoints.

    backbone: prepared inputs -> features (n, width).
    projector: features -> raw projections (n, d).
    classifier: features -> logits (n, classes); None where nobody watches online.
    """

    def __init__(
        self, backbone: nn.Module, projector: nn.Module, classifier: nn.Module | None = None
    ):
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        if classifier is not None:
            self.classifier = classifier

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Prepared inputs (n, ...) -> features (n, width) and raw projections (n, d)."""
        features = self.backbone(inputs)
        return features, self.projector(features)
