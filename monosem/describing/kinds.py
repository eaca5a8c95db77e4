"""The kinds of what can be bound, in the order of docs/parts.md."""

from __future__ import annotations

from typing import NamedTuple

from monosem.autoencoders.base import Sparsifier
from monosem.autoencoders.errors import ReconstructionError
from monosem.autoencoders.jumprelu import Price
from monosem.autoencoders.revival import Revival
from monosem.autoencoders.starts import Centre, Control, InitialWeights, Times, UnitColumns
from monosem.axes.gains import AxisGains
from monosem.classifiers.best_dimensions import Ranking
from monosem.classifiers.kept import FeatureClassifier
from monosem.code_losses.base import CodeLoss
from monosem.common_corruptions.base import CommonCorruption
from monosem.corruptions.base import Corruption
from monosem.data.dataset import Augmentation, Dataset
from monosem.data.holdout import Holdout
from monosem.data.tokens import Tokenizer
from monosem.evaluation.experiment import Experiment, Gallery
from monosem.language.harm import Judge
from monosem.language.models import LanguageModel, LanguagePanel
from monosem.language.prompts import Exchanges
from monosem.learning.adapters import Adapter, FirstWeights
from monosem.learning.encoders import Encoder, Projector
from monosem.learning.objectives import Objective, OnlineClassifier
from monosem.learning.optimizers import Optimizer, Schedule
from monosem.metrics.base import Metric
from monosem.models.checkpoint import SAELensFolder
from monosem.models.representation import Representation
from monosem.pretrained.weight_sources import Weights
from monosem.probes.attacks import Attack
from monosem.probes.base import Probe
from monosem.probes.batched_probes import EarlyStopping
from monosem.probes.losses import ProbeLoss
from monosem.questions.question import Asked, Report, ReportQuestion
from monosem.results.correlation import Claim
from monosem.results.search import Bound, Goal
from monosem.robustness.measurement import Measurement
from monosem.shifts.base import ShiftedSets
from monosem.specs.grid import Space
from monosem.specs.sweep import Scheduler, Sweep


class PartKind(NamedTuple):
    """Classes that may take one another's place.

    name: one or two words, as in `--describe corruption`.
    about: what such a class is, in one line.
    bases: a class is of the kind if it is one of these or a subclass.
    """

    name: str
    about: str
    bases: tuple[type, ...]


# A class is of the first kind that fits, so the narrower one of two stands first.
KINDS = (
    PartKind("experiment", "what is run, and how its dimensions are shown", (Experiment, Gallery)),
    PartKind("dataset", "images or texts with labels, in two splits", (Dataset,)),
    PartKind("tokenizer", "how texts become tokens", (Tokenizer,)),
    PartKind("augmentation", "a random change that makes a view of an image", (Augmentation,)),
    PartKind("encoder", "a network that is trained from its first weights", (Encoder, Projector)),
    PartKind("objective", "what an encoder is trained for", (Objective, OnlineClassifier)),
    PartKind("optimizer", "how weights are moved, and at which rate", (Optimizer, Schedule)),
    PartKind("sparsifier", "what makes the latents of an autoencoder sparse", (Sparsifier, Price)),
    PartKind(
        "autoencoder part",
        "its error, its first weights, what dead latents get, what stays random",
        (ReconstructionError, InitialWeights, Centre, UnitColumns, Revival, Control, Times),
    ),
    PartKind("code loss", "what latents cost beside", (CodeLoss,)),
    PartKind("representation", "what is probed: features", (Representation, SAELensFolder)),
    PartKind("weights", "where a pretrained network has its weights from", (Weights,)),
    PartKind("language model", "a causal language model", (LanguageModel,)),
    PartKind("language panel", "a measurement of a language model", (LanguagePanel,)),
    PartKind("prompts", "texts that are put to a language model", (Exchanges,)),
    PartKind("judge", "tells harmful answers", (Judge,)),
    PartKind("measurement", "a curve or a panel of an experiment", (Measurement,)),
    PartKind("classifier", "a probe of kept features", (FeatureClassifier, Ranking)),
    PartKind("probe", "a classifier that is trained by steps", (Probe, EarlyStopping)),
    PartKind("probe loss", "what a probe is trained for", (ProbeLoss,)),
    PartKind("adapter", "low-rank updates that are trained in place of weights", (Adapter,)),
    PartKind("first weights", "what the matrices of an adapter start from", (FirstWeights,)),
    PartKind("attack", "changes test images so that they are classified wrongly", (Attack,)),
    PartKind("common corruption", "one of Hendrycks and Dietterich, 2019", (CommonCorruption,)),
    PartKind("corruption", "what is wrong with labels or inputs", (Corruption,)),
    PartKind("shifted sets", "test sets out of domain, each a point", (ShiftedSets,)),
    PartKind("metric", "how monosemantic clean features are", (Metric,)),
    PartKind(
        "sweep", "specs times a grid, and what is asked of it",
        (Sweep, Scheduler, Goal, Bound, Claim, AxisGains),
    ),
    PartKind("question", "what a report asks of sweeps", (Report, ReportQuestion, Asked)),
    PartKind("split", "how one folder of classes is split", (Holdout,)),
    PartKind("space", "values of an axis that are drawn", (Space,)),
)  # fmt: skip
OTHER = PartKind("other", "a class from outside", (object,))


def kind_of(cls: type) -> PartKind:
    return next((kind for kind in KINDS if issubclass(cls, kind.bases)), OTHER)
