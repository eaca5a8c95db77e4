"""Where the weights of a pretrained network come from: nowhere, a file, or their publishers.

Nothing is downloaded unless somebody asks for `PublishedWeights`, and then it is said.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn, Protocol

import gin
import torch
from torch import Tensor, nn

from monosem.checkpoints import weights
from monosem.checkpoints.matching import Tensors, fitted, in_order
from monosem.checkpoints.safe_load import WeightsError
from monosem.core.device import seeded
from monosem.core.fields import Part, PathField, Seed, package_hint
from monosem.core.files import known_digest
from monosem.datasets.cifar import PATIENCE, downloads_allowed, patience


class Published(NamedTuple):
    """Weights that somebody has published.

    address: for people.
    cached: gives the file where the library has kept it, or None.
    fetch: downloads it to there.
    """

    address: str
    cached: Callable[[], Path | None]
    fetch: Callable[[], Path]


class Architecture(Hashable, Protocol):
    """What weights are put into: one network of a library."""

    def build(self) -> nn.Module:
        """The network with first weights, drawn from torch's current generator."""

    def empty(self, whole: bool = False) -> nn.Module:
        """The network without weights: names and shapes alone, on the meta device.

        whole: with its classifier, which else is left out.
        """

    def translated(self, tensors: Tensors, network: nn.Module) -> Tensors:
        """Tensors of a file, under the names that the library gives them where it knows others."""

    @property
    def classifiers(self) -> tuple[str, ...]:
        """The names of the layers that are left out."""

    def published(self) -> Published:
        """Refuses where there are none."""

    def refuse(self, field: str, reason: str) -> NoReturn: ...


@dataclass(frozen=True)
class Weights(Part):
    """Where the weights of a network come from."""

    def check(self, architecture: Architecture) -> str | None:
        """A digest of weights that are not in the key already; refuses what does not fit."""
        return None

    def network(self, architecture: Architecture) -> nn.Module:
        """The network with its weights."""
        raise NotImplementedError


@gin.register
@dataclass(frozen=True)
class RandomWeights(Weights):
    """First weights, as the library draws them: a control, or a start of fine-tuning.

    seed: of the draw.
    """

    seed: Seed = 0

    def network(self, architecture: Architecture) -> nn.Module:
        with seeded("RandomWeights", self.seed):
            return architecture.build()


@dataclass(frozen=True)
class StoredWeights(Weights):
    """Weights in a file."""

    def file(self, architecture: Architecture) -> Path:
        raise NotImplementedError

    def named(self, given: Tensors, architecture: Architecture, path: Path) -> Tensors:
        """The tensors of the file under the names of the network. Raises WeightsError."""
        return architecture.translated(given, architecture.empty())

    def check(self, architecture: Architecture) -> str | None:
        path = self.file(architecture)
        try:
            digest = known_digest(path)
        except OSError as error:
            architecture.refuse("weights", f"cannot be used: {path} {error.strerror}")
        _check_once(self, architecture, digest)
        return digest

    def tensors(self, architecture: Architecture) -> dict[str, Tensor]:
        """By the network's names. Every one is checked."""
        path = self.file(architecture)
        try:
            given = self.named(weights.read(path), architecture, path)
            return fitted(given, architecture.empty().state_dict(), architecture.classifiers, path)
        except WeightsError as error:
            architecture.refuse("weights", f"cannot be used: {error}")

    def network(self, architecture: Architecture) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            network = architecture.build()
        network.load_state_dict(self.tensors(architecture))
        return network


@functools.lru_cache(maxsize=64)
def _check_once(stored: StoredWeights, architecture: Architecture, digest: str) -> None:
    """Keys are made often, and a file may be large: it is read for each of its states once."""
    stored.tensors(architecture)


@gin.register
@dataclass(frozen=True)
class WeightsFile(StoredWeights):
    """Weights in a file of safetensors or torch.save, whose code is not run.

    path: of the file; 'package:NAME/FILE' is one inside an installed package. Its content is in the
        key, its place is not.
    match: 'name' finds a tensor by its name. timm knows other names of some networks, such as those
        of DINOv2 and CLIP at their publishers. 'order' takes the tensors one after the other, where
        a file has names of its own: their number, every shape and the last words of the names
        ('weight', 'running_mean') must be right.
    """

    path: PathField
    match: Literal["name", "order"] = "name"

    def file(self, architecture: Architecture) -> Path:
        path = Path(self.path)
        if not path.is_file():
            absence = f"{weights.describe_absence(path)}{package_hint(self.path)}"
            self.refuse("path", f"cannot be used: {absence}")
        return path

    def named(self, given: Tensors, architecture: Architecture, path: Path) -> Tensors:
        if self.match == "name":
            return super().named(given, architecture, path)
        return in_order(given, architecture.empty(whole=True).state_dict(), path)


@gin.register
@dataclass(frozen=True)
class PublishedWeights(StoredWeights):
    """The weights that the library has for the network's name, from its own cache.

    Where they are not there they are downloaded, when the spec is read, and that is said. The
    library's environment variables, TORCH_HOME, HF_HOME and HF_ENDPOINT, say whereto and wherefrom.
    """

    def file(self, architecture: Architecture) -> Path:
        published = architecture.published()
        path = published.cached()
        if path is not None:
            return path
        if not downloads_allowed():
            architecture.refuse(
                "weights",
                f"are not in the cache: they would be downloaded from {published.address}",
            )
        print(f"downloading {published.address}", file=sys.stderr)
        try:
            with patience(PATIENCE):
                return published.fetch()
        except Exception as error:  # of a server, and of any library between here and there
            reason = str(error).strip().partition("\n")[0][:200]
            architecture.refuse(
                "weights", f"are not in the cache, and {published.address} cannot be had: {reason}"
            )


def at_address(url: str) -> Published:
    """A file that torch.hub keeps in its cache, by the last part of its address."""

    def place() -> Path:
        return Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])

    def cached() -> Path | None:
        return place() if place().is_file() else None

    def fetch() -> Path:
        place().parent.mkdir(parents=True, exist_ok=True)
        promised = re.search(r"-([0-9a-f]{8,})\.", place().name)  # the beginning of its sha256
        torch.hub.download_url_to_file(
            url, str(place()), promised[1] if promised else None, progress=False
        )
        return place()

    return Published(url, cached, fetch)
