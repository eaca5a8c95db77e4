"""Layouts in which people leave networks: the right tensors are read, or a binding is named.

Each layout is written by the class that makes it, where torch has it.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision.models import resnet

from monosem.checkpoints.layouts import placed
from monosem.checkpoints.safe_load import WeightsError
from monosem.checkpoints.weights import read
from monosem.core.fields import FieldError
from monosem.core.stage import key
from monosem.learning.encoders import Projector, ResNet
from monosem.models.checkpoint import Checkpoint


class Block(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.downsample = nn.Sequential(nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out))


class Small(nn.Module):
    """A network with the names of a ResNet, in the order of its children."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.conv1, self.bn1 = nn.Conv2d(3, 2, 3, bias=False), nn.BatchNorm2d(2)
        self.relu, self.maxpool = nn.ReLU(), nn.MaxPool2d(2)
        for layer in range(1, 5):
            self.add_module(f"layer{layer}", nn.Sequential(Block(layer + 1, layer + 2)))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 7)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight)


@pytest.fixture(scope="module")
def nets():
    assert list(dict(Small(0).named_children())) == list(dict(resnet.resnet18().named_children()))
    return Small(0), Small(1)


@pytest.fixture(scope="module")
def wanted(nets):
    """As Checkpoint wants it: without the last layer, on the meta device."""
    state = nets[0].state_dict()
    return {f"backbone.{n}": t.to("meta") for n, t in state.items() if not n.startswith("fc.")}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.pth"


def named(prefix, net):
    return {prefix + name: tensor for name, tensor in net.state_dict().items()}


def assert_of(tensors, net):
    state = net.state_dict()
    assert tensors and all(
        torch.equal(tensor, state[name.removeprefix("backbone.")])
        for name, tensor in tensors.items()
    )


class Wrapping(nn.Module):
    """A network as a part of a model of somebody's own."""

    def __init__(self, name, net):
        super().__init__()
        self.add_module(name, net)


PREFIXES = """_orig_mod. module._orig_mod. backbone._orig_mod. encoder. encoder_q. model. net.
module. module.net. model.backbone. student. teacher.backbone. ema.module."""


@pytest.mark.parametrize("prefix", ["", *PREFIXES.split()])
def test_a_network_under_any_one_prefix_is_read(nets, wanted, path, prefix):
    assert_of(placed(named(prefix, nets[0]), wanted, path, None), nets[0])


def test_what_torch_itself_wraps_is_read(nets, wanted, path):
    averaged = AveragedModel(nets[0])  # has a count beside it
    compiled = Wrapping("_orig_mod", nets[0])  # what torch.compile gives is called so
    for wrapper in (compiled, nn.DataParallel(compiled), averaged, Wrapping("net", compiled)):
        assert_of(placed(wrapper.state_dict(), wanted, path, None), nets[0])


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.backbone.", "module.encoder."])
@pytest.mark.parametrize("end", [-1, None], ids=["without the last layer", "whole"])
def test_the_numbered_children_of_a_sequential_are_read(nets, wanted, path, prefix, end):
    sequential = nn.Sequential(*list(nets[0].children())[:end])
    head = prefix.removesuffix("backbone.").removesuffix("encoder.") + "projection_head.0.weight"
    given = named(prefix, sequential) | {head: torch.ones(2, 2)}
    assert "7.0.conv1.weight" in sequential.state_dict()
    assert_of(placed(given, wanted, path, None), nets[0])
    assert_of(placed(named(prefix, sequential), wanted, path, None), nets[0])


def test_children_out_of_place_are_refused_by_their_shapes(nets, wanted, path):
    children = list(nets[0].children())[:-1]
    children[4], children[5] = children[5], children[4]
    with pytest.raises(WeightsError, match="does not fit the network"):
        placed(named("backbone.", nn.Sequential(*children)), wanted, path, None)


HEADS = ["head.weight", "linear.0.weight", "projection_head.layers.0.weight", "mlp_head.bias"]


@pytest.mark.parametrize("prefix", ["", "backbone.", "model."])
def test_heads_that_nobody_asked_for_are_left_out(nets, wanted, path, prefix):
    beside = {"": "", "backbone.": "", "model.": "model."}[prefix]
    heads = {beside + name: torch.ones(3, 2) for name in HEADS}
    assert_of(placed(named(prefix, nets[0]) | heads, wanted, path, None), nets[0])


