"""Laws of matching: every tensor of a file is found under its name, or the file is refused."""

from __future__ import annotations

import pytest
import torch
from checkpoint_files import assert_same
from torch import nn
from torchvision.models import resnet

from monosem.autoencoders.base import Autoencoder
from monosem.autoencoders.topk import TopK
from monosem.checkpoints.matching import fitted, in_order, matched, resnet_depth
from monosem.checkpoints.safe_load import WeightsError
from monosem.checkpoints.weights import read
from monosem.learning.encoders import Projector, SmallConv


@pytest.fixture
def path(tmp_path):
    return tmp_path / "last.ckpt"


@pytest.fixture
def layout(golden):
    """name -> zeros of the shapes in the authors' CIFAR checkpoint, which take no memory."""
    shapes = golden("l_state_dict_shapes.json")
    kinds = {name: torch.int64 if name.endswith("tracked") else torch.float32 for name in shapes}
    return {
        name: torch.zeros((), dtype=kinds[name]).expand(shape) for name, shape in shapes.items()
    }


def without(tensors, *heads):
    return {name: tensor for name, tensor in tensors.items() if name.partition(".")[0] not in heads}


def renamed(tensors, old, new):
    return {
        new + name.removeprefix(old) if name.startswith(old) else name: tensor
        for name, tensor in tensors.items()
    }


def tiny():
    """wanted, and a file's tensors of the same names that differ in value."""
    torch.manual_seed(0)
    parts = {
        "backbone": SmallConv(2, 4).build((3, 32, 32)),
        "projector": Projector(5, 6).build(4),
        "autoencoder": Autoencoder(6, 8, TopK(2)),
    }
    wanted = nn.ModuleDict(parts).state_dict()
    given = {
        name: torch.rand(tensor.shape) if tensor.is_floating_point() else tensor + 7
        for name, tensor in wanted.items()
    }
    return wanted, given


def refusal(given, wanted, path):
    """What is said of a file that does not fit: one line that names it."""
    with pytest.raises(WeightsError) as error:
        matched(given, wanted, path)
    message = str(error.value)
    assert message.startswith(f"{path} does not fit the network. "), message
    assert "\n" not in message and len(message) < 900, message
    return message


@pytest.mark.parametrize("theirs", ["solo-learn", "older solo-learn", "DataParallel", "twice"])
def test_solo_learn_s_whole_layout_is_matched_and_its_classifier_left(layout, path, theirs):
    given = {
        "solo-learn": layout,
        "older solo-learn": renamed(layout, "backbone.", "encoder."),
        "DataParallel": renamed(layout, "", "module."),
        "twice": renamed(renamed(layout, "backbone.", "encoder."), "", "module.module."),
    }[theirs]
    extra = {
        "queue": torch.ones(2),
        "queue_ptr": torch.ones(1),
        "momentum_backbone.conv1.weight": torch.ones(1),
        "predictor.0.weight": torch.ones(1),
    }
    prefix = {"DataParallel": "module.", "twice": "module.module."}.get(theirs, "")
    wanted = without(layout, "classifier")
    matches = matched({**given, **renamed(extra, "", prefix)}, wanted, path)
    assert list(matches) == list(wanted)
    assert all(matches[name].shape == tensor.shape for name, tensor in wanted.items())


def test_a_backbone_alone_is_matched_and_its_last_layer_left(layout, path):
    wanted = without(layout, "classifier", "projector")
    bare = {
        **renamed(wanted, "backbone.", ""),
        "fc.weight": torch.ones(1000, 512),
        "fc.bias": torch.ones(1000),
    }
    assert list(matched(bare, wanted, path)) == list(wanted)
    assert list(matched(layout, wanted, path)) == list(wanted)  # its projector is of no use here


def test_the_encoder_of_an_autoencoder_is_not_taken_for_a_backbone(path):
    wanted, given = tiny()
    for theirs in (
        given,
        renamed(given, "autoencoder.", ""),
        renamed(renamed(given, "backbone.", "encoder."), "autoencoder.", ""),
    ):
        assert_same(matched(theirs, wanted, path), given)
    assert "encoder.weight" in theirs and "encoder.0.weight" in theirs
    fewer = without(wanted, "autoencoder")
    assert_same(matched(theirs, fewer, path), without(given, "autoencoder"))


