"""Somebody else's weights: read from their files without running what is in them, and matched to a network name by name.

A torch checkpoint is a pickle, and a pickle may call anything. Here it may not: of what it asks for, tensors become notes of
where their numbers lie, configurations of known libraries become objects that forget everything, and the rest is refused by
name. Nothing is imported, looked up or called on behalf of a file.
"""

from __future__ import annotations

import difflib
import math
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


class WeightsError(ValueError):
    """A file of weights that cannot be read, or does not fit. The message is one line for the person who named the file."""


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint on the CPU, by the names they have there.

    Reads safetensors and what torch.save wrote (the zip, and the stream from before torch 1.6): a dictionary of tensors, or
    one under 'state_dict' or 'model', as Lightning and solo-learn leave it. Raises WeightsError.
    """
    if not path.is_file():
        raise WeightsError(absent(path))
    try:
        return _READERS[_kind(path)](path)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # damaged bytes make pickle, zipfile and torch raise nearly anything
        reason = " ".join(str(error).split())[:120]
        raise WeightsError(
            f"{path} is truncated or damaged ({type(error).__name__}: {reason}): fetch it again"
        ) from None


def absent(path: Path) -> str:
    """What there is in place of a file that is not there."""
    if path.exists() and not path.is_dir():
        return f"{path} is not a file that can be read from again and again"
    if path.is_dir():
        return f"{path} is a folder: name the file in it"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    near = difflib.get_close_matches(path.name, [each.name for each in path.parent.iterdir()], 1)
    return f"there is no file {path}" + "".join(f". Did you mean {name}?" for name in near)


def _kind(path: Path) -> str:
    """What a file is by its first bytes, whatever its name says: a key of _READERS."""
    with path.open("rb") as file:
        head = file.read(512)
    text = head.lstrip().lower()
    if not head:
        raise WeightsError(f"{path} is empty")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError(
            f"{path} is a web page, saved in place of the file: open the link in a browser to see what it wants"
        )
    if text.startswith(b"version https://git-lfs"):
        raise WeightsError(
            f"{path} is a Git LFS pointer, not the file: run git lfs pull where it comes from"
        )
    if head.startswith(b"PK"):
        return "zip"
    if head[8:9] == b"{":  # after the length of a JSON header
        return "safetensors"
    if head.startswith(b"\x80"):
        return "stream"
    if tarfile.is_tarfile(path):
        raise WeightsError(f"{path} is a tar archive: unpack it and name the file in it")
    raise WeightsError(f"{path} is no checkpoint: neither safetensors nor from torch.save")


# ------------------------------------------------------------------------------------------------ what pickles may hold


class _Inert:
    """Stands for an object of no use here: takes any arguments, items and state, and keeps none."""

    __slots__ = ()

    def __new__(cls, *args: object, **named: object) -> Any:
        return object.__new__(cls)

    def __init__(self, *args: object, **named: object): ...
    def __setstate__(self, state: object) -> None: ...
    def __setitem__(self, key: object, value: object) -> None: ...
    def append(self, item: object) -> None: ...
    def extend(self, items: object) -> None: ...
    def add(self, item: object) -> None: ...


class _Dict(dict[Any, Any]):
    """Stands for the dictionaries of `collections`: their items, and no attributes."""

    __slots__ = ()

    def __init__(
        self, *args: object
    ):  # a default factory comes first; Python 2 gives the items in a list
        super().__init__(args[0] if args and isinstance(args[0], list | dict) else ())

    def __setstate__(self, state: object) -> None: ...


class _Storage(NamedTuple):
    """The numbers in the file under `key`, `length` of them, from number `start` on."""

    key: str
    dtype: torch.dtype
    length: int
    start: int


class _Note(_Inert):
    """Stands for a tensor: which numbers of which storage it consists of."""

    __slots__ = ("offset", "size", "storage", "stride")
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __new__(
        cls,
        storage: _Storage,
        offset: int,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        *_: object,
    ) -> Any:
        self = object.__new__(cls)
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride
        return self


class _Same(_Inert):
    """Stands for the function that makes a parameter of a tensor."""

    def __new__(cls, tensor: object, *_: object) -> Any:
        return tensor


# All that pickle may call are these four classes. It can set attributes on anything that has them and no __setstate__, so
# none of this is a function, whose __code__ and __defaults__ it could reach.
_KNOWN: dict[str, Any] = {
    "torch._utils._rebuild_tensor": _Note,
    "torch._utils._rebuild_tensor_v2": _Note,
    "torch._utils._rebuild_parameter": _Same,
    "torch._utils._rebuild_parameter_with_state": _Same,
    **dict.fromkeys(
        ["collections.OrderedDict", "collections.defaultdict", "collections.Counter"], _Dict
    ),
}


_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


_KNOWN |= {
    f"{module}.{name}": dtype
    for module in ("torch", "torch.cuda")
    for name, dtype in _DTYPES.items()
}


# Packages whose objects checkpoints hold besides weights, and single names of those that can also do harm.
_PACKAGES = {
    "omegaconf",
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "torchmetrics",
    "solo",
}


_PACKAGES |= {"argparse", "pathlib", "typing", "collections"}


_NAMES = {
    f"{module}.{name}"
    for module, names in {
        "builtins": "object type dict list tuple set frozenset str bytes bytearray int float complex bool slice range xrange unicode long",
        "copyreg": "_reconstructor",
        "_codecs": "encode",  # how protocol 2 spells bytes
        "numpy": "dtype ndarray bool_ int32 int64 float16 float32 float64",
        "numpy.core.multiarray": "scalar _reconstruct",
        "numpy._core.multiarray": "scalar _reconstruct",
        "torch": "device Size "
        + " ".join(name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)),
        "torch._utils": "_rebuild_qtensor _rebuild_sparse_tensor _rebuild_tensor_v3",
    }.items()
    for name in names.split()
}


# What pickle calls them: as in Python 2 up to protocol 2, and as the modules are called inside.
_OLD = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "commands": "subprocess",
    "posix": "os",
    "nt": "os",
}


class _Unpickler(pickle.Unpickler):
    """Reads one pickle of the checkpoint at `path`; `storages` are those it mentions."""

    def __init__(self, file: Any, path: Path):
        super().__init__(file, encoding="latin-1")  # from Python 2 come byte strings
        self.path = path
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{_OLD.get(module, module)}.{name}"
        if asked in _KNOWN:
            return _KNOWN[asked]
        if asked in _NAMES or module.partition(".")[0] in _PACKAGES:
            return _Inert
        raise WeightsError(
            f"{self.path} wants to call {_plain(asked)}: refused, as weights need no code; ask for a file of tensors only"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        word, dtype, key, _, length, *view = pid
        start = view[0][1] if view and view[0] else 0
        if word != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError(f"unknown storage {pid!r:.60}")
        return self.storages.setdefault(key, _Storage(key, dtype, length, 0))._replace(start=start)


# ------------------------------------------------------------------------------------------------ files


def _read_zip(path: Path) -> dict[str, Tensor]:
    """torch.save since 1.6: <any name>/data.pkl, and <any name>/data/<key> for each storage."""
    if not zipfile.is_zipfile(path):
        raise WeightsError(f"{path} is truncated: its end is missing; fetch it again")
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
        root = next(
            (
                name.removesuffix("data.pkl")
                for name in names
                if name.endswith("/data.pkl") and name.count("/") == 1
            ),
            None,
        )
        if root is None:
            raise WeightsError(
                f"{path} is a zip archive, but not one of torch.save: unpack it and name the file in it"
            )
        if f"{root}constants.pkl" in names:
            raise WeightsError(
                f"{path} is a TorchScript program: refused, as weights need no code; ask for its state_dict"
            )
        if f"{root}byteorder" in names and file.read(f"{root}byteorder") != b"little":
            raise WeightsError(
                f"{path} was written on a big-endian machine, which is not read here"
            )
        with file.open(f"{root}data.pkl") as data:
            top = _Unpickler(data, path).load()
        return _tensors(top, path, lambda storage: file.read(f"{root}data/{storage.key}"))


_MAGIC = 0x1950A86A20F9469CFC6C


def _read_stream(path: Path) -> dict[str, Tensor]:
    """torch.save before 1.6: pickles of a magic number, a version, the machine, the object and a list of storage keys; then for
    each key how many numbers as 8 bytes, and the numbers."""
    with path.open("rb") as file:
        if _Unpickler(file, path).load() != _MAGIC:
            raise WeightsError(f"{path} is a pickle, but not one of torch.save")
        _, machine = _Unpickler(file, path).load(), _Unpickler(file, path).load()
        if not machine.get("little_endian", True):
            raise WeightsError(
                f"{path} was written on a big-endian machine, which is not read here"
            )
        unpickler = _Unpickler(file, path)
        top, places = unpickler.load(), {}
        for key in _Unpickler(file, path).load():
            size = int.from_bytes(file.read(8), "little") * unpickler.storages[key].dtype.itemsize
            places[key] = file.tell(), size
            file.seek(size, 1)

        def fetch(storage: _Storage) -> bytes:
            start, size = places[storage.key]
            file.seek(start)
            return file.read(size)

        return _tensors(top, path, fetch)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        found = load_file(path)
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is truncated or damaged, or no safetensors file ({error}): fetch it again"
        ) from None
    return found or _refuse_empty(path, found)


_READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    "zip": _read_zip,
    "stream": _read_stream,
    "safetensors": _read_safetensors,
}


_WRAPPERS = ("state_dict", "model")


def _tensors(top: Any, path: Path, fetch: Callable[[_Storage], bytes]) -> dict[str, Tensor]:
    """Those tensors of an unpickled checkpoint that are weights. Optimizer states and the like are never read from the disk."""
    weights = top
    for _ in _WRAPPERS:  # no deeper: a pickle may hold itself
        inside = [
            weights[name]
            for name in _WRAPPERS
            if isinstance(weights, dict) and isinstance(weights.get(name), dict)
        ]
        weights = inside[0] if inside else weights
    notes = (
        {name: note for name, note in weights.items() if isinstance(note, _Note)}
        if isinstance(weights, dict)
        else {}
    )
    if not notes:
        _refuse_empty(path, top)
    read: dict[str, Tensor] = {}
    return {str(name): _tensor(note, read, fetch) for name, note in notes.items()}


def _refuse_empty(path: Path, top: object) -> Any:
    if isinstance(top, dict):
        names = [str(name) for name in top]
        raise WeightsError(
            f"{path} holds no tensors by name: there is {_some(names) or 'nothing'} at its top"
        )
    raise WeightsError(f"{path} holds no tensors by name: it is no dictionary")


def _tensor(note: _Note, read: dict[str, Tensor], fetch: Callable[[_Storage], bytes]) -> Tensor:
    """read: the storages so far, each a tensor (length,)."""
    key, dtype, length, start = note.storage
    if key not in read:
        data = bytearray(fetch(note.storage))
        if len(data) != length * dtype.itemsize:
            raise EOFError(
                f"storage {key} has {len(data)} bytes instead of {length * dtype.itemsize}"
            )
        read[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return read[key].as_strided(
        note.size, note.stride, start + note.offset
    )  # refuses what lies outside


# ------------------------------------------------------------------------------------------------ names


_AUTOENCODER = {
    name: f"autoencoder.{name}"
    for name in ("pre_bias", "latent_bias", "encoder.weight", "decoder.weight", "idle")
}


_PARTS = {"backbone", "projector", "classifier", "predictor", "autoencoder", "fc"}


def matched(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """The tensors of `found` under the names, and with the shapes and dtypes, of `wanted`: a state_dict with solo-learn's names.

    found: of a checkpoint of solo-learn (also of old ones, where the backbone is called encoder), of the authors' SAE, or of a
    backbone alone; also from inside DataParallel. Only shapes and dtypes of `wanted` are looked at. An integer buffer that is
    missing is zero, as in a new network. Raises WeightsError where a tensor is missing, has another shape, is left over and not
    known to be of no use, or holds what is no finite number.
    """
    names = _translated(found)
    tensors = {ours: found[theirs] for theirs, ours in names.items()}
    missing = [
        name for name, want in wanted.items() if name not in tensors and want.is_floating_point()
    ]
    both = [name for name in wanted if name in tensors]
    misshapen = [name for name in both if tensors[name].shape != wanted[name].shape]
    mistyped = [
        name
        for name in both
        if tensors[name].is_floating_point() != wanted[name].is_floating_point()
    ]
    parts = {name.partition(".")[0] for name in wanted}
    left = [
        theirs for theirs, ours in names.items() if ours not in wanted and not _useless(ours, parts)
    ]
    complaints = {
        "missing": [f"{name} {_shape(wanted[name])}" for name in missing],
        "of another shape": [
            f"{name} {_shape(tensors[name])} instead of {_shape(wanted[name])}"
            for name in misshapen
        ],
        "of another type": [
            f"{name} {_dtype(tensors[name])} instead of {_dtype(wanted[name])}" for name in mistyped
        ],
        "left over": [f"{name} {_shape(found[name])}" for name in left],
    }
    if any(complaints.values()):
        message = "; ".join(
            f"{what}: {_some(names)}" for what, names in complaints.items() if names
        )
        hints = _hints(tensors, wanted)
        raise WeightsError(
            f"{path} does not fit the network. " + "".join(f"{hint}. " for hint in hints) + message
        )
    matches = {
        name: (tensors[name] if name in tensors else torch.zeros(want.shape)).to(want.dtype)
        for name, want in wanted.items()
    }
    if bad := [name for name, tensor in matches.items() if not _finite(tensor)]:
        raise WeightsError(
            f"{path} holds numbers that are not finite in {_some(bad)}: that training diverged"
        )
    return matches


def _translated(found: Iterable[str]) -> dict[str, str]:
    """Names in the file -> names here. Each rule is about whole components of a name."""
    names = {name: name for name in found}
    while names and all(name.startswith("module.") for name in names.values()):
        names = {theirs: name.removeprefix("module.") for theirs, name in names.items()}
    heads = {name.partition(".")[0] for name in names.values() if name not in _AUTOENCODER}

    def ours(name: str) -> str:
        if name in _AUTOENCODER and "autoencoder" not in heads:
            return _AUTOENCODER[name]
        if "backbone" not in heads and name.startswith("encoder."):
            return f"backbone.{name.removeprefix('encoder.')}"
        if heads.isdisjoint({"backbone", "encoder"}) and not _named(name):
            return f"backbone.{name}"
        return name

    return {theirs: ours(name) for theirs, name in names.items()}


def _named(name: str) -> bool:
    """Whether a name says which part of a network it belongs to; that of a backbone alone does not."""
    head = name.partition(".")[0]
    return head in _PARTS or head.startswith(("momentum_", "queue"))


def _useless(name: str, parts: set[str]) -> bool:
    """Whether a tensor belongs to a part that is no part of this network, and of a kind that may be left out."""
    head = name.partition(".")[0]
    return head != "backbone" and head not in parts and _named(name)


def _finite(tensor: Tensor) -> bool:
    """By the extremes, into which a nan spreads: the obvious way takes three times the memory."""
    return (
        not tensor.is_floating_point()
        or not tensor.numel()
        or all(math.isfinite(end) for end in torch.aminmax(tensor))
    )


# ------------------------------------------------------------------------------------------------ words


def _some(names: list[str]) -> str:
    return ", ".join(map(_plain, names[:3])) + (
        f" and {len(names) - 3} more" if len(names) > 3 else ""
    )


def _plain(name: str) -> str:
    """A name out of a file, fit for one line of a terminal."""
    return name[:100] if name.isprintable() else ascii(name[:100])


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _hints(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """How the file's network differs, in the words of this one's fields, where its shapes tell."""
    hints = []
    if (depth := _depth(found)) != _depth(wanted) and depth > 2:
        hints.append(f"It has ResNet.depth = {depth}")
    if (stem := _stem(found)) and _stem(wanted) not in ("", stem):
        hints.append(f"It has the {stem} stem: ResNet.stem = {stem.lower()!r}")
    for part, name in (("projector", "projector"), ("autoencoder", "sparse autoencoder")):
        if _has(wanted, part) and not _has(found, part):
            hints.append(f"It has no {name}")
    sizes, ours = _projector(found), _projector(wanted)
    if sizes and ours and sizes != ours:
        hints.append("It has Projector.hidden = {}, Projector.features = {}".format(*sizes))
    return hints


def _has(tensors: Mapping[str, Tensor], part: str) -> bool:
    return any(name.startswith(f"{part}.") for name in tensors)


def _depth(tensors: Mapping[str, Tensor]) -> int:
    """He et al. name a ResNet by its layers with weights: the convolutions in its blocks, the first one and the last layer."""
    return 2 + sum(
        re.fullmatch(r"backbone\.layer\d\.\d+\.conv\d\.weight", name) is not None
        for name in tensors
    )


def _stem(tensors: Mapping[str, Tensor]) -> str:
    first = tensors.get("backbone.conv1.weight")
    return "" if first is None else {7: "ImageNet", 3: "CIFAR"}.get(first.shape[-1], "")


def _projector(tensors: Mapping[str, Tensor]) -> list[int]:
    """[hidden, features]; empty without the two linear layers of a Projector."""
    layers = [
        tensors[name]
        for name in ("projector.0.weight", "projector.2.weight")
        if name in tensors and tensors[name].ndim == 2
    ]
    return [len(layer) for layer in layers] if len(layers) == 2 else []
