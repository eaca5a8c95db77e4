"""Monosemanticity of features, in matrix form over what was cached.

A metric maps what is seen of a split to named numbers: one for the representation, or one a dimension, of which the mean is then
the representation's. Dimensions are *dead* where they are 0 on every image, *constant* where they hold one other value on all of
them, else they vary. Each metric says of which dimensions it speaks; the others are left out of means, hold 0 and are never nan.
Where there is none to speak of, a mean is 0. Sources: NCL is Wang et al., arXiv:2403.12459 (main_eval.py of its code); BI is the
log_stats of the code of arXiv:2410.21331.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, NamedTuple

import gin
import torch
import torch.nn.functional as F
from torch import Tensor

from monosem.stage import Count, Part, Positive, Range, generator

CHUNK = 2048  # rows or columns at a time, which bounds memory


class Seen(NamedTuple):
    """What a metric sees. features: (n, d); labels: (n,); judged: (n, e), how a judge that had no part in the features sees the
    same images; factors: the level of each factor that made the images, (n,) by name, where that is known."""

    features: Tensor
    labels: Tensor
    judged: Tensor
    factors: Mapping[str, Tensor] = MappingProxyType({})


class PerDimension(NamedTuple):
    """values: (d,) float64, one a dimension; said: (d,) booleans, of which dimensions. The others hold 0."""

    values: Tensor
    said: Tensor

    @property
    def mean(self) -> float:
        return _mean(self.values[self.said])


Finding = float | PerDimension


@dataclass(frozen=True)
class Metric(Part):
    """Something measured on the features of a split.

    better: of what it finds dimension by dimension, whether 'high' or 'low' values are monosemantic; what is not named is neither.
    """

    better: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __call__(self, seen: Seen) -> dict[str, Finding]:
        raise NotImplementedError


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if values.numel() else 0.0


def per_dimension(values: Tensor, said: Tensor) -> PerDimension:
    return PerDimension(torch.where(said, values.double(), 0.0), said)


def live(features: Tensor) -> Tensor:
    """(n, d) -> (d,) booleans: dimensions that are not zero everywhere."""
    return features.abs().amax(0) > 0


def varying(features: Tensor) -> Tensor:
    """(n, d) -> (d,) booleans: dimensions that are not the same on every image; neither dead nor constant."""
    return features.amax(0) > features.amin(0)


def rows_of(n: int) -> Iterator[slice]:
    return (slice(first, first + CHUNK) for first in range(0, n, CHUNK))


# ------------------------------------------------------------------------------------------------ classes


def by_class(labels: Tensor) -> Sequence[Tensor]:
    """(n,) -> for every class from 0 on, which rows are of it; quicker to add up than a product with what is mostly zeros."""
    return labels.argsort(stable=True).split(labels.bincount().tolist())


def class_counts(features: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """(classes, d) float64: on how many images of each class a dimension is active, |f| > epsilon after normalising every row."""
    least = epsilon * torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=1e-12)
    counts = [(features[rows].abs() > least[rows]).sum(0, dtype=torch.int32) for rows in by_class(labels)]
    return torch.stack(counts).double()


def class_consistency(counts: Tensor) -> Tensor:
    """(classes, d) -> (d,) the share of the most frequent class, in [0, 1]; 0 where there is no image."""
    return counts.amax(0) / counts.sum(0).clamp(min=1)


def class_entropy(counts: Tensor, epsilon: float) -> Tensor:
    """(classes, d) -> (d,) the entropy of the classes in nats: - sum_c p log(p + epsilon)."""
    share = counts / counts.sum(0).clamp(min=1)
    return -(share * (share + epsilon).log()).sum(0)


def class_means(features: Tensor, labels: Tensor) -> Tensor:
    """(classes, d) float64: the mean of every dimension over the images of each class; 0 for a class without images."""
    sums = [features[rows].sum(0, dtype=torch.float64) / max(len(rows), 1) for rows in by_class(labels)]
    return torch.stack(sums)


@gin.register
@dataclass(frozen=True)
class ClassConsistency(Metric):
    """How much one class owns a dimension (NCL, section 4.1): the share of the most frequent class among the images that activate it,
    in [1/classes, 1], 1 is monosemantic; and the entropy of those classes in nats. Of dimensions that some image activates.

    A dimension that a single image activates has a consistency of 1 and counts like any other: look at its activity too.
    epsilon: a dimension is active on an image where its share of the row's norm exceeds this, in absolute value. Signed features are active
    nearly everywhere and score near the largest class share, which is what 'polysemantic' means here.
    """

    epsilon: Annotated[float, Range(0, 1, open=True)] = 1e-5

    better = MappingProxyType({"class_consistency": "high", "class_entropy": "low"})

    def __call__(self, seen: Seen) -> dict[str, Finding]:
        counts = class_counts(seen.features, seen.labels, self.epsilon)
        active = counts.sum(0) > 0
        return {
            "class_consistency": per_dimension(class_consistency(counts), active),
            "class_entropy": per_dimension(class_entropy(counts, self.epsilon), active),
        }


@gin.register
@dataclass(frozen=True)
class ClassSelectivity(Metric):
    """(m - r) / (m + r): m the mean activation of a dimension over the class with the largest one, r the mean of those of all other classes
    (Morcos et al., arXiv:1803.06959, section 2.3), in [0, 1]; 0 is the same for all classes, 1 is silent but for one. No probe.

    Of live dimensions. There they are rectified; here |f| stands for the activation, so that signed features have one too.
    """

    better = MappingProxyType({"class_selectivity": "high"})

    def __call__(self, seen: Seen) -> dict[str, Finding]:
        means = class_means(seen.features.abs(), seen.labels)
        present = seen.labels.bincount() > 0
        best = means.amax(0)
        rest = (means.sum(0) - best) / max(int(present.sum()) - 1, 1)
        return {"class_selectivity": per_dimension((best - rest) / (best + rest).clamp(min=1e-300), live(seen.features))}


@gin.register
@dataclass(frozen=True)
class FeatureMonosemanticity(Metric):
    """The feature monosemanticity score FMS@p (Härle et al., arXiv:2506.19382, section 3), about 0 to 1: a little below 0 where a root is
    not the most accurate split.

    For every class against the others, with classes weighted alike, CART trees on all dimensions: a_0 is the accuracy of the root,
    which is one threshold in one dimension; a_i that of the tree cut at depth i + 1; b_p that of the root after the p dimensions that
    were roots before are gone. local = 2 (a_0 - b_p), global = 1 - mean_i (a_i - a_0), i from 1 to n; the score is the mean over
    classes of a_0 (local + global) / 2. High where one dimension knows a class, no second one does, and more would not help.

    p: dimensions taken away. n: depths beyond the root. In sample, as in its authors' code; their trees grow until leaves are pure.
    Features and labels alone; one number a representation, as trees choose their dimensions.
    """

    p: Annotated[int, Range(1, 100)] = 1
    n: Annotated[int, Range(1, 20)] = 2

    def __call__(self, seen: Seen) -> dict[str, Finding]:
        table, labels = seen.features.float().cpu().numpy(), seen.labels.cpu()
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # trees grow outside of Python's lock
            scores = [*threads.map(lambda label: self.of_concept(table, (labels == label).numpy()), labels.unique())]
        capacity, local, whole = torch.tensor(scores, dtype=torch.float64).reshape(-1, 3).T
        return {
            "fms": _mean(capacity * (local + whole) / 2), "fms_capacity": _mean(capacity), "fms_local": _mean(local),
            "fms_global": _mean(whole),
        }  # fmt: skip

    def of_concept(self, table: Any, concept: Any) -> tuple[float, float, float]:
        """a_0, local and global of one concept. table: (n, d) array; concept: (n,) booleans."""
        left = table.copy()
        tree = grown(left, concept, 1 + self.n)
        root, *deeper = (tree_accuracy(tree, depth) for depth in range(1, 2 + self.n))
        for gone in range(self.p):
            feature = (tree if gone == 0 else grown(left, concept, 1)).tree_.feature[0]
            left[:, max(feature, 0)] = 0  # -2: there was nothing to split, and nothing to take away
        rest = tree_accuracy(grown(left, concept, 1), 1)
        return root, 2 * (root - rest), 1 - sum(each - root for each in deeper) / self.n


def grown(table: Any, concept: Any, depth: int) -> Any:
    """A CART tree by Gini impurity, concept and rest weighted alike; of dimensions that split alike one is drawn, always the same."""
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(criterion="gini", max_depth=depth, class_weight="balanced", random_state=0).fit(table, concept)


def tree_accuracy(tree: Any, depth: int) -> float:
    """The balanced accuracy, in sample, of a tree cut at a depth; 0.5 is chance and depth 0 is no tree."""
    inner = tree.tree_
    depths = inner.compute_node_depths() - 1  # the root counts as 1 there
    ends = (depths == depth) | ((depths < depth) & (inner.children_left < 0))
    weights = inner.weighted_n_node_samples
    best = inner.value[:, 0].max(-1) / inner.value[:, 0].sum(-1)
    return float((weights * best)[ends].sum() / weights[0])


# ------------------------------------------------------------------------------------------------ images alike


def pair_similarity(judged: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(n, e) and (n, d), not negative -> (d,) the mean cosine of all pairs of different images, a pair weighted by the product of the
    two weights; and (d,) the total weight of pairs, 0 where no two images have any. In one pass over rows, O(n e d):

        sum_{n != m} a_n a_m cos(n, m) / sum_{n != m} a_n a_m = (|E^T a|^2 - sum_n a_n^2 |E_n|^2) / ((sum_n a_n)^2 - sum_n a_n^2)

    with E the rows at unit length. An image that the judge sees nothing in has a row of zeros, and cosines of 0.
    """
    together = torch.zeros(judged.shape[1], weights.shape[1], dtype=torch.float64, device=weights.device)
    total, squares, own = torch.zeros(3, weights.shape[1], dtype=torch.float64, device=weights.device)
    for rows in rows_of(len(weights)):
        unit, weight = F.normalize(judged[rows].double(), dim=1), weights[rows].double()  # differences of what is nearly equal follow
        together += unit.T @ weight
        total += weight.sum(0)
        squares += weight.square().sum(0)
        own += (weight.square() * unit.square().sum(1, keepdim=True)).sum(0)  # 1 a row, but 0 where the judge sees nothing
    pairs = total.square() - squares
    pairs = torch.where(pairs > 1e-12 * total.square(), pairs, 0.0)  # one image alone leaves what rounding leaves
    return (together.square().sum(0) - own) / pairs.clamp(min=1e-300) * (pairs > 0), pairs


