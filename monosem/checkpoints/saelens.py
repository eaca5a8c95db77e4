"""Folders of SAELens: read as autoencoders, and written.

A folder holds cfg.json, which says the kind, and sae_weights.safetensors, as SAELens 6 writes them:
W_enc (d, latents), W_dec (latents, d), b_dec (d,), and b_enc (latents,) or what the kind has
instead. What differs there is folded into the weights, and an `Autoencoder` gives the same latents:

    apply_b_dec_to_input = False            b_enc + b_dec W_enc in place of b_enc, as here
                                            latents = rule(W_e (x - pre_bias) + latent_bias)
    rescale_acts_by_decoder_norm = True     W_enc and b_enc times the norms of W_dec's rows, W_dec
                                            divided by them
    BatchTopK and Matryoshka                become JumpReLU with one threshold, as SAELens makes of
                                            them once they are trained
    threshold < 0                           0, as SAELens rectifies what passes
    dtype                                   float32, as SAELens computes if it is asked to

Normalisation of every row (layer_norm, constant_norm_rescale) is done in front of the encoder and
undone behind the decoder. One that needs numbers which are not in the folder is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from monosem.autoencoders.base import Autoencoder, Code, Rule, Sparsifier
from monosem.autoencoders.gated import L1, Gated, GatedRule
from monosem.autoencoders.jumprelu import JumpReLU, JumpReLURule
from monosem.autoencoders.matryoshka import MatryoshkaRule
from monosem.autoencoders.topk import BatchTopKRule, TopK
from monosem.checkpoints.matching import Complaints
from monosem.checkpoints.saelens_config import CONFIG, NORMALISATIONS, Config
from monosem.checkpoints.safe_load import WeightsError, list_names
from monosem.checkpoints.weights import read
from monosem.core.files import write_synced, write_text

WEIGHTS = "sae_weights.safetensors"
FORMAT = "6.54.0"  # the version of SAELens whose folders are written

Tensors = dict[str, Tensor]


# Reading


class TheirAutoencoder(Autoencoder):
    """An autoencoder that normalises what it reads, row by row, and undoes that at the end."""

    def __init__(self, config: Config):
        super().__init__(config.features, config.latents, _sparsity(config))
        self.normalise = NORMALISATIONS[config.normalisation]

    def encode(self, x: Tensor) -> Tensor:
        return super().encode(self.normalise(x).rows)

    def forward(self, x: Tensor) -> Code:
        rows, scale, shift = self.normalise(x)
        code = super().forward(rows)
        rebuilt = tuple(each * scale + shift for each in code.reconstructions)
        return code._replace(reconstructions=rebuilt)


def _sparsity(config: Config) -> Sparsifier:
    """What says which latents are on; what it says of training means nothing."""
    if config.architecture == "gated":
        return Gated()
    if config.architecture == "standard":
        return L1()
    return JumpReLU() if config.k is None else TopK(config.k)


def read_state(folder: Path, config: Config) -> Tensors:
    """The state of `TheirAutoencoder` from the weights of a folder, float32, by name.

    config: of the folder.

    Raises WeightsError where a tensor is missing, left over, of another shape or not finite.
    """
    path = folder / WEIGHTS
    given = read(path)
    wanted = {name: torch.empty(shape, device="meta") for name, shape in config.shapes().items()}
    left_over = {name: tensor for name, tensor in given.items() if name not in wanted}
    if complaints := Complaints.about(given, wanted, left_over):
        raise WeightsError(f"{path} does not fit the {CONFIG} beside it. {complaints}")
    if infinite := [name for name, tensor in given.items() if not tensor.isfinite().all()]:
        raise WeightsError(f"{path} holds numbers that are not finite in {list_names(infinite)}")
    theirs = {name: tensor.double() for name, tensor in given.items()}
    state = TheirAutoencoder(config).state_dict()
    for name, tensor in _folded(theirs, config).items():
        state[name].copy_(tensor)
    return state


def _folded(theirs: Mapping[str, Tensor], config: Config) -> Tensors:
    """Tensors of a folder -> those of an autoencoder, both float64."""
    norms = torch.ones(config.latents, dtype=torch.float64)
    if config.rescales:
        norms = theirs["W_dec"].norm(dim=1)
    encoder = theirs["W_enc"] * norms
    shift = theirs["b_dec"] @ encoder * (not config.centres)
    tensors = {
        "pre_bias": theirs["b_dec"],
        "encoder.weight": encoder.T,
        "decoder.weight": (theirs["W_dec"] / norms.clamp(min=1e-12)[:, None]).T,
    }
    if config.architecture == "gated":
        return {
            **tensors,
            "latent_bias": theirs["b_gate"] + shift,
            "rule.magnitude_bias": theirs["b_mag"] + shift * theirs["r_mag"].exp(),
            "rule.magnitude_scale": theirs["r_mag"],
        }
    tensors["latent_bias"] = theirs["b_enc"] * norms + shift
    for name in ("threshold", "topk_threshold"):
        if name in theirs:
            tensors["rule.threshold"] = theirs[name].clamp(min=0)
    return tensors


# Writing


@dataclass(frozen=True)
class _Kind:
    """What SAELens calls a kind.

    architecture: there.
    vectors: its tensors of shape (latents,), by their names there.
    settings: those of cfg.json that only this kind has.
    """

    architecture: str
    vectors: Tensors
    settings: dict[str, Any] = field(default_factory=dict)


def write(folder: Path, autoencoder: Autoencoder, metadata: Mapping[str, str]) -> None:
    """Write an autoencoder as a folder that `SAE.load_from_disk` of SAELens reads.

    metadata: strings about it; SAELens shows them and reads nothing in them.

    Raises WeightsError where SAELens has no such kind, and FileExistsError where the folder holds
    another autoencoder.
    """
    kind = _kind_of(autoencoder.sparsity, autoencoder.rule, autoencoder.latent_bias)
    latents, d = autoencoder.encoder.weight.shape
    config = {
        "d_in": d,
        "d_sae": latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": FORMAT, **metadata},
        "architecture": kind.architecture,
        **kind.settings,
    }
    text = json.dumps(config, indent=1)
    path = folder / CONFIG
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise FileExistsError(f"{folder} holds another autoencoder: name a folder that is new")
    tensors = {
        "W_enc": autoencoder.encoder.weight.T,
        "W_dec": autoencoder.decoder.weight.T,
        "b_dec": autoencoder.pre_bias,
        **kind.vectors,
    }
    plain = {name: each.detach().cpu().float().contiguous() for name, each in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_synced(folder / WEIGHTS, save(plain))
    write_text(path, text)


def _kind_of(sparsity: Sparsifier, rule: Rule, bias: Tensor) -> _Kind:
    """What SAELens has for it. bias: (latents,), latent_bias of the autoencoder."""
    if isinstance(rule, MatryoshkaRule):
        return _kind_of(rule.sparsity.sparsity, rule.inner, bias)
    if isinstance(rule, BatchTopKRule):
        threshold = rule.threshold.to(bias.dtype).expand_as(bias)
        return _Kind("jumprelu", {"b_enc": bias, "threshold": threshold})
    if isinstance(rule, JumpReLURule):
        return _Kind("jumprelu", {"b_enc": bias, "threshold": rule.threshold})
    if isinstance(rule, GatedRule):
        magnitude = {"r_mag": rule.magnitude_scale, "b_mag": rule.magnitude_bias}
        return _Kind("gated", {"b_gate": bias, **magnitude})
    if type(sparsity) is TopK:  # a subclass may have another rule
        settings = {"k": sparsity.k, "rescale_acts_by_decoder_norm": False}
        return _Kind("topk", {"b_enc": bias}, settings)
    if type(sparsity) is L1:
        return _Kind("standard", {"b_enc": bias})
    raise WeightsError(f"SAELens has no kind of autoencoder that is {type(sparsity).__name__}")
