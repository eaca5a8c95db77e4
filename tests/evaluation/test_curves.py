"""Laws of the evaluation: the same noise for every encoder, no encoder pass too many, the table as it should be."""

from __future__ import annotations

import pytest
import torch
from conftest import tiny_pretrain
from torch.testing import assert_close

from monosem.core.fields import FieldError
from monosem.core.stage import StageError, key
from monosem.core.store import Store
from monosem.data.digits import Digits
from monosem.data.shapes import Shapes
from monosem.evaluation.batched_probes import topk_accuracy
from monosem.evaluation.corruptions import FewShot, GaussianNoise, LabelNoise, UniformNoise
from monosem.evaluation.curves import Curve
from monosem.evaluation.experiment import Experiment
from monosem.evaluation.monosemanticity import Monosemanticity
from monosem.evaluation.probes import LinearProbe
from monosem.learning.objectives import Contrastive
from monosem.learning.optimizers import SGD, Constant
from monosem.metrics.base import Declaration, FeatureBatch, Metric, PerDimension
from monosem.metrics.classes import ClassConsistency
from monosem.metrics.space import Dimensions
from monosem.models import features
from monosem.models.baselines import Pixels
from monosem.models.features import Features, encode
from monosem.models.representation import Embedding, Representation

DATA = Digits(size=8)
PRETRAIN = tiny_pretrain(epochs=1)


def curve(corruption, severities, **fields):
    standard = {
        "encoder": Embedding(PRETRAIN),
        "data": DATA,
        "probe": LinearProbe(SGD(lr=1.0), Constant(), epochs=2),
        "repeats": 2,
    }
    return Curve(**{**standard, **fields, "corruption": corruption, "severities": severities})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def passed(monkeypatch):
    """How many images went through each encoder since the test began."""
    counts: list[int] = []
    network = Embedding.network

    def counted(self, get):
        module = network(self, get)
        module.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
        return module

    monkeypatch.setattr(Embedding, "network", counted)
    return counts


@pytest.mark.parametrize(
    ("corruption", "severities", "passes"),
    [
        (LabelNoise(), (0.0, 0.3, 0.6), 0),
        (FewShot(), (1, 5), 0),
        (GaussianNoise(), (0.0, 0.5, 1.0), 2 * 2 * 360),
        (UniformNoise("pixel"), (0.1,), 1 * 2 * 360),
    ],
    ids=lambda x: type(x).__name__,
)
def test_every_image_passes_once_a_split_and_once_a_severity_and_repeat_that_changes_it(
    tmp_path, passed, corruption, severities, passes
):
    store, stage = Store(tmp_path), curve(corruption, severities)
    artifact = store.get(stage)
    assert sum(passed) == 1437 + 360 + passes
    assert int(artifact["passes"]) == passes
    assert (
        sum(
            int(store.get(split)["passes"])
            for split in stage.upstream()
            if isinstance(split, Features)
        )
        == 1437 + 360
    )
    assert store.history(stage)[-1].scalars == {"encoder_passes": passes}


def test_a_curve_that_leaves_images_alone_needs_no_encoder_once_the_features_are_there():
    assert {type(s) for s in curve(LabelNoise(), (0.1,)).upstream()} == {Features}
    assert {type(s) for s in curve(GaussianNoise(), (0.1,)).upstream()} == {
        Features,
        type(PRETRAIN),
    }


def test_every_encoder_meets_the_same_noise_whatever_the_severity():
    one = curve(LabelNoise(), (0.1, 0.2))
    two = curve(
        LabelNoise(),
        (0.2, 0.9),
        encoder=Embedding(tiny_pretrain(objective=Contrastive())),
        repeats=1,
    )
    assert torch.equal(one.task.probe(0.2, 0).labels, two.task.probe(0.2, 0).labels)
    assert one.task.probe(0.2, 0).seed == two.task.probe(0.2, 0).seed
    assert not torch.equal(one.task.probe(0.2, 0).labels, one.task.probe(0.2, 1).labels)
    first, second = (torch.randn(3, generator=each.task.draw(1)) for each in (one, two))
    assert torch.equal(first, second)


def test_more_repeats_and_severities_leave_the_others_as_they_were(store):
    few, more = (
        curve(GaussianNoise(), (0.0, 0.5)),
        curve(GaussianNoise(), (0.0, 0.5, 1.0), repeats=3),
    )
    assert torch.equal(store.get(few)["top1"], store.get(more)["top1"][:2, :2])


def test_severity_zero_is_the_clean_accuracy_in_every_curve(store):
    clean = [
        store.get(curve(c, (0.0,)))["top1"] for c in (LabelNoise(), GaussianNoise(), UniformNoise())
    ]
    assert torch.equal(clean[0], clean[1]) and torch.equal(clean[0], clean[2])


