"""Tensors of somebody else's file, matched to a network name by name, or one after the other.

It knows how solo-learn, the authors of the paper and torchvision name things, and reads no file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from monosem.checkpoints.safe_load import WeightsError, list_names

Tensors = Mapping[str, Tensor]

_AUTOENCODER = {"pre_bias", "latent_bias", "encoder.weight", "decoder.weight", "idle"}
# What a new network counts from 0; a file may leave it out.
_COUNTS = ("num_batches_tracked", "idle")
# What a layer calls its tensors. Two of them may have one shape, and must not be exchanged.
_ROLES = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_PARTS = {"backbone", "projector", "classifier", "predictor", "autoencoder", "fc"}


class MisfitError(WeightsError):
    """Tensors that are not those of the network, by their names, shapes or dtypes."""


def matched(given: Tensors, wanted: Tensors, path: Path) -> dict[str, Tensor]:
    """The tensors of a file under the names, and with the shapes and dtypes, of a network.

    given: of a checkpoint of solo-learn (also of old ones, where the backbone is called encoder),
        of the authors' sparse autoencoder, or of a backbone alone; also from inside
        DataParallel, torch.compile or FSDP.
    wanted: the state_dict of a network with solo-learn's names. Only its shapes and dtypes are
        looked at, so it may be on the meta device.
    path: of the file, for the message.

    Returns copies in the order of `wanted`. A count that is missing is zero, as in a new network.

    Raises WeightsError where a tensor is missing, has another shape, is left over and not known to
    be of no use, or holds what is no finite number.
    """
    names = translate_names(given)
    tensors = {ours: given[theirs] for theirs, ours in names.items()}
    left_over = {theirs: given[theirs] for theirs in _left_over(names, wanted)}
    return _checked(tensors, wanted, left_over, path, _hints)


def fitted(
    given: Tensors, wanted: Tensors, classifiers: Sequence[str], path: Path
) -> dict[str, Tensor]:
    """As `matched`, of a network whose names the file has as they are, or inside DataParallel.

    classifiers: layers that the file may have beside the network.
    """
    names = _outside_wrappers(given)
    tensors = {ours: given[theirs] for theirs, ours in names.items()}
    beginnings = tuple(f"{name}." for name in classifiers)
    left_over = {
        name: tensor
        for name, tensor in tensors.items()
        if name not in wanted and not name.startswith(beginnings)
    }
    return _checked(tensors, wanted, left_over, path, _hints_of_names)


def in_order(given: Tensors, wanted: Tensors, path: Path) -> dict[str, Tensor]:
    """The tensors of a file under the names of a network, one after the other.

    given: of a file that has names of its own, in the order of the network.
    wanted: the whole state_dict of the network.

    Raises WeightsError where the numbers of tensors differ, or a shape, or what the layers call
    their tensors: a weight is no bias.
    """
    pairs = list(zip(given.items(), wanted.items(), strict=False))
    complaints = []
    if len(given) != len(wanted):
        complaints.append(f"it has {len(given)} tensors and the network has {len(wanted)}")
    for place, ((theirs, tensor), (ours, want)) in enumerate(pairs, start=1):
        if tensor.shape != want.shape or _roles_differ(theirs, ours):
            complaints.append(
                f"number {place} is the first of another shape or role: "
                f"{list_names([theirs])} {_shape(tensor)} for {ours} {_shape(want)}"
            )
            break
    if complaints:
        raise WeightsError(f"{path} does not fit the network in order: {'; '.join(complaints)}")
    return {ours: tensor for (_, tensor), (ours, _) in pairs}


def _roles_differ(theirs: str, ours: str) -> bool:
    roles = {name.rpartition(".")[2] for name in (theirs, ours)}
    return len(roles) == 2 and roles <= _ROLES


def _checked(
    tensors: Tensors,
    wanted: Tensors,
    left_over: Tensors,
    path: Path,
    hints_about: Callable[[Tensors, Tensors], list[str]],
) -> dict[str, Tensor]:
    complaints = Complaints.about(tensors, wanted, left_over)
    if complaints:
        hints = "".join(f"{hint}. " for hint in hints_about(tensors, wanted))
        raise MisfitError(f"{path} does not fit the network. {hints}{complaints}")
    matches = {name: _as_wanted(tensors.get(name), want) for name, want in wanted.items()}
    infinite = [name for name, tensor in matches.items() if not _is_finite(tensor)]
    if infinite:
        raise WeightsError(
            f"{path} holds numbers that are not finite in {list_names(infinite)}: "
            "that training diverged"
        )
    return matches


def _as_wanted(tensor: Tensor | None, want: Tensor) -> Tensor:
    """A copy, as `tensor` may be mapped from the file; zero for a count that the file lacks."""
    if tensor is None:
        return torch.zeros(want.shape, dtype=want.dtype)
    return tensor.to(want.dtype, copy=True)


def _is_finite(tensor: Tensor) -> bool:
    """By the extremes, into which a nan spreads: `isfinite` takes three times the memory."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return all(math.isfinite(extreme) for extreme in torch.aminmax(tensor))


