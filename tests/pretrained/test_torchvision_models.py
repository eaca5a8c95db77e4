"""Networks of torchvision against torchvision itself: its transforms, its layers, its files."""

from __future__ import annotations

import pytest
import torch
from pictures import GREY, Pictures, as_picture, write_weights
from samples import Classes
from torch import nn
from torch.testing import assert_close
from torchvision import models

from monosem.core.device import seeded
from monosem.core.fields import FieldError
from monosem.datasets.cifar import no_downloads
from monosem.pretrained.torchvision_models import TorchvisionModel
from monosem.pretrained.weight_sources import PublishedWeights, RandomWeights, WeightsFile

# What its transforms leave as it is: `resize` is the size, and only the centre is taken.
DATA = Pictures(height=256, width=256, count=2)
WIDTHS = {
    "resnet18": 512,
    "vit_b_16": 768,
    "convnext_tiny": 768,
    "swin_t": 768,
    "efficientnet_b0": 1280,
    "densenet121": 1024,
    "mobilenet_v3_small": 1024,
    "vgg11": 4096,
    "regnet_y_400mf": 440,
    "inception_v3": 2048,
}


def network_of(name, **fields):
    return TorchvisionModel(**{"name": name, "weights": RandomWeights(), "data": DATA, **fields})


def prepared(data=DATA):
    return data.prepare(data.split("test").inputs)


def plain(name):
    """torchvision's own network with the same first weights, and its own transform."""
    with seeded("RandomWeights", 0):
        network = models.get_model(name, weights=None).eval()
    transform = models.get_model_weights(name).IMAGENET1K_V1.transforms()
    pictures = [transform(as_picture(image)) for image in DATA.split("test").inputs]
    return network, torch.stack(pictures)


@torch.no_grad()
def test_features_are_what_the_classifier_of_torchvision_reads():
    network, inputs = plain("resnet18")
    features = network_of("resnet18.IMAGENET1K_V1").network(None)(prepared())
    assert_close(network.fc(features), network(inputs), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_the_class_token_and_the_mean_over_patches_of_a_vit_are_those_of_its_own_encoder():
    network, inputs = plain("vit_b_16")
    tokens = network.class_token.expand(2, -1, -1)
    states = network.encoder(torch.cat([tokens, network._process_input(inputs)], 1))
    fields = {"name": "vit_b_16.IMAGENET1K_V1", "layer": "encoder.ln"}
    for pool, expected in (("class", states[:, 0]), ("mean", states[:, 1:].mean(1))):
        ours = network_of(**fields, pool=pool).network(None)(prepared())
        assert_close(ours, expected, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_a_layer_of_a_resnet_is_pooled_over_positions():
    network, inputs = plain("resnet18")
    x = network.maxpool(network.relu(network.bn1(network.conv1(inputs))))
    expected = network.layer2(network.layer1(x)).mean((2, 3))
    ours = network_of("resnet18.IMAGENET1K_V1", layer="layer2", pool="mean")
    assert_close(ours.network(None)(prepared()), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", WIDTHS)
def test_ten_families_tell_their_widths_without_weights(name):
    assert network_of(name).width == WIDTHS[name]


def test_a_file_is_read_and_its_classifier_is_left(tmp_path):
    network = models.resnet18(weights=None).eval()
    write_weights(network, tmp_path / "a.pth", rename=lambda name: f"module.{name}")
    network.fc = nn.Identity()
    inner = network_of("resnet18", weights=WeightsFile(str(tmp_path / "a.pth"))).network(None)
    with torch.no_grad():
        assert_close(inner(prepared()), network(inner.inputs(prepared())), atol=1e-4, rtol=1e-4)


def test_published_weights_are_those_of_torch_s_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = models.ResNet18_Weights.IMAGENET1K_V1.url
    home = tmp_path / "hub" / "checkpoints"
    home.mkdir(parents=True)
    network = models.resnet18(weights=None)
    write_weights(network, home / url.rpartition("/")[2])
    ours = network_of("resnet18.IMAGENET1K_V1", weights=PublishedWeights())
    assert len(ours.content()) == 64
    loaded = ours.network(None).body.network
    assert_close(loaded.layer1[0].conv1.weight, network.layer1[0].conv1.weight)


def test_published_weights_are_fetched_where_asked_for_and_that_is_said(
    tmp_path, monkeypatch, capsys
):
    write_weights(models.squeezenet1_1(weights=None), tmp_path / "net-12345678.pth")
    address = (tmp_path / "net-12345678.pth").as_uri()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(TorchvisionModel, "_chosen", property(lambda self: _Entry(address)))
    ours = network_of("squeezenet1_1", weights=PublishedWeights())
    with pytest.raises(FieldError, match="cannot be had: invalid hash value"):
        ours.content()  # of another sha256 than its name begins with
    assert capsys.readouterr().err == f"downloading {address}\n"
    (tmp_path / "net-12345678.pth").rename(tmp_path / "net.pth")
    address = (tmp_path / "net.pth").as_uri()
    assert len(ours.content()) == 64
    assert (tmp_path / "cache" / "hub" / "checkpoints" / "net.pth").is_file()
    assert capsys.readouterr().err == f"downloading {address}\n"
    assert len(ours.content()) == 64 and not capsys.readouterr().err


class _Entry:
    """An entry of torchvision's list with another address."""

    def __init__(self, url):
        self.url = url
        self.transforms = models.SqueezeNet1_1_Weights.DEFAULT.transforms


def refusal(name="resnet18", **fields):
    with pytest.raises(FieldError) as error:
        network_of(name, **fields).content()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_torchvision_does_not_have_is_refused_with_the_nearest(tmp_path, monkeypatch):
    assert "must be a network of torchvision, got 'resnet19'; did you mean resnet" in refusal(
        "resnet19"
    )
    assert "resnet50.IMAGENET1K_V2" in refusal("resnet50.IMAGENET1K_V3")
    assert "did you mean layer4.1?" in refusal(layer="layer4.11", pool="mean")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with no_downloads():
        assert "would be downloaded from https://" in refusal(weights=PublishedWeights())


def test_a_size_that_a_vit_refuses_is_refused_with_its_reason():
    assert "TorchvisionModel.size must be an input that vit_b_16 takes, got 33 x 33" in refusal(
        "vit_b_16", size=33
    )


def test_a_file_of_another_network_is_refused_with_tensors_and_shapes(tmp_path):
    write_weights(models.resnet18(weights=None), tmp_path / "a.pth")
    message = refusal("resnet50", weights=WeightsFile(str(tmp_path / "a.pth")))
    assert (
        "of another shape: layer1.0.conv1.weight (64, 64, 3, 3) instead of (64, 64, 1, 1)"
        in message
    )


def test_texts_and_images_that_are_normalised_otherwise_are_refused():
    network = network_of("resnet18")
    assert network.incompatibility(DATA) is None
    assert network.incompatibility(Classes(2)) == (
        "must be images, as TorchvisionModel takes them, got Classes"
    )
    assert "must be normalised as TorchvisionModel.data" in network.incompatibility(GREY)
