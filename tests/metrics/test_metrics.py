"""Monosemanticity in matrix form against plain loops of the papers' definitions, other libraries and the reference (golden d, g)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, balanced_accuracy_score, mutual_info_score
from sklearn.tree import DecisionTreeClassifier
from torch.testing import assert_close

from monosem.metrics import base as metrics, classes, factors as factors_module, neighbours, space
from monosem.metrics.base import FeatureBatch, PerDimension
from monosem.metrics.classes import ClassConsistency, ClassSelectivity
from monosem.metrics.factors import FactorInformation
from monosem.metrics.neighbours import MonosemanticityScore, RetrievalPrecision, precision_at
from monosem.metrics.space import Dimensions, EffectiveRank, Orthogonality, Sparsity, by_activity
from monosem.metrics.trees import FeatureMonosemanticity

LABELS = torch.randint(0, 4, (50,), generator=torch.Generator().manual_seed(1))
FEATURES = torch.randn(50, 9, generator=torch.Generator().manual_seed(0)).relu() * (
    torch.arange(9) != 2
)
JUDGED = torch.randn(50, 5, generator=torch.Generator().manual_seed(2))
FACTORS = {
    "hue": torch.randint(0, 3, (50,), generator=torch.Generator().manual_seed(3)),
    "size": torch.randint(0, 2, (50,), generator=torch.Generator().manual_seed(4)),
}
ALL = (
    ClassConsistency(), ClassSelectivity(), FeatureMonosemanticity(), MonosemanticityScore(), RetrievalPrecision(), Sparsity(),
    Dimensions(), EffectiveRank(), Orthogonality(), FactorInformation(),
)  # fmt: skip


def seen(features, labels=LABELS, reference_features=None, factors=None):
    return FeatureBatch(
        features,
        labels,
        features if reference_features is None else reference_features,
        factors or {},
    )


# ------------------------------------------------------------------------------------------------ classes


def test_class_consistency_and_entropy_equal_plain_loops():
    found = ClassConsistency()(seen(FEATURES))
    for d in range(9):
        active = [
            int(label)
            for row, label in zip(FEATURES, LABELS, strict=True)
            if row[d] / row.norm() > 1e-5
        ]
        counts = [active.count(c) for c in range(4)]
        if not active:
            assert d == 2 and all(
                each.values[d] == 0 and not each.valid[d] for each in found.values()
            )
            continue
        assert found["class_consistency"].values[d].item() == pytest.approx(
            max(counts) / len(active)
        )
        shares = [count / len(active) for count in counts]
        assert found["class_entropy"].values[d].item() == pytest.approx(
            -sum(p * math.log(p + 1e-5) for p in shares)
        )
    assert found["class_consistency"].mean == pytest.approx(
        sum(found["class_consistency"].values.tolist()) / 8
    )


def test_a_dimension_of_one_class_is_consistent_and_has_no_entropy():
    features = F.one_hot(LABELS, 4).float()
    assert ClassConsistency()(seen(features))["class_consistency"].mean == 1
    assert ClassConsistency()(seen(features))["class_entropy"].mean == pytest.approx(0, abs=1e-4)
    assert ClassSelectivity()(seen(features))["class_selectivity"].mean == 1
    assert MonosemanticityScore()(seen(features))["monosemanticity_score"].mean == pytest.approx(1)
    assert Orthogonality()(seen(features))["correlation"] == pytest.approx(0, abs=1e-7)
    assert EffectiveRank()(seen(F.one_hot(torch.arange(8) % 4, 4).float()))[
        "effective_rank"
    ] == pytest.approx(4, rel=1e-4)


def test_class_selectivity_equals_plain_loops():
    signed = FEATURES - 0.3 * (torch.arange(9) == 4)
    values = ClassSelectivity()(seen(signed))["class_selectivity"].values
    for d in set(range(9)) - {2}:
        means = [signed[c == LABELS, d].abs().mean().item() for c in range(4)]
        best = max(means)
        rest = (sum(means) - best) / 3
        assert values[d].item() == pytest.approx((best - rest) / (best + rest), rel=1e-6)
    assert values[2] == 0


@pytest.mark.parametrize(("p", "n"), [(1, 2), (2, 1), (3, 3)])
def test_the_feature_monosemanticity_score_equals_trees_grown_and_cut_one_by_one(p, n):
    def accuracy(table, concept, depth):
        tree = DecisionTreeClassifier(max_depth=depth, class_weight="balanced", random_state=0).fit(
            table, concept
        )
        return balanced_accuracy_score(concept, tree.predict(table)), tree.tree_.feature[0]

    scores = []
    for c in range(4):
        concept, table = (c == LABELS).numpy(), FEATURES.numpy().copy()
        a0, _ = accuracy(table, concept, 1)
        deeper = [accuracy(table, concept, 1 + depth)[0] for depth in range(1, n + 1)]
        for _ in range(p):
            table[:, accuracy(table, concept, 1)[1]] = 0
        local, whole = (
            2 * (a0 - accuracy(table, concept, 1)[0]),
            1 - sum(each - a0 for each in deeper) / n,
        )
        scores.append(a0 * (local + whole) / 2)
    found = FeatureMonosemanticity(p=p, n=n)(seen(FEATURES))
    assert found["fms"] == pytest.approx(np.mean(scores), rel=1e-6)


def test_one_dimension_a_class_has_the_full_feature_monosemanticity_score_and_two_alike_lose_locality():
    labels = torch.arange(40) % 4
    features = F.one_hot(labels, 4).float()
    alone, twice = (
        FeatureMonosemanticity()(seen(each, labels)) for each in (features, features.repeat(1, 2))
    )
    assert alone["fms_capacity"] == pytest.approx(1) and alone["fms_global"] == pytest.approx(1)
    assert alone["fms_local"] == pytest.approx(
        2 / 3
    )  # another class's dimension still tells a third of the rest from this class
    assert twice["fms_local"] == pytest.approx(0) and twice["fms"] == pytest.approx(0.5)


# ------------------------------------------------------------------------------------------------ images alike


@pytest.mark.parametrize("shift", [0.0, -0.7], ids=["rectified", "signed"])
def test_the_monosemanticity_score_equals_the_sum_over_all_pairs(shift):
    features = torch.where(torch.arange(9) == 2, FEATURES, FEATURES + shift)
    found = MonosemanticityScore()(seen(features, reference_features=JUDGED))
    for name, reference_features in (
        ("monosemanticity_score", JUDGED),
        ("monosemanticity_score_of_classes", F.one_hot(LABELS).float()),
    ):
        for d in set(range(9)) - {2}:
            low, high = features[:, d].min(), features[:, d].max()
            a = ((features[:, d] - low) / (high - low)).tolist()
            above = below = 0.0
            for n, m in itertools.permutations(range(50), 2):
                cosine = float(
                    reference_features[n]
                    @ reference_features[m]
                    / reference_features[n].norm()
                    / reference_features[m].norm()
                )
                above, below = above + a[n] * a[m] * cosine, below + a[n] * a[m]
            assert found[name].values[d].item() == pytest.approx(above / below, abs=1e-6)
        assert not found[name].valid[2]
    pairs = [
        float(F.cosine_similarity(JUDGED[n], JUDGED[m], dim=0))
        for n, m in itertools.combinations(range(50), 2)
    ]
    assert found["monosemanticity_score_of_all_images"] == pytest.approx(np.mean(pairs), abs=1e-6)


def test_a_dimension_that_one_image_activates_has_no_monosemanticity_score():
    score = MonosemanticityScore()(seen(torch.eye(50), reference_features=JUDGED))[
        "monosemanticity_score"
    ]
    assert not score.valid.any() and score.mean == 0


def test_chunks_change_nothing(monkeypatch):
    whole = [metric(seen(FEATURES, reference_features=JUDGED, factors=FACTORS)) for metric in ALL]
    monkeypatch.setattr(metrics, "CHUNK", 24)
    for before, after in zip(
        whole,
        [metric(seen(FEATURES, reference_features=JUDGED, factors=FACTORS)) for metric in ALL],
        strict=True,
    ):
        for name, value in before.items():
            pair = [
                each.values if isinstance(each, PerDimension) else torch.tensor(each)
                for each in (value, after[name])
            ]
            assert_close(*pair, rtol=1e-6, atol=1e-7)


def test_precision_and_mean_average_precision_equal_scikit_learn_s():
    signed = torch.randn(
        50, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(6)
    )  # rows of few active dimensions tie
    rows = F.normalize(signed, dim=1)
    precision, averages = [], []
    for query in range(50):
        others = [i for i in range(50) if i != query]
        distance = np.array([float((rows[query] - rows[i]).square().sum()) for i in others])
        right = np.array([bool(LABELS[i] == LABELS[query]) for i in others])
        precision.append(right[np.argsort(distance)[:10]].mean())
        averages.append(average_precision_score(right, -distance))
    found = RetrievalPrecision()(seen(signed))
    assert found["precision_at_10"] == pytest.approx(np.mean(precision), abs=1e-6)
    assert found["mean_average_precision"] == pytest.approx(np.mean(averages), abs=1e-6)
    assert set(RetrievalPrecision(k=3)(seen(FEATURES))) == {
        "precision_at_3",
        "mean_average_precision",
    }


# ------------------------------------------------------------------------------------------------ the space


def test_sparsity_counts_and_hoyer_is_between_one_dimension_and_all_alike():
    found = Sparsity()(seen(FEATURES))
    assert found["sparsity"] == pytest.approx((FEATURES == 0).double().mean().item())
    assert found["l0"] == pytest.approx((FEATURES != 0).sum(1).double().mean().item())
    assert found["activity"].values[0].item() == pytest.approx(
        (FEATURES[:, 0] != 0).double().mean().item()
    )
    expected = [(3 - row.abs().sum() / row.norm()) / 2 for row in FEATURES if row.any()]
    assert found["hoyer"] == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)
    assert Sparsity()(seen(torch.eye(6)))["hoyer"] == 1 and Sparsity()(seen(torch.ones(6, 4)))[
        "hoyer"
    ] == pytest.approx(0, abs=1e-6)


def test_dead_and_constant_dimensions_are_counted():
    features = torch.stack([torch.zeros(50), torch.ones(50), FEATURES[:, 0], -torch.ones(50)], 1)
    assert Dimensions()(seen(features)) == {
        "live_dimensions": 3,
        "dead_dimensions": 1,
        "constant_dimensions": 2,
    }


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)], ids=["tall", "wide"])
def test_the_spectral_entropy_is_that_of_the_singular_values(shape):
    features = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    share = torch.linalg.svdvals(features.double())
    share = share / share.sum()
    assert_close(
        metrics.spectral_entropy(features),
        -(share * (share + 1e-6).log()).sum(),
        rtol=1e-9,
        atol=1e-9,
    )


# ------------------------------------------------------------------------------------------------ the truth


def test_bins_keep_equal_values_together_and_cut_different_ones_evenly():
    column = torch.tensor([0.0, 0, 0, 0, 0, 0, 5, 1, 3, 2])[:, None]
    assert metrics.binned(column, 5).flatten().tolist() == [0, 0, 0, 0, 0, 0, 4, 1, 3, 2]
    assert metrics.binned(column, 2).flatten().tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 1, 0]
    assert metrics.binned(torch.ones(5, 2), 20).unique().tolist() == [0]
    many = (
        metrics.binned(
            torch.randn(1000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
            20,
        )
        .flatten()
        .bincount()
    )
    assert len(many) == 20 and many.min() == many.max() == 50


def test_mutual_information_equals_scikit_learn_s_less_the_correction_for_chance():
    codes = metrics.binned(FEATURES, 6)
    found = metrics.mutual_information(codes, FACTORS["hue"])
    for d in range(9):
        cells = len({*zip(codes[:, d].tolist(), FACTORS["hue"].tolist(), strict=True)})
        chance = (cells - len(codes[:, d].unique()) - 3 + 1) / 100
        expected = max(mutual_info_score(codes[:, d], FACTORS["hue"]) - chance, 0)
        assert found[d].item() == pytest.approx(expected, abs=1e-9)


def test_the_correction_leaves_nothing_of_what_is_chance_and_all_of_what_is_not():
    draw = torch.Generator().manual_seed(0)
    noise, factor = (
        torch.randn(2000, 40, generator=draw),
        torch.randint(0, 10, (2000,), generator=draw),
    )
    codes = metrics.binned(noise, 20)
    assert metrics.mutual_information(codes, factor).mean() < 0.006
    assert metrics.mutual_information(factor[:, None], factor).item() == pytest.approx(
        math.log(10), abs=0.01
    )


def test_factors_tell_a_monosemantic_dimension_from_one_of_two_and_from_noise():
    draw = torch.Generator().manual_seed(1)
    hue, size = (
        torch.randint(0, 4, (2000,), generator=draw),
        torch.randint(0, 2, (2000,), generator=draw),
    )
    noise = torch.randn(2000, generator=draw)
    features = torch.stack(
        [
            hue.float(),
            size + 0.0 * noise,
            hue + 10.0 * size,
            noise,
            torch.ones(2000),
            torch.zeros(2000),
        ],
        1,
    )
    found = FactorInformation()(
        seen(features, torch.zeros(2000, dtype=torch.long), factors={"hue": hue, "size": size})
    )
    assert found["factor_gap"].values[:2].tolist() == pytest.approx([1, 1], abs=0.01)
    assert found["factor_share"].values[:2].tolist() == pytest.approx([1, 1], abs=0.01)
    assert found["factor_gap"].values[2:4].tolist() == pytest.approx([0, 0], abs=0.02)
    assert found["factor_share"].values[2].item() == pytest.approx(0.5, abs=0.01)
    assert found["information_of_size"].values[:3].tolist() == pytest.approx([0, 1, 1], abs=0.01)
    assert found["factor_gap"].valid.tolist() == [True, True, True, True, False, False]
    assert found["factor_share"].valid.tolist() == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]  # of noise the largest share means nothing
    assert FactorInformation()(seen(features, torch.zeros(2000, dtype=torch.long))) == {}


def test_a_detector_of_one_level_is_as_monosemantic_as_a_dimension_that_tells_all_levels():
    draw = torch.Generator().manual_seed(2)
    hue, size = (
        torch.randint(0, 10, (4000,), generator=draw),
        torch.randint(0, 2, (4000,), generator=draw),
    )
    features = torch.stack(
        [(hue == 3).float(), hue.float(), ((hue == 3) | (hue == 4)) + 3.0 * size], 1
    )
    found = FactorInformation()(
        seen(features, torch.zeros(4000, dtype=torch.long), factors={"hue": hue, "size": size})
    )
    assert (
        found["factor_gap"].values[:2].tolist() == pytest.approx([1, 1], abs=0.01)
        and found["factor_gap"].values[2] < 0.6
    )


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5, 1e-7])
def test_the_monosemanticity_score_is_exact_where_one_image_outweighs_all_others(epsilon):
    weights = torch.tensor([1.0, epsilon, epsilon, 0.0])[:, None]
    reference_features = torch.randn(4, 5, generator=torch.Generator().manual_seed(7))
    cosines = torch.nn.functional.normalize(reference_features.double(), dim=1)
    cosines = cosines @ cosines.T
    a = weights.double().flatten()
    autocast_dtype = torch.outer(a, a).fill_diagonal_(0)
    score, _ = metrics.pair_similarity(reference_features, weights)
    assert score.item() == pytest.approx(
        float((autocast_dtype * cosines).sum() / autocast_dtype.sum()), abs=1e-6
    )


def test_neighbours_of_a_sorted_split_that_all_tie_are_at_chance():
    labels = torch.arange(5).repeat_interleave(40)
    found = RetrievalPrecision()(seen(torch.ones(200, 3), labels))
    assert found["mean_average_precision"] == pytest.approx(0.2, abs=0.04) and found[
        "precision_at_10"
    ] == pytest.approx(0.2, abs=0.15)
    assert RetrievalPrecision()(seen(torch.ones(1, 3), labels[:1]))["precision_at_10"] == 0


# ------------------------------------------------------------------------------------------------ the reference


@pytest.mark.parametrize("case", ["stats_on_normalised", "stats_on_signed", "stats"])
def test_statistics_equal_the_reference(golden, case):
    g = golden("d_stats")
    features = g["signed_features" if case == "stats_on_signed" else "features"]
    if case == "stats_on_normalised":
        features = F.normalize(features, dim=1)
    expected = dict(zip(g["stat_names"].tolist(), g[case].tolist(), strict=True))
    measures = (ClassConsistency(), Sparsity(), Dimensions(), EffectiveRank(), Orthogonality())
    ours = {
        name: value
        for measure in measures
        for name, value in measure(seen(features, g["labels"])).items()
    }
    close = {"rel": 1e-5}
    assert ours["live_dimensions"] == expected["num_active_dim"]
    assert ours["sparsity"] == pytest.approx(expected["sparse_vals_ratio"], abs=1e-6)
    assert ours["spectral_entropy"] == pytest.approx(expected["effective_rank"], **close)
    assert ours["effective_rank"] == pytest.approx(math.exp(expected["effective_rank"]), **close)
    assert ours["class_consistency"].mean == pytest.approx(
        expected["semantic_consistency"], **close
    )
    assert ours["correlation"] == pytest.approx(expected["orthogonality"], **close)


@pytest.mark.parametrize(("suffix", "epsilon"), [("", 0.1), ("_eps1e5", 1e-5)])
def test_cluster_accuracy_equals_the_reference_metric(golden, suffix, epsilon):
    g = golden("d_stats")
    counts = metrics.class_counts(g["features"], g["labels"], epsilon)
    active = counts.sum(0) > 0
    ours = 100 * metrics.class_consistency(counts)[active]
    assert_close(ours.float(), g[f"metric_cluster_acc_per_dim{suffix}"], rtol=1e-5, atol=1e-5)
    entropy = metrics.class_entropy(counts, epsilon)[active]
    assert_close(entropy.float(), g[f"metric_cluster_ent_per_dim{suffix}"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tag", ["signed", "relu"])
def test_the_ncl_code_s_evaluation_is_equalled(golden, tag):
    g = golden("g_main_eval")
    features, labels = g[f"{tag}_features"], g["labels"]
    kept = features.relu().sum(0) > 0
    counts = metrics.class_counts(features, labels, 1e-5)
    consistency = 100 * metrics.class_consistency(counts)[kept]
    assert_close(
        consistency.float(), g[f"{tag}_class_consistency_pct_per_dim"], rtol=1e-5, atol=1e-5
    )
    assert_close(
        metrics.class_entropy(counts, 1e-5)[kept].float(),
        g[f"{tag}_entropy_per_dim"],
        rtol=1e-5,
        atol=1e-5,
    )
    error = metrics.correlation_error(features[:, features.sum(0) > 10])
    assert_close(error.median().item(), float(g[f"{tag}_orth_median_err"]), rtol=1e-5, atol=1e-6)
    share = [
        100 * Sparsity(epsilon=1e-2)(seen(row[None], labels[:1]))["sparsity"] for row in features
    ]
    assert_close(
        torch.tensor(share),
        g[f"{tag}_sparsity_per_sample_pct"].double(),
        rtol=1e-5,
        atol=1e-5,
        check_dtype=False,
    )


@pytest.mark.parametrize("tag", ["signed", "relu"])
def test_retrieval_precision_equals_the_ncl_code(golden, tag):
    g = golden("g_main_eval")
    rows = torch.nn.functional.normalize(g[f"{tag}_features"], dim=1)
    order = by_activity(g[f"{tag}_features"])
    for count, expected in zip(
        g["precision_ks"].tolist()[1:], g[f"{tag}_precision_at_10"].tolist()[1:], strict=True
    ):
        assert precision_at(rows[:, order[:count]], g["labels"], 10, chunk=70) == pytest.approx(
            expected, rel=1e-6
        )


# ------------------------------------------------------------------------------------------------ the odd


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: type(metric).__name__)
@pytest.mark.parametrize(
    "features",
    [
        torch.zeros(6, 3),
        torch.ones(6, 3),
        torch.eye(6)[:, :1],
        -torch.eye(6),
        1e-30 * torch.eye(6),
        1e15 * torch.eye(6),
    ],
    ids=["zeros", "ones", "one", "minus", "tiny", "huge"],
)
def test_dead_constant_and_negative_features_are_never_nan(metric, features):
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    values = metric(seen(features, labels, factors={"hue": labels}))
    assert values
    for value in values.values():
        assert math.isfinite(value.mean if isinstance(value, PerDimension) else value)
        assert not isinstance(value, PerDimension) or (
            value.values.isfinite().all() and not value.values[~value.valid].any()
        )


def test_one_class_and_one_level_are_nothing_to_stumble_over():
    labels = torch.zeros(50, dtype=torch.long)
    for metric in ALL:
        for value in metric(seen(FEATURES, labels, factors={"hue": labels})).values():
            assert math.isfinite(value.mean if isinstance(value, PerDimension) else value)


def test_signed_features_are_active_nearly_everywhere_and_not_consistent():
    dense = torch.randn(50, 9, generator=torch.Generator().manual_seed(3))
    largest = LABELS.bincount().max().item() / 50
    assert ClassConsistency()(seen(dense))["class_consistency"].mean == pytest.approx(largest)
    found = Sparsity()(seen(dense))
    assert found["sparsity"] == 0 and found["l0"] == 9


def test_which_way_is_monosemantic_is_said_of_measures_of_dimensions_alone():
    for metric in ALL:
        found = metric(seen(FEATURES, reference_features=JUDGED, factors=FACTORS))
        assert all(
            isinstance(found[name], PerDimension) and word in ("high", "low")
            for name, word in metric.better.items()
        )
