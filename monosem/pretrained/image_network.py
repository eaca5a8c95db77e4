"""A network of images from a library as a representation; which library is said in other files."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from monosem.checkpoints.matching import Tensors
from monosem.core.fields import Count, nearest
from monosem.core.identity import digest
from monosem.data.dataset import Dataset
from monosem.data.images import ImageDataset
from monosem.models.representation import GetArtifact, Representation, freeze
from monosem.pretrained.image_inputs import ImageInputs, InputRule
from monosem.pretrained.layers import (
    LayerOutput,
    Layout,
    Pool,
    layout_of,
    names_of,
    on_meta,
)
from monosem.pretrained.weight_sources import Published, RandomWeights, Weights

# Images in one pass, at most, where nothing learns: 500 of 224 x 224 pixels would take gigabytes,
# and what fits the cache is quicker.
PART = 25


@dataclass(frozen=True)
class ImageNetwork(Representation):
    """One of its layers, pooled, or what its classifier reads.

    name: of the network in its library, with the name of published weights after a dot where there
        are several.
    weights: RandomWeights, WeightsFile or PublishedWeights.
    data: prepares the images; its mean and std are undone, and those of the network are applied. A
        grey image is given three times, as red, green and blue.
    layer: the name of a module, whose output is pooled; what comes after it is not computed. None
        is what the classifier reads, pooled as the network does.
    pool: 'class' is the class token; 'mean' is over patches, without class and register tokens, or
        over positions; None is for a vector.
    size: side of the network's square input in pixels; None is its own. Images are resized and
        cropped as its library does when it evaluates.
    """

    library: ClassVar[str]

    name: str
    weights: Weights
    data: ImageDataset
    layer: str | None = None
    pool: Pool | None = None
    size: Count | None = None

    # What a library says

    def names(self) -> Sequence[str]:
        """Of all networks of the library."""
        raise NotImplementedError

    def tags(self) -> Sequence[str]:
        """The names of published weights of this network."""
        raise NotImplementedError

    def rule(self) -> InputRule:
        """What its input is made like."""
        raise NotImplementedError

    def build(self, whole: bool = False) -> nn.Module:
        """The network with first weights; with its classifier where it is `whole`."""
        raise NotImplementedError

    @property
    def classifiers(self) -> tuple[str, ...]:
        """The names of its last layers, which are left out."""
        raise NotImplementedError

    def published(self) -> Published:
        """Its published weights."""
        raise NotImplementedError

    def translated(self, tensors: Tensors, network: nn.Module) -> Tensors:
        """Tensors of a file under the library's names, where it knows others."""
        return tensors

    def prefix_tokens(self, network: nn.Module, tokens: int) -> int:
        """How many of so many tokens come before those of the patches."""
        return 0

    def channels_last(self, network: nn.Module) -> bool:
        """Whether the network has its channels behind height and width."""
        return False

    # What is checked before any work

    @property
    def architecture(self) -> str:
        """The name without that of weights."""
        return self.name.partition(".")[0]

    def validate(self) -> None:
        if importlib.util.find_spec(self.library) is None:
            self.refuse("name", f"needs {self.library}: pip install {self.library}")
        self._check_name()
        if self.data.channels not in (1, 3):
            self.refuse("data", f"must have 1 or 3 channels, got {self.data.channels}")
        outcome = _trial(self._bare(self.layer))
        if outcome.layout is None:
            self.refuse(outcome.field, outcome.problem)
        if problem := outcome.layout.problem(self.pool):
            self.refuse("pool", problem)

    def _check_name(self) -> None:
        known = self.names()
        if self.architecture not in known:
            hint = nearest(self.architecture, known, "; did you mean {}?")
            self.refuse("name", f"must be a network of {self.library}, got {self.name!r}{hint}")
        tag = self.name.partition(".")[2]
        if tag and tag not in self.tags():
            have = ", ".join(f"{self.architecture}.{known}" for known in self.tags()) or "none"
            self.refuse("name", f"must end in the name of published weights, {have}; got {tag!r}")

    def _bare(self, layer: str | None) -> ImageNetwork:
        """The same in all that a trial without weights depends on."""
        bare = object.__new__(type(self))  # without `validate`, which is what asks for the trial
        changes = {"weights": RandomWeights(), "layer": layer, "pool": None}
        for field, value in {**vars(self), **changes}.items():
            object.__setattr__(bare, field, value)
        return bare

    def empty(self, whole: bool = False) -> nn.Module:
        """The network without weights: names and shapes alone, on the meta device."""
        return _empty(self._bare(None), whole)

    def content(self) -> str:
        return digest(self.weights.check(self), tuple(self.rule()))

    def incompatibility(self, data: Dataset) -> str | None:
        kind = type(self).__name__
        if not isinstance(data, ImageDataset):
            return f"must be images, as {kind} takes them, got {type(data).__name__}"
        if (data.mean, data.std) != (self.data.mean, self.data.std):
            return (
                f"must be normalised as {kind}.data is, with mean {self.data.mean} and std "
                f"{self.data.std}, got {data.mean} and {data.std}"
            )
        return None

    # The network

    @property
    def _layout(self) -> Layout:
        layout = _trial(self._bare(self.layer)).layout
        assert layout is not None, "validate refuses that"
        return layout

    @property
    def width(self) -> int:
        shape = self._layout.shape
        return shape[1] if len(shape) == 4 and not self._layout.channels_last else shape[-1]

    def skeleton(self) -> nn.Module:
        return self._with(RandomWeights().network(self))

    def network(self, get: GetArtifact) -> nn.Module:
        return self._with(self.weights.network(self))

    def _with(self, network: nn.Module) -> nn.Module:
        network = network.to(memory_format=torch.channels_last)
        inputs = ImageInputs(self.data.mean, self.data.std, self.rule())
        body = LayerOutput(network, self.layer or "")
        return freeze(ImageFeatures(inputs, body, self._layout, self.pool))


