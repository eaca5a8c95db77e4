"""Laws of files of weights: which kinds are read, and what is said of the others."""

from __future__ import annotations

import argparse

import pytest
import torch
from checkpoint_files import assert_refused, assert_same, odd_tensors
from safetensors.torch import save_file

from monosem.checkpoints.safe_load import WeightsError
from monosem.checkpoints.weights import read


@pytest.fixture
def path(tmp_path):
    return tmp_path / "last.ckpt"


def test_safetensors_are_read_whatever_the_file_is_called(path):
    tensors = {
        name: tensor.detach().clone().contiguous() for name, tensor in sorted(odd_tensors().items())
    }
    save_file(tensors, path)
    weights = read(path)
    assert_same({name: weights[name] for name in tensors}, tensors)


def test_a_file_of_torch_save_that_is_called_safetensors_is_refused_by_that_name(path):
    torch.save({"a": torch.ones(1)}, path.with_suffix(".safetensors"))
    assert_refused(path.with_suffix(".safetensors"), "is called safetensors, but is one of torch")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_only_the_tensors_that_are_weights_are_given(path):
    sparse = torch.ones(2, 2).to_sparse()
    state = {"a": torch.ones(2), "sparse": sparse, "epoch": 3, "more": {"b": torch.ones(1)}}
    torch.save({"optimizer_states": [torch.ones(100)], "state_dict": state}, path)
    assert_same(read(path), {"a": torch.ones(2)})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b"<html>404</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "is a Git LFS pointer"),
        (b"weights weights weights", "is no checkpoint"),
        (b"\x80\x02", "truncated"),
        (b"\x40\0\0\0\0\0\0\0{not json", "no safetensors"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_was_saved_in_place_of_the_file_is_named(path, data, words):
    path.write_bytes(data)
    assert_refused(path, words)


@pytest.mark.parametrize("kind", ["zip", "stream", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 0.999])
def test_a_truncated_file_is_refused(path, kind, share):
    tensors = {"a": torch.randn(100), "b": torch.randn(300)}
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert_refused(path, "truncated")


def test_a_file_that_is_not_there_is_answered_with_the_nearest_name(path):
    path.write_bytes(b"x")
    assert_refused(path.with_name("lst.ckpt"), "Did you mean last.ckpt?")
    assert_refused(path.parent, "is a folder")
    with pytest.raises(WeightsError, match="there is no folder"):
        read(path / "nowhere" / "last.ckpt")


def test_a_checkpoint_without_tensors_says_what_it_holds(path):
    checkpoint = {
        "epoch": 3,
        "args": argparse.Namespace(a=1),
        "optimizer": {"x": torch.ones(1)},
        "log": "",
        "more": "",
    }
    torch.save(checkpoint, path)
    assert_refused(path, "there is epoch, args, optimizer and 2 more at its top")
    torch.save([torch.ones(1)], path)
    assert_refused(path, "it is no dictionary")
    torch.save({}, path)
    assert_refused(path, "there is nothing")
    save_file({}, path)
    assert_refused(path, "there is nothing")


def test_a_checkpoint_that_holds_itself_ends(path):
    checkpoint = {"epoch": 1}
    checkpoint["state_dict"] = checkpoint
    torch.save(checkpoint, path)
    assert_refused(path, "there is epoch, state_dict at its top")


def test_the_advice_of_torch_is_left_out_of_what_is_said_of_a_damaged_file(path):
    torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"\x85", b"\xfe"))  # no operation of a pickle
    assert_refused(path, "damaged (UnpicklingError: ")
    assert_refused(path, "operand")
