"""TODO."""

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
from monosem.models.representation import Get, Representation, Then, frozen
from monosem.models.training import Training


class Encode(nn.Module):
    """An autoencoder up to its latents."""

    def __init__(self, autoencoder: Autoencoder):
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, inputs: Tensor) -> Tensor:
        return self.autoencoder.encode(inputs)


@gin.register
@dataclass(frozen=True, kw_only=True)
class SparseAutoencoder(Training, Representation):
    """An autoencoder trained on a frozen representation of augmented views. As a representation: its latents.

    Its input at probe time is what it was trained on, as it reads the same `encoder` both times; and the encoder stays in
    evaluation mode, so its batch norm never moves. (The reference does neither: it probes with un-normalised projections.)
    encoder: what is encoded, and where gradients stop. The reference's is Embedding of a SimCLR encoder.
    decoder_lr: the learning rate of the decoder alone, which does not grow with the batch; None gives it the optimiser's. The
        reference has 0.3.
    """

    encoder: Representation
    sparsity: Sparsifier
    latents: Count
    decoder_lr: Positive | None = None

    def upstream(self) -> tuple[Stage, ...]:
        return self.encoder.stages

    def validate(self) -> None:
        self.sparsity.check_width(self.latents)
        if incompatibility := self.encoder.incompatibility(self.data):
            self.refuse("data", incompatibility)

    @property
    def width(self) -> int:
        return self.latents

    def incompatibility(self, data: Dataset) -> str | None:
        return self.encoder.incompatibility(data)

    def build(self) -> Autoencoder:
        """The autoencoder with the weights that `seed` names."""
        with seeded("SparseAutoencoder", "weights", self.seed):
            return Autoencoder(self.encoder.width, self.latents, self.sparsity)

    def losses(self, autoencoder: Autoencoder, inputs: Tensor) -> dict[str, Tensor]:
        """Reconstruction error and price of sparsity; how many latents are on, and how many were off for a whole epoch."""
        code: Code = autoencoder(inputs)
        on = code.latents.detach() > 0
        autoencoder.idle = torch.where(on.any(0), 0, autoencoder.idle + 1)
        epoch = len(self.data.split("train").labels) // self.batch_size
        return {
            "loss": autoencoder.loss(inputs, code),
            "l0": on.float().sum(1).mean(),
            "dead_latents": (autoencoder.idle >= epoch).float().sum(),
        }

    def run(self, job: Job) -> Artifact:
        encode = self.encoder.network(job.get)
        autoencoder = to_device(self.build())
        decoder: dict[str, object] = {"params": [*autoencoder.decoder.parameters()]}
        if self.decoder_lr is not None:
            decoder["lr"] = self.decoder_lr
        others = [
            each for name, each in autoencoder.named_parameters() if not name.startswith("decoder.")
        ]

        def losses(views: Tensor, targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                inputs = encode(views)
            return self.losses(autoencoder, inputs)

        self.train(
            job,
            autoencoder,
            [{"params": others}, decoder],
            losses,
            lambda views: autoencoder.encode(encode(views)),
        )
        return autoencoder.state_dict()

    def autoencoder(self, get: Get) -> Autoencoder:
        """The trained one."""
        autoencoder = self.build()
        autoencoder.load_state_dict(get(self))
        return autoencoder

    def network(self, get: Get) -> nn.Module:
        return frozen(Then(self.encoder.network(get), Encode(self.autoencoder(get))))
