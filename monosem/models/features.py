"""TODO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from monosem.core.device import BatchLoader, device
from monosem.core.fields import Seed
from monosem.core.identity import generator
from monosem.core.stage import Artifact, Job, Stage, StageError
from monosem.data.dataset import Augmentation, Dataset, SplitName
from monosem.models.representation import Representation

CHUNK = 500  # images in one pass through an encoder; fixed, as noise is drawn chunk by chunk


@torch.no_grad()
def encode(
    network: nn.Module,
    data: Dataset,
    inputs: Tensor,
    corrupt: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Features (n, d) of stored inputs (n, ...), prepared and then corrupted: one pass for each."""
    chunks = inputs.split(CHUNK)
    return _finite(torch.cat([network(corrupt(data.prepare(chunk))) for chunk in chunks]))


@torch.no_grad()
def encode_views(
    network: nn.Module,
    data: Dataset,
    loader: BatchLoader,
    views: Sequence[Augmentation],
    draw: Generator,
) -> Tensor:
    """Features (n, d) of one augmented view of every input."""
    order = torch.arange(len(loader.inputs)).split(CHUNK)
    return _finite(
        torch.cat([network(data.augment(chunk, views, draw)) for chunk in loader(order)])
    )


def _finite(features: Tensor) -> Tensor:
    if not features.isfinite().all():
        raise StageError(
            "the features of some images are not finite numbers: look at what was corrupted or trained"
        )
    return features


@dataclass(frozen=True)
class Features(Stage):
    """The features of a split: computed once, probed many times. Artifact: features (n, width); passes: images encoded.

    views: augmentations; without any, images are as an evaluation sees them. number: which draw of them.
    """

    encoder: Representation
    data: Dataset
    split: SplitName
    views: tuple[Augmentation, ...] = ()
    number: Seed = 0

    def upstream(self) -> tuple[Stage, ...]:
        return self.encoder.stages

    def run(self, job: Job) -> Artifact:
        inputs, network = self.data.split(self.split).inputs, self.encoder.network(job.get)
        if self.views:
            features = encode_views(
                network, self.data, BatchLoader(inputs), self.views, view_draw(self.number)
            )
        else:
            features = encode(network, self.data, inputs)
        job.log(1, 1, encoder_passes=len(inputs))
        return {"features": features, "passes": torch.tensor(len(inputs))}


def view_draw(number: int) -> Generator:
    """Names the views that probes see, the same for every encoder."""
    return generator("views of a probe", number, on=device())
