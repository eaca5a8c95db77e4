"""Laws of somebody else's weights: nothing in their files runs, every tensor is found under its name or the file is refused."""

from __future__ import annotations

import argparse
import collections
import functools
import os
import pathlib
import pickle
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from monosem.learning.encoders import Projector, SmallConv
from monosem.learning.sparse import Autoencoder, TopK
from monosem.models.weights import WeightsError, _Dict, _Inert, _Note, _Same, matched, read


@pytest.fixture
def path(tmp_path):
    return tmp_path / "last.ckpt"


@pytest.fixture
def foreign(monkeypatch):
    """Makes a class of a package that is not installed, which can be pickled until `forget` is called."""
    made = []

    def make(module, name, **attributes):
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            monkeypatch.setitem(
                sys.modules, ".".join(parts[:end]), types.ModuleType(".".join(parts[:end]))
            )
        made.extend(".".join(parts[:end]) for end in range(1, len(parts) + 1))
        cls = type(name, (attributes.pop("base", object),), {"__module__": module, **attributes})
        setattr(sys.modules[module], name, cls)
        return cls

    make.forget = lambda: [monkeypatch.delitem(sys.modules, name, raising=False) for name in made]
    return make


class Calls:
    """A pickle that calls `function` with `arguments` as it is read."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments

    def __str__(self):
        return self.function.__name__


def some_tensors():
    weight = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    return {
        "backbone.weight": nn.Parameter(weight),
        "backbone.transposed": weight.t(),
        "backbone.slice": weight[1:3, ::2],
        "backbone.half": weight.half(),
        "backbone.brain": weight.bfloat16(),
        "backbone.empty": torch.zeros(0, 3),
        "backbone.on": weight > 0,
        "backbone.num_batches_tracked": torch.tensor(7),
        "backbone.expanded": torch.ones(()).expand(5, 6),
    }


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert (
            found[name].dtype == tensor.dtype
            and found[name].shape == tensor.shape
            and torch.equal(found[name], tensor)
        ), name
        assert not found[name].requires_grad


def refused(path, word, wanted=None):
    with pytest.raises(WeightsError) as error:
        read(path) if wanted is None else matched(read(path), wanted, path)
    message = str(error.value)
    assert (
        word in message and str(path) in message and "\n" not in message and len(message) < 700
    ), message
    return message


# ------------------------------------------------------------------------------------------------ what is read


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "wrap",
    [dict, lambda t: {"state_dict": t, "epoch": 3}, lambda t: {"model": {"state_dict": t}}],
    ids=["bare", "state_dict", "nested"],
)
def test_every_tensor_is_read_as_it_was_saved(path, zipped, protocol, wrap):
    torch.save(
        wrap(some_tensors()), path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol
    )
    assert_same(read(path), some_tensors())


def test_safetensors_are_read_whatever_the_file_is_called(path):
    tensors = {
        name: tensor.detach().clone().contiguous()
        for name, tensor in sorted(some_tensors().items())
    }
    save_file(tensors, path)
    assert {name: tensor.tolist() for name, tensor in read(path).items()} == {
        name: tensor.tolist() for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_a_lightning_checkpoint_is_read_without_the_packages_that_wrote_it(path, foreign, zipped):
    config = foreign(
        "omegaconf.dictconfig", "DictConfig", __setstate__=lambda self, state: os._exit(1)
    )
    listed = foreign("omegaconf.listconfig", "ListConfig", base=list)
    attributes = foreign("pytorch_lightning.utilities.parsing", "AttributeDict", base=dict)
    schedule = foreign("solo.utils.lr_scheduler", "Schedule")
    one = config()
    one.__dict__ = {
        "_content": {"lr": 0.4, "parent": one},
        "any": np.float64(1.0),
        "set": {1},
        "none": type(None),
        "bytes": b"\xff",
    }
    several = listed([1, 2])
    several.extra = one
    top = {
        "epoch": 199,
        "hyper_parameters": attributes(
            cfg=one,
            list=several,
            args=argparse.Namespace(path=pathlib.Path("/data"), device=torch.device("cuda")),
        ),
        "callbacks": {
            "Best": collections.defaultdict(
                list, best=[torch.ones(1)], counts=collections.Counter("aab"), array=np.ones(3)
            )
        },
        "optimizer_states": [{"state": {0: {"momentum": torch.ones(3)}}, "dtype": torch.bfloat16}],
        "lr_schedulers": [schedule()],
        "loops": {"size": torch.Size([1, 2])},
        "state_dict": collections.OrderedDict(some_tensors()),
    }
    torch.save(top, path, _use_new_zipfile_serialization=zipped)
    foreign.forget()
    before = set(sys.modules)
    assert_same(read(path), some_tensors())
    assert not {
        name
        for name in set(sys.modules) - before
        if name.partition(".")[0] in {"omegaconf", "pytorch_lightning", "solo"}
    }


def test_only_the_storages_of_weights_are_read_from_the_disk(path):
    """So an optimizer state of twice the size costs nothing: here its bytes are damaged, and nobody notices."""
    torch.save(
        {"optimizer_states": [torch.full((100,), 3.0)], "state_dict": {"a": torch.ones(2)}}, path
    )
    data = path.read_bytes()
    threes = torch.full((100,), 3.0).numpy().tobytes()
    assert threes in data
    path.write_bytes(data.replace(threes, b"\1" * len(threes)))
    assert_same(read(path), {"a": torch.ones(2)})


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Calls(os.system, "touch it_ran"), "os.system"),
        (Calls(eval, "open('it_ran', 'w')"), "builtins.eval"),
        (Calls(exec, "open('it_ran', 'w')"), "builtins.exec"),
        (Calls(getattr, "os", "system"), "builtins.getattr"),
        (Calls(subprocess.Popen, ["touch", "it_ran"]), "subprocess.Popen"),
        (Calls(functools.partial, os.system, "touch it_ran"), "functools.partial"),
        (Calls(torch.load, "it_ran"), "torch.serialization.load"),
        (Calls(torch.jit.load, "it_ran"), "torch.jit._serialization.load"),
        (Calls(torch.storage._load_from_bytes, b""), "torch.storage._load_from_bytes"),
    ],
    ids=str,
)
def test_a_file_that_wants_to_call_something_is_refused_by_name(
    path, monkeypatch, zipped, protocol, call, name
):
    monkeypatch.chdir(path.parent)
    torch.save(
        {"state_dict": some_tensors(), "callbacks": [call]},
        path,
        _use_new_zipfile_serialization=zipped,
        pickle_protocol=protocol,
    )
    refused(path, f"wants to call {name}: refused")
    assert not pathlib.Path("it_ran").exists()


def test_a_call_hidden_in_the_state_of_a_harmless_object_is_refused(path, foreign):
    config = foreign("omegaconf.dictconfig", "DictConfig")()
    config.inner = argparse.Namespace(
        deep=[collections.OrderedDict(x=Calls(os.system, f"touch {path}.ran"))]
    )
    torch.save({"state_dict": some_tensors(), "hyper_parameters": config}, path)
    foreign.forget()
    refused(path, "os.system")
    assert not path.with_name("last.ckpt.ran").exists()


def test_a_plain_pickle_is_refused_before_it_calls_anything(path):
    path.write_bytes(pickle.dumps(Calls(os.system, f"touch {path}.ran")))
    refused(path, "os.system")
    path.write_bytes(pickle.dumps({"a": 1}))
    refused(path, "not one of torch.save")
    assert not path.with_name("last.ckpt.ran").exists()


def stream(path, pickled):
    """Makes a file of the old format with `pickled` in place of the checkpoint."""
    head = b"".join(
        pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    )
    path.write_bytes(head + pickled + pickle.dumps([], 2))


@pytest.mark.parametrize(
    "name",
    [
        "omegaconf\nos.system",
        "typing\nsys.modules",
        "collections\nOrderedDict.__init__.__globals__",
        "collections\nabc.sys.modules",
    ],
)
def test_a_dotted_name_in_a_harmless_package_leads_nowhere(path, name):
    asked = name.replace("\n", " ").split()
    text = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in asked)
    stream(
        path, b"\x80\x04" + text + b"\x93\x8c\x02idR."
    )  # STACK_GLOBAL, a string in place of a tuple, REDUCE
    refused(path, "damaged")
    stream(path, b"\x80\x04}\x8c\x01x" + text + b"\x93\x8c\x02id\x85Rs.")
    refused(path, "holds no tensors by name: there is x at its top")


@pytest.mark.parametrize(
    "global_",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch._utils\n_rebuild_parameter\n",
        b"ctyping\nAny\n",
    ],
)
@pytest.mark.parametrize(
    "state", [b"}\x8c\x01xK\1s", b"N}\x8c\x0b__setitem__K\1s\x86", b"N}\x8c\x07__new__K\1s\x86"]
)
def test_a_pickle_cannot_alter_what_reads_it(path, global_, state):
    before = [dict(vars(cls)) for cls in (_Inert, _Dict, _Note, _Same)]
    stream(path, b"\x80\x04" + global_ + state + b"b.")  # BUILD, on the class itself
    refused(path, "damaged")
    assert [dict(vars(cls)) for cls in (_Inert, _Dict, _Note, _Same)] == before


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((100,), (1,), 0), ((2,), (1,), 3), ((2,), (1,), -1), ((2,), (-1,), 2), ((2,), (9,), 0)],
)
def test_a_tensor_cannot_reach_beyond_its_storage(path, monkeypatch, size, stride, offset):
    tensor = torch.ones(4)
    monkeypatch.setattr(
        torch.Tensor,
        "__reduce_ex__",
        lambda self, protocol: (
            torch._utils._rebuild_tensor_v2,
            (self._typed_storage(), offset, size, stride, False, {}),
        ),
    )
    torch.save({"a": tensor}, path)
    refused(path, "damaged")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b"<html>404</html>", "is a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "is a Git LFS pointer",
        ),
        (b"weights weights weights", "is no checkpoint"),
        (b"\x80\x02", "damaged"),
        (b"\x40\0\0\0\0\0\0\0{not json", "no safetensors"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_was_saved_in_place_of_the_file_is_named(path, data, word):
    path.write_bytes(data)
    refused(path, word)


@pytest.mark.parametrize("kind", ["zip", "stream", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 0.999])
def test_a_truncated_file_is_refused(path, kind, share):
    tensors = {"a": torch.randn(100), "b": torch.randn(300)}
    save_file(tensors, path) if kind == "safetensors" else torch.save(
        tensors, path, _use_new_zipfile_serialization=kind == "zip"
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, "truncated")


def test_a_flipped_bit_in_a_zip_is_noticed(path):
    torch.save({"a": torch.full((100,), 3.0)}, path)
    data = path.read_bytes()
    threes = torch.full((100,), 3.0).numpy().tobytes()
    path.write_bytes(data.replace(threes, b"\1" + threes[1:]))
    refused(path, "damaged")


def test_a_file_that_is_not_there_is_answered_with_the_nearest_name(path):
    path.write_bytes(b"x")
    refused(path.with_name("lst.ckpt"), "Did you mean last.ckpt?")
    refused(path.parent, "is a folder")
    with pytest.raises(WeightsError, match="there is no folder"):
        read(path / "nowhere" / "last.ckpt")


def test_a_checkpoint_without_tensors_says_what_it_holds(path):
    torch.save(
        {
            "epoch": 3,
            "args": argparse.Namespace(a=1),
            "optimizer": {"x": torch.ones(1)},
            "log": "",
            "more": "",
        },
        path,
    )
    refused(path, "there is epoch, args, optimizer and 2 more at its top")
    torch.save([torch.ones(1)], path)
    refused(path, "it is no dictionary")
    torch.save({}, path)
    refused(path, "there is nothing")
    save_file({}, path)
    refused(path, "there is nothing")


def test_a_checkpoint_that_holds_itself_ends(path):
    top = {"epoch": 1}
    top["state_dict"] = top
    torch.save(top, path)
    refused(path, "there is epoch, state_dict at its top")


def test_names_out_of_a_file_cannot_write_to_the_terminal(path):
    stream(path, b"\x80\x04\x8c\x02os\x8c\x05\x1b[2J\n\x93.")
    refused(path, r"wants to call 'os.\x1b[2J\n': refused")


def test_archives_of_another_kind_are_named(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("weights.pth", b"")
    refused(path, "but not one of torch.save")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", b"")
        file.writestr("a/constants.pkl", b"")
    refused(path, "TorchScript")
    subprocess.run(["tar", "cf", path, "-C", path.parent, "."], check=False, capture_output=True)
    refused(path, "is a tar archive")


def test_a_whole_model_is_refused(path):
    torch.save(nn.Linear(1, 1), path)
    refused(path, "torch.nn.modules.linear.Linear")


# ------------------------------------------------------------------------------------------------ what is matched


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
    network = nn.ModuleDict(
        {
            "backbone": SmallConv(2, 4).build((3, 32, 32)),
            "projector": Projector(5, 6).build(4),
            "autoencoder": Autoencoder(6, 8, TopK(2)),
        }
    )
    wanted = network.state_dict()
    return wanted, {
        name: torch.rand(t.shape) if t.is_floating_point() else t + 7 for name, t in wanted.items()
    }


@pytest.mark.parametrize("theirs", ["solo-learn", "older solo-learn", "DataParallel", "twice"])
def test_solo_learn_s_whole_layout_is_matched_and_its_classifier_left(layout, path, theirs):
    found = {
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
    matches = matched({**found, **renamed(extra, "", prefix)}, wanted, path)
    assert list(matches) == list(wanted) and all(
        matches[name].shape == tensor.shape for name, tensor in wanted.items()
    )


def test_a_backbone_alone_is_matched_and_its_last_layer_left(layout, path):
    wanted = without(layout, "classifier", "projector")
    bare = {
        **renamed(wanted, "backbone.", ""),
        "fc.weight": torch.ones(1000, 512),
        "fc.bias": torch.ones(1000),
    }
    assert list(matched(bare, wanted, path)) == list(wanted)
    assert list(matched(layout, wanted, path)) == list(
        wanted
    )  # the projector of a file is of no use here


def test_the_encoder_of_an_autoencoder_is_not_taken_for_a_backbone(path):
    wanted, found = tiny()
    for theirs in (
        found,
        renamed(found, "autoencoder.", ""),
        renamed(renamed(found, "backbone.", "encoder."), "autoencoder.", ""),
    ):
        assert_same(matched(theirs, wanted, path), found)
    assert "encoder.weight" in theirs and "encoder.0.weight" in theirs
    some = without(wanted, "autoencoder")
    assert_same(matched(theirs, some, path), without(found, "autoencoder"))


def test_a_matched_state_can_be_loaded_and_computes_the_same(path):
    torch.manual_seed(0)
    ours, theirs = (SmallConv(2, 4).build((3, 32, 32)).eval() for _ in range(2))
    torch.save({"state_dict": renamed(theirs.state_dict(), "", "backbone.")}, path)
    matches = matched(read(path), renamed(ours.state_dict(), "", "backbone."), path)
    ours.load_state_dict(renamed(matches, "backbone.", ""))
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(ours(images), theirs(images))


def test_types_become_the_wanted_ones_and_missing_counts_zero(path):
    wanted, found = tiny()
    found = {name: tensor.double() for name, tensor in found.items() if tensor.is_floating_point()}
    matches = matched(found, wanted, path)
    assert {name: tensor.dtype for name, tensor in matches.items()} == {
        name: tensor.dtype for name, tensor in wanted.items()
    }
    assert all(not matches[name].any() for name in wanted if name not in found)


def test_wanted_may_be_on_meta(path):
    wanted, found = tiny()
    assert_same(
        matched(found, {name: tensor.to("meta") for name, tensor in wanted.items()}, path), found
    )


def incompatibility(found, wanted, path):
    with pytest.raises(WeightsError) as error:
        matched(found, wanted, path)
    message = str(error.value)
    assert (
        "\n" not in message
        and message.startswith(f"{path} does not fit the network. ")
        and len(message) < 900
    ), message
    return message


def test_missing_misshapen_and_left_over_tensors_are_named_three_of_each(layout, path):
    wanted = without(layout, "classifier")
    message = incompatibility({"backbone.layer9.weight": torch.ones(2, 3)}, wanted, path)
    assert (
        "missing: backbone.conv1.weight (64, 3, 3, 3), backbone.bn1.weight (64,), backbone.bn1.bias (64,) and 101 more"
        in message
    )
    assert (
        "left over: backbone.layer9.weight (2, 3)" in message and "It has no projector" in message
    )
    half = {name: tensor[:2] if tensor.ndim else tensor for name, tensor in layout.items()}
    message = incompatibility(half, wanted, path)
    assert (
        "of another shape: backbone.conv1.weight (2, 3, 3, 3) instead of (64, 3, 3, 3), " in message
        and " and 101 more" in message
    )
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
    assert f"left over: {name} (2,)" in incompatibility(
        {**layout, name: torch.ones(2)}, without(layout, "classifier"), path
    )
    bare = renamed(without(layout, "classifier", "projector"), "backbone.", "")
    if not name.startswith(("encoder.", "backbone.")):
        assert f"left over: {name} (2,)" in incompatibility(
            {**bare, name: torch.ones(2)}, without(layout, "classifier", "projector"), path
        )


def test_two_tensors_for_one_name_are_not_chosen_between(path):
    wanted, found = tiny()
    assert "left over: pre_bias (6,)" in incompatibility(
        {**found, "pre_bias": torch.ones(6)}, wanted, path
    )
    assert "left over: encoder.0.weight" in incompatibility(
        {**found, "encoder.0.weight": torch.ones(6)}, wanted, path
    )


def test_the_other_stem_is_hinted_at(layout, path):
    wanted = without(layout, "classifier")
    large = {**layout, "backbone.conv1.weight": torch.zeros(()).expand(64, 3, 7, 7)}
    message = incompatibility(large, wanted, path)
    assert "It has the ImageNet stem: ResNet.stem = 'imagenet'. of another shape" in message
    assert "(64, 3, 7, 7) instead of (64, 3, 3, 3)" in message
    assert "It has the CIFAR stem: ResNet.stem = 'cifar'" in incompatibility(
        wanted, without(large, "classifier"), path
    )


def test_a_projector_of_other_sizes_is_hinted_at(layout, path):
    ours = renamed(
        {
            name: tensor.to("meta")
            for name, tensor in Projector(2048, 256).build(512).state_dict().items()
        },
        "",
        "projector.",
    )
    message = incompatibility(layout, {**without(layout, "classifier", "projector"), **ours}, path)
    assert "It has Projector.hidden = 16384, Projector.features = 2048" in message
    assert "projector.0.weight (16384, 512) instead of (2048, 512)" in message


def test_another_depth_is_hinted_at(layout, path):
    wanted = without(layout, "classifier", "projector")
    blocks = {50: (3, 3, 4, 6, 3), 34: (2, 3, 4, 6, 3)}
    for depth, (convs, *stages) in blocks.items():
        names = [
            f"layer{s}.{b}.conv{c}.weight"
            for s, n in enumerate(stages, 1)
            for b in range(n)
            for c in range(1, convs + 1)
        ]
        assert f"It has ResNet.depth = {depth}" in incompatibility(
            dict.fromkeys(names, torch.ones(2)), wanted, path
        )
    assert "ResNet.depth" not in incompatibility(
        {**wanted, "backbone.x": torch.ones(1)}, wanted, path
    )


def test_the_hints_agree_with_torchvision(layout):
    from torchvision.models import resnet

    from monosem.models.weights import _depth

    with torch.device("meta"):
        deep = resnet.resnet50().state_dict()
    assert (_depth(layout), _depth(renamed(deep, "", "backbone."))) == (18, 50)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(path, value):
    wanted, found = tiny()
    found["projector.0.weight"][1, 2] = value
    with pytest.raises(
        WeightsError, match="not finite in projector.0.weight: that training diverged"
    ):
        matched(found, wanted, path)


def test_whole_numbers_are_not_taken_for_weights(path):
    wanted, found = tiny()
    found["projector.0.bias"] = torch.ones(5, dtype=torch.int64)
    assert "of another type: projector.0.bias int64 instead of float32" in incompatibility(
        found, wanted, path
    )
