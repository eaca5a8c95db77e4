"""Curves and experiments: the same noise for every encoder, no encoder pass too many, the table as
it should be."""

from __future__ import annotations

import itertools

import pytest
import torch
from conftest import tiny_pretrain
from torch.testing import assert_close

from monosem.core.fields import FieldError
from monosem.core.stage import StageError, key
from monosem.core.store import Store
from monosem.corruptions.few_shot import FewShot
from monosem.corruptions.input_noise import GaussianNoise, UniformNoise
from monosem.corruptions.label_noise import LabelNoise, PairFlip
from monosem.datasets.digits import Digits
from monosem.datasets.shapes import Shapes
from monosem.evaluation.experiment import Experiment
from monosem.evaluation.monosemanticity import Monosemanticity
from monosem.learning.objectives import Contrastive
from monosem.learning.optimizers import SGD, Constant
from monosem.metrics import ALL_METRICS
from monosem.metrics.base import Declaration, FeatureBatch, Metric, as_number, from_artifact
from monosem.metrics.classes import ClassConsistency
from monosem.metrics.space import Dimensions
from monosem.models import features
from monosem.models.baselines import Pixels
from monosem.models.features import Features, encode
from monosem.models.representation import Embedding, Representation
from monosem.probes.batched_probes import topk_accuracy
from monosem.probes.linear import LinearProbe
from monosem.results.rows import FIGURES
from monosem.robustness.curves import Curve
from monosem.running.gallery import figures_of

DATA = Digits(size=8)
PRETRAIN = tiny_pretrain(epochs=1)


def a_curve(corruption, severities, **fields):
    usual = {
        "encoder": Embedding(PRETRAIN),
        "data": DATA,
        "probe": LinearProbe(SGD(lr=1.0), Constant(), epochs=2),
        "repeats": 2,
    }
    return Curve(corruption=corruption, severities=severities, **{**usual, **fields})


def an_experiment(**fields):
    """An experiment of one clean curve."""
    curve = a_curve(LabelNoise(), (0.0,), name="a")
    usual = {"name": "x", "curves": (curve,), "metrics": (Dimensions(),)}
    return Experiment(**{**usual, **fields})


def monosemanticity_of(**fields):
    """The stage of an experiment of one curve."""
    (stage,) = an_experiment(**fields).monosemanticity
    return stage


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def passed(monkeypatch):
    """How many images went through each encoder since the test began."""
    counts: list[int] = []
    network = Embedding.network

    def counting_network(self, get):
        module = network(self, get)
        module.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
        return module

    monkeypatch.setattr(Embedding, "network", counting_network)
    return counts


# How often an encoder is passed


@pytest.mark.parametrize(
    ("corruption", "severities", "passes"),
    [
        (LabelNoise(), (0.0, 0.3, 0.6), 0),
        (FewShot(), (1, 5), 0),
        (GaussianNoise(), (0.0, 0.5, 1.0), 2 * 2 * 360),
        (UniformNoise("pixel"), (0.1,), 1 * 2 * 360),
    ],
    ids=["label noise", "few shots", "gaussian noise", "uniform noise"],
)
def test_every_image_passes_once_a_split_and_once_a_severity_and_repeat_that_changes_it(
    tmp_path, passed, corruption, severities, passes
):
    store, curve = Store(tmp_path), a_curve(corruption, severities)
    artifact = store.get(curve)
    assert sum(passed) == 1437 + 360 + passes
    assert int(artifact["passes"]) == passes
    splits = [stage for stage in curve.upstream() if isinstance(stage, Features)]
    assert sum(int(store.get(split)["passes"]) for split in splits) == 1437 + 360
    assert store.history(curve)[-1].scalars == {"encoder_passes": passes}


