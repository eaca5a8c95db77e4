"""Somebody else's weights as an encoder, and autoencoders that read something else than they were trained on."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import gin
import torch
from torch import Tensor, nn

from monosem.core.fields import Count, PathField
from monosem.core.files import file_digest
from monosem.core.stage import Artifact, Job, Stage
from monosem.data.dataset import Dataset
from monosem.data.images import channel_mismatch
from monosem.learning.encoders import Encoder, Network, Projector
from monosem.learning.objectives import Objective
from monosem.learning.sparse import Autoencoder, Sparsifier
from monosem.models import weights
from monosem.models.autoencoder import Encode, SparseAutoencoder
from monosem.models.matching import matched
from monosem.models.representation import Get, Pretrained, Representation, Then, frozen
from monosem.models.safe_load import WeightsError


@gin.register
@dataclass(frozen=True, kw_only=True)
class Checkpoint(Stage, Pretrained):
    """A network that somebody else has trained, read from a file: solo-learn's and the authors' .ckpt and .pth, a torchvision
    state dict, safetensors. Every name and shape is checked; a pickle that wants to run code is refused. The content of the
    file is in the key, its place is not.

    encoder, projector: the architecture of what is in the file; without a projector only the backbone is read. The authors' has
        ResNet.stem_padding 2 and a projector of 16384 and 2048.
    objective: what it was trained with, for Embedding; nothing else asks for it.
    latents, sparsity: of the autoencoder that the authors' SAE files hold besides, for Latents; None leaves it.
    channels: of the images.
    """

    path: PathField
    encoder: Encoder
    projector: Projector | None = None
    objective: Objective | None = None
    latents: Count | None = None
    sparsity: Sparsifier | None = None
    channels: Count = 3

    def validate(self) -> None:
        if (self.latents is None) != (self.sparsity is None):
            self.refuse(
                "sparsity",
                f"and Checkpoint.latents go together, got {self.sparsity} and {self.latents}",
            )
        if self.latents is not None and self.projector is None:
            self.refuse(
                "projector", "must be set where there is an autoencoder: it reads projections"
            )
        if self.sparsity is not None and self.latents is not None:
            self.sparsity.check_width(self.latents)

    def preflight(self) -> None:
        self._read()

    def content(self) -> str:
        path = Path(self.path)
        if not path.is_file():
            self.refuse("path", f"cannot be used: {weights.describe_absence(path)}")
        try:
            return _digest(path, path.stat().st_size, path.stat().st_mtime_ns)
        except OSError as error:
            self.refuse("path", f"cannot be used: {path} cannot be read: {error.strerror}")

    @property
    def width(self) -> int:
        return self.encoder.width

    def incompatibility(self, data: Dataset) -> str | None:
        return channel_mismatch(self.channels, data)

    @property
    def features(self) -> int | None:
        return self.projector.features if self.projector else None

    def embed(self, raw: Tensor) -> Tensor:
        if self.objective is None:
            self.refuse("objective", "must be set: Embedding asks what it compares")
        return self.objective.embed(raw)

    def _build(self) -> Network:
        network = Network(
            self.encoder.build((self.channels,)),
            self.projector.build(self.width) if self.projector else nn.Identity(),
        )
        if self.latents is not None and self.sparsity is not None and self.features is not None:
            network.autoencoder = Autoencoder(self.features, self.latents, self.sparsity)
        return network

    def _read(self) -> Artifact:
        with torch.device("meta"):
            wanted = self._build().state_dict()
        try:
            return matched(weights.read(Path(self.path)), wanted, Path(self.path))
        except WeightsError as error:
            self.refuse("path", f"cannot be used: {error}")

    def run(self, job: Job) -> Artifact:
        return self._read()

    def trained(self, get: Get) -> Network:
        network = self._build()
        network.load_state_dict(get(self))
        return network

    def autoencoder(self, get: Get) -> Autoencoder:
        autoencoder = self.trained(get).autoencoder
        assert isinstance(autoencoder, Autoencoder), "Latents has asked whether there is one"
        return autoencoder


@functools.cache
def _digest(path: Path, size: int, changed: int) -> str:
    return file_digest(path)


@gin.register
@dataclass(frozen=True)
class Latents(Representation):
    """The latents of an autoencoder that reads something else than it was trained on.

    The reference trains autoencoders on unit projections and probes them with raw ones (encoder = Projection), where biases
    count for little; SparseAutoencoder by itself reads the same both times.
    """

    autoencoder: SparseAutoencoder | Checkpoint
    encoder: Representation

    def validate(self) -> None:
        if self.autoencoder.latents is None:
            self.refuse(
                "autoencoder",
                "must have an autoencoder: Checkpoint.latents and Checkpoint.sparsity are not set",
            )
        taken = (
            self.autoencoder.encoder.width
            if isinstance(self.autoencoder, SparseAutoencoder)
            else self.autoencoder.features
        )
        if self.encoder.width != taken:
            self.refuse(
                "encoder",
                f"must have {taken} features, which the autoencoder reads, got {self.encoder.width}",
            )

    @property
    def width(self) -> int:
        assert self.autoencoder.latents is not None, "as validate has seen"
        return self.autoencoder.latents

    def incompatibility(self, data: Dataset) -> str | None:
        return self.encoder.incompatibility(data)

    def network(self, get: Get) -> nn.Module:
        return frozen(Then(self.encoder.network(get), Encode(self.autoencoder.autoencoder(get))))
