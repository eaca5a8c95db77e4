"""Adapters: LoRA against peft, MonoLoRA against plain loops, what is measured, what is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from monosem.core.fields import FieldError
from monosem.learning.adapters import (
    AdaptedLinear,
    Gaussian,
    KaimingUniform,
    LoRA,
    MonoLoRA,
    Zeros,
    ZerosAnyway,
    adapted_layers,
    watched,
)

TARGETS = ("query", "value")
LORA = LoRA(targets=TARGETS, rank=4, alpha=6.0, dropout=0.0)
MONO = MonoLoRA(targets=TARGETS, rank=4, alpha=6.0, dropout=0.0)


class Attention(nn.Module):
    """A block with linear layers that have names, as transformers have them."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(12, 10) for _ in range(3))
        self.norm = nn.LayerNorm(10)
        self.back = nn.Linear(10, 12)

    def forward(self, x):
        weights = (self.query(x) @ self.key(x).mT / 3).softmax(-1)
        return x + self.back(self.norm(weights @ self.value(x)))


def blocks():
    torch.manual_seed(1)
    return nn.Sequential(Attention(), Attention()).requires_grad_(False)


def attached(adapter):
    network = blocks()
    learned = adapter.attach(network)
    return network, learned


def peft_model(network):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=4, lora_alpha=6, lora_dropout=0.0, target_modules=list(TARGETS), init_lora_weights=True
    )
    return peft.get_peft_model(network, config)


def weights_of_peft(model):
    """(down, up) of every layer, by its name with / for a dot."""
    pairs = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            pair = module.lora_A["default"].weight, module.lora_B["default"].weight
            pairs[name.removeprefix("base_model.model.").replace(".", "/")] = pair
    return pairs


def step(network, optimizer, seed):
    draw = torch.Generator().manual_seed(seed)
    x, wanted = torch.randn(2, 5, 7, 12, generator=draw)
    optimizer.zero_grad()
    loss = F.mse_loss(network(x), wanted)
    loss.backward()
    optimizer.step()
    return loss.detach()


def test_lora_gives_what_peft_gives_before_and_after_steps_of_training():
    theirs = peft_model(blocks())
    network, learned = attached(LORA)
    pairs = weights_of_peft(theirs)
    assert pairs.keys() == learned.keys()
    with torch.no_grad():
        for name, (down, up) in pairs.items():
            learned[name]["down"].weight.copy_(down)
            learned[name]["up"].weight.copy_(up)
    optimizers = [
        torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
        for model in (network, theirs)
    ]
    for number in range(6):
        mine, other = (
            step(model, optimizer, number)
            for model, optimizer in zip((network, theirs), optimizers, strict=True)
        )
        assert_close(mine, other)
        for name, (down, up) in pairs.items():
            assert_close(learned[name]["down"].weight.grad, down.grad, atol=1e-6, rtol=1e-4)
            assert_close(learned[name]["up"].weight.grad, up.grad, atol=1e-6, rtol=1e-4)
    for name, (down, up) in pairs.items():
        assert up.any(), "it has learned"
        assert_close(learned[name]["down"].weight, down, atol=1e-5, rtol=1e-4)
        assert_close(learned[name]["up"].weight, up, atol=1e-5, rtol=1e-4)


def test_first_weights_of_lora_are_drawn_from_the_same_law_as_in_peft():
    wide = nn.Sequential(nn.Linear(400, 300), nn.Linear(300, 400)).requires_grad_(False)
    learned = LoRA(targets=("0",), rank=64).attach(wide)["0"]
    assert not learned["up"].weight.any()
    assert learned["down"].weight.abs().max() <= 1 / 20
    assert_close(learned["down"].weight.std(), torch.tensor(3**-0.5 / 20), rtol=0.02, atol=0)


def test_lora_changes_nothing_before_it_learns():
    x = torch.randn(2, 3, 12)
    assert torch.equal(attached(LORA)[0](x), blocks()(x))


def relu(value):
    return max(value, 0.0)