def test_a_curve_that_leaves_images_alone_needs_no_encoder_once_the_features_are_there():
    upstream = a_curve(LabelNoise(), (0.1,)).upstream()
    assert {type(stage) for stage in upstream} == {Features}
    upstream = a_curve(GaussianNoise(), (0.1,)).upstream()
    assert {type(stage) for stage in upstream} == {Features, type(PRETRAIN)}


# Which labels were wrong


def test_the_labels_that_probes_saw_are_kept_as_a_rate_a_confusion_and_a_digest(store):
    curve = a_curve(LabelNoise(), (0.0, 0.3))
    artifact = store.get(curve)
    assert artifact["wrong_labels"][0].tolist() == [0, 0]
    assert_close(artifact["wrong_labels"][1], torch.full((2,), 100 * 431 / 1437).double())
    assert artifact["confusion"].shape == (2, 2, 10, 10)
    assert artifact["confusion"].sum((2, 3)).tolist() == [[1437] * 2] * 2
    kept_right = artifact["confusion"][1, 0].diagonal().sum()
    assert kept_right == 1437 - 431
    clean, noisy = artifact["label_digest"].tolist()
    assert clean[0] == clean[1] and noisy[0] != noisy[1] != clean[0]
    rows = [result for result in curve.results(artifact) if result.metric == "wrong_labels"]
    assert [round(row.value) for row in rows] == [0, 0, 30, 30]


def test_the_summary_of_a_run_says_which_labels_were_wrong(store):
    curve = a_curve(PairFlip(), (0.0, 0.3))
    rates, often = curve.remarks(store.get(curve))
    assert rates.startswith("wrong labels in percent: 0 at 0, 29.99 at 0.3; digest of all labels ")
    first, others = often.split(": ")
    assert first == "most often wrong at 0.3" and len(others.split(", ")) == 3
    for pair in others.split(", "):
        _, true, _, wrong, share, _ = pair.split()
        assert int(wrong) == (int(true) + 1) % 10 and 25 < float(share[1:]) < 40


def test_two_encoders_saw_the_same_labels_by_their_digests(store):
    one = store.get(a_curve(PairFlip(), (0.3,)))
    other = store.get(a_curve(PairFlip(), (0.3,), encoder=PRETRAIN))
    assert torch.equal(one["label_digest"], other["label_digest"])


def test_a_curve_of_true_labels_keeps_none_of_this(store):
    curve = a_curve(FewShot(), (5,))
    assert not {"wrong_labels", "confusion", "label_digest"} & {*curve.metrics, *store.get(curve)}


# Paired noise


def test_every_encoder_meets_the_same_noise_whatever_the_severity():
    other_encoder = Embedding(tiny_pretrain(objective=Contrastive()))
    one = a_curve(LabelNoise(), (0.1, 0.2)).task
    other = a_curve(LabelNoise(), (0.2, 0.9), encoder=other_encoder, repeats=1).task
    assert torch.equal(one.probe_spec(0.2, 0).labels, other.probe_spec(0.2, 0).labels)
    assert one.probe_spec(0.2, 0).seed == other.probe_spec(0.2, 0).seed
    assert not torch.equal(one.probe_spec(0.2, 0).labels, one.probe_spec(0.2, 1).labels)
    first, second = (
        torch.randn(3, generator=task.corruption.draw(1, task.data)) for task in (one, other)
    )
    assert torch.equal(first, second)


def test_more_repeats_and_severities_leave_the_others_as_they_were(store):
    few = store.get(a_curve(GaussianNoise(), (0.0, 0.5)))
    more = store.get(a_curve(GaussianNoise(), (0.0, 0.5, 1.0), repeats=3))
    assert torch.equal(few["top1"], more["top1"][:2, :2])


def test_severity_zero_is_the_clean_accuracy_in_every_curve(store):
    label, gaussian, uniform = (
        store.get(a_curve(corruption, (0.0,)))["top1"]
        for corruption in (LabelNoise(), GaussianNoise(), UniformNoise())
    )
    assert torch.equal(label, gaussian)
    assert torch.equal(label, uniform)


