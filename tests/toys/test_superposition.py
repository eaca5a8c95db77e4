"""The toy model: its data, what it learns in either regime, and where the lines cross."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import ROOT
from torch.testing import assert_close

from monosem.core.fields import FieldError
from monosem.core.stage import key
from monosem.core.store import Store
from monosem.datasets.digits import Digits
from monosem.learning.optimizers import Adam
from monosem.specs.load import load
from monosem.specs.study import read
from monosem.toys.superposition import Superposition, Toys, TwoFeatures, draw_features, orient

SEEDS = range(4)
REGIMES = {"polysemantic": 0.1, "monosemantic": 1.0}


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors are so small here that on a busy machine they only wait for a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One for all tests, which share what it holds."""
    return Store(tmp_path_factory.mktemp("store"))


def toy(density, **fields):
    return Superposition(density=density, optimizer=Adam(lr=0.03), **fields)


def test_the_label_says_whether_the_first_feature_is_the_larger_one():
    images, labels, factors = TwoFeatures(train=20000).split("train")
    x = TwoFeatures().prepare(images)[:, :, 0, 0]
    assert images.shape == (20000, 2, 1, 1) and TwoFeatures().problem() is None
    assert [int(first > second) for first, second in x.tolist()] == labels.tolist()
    assert torch.equal(torch.stack([factors["first"], factors["second"]], 1), (x > 0).long())
    assert_close(labels.double().mean().item(), 0.3 - 0.3**2 / 2, atol=0.01, rtol=0)
    assert_close((x > 0).double().mean(0), torch.full((2,), 0.3).double(), atol=0.01, rtol=0)
    assert_close(x[x > 0].mean().item(), 0.5, atol=0.01, rtol=0)


def test_splits_and_seeds_are_different_draws_and_one_seed_is_always_the_same():
    one, same, other = (
        TwoFeatures(train=1000),
        TwoFeatures(train=1000),
        TwoFeatures(train=1000, seed=1),
    )
    assert torch.equal(one.load("train").inputs, same.load("train").inputs)
    assert not torch.equal(one.load("train").inputs, one.load("test").inputs)
    assert not torch.equal(one.load("train").inputs, other.load("train").inputs)


def test_what_is_on_in_sparse_features_is_on_in_dense_ones_with_the_same_value():
    sparse, dense = (
        draw_features(1000, density, torch.Generator().manual_seed(3)) for density in (0.2, 1.0)
    )
    assert (dense > 0).all() and (dense <= 1).all() and torch.equal(sparse, dense * (sparse > 0))


@pytest.mark.parametrize("density", [0.2, 0.3, 0.46, 0.48, 0.7])
def test_the_polysemantic_feature_is_the_less_correlated_with_the_label_below_a_density_of_0_47(
    density,
):
    x = draw_features(2_000_000, density, torch.Generator().manual_seed(0)).double()
    rows = torch.stack([x[:, 0], x[:, 0] - x[:, 1], (x[:, 0] > x[:, 1]).double()])
    monosemantic, polysemantic, _ = torch.corrcoef(rows)[2].tolist()
    assert (polysemantic < monosemantic) == (density < 0.47)
    if density == 0.3:
        assert (round(monosemantic, 2), round(polysemantic, 2)) == (0.80, 0.70)


def test_the_loss_of_a_toy_is_the_source_s_formula_one_example_at_a_time():
    torch.manual_seed(0)
    toys = Toys(3)
    torch.nn.init.normal_(toys.bias)
    x = draw_features(7, 0.7, torch.Generator().manual_seed(1))
    importance = torch.tensor([1.0, 0.4])
    losses = toys(x, importance)
    for start in range(3):
        weight, bias, total = toys.weight[start], toys.bias[start], 0.0
        for row in x:
            restored = (weight.T @ (weight @ row) + bias).clamp(min=0)
            for feature in range(2):
                total += importance[feature] * (row[feature] - restored[feature]) ** 2
        assert_close(losses[start], total / len(x))


