"""What is done for dead latents, which no gradient of the reconstruction reaches any more."""

from __future__ import annotations

from dataclasses import dataclass

import gin
import torch
import torch.nn.functional as F
from torch import Tensor

from monosem.autoencoders.base import Autoencoder, Code
from monosem.autoencoders.starts import Times
from monosem.core.fields import AtLeastZero, Count, Part


@dataclass(frozen=True)
class Revival(Part):
    """A loss that reaches dead latents."""

    def __call__(self, autoencoder: Autoencoder, x: Tensor, code: Code, dead: Tensor) -> Tensor:
        """A scalar.

        x: (n, d). code: of it. dead: (latents,) which latents have been off for an epoch.
        """
        raise NotImplementedError


@gin.register
@dataclass(frozen=True)
class AuxK(Revival):
    """The dead latents with the largest pre-activations reconstruct what the others left over.

    From Gao et al. (arXiv:2406.04093, appendix A.2):

        residual = x - reconstruction, without gradient
        cost = coefficient min(dead / k, 1) error(W_d z - residual)

    z are the pre-activations of the k dead latents for which they are largest; 0 elsewhere. So no
    gradient reaches latents that live. Where fewer than k are dead, all of them are taken and the
    cost is less, as EleutherAI and SAELens have it.

    coefficient: 0 turns it off.
    k: dead latents that are taken, a number or a multiple of the number of features.
    """

    coefficient: AtLeastZero = 1 / 32
    k: Times | Count = Times(0.5)  # noqa: RUF009, frozen

    def __call__(self, autoencoder: Autoencoder, x: Tensor, code: Code, dead: Tensor) -> Tensor:
        count = int(dead.sum())
        if not count or not self.coefficient:
            return x.new_zeros(())
        k = self.k.of(x.shape[1]) if isinstance(self.k, Times) else self.k
        # anew, as `pre` has no graph where few latents are kept
        which = dead.nonzero().flatten()
        weight, bias = autoencoder.encoder.weight[which], autoencoder.latent_bias[which]
        candidates = F.linear(x - autoencoder.pre_bias, weight, bias)
        top, where = candidates.topk(min(k, count), dim=-1, sorted=False)
        z = torch.zeros_like(candidates).scatter(-1, where, top)
        residual = (x - code.reconstruction).detach()
        estimate = F.linear(z, autoencoder.decoder.weight[:, which])
        share = min(count / k, 1.0)
        return self.coefficient * share * autoencoder.error(estimate - residual, x)


@gin.register
@dataclass(frozen=True)
class PreActivationLoss(Revival):
    """Dead latents are pulled up to where they would be on (Anthropic, January 2025).

        cost = coefficient mean_rows sum_{dead j} relu(threshold_j - pre_j) ||W_d column j||

    The thresholds are those of a JumpReLU, else 0.

    coefficient: 0 turns it off; Anthropic have 3e-6.
    """

    coefficient: AtLeastZero = 3e-6

    def __call__(self, autoencoder: Autoencoder, x: Tensor, code: Code, dead: Tensor) -> Tensor:
        below = F.relu(autoencoder.rule.turn_on - code.pre) * dead
        return self.coefficient * (below @ autoencoder.decoder.weight.norm(dim=0)).mean()