# Accuracy


def test_accuracy_equals_probes_fitted_and_tested_one_by_one(store):
    curve = a_curve(GaussianNoise(), (0.0, 0.7))
    train = store.get(Features(curve.encoder, DATA, "train"))["features"]
    images, labels, _ = DATA.load("test")
    network = curve.encoder.network(store.get)

    def noisy_accuracy(severity, repeat):
        probe = curve.probe.fit(train, 10, [curve.task.probe_spec(severity, repeat)])
        noise = curve.corruption.draw(repeat, curve.data)

        def corrupt(inputs):
            return inputs + severity * torch.randn(inputs.shape, generator=noise)

        logits = probe.logits(encode(network, DATA, images, corrupt), 0)
        return topk_accuracy(logits, labels, 1)

    for row, severity in enumerate(curve.severities):
        for repeat in range(2):
            accuracy = store.get(curve)["top1"][row, repeat].item()
            expected = noisy_accuracy(severity, repeat)
            assert accuracy == pytest.approx(expected, abs=0.3)  # one image of 360


def test_features_do_not_depend_on_how_images_are_cut_into_chunks(store, monkeypatch):
    network, images = Embedding(PRETRAIN).network(store.get), DATA.load("train").inputs
    whole = encode(network, DATA, images)
    monkeypatch.setattr(features, "CHUNK", 100)
    assert_close(encode(network, DATA, images), whole, rtol=1e-4, atol=1e-6)


def test_a_new_representation_needs_width_and_network_only(store):
    class Raw(Representation):
        width = 64

        def network(self, get):
            return torch.nn.Flatten()

    artifact = store.get(a_curve(LabelNoise(), (0.0,), encoder=Raw()))
    assert artifact["top1"].mean() > 80


# The table


def test_there_is_a_result_for_every_metric_severity_and_repeat(store):
    curve = a_curve(LabelNoise(), (0.0, 0.5))
    results = list(curve.results(store.get(curve)))
    cells = [(result.metric, result.severity, result.repeat) for result in results]
    assert cells == list(itertools.product(curve.metrics, (0.0, 0.5), (0, 1)))
    assert {result.n for result in results} == {360}
    assert all(0 <= result.value <= 100 for result in results)


def test_the_rows_of_an_experiment_are_the_results_of_its_measurements(store):
    experiment = an_experiment()
    curve, monosemanticity = experiment.measurements
    results = [
        *((curve, result) for result in curve.results(store.get(curve))),
        *(
            (monosemanticity, result)
            for result in monosemanticity.results(store.get(monosemanticity))
        ),
    ]
    swept = (("TopK.k", "4"),)
    assert experiment.rows(store.get, swept) == [
        ("x", stage.name, *result[:5], stage.axis, "", "images", swept) for stage, result in results
    ]


# Monosemanticity


def test_monosemanticity_is_what_the_metrics_find_in_the_features(store):
    metrics = (ClassConsistency(), Dimensions())
    stage = monosemanticity_of(metrics=metrics)
    own = store.get(stage.upstream()[0])["features"]
    batch = FeatureBatch(own, DATA.load("test").labels, own)
    expected = ClassConsistency()(batch) | Dimensions()(batch)
    numbers = {result.metric: result.value for result in stage.results(store.get(stage))}
    assert numbers == {name: as_number(result) for name, result in expected.items()}
    assert set(numbers) == set(stage.names())


def test_what_is_found_dimension_by_dimension_is_kept(store):
    stage = monosemanticity_of(metrics=(ClassConsistency(),))
    own = store.get(stage.upstream()[0])["features"]
    batch = FeatureBatch(own, DATA.load("test").labels, own)
    expected = ClassConsistency()(batch)["class_consistency"]
    result = from_artifact(store.get(stage))["class_consistency"]
    assert torch.equal(result.values, expected.values)
    assert torch.equal(result.valid, expected.valid)


