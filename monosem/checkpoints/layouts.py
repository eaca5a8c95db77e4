"""Where in somebody else's file a network lies: under a prefix, beside others, or by numbers.

`matching` says whether tensors fit. Here the places are tried where a file may have them: Lightning
modules keep a network as `model.` or `net.`, MoCo has `encoder_q.` and `encoder_k.`, DINO `student`
and `teacher`, and lightly keeps the children of a ResNet in an nn.Sequential, by their numbers.
One place that fits is read. Of several a person chooses, by a prefix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from monosem.checkpoints.matching import (
    MisfitError,
    Tensors,
    counts_from_zero,
    matched,
    translate_names,
)
from monosem.checkpoints.safe_load import WeightsError, list_names

DEEPEST = 4  # components of a prefix
LAST = "fc"  # torchvision's name for the last layer of a ResNet
# What is called so beside a backbone without a prefix is another part of the model.
HEADS = frozenset(
    {"classifier", "cls", "fc", "head", "heads", "linear", "linear_head", "last_layer", "logits"}
    | {"mlp_head", "online_classifier", "prediction_head", "predictor", "proj"}
    | {"projection_head", "projector", "prototypes"}
)


class Location(NamedTuple):
    """Where in a file all tensors of a network are.

    prefix: what their names begin with.
    tensors: without those of other parts.
    is_whole: whether all that was left out is a head, by its name.
    """

    prefix: str
    tensors: dict[str, Tensor]
    is_whole: bool


def placed(given: Tensors, wanted: Tensors, path: Path, prefix: str | None) -> dict[str, Tensor]:
    """The tensors of a file under the names of a network, wherever in the file they lie.

    given, wanted, path: as of `matched`.
    prefix: what the names of the network begin with in the file; what else lies there is left out.
        None: look for it.

    Raises WeightsError where nothing fits, or several networks do.
    """
    if prefix is not None:
        chosen = _place(given, wanted, prefix)
        if not chosen.tensors:
            raise WeightsError(
                f"{path} has no such names that begin with {prefix!r}, as Checkpoint.prefix says; "
                f"it has {list_names(list(given))}"
            )
        return matched(chosen.tensors, wanted, _under(path, prefix))
    try:
        return matched(given, wanted, path)
    except MisfitError as error:
        places = _complete_places(given, wanted)
        if len(places) > 1:
            choices = " or ".join(repr(place.prefix) for place in places)
            raise WeightsError(
                f"{path} holds {len(places)} networks that fit: "
                f"Checkpoint.prefix = {choices} says which"
            ) from None
        if not places:
            nearest = _nearest_prefix(given, wanted)
            if not nearest:
                raise error from None
            return matched(_below(given, nearest), wanted, _under(path, nearest))
        (place,) = places
        if place.is_whole:
            return matched(place.tensors, wanted, path)
        raise WeightsError(
            f"{error}. Checkpoint.prefix = {place.prefix!r} leaves out what is left over"
        ) from None


def _under(path: Path, prefix: str) -> Path:
    """For messages."""
    return Path(f"{path} (under {prefix!r})") if prefix else path


def _below(given: Tensors, prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in given.items()
        if name.startswith(prefix)
    }


def _place(given: Tensors, wanted: Tensors, prefix: str) -> Location:
    """What lies under a prefix, whether it is complete or not."""
    below = _numbers_named(_below(given, prefix), wanted)
    names = translate_names(below)
    parts = {_part_of(name) for name in wanted}
    taken = {theirs: below[theirs] for theirs, ours in names.items() if _part_of(ours) in parts}
    left = [ours for theirs, ours in names.items() if theirs not in taken]
    inside = {_child_of(ours) for ours in left if _is_inside(ours)}
    return Location(prefix, taken, inside <= HEADS)


def _complete_places(given: Tensors, wanted: Tensors) -> list[Location]:
    """Every network in the file that has all that is wanted, the shortest prefix first.

    `model.` and `model.backbone.` may lead to the same tensors: that counts once, as the one that
    leaves out heads alone.
    """
    places: dict[tuple[int, ...], Location] = {}
    for prefix in _prefixes(given, wanted):
        place = _place(given, wanted, prefix)
        sources = _sources(place.tensors, wanted)
        if sources and (sources not in places or (place.is_whole and not places[sources].is_whole)):
            places[sources] = place
    return list(places.values())


def _prefixes(given: Tensors, wanted: Tensors) -> list[str]:
    """What may lie before the names of the network, the shortest first; '' too."""
    needed = sum(not counts_from_zero(name) for name in wanted)
    sizes: Counter[str] = Counter({"": len(given)})
    for name in given:
        parts = name.split(".")
        for depth in range(1, min(DEEPEST, len(parts) - 1) + 1):
            sizes[".".join(parts[:depth]) + "."] += 1
    return sorted((prefix for prefix, size in sizes.items() if size >= needed), key=len)


def _sources(tensors: Tensors, wanted: Tensors) -> tuple[int, ...]:
    """Which tensors of the file the network would get; () where one is not there or misshapen."""
    ours = {name: tensors[theirs] for theirs, name in translate_names(tensors).items()}
    sources = []
    for name, want in wanted.items():
        if name in ours and ours[name].shape == want.shape:
            sources.append(id(ours[name]))
        elif not counts_from_zero(name):
            return ()
    return tuple(sources)


def _is_inside(name: str) -> bool:
    return name.startswith("backbone.")


def _part_of(name: str) -> str:
    """`projector`, or `backbone.layer1`: in a backbone, the child.

    A layer more in a backbone is so a part of its own, and no head by its name.
    """
    first, _, rest = name.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first == "backbone" else first


def _numbers_named(below: Tensors, wanted: Tensors) -> dict[str, Tensor]:
    """Numbered children get the names that the network's children have, in their order.

    As the n-th child of an nn.Sequential is the n-th of a ResNet. Only children with tensors are
    counted on either side. One more, which is a linear layer, is the last layer of the ResNet.
    """
    names = translate_names(below)
    children = _children(names.values())
    wanted_children = _children(wanted)
    numbers = sorted(filter(str.isdecimal, children), key=int)
    are_named = any(map(str.isdecimal, wanted_children))
    others = set(children) - set(numbers)
    if are_named or len(numbers) < len(wanted_children) or others - HEADS:
        return dict(below)
    named = dict(zip(numbers, [*wanted_children, LAST], strict=False))
    is_linear = {f"backbone.{number}.{role}" for number in numbers for role in ("weight", "bias")}
    ends = [name for name in names.values() if named.get(_child_of(name)) == LAST]
    if not is_linear.issuperset(ends):
        return dict(below)
    return {_renamed(ours, named): below[theirs] for theirs, ours in names.items()}


def _children(names: Iterable[str]) -> list[str]:
    """The children of the backbone, in the order of their first tensor."""
    return list(dict.fromkeys(_child_of(name) for name in names if _is_inside(name)))


def _child_of(name: str) -> str:
    """`layer1` of `backbone.layer1.0.conv1.weight`."""
    return _part_of(name).partition(".")[2]


def _renamed(name: str, named: Mapping[str, str]) -> str:
    first, child, *rest = name.split(".") if _is_inside(name) else (name, "")
    return ".".join([first, named.get(child, child), *rest]) if child else name


def _nearest_prefix(given: Tensors, wanted: Tensors) -> str:
    """The prefix under which most of the wanted names are; '' where that is none or few."""
    names = {name for name in wanted if not counts_from_zero(name)}
    found: Counter[str] = Counter()
    for theirs in given:
        parts = theirs.split(".")
        for depth in range(min(DEEPEST, len(parts) - 1) + 1):
            rest = ".".join(parts[depth:])
            if names & {rest, f"backbone.{rest}"}:
                found["".join(f"{part}." for part in parts[:depth])] += 1
    (prefix, count), *_ = [*found.most_common(1), ("", 0)]
    return prefix if 2 * count > len(names) else ""