class ImageFeatures(nn.Module):
    """Prepared images (n, c, h, w) -> (n, width).

    inputs: makes of them what the network takes.
    body: the network, up to the layer.
    layout: of what it gives.
    pool: how that becomes a vector.
    """

    def __init__(self, inputs: ImageInputs, body: LayerOutput, layout: Layout, pool: Pool | None):
        super().__init__()
        self.inputs, self.body = inputs, body
        self.layout, self.pool = layout, pool

    def forward(self, images: Tensor) -> Tensor:
        # In training, batch norm wants the batch in one piece.
        parts = [images] if self.training else images.split(PART)
        return torch.cat([self._part(part) for part in parts])

    def _part(self, images: Tensor) -> Tensor:
        inputs = self.inputs(images).contiguous(memory_format=torch.channels_last)
        return self.layout.pooled(self.body(inputs), self.pool)


class TrialPass(NamedTuple):
    """Of a pass without weights.

    layout: of what the layer gives; None where that cannot be used.
    field: the name of the one that is wrong.
    problem: why; begins with a verb.
    """

    layout: Layout | None
    field: str = ""
    problem: str = ""


@functools.lru_cache(maxsize=16)
def _empty(network: ImageNetwork, whole: bool) -> nn.Module:
    try:
        with torch.device("meta"):
            built = network.build(whole)
    except (RuntimeError, TypeError):  # some compute their widths with tensors
        with torch.random.fork_rng(devices=[]):
            built = network.build(whole).to("meta")
    return built.eval().requires_grad_(False)


@functools.lru_cache(maxsize=64)
def _trial(network: ImageNetwork) -> TrialPass:
    """A pass of two images on the meta device, where nothing is computed but shapes."""
    layer, size = network.layer or "", network.rule().crop
    try:
        bare = network.empty()
        if layer and layer not in names_of(bare):
            return TrialPass(None, "layer", _unknown_layer(layer, network.name, names_of(bare)))
        states = on_meta(bare, size, layer)
    except LookupError as error:
        return TrialPass(None, "layer", f"{error} of {network.name}, got {layer!r}")
    except Exception as error:  # libraries say with many classes that a size does not fit
        reason = f"{error} ".splitlines()[0].strip()
        tried = " x ".join(map(str, size))
        return TrialPass(
            None,
            "size" if network.size else "name",
            f"must be an input that {network.name} takes, got {tried} pixels ({reason})",
        )
    return _outcome(network, bare, states)


def _outcome(network: ImageNetwork, bare: nn.Module, states: Any) -> TrialPass:
    where = f"that of {network.layer or network.name}"
    if not isinstance(states, Tensor):
        kind = type(states).__name__
        return TrialPass(None, "layer", f"must give one tensor, and {where} is a {kind}")
    if not states.ndim or len(states) != 2:
        shape = tuple(states.shape)
        return TrialPass(
            None, "layer", f"must give something for each image, and {where} is {shape} for two"
        )
    prefix = network.prefix_tokens(bare, states.shape[1]) if states.ndim == 3 else 0
    return TrialPass(layout_of(states, prefix, network.channels_last(bare)))


def _unknown_layer(layer: str, name: str, known: Sequence[str]) -> str:
    hint = nearest(layer, known, "; did you mean {}?") or f"; such as {known[-1]}"
    return f"must be the name of a module of {name}, got {layer!r}{hint}"