@gin.register
@dataclass(frozen=True)
class MonosemanticityScore(Metric):
    """How alike the images are that activate a dimension (Pach et al., arXiv:2504.02821, section 3.2): the mean cosine, as a judge sees
    images, of all pairs of them, weighted by the product of their activations, in [-1, 1], that is divided by the sum of these weights.
    Activations are brought to [0, 1] by the smallest and the largest of the dimension, as there. The judge is `Experiment.judge`; Pach et
    al. have DINOv2.

    Of dimensions that vary and are above their smallest value on two images or more. Beside it the same with a judge that sees classes
    alone: the chance that two images drawn by activation share their class; and the score of a dimension that is alike on all images.
    """

    better = MappingProxyType({"monosemanticity_score": "high", "monosemanticity_score_of_classes": "high"})

    def __call__(self, seen: Seen) -> dict[str, Finding]:
        low, high = seen.features.amin(0), seen.features.amax(0)
        found: dict[str, Finding] = {}
        classes = F.one_hot(seen.labels).to(seen.features.dtype)
        for name, judged in (("monosemanticity_score", seen.judged), ("monosemanticity_score_of_classes", classes)):
            scores, pairs = pair_similarity(judged, (seen.features - low) / (high - low).clamp(min=1e-30))
            found[name] = per_dimension(scores.clamp(-1, 1), (pairs > 0) & (high > low))
        everyone, _ = pair_similarity(seen.judged, torch.ones_like(seen.features[:, :1]))
        return {**found, "monosemanticity_score_of_all_images": float(everyone[0])}


