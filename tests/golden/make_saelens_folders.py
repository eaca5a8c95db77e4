"""Writes saelens_folders/: sparse autoencoders as SAELens leaves them, with the latents it gives.

    pip install sae-lens==6.54.0
    python tests/golden/make_saelens_folders.py

A folder for each kind and convention, with random weights, and expected.safetensors: `inputs`
(rows, d), and for every folder its latents (rows, latents) and its reconstructions of them. Folders
of training classes that only train (BatchTopK, Matryoshka) are expected to give what SAELens
gives of the inference folder that it makes of them.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    GatedSAE,
    GatedSAEConfig,
    GatedTrainingSAE,
    GatedTrainingSAEConfig,
    JumpReLUSAE,
    JumpReLUSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from safetensors.torch import save_file

ROWS, D, LATENTS = 20, 6, 12
PLACE = Path(__file__).parent / "saelens_folders"
UNCENTRED: dict[str, Any] = {"apply_b_dec_to_input": False}
FOLDERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "standard": (StandardSAE, StandardSAEConfig, {}),
    "standard_uncentred": (StandardSAE, StandardSAEConfig, UNCENTRED),
    "standard_layer_norm": (
        StandardSAE,
        StandardSAEConfig,
        {"normalize_activations": "layer_norm"},
    ),
    "standard_bfloat16": (StandardSAE, StandardSAEConfig, {"dtype": "bfloat16"}),
    "topk": (TopKSAE, TopKSAEConfig, {"k": 3}),
    "topk_rescaled": (
        TopKSAE,
        TopKSAEConfig,
        {"k": 3, "rescale_acts_by_decoder_norm": True},
    ),
    "topk_training": (TopKTrainingSAE, TopKTrainingSAEConfig, {"k": 3, **UNCENTRED}),
    "topk_unit_norm": (
        TopKSAE,
        TopKSAEConfig,
        {"k": 3, "normalize_activations": "constant_norm_rescale"},
    ),
    "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}),
    "jumprelu_uncentred": (JumpReLUSAE, JumpReLUSAEConfig, UNCENTRED),
    "gated": (GatedSAE, GatedSAEConfig, {}),
    "gated_uncentred": (GatedSAE, GatedSAEConfig, UNCENTRED),
    "gated_training": (GatedTrainingSAE, GatedTrainingSAEConfig, {}),
    "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, {"k": 2.5}),
    "matryoshka": (
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
        {"k": 3, "matryoshka_widths": [4, 12]},
    ),
}


@torch.no_grad()
def randomise(sae: Any, draw: torch.Generator) -> None:
    """Random weights; some thresholds are below 0, where SAELens rectifies."""
    for name, tensor in sorted(sae.state_dict().items()):
        values = torch.randn(tensor.shape, generator=draw) * (1 if tensor.ndim > 1 else 0.3)
        tensor.copy_(values.abs() if name == "topk_threshold" else values)


def for_inference(sae: Any, place: Path) -> Any:
    """What SAELens makes of it where it is used."""
    if not hasattr(sae, "save_inference_model"):
        return sae
    with tempfile.TemporaryDirectory() as folder:
        copy.deepcopy(sae).save_inference_model(folder)  # it changes the weights in place
        return SAE.load_from_disk(folder)


def main() -> None:
    warnings.simplefilter("ignore")
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(ROWS, D, generator=draw) + 0.5
    expected = {"inputs": inputs}
    for name, (kind, config, fields) in FOLDERS.items():
        sae = kind(config(d_in=D, d_sae=LATENTS, **fields))
        randomise(sae, draw)
        sae.save_model(PLACE / name)
        used = for_inference(sae, PLACE / name).to(dtype=torch.float32)
        with torch.no_grad():
            latents = used.encode(inputs)
            expected[f"{name}/latents"] = latents.contiguous()
            expected[f"{name}/reconstruction"] = used.decode(latents).contiguous()
    save_file(expected, PLACE / "expected.safetensors")


if __name__ == "__main__":
    main()
