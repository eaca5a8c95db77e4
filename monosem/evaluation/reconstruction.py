"""The stage that measures how well an autoencoder reconstructs, and how often its latents fire."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from monosem.core.device import device, to_device
from monosem.core.stage import Artifact, Job, Stage
from monosem.metrics.firing import DENSITIES, Firing, explained_variance
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.checkpoint import Checkpoint, Latents, SAELensFolder
from monosem.models.features import CHUNK, Features
from monosem.robustness.measurement import CleanTestMeasurement, Result

EXPLAINED = "explained_variance"


@dataclass(frozen=True, kw_only=True)
class Reconstruction(CleanTestMeasurement):
    """Explained variance of an autoencoder on the clean test split, and a histogram of firing.

    It stands in the table beside the monosemanticity of the latents.

    encoder: the latents.
    data: what it is measured on.

    Artifact: by name, each ()
        explained_variance          1 - sum |x - reconstruction|^2 / sum |x - mean of x|^2
        never_fire, fire_1e-5, ...  shares of the latents, see `densities`
    """

    encoder: SparseAutoencoder | Latents

    @property
    def source(self) -> Features:
        """What is reconstructed."""
        return Features(self.encoder.encoder, self.data, "test")

    @property
    def trained(self) -> SparseAutoencoder | Checkpoint | SAELensFolder:
        """The stage whose artifact the autoencoder is."""
        return self.encoder.autoencoder if isinstance(self.encoder, Latents) else self.encoder

    def upstream(self) -> tuple[Stage, ...]:
        return (self.trained, self.source)

    def names(self) -> tuple[str, ...]:
        """The names of all results."""
        return (EXPLAINED, *DENSITIES)

    def run(self, job: Job) -> Artifact:
        autoencoder = to_device(self.trained.autoencoder(job.get)).eval()
        x = job.get(self.source)["features"].to(device())
        firing, rebuilt = Firing(), []
        with torch.no_grad():  # not around `get`, which may train what it gives
            for rows in x.split(CHUNK):
                code = autoencoder(rows)
                firing.add(code.activation.fired(), len(rows))
                rebuilt.append(code.reconstruction)
        explained = explained_variance(x.double(), torch.cat(rebuilt).double())
        shares = {name: torch.tensor(share) for name, share in firing.take().items()}
        return {EXPLAINED: explained, **shares}

    def results(self, artifact: Artifact) -> Iterator[Result]:
        n = len(self.data.split("test").labels)
        for name in self.names():
            yield Result(0.0, 0, name, float(artifact[name]), n)
