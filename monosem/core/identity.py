"""Identity: parts as plain data, the hash of that data, and seeds that are hashes too.

All are the same in every process and on every machine: they depend on no memory address, no order
of a set and no path.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from dataclasses import fields
from typing import Any

import torch

from monosem.core.fields import Part, annotations_of, is_in_key


def to_plain(value: object) -> Any:
    """`value` as JSON data: class names, versions, all fields that count, digests of files read."""
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if not isinstance(value, Part):
        return value
    annotations = annotations_of(type(value))
    counting = {
        field.name: to_plain(getattr(value, field.name))
        for field in fields(value)
        if is_in_key(annotations[field.name])
    }
    plain = {
        "class": type(value).__qualname__,
        "version": _version(type(value)),
        "fields": counting,
    }
    content = value.content()
    return plain if content is None else {**plain, "content": content}


def _version(cls: Any) -> int | str:
    """VERSION; of a class from outside monosem, which is edited while tried, the source too."""
    if cls.__module__.startswith("monosem."):
        return int(cls.VERSION)
    return f"{cls.VERSION} {cls.__module__} {_source_digest(cls)}"


@functools.cache
def _source_digest(cls: type) -> str:
    try:
        return hashlib.sha256(inspect.getsource(cls).encode()).hexdigest()[:20]
    except (OSError, TypeError):
        return "typed into a shell"


def digest(*values: object) -> str:
    """64 hex digits of parts, numbers, strings, or tuples of them."""
    text = json.dumps(to_plain(values), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def seed_for(*what: object) -> int:
    """A seed that is the hash of a description of what is drawn. No global state takes part."""
    return int(digest(*what)[:15], 16)


def generator(*what: object, on: torch.device | str = "cpu") -> torch.Generator:
    """A generator on a device, seeded by `seed_for`."""
    return torch.Generator(device=on).manual_seed(seed_for(*what))


def is_seed(binding: str) -> bool:
    """Whether a binding, as it is typed, is a seed: its values are draws of one thing."""
    return binding.rpartition(".")[2] == "seed"