@dataclass(frozen=True)
class Complaints:
    """Why tensors do not fit a network: names with shapes or dtypes, kind by kind.

    missing: what the network has and the file has not.
    of_another_shape: what both have, in different shapes.
    of_another_type: what both have, in different dtypes.
    left_over: what the file has and the network has not.
    """

    missing: list[str]
    of_another_shape: list[str]
    of_another_type: list[str]
    left_over: list[str]

    @classmethod
    def about(cls, tensors: Tensors, wanted: Tensors, left_over: Tensors) -> Complaints:
        """tensors, left_over: of a file, under the network's names and under its own."""
        return cls(
            missing=_missing(tensors, wanted),
            of_another_shape=_of_another_shape(tensors, wanted),
            of_another_type=_of_another_type(tensors, wanted),
            left_over=[f"{name} {_shape(tensor)}" for name, tensor in left_over.items()],
        )

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def __str__(self) -> str:
        return "; ".join(
            f"{kind.replace('_', ' ')}: {list_names(names)}"
            for kind, names in vars(self).items()
            if names
        )


def counts_from_zero(name: str) -> bool:
    """Whether a file may leave a tensor out, as a new network counts it from 0."""
    return name.endswith(_COUNTS)


def _missing(tensors: Tensors, wanted: Tensors) -> list[str]:
    return [
        f"{name} {_shape(want)}"
        for name, want in wanted.items()
        if name not in tensors and not counts_from_zero(name)
    ]


def _of_another_shape(tensors: Tensors, wanted: Tensors) -> list[str]:
    return [
        f"{name} {_shape(tensors[name])} instead of {_shape(want)}"
        for name, want in wanted.items()
        if name in tensors and tensors[name].shape != want.shape
    ]


def _of_another_type(tensors: Tensors, wanted: Tensors) -> list[str]:
    return [
        f"{name} {_dtype(tensors[name])} instead of {_dtype(want)}"
        for name, want in wanted.items()
        if name in tensors and tensors[name].is_floating_point() != want.is_floating_point()
    ]


def _left_over(names: Mapping[str, str], wanted: Tensors) -> list[str]:
    """The file's names that the network does not have and that may not be left out.

    names: in the file -> in the network.
    """
    parts = {name.partition(".")[0] for name in wanted}
    return [
        theirs
        for theirs, ours in names.items()
        if ours not in wanted and not _may_be_left_out(ours, parts)
    ]


