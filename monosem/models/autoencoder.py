"""The sparse autoencoder as a stage: it learns to reconstruct the features of a frozen network."""

from __future__ import annotations

from dataclasses import dataclass

import gin
import torch
from torch import Tensor, nn

from monosem.core.device import seeded, to_device
from monosem.core.fields import Count, Positive
from monosem.core.stage import Artifact, Job, Stage
from monosem.data.dataset import Dataset
from monosem.learning.sparse import Autoencoder, Code, Sparsifier
from monosem.models.features import Features
from monosem.models.representation import Composed, GetArtifact, Representation, freeze
from monosem.models.training import Training


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
    """An autoencoder trained on a frozen representation of augmented views.

    Without `views` it is trained on the features of the inputs as an evaluation sees them. They are
    computed once: another encoder may cost much, as a language model does, and an epoch nothing.

    As a representation: its latents. It reads the same `encoder` when it is probed as when it was
    trained, and the encoder stays in evaluation mode, so that its batch norm never changes. (The
    authors' code does neither: it probes with projections that are not normalised. See Latents.)

    encoder: its features are the inputs of the autoencoder; no gradient reaches it. In the authors'
        code it is Embedding of a SimCLR encoder.
    sparsity: what makes the latents sparse, and what that costs.
    latents: how many there are.
    decoder_lr: the learning rate of the decoder alone, which does not grow with the batch; None
        gives it that of the optimiser. The authors' code has 0.3.

    Artifact: the state of the autoencoder, by name.
    """

    encoder: Representation
    sparsity: Sparsifier
    latents: Count
    decoder_lr: Positive | None = None

    @property
    def training_features(self) -> Features:
        """What it is trained on without views."""
        return Features(self.encoder, self.data, "train")

    def upstream(self) -> tuple[Stage, ...]:
        return self.encoder.stages if self.views else (self.training_features,)

    def validate(self) -> None:
        self.sparsity.check_width(self.latents)
        if problem := self.encoder.incompatibility(self.data):
            self.refuse("data", problem)

    @property
    def width(self) -> int:
        return self.latents

    def incompatibility(self, data: Dataset) -> str | None:
        return self.encoder.incompatibility(data)

    def build(self) -> Autoencoder:
        """The autoencoder with the first weights that `seed` names."""
        with seeded("SparseAutoencoder", "weights", self.seed):
            return Autoencoder(self.encoder.width, self.latents, self.sparsity)

    def stand_in(self) -> Artifact:
        return self.build().state_dict()

    def losses(self, autoencoder: Autoencoder, inputs: Tensor) -> dict[str, Tensor]:
        """The loss of a step, and scalars to watch. Updates `autoencoder.idle`.

        inputs: (2b, d), features of views.

        Returns scalars: loss, the reconstruction error and the price of sparsity; l0, how many
        latents are on for an input; dead_latents, how many were off for a whole epoch.
        """
        code: Code = autoencoder(inputs)
        is_on = code.latents.detach() > 0
        autoencoder.idle = torch.where(is_on.any(0), 0, autoencoder.idle + 1)
        steps_per_epoch = len(self.data.split("train").labels) // self.batch_size
        return {
            "loss": autoencoder.loss(inputs, code),
            "l0": is_on.float().sum(1).mean(),
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
        fixed = None if self.views else job.get(self.training_features)["features"]
        encoder = self.encoder.network(job.get) if fixed is None else nn.Identity()

        def losses(views: Tensor, targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                inputs = encoder(views)
            return self.losses(autoencoder, inputs)

        def latents_of(views: Tensor) -> Tensor:
            return autoencoder.encode(encoder(views))

        groups = self.parameter_groups(autoencoder)
        self.train(job, autoencoder, groups, losses, latents_of, fixed)
        return autoencoder.state_dict()

    def autoencoder(self, get: GetArtifact) -> Autoencoder:
        """The trained autoencoder, on the device where it was built."""
        autoencoder = self.build()
        autoencoder.load_state_dict(get(self))
        return autoencoder

    def network(self, get: GetArtifact) -> nn.Module:
        latents = LatentEncoder(self.autoencoder(get))
        return freeze(Composed(self.encoder.network(get), latents))
