"""Larger encoders for small images, trained from scratch: ViT, ConvNeXt and wide ResNets.

Nothing in them is random in a pass: no dropout and no stochastic depth, as Pretrain resumes with
the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import gin
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monosem.core.fields import Count, Positive
from monosem.learning.encoders import ImageEncoder


@dataclass(frozen=True)
class EncoderOfSides(ImageEncoder):
    """An encoder that shrinks images, so that they must have a least size."""

    @property
    def least_side(self) -> int:
        """Of an image, in pixels."""
        raise NotImplementedError

    def incompatibility(self, sample_shape: tuple[int, ...]) -> str | None:
        if problem := super().incompatibility(sample_shape):
            return problem
        height, width = sample_shape[1:]
        if min(height, width) >= self.least_side:
            return None
        return (
            f"must be of images with sides of {self.least_side} pixels or more, which "
            f"{type(self).__name__} takes, got {height} x {width}"
        )


@gin.register
@dataclass(frozen=True)
class ViT(EncoderOfSides):
    """A vision transformer (Dosovitskiy et al., arXiv:2010.11929) of small patches.

    As Beyer et al. (arXiv:2205.01580) have it: fixed positions of sines and cosines, and the mean
    over patches in place of a class token. So it takes images of any size. The blocks are
    torchvision's.

        images      (n, channels, h, w)
        tokens      (n, h / patch * w / patch, features)    pixels beyond whole patches are dropped
        layers      the same: x + attention(norm(x)), then x + mlp(norm(x))
        mean        (n, features)                           of norm(x), over patches

    With its defaults it is ViT-Tiny (Touvron et al., arXiv:2012.12877) with 5.3 M parameters.

    patch: side of a patch in pixels.
    features: of a token; a multiple of 4 and of `heads`.
    layers: blocks of attention and perceptron.
    heads: of an attention.
    expansion: of the perceptron, in multiples of `features`.
    """

    patch: Count = 4
    features: Count = 192
    layers: Count = 12
    heads: Count = 3
    expansion: Count = 4

    def validate(self) -> None:
        if self.features % self.heads or self.features % 4:
            self.refuse(
                "features",
                f"must be a multiple of 4 and of heads = {self.heads}, got {self.features}",
            )

    @property
    def width(self) -> int:
        return self.features

    @property
    def least_side(self) -> int:
        return self.patch

    def build(self, sample_shape: tuple[int, ...]) -> nn.Module:
        return PatchTransformer(sample_shape[0], self)


class PatchTransformer(nn.Module):
    """The network of a ViT: (n, channels, h, w) -> (n, features)."""

    def __init__(self, channels: int, spec: ViT):
        super().__init__()
        from torchvision.models.vision_transformer import EncoderBlock

        self.embed = nn.Conv2d(channels, spec.features, spec.patch, stride=spec.patch)
        nn.init.trunc_normal_(self.embed.weight, std=(channels * spec.patch**2) ** -0.5)
        nn.init.zeros_(self.embed.bias)  # type: ignore[arg-type]
        hidden = spec.expansion * spec.features
        blocks = [
            EncoderBlock(spec.heads, spec.features, hidden, 0.0, 0.0) for _ in range(spec.layers)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(spec.features, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        grid = self.embed(images)
        _, features, height, width = grid.shape
        tokens = grid.flatten(2).transpose(1, 2) + positions(height, width, features).to(grid)
        return self.norm(self.blocks(tokens)).mean(1)


def positions(height: int, width: int, features: int) -> Tensor:
    """(height * width, features): sines and cosines of both coordinates, a quarter each.

    The frequencies go from 1 to 1 / 10000, as in MoCo v3 (Chen et al., arXiv:2104.02057).
    """
    quarter = features // 4
    frequencies = 10_000.0 ** -(torch.arange(quarter) / max(1, quarter - 1))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    parts = [
        function(coordinate.flatten()[:, None] * frequencies)
        for coordinate in (columns, rows)
        for function in (torch.sin, torch.cos)
    ]
    return torch.cat(parts, 1)


@gin.register
@dataclass(frozen=True)
class ConvNeXt(EncoderOfSides):
    """torchvision's ConvNeXt (Liu et al., arXiv:2201.03545) of small patches, not pre-trained.

        images      (n, channels, h, w)
        stage 1     (n, widths[0], h / patch, w / patch)
        stage i     (n, widths[i], half of it, half of it)
        mean        (n, widths[-1])                         then layer norm

    With its defaults it has the stages of ConvNeXt-Atto, 3.4 M parameters.

    patch: side of the patches of the stem in pixels; 4 in the paper, for images of 224 pixels.
    depths: blocks of every stage. ConvNeXt-Tiny has (3, 3, 9, 3).
    widths: channels of every stage. ConvNeXt-Tiny has (96, 192, 384, 768).
    scale: of the residual branches at first; 1e-6 in the paper.
    """

    patch: Count = 2
    depths: tuple[Count, ...] = (2, 2, 6, 2)
    widths: tuple[Count, ...] = (40, 80, 160, 320)
    scale: Positive = 1e-6

    def validate(self) -> None:
        if not self.depths or len(self.depths) != len(self.widths):
            self.refuse(
                "widths",
                f"must have one for each of depths = {self.depths}, got {self.widths}",
            )

    @property
    def width(self) -> int:
        return self.widths[-1]

    @property
    def least_side(self) -> int:
        return self.patch * 2 ** (len(self.widths) - 1)

    def build(self, sample_shape: tuple[int, ...]) -> nn.Module:
        from torchvision.models import convnext

        following = (*self.widths[1:], None)
        stages = [
            convnext.CNBlockConfig(*numbers)
            for numbers in zip(self.widths, following, self.depths, strict=True)
        ]
        network = convnext.ConvNeXt(stages, stochastic_depth_prob=0.0, layer_scale=self.scale)
        stem = nn.Conv2d(sample_shape[0], self.widths[0], self.patch, stride=self.patch)
        nn.init.trunc_normal_(stem.weight, std=0.02)
        nn.init.zeros_(stem.bias)  # type: ignore[arg-type]
        network.features[0][0] = stem
        network.classifier[-1] = nn.Identity()
        return network.to(memory_format=torch.channels_last)


@gin.register
@dataclass(frozen=True)
class WideResNet(EncoderOfSides):
    """A wide residual network (Zagoruyko & Komodakis, arXiv:1605.07146), WRN-depth-widening.

        images      (n, channels, h, w)
        first       (n, 16, h, w)                       3 x 3 convolution
        group i     (n, 16 * widening * 2^i, h / 2^i, w / 2^i)      i = 0, 1, 2
        mean        (n, 64 * widening)                  after norm and ReLU

    A block is x + conv(relu(norm(conv(relu(norm(x)))))); where the shape changes, x is a 1 x 1
    convolution of relu(norm(x)). WRN-28-10 has 36.5 M parameters, WRN-16-4 has 2.7 M.

    depth: of convolutions, 6 b + 4 for groups of b blocks.
    widening: of the channels.
    """

    depth: Count = 16
    widening: Count = 4

    def validate(self) -> None:
        if self.depth < 10 or (self.depth - 4) % 6:
            below = max(10, self.depth - (self.depth - 4) % 6)
            self.refuse(
                "depth",
                f"must be 6 b + 4 for groups of b blocks, such as {below} or {below + 6}, "
                f"got {self.depth}",
            )

    @property
    def width(self) -> int:
        return 64 * self.widening

    @property
    def least_side(self) -> int:
        return 4

    def build(self, sample_shape: tuple[int, ...]) -> nn.Module:
        blocks: list[nn.Module] = []
        width = 16
        for group in range(3):
            for block in range((self.depth - 4) // 6):
                wider, stride = 16 * self.widening * 2**group, 2 if group and not block else 1
                blocks.append(WideBlock(width, wider, stride))
                width = wider
        network = nn.Sequential(
            _conv(sample_shape[0], 16, 3),
            *blocks,
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        return network.to(memory_format=torch.channels_last)


class WideBlock(nn.Module):
    """(n, width, h, w) -> (n, wider, h / stride, w / stride)"""

    def __init__(self, width: int, wider: int, stride: int):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(width), _conv(width, wider, 3, stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(wider), _conv(wider, wider, 3)
        self.short = _conv(width, wider, 1, stride) if (width, 1) != (wider, stride) else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        residual = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return residual + (x if self.short is None else self.short(active))


def _conv(width: int, wider: int, side: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(width, wider, side, stride, padding=side // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv
