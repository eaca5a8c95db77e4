"""Laws of torch.save's files: nothing in them runs, and all but their tensors is forgotten."""

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
from checkpoint_files import assert_refused, assert_same, odd_tensors
from torch import nn

from monosem.checkpoints import safe_load
from monosem.checkpoints.safe_load import _AsDictionary, _AsList, _Forgetful
from monosem.checkpoints.weights import read

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "last.ckpt"


@pytest.fixture
def foreign(monkeypatch):
    """Makes a class of a package that is not installed; it can be pickled until `forget`."""
    modules = []

    def make(module, name, base=object, **attributes):
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            package = ".".join(parts[:end])
            monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
            modules.append(package)
        cls = type(name, (base,), {"__module__": module, **attributes})
        setattr(sys.modules[module], name, cls)
        return cls

    def forget():
        for module in modules:
            monkeypatch.delitem(sys.modules, module, raising=False)

    make.forget = forget
    return make


class Calls:
    """A pickle that calls `function` with `arguments` as it is read."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments

    def __str__(self):
        return self.function.__name__


HARMFUL = [
    (Calls(os.system, "touch it_ran"), "os.system"),
    (Calls(eval, "open('it_ran', 'w')"), "builtins.eval"),
    (Calls(exec, "open('it_ran', 'w')"), "builtins.exec"),
    (Calls(getattr, "os", "system"), "builtins.getattr"),
    (Calls(subprocess.Popen, ["touch", "it_ran"]), "subprocess.Popen"),
    (Calls(functools.partial, os.system, "touch it_ran"), "functools.partial"),
    (Calls(torch.load, "it_ran"), "torch.serialization.load"),
    (Calls(torch.jit.load, "it_ran"), "torch.jit._serialization.load"),
    (Calls(torch.storage._load_from_bytes, b""), "torch.storage._load_from_bytes"),
]


def save_zip(path, pickled, protocol=b"\x80\x02"):
    """A file of torch.save with `pickled` in place of the checkpoint."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in members if name.endswith("/data.pkl"))
    members[name] = protocol + pickled
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@FORMATS
@pytest.mark.parametrize(
    "wrap",
    [dict, lambda t: {"state_dict": t, "epoch": 3}, lambda t: {"model": {"state_dict": t}}],
    ids=["bare", "state_dict", "nested"],
)
def test_every_tensor_is_read_as_it_was_saved(path, zipped, wrap):
    torch.save(wrap(odd_tensors()), path, _use_new_zipfile_serialization=zipped)
    assert_same(read(path), odd_tensors())


@FORMATS
def test_a_lightning_checkpoint_is_read_without_the_packages_that_wrote_it(path, foreign, zipped):
    def stop(self, state):
        os._exit(1)

    config = foreign("omegaconf.dictconfig", "DictConfig", __setstate__=stop)
    attributes = foreign("pytorch_lightning.utilities.parsing", "AttributeDict", base=dict)
    schedule = foreign("solo.utils.lr_scheduler", "Schedule")
    loop = config()
    loop.__dict__ = {
        "_content": {"lr": 0.4, "parent": loop},
        "any": np.float64(1.0),
        "set": {1},
        "none": type(None),
        "bytes": b"\xff",
    }
    namespace = argparse.Namespace(path=pathlib.Path("/data"), device=torch.device("cuda"))
    parameters = attributes(cfg=loop, args=namespace)
    parameters.extra = 1
    best = collections.defaultdict(
        list,
        best=[torch.ones(1)],
        counts=collections.Counter("aab"),
        recent=collections.deque([1, 2]),
        array=np.ones(3),
    )
    checkpoint = {
        "epoch": 199,
        "hyper_parameters": parameters,
        "callbacks": {"Best": best, schedule: pathlib.PurePosixPath("/a")},
        "optimizer_states": [{"state": {0: {"momentum": torch.ones(3)}}, "dtype": torch.bfloat16}],
        "lr_schedulers": [schedule()],
        "loops": {"size": torch.Size([1, 2])},
        "state_dict": collections.OrderedDict(odd_tensors()),
    }
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    foreign.forget()
    before = set(sys.modules)
    assert_same(read(path), odd_tensors())
    imported = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert imported.isdisjoint({"omegaconf", "pytorch_lightning", "solo"})


@FORMATS
@pytest.mark.parametrize(("call", "name"), HARMFUL, ids=str)
def test_a_file_that_wants_to_call_something_is_refused_by_name(
    path, monkeypatch, zipped, call, name
):
    monkeypatch.chdir(path.parent)
    checkpoint = {"state_dict": odd_tensors(), "callbacks": [call]}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    assert_refused(path, f"wants to call {name}: refused")
    assert not pathlib.Path("it_ran").exists()


@FORMATS
@pytest.mark.parametrize(("call", "name"), HARMFUL, ids=str)
def test_a_file_of_another_pickle_protocol_is_refused_before_it_calls_anything(
    path, monkeypatch, zipped, call, name
):
    monkeypatch.chdir(path.parent)
    checkpoint = {"state_dict": odd_tensors(), "callbacks": [call]}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped, pickle_protocol=4)
    assert_refused(path, "usual protocol")
    assert not pathlib.Path("it_ran").exists()


def test_a_harmful_name_is_refused_where_nothing_else_is_read(path, monkeypatch):
    """Before torch.load sees the file."""
    monkeypatch.setattr(torch, "load", None)
    torch.save({"state_dict": odd_tensors(), "callbacks": [Calls(os.system, "true")]}, path)
    assert_refused(path, "wants to call os.system: refused")


def test_a_call_hidden_in_the_state_of_a_harmless_object_is_refused(path, foreign):
    config = foreign("omegaconf.dictconfig", "DictConfig")()
    hidden = collections.OrderedDict(x=Calls(os.system, f"touch {path}.ran"))
    config.inner = argparse.Namespace(deep=[hidden])
    torch.save({"state_dict": odd_tensors(), "hyper_parameters": config}, path)
    foreign.forget()
    assert_refused(path, "os.system")
    assert not path.with_name("last.ckpt.ran").exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_plain_pickle_is_refused_before_it_calls_anything(path, protocol):
    path.write_bytes(pickle.dumps(Calls(os.system, f"touch {path}.ran"), protocol))
    assert_refused(path, "not one of torch.save")
    path.write_bytes(pickle.dumps({"a": 1}, protocol))
    assert_refused(path, "not one of torch.save")
    assert not path.with_name("last.ckpt.ran").exists()


@pytest.mark.parametrize(
    "name",
    [
        b"omegaconf\nos.system",
        b"typing\nsys.modules",
        b"collections\nOrderedDict.__init__.__globals__",
        b"collections\nabc.sys.modules",
    ],
)
def test_a_dotted_name_in_a_harmless_package_leads_nowhere(path, name):
    asked = b"c" + name + b"\n"
    save_zip(path, asked + b"X\x02\0\0\0idR.")  # REDUCE of a string in place of a tuple
    assert_refused(path, "it is no dictionary")
    save_zip(path, b"}X\x01\0\0\0x" + asked + b"X\x02\0\0\0id\x85Rs.")
    assert_refused(path, "holds no tensors by name: there is x at its top")


