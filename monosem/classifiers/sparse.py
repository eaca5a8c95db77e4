"""Sparse multinomial logistic regressions, many at once, by proximal steps in the metric of rows.

    rows X               (m, r), centred
    a problem            labels, weights of examples, penalties
    point                (r + 1, problems, classes), the last row for biases
    logits Z             (m, problems, classes)

The Hessian of the mean loss is at most bound * X^T X for every class, whatever the point (Böhning
1992). A step minimises the model

    <gradient, d> + share * bound / 2 * |X d|^2 + lasso * |W + d|_1 + ridge / 2 * |W + d|^2

and not one whose curvature is the same in all directions: features are far from that, so it takes
a fifth of the passes over examples. The model itself is solved roughly, by FISTA on the Gram matrix
X^T X, which all problems share and which is small. Outer steps have momentum too (Beck & Teboulle
2009), which starts anew where it points uphill (O'Donoghue & Candès 2015).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from monosem.classifiers.solvers import Stop

INNER = 8  # steps on the model of one outer step


class SparseLoss:
    """The mean cross-entropy of P problems, and what is added to it.

    rows: (m, r), of mean 0.
    labels: (P, m).
    weights: (P, m), of examples; they sum to 1.
    lasso, ridge: (P,), of |W|_1 and of half of |W|^2.
    """

    def __init__(self, rows: Tensor, labels: Tensor, weights: Tensor, lasso: Tensor, ridge: Tensor):
        self.rows, self.labels, self.weights = rows, labels.T[:, :, None], weights.T[:, :, None]
        self.lasso, self.ridge = lasso[:, None], ridge[:, None]
        self.gram = rows.T @ rows
        self.largest = torch.linalg.matrix_norm(self.gram.double(), 2).to(rows.dtype).clamp(min=1)
        self.bound = weights.amax(1)[:, None] / 2

    def logits(self, points: Tensor) -> Tensor:
        weight, bias = points[:-1], points[-1]
        return (self.rows @ weight.flatten(1)).reshape(-1, *bias.shape) + bias

    def value(self, logits: Tensor, which: Tensor) -> Tensor:
        """(A,) of the smooth part."""
        labels, weights = self.labels[:, which], self.weights[:, which]
        of_label = logits.gather(2, labels) - logits.logsumexp(2, keepdim=True)
        return -(of_label * weights).sum((0, 2))

    def slope(self, logits: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """The value (A,) and the gradient of the smooth part, in the shape of points."""
        labels, weights = self.labels[:, which], self.weights[:, which]
        log_p = F.log_softmax(logits, 2)
        value = -(log_p.gather(2, labels) * weights).sum((0, 2))
        residual = (log_p.exp_() * weights).scatter_add_(2, labels, -weights)
        of_weight = (self.rows.T @ residual.flatten(1)).reshape(-1, *residual.shape[1:])
        return value, torch.cat([of_weight, residual.sum(0)[None]])

    def near(self, points: Tensor, gradient: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """A plain proximal step, and the largest entry of curvature * step (A,), 0 at the minimum.

        Unlike a point with momentum, what it leads to has zeros.
        """
        curvature = self.bound[which] * self.largest
        ridge, lasso = self.ridge[which], self.lasso[which]
        slope = gradient[:-1] + ridge * points[:-1]
        weight = shrink(points[:-1] - slope / curvature, lasso / curvature)
        bias = points[-1:] - gradient[-1:] / curvature
        new = torch.cat([weight, bias])
        return new, (curvature * (new - points)).abs().amax((0, 2))

    def step(self, points: Tensor, gradient: Tensor, share: Tensor, which: Tensor) -> Tensor:
        """The minimum of the model, roughly."""
        scale = share[:, None] * self.bound[which]
        ridge, lasso = self.ridge[which], self.lasso[which]
        curvature = scale * self.largest + ridge
        start = points[:-1]
        x = y = start
        momentum = 1.0
        for _ in range(INNER):
            turned = (self.gram @ (y - start).flatten(1)).reshape_as(y)
            slope = gradient[:-1] + scale * turned + ridge * y
            new = shrink(y - slope / curvature, lasso / curvature)
            after = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            y = new + (momentum - 1) / after * (new - x)
            x, momentum = new, after
        bias = points[-1:] - gradient[-1:] / (scale * len(self.rows))
        return torch.cat([x, bias])


def shrink(points: Tensor, by: Tensor) -> Tensor:
    """Towards 0, at most to it."""
    return points.sign() * F.relu(points.abs() - by)


def minimise_sparse(loss: SparseLoss, start: Tensor, stop: Stop) -> Tensor:
    """The minima of all problems, in the shape of `start`, (r + 1, P, classes).

    Every third step it is looked whether it lies above the quadratic bound; one that does is tried
    again with twice the share of it. At a share of 1 it cannot. Where a problem ends does not hang
    on it, as that is told by its gradient.
    stop: the tolerance is that of `SparseLoss.near`.
    """
    which = torch.arange(start.shape[1], device=start.device)
    ended = start.clone()
    x = y = start
    of_x = of_y = loss.logits(start)
    share = torch.full_like(loss.bound[:, 0], 0.5)
    momentum = torch.ones_like(share)
    for number in range(stop.steps):
        value, gradient = loss.slope(of_y, which)
        near, gap = loss.near(y, gradient, which)
        ended[:, which] = near
        stay = (gap > stop.tolerance).nonzero()[:, 0]
        if len(stay) < len(which):
            x, y, gradient = x[:, stay], y[:, stay], gradient[:, stay]
            of_x, of_y, value = of_x[:, stay], of_y[:, stay], value[stay]
            which, share, momentum = which[stay], share[stay], momentum[stay]
        if not len(which):
            break
        new = loss.step(y, gradient, share, which)
        of_new = loss.logits(new)
        good = torch.ones_like(share, dtype=torch.bool)
        if number % 3 == 0:
            curvature = share * loss.bound[which, 0]
            model = (gradient * (new - y)).sum((0, 2))
            model = value + model + curvature / 2 * (of_new - of_y).square().sum((0, 2))
            rounding = 10 * torch.finfo(x.dtype).eps * value.abs()
            good = loss.value(of_new, which) <= model + rounding
            share = torch.where(good, share * 0.75, (share * 2).clamp(max=1))
        uphill = ((y - new) * (new - x)).sum((0, 2)) > 0
        after = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
        ahead = torch.where(uphill, 0, (momentum - 1) / after)[:, None]
        momentum = torch.where(uphill | ~good, 1, after)
        next_y, of_next = new + ahead * (new - x), of_new + ahead * (of_new - of_x)
        if good.all():
            x, y, of_x, of_y = new, next_y, of_new, of_next
            continue
        kept = good[:, None]
        y, of_y = torch.where(kept, next_y, x), torch.where(kept, of_next, of_x)
        x, of_x = torch.where(kept, new, x), torch.where(kept, of_new, of_x)
    return ended
