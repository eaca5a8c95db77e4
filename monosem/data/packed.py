"""TODO."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np

from monosem.core.fields import NotInKey, PathField
from monosem.core.identity import digest
from monosem.data import pack
from monosem.data.dataset import Examples, SplitName
from monosem.data.images import ImageDataset

# ------------------------------------------------------------------------------------------------ packed from files

Folder = Annotated[
    str, NotInKey("the name of a folder; what it holds counts, through `Part.content`")
]


Source = Callable[[], pack.Source]


@dataclass(frozen=True)
class Packed(ImageDataset):
    """A dataset that is read from files once, into one array a split on disk (monosem.pack), and mapped into memory then on.

    packs: where the arrays are kept; in `packed/` beside the files unless set, as it must be where that cannot be written to.
    """

    packs: PathField | None = None

    def origin(self, split: SplitName) -> str:
        """The name of the field that says where the files of a split are."""
        return "folder"

    def source(self, split: SplitName) -> tuple[Sequence[str], tuple[object, ...], Source]:
        """The files that a split is made of, what else its pixels and labels depend on, and what reads them."""
        raise NotImplementedError

    def load(self, split: SplitName) -> Examples:
        return Examples(*_packs(self)[split][:2])

    @property
    def class_names(self) -> tuple[str, ...]:
        return _packs(self)["train"].names or super().class_names

    def content(self) -> str:
        return digest([made.digest for made in _packs(self).values()])

    def packed(self, split: SplitName) -> pack.Pack:
        """The pack of a split, made first if need be."""
        field = self.origin(split)
        place: str = getattr(self, field)
        self._must_exist(field, place)
        root = place if os.path.isdir(place) else os.path.dirname(place)
        try:
            files, options, source = self.source(split)
            # other options, other pack: or two experiments would take turns in replacing each other's
            apart = digest(place if self.packs else place.removeprefix(root), options)[:8]
            folder = Path(
                self.packs or os.path.join(root, "packed"),
                f"{type(self).__name__.lower()}-{split}-{apart}",
            )
            return pack.packed(folder, pack.fingerprint(root, files, options), source)
        except pack.PlaceError as error:
            self.refuse("packs", str(error))
        except pack.PackError as error:
            self.refuse(field, str(error))
        except OSError as error:
            self.refuse(field, f"cannot be used: {error}")

    def _must_exist(self, field: str, path: str) -> None:
        if not os.path.exists(path):
            self.refuse(field, f"must be there, got {path}{nearest(Path(path))}")


@functools.lru_cache(maxsize=8)
def _packs(data: Packed) -> dict[SplitName, pack.Pack]:
    """Both splits, opened once a process: what counts in a key is what is then loaded, whatever happens to the files."""
    made = {split: data.packed(split) for split in get_args(SplitName)}
    if made["train"].digest == made["test"].digest:
        data.refuse(
            data.origin("test"),
            "must be of other images than the training split, got the same ones for both",
        )
    return made


def nearest(path: Path) -> str:
    """What is there in place of the first folder of `path` that is not; empty where it is there, or hidden from us."""
    try:
        missing = next(
            (each for each in [*reversed(path.parents), path] if not each.exists()), None
        )
        names = [each.name for each in missing.parent.iterdir()] if missing else []
    except OSError:
        return ""
    if missing is None:
        return ""
    close = difflib.get_close_matches(missing.name, names, n=1)
    return (
        f"; did you mean {missing.parent / close[0]}?"
        if close
        else f"; there is no {missing.name} in {missing.parent}"
    )


def as_it_is(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """For sources whose items are pixels in their places."""
    return images


def described(what: object) -> str:
    return (
        f"{what.dtype} {what.shape}"
        if hasattr(what, "dtype") and hasattr(what, "shape")
        else type(what).__name__
    )
