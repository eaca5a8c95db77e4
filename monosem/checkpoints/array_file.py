"""Arrays in a file of torch.save, read without running what is in it.

Such as the human labels of CIFAR-10N: a dictionary of numpy arrays. `safe_load` reads weights and
forgets arrays; here arrays of numbers are what is taken, and all else is refused.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.serialization import safe_globals

from monosem.checkpoints.safe_load import WeightsError, check_zip


def _dtype(name: str, *_: object) -> np.dtype[Any]:
    """Of numbers only: in an array of objects the file's bytes would be pointers.

    A copy, as the pickle may then alter it.
    """
    kind = np.dtype(name)
    if kind.kind not in "biuf":
        raise WeightsError(f"holds an array of {kind}, which are no numbers")
    return np.dtype(kind, False, True)


def _encode(text: str, encoding: str) -> bytes:
    """What Python 3 writes for bytes in protocol 2."""
    if encoding != "latin1":
        raise WeightsError(f"encodes words as {encoding!r}")
    return text.encode("latin1")


_NUMBERS = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64"
# torch sets the state of an object only if its class is among these.
_CLASSES: list[Any] = [np.ndarray, *{type(np.dtype(name)) for name in _NUMBERS.split()}]
_RECONSTRUCT, _SCALAR = np.empty(0).__reduce__()[0], np.int64(0).__reduce__()[0]
_FUNCTIONS: list[tuple[Any, str]] = [
    (_dtype, "numpy.dtype"),
    (_encode, "_codecs.encode"),
    *((_RECONSTRUCT, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def load_columns(path: Path) -> dict[str, Tensor]:
    """name -> (n,) whole numbers: what a file of columns holds. Raises WeightsError, one line."""
    try:
        if _begins_as_zip(path):
            check_zip(path)
        with safe_globals([*_CLASSES, *_FUNCTIONS]):
            table = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError as error:
        message = str(error)
        raise WeightsError(message if str(path) in message else f"{path} {message}") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{path} is no file of torch.save that holds arrays of numbers alone: "
            "refused, as columns need no code"
        ) from None
    except Exception as error:  # bytes that are no file of torch.save lead anywhere
        raise WeightsError(
            f"{path} is no file of torch.save that can be read ({type(error).__name__})"
        ) from None
    if not isinstance(table, dict):
        raise WeightsError(f"{path} holds no dictionary of columns but {type(table).__name__}")
    columns = {str(name): _as_column(column) for name, column in table.items()}
    return {name: column for name, column in columns.items() if column is not None}


def _begins_as_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _as_column(column: object) -> Tensor | None:
    """Whole numbers in one row as int64; None for anything else."""
    if isinstance(column, Tensor):
        column = column.numpy()
    if isinstance(column, list):
        column = np.asarray(column)
    if not isinstance(column, np.ndarray) or column.ndim != 1 or column.dtype.kind not in "iu":
        return None
    return torch.from_numpy(column.astype(np.int64))
