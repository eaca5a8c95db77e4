"""The sparse autoencoder as a stage: it learns to reconstruct the features of a frozen network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gin
import torch
from torch import Tensor, nn

from monosem.autoencoders.base import Autoencoder, Code, Sparsifier
from monosem.autoencoders.errors import ReconstructionError, RelativeError
from monosem.autoencoders.revival import Revival
from monosem.autoencoders.starts import Centre, InitialWeights, Times, UnitColumns
from monosem.core.device import BatchLoader, device, seeded, to_device
from monosem.core.fields import Count, Positive
from monosem.core.stage import Artifact, Job, Stage
from monosem.data.dataset import Dataset
from monosem.learning.loop import Hooks
from monosem.metrics.firing import Firing, explained_variance
from monosem.models.features import Features, encode
from monosem.models.representation import Composed, GetArtifact, Representation, freeze
from monosem.models.training import Training

CENTRED = 10_000  # inputs whose features the first bias is computed from, at most


class _AutoencoderHooks(Hooks):
    """Keeps the decoder in shape and counts how often latents fire."""

    def __init__(self, autoencoder: Autoencoder, columns: UnitColumns | None):
        self.autoencoder, self.columns, self.firing = autoencoder, columns, Firing()

    def before_step(self) -> None:
        if self.columns:
            self.columns.project(self.autoencoder)

    def after_step(self) -> None:
        if self.columns:
            self.columns.normalise(self.autoencoder)

    def after_epoch(self) -> dict[str, float]:
        return self.firing.take()


class LatentEncoder(nn.Module):
    """The first half of an autoencoder: (n, d) -> (n, latents)."""

    def __init__(self, autoencoder: Autoencoder):
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, inputs: Tensor) -> Tensor:
        return self.autoencoder.encode(inputs)


@gin.register
@dataclass(frozen=True, kw_only=True)
class SparseAutoencoder(Training, Representation):
    """An autoencoder trained on a frozen representation.

    With `views` and without `cached` it reads two fresh augmented views of every input, as in the
    authors' code. Else its inputs are encoded once and kept in the store, one row for each input:
    then another encoder may cost much, and an epoch nothing. They are mapped from the artifact, so
    they need not fit in memory to be trained on.

    As a representation: its latents. It reads the same `encoder` when it is probed as when it was
    trained, and the encoder stays in evaluation mode, so that its batch norm never changes. (The
    authors' code does neither: it probes with projections that are not normalised. See Latents.)

    encoder: its features are the inputs of the autoencoder; no gradient reaches it. In the authors'
        code it is Embedding of a SimCLR encoder.
    sparsity: what makes the latents sparse, and what that costs.
    latents: how many there are, as a number or a multiple of the encoder's width.
    decoder_lr: the learning rate of the decoder alone, which does not grow with the batch; None
        gives it that of the optimiser. The authors' code has 0.3.
    cached: how many views of every input are encoded once and taken in turn, one an epoch. None
        encodes two fresh ones at every step. Without `views` there is nothing to take in turn.
    error: what a wrong reconstruction costs.
    weights: the first ones.
    centre: the first bias of the decoder.
    decoder_columns: what keeps their norms; None lets them go.
    revival: what is done for dead latents; None does nothing.

    Artifact: the state of the autoencoder, by name.
    """

    encoder: Representation
    sparsity: Sparsifier
    latents: Times | Count
    decoder_lr: Positive | None = None
    cached: Count | None = None
    error: ReconstructionError = RelativeError()  # noqa: RUF009, frozen
    weights: InitialWeights = InitialWeights()  # noqa: RUF009
    centre: Centre = Centre()  # noqa: RUF009
    decoder_columns: UnitColumns | None = None
    revival: Revival | None = None

    @property
    def training_features(self) -> tuple[Features, ...]:
        """What it is trained on, taken in turn, one an epoch; () where views are fresh."""
        if not self.views:
            return (Features(self.encoder, self.data, "train"),)
        turns = range(min(self.cached or 0, self.epochs))
        return tuple(Features(self.encoder, self.data, "train", self.views, turn) for turn in turns)

    def upstream(self) -> tuple[Stage, ...]:
        return self.training_features or self.encoder.stages

    def validate(self) -> None:
        self.sparsity.check_width(self.width)
        if self.cached is not None and not self.views:
            self.refuse(
                "cached",
                "needs SparseAutoencoder.views, the augmentations whose results are to be kept, "
                f"got {self.cached} without any",
            )
        if problem := self.encoder.incompatibility(self.data):
            self.refuse("data", problem)

    @property
    def width(self) -> int:
        if isinstance(self.latents, Times):
            return self.latents.of(self.encoder.width)
        return self.latents

    def incompatibility(self, data: Dataset) -> str | None:
        return self.encoder.incompatibility(data)

    def build(self) -> Autoencoder:
        """The autoencoder with the first weights that `seed` names."""
        with seeded("SparseAutoencoder", "weights", self.seed):
            built = Autoencoder(self.encoder.width, self.width, self.sparsity, self.error)
            self.weights(built)
        if self.decoder_columns:
            self.decoder_columns.normalise(built)
        return built

    def stand_in(self) -> Artifact:
        return self.build().state_dict()

    def losses(
        self, autoencoder: Autoencoder, inputs: Tensor, firing: Firing | None = None
    ) -> dict[str, Tensor]:
        """The loss of a step, and scalars to watch. Updates `autoencoder.idle`.

        inputs: (2b, d), features of views, or (b, d), kept ones.
        firing: is told which latents are on.

        Returns scalars: loss, the reconstruction error, the price of sparsity and the revival;
        explained_variance; l0, how many latents are on for an input; dead_latents, how many were
        off for a whole epoch.
        """
        code: Code = autoencoder(inputs)
        fired = code.activation.fired()
        loss = autoencoder.loss(inputs, code)
        steps_per_epoch = len(self.data.split("train").labels) // self.batch_size
        if self.revival is not None:
            dead = autoencoder.idle >= steps_per_epoch
            loss = loss + self.revival(autoencoder, inputs, code, dead)
        autoencoder.idle = torch.where(fired > 0, 0, autoencoder.idle + 1)
        if firing is not None:
            firing.add(fired, len(inputs))
        return {
            "loss": loss,
            "explained_variance": explained_variance(inputs, code.reconstruction.detach()),
            "l0": fired.sum().float() / len(inputs),
            "dead_latents": (autoencoder.idle >= steps_per_epoch).float().sum(),
        }

    def parameter_groups(self, autoencoder: Autoencoder) -> list[dict[str, object]]:
        """Two groups for the optimiser: the decoder, which may have its own rate, is the second."""
        decoder: dict[str, object] = {"params": [*autoencoder.decoder.parameters()]}
        if self.decoder_lr is not None:
            decoder["lr"] = self.decoder_lr
        others = [
            parameter
            for name, parameter in autoencoder.named_parameters()
            if not name.startswith("decoder.")
        ]
        return [{"params": others}, decoder]

    def run(self, job: Job) -> Artifact:
        autoencoder = to_device(self.build())
        fixed = self._features_by_epoch(job)
        encoder = self.encoder.network(job.get) if fixed is None else nn.Identity()
        hooks = _AutoencoderHooks(autoencoder, self.decoder_columns)

        def losses(views: Tensor, targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                inputs = encoder(views)
            return self.losses(autoencoder, inputs, hooks.firing)

        def latents_of(views: Tensor) -> Tensor:
            return autoencoder.encode(encoder(views))

        groups = self.parameter_groups(autoencoder)

        def sample() -> Tensor:
            if fixed is not None:
                return fixed(0).inputs[:CENTRED].to(device())
            return encode(encoder, self.data, self.data.split("train").inputs[:CENTRED])

        self.centre.place(autoencoder.pre_bias, sample)
        self.train(job, autoencoder, groups, losses, latents_of, fixed, hooks)
        return autoencoder.state_dict()

    def _features_by_epoch(self, job: Job) -> Callable[[int], BatchLoader] | None:
        """The kept features of an epoch; None where views are fresh."""
        stages = self.training_features
        if not stages:
            return None
        first = BatchLoader(job.get(stages[0])["features"])  # the only one, mostly

        def features(epoch: int) -> BatchLoader:
            turn = epoch % len(stages)
            return BatchLoader(job.get(stages[turn])["features"]) if turn else first

        return features

    def autoencoder(self, get: GetArtifact) -> Autoencoder:
        """The trained autoencoder, on the device where it was built."""
        autoencoder = self.build()
        autoencoder.load_state_dict(get(self))
        return autoencoder

    def network(self, get: GetArtifact) -> nn.Module:
        latents = LatentEncoder(self.autoencoder(get))
        return freeze(Composed(self.encoder.network(get), latents))
