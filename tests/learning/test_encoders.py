"""Encoders: widths, the reference's stem, and names as in the reference's checkpoints."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monosem.core.device import seeded
from monosem.learning.encoders import Network, Projector, ResNet, SmallConv


@pytest.mark.parametrize(
    ("encoder", "shape"),
    [
        (SmallConv(), (2, 1, 16, 16)),
        (ResNet(34), (2, 3, 32, 32)),
        (ResNet(50, "imagenet"), (2, 3, 64, 64)),
        (ResNet(18, "imagenet"), (2, 1, 64, 64)),
    ],
    ids=repr,
)
def test_encoders_have_the_width_they_say(encoder, shape):
    with seeded("x"):
        network = encoder.build(shape[1:]).eval()
    assert network(torch.zeros(shape)).shape == (2, encoder.width)


def test_the_reference_s_stem_makes_34_pixels_of_32():
    images = torch.zeros(1, 3, 32, 32)
    assert ResNet(18, stem_padding=2).build((3, 32, 32)).conv1(images).shape[-1] == 34
    assert ResNet(18).build((3, 32, 32)).conv1(images).shape[-1] == 32


def test_a_resnet_s_parameters_are_named_and_shaped_as_in_the_reference_s_checkpoints(golden):
    encoder = ResNet(18, "cifar", stem_padding=2)
    with torch.device("meta"):
        backbone = encoder.build((3, 32, 32))
        projector = Projector(16384, 2048).build(encoder.width)
        state = Network(backbone, projector, nn.Linear(512, 100)).state_dict()
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    assert shapes == golden("l_state_dict_shapes.json")
