"""The features of a split: how inputs pass through a network, and the stage that keeps them.

It does not know how a corruption changes the inputs, nor what the features are used for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Generator, Tensor, nn

from monosem.core.device import BatchLoader, device
from monosem.core.fields import Seed
from monosem.core.identity import generator
from monosem.core.stage import Artifact, Job, Stage, StageError
from monosem.data.dataset import Augmentation, Dataset, SplitName
from monosem.models.representation import FeatureMap, Representation

# Inputs in one pass through a network, at most. It bounds memory, and it is no setting: corruptions
# and views are drawn batch by batch, so another size would give other draws.
CHUNK = 500


def encode(
    network: nn.Module,
    data: Dataset,
    inputs: Tensor,
    corrupt: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Features (n, width) of inputs as an evaluation sees them.

    inputs: (n, *sample_shape), as `data` stores them.
    corrupt: changes prepared inputs, batch by batch as `data` orders them; None leaves them.

    Raises StageError where a feature is not a finite number.
    """
    order = data.batches(inputs, CHUNK)
    prepared = (data.prepare(inputs[batch]) for batch in order)
    return _pass_through(network, map(corrupt, prepared) if corrupt else prepared, order)


def encode_views(
    network: nn.Module,
    data: Dataset,
    loader: BatchLoader,
    views: Sequence[Augmentation],
    draw: Generator,
) -> Tensor:
    """Features (n, width) of one augmented view of every input.

    loader: gives the n inputs as `data` stores them.
    draw: of the views, batch by batch as `data` orders them.

    Raises StageError where a feature is not a finite number.
    """
    order = data.batches(loader.inputs, CHUNK)
    viewed = (data.augment(batch, views, draw) for batch in loader(order))
    return _pass_through(network, viewed, order)


@torch.no_grad()
def _pass_through(network: nn.Module, batches: Iterable[Tensor], order: Sequence[Tensor]) -> Tensor:
    """Features, row i of the input i. order: the indices of the inputs in every batch."""
    features = torch.cat([network(batch) for batch in batches])
    features = features[torch.cat([*order]).argsort().to(features.device)]
    if not features.isfinite().all():
        raise StageError(
            "the features of some inputs are not finite numbers: "
            "look at what was corrupted or trained"
        )
    return features


def view_draw(turn: int) -> Generator:
    """Draws the views that probes see in a turn: the same ones for every encoder."""
    return generator("views of a probe", turn, on=device())


@dataclass(frozen=True)
class KeptFeatures(Stage):
    """Features that a representation gives, of whatever inputs.

    Those of a `FeatureMap` are made of the kept features of its encoder.

    encoder: the representation.
    """

    encoder: Representation

    @property
    def source(self) -> Self | None:
        """The kept features that these are a map of; None where inputs have to be encoded."""
        if isinstance(self.encoder, FeatureMap):
            return replace(self, encoder=self.encoder.encoder)
        return None

    def upstream(self) -> tuple[Stage, ...]:
        return (self.source,) if self.source else self.encoder.stages


@dataclass(frozen=True)
class Features(KeptFeatures):
    """The features of a split, computed once and probed many times.

    data: the dataset.
    split: "train" or "test".
    views: augmentations, applied in this order; without any, inputs are as an evaluation sees them.
    number: the turn of the views, see `view_draw`.

    Artifact:
        features  (n, width)
        passes    ()          how many inputs passed through the encoder
    """

    data: Dataset
    split: SplitName
    views: tuple[Augmentation, ...] = ()
    number: Seed = 0

    def run(self, job: Job) -> Artifact:
        if isinstance(self.encoder, FeatureMap) and self.source:
            kept = job.get(self.source)["features"].to(device())
            return {"features": self.encoder.mapping()(kept), "passes": torch.tensor(0)}
        inputs = self.data.split(self.split).inputs
        network = self.encoder.network(job.get)
        if self.views:
            draw = view_draw(self.number)
            features = encode_views(network, self.data, BatchLoader(inputs), self.views, draw)
        else:
            features = encode(network, self.data, inputs)
        job.log(1, 1, encoder_passes=len(inputs))
        return {"features": features, "passes": torch.tensor(len(inputs))}
