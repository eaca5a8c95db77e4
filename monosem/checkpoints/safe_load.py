"""Checkpoints of torch.save, read without running what is in them.

A checkpoint is a pickle, and a pickle may call anything. torch reads one with `weights_only=True`,
which calls a short list of torch's own functions. Objects of known harmless libraries are replaced
by stand-ins that forget everything; the rest is refused by name before anything is read. Nothing is
imported, looked up or called on behalf of a file.
"""

from __future__ import annotations

import re
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals


class WeightsError(ValueError):
    """A file of weights that cannot be read, or does not fit.

    The message is one line for the person who named the file.
    """


def list_names(names: Sequence[str]) -> str:
    """The first three names of a file, fit for a terminal, and how many more there are."""
    first = ", ".join(map(_printable, names[:3]))
    return first if len(names) <= 3 else f"{first} and {len(names) - 3} more"


def _printable(name: str) -> str:
    return name[:100] if name.isprintable() else ascii(name[:100])


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


# How pickles call modules that people know by another name.
_PICKLE_NAMES = {"commands": "subprocess", "posix": "os", "nt": "os"}


def _refusal(path: Path, asked: str) -> WeightsError:
    module, _, name = asked.rpartition(".")
    function = f"{_PICKLE_NAMES.get(module, module)}.{name}"
    return WeightsError(
        f"{path} wants to call {_printable(function)}: "
        "refused, as weights need no code; ask for a file of tensors only"
    )


def load_zip(path: Path) -> object:
    """torch.save since 1.6: <any name>/data.pkl, and <any name>/data/<key> for each storage."""
    check_zip(path)
    stand_ins: list[Any] = []
    for asked in sorted(get_unsafe_globals_in_checkpoint(path)):
        if not _is_harmless(asked):
            raise _refusal(path, asked)
        stand_ins.append((_stand_in(asked), asked))
    with safe_globals(stand_ins):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def check_zip(path: Path) -> None:
    """Refuse what torch would not notice, or not name."""
    if not zipfile.is_zipfile(path):
        raise WeightsError(f"{path} is truncated: its end is missing; fetch it again")
    if path.suffix == ".safetensors":  # torch.load would go by the name
        raise WeightsError(f"{path} is called safetensors, but is one of torch.save: rename it")
    with zipfile.ZipFile(path) as archive:
        _check_protocol(archive, path)
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise WeightsError(f"{path} is a compressed zip archive, not as torch.save leaves it")
        if damaged := archive.testzip():  # torch accepts a flipped bit
            raise WeightsError(
                f"{path} is truncated or damaged in {_printable(damaged)}: fetch it again"
            )


def _check_protocol(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse what has no pickle, or one that torch cannot read without running it."""
    names = archive.namelist()
    pickled = next((name for name in names if re.fullmatch("[^/]+/data.pkl", name)), None)
    if pickled is None:
        raise WeightsError(
            f"{path} is a zip archive, but not one of torch.save: unpack it and name the file in it"
        )
    if pickled.replace("data.pkl", "constants.pkl") in names:
        raise WeightsError(
            f"{path} is a TorchScript program: "
            "refused, as weights need no code; ask for its state_dict"
        )
    with archive.open(pickled) as file:
        mark, protocol = file.read(1), file.read(1)
    if mark == b"\x80" and protocol > b"\x03":
        raise WeightsError(
            f"{path} has pickle protocol {ord(protocol)}, which torch does not read without "
            "running its code: ask for a file of torch.save with its usual protocol"
        )


def load_stream(path: Path) -> object:
    """torch.save before 1.6. What it asks for is not listed: torch names one object at a time."""
    stand_ins: dict[str, Any] = {}
    while True:
        try:
            with safe_globals([(stand_in, asked) for asked, stand_in in stand_ins.items()]):
                return torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            asked = _global_in(str(error))
            if asked in stand_ins or not asked:
                raise
            if not _is_harmless(asked):
                raise _refusal(path, asked) from None
            stand_ins[asked] = _stand_in(asked)


def _global_in(message: str) -> str:
    """The "module.Name" that an error of torch is about, if any."""
    named = re.search(r"GLOBAL (\S+)", message)
    if named is None:
        return ""
    return named[1] if "." in named[1] else f"builtins.{named[1]}"
