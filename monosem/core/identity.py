"""TODO."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from dataclasses import fields
from typing import Any

import torch

from monosem.core.fields import Part, annotations_of, is_not_in_key


def is_seed(binding: str) -> bool:
    """Whether a binding, as it is typed, is a seed: then its values are draws of one thing and not different things."""
    return binding.rpartition(".")[2] == "seed"


# ------------------------------------------------------------------------------------------------ identity


def to_plain(value: object) -> Any:
    """`value` as plain JSON data: class names, versions, all fields that count, and a digest of what is read from files."""
    if isinstance(value, Part):
        cls: Any = type(value)
        kinds = annotations_of(cls)
        spelled = {
            f.name: to_plain(getattr(value, f.name))
            for f in fields(value)
            if not is_not_in_key(kinds[f.name])
        }
        content = value.content()
        files = {} if content is None else {"content": content}
        return {"class": cls.__qualname__, "version": _version(cls), "fields": spelled, **files}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value


def _version(cls: Any) -> int | str:
    """VERSION; for a class from outside monosem, which is edited while it is tried out, its module and source as well."""
    return (
        cls.VERSION
        if cls.__module__.startswith("monosem.")
        else f"{cls.VERSION} {cls.__module__} {_source(cls)}"
    )


@functools.cache
def _source(cls: type) -> str:
    try:
        return hashlib.sha256(inspect.getsource(cls).encode()).hexdigest()[:20]
    except (OSError, TypeError):
        return "typed into a shell"


def digest(*values: object) -> str:
    """64 hex digits that are the same in every process and on every machine."""
    return hashlib.sha256(
        json.dumps(to_plain(values), sort_keys=True, allow_nan=False).encode()
    ).hexdigest()


def seed_for(*what: object) -> int:
    """A seed named by what is drawn. Nothing here ever draws from global state."""
    return int(digest(*what)[:15], 16)


def generator(*what: object, on: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device=on).manual_seed(seed_for(*what))
