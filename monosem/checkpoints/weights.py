"""Somebody else's weights: which kind of file they are in, and which of its tensors are weights.

What a pickle may do is said in safe_load.py. Whether tensors fit a network is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tarfile import is_tarfile
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from monosem.checkpoints.safe_load import WeightsError, list_names, load_stream, load_zip
from monosem.core.fields import nearest


def read(path: Path, entry: str | None = None) -> dict[str, Tensor]:
    """The tensors of a checkpoint on the CPU, by the names they have there.

    Reads safetensors and what torch.save wrote: a dictionary of tensors, or one under 'state_dict'
    or 'model', as Lightning and solo-learn leave it, or under another name where there is one
    alone.

    entry: the name of the dictionary, with dots between names where it lies deeper: 'teacher',
        'model.ema'. None: look for it.

    The tensors of a zip are mapped from the file: optimizer states and the like take no memory.
    Copy what is to outlive the file.

    Raises WeightsError.
    """
    if not path.is_file():
        raise WeightsError(describe_absence(path))
    try:
        kind = _kind_of(path)
        if kind == "safetensors":
            return _read_safetensors(path, entry)
        checkpoint = load_zip(path) if kind == "zip" else load_stream(path)
        return _weights_in(checkpoint, path, entry)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # damaged bytes make pickle, zipfile and torch raise nearly anything
        raise WeightsError(
            f"{path} is truncated or damaged ({type(error).__name__}: {_reason(error)}): "
            "fetch it again"
        ) from None


def _reason(error: Exception) -> str:
    """What an error says, without the advice that torch puts around it."""
    _, _, inner = str(error).rpartition("WeightsUnpickler error:")
    return " ".join(inner.split())[:120]


def describe_absence(path: Path) -> str:
    """What there is in place of a file that is not there."""
    if path.is_dir():
        return f"{path} is a folder: name the file in it"
    if path.exists():
        return f"{path} is not a file that can be read from again and again"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    neighbours = [neighbour.name for neighbour in path.parent.iterdir()]
    return f"there is no file {path}" + nearest(path.name, neighbours, ". Did you mean {}?")


# The first bytes of what torch.save wrote before 1.6: a pickle of protocol 2, its magic number.
_STREAM = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."


def _kind_of(path: Path) -> Literal["zip", "stream", "safetensors"]:
    """What a file is by its first bytes, whatever its name says."""
    with path.open("rb") as file:
        head = file.read(512)
    text = head.lstrip().lower()
    if head.startswith(b"PK"):
        return "zip"
    if head.startswith(_STREAM):
        return "stream"
    if head[8:9] == b"{":  # after the length of a JSON header
        return "safetensors"
    if not head:
        raise WeightsError(f"{path} is empty")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError(
            f"{path} is a web page, saved in place of the file: "
            "open the link in a browser to see what it wants"
        )
    if text.startswith(b"version https://git-lfs"):
        raise WeightsError(
            f"{path} is a Git LFS pointer, not the file: run git lfs pull where it comes from"
        )
    if _STREAM.startswith(head):
        raise WeightsError(f"{path} is truncated: nothing but its beginning is there")
    if head.startswith(b"\x80"):
        raise WeightsError(f"{path} is a pickle, but not one of torch.save with its usual protocol")
    if is_tarfile(path):
        raise WeightsError(f"{path} is a tar archive: unpack it and name the file in it")
    raise WeightsError(f"{path} is no checkpoint: neither safetensors nor from torch.save")


def _read_safetensors(path: Path, entry: str | None) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is truncated or damaged, or no safetensors file ({error}): fetch it again"
        ) from None
    return _weights_in(tensors, path, entry)


def _weights_in(checkpoint: object, path: Path, entry: str | None) -> dict[str, Tensor]:
    """Those tensors of a checkpoint that are weights."""
    if not isinstance(checkpoint, dict):
        raise WeightsError(f"{path} holds no tensors by name: it is no dictionary")
    if entry is not None:
        return _tensors_in(_unwrapped(_entry_of(checkpoint, entry, path)))
    weights = _tensors_in(_unwrapped(_unwrapped(checkpoint)))  # no deeper: it may hold itself
    networks = [] if _has_network(weights) else _networks_in(checkpoint)
    if len(networks) == 1:
        return _tensors_in(_unwrapped(checkpoint[networks[0]]))
    if networks:
        choices = " or ".join(map(repr, networks))
        raise WeightsError(
            f"{path} holds {len(networks)} networks: Checkpoint.entry = {choices} says which"
        )
    if not weights:
        names = [str(name) for name in checkpoint]
        raise WeightsError(
            f"{path} holds no tensors by name: there is {list_names(names) or 'nothing'} at its top"
        )
    return weights


def _tensors_in(state: Mapping[object, object]) -> dict[str, Tensor]:
    return {
        str(name): tensor.detach()
        for name, tensor in state.items()
        if isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_quantized
    }


def _has_network(weights: Mapping[str, Tensor]) -> bool:
    """Whether there is a matrix among tensors: steps and averages are none."""
    return any(tensor.ndim >= 2 for tensor in weights.values())


def _networks_in(checkpoint: Mapping[object, object]) -> list[str]:
    """The names under which a checkpoint holds weights, such as teacher and student."""
    return [
        str(name)
        for name, inside in checkpoint.items()
        if isinstance(name, str)
        and isinstance(inside, dict)
        and _has_network(_tensors_in(_unwrapped(inside)))
    ]


def _entry_of(checkpoint: Mapping[object, object], entry: str, path: Path) -> Any:
    """The dictionary of that name. Raises WeightsError where there is none."""
    inside: Any = checkpoint.get(entry)
    if inside is None:
        inside = checkpoint
        for step in entry.split("."):
            inside = inside.get(step) if isinstance(inside, dict) else None
    if isinstance(inside, dict) and _tensors_in(_unwrapped(inside)):
        return inside
    networks = _networks_in(checkpoint)
    there = list_names(networks or [str(name) for name in checkpoint]) or "nothing"
    raise WeightsError(f"{path} has no tensors under Checkpoint.entry = {entry!r}; it has {there}")


def _unwrapped(checkpoint: Mapping[object, object]) -> Mapping[object, object]:
    """What a dictionary has under 'state_dict' or 'model', else itself."""
    for wrapper in ("state_dict", "model"):
        inside = checkpoint.get(wrapper)
        if isinstance(inside, dict):
            return inside
    return checkpoint
