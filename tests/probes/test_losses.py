"""Losses of probes: against plain loops and torch; alone and in company; killed and resumed."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from test_batched_probes import (
    CLASSES,
    FEATURES,
    LABELS,
    PROBE,
    D,
    N,
    assert_equal_to_probes_alone,
    eight_probes,
)
from torch import nn
from torch.testing import assert_close

from monosem.core.fields import FieldError
from monosem.probes.batched_probes import (
    EarlyStopping,
    ProbeGroups,
    ProbeTrainer,
    draw_mixing,
    initial_weights,
    minibatch_order,
)
from monosem.probes.losses import (
    CrossEntropy,
    GeneralisedCrossEntropy,
    LabelSmoothing,
    SymmetricCrossEntropy,
)

LOSSES = [
    CrossEntropy(),
    SymmetricCrossEntropy(),
    SymmetricCrossEntropy(alpha=6.0, beta=0.1, A=-9.0),
    GeneralisedCrossEntropy(),
    GeneralisedCrossEntropy(q=1.0),
    LabelSmoothing(),
    LabelSmoothing(epsilon=1.0),
]
CHANGES = [
    *({"loss": loss} for loss in LOSSES[1:]),
    {"mixup": 0.2},
    {"mixup": 1.0, "dropout": 0.3},
    {"mixup": 8.0, "loss": GeneralisedCrossEntropy(), "stopping": EarlyStopping(0.3)},
]
LOGITS = 5 * torch.randn(N, CLASSES, generator=torch.Generator().manual_seed(1)).double()


def by_hand(loss, logits, label):
    """The loss of one example, from the formulas of the papers."""
    whole = sum(map(math.exp, logits))
    p = [math.exp(value) / whole for value in logits]
    if isinstance(loss, CrossEntropy):
        return -math.log(p[label])
    if isinstance(loss, SymmetricCrossEntropy):
        log_q = [0.0 if k == label else loss.A for k in range(len(p))]
        reverse = -sum(p[k] * log_q[k] for k in range(len(p)))
        return loss.alpha * -math.log(p[label]) + loss.beta * reverse
    if isinstance(loss, GeneralisedCrossEntropy):
        return (1 - p[label] ** loss.q) / loss.q
    soft = [loss.epsilon / len(p) + (1 - loss.epsilon) * (k == label) for k in range(len(p))]
    return -sum(soft[k] * math.log(p[k]) for k in range(len(p)))


# Formulas


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_a_loss_is_what_its_paper_says_example_by_example(loss):
    expected = [
        by_hand(loss, row, label)
        for row, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True)
    ]
    assert_close(loss(LOGITS, LABELS), torch.tensor(expected).double())
    assert_close(loss.mean(LOGITS, LABELS), torch.tensor(expected).double().mean())


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.7])
def test_label_smoothing_is_that_of_torch(epsilon):
    theirs = nn.functional.cross_entropy(LOGITS, LABELS, reduction="none", label_smoothing=epsilon)
    assert_close(LabelSmoothing(epsilon)(LOGITS, LABELS), theirs)


def test_generalised_cross_entropy_is_between_cross_entropy_and_absolute_error():
    near_0 = GeneralisedCrossEntropy(1e-6)(LOGITS, LABELS)
    assert_close(near_0, CrossEntropy()(LOGITS, LABELS), rtol=1e-3, atol=1e-4)
    p = LOGITS.softmax(1).gather(1, LABELS[:, None])[:, 0]
    assert_close(GeneralisedCrossEntropy(1.0)(LOGITS, LABELS), 1 - p)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_loss_and_gradient_are_finite_where_the_label_has_probability_0(loss):
    logits = torch.tensor([[300.0, -300.0], [0.0, 0.0]], requires_grad=True)
    losses = loss(logits, torch.tensor([1, 0]))
    losses.sum().backward()
    assert losses.isfinite().all() and logits.grad.isfinite().all()


def test_the_mean_of_cross_entropy_is_that_of_torch_to_the_last_bit():
    logits = LOGITS.float()
    assert torch.equal(
        CrossEntropy().mean(logits, LABELS), nn.functional.cross_entropy(logits, LABELS)
    )


# Many at once


@pytest.mark.parametrize("change", CHANGES, ids=repr)
def test_a_probe_alone_equals_the_same_in_company(change):
    settings = replace(PROBE, **change)
    fitted = settings.fit(FEATURES, CLASSES, eight_probes())
    assert_equal_to_probes_alone(fitted, settings, eight_probes())
    plain = PROBE.fit(FEATURES, CLASSES, eight_probes())
    assert not torch.allclose(fitted.weight, plain.weight, atol=1e-3)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_a_probe_equals_a_linear_layer_trained_by_torch(loss, mixup, monkeypatch):
    probe, settings = eight_probes()[1], replace(PROBE, loss=loss, mixup=mixup)
    drawn = []

    def observed(*arguments):
        drawn.append(draw_mixing(*arguments))
        return drawn[-1]

    monkeypatch.setattr("monosem.probes.batched_probes.draw_mixing", observed)
    fitted = settings.fit(FEATURES, CLASSES, [probe])
    scaled = FEATURES / FEATURES.square().sum(1).mean().sqrt()
    layer, first = nn.Linear(D, CLASSES), initial_weights(probe, D, CLASSES)
    layer.load_state_dict({"weight": first[:-1].T, "bias": first[-1]})
    rate, steps_per_epoch = PROBE.optimizer.lr, N // PROBE.batch_size
    steps = PROBE.epochs * steps_per_epoch
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate, momentum=0.9, weight_decay=1e-3)
    order = minibatch_order(probe.seed, probe.examples, steps * PROBE.batch_size)
    for step, batch in enumerate(order.split(PROBE.batch_size)):
        optimizer.param_groups[0]["lr"] = PROBE.schedule.rate(rate, step, steps, steps_per_epoch)
        optimizer.zero_grad()
        other, share = batch, 1.0
        if mixup:
            other, share = batch[drawn[step].partner[0]], float(drawn[step].share)
        logits = layer(share * scaled[batch] + (1 - share) * scaled[other])
        mixed = share * loss(logits, probe.labels[batch])
        mixed = mixed + (1 - share) * loss(logits, probe.labels[other])
        mixed.mean().backward()
        optimizer.step()
    assert_close(fitted.logits(FEATURES, 0), layer(scaled).detach(), rtol=1e-4, atol=1e-5)


# Mixup


@pytest.mark.parametrize("alpha", [0.1, 1.0, 4.0])
def test_shares_have_the_mean_and_the_variance_of_their_beta_distribution(alpha):
    draws = [torch.Generator().manual_seed(seed) for seed in range(4000)]
    mixing = draw_mixing(alpha, 5, draws, FEATURES.device)
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(mixing.share.mean() - 0.5) < 4 * (variance / 4000) ** 0.5
    assert abs(mixing.share.var() / variance - 1) < 0.1
    assert (mixing.partner.sort(1).values == torch.arange(5)).all()


def test_every_minibatch_has_a_draw_of_its_own_and_probes_of_one_minibatch_share_it(monkeypatch):
    drawn = []

    def observed(*arguments):
        drawn.append(draw_mixing(*arguments))
        return drawn[-1]

    monkeypatch.setattr("monosem.probes.batched_probes.draw_mixing", observed)
    settings = replace(PROBE, epochs=2, mixup=1.0).settings
    groups = ProbeGroups([eight_probes()[:2]], D, CLASSES, settings, FEATURES.device)
    for epoch in range(2):
        groups.train_epoch(FEATURES, epoch)
    assert len({float(mixing.share) for mixing in drawn}) == 2 * (N // PROBE.batch_size)
    assert all(len(mixing.share) == 1 for mixing in drawn)  # one group of two probes


def test_the_held_out_loss_of_early_stopping_is_the_loss_without_mixup():
    settings = replace(
        PROBE, mixup=1.0, loss=LabelSmoothing(), stopping=EarlyStopping(0.3)
    ).settings
    groups = ProbeGroups([eight_probes()[:1]], D, CLASSES, settings, FEATURES.device)
    losses = groups.held_out_losses(FEATURES, groups.best)
    held = groups.best.held_out[0]
    logits = FEATURES[held] @ groups.weight[0, :, 0] + groups.bias[0, 0, 0]
    assert_close(losses[0, 0], LabelSmoothing()(logits, LABELS[held]).mean())


# Going on


@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize("change", CHANGES, ids=repr)
def test_a_fit_goes_on_from_its_state_with_the_same_bits(change, epoch):
    settings = replace(PROBE, **change).settings

    def trainer():
        return ProbeTrainer(eight_probes()[:3], D, CLASSES, settings, FEATURES.device)

    whole, resumed = trainer(), trainer()
    for _ in range(PROBE.epochs):
        whole.train_epoch(FEATURES)
        if whole.next_epoch == epoch:
            state = copy.deepcopy(whole.state())
    resumed.load_state(state)
    for _ in range(epoch, PROBE.epochs):
        resumed.train_epoch(FEATURES)
    assert torch.equal(whole.result().weight, resumed.result().weight)
    assert torch.equal(whole.result().bias, resumed.result().bias)


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SymmetricCrossEntropy(A=0.0), "SymmetricCrossEntropy.A must be below 0"),
        (lambda: SymmetricCrossEntropy(alpha=0, beta=0), "beta must be above 0 where alpha is 0"),
        (lambda: GeneralisedCrossEntropy(q=0), "q must be between 0 and 1, 0 excluded, got 0"),
        (lambda: LabelSmoothing(epsilon=1.1), "epsilon must be between 0 and 1, got 1.1"),
        (lambda: replace(PROBE, mixup=-1.0), "LinearProbe.mixup must be between 0 and 100"),
    ],
)
def test_impossible_losses_are_refused(make, message):
    with pytest.raises(FieldError, match=message):
        make()
