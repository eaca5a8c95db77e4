"""Somebody else's weights, read from their files without running what is in them.

A torch checkpoint is a pickle, and a pickle may call anything. torch reads one with
`weights_only=True`, which calls a short list of torch's own functions. Objects of known harmless
libraries are replaced by stand-ins that forget everything; the rest is refused by name. Nothing is
imported, looked up or called on behalf of a file. Names and shapes are matched in matching.py.
"""

from __future__ import annotations

import difflib
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from tarfile import is_tarfile
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals


class WeightsError(ValueError):
    """A file of weights that cannot be read, or does not fit.

    The message is one line for the person who named the file.
    """


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint on the CPU, by the names they have there.

    Reads safetensors and what torch.save wrote: a dictionary of tensors, or one under 'state_dict'
    or 'model', as Lightning and solo-learn leave it. Files from before torch 1.6 are read if they
    hold nothing but tensors, numbers, strings and dictionaries.

    The tensors of a zip are mapped from the file: optimizer states and the like take no memory.
    Copy what is to outlive the file.

    Raises WeightsError.
    """
    if not path.is_file():
        raise WeightsError(describe_absence(path))
    try:
        kind = _kind_of(path)
        if kind == "safetensors":
            return _read_safetensors(path)
        checkpoint = _load_zip(path) if kind == "zip" else _load_stream(path)
        return _weights_in(checkpoint, path)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # damaged bytes make pickle, zipfile and torch raise nearly anything
        reason = " ".join(str(error).split())[:120]
        raise WeightsError(
            f"{path} is truncated or damaged ({type(error).__name__}: {reason}): fetch it again"
        ) from None


def describe_absence(path: Path) -> str:
    """What there is in place of a file that is not there."""
    if path.is_dir():
        return f"{path} is a folder: name the file in it"
    if path.exists():
        return f"{path} is not a file that can be read from again and again"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    neighbours = [neighbour.name for neighbour in path.parent.iterdir()]
    nearest = difflib.get_close_matches(path.name, neighbours, 1)
    return f"there is no file {path}" + "".join(f". Did you mean {name}?" for name in nearest)


def list_names(names: Sequence[str]) -> str:
    """The first three names of a file, fit for a line of a terminal, and how many more there are."""
    first = ", ".join(map(_printable, names[:3]))
    return first if len(names) <= 3 else f"{first} and {len(names) - 3} more"


def _printable(name: str) -> str:
    return name[:100] if name.isprintable() else ascii(name[:100])


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


# Stand-ins for objects of no use here. torch fills plain dictionaries and lists only, so what a
# pickle fills like one of them becomes one. What stands in for the rest keeps nothing.


class _Forgetful:
    """Takes any arguments and any state."""

    def __new__(cls, *arguments: object) -> Any:
        return object.__new__(cls)

    def __init__(self, *arguments: object) -> None: ...
    def __setstate__(self, state: object) -> None: ...


class _AsDictionary:
    """For dictionaries of other classes."""

    def __new__(cls, *arguments: object) -> Any:
        return OrderedDict()


class _AsList:
    """For lists of other classes."""

    def __new__(cls, *arguments: object) -> Any:
        return []


# Libraries whose objects checkpoints hold besides weights, and single names of those that can also
# do harm. No name leads to anything but a stand-in.
_HARMLESS_PACKAGES = {
    "argparse",
    "collections",
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "omegaconf",
    "pathlib",
    "pytorch_lightning",
    "solo",
    "torchmetrics",
    "typing",
}
_HARMLESS_NAMES = {
    "builtins": "object type dict list tuple set frozenset str bytes bytearray int float complex "
    "bool slice range xrange unicode long",
    "copyreg": "_reconstructor",
    "numpy": "dtype ndarray bool_ int32 int64 float16 float32 float64",
    "numpy.core.multiarray": "scalar _reconstruct",
    "numpy._core.multiarray": "scalar _reconstruct",
}


def _stand_in(asked: str) -> type:
    """The stand-in for "module.Name"."""
    name = asked.rpartition(".")[2]
    if name.lower().endswith("dict"):  # defaultdict, Lightning's AttributeDict
        return _AsDictionary
    return _AsList if name == "deque" else _Forgetful


def _is_harmless(asked: str) -> bool:
    module, _, name = asked.rpartition(".")
    in_package = module.partition(".")[0] in _HARMLESS_PACKAGES
    return in_package or name in _HARMLESS_NAMES.get(module, "").split()


def _refuse_call(path: Path, asked: str) -> WeightsError:
    module, _, name = asked.rpartition(".")
    asked = f"os.{name}" if module in ("posix", "nt") else asked
    return WeightsError(
        f"{path} wants to call {_printable(asked)}: "
        "refused, as weights need no code; ask for a file of tensors only"
    )


def _load_zip(path: Path) -> object:
    """torch.save since 1.6: <any name>/data.pkl, and <any name>/data/<key> for each storage."""
    _check_zip(path)
    stand_ins: list[Any] = []
    for asked in sorted(get_unsafe_globals_in_checkpoint(path)):
        if not _is_harmless(asked):
            raise _refuse_call(path, asked)
        stand_ins.append((_stand_in(asked), asked))
    with safe_globals(stand_ins):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _check_zip(path: Path) -> None:
    """Refuse what torch would not notice, or not name."""
    if not zipfile.is_zipfile(path):
        raise WeightsError(f"{path} is truncated: its end is missing; fetch it again")
    if path.suffix == ".safetensors":  # torch.load would go by the name
        raise WeightsError(f"{path} is called safetensors, but is one of torch.save: rename it")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        pickles = [name for name in archive.namelist() if re.fullmatch("[^/]+/data.pkl", name)]
        if not pickles:
            raise WeightsError(
                f"{path} is a zip archive, but not one of torch.save: "
                "unpack it and name the file in it"
            )
        if pickles[0].replace("data.pkl", "constants.pkl") in archive.namelist():
            raise WeightsError(
                f"{path} is a TorchScript program: "
                "refused, as weights need no code; ask for its state_dict"
            )
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise WeightsError(f"{path} is a compressed zip archive, not as torch.save leaves it")
        if damaged := archive.testzip():  # torch accepts a flipped bit
            raise WeightsError(
                f"{path} is truncated or damaged in {_printable(damaged)}: fetch it again"
            )
        protocol = archive.read(pickles[0])[:2]
        if protocol[:1] == b"\x80" and protocol[1:] > b"\x03":
            raise WeightsError(
                f"{path} has pickle protocol {protocol[1]}, which torch does not read without "
                "running its code: ask for a file of torch.save with its usual protocol"
            )


def _load_stream(path: Path) -> object:
    """torch.save before 1.6. Objects other than tensors are named by torch's error alone."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked is None:
            raise
        if not _is_harmless(asked[1]):
            raise _refuse_call(path, asked[1]) from None
        raise WeightsError(
            f"{path} holds {_printable(asked[1])} in the format of before torch 1.6, which is read "
            "without such objects only: ask for a file of tensors only"
        ) from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is truncated or damaged, or no safetensors file ({error}): fetch it again"
        ) from None
    return _weights_in(tensors, path)


def _weights_in(checkpoint: object, path: Path) -> dict[str, Tensor]:
    """Those tensors of a checkpoint that are weights."""
    if not isinstance(checkpoint, dict):
        raise WeightsError(f"{path} holds no tensors by name: it is no dictionary")
    state = _unwrapped(_unwrapped(checkpoint))  # no deeper: a pickle may hold itself
    weights = {
        str(name): tensor.detach()
        for name, tensor in state.items()
        if isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_quantized
    }
    if not weights:
        names = [str(name) for name in checkpoint]
        raise WeightsError(
            f"{path} holds no tensors by name: there is {list_names(names) or 'nothing'} at its top"
        )
    return weights


def _unwrapped(checkpoint: Mapping[object, object]) -> Mapping[object, object]:
    """What a dictionary has under 'state_dict' or 'model', else itself."""
    for wrapper in ("state_dict", "model"):
        inside = checkpoint.get(wrapper)
        if isinstance(inside, dict):
            return inside
    return checkpoint
