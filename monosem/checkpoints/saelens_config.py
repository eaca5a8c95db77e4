"""The cfg.json of SAELens: its settings, each checked, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from monosem.checkpoints.safe_load import WeightsError
from monosem.checkpoints.weights import describe_absence
from monosem.core.fields import nearest

CONFIG = "cfg.json"
FIRST_FORMAT = 6  # the first version of SAELens whose folders are read


class Kind(NamedTuple):
    """What SAELens calls an architecture.

    vectors: the names of its tensors of shape (latents,) besides W_enc, W_dec and b_dec.
    scalars: those of shape ().
    """

    vectors: tuple[str, ...]
    scalars: tuple[str, ...] = ()


KINDS = {
    "standard": Kind(("b_enc",)),
    "topk": Kind(("b_enc",)),
    "jumprelu": Kind(("b_enc", "threshold")),
    "gated": Kind(("b_gate", "b_mag", "r_mag")),
    "batchtopk": Kind(("b_enc",), ("topk_threshold",)),
    "matryoshka_batchtopk": Kind(("b_enc",), ("topk_threshold",)),
}
RESCALED = ("topk", "batchtopk", "matryoshka_batchtopk")


class Normalised(NamedTuple):
    """Rows as an autoencoder reads them; x = rows * scale + shift.

    rows: (n, d).
    scale, shift: (n, 1).
    """

    rows: Tensor
    scale: Tensor
    shift: Tensor


def _as_they_are(x: Tensor) -> Normalised:
    return Normalised(x, x.new_ones(len(x), 1), x.new_zeros(len(x), 1))


def _layer_norm(x: Tensor) -> Normalised:
    """Every row minus its mean, divided by its standard deviation (that of d - 1) + 1e-5."""
    mean, deviation = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    return Normalised((x - mean) / (deviation + 1e-5), deviation, mean)


def _constant_norm(x: Tensor) -> Normalised:
    """Every row scaled to the norm sqrt(d)."""
    scale = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
    return Normalised(x / scale, scale, torch.zeros_like(scale))


NORMALISATIONS: dict[str, Callable[[Tensor], Normalised]] = {
    "none": _as_they_are,
    "layer_norm": _layer_norm,
    "constant_norm_rescale": _constant_norm,
}


@dataclass(frozen=True)
class Config:
    """What counts of a cfg.json.

    architecture: one of KINDS.
    features: d, what the autoencoder reads.
    latents: how many it has.
    k: of topk, else None.
    centres: whether b_dec is taken from the input.
    rescales: whether latents are compared times the norms of their columns.
    normalisation: one of NORMALISATIONS.
    """

    architecture: str
    features: int
    latents: int
    k: int | None
    centres: bool
    rescales: bool
    normalisation: str

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the tensors that go with it."""
        kind, d, latents = KINDS[self.architecture], self.features, self.latents
        common = {"W_enc": (d, latents), "W_dec": (latents, d), "b_dec": (d,)}
        vectors = dict.fromkeys(kind.vectors, (latents,))
        return {**common, **vectors, **dict.fromkeys(kind.scalars, ())}


def read_config(folder: Path) -> Config:
    """The cfg.json of a folder. Raises WeightsError."""
    if folder.is_file():
        raise WeightsError(f"{folder} is a file: name the folder that it is in")
    if not folder.is_dir():
        raise WeightsError(f"there is no folder {folder}")
    path = folder / CONFIG
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(describe_absence(path)) from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise WeightsError(f"{path} holds no settings by name")
    return _Settings(path, given).config()


class _Settings:
    """The settings of a cfg.json, each checked as it is asked for."""

    def __init__(self, path: Path, given: Mapping[str, Any]):
        self.path, self.given = path, given

    def config(self) -> Config:
        self._check_version()
        architecture = self._choice("architecture", KINDS)
        latents = self._count("d_sae")
        self._choice("reshape_activations", ("none", "hook_z"), "none")  # the features are flat
        self._choice("dtype", ("float32", "float16", "bfloat16", "float64"), "float32")
        if self.given.get("finetuning_scaling_factor"):
            self._refuse("finetuning_scaling_factor", "must be false: it is not read here")
        return Config(
            architecture=architecture,
            features=self._count("d_in"),
            latents=latents,
            k=self._k(latents) if architecture == "topk" else None,
            centres=self._switch("apply_b_dec_to_input"),
            rescales=architecture in RESCALED and self._switch("rescale_acts_by_decoder_norm"),
            normalisation=self._normalisation(),
        )

    def _check_version(self) -> None:
        metadata = self.given.get("metadata")
        version = metadata.get("sae_lens_version") if isinstance(metadata, dict) else None
        version = version or self.given.get("sae_lens_version") or "a version before 6"
        first = str(version).partition(".")[0]
        if not first.isdigit() or int(first) < FIRST_FORMAT:
            raise WeightsError(
                f"{self.path} is of {version} of SAELens: load it with SAELens 6 and save it again"
            )

    def _normalisation(self) -> str:
        name = self.given.get("normalize_activations", "none")
        if name in ("expected_average_only_in", "covariance_whitening"):
            self._refuse(
                "normalize_activations",
                f"is {name!r}, whose numbers are not in the folder: fold them into the weights "
                "with SAELens and save it again",
            )
        return self._choice("normalize_activations", NORMALISATIONS, "none")

    def _k(self, latents: int) -> int:
        k = self._count("k")
        if k > latents:
            self._refuse("k", f"must be at most d_sae, {latents}, got {k}")
        return k

    def _choice(self, name: str, choices: Iterable[str], default: str | None = None) -> str:
        value = self.given.get(name, default)
        if not isinstance(value, str) or value not in choices:
            allowed = ", ".join(map(repr, choices))
            hint = nearest(str(value), choices, ". Did you mean {}?")
            self._refuse(name, f"must be one of {allowed}, got {value!r}{hint}")
        return value

    def _count(self, name: str) -> int:
        value = self.given.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self._refuse(name, f"must be a whole number from 1, got {value!r}")
        return value

    def _switch(self, name: str) -> bool:
        value = self.given.get(name)
        if not isinstance(value, bool):
            self._refuse(name, f"must be true or false, got {value!r}")
        return value

    def _refuse(self, name: str, reason: str) -> NoReturn:
        raise WeightsError(f"{name} in {self.path} {reason}")
