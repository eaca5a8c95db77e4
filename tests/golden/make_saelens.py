"""Writes m_saelens.npz: what the training classes of SAELens compute on small, random weights.

    pip install sae-lens==6.54.0
    python tests/golden/make_saelens.py

For each kind its latents, reconstruction and losses, the gradient of each loss for each weight, and
the state after the step, all in float64. Names are `kind/what` and `kind/loss/weight`. Weights are
as SAELens lays them out: W_enc (d, latents), W_dec (latents, d).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAE,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.saes.sae import TrainStepInput

ROWS, D, LATENTS = 10, 6, 12
TOP_K = {"k": 3, "rescale_acts_by_decoder_norm": False, "aux_loss_coefficient": 0.25}
JUMP = {"l0_coefficient": 0.3, "jumprelu_bandwidth": 0.5, "pre_act_loss_coefficient": 0.2}
KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "l1": (StandardTrainingSAE, StandardTrainingSAEConfig, {"l1_coefficient": 0.3}),
    "top_k": (TopKTrainingSAE, TopKTrainingSAEConfig, TOP_K),
    "batch_top_k": (
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        {**TOP_K, "topk_threshold_lr": 0.125},
    ),
    "matryoshka": (
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
        {**TOP_K, "matryoshka_widths": [4, 8, 12]},
    ),
    "gated": (GatedTrainingSAE, GatedTrainingSAEConfig, {"l1_coefficient": 0.3}),
    "step": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig, JUMP),
    "tanh": (
        JumpReLUTrainingSAE,
        JumpReLUTrainingSAEConfig,
        {**JUMP, "jumprelu_sparsity_loss_mode": "tanh", "jumprelu_ste_to_input": True},
    ),
    "target": (
        JumpReLUTrainingSAE,
        JumpReLUTrainingSAEConfig,
        {
            **JUMP,
            "jumprelu_sparsity_loss_mode": "quadratic",
            "target_l0": 3.0,
            "jumprelu_ste_to_input": True,
        },
    ),
}


def weights(draw: torch.Generator) -> dict[str, torch.Tensor]:
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    return {
        "W_enc": normal(D, LATENTS),
        "W_dec": normal(LATENTS, D),
        "b_dec": normal(D) / 4,
        "b_enc": normal(LATENTS) / 4,
        "b_gate": normal(LATENTS) / 4,
        "b_mag": normal(LATENTS) / 4,
        "r_mag": normal(LATENTS) / 4,
        # SAELens keeps these in float32, where 64ths are exact
        "threshold": torch.randint(8, 64, (LATENTS,), generator=draw) / 64,
        "topk_threshold": torch.tensor(0.5, dtype=torch.float64),
    }


def computed(kind: str, x: torch.Tensor, dead: torch.Tensor, given: Any) -> Iterator[Any]:
    model_class, config_class, settings = KINDS[kind]
    config = config_class(d_in=D, d_sae=LATENTS, dtype="float64", device="cpu", **settings)
    model = model_class(config)
    own = model.state_dict()
    model.load_state_dict({name: given[name].to(own[name].dtype) for name in own})
    coefficients = {
        name: getattr(value, "value", value) for name, value in model.get_coefficients().items()
    }
    output = model.training_forward_pass(
        TrainStepInput(
            sae_in=x,
            coefficients=coefficients,
            dead_neuron_mask=dead,
            n_training_steps=0,
            is_logging_step=False,
        )
    )
    yield "latents", output.feature_acts
    yield "reconstruction", output.sae_out
    yield "loss", output.loss
    for loss_name, loss in output.losses.items():
        yield loss_name, loss
        names, parameters = zip(*model.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None:
                yield f"{loss_name}/{name}", gradient
    if hasattr(model, "topk_threshold"):
        yield "topk_threshold", model.topk_threshold


def main() -> None:
    draw = torch.Generator().manual_seed(14)
    given = weights(draw)
    x = torch.randn(ROWS, D, generator=draw, dtype=torch.float64)
    dead = torch.zeros(LATENTS, dtype=torch.bool)
    dead[[1, 4, 5, 9, 11]] = True
    arrays = {"x": x, "dead": dead, **given}
    for kind in KINDS:
        arrays |= {f"{kind}/{what}": value for what, value in computed(kind, x, dead, given)}
    plain = {name: np.asarray(value.detach()) for name, value in arrays.items()}
    np.savez_compressed(Path(__file__).with_name("m_saelens.npz"), **plain)


if __name__ == "__main__":
    main()
