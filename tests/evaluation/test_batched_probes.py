"""The bank of heads: equal to heads trained one by one, and to torch's own modules and optimiser."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monosem.core.fields import FieldError
from monosem.core.stage import StageError
from monosem.evaluation import batched_probes as bank
from monosem.evaluation.batched_probes import (
    EarlyStopping,
    ProbeSpec,
    group_by_minibatches,
    group_by_size,
    initial_weights,
    minibatch_order,
    topk_accuracy,
)
from monosem.evaluation.probes import LinearProbe
from monosem.learning.optimizers import LARS, SGD, Adam, Constant, WarmupCosine

N, D, CLASSES = 60, 7, 4
DRAW = torch.Generator().manual_seed(0)
FEATURES = torch.randn(N, D, generator=DRAW)
LABELS = torch.randint(0, CLASSES, (N,), generator=DRAW)
ALL, SOME = torch.arange(N), torch.arange(0, N, 7)
PROBE = LinearProbe(SGD(lr=0.5, weight_decay=1e-3), WarmupCosine(1.0), epochs=5, batch_size=16)


def heads() -> list[ProbeSpec]:
    """Two repeats, true and wrong labels, all and few examples."""
    told = [LABELS, (LABELS + 1) % CLASSES]
    return [
        ProbeSpec(seed, examples, labels)
        for seed in (1, 2)
        for examples in (ALL, SOME)
        for labels in told
    ]


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
def test_the_bank_equals_its_heads_trained_one_by_one(optimizer):
    probe = LinearProbe(optimizer, WarmupCosine(1.0), epochs=5, batch_size=16)
    fitted = probe.fit(FEATURES, CLASSES, heads())
    for number, head in enumerate(heads()):
        alone = probe.fit(FEATURES, CLASSES, [head])
        assert_close(fitted.weight[number], alone.weight[0], rtol=1e-4, atol=1e-6)
        assert_close(fitted.bias[number], alone.bias[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"dropout": 0.5},
        {"stopping": EarlyStopping(0.3)},
        {"dropout": 0.2, "stopping": EarlyStopping()},
    ],
    ids=repr,
)
def test_the_bank_equals_its_heads_trained_one_by_one_with_dropout_and_early_stopping_too(change):
    probe = replace(PROBE, **change)
    fitted = probe.fit(FEATURES, CLASSES, heads())
    for number, head in enumerate(heads()):
        assert_close(
            fitted.weight[number],
            probe.fit(FEATURES, CLASSES, [head]).weight[0],
            rtol=1e-4,
            atol=1e-6,
        )
    assert not torch.allclose(
        fitted.weight, PROBE.fit(FEATURES, CLASSES, heads()).weight, atol=1e-3
    )


def test_early_stopping_takes_the_epoch_with_the_lowest_loss_on_what_is_held_out():
    told = torch.where(
        torch.arange(N) % 3 == 0, LABELS, FEATURES[:, :CLASSES].argmax(1)
    )  # a third is noise, to be fitted late
    head, stopping = ProbeSpec(1, ALL, told), EarlyStopping(0.4)
    own, held = stopping.split(head)
    assert (
        len(held) == 24 and not set(own.tolist()) & set(held.tolist()) and len(own) + len(held) == N
    )
    losses, banks = [], []
    for epochs in range(
        1, 13
    ):  # a constant rate: the first epochs of a longer run are a shorter run
        short = replace(PROBE, optimizer=SGD(lr=0.05), schedule=Constant(), epochs=epochs).fit(
            FEATURES, CLASSES, [head._replace(examples=own)]
        )
        losses.append(
            nn.functional.cross_entropy(short.logits(FEATURES[held], 0), head.labels[held]).item()
        )
        banks.append(short)
    assert 0 < losses.index(min(losses)) < 11  # neither end, or this would show nothing
    fitted = replace(
        PROBE, optimizer=SGD(lr=0.05), schedule=Constant(), epochs=12, stopping=stopping
    ).fit(FEATURES, CLASSES, [head])
    assert_close(fitted.weight, banks[losses.index(min(losses))].weight, rtol=1e-4, atol=1e-6)


def test_no_class_loses_its_last_example_and_a_head_of_one_shot_is_judged_by_what_it_learned_from():
    one_shot = torch.stack([(c == LABELS).nonzero()[0, 0] for c in range(CLASSES)])
    own, held = EarlyStopping().split(ProbeSpec(0, one_shot, LABELS))
    assert own.tolist() == held.tolist() and sorted(own.tolist()) == sorted(one_shot.tolist())
    for share in (0.1, 0.5, 0.9):
        own, held = EarlyStopping(share).split(ProbeSpec(3, ALL, LABELS))
        assert set(LABELS[own].tolist()) == set(range(CLASSES)) and not set(own.tolist()) & set(
            held.tolist()
        )
        assert len(own) + len(held) == N and len(held) == min(round(share * N), N - CLASSES)


def test_a_probe_that_blows_up_says_so_with_early_stopping_too():
    probe = LinearProbe(
        SGD(lr=1e30, weight_decay=1e30),
        Constant(),
        epochs=2,
        batch_size=16,
        stopping=EarlyStopping(),
    )
    with pytest.raises(StageError, match="are no finite numbers"):
        probe.fit(FEATURES, CLASSES, heads()[:1])


def test_dropped_features_are_made_up_for_and_differ_by_step():
    seen = []
    block = bank._Block(
        [heads()[0]], CLASSES, replace(PROBE, dropout=0.5).recipe, 3, FEATURES, None
    )
    block.losses = lambda rows, examples: (
        seen.append((rows.detach(), examples)),
        bank._Block.losses(block, rows, examples),
    )[1]
    block.recipe = block.recipe._replace(epochs=1)
    block.epoch(FEATURES, 0)
    shares = torch.cat([rows[0] / FEATURES[examples[0]] for rows, examples in seen])
    assert {round(each, 3) for each in shares.unique().tolist()} <= {0.0, 2.0} and 0.3 < (
        shares == 0
    ).float().mean() < 0.7
    assert len({tuple((rows == 0).flatten().tolist()) for rows, _ in seen}) == 3


def test_heads_come_back_in_the_order_they_were_given():
    mixed = [heads()[i] for i in (5, 0, 3, 1, 4)]  # groups of one and of two
    fitted = PROBE.fit(FEATURES, CLASSES, mixed)
    for number, head in enumerate(mixed):
        assert_close(
            fitted.bias[number], PROBE.fit(FEATURES, CLASSES, [head]).bias[0], rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("head", [heads()[0], heads()[3]], ids=["all", "few"])
def test_a_head_equals_a_linear_layer_trained_by_torch(head):
    scale = FEATURES.square().sum(1).mean().sqrt()
    layer, first = nn.Linear(D, CLASSES), initial_weights(head, D, CLASSES)
    layer.load_state_dict({"weight": first[:-1].T, "bias": first[-1]})
    steps = PROBE.epochs * (N // PROBE.batch_size)
    optimizer = torch.optim.SGD(
        layer.parameters(), lr=PROBE.optimizer.lr, momentum=0.9, weight_decay=1e-3
    )
    for step, batch in enumerate(
        minibatch_order(head.seed, head.examples, steps * PROBE.batch_size).split(PROBE.batch_size)
    ):
        optimizer.param_groups[0]["lr"] = PROBE.schedule.rate(
            PROBE.optimizer.lr, step, steps, N // PROBE.batch_size
        )
        optimizer.zero_grad()
        nn.functional.cross_entropy(layer(FEATURES[batch] / scale), head.labels[batch]).backward()
        optimizer.step()
    fitted = PROBE.fit(FEATURES, CLASSES, [head])
    assert_close(fitted.logits(FEATURES, 0), layer(FEATURES / scale).detach(), rtol=1e-4, atol=1e-5)


def test_the_scale_of_features_changes_nothing_unless_the_probe_takes_them_as_they_are():
    fitted, large = (PROBE.fit(scale * FEATURES, CLASSES, heads()[:1]) for scale in (1, 1000))
    assert_close(fitted.logits(FEATURES, 0), large.logits(1000 * FEATURES, 0), rtol=1e-3, atol=1e-5)
    scale = FEATURES.square().sum(1).mean().sqrt()
    as_they_are = replace(PROBE, rescale=False).fit(FEATURES / scale, CLASSES, heads()[:1])
    assert_close(
        as_they_are.logits(FEATURES / scale, 0), fitted.logits(FEATURES, 0), rtol=1e-4, atol=1e-5
    )


def test_a_head_walks_through_its_own_examples_only_each_as_often_as_the_others():
    steps = minibatch_order(3, SOME, 5 * len(SOME))
    assert steps.bincount()[SOME].tolist() == [5] * len(SOME)
    assert not torch.equal(steps[: len(SOME)], steps[len(SOME) : 2 * len(SOME)])


def test_heads_with_one_seed_and_the_same_examples_share_their_minibatches():
    assert group_by_minibatches(heads()) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert group_by_minibatches(heads()[:3]) == [[0, 1], [2]] and group_by_size(heads()[:3]) == [
        [0, 1],
        [2],
    ]
    assert group_by_size(heads()) == [list(range(8))]


def test_top_k_accuracy_equals_the_reference(golden):
    g = golden("d_accuracy_at_k")
    assert topk_accuracy(g["logits"], g["targets"], 1) == pytest.approx(g["acc1"].item())
    assert topk_accuracy(g["logits"], g["targets"], 5) == pytest.approx(g["acc5"].item())


def test_top_5_of_three_classes_is_everything():
    assert topk_accuracy(torch.randn(9, 3), torch.arange(9) % 3, 5) == 100


def test_a_probe_that_blows_up_says_so():
    probe = LinearProbe(SGD(lr=1e6, weight_decay=1e3), Constant(), epochs=5, batch_size=16)
    with pytest.raises(StageError, match=r"learning rate 1e\+06"):
        probe.fit(FEATURES, CLASSES, heads()[:1])


def test_impossible_probes_are_refused():
    with pytest.raises(FieldError, match="LinearProbe.epochs must be 1 or more, got 0"):
        LinearProbe(SGD(), Constant(), epochs=0)
    with pytest.raises(
        FieldError, match=r"LinearProbe.optimizer must be an Optimizer, got Constant\(\)"
    ):
        LinearProbe(Constant(), Constant())


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    "probe",
    [PROBE, replace(PROBE, dropout=0.3, stopping=EarlyStopping(0.2))],
    ids=["plain", "regularised"],
)
def test_an_interrupted_fit_on_views_that_change_goes_on_with_the_same_bits(probe):
    views = [FEATURES + 0.1 * torch.randn(N, D, generator=DRAW) for _ in range(PROBE.epochs)]

    class Job:
        def __init__(self, stop=None):
            self.state, self.stop, self.lines = None, stop, []

        def restore(self):
            return self.state

        def log(self, step, of, **scalars):
            self.lines.append((step, scalars))

        def save(self, state):
            self.state = copy.deepcopy(state)
            if state["epoch"] == self.stop:
                raise Stop

    some = heads()[:3]  # groups of two sizes
    whole = bank.fit_probes(views.__getitem__, CLASSES, some, probe.recipe, Job())
    for stop in (1, 3, PROBE.epochs):
        job = Job(stop)
        with pytest.raises(Stop):
            bank.fit_probes(views.__getitem__, CLASSES, some, probe.recipe, job)
        job.stop = None
        resumed = bank.fit_probes(views.__getitem__, CLASSES, some, probe.recipe, job)
        assert torch.equal(whole.weight, resumed.weight) and torch.equal(whole.bias, resumed.bias)
        assert [step for step, _ in job.lines] == [1, 2, 3, 4, 5]


def test_heads_of_groups_of_different_sizes_equal_heads_fitted_alone():
    mixed = [heads()[0], heads()[1], heads()[2]]
    together = PROBE.fit(FEATURES, CLASSES, mixed)
    for number, head in enumerate(mixed):
        assert_close(
            together.weight[number],
            PROBE.fit(FEATURES, CLASSES, [head]).weight[0],
            rtol=1e-4,
            atol=1e-6,
        )