def test_a_matched_state_can_be_loaded_and_computes_the_same(path):
    torch.manual_seed(0)
    ours, theirs = (SmallConv(2, 4).build((3, 32, 32)).eval() for _ in range(2))
    torch.save({"state_dict": renamed(theirs.state_dict(), "", "backbone.")}, path)
    matches = matched(read(path), renamed(ours.state_dict(), "", "backbone."), path)
    ours.load_state_dict(renamed(matches, "backbone.", ""))
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(ours(images), theirs(images))


def test_types_become_the_wanted_ones_and_missing_counts_zero(path):
    wanted, given = tiny()
    given = {name: tensor.double() for name, tensor in given.items() if tensor.is_floating_point()}
    matches = matched(given, wanted, path)
    assert all(matches[name].dtype == tensor.dtype for name, tensor in wanted.items())
    assert all(not matches[name].any() for name in wanted if name not in given)


def test_wanted_may_be_on_meta(path):
    wanted, given = tiny()
    on_meta = {name: tensor.to("meta") for name, tensor in wanted.items()}
    assert_same(matched(given, on_meta, path), given)


def test_matches_are_copies_as_a_file_may_be_mapped(path):
    wanted, given = tiny()
    matches = matched(given, wanted, path)
    assert all(matches[name].data_ptr() != tensor.data_ptr() for name, tensor in given.items())


def test_missing_and_left_over_tensors_are_named_three_of_each(layout, path):
    wanted = without(layout, "classifier")
    message = refusal({"backbone.layer9.weight": torch.ones(2, 3)}, wanted, path)
    assert (
        "missing: backbone.conv1.weight (64, 3, 3, 3), backbone.bn1.weight (64,), "
        "backbone.bn1.bias (64,) and 101 more" in message
    )
    assert "left over: backbone.layer9.weight (2, 3)" in message
    assert "It has no projector" in message


def test_misshapen_tensors_are_named_three_of_each(layout, path):
    half = {name: tensor[:2] if tensor.ndim else tensor for name, tensor in layout.items()}
    message = refusal(half, without(layout, "classifier"), path)
    first = "backbone.conv1.weight (2, 3, 3, 3) instead of (64, 3, 3, 3), "
    assert f"of another shape: {first}" in message and " and 101 more" in message
    assert "missing:" not in message and "left over:" not in message


@pytest.mark.parametrize(
    "name",
    [
        "classifier2.weight",
        "backbone.fc.weight",
        "projectors.0.weight",
        "encoder.bias",
        "encoder.weights",
        "head.weight",
    ],
)
def test_a_name_that_only_resembles_a_known_one_is_left_over(layout, path, name):
    complaint = f"left over: {name} (2,)"
    whole = without(layout, "classifier")
    assert complaint in refusal({**layout, name: torch.ones(2)}, whole, path)
    backbone = without(layout, "classifier", "projector")
    bare = renamed(backbone, "backbone.", "")
    if not name.startswith(("encoder.", "backbone.")):
        assert complaint in refusal({**bare, name: torch.ones(2)}, backbone, path)


def test_two_tensors_for_one_name_are_not_chosen_between(path):
    wanted, given = tiny()
    twice = {**given, "pre_bias": torch.ones(6)}
    assert "left over: pre_bias (6,)" in refusal(twice, wanted, path)
    twice = {**given, "encoder.0.weight": torch.ones(6)}
    assert "left over: encoder.0.weight" in refusal(twice, wanted, path)


def test_the_other_stem_is_hinted_at(layout, path):
    wanted = without(layout, "classifier")
    large = {**layout, "backbone.conv1.weight": torch.zeros(()).expand(64, 3, 7, 7)}
    message = refusal(large, wanted, path)
    assert "It has the ImageNet stem: ResNet.stem = 'imagenet'. of another shape" in message
    assert "(64, 3, 7, 7) instead of (64, 3, 3, 3)" in message
    message = refusal(wanted, without(large, "classifier"), path)
    assert "It has the CIFAR stem: ResNet.stem = 'cifar'" in message


def test_a_projector_of_other_sizes_is_hinted_at(layout, path):
    with torch.device("meta"):
        projector = Projector(2048, 256).build(512).state_dict()
    wanted = without(layout, "classifier", "projector") | renamed(projector, "", "projector.")
    message = refusal(layout, wanted, path)
    assert "It has Projector.hidden = 16384, Projector.features = 2048" in message
    assert "projector.0.weight (16384, 512) instead of (2048, 512)" in message