def distances(features: Tensor, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(n, d) -> which rows (m,), and their squared distances to all rows (m, n), infinite to themselves; a chunk at a time."""
    energy = features.square().sum(1)
    for rows in torch.arange(len(features), device=features.device).split(chunk):
        distance = energy[rows, None] + energy - 2 * features[rows] @ features.T
        distance[torch.arange(len(rows), device=rows.device), rows] = torch.inf
        yield rows, distance


def precision_at(features: Tensor, labels: Tensor, k: int, chunk: int = 1000) -> float:
    """The share, among the k rows nearest to a row (squared distance, itself left out), of those with its label, over all rows."""
    n, right = len(features), 0.0
    k = min(k, n - 1)
    if k < 1:
        return 0.0
    for rows, distance in distances(features, chunk):
        nearest = distance.topk(k, largest=False).indices
        right += float((labels[nearest] == labels[rows, None]).double().sum())
    return right / (n * k)


def mean_average_precision(features: Tensor, labels: Tensor, chunk: int = 500) -> float:
    """mAP in [0, 1]: for every row, all others by ascending squared distance, and the mean, over those with its label, of the share
    of its label up to them. Ties by index; rows whose label nobody else has are left out."""
    places, total, asked = torch.arange(1, len(features), device=features.device), 0.0, 0
    for rows, distance in distances(features, chunk):
        others = distance.argsort(dim=1, stable=True)[:, :-1]  # the row itself comes last
        right = (labels[others] == labels[rows, None]).double()
        found = right.sum(1)
        total += float(((right.cumsum(1) / places * right).sum(1) / found.clamp(min=1)).sum())
        asked += int((found > 0).sum())
    return total / max(asked, 1)


@gin.register
@dataclass(frozen=True)
class RetrievalPrecision(Metric):
    """Whether images of a class are neighbours (NCL, section 4.3): for every image, precision among its k nearest, and the mean average
    precision over all others (both in [0, 1]), by the distance of rows at unit length. Images are shuffled first, as those of a class may
    lie together and sparse codes tie. NCL's "map" is its precision@10, not mAP."""

    k: Count = 10

    def __call__(self, seen: Seen) -> dict[str, Finding]:
        n = len(seen.labels)
        shuffled = torch.randperm(n, generator=generator("ties of neighbours", n)).to(seen.labels.device)
        rows, labels = F.normalize(seen.features[shuffled], dim=1), seen.labels[shuffled]
        return {
            f"precision_at_{self.k}": precision_at(rows, labels, self.k),
            "mean_average_precision": mean_average_precision(rows, labels),
        }


# ------------------------------------------------------------------------------------------------ the space


@gin.register
@dataclass(frozen=True)
class Sparsity(Metric):
    """Share of entries that are zero, |f| <= epsilon (BI log_stats), in [0, 1]; L0, how many dimensions are not zero on an image, on
    average; and Hoyer's (sqrt(d) - |f|_1 / |f|_2) / (sqrt(d) - 1) (JMLR 2004), in [0, 1], 1 is one dimension (and d = 1), the mean over
    images that are not all zero. activity: the share of images on which a dimension is not zero, of live dimensions."""

    epsilon: Positive = 1e-5

    def __call__(self, seen: Seen) -> dict[str, Finding]:
        features = seen.features
        on = (features.abs() > self.epsilon).to(features.dtype)
        norm, root = torch.linalg.vector_norm(features, dim=1), features.shape[1] ** 0.5
        spread = features.abs().sum(1)[norm > 0] / norm[norm > 0]  # from 1, a single dimension, to the root, all alike
        hoyer = (root - spread) / (root - 1) if root > 1 else torch.ones_like(spread)
        return {
            "sparsity": 1 - _mean(on), "l0": float(on.sum(1).double().mean()), "hoyer": _mean(hoyer.clamp(0, 1)),
            "activity": per_dimension(on.mean(0, dtype=torch.float64), live(features)),
        }  # fmt: skip


@gin.register
@dataclass(frozen=True)
class Dimensions(Metric):
    """Live dimensions (not zero on every image of the split) and dead ones; and those of the live that are the same on every image."""

    def __call__(self, seen: Seen) -> dict[str, Finding]:
        alive = live(seen.features)
        return {
            "live_dimensions": int(alive.sum()),
            "dead_dimensions": int((~alive).sum()),
            "constant_dimensions": int((alive & ~varying(seen.features)).sum()),
        }


def spectral_entropy(features: Tensor) -> Tensor:
    """Entropy in nats of the normalised singular values, - sum s log(s + 1e-6): what BI's log_stats calls effective rank. From the
    eigenvalues of the smaller Gram matrix: singular values below 1e-8 of the largest are lost in rounding, and matter to nothing."""
    rows = features.double()
    gram = rows.T @ rows if rows.shape[0] >= rows.shape[1] else rows @ rows.T
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = values / values.sum().clamp(min=1e-300)
    return (-(share * (share + 1e-6).log()).sum()).clamp(min=0)  # of a single direction it would be just below


@gin.register
@dataclass(frozen=True)
class EffectiveRank(Metric):
    """exp of the spectral entropy (Roy & Vetterli, EUSIPCO 2007), in [1, min(n, d)]. BI reports the entropy itself, in nats."""

    def __call__(self, seen: Seen) -> dict[str, Finding]:
        entropy = spectral_entropy(seen.features)
        return {"effective_rank": float(entropy.exp()), "spectral_entropy": float(entropy)}


def correlations(features: Tensor) -> Tensor:
    """The cosines between live dimensions (not centred, as in NCL and BI): (live, live) in [-1, 1]."""
    columns = F.normalize(features[:, live(features)], dim=0)
    return columns.T @ columns


def correlation_error(features: Tensor) -> Tensor:
    """|C - I| over the live dimensions, C their cosines: (live, live) in [0, 1]."""
    cosines = correlations(features)
    return (cosines - torch.eye(len(cosines), dtype=cosines.dtype, device=cosines.device)).abs()


@gin.register
@dataclass(frozen=True)
class Orthogonality(Metric):
    """mean |C - I| over live dimensions, C the cosines between columns (BI log_stats), in [0, 1]; 0 is orthogonal."""

    def __call__(self, seen: Seen) -> dict[str, Finding]:
        return {"correlation": _mean(correlation_error(seen.features))}


def by_activity(features: Tensor) -> Tensor:
    """(n, d) -> (d,) dimensions, the most active first: by the column sums of features with unit rows."""
    return F.normalize(features, dim=1).double().sum(0).argsort(descending=True, stable=True)


# ------------------------------------------------------------------------------------------------ the truth


def binned(features: Tensor, bins: int) -> Tensor:
    """(n, d) -> (n, d) int64 codes from 0 to bins - 1, each column by itself: its different values, in order, are cut into `bins`
    equal lots. Equal values stay together, so the zeros of a sparse dimension, however many, are one value among the others."""
    ordered, order = features.sort(0)
    rank = torch.cat([torch.zeros_like(order[:1]), (ordered[1:] > ordered[:-1]).long()]).cumsum(0)
    return torch.empty_like(order).scatter_(0, order, rank * bins // (rank[-1] + 1))


def mutual_information(codes: Tensor, factor: Tensor) -> Tensor:
    """(n, d) codes and (n,) levels -> (d,) mutual information in nats, from counts, less what chance gives so many occupied cells
    (Miller & Madow, 1955): (cells - rows - columns + 1) / 2n; not below 0."""
    n, d = codes.shape
    bins, levels = int(codes.max()) + 1, int(factor.max()) + 1
    places = (torch.arange(d, device=codes.device) * bins + codes) * levels + factor[:, None]
    joint = places.flatten().bincount(minlength=d * bins * levels).reshape(d, bins, levels)
    rows, columns = joint.sum(2), joint.sum(1)
    information = _entropy(rows, n) + _entropy(columns, n) - _entropy(joint.flatten(1), n)
    cells = (joint > 0).sum((1, 2)) - (rows > 0).sum(1) - (columns > 0).sum(1) + 1
    return (information - cells.double() / (2 * n)).clamp(min=0)


def entropy(codes: Tensor) -> Tensor:
    """(n, d) codes -> (d,) entropy in nats of each column."""
    n, d = codes.shape
    most = int(codes.max()) + 1
    places = torch.arange(d, device=codes.device) * most + codes
    return _entropy(places.flatten().bincount(minlength=d * most).reshape(d, most), n)


def _entropy(counts: Tensor, n: int) -> Tensor:
    """(d, cells) -> (d,) entropy in nats of the shares of n."""
    share = counts.double() / n
    return -torch.special.xlogy(share, share).sum(1)


@gin.register
@dataclass(frozen=True)
class FactorInformation(Metric):
    """How much of a dimension is one factor of those that are known to have made the images. Of dimensions that vary; nothing where
    no factor is known.

    u_f = I(dimension; f) / min(H(dimension), H(f)), in [0, 1], for every factor f: 1 where the dimension tells the factor, and also where
    the factor tells the dimension, as it does of a detector of one level. information: the largest; gap: the largest less the second, the
    mutual information gap of Chen et al. (arXiv:1802.04942) seen from the dimension; share: the largest over their sum, of dimensions
    whose information is above `least` alone, as of noise it means nothing. What adds up several levels, or two factors, has less of all
    three.

    bins: a dimension is cut into so many lots for its mutual information. On dimensions that few images activate it is overestimated,
        of all factors alike.
    """

    bins: Annotated[int, Range(2, 1000)] = 20
    least: Annotated[float, Range(0, 1)] = 0.05

    better = MappingProxyType({"factor_information": "high", "factor_share": "high", "factor_gap": "high"})

    def __call__(self, seen: Seen) -> dict[str, Finding]:
        if not seen.factors:
            return {}
        parts = [self._explained(part, seen.factors) for part in seen.features.split(CHUNK // 8, dim=1)]
        explained, said = torch.cat(parts, 1), varying(seen.features)  # (factors, d)
        top = torch.cat([explained, torch.zeros_like(explained[:1])]).sort(0, descending=True).values
        return {
            "factor_information": per_dimension(top[0], said),
            "factor_share": per_dimension(top[0] / explained.sum(0).clamp(min=1e-12), said & (top[0] > self.least)),
            "factor_gap": per_dimension(top[0] - top[1], said),
            **{f"information_of_{name}": per_dimension(each, said) for name, each in zip(seen.factors, explained, strict=True)},
        }

    def _explained(self, features: Tensor, factors: Mapping[str, Tensor]) -> Tensor:
        codes = binned(features, self.bins)
        own, found = entropy(codes), []
        for levels in factors.values():
            least = torch.minimum(own, entropy(levels[:, None]))
            information = mutual_information(codes, levels)
            found.append(torch.where(least > 1e-9, information / least.clamp(min=1e-9), 0.0).clamp(max=1))
        return torch.stack(found)


TRUTH = "factor_gap"  # what the other measures are judged by, where factors are known
