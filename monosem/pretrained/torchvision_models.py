"""Networks of torchvision, which is installed in any case."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gin
from torch import nn

from monosem.pretrained.image_inputs import InputRule
from monosem.pretrained.image_network import ImageNetwork
from monosem.pretrained.layers import last_linear, replace
from monosem.pretrained.weight_sources import Published, at_address


@gin.register
@dataclass(frozen=True)
class TorchvisionModel(ImageNetwork):
    """A network of torchvision.models for classification.

    name: in torchvision, such as 'vit_b_16' or 'resnet50.IMAGENET1K_V2'. The part after the dot
        names weights, and with them how images are normalised and cropped; without it the best ones
        are meant.
    weights: as torchvision has them, or in a file of its names. RandomWeights downloads nothing.
    data: as in every network of images.
    layer: a module by torchvision's name, 'layer3' of a ResNet. None is what the last linear layer
        reads.
    pool: as in every network of images.
    size: as in every network of images.
    """

    library: ClassVar[str] = "torchvision"

    def names(self) -> Sequence[str]:
        return _names()

    def tags(self) -> Sequence[str]:
        return list(self._choices.__members__)

    @property
    def _choices(self) -> Any:
        """The enumeration of the network's published weights."""
        from torchvision.models import get_model_weights

        return get_model_weights(self.architecture)

    @property
    def _chosen(self) -> Any:
        tag = self.name.partition(".")[2]
        return self._choices[tag or "DEFAULT"]

    def rule(self) -> InputRule:
        preset = self._chosen.transforms()
        (crop,), (resize,) = preset.crop_size, preset.resize_size
        if self.size:
            resize, crop = round(resize * self.size / crop), self.size
        return InputRule(
            resize=(resize, resize),
            fit="cover",
            crop=(crop, crop),
            interpolation=preset.interpolation.value,
            mean=tuple(preset.mean),
            std=tuple(preset.std),
        )

    def build(self, whole: bool = False) -> nn.Module:
        from torchvision.models import get_model

        sized = (
            {"image_size": self.size} if self.size and self.architecture.startswith("vit") else {}
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The default weight initialization", FutureWarning)
            network: nn.Module = get_model(self.architecture, weights=None, **sized)
        if hasattr(network, "transform_input"):  # what published weights of Inception want
            setattr(network, "transform_input", True)  # noqa: B010
        if not whole and (name := last_linear(network)):
            replace(network, name, nn.Identity())
        return network

    @property
    def classifiers(self) -> tuple[str, ...]:
        name = last_linear(self.empty(whole=True))
        return (name,) if name else ()

    def published(self) -> Published:
        return at_address(self._chosen.url)

    def prefix_tokens(self, network: nn.Module, tokens: int) -> int:
        return int(hasattr(network, "class_token"))


@functools.cache
def _names() -> tuple[str, ...]:
    from torchvision import models

    return tuple(models.list_models(module=models))
