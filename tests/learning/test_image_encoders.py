"""Encoders for small images against the papers, torchvision and plain loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_pretrain
from torch.testing import assert_close
from torchvision.models import convnext_tiny

from monosem.autoencoders.gated import L1
from monosem.autoencoders.topk import TopK
from monosem.core.device import seeded
from monosem.core.fields import FieldError
from monosem.core.store import Store
from monosem.datasets.digits import Digits
from monosem.learning.encoders import ResNet
from monosem.learning.image_encoders import ConvNeXt, ViT, WideResNet, positions
from monosem.learning.objectives import Contrastive, NonNegative, Supervised
from monosem.learning.optimizers import Adam, Constant
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.representation import Embedding

SMALL = [
    ViT(patch=4, features=16, layers=1, heads=2),
    ConvNeXt(patch=2, depths=(1, 1), widths=(8, 16)),
    WideResNet(depth=10, widening=1),
    ResNet(50),
]
both_sizes = pytest.mark.parametrize("shape", [(3, 32, 32), (1, 24, 28)])


def built(encoder, shape):
    with seeded("x"):
        return encoder.build(shape).eval()


@both_sizes
@pytest.mark.parametrize("encoder", [ViT(), ConvNeXt(), *SMALL[:3]], ids=repr)
def test_encoders_take_any_size_and_have_the_width_they_say(encoder, shape):
    features = built(encoder, shape)(torch.randn(2, *shape))
    assert features.shape == (2, encoder.width) and features.isfinite().all()
    assert not torch.allclose(features[0], features[1])


@pytest.mark.parametrize(
    ("encoder", "millions"),
    [(WideResNet(28, 10), 36.5), (WideResNet(16, 4), 2.7), (WideResNet(40, 1), 0.6), (ViT(), 5.3)],
    ids=repr,
)
def test_they_have_as_many_parameters_as_the_papers_say(encoder, millions):
    with torch.device("meta"):
        network = encoder.build((3, 32, 32))
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == millions


def test_with_patches_of_4_it_is_torchvision_s_convnext():
    encoder = ConvNeXt(patch=4, depths=(3, 3, 9, 3), widths=(96, 192, 384, 768), scale=1.0)
    ours, theirs = built(encoder, (3, 64, 64)), convnext_tiny(weights=None).eval()
    theirs.classifier[-1] = torch.nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert_close(ours(images), theirs(images), atol=1e-4, rtol=1e-4)


def test_a_wide_resnet_is_what_the_paper_s_figure_says_step_by_step():
    encoder, images = WideResNet(depth=10, widening=2), torch.randn(2, 3, 16, 16)
    network = built(encoder, (3, 16, 16))
    state = network.state_dict()

    def normed(x, name):
        return F.relu((x - state[f"{name}.running_mean"][:, None, None])
                      / (state[f"{name}.running_var"] + 1e-5).sqrt()[:, None, None]
                      * state[f"{name}.weight"][:, None, None]
                      + state[f"{name}.bias"][:, None, None])  # fmt: skip

    x = F.conv2d(images, state["0.weight"], padding=1)
    for block, stride in ((1, 1), (2, 2), (3, 2)):
        active = normed(x, f"{block}.norm1")
        inner = F.conv2d(active, state[f"{block}.conv1.weight"], stride=stride, padding=1)
        inner = F.conv2d(normed(inner, f"{block}.norm2"), state[f"{block}.conv2.weight"], padding=1)
        x = inner + F.conv2d(active, state[f"{block}.short.weight"], stride=stride)
    assert x.shape == (2, 128, 4, 4)
    assert_close(network(images), normed(x, "4").mean((2, 3)), atol=1e-4, rtol=1e-4)


def test_a_vit_is_patches_attention_and_the_mean_written_out():
    encoder, images = ViT(patch=4, features=8, layers=1, heads=2), torch.randn(1, 1, 8, 12)
    network = built(encoder, (1, 8, 12))
    state = network.state_dict()
    rows = []
    for top in (0, 4):
        for left in (0, 4, 8):
            patch = images[0, :, top : top + 4, left : left + 4]
            rows.append((state["embed.weight"] * patch).sum((1, 2, 3)) + state["embed.bias"])
    x = torch.stack(rows) + positions(2, 3, 8)
    norm = F.layer_norm(x, (8,), eps=1e-6)
    q, k, v = (
        norm @ state["blocks.0.self_attention.in_proj_weight"].T
        + state["blocks.0.self_attention.in_proj_bias"]
    ).split(8, 1)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        weights = torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(4), 1)
        heads.append(weights @ v[:, part])
    project = "blocks.0.self_attention.out_proj"
    x = x + torch.cat(heads, 1) @ state[f"{project}.weight"].T + state[f"{project}.bias"]
    hidden = F.layer_norm(x, (8,), eps=1e-6) @ state["blocks.0.mlp.0.weight"].T
    hidden = F.gelu(hidden + state["blocks.0.mlp.0.bias"])
    x = x + hidden @ state["blocks.0.mlp.3.weight"].T + state["blocks.0.mlp.3.bias"]
    expected = F.layer_norm(x, (8,), eps=1e-6).mean(0)
    assert_close(network(images)[0], expected, atol=1e-5, rtol=1e-4)


def test_positions_are_sines_and_cosines_of_both_coordinates():
    table = positions(3, 5, 8)
    assert table.shape == (15, 8)
    for row in range(3):
        for column in range(5):
            expected = [
                wave(place * 10_000.0**-share)
                for place in (column, row)
                for wave in (math.sin, math.cos)
                for share in (0, 1)
            ]
            assert_close(table[row * 5 + column], torch.tensor(expected), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("objective", [Contrastive(), NonNegative(), Supervised()], ids=repr)
@pytest.mark.parametrize("encoder", SMALL, ids=repr)
def test_every_objective_takes_a_step_with_every_encoder(encoder, objective):
    stage = tiny_pretrain(data=Digits(size=16), encoder=encoder, objective=objective)
    stage.preflight()
    network, labels = stage.build().train(), torch.arange(8) % 2
    views = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    stage.losses(network, views, torch.arange(4).repeat(2), labels)["loss"].backward()
    norms = {name: p.grad.norm() for name, p in network.named_parameters() if p.grad is not None}
    assert norms.keys() == {name for name, _ in network.named_parameters()}
    assert all(norm.isfinite() for norm in norms.values()) and max(norms.values()) > 0


@pytest.mark.parametrize("sparsity", [TopK(4), L1(0.1)], ids=repr)
@pytest.mark.parametrize("encoder", SMALL[:3], ids=repr)
def test_encoders_are_trained_with_an_autoencoder_on_top(encoder, sparsity, tmp_path):
    data = Digits(size=16, test=1700)  # 97 to train on
    fields = {"data": data, "epochs": 1, "batch_size": 48}
    pretrain = tiny_pretrain(encoder=encoder, objective=Contrastive(), **fields)
    sae = SparseAutoencoder(
        encoder=Embedding(pretrain), sparsity=sparsity, latents=24, optimizer=Adam(lr=1e-3),
        schedule=Constant(), **fields,
    )  # fmt: skip
    latents = sae.network(Store(tmp_path).get)(data.prepare(data.split("test").inputs[:5]))
    assert latents.shape == (5, 24) and latents.isfinite().all()


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: WideResNet(depth=20), "WideResNet.depth must be 6 b .* such as 16 or 22, got 20"),
        (
            lambda: ViT(features=100),
            "ViT.features must be a multiple of 4 and of heads = 3, got 100",
        ),
        (lambda: ConvNeXt(depths=(1, 1)), r"ConvNeXt.widths must have one for each of depths"),
    ],
)
def test_architectures_that_there_are_not_are_refused(build, complaint):
    with pytest.raises(FieldError, match=complaint):
        build()


@pytest.mark.parametrize("encoder", [ViT(patch=16), ConvNeXt(), WideResNet()], ids=repr)
def test_images_that_are_too_small_are_refused_in_one_line(encoder):
    least = encoder.least_side
    assert encoder.incompatibility((1, least, least)) is None
    assert encoder.incompatibility((1, least - 1, 40)) == (
        f"must be of images with sides of {least} pixels or more, which "
        f"{type(encoder).__name__} takes, got {least - 1} x 40"
    )
    assert "must be of images" in encoder.incompatibility((7,))
    assert built(encoder, (1, least, least))(torch.zeros(1, 1, least, least)).isfinite().all()
