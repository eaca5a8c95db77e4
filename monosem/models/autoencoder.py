"""The sparse autoencoder as a stage: it learns to reconstruct the features of a frozen network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import gin
import torch
from torch import Tensor, nn

from monosem.autoencoders.base import Autoencoder, Code, Sparsifier
from monosem.autoencoders.errors import ReconstructionError, RelativeError
from monosem.autoencoders.revival import Revival
from monosem.autoencoders.starts import Centre, Control, InitialWeights, Times, UnitColumns
from monosem.code_losses.base import CodeLoss, Rows, losses_of_code
from monosem.core.device import BatchLoader, autocast_dtype, device, seeded, to_device
from monosem.core.fields import Count, Positive
from monosem.core.stage import Artifact, Job, Stage, StageError, run_alone
from monosem.data.dataset import Dataset
from monosem.learning.loop import Batch, Hooks, TrainingLoop, train_together
from monosem.metrics.firing import Firing, explained_variance
from monosem.models.features import Features, encode
from monosem.models.representation import Composed, GetArtifact, Representation, freeze
from monosem.models.training import Training

CENTRED = 10_000  # inputs whose features the first bias is computed from, at most


class _AutoencoderHooks(Hooks):
    """Keeps the decoder in shape and counts how often latents fire.

    autoencoder: with its first weights.
    """

    def __init__(
        self, autoencoder: Autoencoder, columns: UnitColumns | None, control: Control | None
    ):
        weight = autoencoder.decoder.weight
        self.autoencoder, self.control, self.firing = autoencoder, control, Firing()
        self.columns = columns if weight.requires_grad else None
        self.first_decoder = weight.detach().clone()

    def before_step(self) -> None:
        if self.columns:
            self.columns.project(self.autoencoder)

    def after_step(self) -> None:
        if self.columns:
            self.columns.normalise(self.autoencoder)
        if self.control:
            self.control.keep(self.autoencoder, self.first_decoder)

    def after_epoch(self) -> dict[str, float]:
        return self.firing.take()

    def state(self) -> dict[str, Tensor]:
        return self.firing.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.firing.restore(state, self.first_decoder.device)


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

    A bank of them, of any kinds, that are to see the same fresh views is trained together: each of
    them as if it were alone (`run_together`).

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
    code_losses: what latents cost beside their reconstruction.
    reference_encoder: tells losses that compare inputs how alike they are; None lets `encoder` say
        it, as in the paper on MonoLoss.
    control: what stays random; None lets everything learn.

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
    code_losses: tuple[CodeLoss, ...] = ()
    reference_encoder: Representation | None = None
    control: Control | None = None

    @property
    def training_features(self) -> tuple[Features, ...]:
        """What it is trained on, taken in turn, one an epoch; () where views are fresh."""
        if not self.views:
            return (Features(self.encoder, self.data, "train"),)
        turns = range(min(self.cached or 0, self.epochs))
        return tuple(Features(self.encoder, self.data, "train", self.views, turn) for turn in turns)

    @property
    def reference_features(self) -> tuple[Features, ...]:
        """Of the reference encoder, if there is one."""
        if self.reference_encoder is None:
            return ()
        return (Features(self.reference_encoder, self.data, "train"),)

    def upstream(self) -> tuple[Stage, ...]:
        return (*(self.training_features or self.encoder.stages), *self.reference_features)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (self, *self.encoder.stages)

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
        self._check_reference_encoder()

    def _check_reference_encoder(self) -> None:
        if self.reference_encoder is None:
            return
        if not any(loss.compares for loss in self.code_losses):
            self.refuse(
                "reference_encoder",
                "has no effect unless SparseAutoencoder.code_losses holds a loss that compares "
                "inputs, such as MonoLoss()",
            )
        if problem := self.reference_encoder.incompatibility(self.data):
            self.refuse("reference_encoder", f"cannot encode the data, which {problem}")

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
        if self.control:
            self.control.freeze(built)
        return built

    def stand_in(self) -> Artifact:
        return self.build().state_dict()

    def losses(
        self,
        autoencoder: Autoencoder,
        inputs: Tensor,
        firing: Firing | None = None,
        rows: Rows | None = None,
    ) -> dict[str, Tensor]:
        """The loss of a step, and scalars to watch. Updates `autoencoder.idle`.

        inputs: (2b, d), features of views, or (b, d), kept ones.
        firing: is told which latents are on.
        rows: what losses of the code are told; without it each row is an input of its own, and
            alike to others as their features are.

        Returns scalars: loss, the reconstruction error, the price of sparsity, the revival and the
        losses of the code; explained_variance; l0, how many latents are on for an input;
        dead_latents, how many were off for a whole epoch; every loss of the code by its name.
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
        by_name: dict[str, Tensor] = {}
        if self.code_losses:  # or nothing asks for the matrix of latents
            rows = rows or Rows(torch.arange(len(inputs), device=inputs.device), inputs)
            further, by_name = losses_of_code(self.code_losses, code.latents, rows)
            loss = loss + further
        return {
            "loss": loss,
            "explained_variance": explained_variance(inputs, code.reconstruction.detach()),
            "l0": fired.sum().float() / len(inputs),
            "dead_latents": (autoencoder.idle >= steps_per_epoch).float().sum(),
            **by_name,
        }

    def parameter_groups(self, autoencoder: Autoencoder) -> list[dict[str, object]]:
        """Two groups for the optimiser: the decoder, which may have its own rate, is the second.

        What a control has frozen is in neither.
        """
        learn = {name: p for name, p in autoencoder.named_parameters() if p.requires_grad}
        of_decoder = [parameter for name, parameter in learn.items() if name.startswith("decoder.")]
        others = [parameter for name, parameter in learn.items() if not name.startswith("decoder.")]
        decoder: dict[str, object] = {"params": of_decoder}
        if self.decoder_lr is not None:
            decoder["lr"] = self.decoder_lr
        return [{"params": others}, decoder]

    def shared_work(self) -> Hashable | None:
        """Fresh views of the same inputs in the same order, and the encoder's pass over them.

        Kept features are as quickly read as handed over (benchmarks/autoencoder_bank.py), and apart
        from one another such stages may be computed at the same time.
        """
        if self.training_features:
            return None
        return self.encoder, self.data, self.views, self.batch_size, self.seed, self.precision

    def run(self, job: Job) -> Artifact:
        return run_alone(self, job)

    @classmethod
    def run_together(
        cls, stages: Sequence[Self], jobs: Sequence[Job]
    ) -> list[Artifact | StageError]:
        """Train a bank of autoencoders, whatever their kinds, on one stream of features."""
        stream = FeatureStream(stages[0], jobs[0])
        loops = [stage._training_on(stream, job) for stage, job in zip(stages, jobs, strict=True)]
        errors = train_together(loops, jobs)
        return [
            error or loop.module.state_dict() for loop, error in zip(loops, errors, strict=True)
        ]

    def _training_on(self, stream: FeatureStream, job: Job) -> TrainingLoop:
        autoencoder = to_device(self.build())
        self.centre.place(autoencoder.pre_bias, stream.sample)
        hooks = _AutoencoderHooks(autoencoder, self.decoder_columns, self.control)
        rows_of = self._rows_of(job)

        def losses(inputs: Tensor, targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return self.losses(autoencoder, inputs, hooks.firing, rows_of(inputs, targets))

        def latents_of(inputs: Tensor) -> Tensor:
            return autoencoder.encode(inputs.float())  # halves come from a pass under autocast

        groups = self.parameter_groups(autoencoder)
        return self.loop(autoencoder, groups, losses, latents_of, stream.batches, hooks)

    def _rows_of(self, job: Job) -> Callable[[Tensor, Tensor], Rows]:
        """Features of a batch, and which input each row is of -> what losses of the code see."""
        if not self.reference_features:
            return lambda inputs, index: Rows(index, inputs)
        (stage,) = self.reference_features
        reference = BatchLoader(job.get(stage)["features"])
        return lambda inputs, index: Rows(index, *reference([index]))

    def features_by_epoch(self, job: Job) -> Callable[[int], BatchLoader] | None:
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


class FeatureStream:
    """The features that an autoencoder is trained on, batch by batch.

    stage: names them; others of the same `shared_work` may read along.
    """

    def __init__(self, stage: SparseAutoencoder, job: Job):
        self.stage = stage
        self.kept = stage.features_by_epoch(job)
        self.encoder = stage.encoder.network(job.get) if self.kept is None else nn.Identity()
        self._batches = stage.batches(self.kept)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Features (2b, d) of views or (b, d) kept ones, targets and labels."""
        dtype = autocast_dtype(self.stage.precision)
        for views, targets, labels in self._batches(epoch):
            halves = torch.autocast(device().type, dtype, enabled=dtype != torch.float32)
            with torch.no_grad(), halves:
                features = self.encoder(views)
            yield features, targets, labels

    def sample(self) -> Tensor:
        """The features of some of the inputs, (n, d)."""
        return self._sample

    @functools.cached_property
    def _sample(self) -> Tensor:
        if self.kept is not None:
            return self.kept(0).inputs[:CENTRED].to(device())
        data = self.stage.data
        return encode(self.encoder, data, data.split("train").inputs[:CENTRED])
