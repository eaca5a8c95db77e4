"""Batched probes: equal to probes trained one by one, and to torch's own modules and optimiser."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monosem.core.fields import FieldError
from monosem.core.stage import StageError
from monosem.learning.optimizers import LARS, SGD, Adam, Constant, WarmupCosine
from monosem.probes.batched_probes import (
    BatchedProbes,
    EarlyStopping,
    ProbeGroups,
    ProbeSpec,
    ProbeTrainer,
    drop_features,
    group_by_minibatches,
    group_by_size,
    initial_weights,
    minibatch_order,
    topk_accuracy,
    unique_probes,
)
from monosem.probes.linear import LinearProbe

N, D, CLASSES = 60, 7, 4
DRAW = torch.Generator().manual_seed(0)
FEATURES = torch.randn(N, D, generator=DRAW)
LABELS = torch.randint(0, CLASSES, (N,), generator=DRAW)
ALL, FEW = torch.arange(N), torch.arange(0, N, 7)
PROBE = LinearProbe(SGD(lr=0.5, weight_decay=1e-3), WarmupCosine(1.0), epochs=5, batch_size=16)


def eight_probes() -> list[ProbeSpec]:
    """Two repeats, all and few examples, true and wrong labels."""
    wrong_labels = (LABELS + 1) % CLASSES
    settings = itertools.product((1, 2), (ALL, FEW), (LABELS, wrong_labels))
    return [ProbeSpec(seed, examples, labels) for seed, examples, labels in settings]


def assert_equal_to_probes_alone(
    fitted: BatchedProbes, settings: LinearProbe, probes: list[ProbeSpec]
) -> None:
    for position, probe in enumerate(probes):
        alone = settings.fit(FEATURES, CLASSES, [probe])
        assert_close(fitted.weight[position], alone.weight[0], rtol=1e-4, atol=1e-6)
        assert_close(fitted.bias[position], alone.bias[0], rtol=1e-4, atol=1e-6)


# Alone or not


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(lr=0.5, weight_decay=1e-3),
        SGD(lr=0.1, nesterov=True),
        Adam(lr=0.01),
        LARS(weight_decay=1e-3),
    ],
    ids=repr,
)
def test_probes_fitted_together_equal_those_fitted_one_by_one(optimizer):
    settings = replace(PROBE, optimizer=optimizer)
    fitted = settings.fit(FEATURES, CLASSES, eight_probes())
    assert_equal_to_probes_alone(fitted, settings, eight_probes())


@pytest.mark.parametrize(
    "change",
    [
        {"dropout": 0.5},
        {"stopping": EarlyStopping(0.3)},
        {"dropout": 0.2, "stopping": EarlyStopping()},
    ],
    ids=repr,
)
def test_so_they_do_with_dropout_and_early_stopping_which_both_change_them(change):
    settings = replace(PROBE, **change)
    fitted = settings.fit(FEATURES, CLASSES, eight_probes())
    assert_equal_to_probes_alone(fitted, settings, eight_probes())
    plain = PROBE.fit(FEATURES, CLASSES, eight_probes())
    assert not torch.allclose(fitted.weight, plain.weight, atol=1e-3)


@pytest.mark.parametrize("positions", [(0, 1, 2), (5, 0, 3, 1, 4)], ids=str)
def test_groups_of_different_sizes_come_back_in_the_order_they_were_given(positions):
    mixed = [eight_probes()[position] for position in positions]
    fitted = PROBE.fit(FEATURES, CLASSES, mixed)
    assert_equal_to_probes_alone(fitted, PROBE, mixed)


@pytest.mark.parametrize("probe", [eight_probes()[0], eight_probes()[3]], ids=["all", "few"])
def test_a_probe_equals_a_linear_layer_trained_by_torch(probe):
    scale = FEATURES.square().sum(1).mean().sqrt()
    layer, first = nn.Linear(D, CLASSES), initial_weights(probe, D, CLASSES)
    layer.load_state_dict({"weight": first[:-1].T, "bias": first[-1]})
    rate, steps_per_epoch = PROBE.optimizer.lr, N // PROBE.batch_size
    steps = PROBE.epochs * steps_per_epoch
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate, momentum=0.9, weight_decay=1e-3)
    order = minibatch_order(probe.seed, probe.examples, steps * PROBE.batch_size)
    for step, batch in enumerate(order.split(PROBE.batch_size)):
        optimizer.param_groups[0]["lr"] = PROBE.schedule.rate(rate, step, steps, steps_per_epoch)
        optimizer.zero_grad()
        nn.functional.cross_entropy(layer(FEATURES[batch] / scale), probe.labels[batch]).backward()
        optimizer.step()
    fitted = PROBE.fit(FEATURES, CLASSES, [probe])
    assert_close(fitted.logits(FEATURES, 0), layer(FEATURES / scale).detach(), rtol=1e-4, atol=1e-5)


def test_the_scale_of_features_changes_nothing():
    fitted = PROBE.fit(FEATURES, CLASSES, eight_probes()[:1])
    large = PROBE.fit(1000 * FEATURES, CLASSES, eight_probes()[:1])
    assert_close(fitted.logits(FEATURES, 0), large.logits(1000 * FEATURES, 0), rtol=1e-3, atol=1e-5)


def test_without_rescaling_features_are_taken_as_they_are():
    rescaled = PROBE.fit(FEATURES, CLASSES, eight_probes()[:1])
    scaled = FEATURES / FEATURES.square().sum(1).mean().sqrt()
    fitted = replace(PROBE, rescale=False).fit(scaled, CLASSES, eight_probes()[:1])
    assert_close(fitted.logits(scaled, 0), rescaled.logits(FEATURES, 0), rtol=1e-4, atol=1e-5)


# Minibatches


def test_a_probe_meets_its_own_examples_only_each_as_often_as_the_others():
    order = minibatch_order(3, FEW, 5 * len(FEW))
    assert order.bincount()[FEW].tolist() == [5] * len(FEW)
    assert not torch.equal(order[: len(FEW)], order[len(FEW) : 2 * len(FEW)])


def test_probes_with_one_seed_and_the_same_examples_share_their_minibatches():
    assert group_by_minibatches(eight_probes(), PROBE.settings) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert group_by_minibatches(eight_probes()[:3], PROBE.settings) == [[0, 1], [2]]


def test_groups_of_one_size_are_fitted_by_one_product():
    assert group_by_size([[0, 1], [2], [3, 4]]) == [[[0, 1], [3, 4]], [[2]]]
    assert group_by_size([[0, 1], [2, 3]]) == [[[0, 1], [2, 3]]]


def test_probes_that_would_train_to_the_same_weights_are_trained_once():
    one, other = eight_probes()[:2]
    same = one._replace(labels=one.labels.clone())
    unique, positions = unique_probes([other, one, same, other])
    assert [probe.identity for probe in unique] == [other.identity, one.identity]
    assert positions == [0, 1, 1, 0]


@pytest.mark.parametrize(
    "change",
    [{"seed": 3}, {"examples": FEW}, {"labels": 3 - LABELS}],
    ids=["seed", "few", "labels"],
)
def test_seed_examples_and_labels_each_make_another_probe(change):
    probe = eight_probes()[0]
    assert probe._replace(**change).identity != probe.identity


# Early stopping


def test_a_probe_in_company_holds_out_what_it_holds_out_alone():
    noisy = torch.where(torch.arange(N) % 5 == 0, LABELS.flip(0), LABELS)
    probes = [ProbeSpec(1, ALL, LABELS), ProbeSpec(1, ALL, noisy)]
    stopping = EarlyStopping(0.8)  # the labels decide what may be held out
    assert stopping.split(probes[0])[1].tolist() != stopping.split(probes[1])[1].tolist()
    settings = replace(PROBE, stopping=stopping)
    assert_equal_to_probes_alone(settings.fit(FEATURES, CLASSES, probes), settings, probes)


def test_early_stopping_takes_the_epoch_with_the_lowest_loss_on_what_is_held_out():
    is_noisy = torch.arange(N) % 3 == 0  # a third of the labels, to be fitted late
    labels = torch.where(is_noisy, LABELS, FEATURES[:, :CLASSES].argmax(1))
    probe, stopping = ProbeSpec(1, ALL, labels), EarlyStopping(0.4)
    learned, held = stopping.split(probe)
    settings = replace(PROBE, optimizer=SGD(lr=0.05), schedule=Constant(), epochs=12)
    losses, weights = [], []
    for epochs in range(1, 13):  # at a constant rate a shorter run is the start of a longer one
        shorter = replace(settings, epochs=epochs)
        fitted = shorter.fit(FEATURES, CLASSES, [probe._replace(examples=learned)])
        loss = nn.functional.cross_entropy(fitted.logits(FEATURES[held], 0), labels[held])
        losses.append(loss.item())
        weights.append(fitted.weight)
    best = losses.index(min(losses))
    assert 0 < best < 11  # neither end, or this would show nothing
    stopped = replace(settings, stopping=stopping).fit(FEATURES, CLASSES, [probe])
    assert_close(stopped.weight, weights[best], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.5, 0.9])
def test_what_is_held_out_is_not_learned_from_and_no_class_loses_its_last_example(share):
    learned, held = EarlyStopping(share).split(ProbeSpec(3, ALL, LABELS))
    assert not set(learned.tolist()) & set(held.tolist())
    assert set(LABELS[learned].tolist()) == set(range(CLASSES))
    assert len(learned) + len(held) == N
    assert len(held) == min(round(share * N), N - CLASSES)


def test_a_probe_of_one_shot_is_judged_by_what_it_learned_from():
    one_shot = torch.stack([(label == LABELS).nonzero()[0, 0] for label in range(CLASSES)])
    learned, held = EarlyStopping().split(ProbeSpec(0, one_shot, LABELS))
    assert learned.tolist() == held.tolist()
    assert sorted(learned.tolist()) == sorted(one_shot.tolist())


# Dropout


def test_dropped_features_are_made_up_for():
    rows = torch.rand(2, 500, D, generator=DRAW) + 1
    draws = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    factors = (drop_features(rows, 0.5, draws) / rows).round(decimals=3)
    assert set(factors.unique().tolist()) == {0.0, 2.0}
    assert 0.3 < (factors == 0).float().mean() < 0.7


def test_every_step_of_an_epoch_drops_other_features(monkeypatch):
    settings = replace(PROBE, epochs=1, dropout=0.5).settings
    groups = ProbeGroups([eight_probes()[:1]], D, CLASSES, settings, FEATURES.device)
    dropped = []
    losses = groups.losses

    def observed(rows, examples):
        dropped.append(tuple((rows == 0).flatten().tolist()))
        return losses(rows, examples)

    monkeypatch.setattr(groups, "losses", observed)
    groups.train_epoch(FEATURES, epoch=0)
    assert len(set(dropped)) == len(dropped) == N // PROBE.batch_size


# Going on


@pytest.mark.parametrize("epoch", [1, 3, 5])
@pytest.mark.parametrize(
    "probe",
    [
        PROBE,
        replace(PROBE, optimizer=Adam(lr=0.01)),
        replace(PROBE, dropout=0.3, stopping=EarlyStopping(0.2)),
    ],
    ids=["plain", "adam", "regularised"],
)
def test_a_fit_on_views_that_change_goes_on_from_its_state_with_the_same_bits(probe, epoch):
    views = [FEATURES + 0.1 * torch.randn(N, D, generator=DRAW) for _ in range(probe.epochs)]

    def trainer():
        specs = eight_probes()[:3]  # groups of two sizes
        return ProbeTrainer(specs, D, CLASSES, probe.settings, FEATURES.device)

    whole = trainer()
    for view in views:
        whole.train_epoch(view)
        if whole.next_epoch == epoch:
            state = copy.deepcopy(whole.state())
    resumed = trainer()
    resumed.load_state(state)
    assert resumed.next_epoch == epoch
    for view in views[epoch:]:
        resumed.train_epoch(view)
    assert torch.equal(whole.result().weight, resumed.result().weight)
    assert torch.equal(whole.result().bias, resumed.result().bias)


# Accuracy


def test_top_k_accuracy_equals_the_reference(golden):
    g = golden("d_accuracy_at_k")
    assert topk_accuracy(g["logits"], g["targets"], 1) == pytest.approx(g["acc1"].item())
    assert topk_accuracy(g["logits"], g["targets"], 5) == pytest.approx(g["acc5"].item())


def test_top_5_of_three_classes_is_everything():
    assert topk_accuracy(torch.randn(9, 3), torch.arange(9) % 3, 5) == 100


# Bad input


def test_a_probe_that_blows_up_says_so():
    settings = LinearProbe(SGD(lr=1e6, weight_decay=1e3), Constant(), epochs=5, batch_size=16)
    with pytest.raises(StageError, match=r"learning rate 1e\+06"):
        settings.fit(FEATURES, CLASSES, eight_probes()[:1])


def test_a_probe_that_blows_up_says_so_with_early_stopping_too():
    settings = LinearProbe(
        SGD(lr=1e30, weight_decay=1e30),
        Constant(),
        epochs=2,
        batch_size=16,
        stopping=EarlyStopping(),
    )
    with pytest.raises(StageError, match="are no finite numbers"):
        settings.fit(FEATURES, CLASSES, eight_probes()[:1])


def test_impossible_probes_are_refused():
    with pytest.raises(FieldError, match="LinearProbe.epochs must be 1 or more, got 0"):
        LinearProbe(SGD(), Constant(), epochs=0)
    with pytest.raises(
        FieldError, match=r"LinearProbe.optimizer must be an Optimizer, got Constant\(\)"
    ):
        LinearProbe(Constant(), Constant())