def test_accuracy_equals_heads_fitted_and_tested_one_by_one(store):
    stage = curve(GaussianNoise(), (0.0, 0.7))
    features = store.get(stage.upstream()[-2])["features"]
    images, truth, _ = DATA.load("test")
    network = stage.encoder.network(store.get)
    for i, severity in enumerate(stage.severities):
        for repeat in range(2):
            bank = stage.probe.fit(features, 10, [stage.task.probe(severity, repeat)])
            noise = stage.task.draw(repeat)
            noisy = encode(
                network,
                DATA,
                images,
                lambda x, s=severity, g=noise: x + s * torch.randn(x.shape, generator=g),
            )
            expected = topk_accuracy(bank.logits(noisy, 0), truth, 1)
            assert store.get(stage)["top1"][i, repeat].item() == pytest.approx(
                expected, abs=0.3
            )  # one image of 360


def test_features_do_not_depend_on_how_images_are_cut_into_chunks(store, monkeypatch):
    network, images = Embedding(PRETRAIN).network(store.get), DATA.load("train").inputs
    whole = encode(network, DATA, images)
    monkeypatch.setattr(features, "CHUNK", 100)
    assert_close(encode(network, DATA, images), whole, rtol=1e-4, atol=1e-6)


def test_results_are_tidy_rows(store):
    stage = curve(LabelNoise(), (0.0, 0.5))
    rows = list(stage.results(store.get(stage)))
    assert len(rows) == 2 * 2 * 2 and {row.n for row in rows} == {360}
    assert {(row.severity, row.repeat, row.metric) for row in rows} == {
        (s, r, m) for s in (0.0, 0.5) for r in (0, 1) for m in ("top1", "top5")
    }
    assert all(0 <= row.value <= 100 for row in rows)


def test_monosemanticity_is_measured_for_every_representation_of_an_experiment(store):
    metrics = (ClassConsistency(), Dimensions())
    one, two = (
        curve(LabelNoise(), (0.0,), name="a"),
        curve(LabelNoise(), (0.0,), name="b", encoder=PRETRAIN),
    )
    experiment = Experiment(name="x", curves=(one, two), metrics=metrics)
    assert [m.name for m in experiment.monosemanticity] == ["monosemanticity/a", "monosemanticity/b"]
    (measure,) = Experiment(name="x", curves=(one,), metrics=metrics).monosemanticity
    assert isinstance(measure, Monosemanticity) and measure.name == "monosemanticity"
    results = {row.metric: row.value for row in measure.results(store.get(measure))}
    features, labels = store.get(measure.upstream()[0])["features"], DATA.load("test").labels
    found = {
        name: value
        for metric in metrics
        for name, value in metric(FeatureBatch(features, labels, features)).items()
    }
    assert results == {
        name: value.mean if isinstance(value, PerDimension) else value
        for name, value in found.items()
    }
    artifact = store.get(measure)
    assert torch.equal(artifact["class_consistency/dimensions"], found["class_consistency"].values)
    assert artifact["class_consistency/valid"].dtype == torch.bool
    assert key(measure) == key(experiment.monosemanticity[0])


def test_a_new_representation_needs_width_and_network_only(store):
    class Pixels(Representation):
        width = 64

        def network(self, get):
            return torch.nn.Flatten()

    artifact = store.get(curve(LabelNoise(), (0.0,), encoder=Pixels()))
    assert artifact["top1"].mean() > 80


def test_impossible_experiments_are_refused():
    one = curve(LabelNoise(), (0.0,), name="a")
    for fields, words in (
        ({"name": "../x"}, "Experiment.name must be a folder's name"),
        ({"name": ""}, "Experiment.name must be a folder's name"),
        ({"curves": ()}, "Experiment.curves must hold at least one curve"),
        ({"metrics": ()}, "Experiment.metrics must hold at least one metric"),
        ({"curves": (one, one)}, "Experiment.curves must have different names, got a, a"),
        ({"curves": one}, r"Experiment.curves must be a tuple such as \(a, b\), got Curve\(\)"),
    ):
        with pytest.raises(FieldError, match=words):
            Experiment(**{"name": "x", "curves": (one,), "metrics": (Dimensions(),), **fields})


def test_what_metrics_cannot_declare_is_refused_before_any_work():
    class Nameless(Metric):
        def __call__(self, batch):
            return {"x": 1.0}

    (measure,) = Experiment(
        name="x", curves=(curve(LabelNoise(), (0.0,), name="a"),), metrics=(Nameless(),)
    ).monosemanticity
    with pytest.raises(
        FieldError, match="Experiment.metrics must declare what they find, but Nameless failed"
    ):
        measure.preflight()


def test_a_metric_that_raises_is_told_in_one_line(store):
    class Broken(Metric):
        def declares(self, factors=()):
            return (Declaration("x"),)

        def __call__(self, batch):
            return {"x": float(batch.features[0, 10**6])}

    (measure,) = Experiment(
        name="x", curves=(curve(LabelNoise(), (0.0,), name="a"),), metrics=(Broken(),)
    ).monosemanticity
    with pytest.raises(
        StageError,
        match="Experiment.metrics must measure 360 x 16 features, but Broken failed: IndexError",
    ):
        store.get(measure)


def test_a_judge_of_other_images_is_refused():
    one = curve(LabelNoise(), (0.0,), name="a")
    (measure,) = Experiment(
        name="x", curves=(one,), metrics=(Dimensions(),), reference_encoder=Pixels(Shapes())
    ).monosemanticity
    with pytest.raises(
        FieldError,
        match="Experiment.reference_encoder must take the inputs of the data, which",
    ):
        measure.preflight()
