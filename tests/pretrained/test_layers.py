"""Layers and pooling against plain code."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monosem.pretrained.layers import LayerOutput, Layout, last_linear, layout_of, replace

IMAGES = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))


class Counting(nn.Identity):
    """Counts its calls."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return x


def network():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU())
    return nn.Sequential(inner, Counting(), nn.Flatten(), nn.Linear(64, 5))


def test_a_layer_gives_what_a_pass_to_there_gives_and_nothing_after_it_runs():
    whole = network()
    assert torch.equal(LayerOutput(whole, "0.0")(IMAGES), whole[0][0](IMAGES))
    assert torch.equal(LayerOutput(whole, "0")(IMAGES), whole[0](IMAGES))
    assert whole[1].calls == 0
    assert torch.equal(LayerOutput(whole, "")(IMAGES), whole(IMAGES))


def test_a_layer_leaves_no_trace_in_the_network_and_may_be_copied():
    whole = network()
    layer = LayerOutput(whole, "0")
    before = layer(IMAGES)
    other = copy.deepcopy(layer)
    nn.init.zeros_(whole[0][0].weight)
    assert torch.equal(other(IMAGES), before) and not torch.equal(layer(IMAGES), before)
    assert whole(IMAGES).shape == (3, 5) and not whole[0]._forward_hooks


def test_a_layer_passes_gradients_on():
    images = IMAGES.clone().requires_grad_()
    LayerOutput(network(), "0")(images).sum().backward()
    assert images.grad.abs().sum() > 0


def test_a_module_that_no_pass_calls_is_an_error():
    whole = network()
    whole[0].add_module("unused", nn.Linear(1, 1))
    whole[0].forward = lambda x: x.sum((1, 2, 3))
    with pytest.raises(LookupError, match="not called"):
        LayerOutput(whole[0], "unused")(IMAGES)


def loops(states, pool, prefix=0, channels_last=False):
    """Mean and class token, number by number."""
    rows = []
    for one in states.tolist():
        if pool == "class":
            rows.append(one[0])
            continue
        if states.ndim == 3:
            vectors = one[prefix:]
        elif channels_last:
            vectors = [vector for line in one for vector in line]
        else:
            height, width = states.shape[2:]
            vectors = [[one[d][y][x] for d in range(len(one))]
                       for y in range(height) for x in range(width)]  # fmt: skip
        rows.append([sum(column) / len(vectors) for column in zip(*vectors, strict=True)])
    return torch.tensor(rows)


@pytest.mark.parametrize(
    ("shape", "pool", "prefix", "channels_last"),
    [
        ((2, 5, 3), "mean", 0, False),
        ((2, 5, 3), "mean", 1, False),
        ((2, 7, 3), "mean", 5, False),
        ((2, 5, 3), "class", 1, False),
        ((2, 3, 4, 4), "mean", 0, False),
        ((2, 4, 4, 3), "mean", 0, True),
        ((2, 3, 4, 5), "mean", 0, False),
    ],
)
def test_pooling_is_what_loops_give(shape, pool, prefix, channels_last):
    states = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    layout = layout_of(states, prefix, channels_last=False)
    assert layout == Layout(shape, prefix, channels_last) and layout.problem(pool) is None
    assert_close(layout.pooled(states, pool), loops(states, pool, prefix, channels_last))


def test_where_the_shape_leaves_open_which_axis_has_the_channels_the_network_says_it():
    states = torch.randn(2, 4, 4, 4)
    assert layout_of(states, 0, channels_last=True).channels_last
    assert not layout_of(states, 0, channels_last=False).channels_last


def test_a_vector_is_not_pooled_and_all_else_must_be():
    vector, tokens, maps = (layout_of(torch.zeros(shape), 0, False) for shape in
                            ((2, 3), (2, 5, 3), (2, 3, 4, 4)))  # fmt: skip
    assert vector.problem(None) is None
    assert torch.equal(vector.pooled(torch.ones(2, 3), None), torch.ones(2, 3))
    assert vector.problem("mean") == "must be None: a vector of 3 is there already, got 'mean'"
    assert "must be 'mean', or 'class'" in tokens.problem(None)
    assert tokens.problem("class") == "must be 'mean': 5 x 3 has no class token, got 'class'"
    assert "no class token" in maps.problem("class")
    assert "cannot make a vector" in layout_of(torch.zeros(2), 0, False).problem("mean")


def test_the_last_linear_layer_is_found_and_replaced_by_name():
    whole = nn.ModuleDict({"head": nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))})
    assert last_linear(whole) == "head.2" and last_linear(nn.ReLU()) is None
    replace(whole, "head.2", nn.Identity())
    assert whole["head"](torch.zeros(1, 2)).shape == (1, 3)
    replace(whole, "head", nn.Flatten())
    assert isinstance(whole["head"], nn.Flatten)