def _may_be_left_out(name: str, parts: set[str]) -> bool:
    """Whether a tensor is of a known part that this network does not have: a classifier, say."""
    part = name.partition(".")[0]
    return part != "backbone" and part not in parts and _names_its_part(name)


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def translate_names(given: Iterable[str]) -> dict[str, str]:
    """Names in the file -> names here. Each rule is about whole components of a name."""
    names = _outside_wrappers(given)
    parts = {name.partition(".")[0] for name in names.values() if name not in _AUTOENCODER}
    return {theirs: _translate(name, parts) for theirs, name in names.items()}


def _outside_wrappers(given: Iterable[str]) -> dict[str, str]:
    """Names in the file -> those inside what wraps networks.

    DataParallel puts "module." before all names; torch.compile and FSDP put a component of their
    own where the wrapped part begins.
    """
    names = {theirs: _without_wrappers(theirs) for theirs in given}
    if len(set(names.values())) < len(names):  # two would have one name
        names = {theirs: theirs for theirs in names}
    while names and all(name.startswith("module.") for name in names.values()):
        names = {theirs: name.removeprefix("module.") for theirs, name in names.items()}
    return names


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _translate(name: str, parts: set[str]) -> str:
    """The name here of one in a file. parts: what the other names of the file begin with."""
    if name in _AUTOENCODER and "autoencoder" not in parts:
        return f"autoencoder.{name}"
    if "backbone" not in parts and name.startswith("encoder."):
        return f"backbone.{name.removeprefix('encoder.')}"
    if parts.isdisjoint({"backbone", "encoder"}) and not _names_its_part(name):
        return f"backbone.{name}"
    return name


def _names_its_part(name: str) -> bool:
    """Whether a name says of which part of a network it is; in a backbone alone it does not."""
    part = name.partition(".")[0]
    return part in _PARTS or part.startswith(("momentum_", "queue"))


def _hints(tensors: Tensors, wanted: Tensors) -> list[str]:
    """How the file's network differs, in the words of this one's fields, where its shapes tell."""
    hints = []
    depth, stem = resnet_depth(tensors), _stem(tensors)
    if depth > 2 and depth != resnet_depth(wanted):
        hints.append(f"It has ResNet.depth = {depth}")
    if stem and _stem(wanted) not in ("", stem):
        hints.append(f"It has the {stem} stem: ResNet.stem = {stem.lower()!r}")
    for part, title in (("projector", "projector"), ("autoencoder", "sparse autoencoder")):
        if _has(wanted, part) and not _has(tensors, part):
            hints.append(f"It has no {title}")
    theirs, ours = _projector_sizes(tensors), _projector_sizes(wanted)
    if theirs and ours and theirs != ours:
        hidden, features = theirs
        hints.append(f"It has Projector.hidden = {hidden}, Projector.features = {features}")
    return hints


def _hints_of_names(tensors: Tensors, wanted: Tensors) -> list[str]:
    if tensors.keys() & wanted.keys():
        return []
    return ["It has other names; WeightsFile.match = 'order' takes one tensor after the other"]


def _has(tensors: Tensors, part: str) -> bool:
    return any(name.startswith(f"{part}.") for name in tensors)


def resnet_depth(names: Iterable[str]) -> int:
    """He et al. name a ResNet by its layers with weights: the convolutions, and the last layer.

    The first convolution and the last layer are always there; the others are in blocks.
    """
    pattern = re.compile(r"backbone\.layer\d\.\d+\.conv\d\.weight")
    return 2 + sum(pattern.fullmatch(name) is not None for name in names)


def _stem(tensors: Tensors) -> str:
    first = tensors.get("backbone.conv1.weight")
    return "" if first is None else {7: "ImageNet", 3: "CIFAR"}.get(first.shape[-1], "")


def _projector_sizes(tensors: Tensors) -> tuple[int, int] | None:
    """(hidden, features) of a Projector; None without its two linear layers."""
    hidden, features = (tensors.get(f"projector.{layer}.weight") for layer in (0, 2))
    if hidden is None or features is None or hidden.ndim != 2 or features.ndim != 2:
        return None
    return len(hidden), len(features)