def test_a_layer_more_is_no_head(nets, wanted, path):
    given = named("backbone.", nets[0]) | {"backbone.layer5.0.weight": torch.ones(2)}
    said = (
        r"left over: .*backbone.layer5.0.weight \(2,\). Checkpoint.prefix = '' leaves out what is"
    )
    with pytest.raises(WeightsError, match=said):
        placed(given, wanted, path, None)
    assert_of(placed(given, wanted, path, ""), nets[0])
    children = [*list(nets[0].children())[:-1], nn.Sequential(nn.Conv2d(6, 6, 1))]
    with pytest.raises(WeightsError, match="does not fit the network"):
        placed(named("backbone.", nn.Sequential(*children)), wanted, path, None)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("module.encoder_q.", "module.encoder_k."),
        ("student.backbone.", "teacher.backbone."),
        ("model.", "ema_model.module."),
        ("online_network.", "target_network."),
        ("", "ema."),
    ],
)
def test_of_two_networks_a_person_chooses_by_the_prefix_that_is_named(
    nets, wanted, path, first, second
):
    queue = {"module.queue": torch.ones(8, 8)} if first.startswith("module.") else {}
    given = named(first, nets[0]) | named(second, nets[1]) | queue
    with pytest.raises(WeightsError, match="holds 2 networks that fit: Checkpoint.prefix = ") as e:
        placed(given, wanted, path, None)
    choices = str(e.value).partition("prefix = ")[2].removesuffix(" says which").split(" or ")
    chosen = [placed(given, wanted, path, choice.strip("'")) for choice in choices]
    assert_of(chosen[0], nets[0])
    assert_of(chosen[1], nets[1])
    assert_of(placed(given, wanted, path, second), nets[1])


def test_a_prefix_that_nothing_has_is_answered_with_what_there_is(nets, wanted, path):
    with pytest.raises(
        WeightsError, match="no such names that begin with 'encodr.'.* net.conv1.weight"
    ):
        placed(named("net.", nets[0]), wanted, path, "encodr.")


def test_another_network_under_a_prefix_is_hinted_at_as_one_without(path):
    with torch.device("meta"):
        deep = {f"model.net.{n}": t for n, t in resnet.resnet50().state_dict().items()}
        small = {f"backbone.{n}": t for n, t in ResNet().build((3,)).state_dict().items()}
    with pytest.raises(WeightsError, match=r"under 'model.net.'.*It has ResNet.depth = 50"):
        placed(deep, small, path, None)


def test_a_backbone_and_its_projector_are_found_together(nets, wanted, path):
    head = Projector(5, 6).build(6)
    both = wanted | {f"projector.{n}": t for n, t in head.state_dict().items()}
    given = named("model.backbone.", nets[0]) | named("model.projector.", head)
    found = placed(given, both, path, None)
    assert torch.equal(found["projector.0.weight"], head[0].weight)
    assert list(found) == list(both)


# Entries of a dictionary


def test_one_network_of_any_name_is_read_and_of_several_a_person_chooses(path):
    first, second = {"w": torch.ones(2, 2)}, {"w": torch.zeros(2, 2)}
    optimizer = {"state": {0: {"exp_avg": torch.ones(2, 2)}}, "param_groups": [{"lr": 0.1}]}
    rest = {"optimizer": optimizer, "epoch": 3, "step": torch.tensor(7)}
    torch.save({"model_state_dict": first, **rest}, path)
    assert torch.equal(read(path)["w"], first["w"])
    torch.save({"student": first, "teacher": {"state_dict": second}, **rest}, path)
    with pytest.raises(WeightsError, match="Checkpoint.entry = 'student' or 'teacher' says which"):
        read(path)
    assert torch.equal(read(path, "teacher")["w"], second["w"])
    torch.save({"model": {"ema": second, "net": first}, "state": first, **rest}, path)
    assert torch.equal(read(path, "model.ema")["w"], second["w"])
    with pytest.raises(WeightsError, match="no tensors under Checkpoint.entry = 'emma'; it has"):
        read(path, "emma")


def test_the_plain_entry_is_read_as_ever_where_an_average_lies_beside_it(path):
    torch.save({"model": {"w": torch.ones(2, 2)}, "model_ema": {"w": torch.zeros(2, 2)}}, path)
    assert torch.equal(read(path)["w"], torch.ones(2, 2))
    assert torch.equal(read(path, "model_ema")["w"], torch.zeros(2, 2))


def test_what_is_chosen_is_in_the_key_and_a_refusal_names_the_field(path, nets):
    torch.save(named("module.encoder_q.", nets[0]), path)
    keys = {
        key(Checkpoint(path=str(path), encoder=ResNet(), prefix=prefix))
        for prefix in ("module.encoder_q.", "module.encoder_k.", None)
    }
    entry = key(Checkpoint(path=str(path), encoder=ResNet(), entry="module.encoder_q."))
    assert len(keys | {entry}) == 4
    with pytest.raises(FieldError, match="Checkpoint.path cannot be used: .*does not fit"):
        Checkpoint(path=str(path), encoder=ResNet(), prefix="module.encoder_q.").preflight()