def test_mono_lora_equals_plain_loops():
    torch.manual_seed(0)
    layer = nn.Linear(5, 3).double()
    network = nn.Sequential(layer)
    up = Gaussian(0.5)
    MonoLoRA(targets=("0",), rank=2, alpha=3.0, dropout=0.0, up=up).attach(network)
    adapted = network[0].requires_grad_(False)
    x = torch.randn(4, 5, dtype=torch.float64)
    output = network(x)
    for row in range(4):
        hidden = [
            relu(sum(float(adapted.down.weight[r, i]) * relu(float(x[row, i])) for i in range(5)))
            for r in range(2)
        ]
        for o in range(3):
            update = relu(sum(float(adapted.up.weight[o, r]) * hidden[r] for r in range(2)))
            own = sum(float(layer.weight[o, i]) * float(x[row, i]) for i in range(5))
            expected = own + float(layer.bias[o]) + 3.0 / 2 * update
            assert float(output[row, o]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("place", ["inner", "middle", "outer"])
def test_each_rectifier_of_mono_lora_can_be_left_out(place):
    x = torch.randn(6, 12, generator=torch.Generator().manual_seed(0))
    adapted, without = (
        attached(adapter)[0][0].query for adapter in (MONO, replace(MONO, **{place: "identity"}))
    )
    without.load_state_dict(adapted.state_dict())
    functions = {name: F.relu for name in ("inner", "middle", "outer")}
    functions[place] = torch.nn.Identity()
    hidden = functions["middle"](adapted.down(functions["inner"](x)))
    expected = adapted.layer(x) + 1.5 * functions["outer"](adapted.up(hidden))
    assert_close(without(x), expected)
    assert not torch.equal(without(x), adapted(x))


def test_mono_lora_without_its_rectifiers_is_lora():
    x = torch.randn(6, 12)
    bare = replace(MONO, inner="identity", middle="identity", outer="identity")
    (ours, _), (lora, _) = attached(bare), attached(replace(LORA, up=Gaussian()))
    lora.load_state_dict(ours.state_dict())
    assert torch.equal(ours(x), lora(x))


def test_only_what_is_beside_the_targets_learns():
    network, learned = attached(MONO)
    assert learned.keys() == {"0/query", "0/value", "1/query", "1/value"}
    trainable = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trainable == {
        f"{block}.{target}.{matrix}.weight"
        for block in "01"
        for target in TARGETS
        for matrix in ("down", "up")
    }


def test_dropout_changes_the_update_in_training_alone():
    network, _ = attached(replace(MONO, dropout=0.5))
    x = torch.randn(2, 3, 12)
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


# The trap of the first weights


def gradients(adapter):
    network, learned = attached(adapter)
    (network(torch.randn(8, 3, 12)) * torch.randn(8, 3, 12)).sum().backward()
    return [parameter.grad for parameter in learned.parameters()]


def test_mono_lora_that_starts_at_zero_never_trains_and_is_refused_unless_it_is_asked_for():
    sentence = "MonoLoRA.up must not be Zeros(): MonoLoRA has no gradient at zeros and never trains"
    with pytest.raises(FieldError, match=re.escape(sentence)):
        replace(MONO, up=Zeros())
    stuck = replace(MONO, up=ZerosAnyway())
    assert not any(gradient.any() for gradient in gradients(stuck))
    assert all(gradient.any() for gradient in gradients(MONO))


@pytest.mark.parametrize("outer", ["rep_relu", "leaky_relu", "gelu", "identity"])
def test_zeros_are_allowed_where_they_have_a_gradient(outer):
    adapter = replace(MONO, up=Zeros(), outer=outer)
    assert any(gradient.any() for gradient in gradients(adapter))


def test_two_matrices_of_zeros_are_refused():
    with pytest.raises(FieldError, match="LoRA.up must not be Zeros"):
        replace(LORA, down=Zeros())
    assert replace(LORA, down=Zeros(), up=KaimingUniform())


# What is measured


def test_measures_of_adapters_equal_plain_counts():
    network, _ = attached(replace(MONO, up=Gaussian(1.0)))
    with torch.no_grad():
        network[1].value.down.weight[2] = -1  # of rectified inputs: never active
    network.requires_grad_(False)
    seen = {}
    for name, layer in network.named_modules():
        if isinstance(layer, AdaptedLinear):
            layer.register_forward_hook(
                lambda m, args, out, name=name: seen.setdefault(name, []).append((m, *args, out))
            )
    with watched(network) as measures:
        for seed in range(2):
            network(torch.randn(3, 4, 12, generator=torch.Generator().manual_seed(seed)))
        measured = measures()
    network(torch.randn(3, 4, 12))  # no longer counted
    zeros = activations = dead = update = base = 0.0
    for calls in seen.values():
        hidden = torch.cat([F.relu(m.down(F.relu(x))).reshape(-1, 4) for m, x, _ in calls[:2]])
        zeros += int((hidden == 0).sum())
        activations += hidden.numel()
        dead += sum(not any(column) for column in hidden.T.tolist())
        for m, x, out in calls[:2]:
            update += float(((out - m.layer(x)) ** 2).sum())
            base += float((m.layer(x) ** 2).sum())
    assert dead >= 1 and len(seen) == 4
    assert measured == {
        "adapter_sparsity": pytest.approx(100 * zeros / activations),
        "dead_ranks": pytest.approx(100 * dead / 16),
        "update_norm": pytest.approx(100 * (update / base) ** 0.5, rel=1e-4),
    }
    assert measures() == measured and all(layer.tally is None for layer in adapted_layers(network))


# What is refused


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("qeury", "has 'qeury', but no linear layer has that name; did you mean 'query'?"),
        ("uery", "has 'uery', but no linear layer has that name; did you mean 'query'?"),
        ("xxx", "has 'xxx', but no linear layer has that name; there are back, key, query, value"),
        ("norm", "has 'norm', which is no Linear but LayerNorm"),
    ],
)
def test_a_target_that_is_not_there_is_refused_with_the_nearest(target, complaint):
    with pytest.raises(FieldError, match=re.escape(f"LoRA.targets {complaint}")):
        LoRA(targets=("value", target)).attach(blocks())


def test_longer_endings_choose_fewer_layers():
    assert LoRA(targets=("1.query", "0.back")).chosen(blocks()).keys() == {"1.query", "0.back"}


def test_a_rank_above_the_width_is_refused():
    complaint = "LoRA.rank must be at most 10, the smaller side of 0.query, got 11"
    with pytest.raises(FieldError, match=re.escape(complaint)):
        replace(LORA, rank=11).attach(blocks())


def test_a_network_without_linear_layers_is_refused():
    with pytest.raises(FieldError, match="must name linear layers, and the encoder has none"):
        LORA.attach(nn.Sequential(nn.Conv2d(3, 3, 1)))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"targets": ()}, "LoRA.targets must name at least one linear layer"),
        ({"dropout": 1.0}, "LoRA.dropout must be below 1"),
        ({"rank": 0}, "LoRA.rank must be 1 or more"),
    ],
)
def test_fields_that_leave_nothing_to_learn_are_refused(fields, complaint):
    with pytest.raises(FieldError, match=complaint):
        replace(LORA, **fields)