@pytest.mark.parametrize(
    ("depth", "convolutions", "blocks"), [(50, 3, (3, 4, 6, 3)), (34, 2, (3, 4, 6, 3))]
)
def test_another_depth_is_hinted_at(layout, path, depth, convolutions, blocks):
    deep = {}
    for layer, count in enumerate(blocks, 1):
        for block in range(count):
            for convolution in range(1, convolutions + 1):
                deep[f"layer{layer}.{block}.conv{convolution}.weight"] = torch.ones(2)
    wanted = without(layout, "classifier", "projector")
    assert f"It has ResNet.depth = {depth}" in refusal(deep, wanted, path)


def test_the_same_depth_is_no_hint(layout, path):
    wanted = without(layout, "classifier", "projector")
    assert "ResNet.depth" not in refusal({**wanted, "backbone.x": torch.ones(1)}, wanted, path)


def test_the_hints_agree_with_torchvision(layout):
    with torch.device("meta"):
        deep = resnet.resnet50().state_dict()
    assert (resnet_depth(layout), resnet_depth(renamed(deep, "", "backbone."))) == (18, 50)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(path, value):
    wanted, given = tiny()
    given["projector.0.weight"][1, 2] = value
    complaint = "not finite in projector.0.weight: that training diverged"
    with pytest.raises(WeightsError, match=complaint):
        matched(given, wanted, path)


def test_whole_numbers_are_not_taken_for_weights(path):
    wanted, given = tiny()
    given["projector.0.bias"] = torch.ones(5, dtype=torch.int64)
    complaint = "of another type: projector.0.bias int64 instead of float32"
    assert complaint in refusal(given, wanted, path)


# One tensor after the other


def in_order_refusal(given, wanted, path):
    with pytest.raises(WeightsError) as error:
        in_order(given, wanted, path)
    return str(error.value)


def shuffled_names(tensors):
    """Names of somebody's own, whose last words are the same."""
    return {
        f"part{place}.{name.rpartition('.')[2]}": tensor
        for place, (name, tensor) in enumerate(tensors.items())
    }


def test_tensors_in_order_get_the_names_of_the_network(path):
    wanted, given = tiny()
    assert_same(in_order(shuffled_names(given), wanted, path), given)


def test_another_number_of_tensors_another_shape_and_another_role_are_refused(path):
    wanted = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3)).state_dict()
    short = dict([*wanted.items()][:-1])
    assert "it has 3 tensors and the network has 4" in in_order_refusal(short, wanted, path)
    turned = {**wanted, "1.weight": torch.zeros(2, 3)}
    assert (
        "number 3 is the first of another shape or role: 1.weight (2, 3) for 1.weight (3, 2)"
        in (in_order_refusal(turned, wanted, path))
    )
    norm = nn.BatchNorm1d(3).state_dict()
    exchanged = {name: norm[name] for name in ("bias", "weight", *[*norm][2:])}
    assert "bias (3,) for weight (3,)" in in_order_refusal(exchanged, norm, path)


def test_a_file_may_have_a_classifier_beside_the_network_and_nothing_else(path):
    wanted, _ = tiny()
    head = {"head.weight": torch.zeros(2), "neck.weight": torch.zeros(2)}
    assert_same(fitted({**wanted, "head.weight": torch.zeros(2)}, wanted, ("head",), path), wanted)
    with pytest.raises(WeightsError, match=r"left over: neck.weight \(2,\)"):
        fitted({**wanted, **head}, wanted, ("head",), path)


def test_names_that_are_all_others_point_to_the_order(path):
    wanted, given = tiny()
    with pytest.raises(WeightsError, match="WeightsFile.match = 'order'"):
        fitted(shuffled_names(given), wanted, (), path)


def test_a_missing_count_is_zero_and_a_missing_index_is_missing(path):
    index = torch.tensor([[1, 2]])
    wanted = {"index": index, "norm.num_batches_tracked": torch.tensor(0)}
    assert fitted({"index": index}, wanted, (), path)["norm.num_batches_tracked"] == 0
    with pytest.raises(WeightsError, match=r"missing: index \(1, 2\)"):
        fitted({"norm.num_batches_tracked": torch.tensor(1)}, wanted, (), path)