@pytest.mark.parametrize("seed", SEEDS)
def test_sparse_features_end_in_antipodal_superposition(store, seed):
    weight = store.get(toy(REGIMES["polysemantic"], seed=seed))["weight"]
    assert_close(weight, torch.tensor([[1.0, -1.0]]), atol=0.05, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_of_dense_features_the_important_one_is_kept(store, seed):
    weight = store.get(toy(REGIMES["monosemantic"], seed=seed))["weight"]
    assert_close(weight, torch.tensor([[1.0, 0.0]]), atol=0.05, rtol=0)


def test_a_single_start_may_stay_in_a_local_minimum_with_both_weights_positive(store):
    ends = [store.get(toy(0.1, starts=1, seed=seed))["weight"][0, 1].item() for seed in range(6)]
    assert min(ends) < -0.9 and max(ends) > 0.1


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(store, tmp_path):
    one, again = store.get(toy(0.1)), Store(tmp_path).get(toy(0.1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["weight"], store.get(toy(0.1, seed=1))["weight"])
    assert key(toy(0.1)) != key(toy(0.2)) != key(toy(0.2, importance=0.6))


def test_a_toy_that_is_killed_goes_on_with_the_same_bits(store, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    steps = []
    forward = Toys.forward

    def killed_at_step_120(self, x, importance):
        steps.append(x)
        if len(steps) == 120:
            raise Killed
        return forward(self, x, importance)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Toys, "forward", killed_at_step_120)
        Store(tmp_path).get(toy(0.1))
    finished = Store(tmp_path).get(toy(0.1))
    assert all(torch.equal(store.get(toy(0.1))[name], tensor) for name, tensor in finished.items())


def test_the_representation_is_the_hidden_dimension(store):
    stage, data = toy(0.1), TwoFeatures()
    inputs = data.prepare(data.split("test").inputs)
    weight = store.get(stage)["weight"]
    assert stage.width == 1
    assert_close(stage.network(store.get)(inputs), inputs[:, :, 0, 0] @ weight.T)


def test_losses_and_weights_are_logged_at_every_epoch(store):
    stage = toy(0.1)
    store.get(stage)
    for entry in store.history(stage):
        assert set(entry.scalars) == {"lr", "loss", "best_loss", "w1", "w2"}


def test_the_sign_of_a_weight_is_chosen_so_that_the_first_is_positive():
    weight = torch.tensor([[1.0, -0.5]])
    assert torch.equal(orient(-weight), weight) and torch.equal(orient(weight), weight)


def test_inputs_of_another_shape_are_refused():
    assert toy(0.1).incompatibility(TwoFeatures()) is None
    assert toy(0.1).incompatibility(Digits()) == (
        "must have images of 2 channels and one pixel, (2, 1, 1), as TwoFeatures, got (1, 16, 16)"
    )


def test_impossible_fields_are_refused():
    complaint = "Superposition.density must be between 0 and 1, 0 excluded, got 0.0"
    with pytest.raises(FieldError, match=complaint):
        toy(0.0)
    with pytest.raises(FieldError, match="TwoFeatures.mean must hold 2 values, one a feature"):
        TwoFeatures(mean=(0.0,), std=(1.0,))


@pytest.mark.parametrize("name", REGIMES)
def test_each_file_is_its_regime(name):
    experiment = load([f"gin/toy/{name}.gin"]).experiment
    assert experiment.name == name
    assert [curve.name for curve in experiment.curves] == ["label_noise", "gaussian"]
    assert {curve.encoder for curve in experiment.curves} == {toy(REGIMES[name])}
    assert {curve.data for curve in experiment.curves} == {TwoFeatures()}


def test_the_sweep_has_both_regimes_with_the_seeds_of_data_and_toy_together():
    grid = "Sweep.grid = {('TwoFeatures.seed', 'Superposition.seed'): (0, 1)}"
    experiments = [cell.experiment for cell in read(["gin/toy.gin"], [grid]).cells]
    names = [experiment.name for experiment in experiments]
    assert names == ["polysemantic", "polysemantic", "monosemantic", "monosemantic"]
    curves = [experiment.curves[0] for experiment in experiments]
    assert [(curve.encoder.seed, curve.data.seed) for curve in curves] == [(0, 0), (1, 1)] * 2


def test_the_sweep_s_file_says_how_it_is_run():
    text = (ROOT / "gin/toy.gin").read_text()
    assert "Sweep.specs" in text and "python run.py --gin gin/toy.gin" in text


@pytest.mark.parametrize(
    ("name", "severities"), [("label_noise", (0.0, 0.4)), ("gaussian", (0.0, 0.2))]
)
def test_polysemantic_features_win_without_noise_and_monosemantic_ones_under_much(
    store, name, severities
):
    """Over four seeds; the sweep has twenty."""

    def accuracy(regime):
        """(severities,) in %, the mean over seeds and repeats."""
        experiment = load([f"gin/toy/{regime}.gin"]).experiment
        (curve,) = (curve for curve in experiment.curves if curve.name == name)
        accuracies = []
        for seed in SEEDS:
            encoder, data = toy(REGIMES[regime], seed=seed), TwoFeatures(seed=seed)
            stage = dataclasses.replace(
                curve, encoder=encoder, data=data, severities=severities, repeats=5
            )
            accuracies.append(store.get(stage)["top1"].mean(1))
        return torch.stack(accuracies).mean(0)

    clean, noisy = (accuracy("monosemantic") - accuracy("polysemantic")).tolist()
    assert clean < -3 and noisy > 3