def test_every_representation_of_an_experiment_is_measured():
    one = a_curve(LabelNoise(), (0.0,), name="a")
    other = a_curve(LabelNoise(), (0.0,), name="b", encoder=PRETRAIN)
    stages = an_experiment(curves=(one, other)).monosemanticity
    assert [stage.name for stage in stages] == ["monosemanticity/a", "monosemanticity/b"]
    assert [stage.encoder for stage in stages] == [one.encoder, other.encoder]


def test_where_there_is_one_representation_its_name_is_not_said():
    (alone,) = an_experiment().monosemanticity
    assert alone.name == "monosemanticity"
    other = a_curve(LabelNoise(), (0.0,), name="b", encoder=PRETRAIN)
    (named, _) = an_experiment(curves=(*an_experiment().curves, other)).monosemanticity
    assert key(alone) == key(named)


def test_without_metrics_all_are_taken():
    experiment = Experiment(name="x", curves=an_experiment().curves)
    assert experiment.metrics == ALL_METRICS
    (stage,) = experiment.monosemanticity
    assert {"class_consistency", "fms", "effective_rank"} <= set(stage.names())
    assert not [name for name in stage.names() if "factor" in name]  # digits have none


def test_results_say_which_end_is_monosemantic_and_what_they_are():
    stage = monosemanticity_of(metrics=(ClassConsistency(), Dimensions()))
    assert stage.better == {"class_consistency": "high", "class_entropy": "low"}
    assert set(stage.about) == set(stage.names())
    assert all(stage.about.values())


# Refusals


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "../x"}, "Experiment.name must be a folder's name"),
        ({"name": ""}, "Experiment.name must be a folder's name"),
        ({"curves": ()}, "Experiment.curves must hold at least one curve"),
        (
            {"curves": (a_curve(LabelNoise(), (0.0,), name="a"),) * 2},
            "Experiment.curves must have different names, got a, a",
        ),
        (
            {"curves": a_curve(LabelNoise(), (0.0,), name="a")},
            r"Experiment.curves must be a tuple such as \(a, b\), got Curve\(\)",
        ),
    ],
)
def test_impossible_experiments_are_refused(fields, message):
    with pytest.raises(FieldError, match=message):
        an_experiment(**fields)


@pytest.mark.parametrize("name", ["gallery", "space-x", "curves", "claim", "histograms"])
def test_a_curve_that_is_called_as_another_figure_is_refused(name):
    with pytest.raises(FieldError, match="Curve.name must not be that of another figure"):
        a_curve(LabelNoise(), (0.0,), name=name)
    assert {*figures_of(Digits()), "curves"} <= {*FIGURES}


def test_what_metrics_cannot_declare_is_refused_before_any_work():
    class Nameless(Metric):
        def __call__(self, batch):
            return {"x": 1.0}

    message = "Experiment.metrics must declare what they find, but Nameless failed"
    with pytest.raises(FieldError, match=message):
        monosemanticity_of(metrics=(Nameless(),)).preflight()


def test_a_metric_that_raises_is_told_in_one_line(store):
    class Broken(Metric):
        def declares(self, factors=()):
            return (Declaration("x"),)

        def __call__(self, batch):
            return {"x": float(batch.features[0, 10**6])}

    message = (
        "Experiment.metrics must measure 360 x 16 features, but Broken failed: IndexError: [^\n]*$"
    )
    with pytest.raises(StageError, match=message):
        store.get(monosemanticity_of(metrics=(Broken(),)))


def test_a_reference_encoder_of_other_images_is_refused():
    stage = monosemanticity_of(reference_encoder=Pixels(Shapes()))
    assert isinstance(stage, Monosemanticity)
    message = "Experiment.reference_encoder must take the inputs of the data, which"
    with pytest.raises(FieldError, match=message):
        stage.preflight()