@pytest.mark.parametrize(
    "function",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch._utils\n_rebuild_parameter\n",
        b"ctyping\nAny\n",
        b"ccollections\ndefaultdict\n",
        b"ccollections\ndeque\n",
    ],
)
@pytest.mark.parametrize("name", [b"x", b"__setitem__", b"__new__", b"__code__", b"__defaults__"])
@pytest.mark.parametrize("state", [b"}X%bK\1s", b"N}X%bK\1s\x86"], ids=["state", "slots"])
def test_a_pickle_cannot_alter_what_reads_it(path, function, name, state):
    classes = (_Forgetful, _AsDictionary, _AsList, torch._utils._rebuild_tensor_v2)
    before = [dict(vars(cls)) for cls in classes]
    text = len(name).to_bytes(4, "little") + name
    save_zip(path, function + state % text + b"b.")  # BUILD, on the class itself
    assert_refused(path, "damaged")
    assert [dict(vars(cls)) for cls in classes] == before


def test_what_stands_in_for_a_foreign_object_takes_no_attributes_and_keeps_no_state():
    stand_in = _Forgetful(1, 2)
    stand_in.__setstate__({"x": 1})
    assert not vars(stand_in)
    assert _AsDictionary(list) == {} and _AsList([1], 3) == []


def test_stand_ins_are_known_to_torch_only_while_a_file_is_read(path):
    torch.save({"state_dict": {"a": torch.ones(1)}, "args": argparse.Namespace(a=1)}, path)
    read(path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((100,), (1,), 0), ((2,), (1,), 3), ((2,), (1,), -1), ((2,), (-1,), 2), ((2,), (9,), 0)],
)
def test_a_tensor_cannot_reach_beyond_its_storage(path, monkeypatch, size, stride, offset):
    def reach(self, protocol):
        arguments = (self._typed_storage(), offset, size, stride, False, {})
        return torch._utils._rebuild_tensor_v2, arguments

    monkeypatch.setattr(torch.Tensor, "__reduce_ex__", reach)
    torch.save({"a": torch.ones(4)}, path)
    assert_refused(path, "damaged")


def test_a_flipped_bit_is_noticed_in_any_member_of_a_zip(path):
    threes = torch.full((100,), 3.0).numpy().tobytes()
    for checkpoint in (
        {"a": torch.full((100,), 3.0)},
        {"optimizer_states": [torch.full((100,), 3.0)], "state_dict": {"a": torch.ones(2)}},
    ):
        torch.save(checkpoint, path)
        data = path.read_bytes()
        assert threes in data
        path.write_bytes(data.replace(threes, b"\1" + threes[1:]))
        assert_refused(path, "damaged")


def test_a_compressed_zip_is_refused_as_its_bytes_are_no_numbers(path):
    torch.save({"a": torch.full((100,), 3.0)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert_refused(path, "is a compressed zip archive")


def test_tensors_of_a_zip_are_mapped_from_the_file_so_that_optimizer_states_take_no_memory(
    path, monkeypatch
):
    seen = []
    load = torch.load
    monkeypatch.setattr(
        torch, "load", lambda *args, **options: seen.append(options) or load(*args, **options)
    )
    torch.save({"a": torch.ones(3)}, path)
    assert_same(read(path), {"a": torch.ones(3)})
    assert seen == [{"map_location": "cpu", "weights_only": True, "mmap": True}]


def test_names_out_of_a_file_cannot_write_to_the_terminal(path):
    save_zip(path, b"cos\n\x1b[2J\x07\n.")
    assert_refused(path, r"wants to call 'os.\x1b[2J\x07': refused")


def test_archives_of_another_kind_are_named(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.pth", b"")
    assert_refused(path, "but not one of torch.save")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"")
        archive.writestr("a/constants.pkl", b"")
    assert_refused(path, "TorchScript")
    subprocess.run(["tar", "cf", path, "-C", path.parent, "."], check=False, capture_output=True)
    assert_refused(path, "is a tar archive")


def test_a_whole_model_is_refused(path):
    torch.save(nn.Linear(1, 1), path)
    assert_refused(path, "torch.nn.modules.linear.Linear")


def test_no_harmless_name_is_a_function_of_the_system():
    for name in ("os.system", "subprocess.run", "builtins.eval", "builtins.getattr", "sys.exit"):
        assert not safe_load._is_harmless(name)
