"""Objectives: what pre-training minimises, as a function of raw projections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import gin
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from monosem.core.fields import AtLeastZero, Fraction, Part, Positive

Activation = Literal[
    "identity", "relu", "rep_relu", "gelu", "sigmoid", "softplus", "exp", "leaky_relu"
]


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda z: z,
    "relu": F.relu,
    # the value of ReLU with the gradient of GELU, so that dimensions at zero can come back
    "rep_relu": lambda z: F.gelu(z) + (F.relu(z) - F.gelu(z)).detach(),
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "exp": torch.exp,
    "leaky_relu": F.leaky_relu,  # slope 0.01
}


def contrastive_loss(z: Tensor, index: Tensor, temperature: float) -> Tensor:
    """NT-Xent: rows should be near their positives and far from all other rows.

        loss = - mean_i log( sum_{j in P(i)} exp(z_i.z_j / T) / sum_{j != i} exp(z_i.z_j / T) )
        P(i) = {j != i: index_j = index_i}

    Several positives are summed inside one log (not SupCon's mean of logs). A row without a
    positive is left out of the mean. Rows are not normalised here.

    z: (m, d).
    index: (m,), equal for rows that belong together.
    temperature: T.
    Returns a scalar.
    """
    similarity = z @ z.T / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    positive = (index[:, None] == index) & ~itself
    everyone = similarity.masked_fill(itself, -torch.inf).logsumexp(1)
    partners = similarity.masked_fill(~positive, -torch.inf).logsumexp(1)
    paired = positive.any(1)
    return torch.where(paired, everyone - partners, 0).sum() / paired.sum().clamp(min=1)


@dataclass(frozen=True)
class Objective(Part):
    """What pre-training minimises: a function of projections of two views of every input.

    index, targets    (2b,)     first one view of b inputs, then the other in the same order
    raw               (2b, d)   projections, in the order of the index
    """

    def embed(self, raw: Tensor) -> Tensor:
        """(m, d) raw projections -> (m, d) the space in which the loss compares inputs.

        It is also what Embedding probes.
        """
        return raw

    def targets(self, index: Tensor, labels: Tensor, classes: int, generator: Generator) -> Tensor:
        """(2b,) targets, equal for rows that belong together: views of one input, unless changed.

        index: (2b,) the input that each row is a view of.
        labels: (2b,) of these inputs.
        classes: of the data.
        generator: for targets that are random.
        """
        return index

    def __call__(self, raw: Tensor, targets: Tensor) -> Tensor:
        """(2b, d) raw projections and (2b,) targets -> the loss, a scalar."""
        raise NotImplementedError


@gin.register
@dataclass(frozen=True)
class Contrastive(Objective):
    """SimCLR's contrastive loss (Chen et al., arXiv:2002.05709, equation 1) on unit projections.

    temperature: divides the cosine similarities.
    """

    temperature: Positive = 0.2

    def embed(self, raw: Tensor) -> Tensor:
        return F.normalize(raw, dim=-1)

    def __call__(self, raw: Tensor, targets: Tensor) -> Tensor:
        return contrastive_loss(self.embed(raw), targets, self.temperature)


@gin.register
@dataclass(frozen=True)
class NonNegative(Contrastive):
    """Non-negative contrastive loss (Wang et al., arXiv:2403.12459, section 3).

    It is Contrastive after a rectifier:

        z = normalise(activation(normalise(raw)))
        loss = contrastive(z) - regulariser * mean|z|

    activation: the rectifier. 'rep_relu' has the value of ReLU and the gradient of GELU.
    regulariser: weight of the - mean|z| term over all entries of z, 1 in the authors' code.
        As rows are unit vectors, the term rewards dense ones. 0, as in the NCL paper and its code,
        leaves it out.
    unit_first: whether projections are also normalised before the rectifier, as the authors do.
        The NCL paper's code does not, which matters to rectifiers whose slope depends on size:
        'gelu', 'rep_relu', 'sigmoid', 'softplus', 'exp'.
    """

    activation: Activation = "relu"
    regulariser: AtLeastZero = 1.0
    unit_first: bool = True

    def embed(self, raw: Tensor) -> Tensor:
        if self.unit_first:
            raw = super().embed(raw)
        return F.normalize(ACTIVATIONS[self.activation](raw), dim=-1)

    def __call__(self, raw: Tensor, targets: Tensor) -> Tensor:
        z = self.embed(raw)
        return contrastive_loss(z, targets, self.temperature) - self.regulariser * z.abs().mean()


@gin.register
@dataclass(frozen=True)
class Supervised(Contrastive):
    """Contrastive, but rows of one class belong together, as in the authors' SupCon.

    z = normalise(activation(raw)), loss = contrastive(z). All positives are summed inside one log,
    where Khosla et al. (arXiv:2004.11362) take the mean of logs.

    activation: 'identity', or a rectifier for the non-negative kind.
    label_noise: share of the rows of every batch, not of inputs, that get a label uniform over all
        classes, anew at every step and possibly the true one. The two views of an input may then
        disagree. The authors' code has 0.55.
    """

    activation: Activation = "identity"
    label_noise: Fraction = 0.0

    def embed(self, raw: Tensor) -> Tensor:
        return F.normalize(ACTIVATIONS[self.activation](raw), dim=-1)

    def targets(self, index: Tensor, labels: Tensor, classes: int, generator: Generator) -> Tensor:
        n, where = len(labels), generator.device
        order = torch.randperm(n, generator=generator, device=where)
        redrawn = order[: int(self.label_noise * n)]
        new_labels = torch.randint(classes, (len(redrawn),), generator=generator, device=where)
        noisy_labels = labels.clone()
        noisy_labels[redrawn] = new_labels
        return noisy_labels


@gin.register
@dataclass(frozen=True)
class OnlineClassifier(Part):
    """A linear classifier of the backbone's features, trained on true labels beside the objective.

    joint: False stops its gradient at the features, so that it only watches. True lets it through,
        as the authors' code does: its "self-supervised" encoders are also trained on clean labels.
    lr: of the classifier alone.
    weight_decay: of the classifier alone.
    """

    joint: bool = False
    lr: Positive = 0.1
    weight_decay: AtLeastZero = 0.0

    def build(self, width: int, classes: int) -> nn.Module:
        """A freshly initialised classifier of features (n, width)."""
        return nn.Linear(width, classes)

    def loss(
        self, classifier: nn.Module, features: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The mean cross-entropy and the share that is classified correctly, both scalars.

        features: (m, width).
        labels: (m,).
        """
        logits = classifier(features if self.joint else features.detach())
        return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean()
