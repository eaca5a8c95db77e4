"""Somebody else's weights as an encoder, and autoencoders apart from what they were trained on.

Files are read, and their tensors matched to the network, in `checkpoints`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import gin
import torch
from torch import Tensor, nn

from monosem.autoencoders.base import Autoencoder, Sparsifier
from monosem.checkpoints import saelens, weights
from monosem.checkpoints.layouts import placed
from monosem.checkpoints.saelens_config import CONFIG, Config, read_config
from monosem.checkpoints.safe_load import WeightsError
from monosem.core.fields import Count, NotInKey, PathField
from monosem.core.files import known_digest
from monosem.core.identity import digest
from monosem.core.stage import Artifact, Job, Stage
from monosem.data.dataset import Dataset
from monosem.data.images import channel_mismatch
from monosem.learning.encoders import Encoder, Network, Projector
from monosem.learning.objectives import Objective
from monosem.models.autoencoder import LatentEncoder, SparseAutoencoder
from monosem.models.representation import Composed, GetArtifact, Pretrained, Representation, freeze

Chosen = Annotated[str, NotInKey("which tensors of a file are meant; counts by `Part.content`")]


@gin.register
@dataclass(frozen=True, kw_only=True)
class Checkpoint(Stage, Pretrained):
    """A network that somebody else has trained, read from a file.

    As a representation: the features of its backbone. It reads the .ckpt and .pth files of
    solo-learn and of the paper's authors, a torchvision state dict, and safetensors; also from
    inside DataParallel or torch.compile, under a prefix (`model.`), and as the numbered children of
    an nn.Sequential. Heads that are not asked for are left out. Every name and shape is checked; a
    pickle that wants to run code is refused. An artifact of the store, artifact.safetensors of a
    Pretrain, is such a file too.

    path: of the file. Its content is in the key, its place is not.
    encoder: the architecture of the backbone. That of the authors has ResNet.stem_padding 2.
    projector: the architecture of what is on top; None reads the backbone alone. That of the
        authors has 16384 and 2048 features.
    objective: what the network was trained with, for Embedding; nothing else asks for it.
    latents: of the autoencoder that the authors' SAE files hold besides, for Latents; None leaves
        it out.
    sparsity: of that autoencoder; set where `latents` is.
    channels: of the images.
    entry: the name under which a file with several networks has the one that is meant, such as
        'teacher'; None looks for it, and lists them where there are several.
    prefix: what the names of its tensors begin with, such as 'module.encoder_q.'; the same.

    Artifact: the state of the network, by name.
    """

    path: PathField
    encoder: Encoder
    projector: Projector | None = None
    objective: Objective | None = None
    latents: Count | None = None
    sparsity: Sparsifier | None = None
    channels: Count = 3
    entry: Chosen | None = None
    prefix: Chosen | None = None

    def validate(self) -> None:
        if (self.latents is None) != (self.sparsity is None):
            self.refuse(
                "sparsity",
                f"and Checkpoint.latents go together, got {self.sparsity} and {self.latents}",
            )
        if self.sparsity is None or self.latents is None:
            return
        if self.projector is None:
            self.refuse(
                "projector", "must be set where there is an autoencoder: it reads projections"
            )
        self.sparsity.check_width(self.latents)

    def preflight(self) -> None:
        self._read()

    def content(self) -> str:
        path = Path(self.path)
        if not path.is_file():
            self.refuse("path", f"cannot be used: {weights.describe_absence(path)}")
        try:
            known = known_digest(path)
            chosen = self.entry or self.prefix is not None
            return digest([known, self.entry, self.prefix]) if chosen else known
        except OSError as error:
            self.refuse("path", f"cannot be used: {path} cannot be read: {error.strerror}")

    @property
    def width(self) -> int:
        return self.encoder.width

    def incompatibility(self, data: Dataset) -> str | None:
        return channel_mismatch(self.channels, data)

    @property
    def projection_width(self) -> int | None:
        return self.projector.features if self.projector else None

    def embed(self, raw: Tensor) -> Tensor:
        if self.objective is None:
            self.refuse("objective", "must be set: Embedding asks what it compares")
        return self.objective.embed(raw)

    def _build(self) -> Network:
        backbone = self.encoder.build((self.channels,))
        if self.projector is None:
            return Network(backbone, nn.Identity())
        network = Network(backbone, self.projector.build(self.width))
        if self.latents is not None and self.sparsity is not None:
            width = self.projector.features
            network.autoencoder = Autoencoder(width, self.latents, self.sparsity)
        return network

    def _read(self) -> Artifact:
        path = Path(self.path)
        with torch.device("meta"):
            wanted = self._build().state_dict()
        try:
            return placed(weights.read(path, self.entry), wanted, path, self.prefix)
        except WeightsError as error:
            self.refuse("path", f"cannot be used: {error}")

    def stand_in(self) -> Artifact:
        return self._build().state_dict()

    def run(self, job: Job) -> Artifact:
        return self._read()

    def trained(self, get: GetArtifact) -> Network:
        network = self._build()
        network.load_state_dict(get(self))
        return network

    def autoencoder(self, get: GetArtifact) -> Autoencoder:
        autoencoder = self.trained(get).autoencoder
        assert isinstance(autoencoder, Autoencoder), "Latents refuses others"
        return autoencoder


@gin.register
@dataclass(frozen=True)
class SAELensFolder(Stage):
    """A sparse autoencoder that SAELens has left, for Latents.

    It reads what SAE.save_model of SAELens 6 writes: standard, topk, jumprelu and gated ones, and
    those of training, also of BatchTopK and Matryoshka; checkpoints/saelens.py says how. Its
    settings, and every name and shape, are checked before any work.

    path: the folder with cfg.json and sae_weights.safetensors. Its content is in the key.

    Artifact: the state of the autoencoder, by name.
    """

    path: PathField

    def preflight(self) -> None:
        self._read()

    def content(self) -> str:
        _ = self.config  # of a folder that is not there
        files = [Path(self.path, name) for name in (CONFIG, saelens.WEIGHTS)]
        for file in files:
            if not file.is_file():
                self.refuse("path", f"cannot be used: {weights.describe_absence(file)}")
        return digest([known_digest(file) for file in files])

    @property
    def config(self) -> Config:
        try:
            return read_config(Path(self.path))
        except WeightsError as error:
            self.refuse("path", f"cannot be used: {error}")

    @property
    def latents(self) -> int:
        return self.config.latents

    def _read(self) -> Artifact:
        try:
            return saelens.read_state(Path(self.path), self.config)
        except WeightsError as error:
            self.refuse("path", f"cannot be used: {error}")

    def stand_in(self) -> Artifact:
        return saelens.TheirAutoencoder(self.config).state_dict()

    def run(self, job: Job) -> Artifact:
        return self._read()

    def autoencoder(self, get: GetArtifact) -> Autoencoder:
        autoencoder = saelens.TheirAutoencoder(self.config)
        autoencoder.load_state_dict(get(self))
        return autoencoder


@gin.register
@dataclass(frozen=True)
class Latents(Representation):
    """The latents of an autoencoder that reads something else than it was trained on.

    The authors' code trains autoencoders on unit projections and probes them with raw ones
    (encoder = Projection), where biases count for little. SparseAutoencoder by itself reads the
    same features both times. One of SAELensFolder reads any features of its width.

    autoencoder: gives the latents.
    encoder: gives the features that it reads; must have as many as it was trained on.
    """

    autoencoder: SparseAutoencoder | Checkpoint | SAELensFolder
    encoder: Representation

    def validate(self) -> None:
        if self.autoencoder.latents is None:
            self.refuse(
                "autoencoder",
                "must have an autoencoder: Checkpoint.latents and Checkpoint.sparsity are not set",
            )
        width = self._trained_width()
        if self.encoder.width != width:
            self.refuse(
                "encoder",
                f"must have {width} features, which the autoencoder reads, "
                f"got {self.encoder.width}",
            )

    def _trained_width(self) -> int | None:
        """The number of features that the autoencoder was trained on."""
        if isinstance(self.autoencoder, SparseAutoencoder):
            return self.autoencoder.encoder.width
        if isinstance(self.autoencoder, SAELensFolder):
            return self.autoencoder.config.features
        return self.autoencoder.projection_width

    @property
    def stages(self) -> tuple[Stage, ...]:
        is_no_representation = isinstance(self.autoencoder, SAELensFolder)
        return (*((self.autoencoder,) if is_no_representation else ()), *super().stages)

    @property
    def width(self) -> int:
        if isinstance(self.autoencoder, SparseAutoencoder):
            return self.autoencoder.width
        assert self.autoencoder.latents is not None, "validate refuses that"
        return self.autoencoder.latents

    def incompatibility(self, data: Dataset) -> str | None:
        return self.encoder.incompatibility(data)

    def network(self, get: GetArtifact) -> nn.Module:
        latents = LatentEncoder(self.autoencoder.autoencoder(get))
        return freeze(Composed(self.encoder.network(get), latents))
