"""What the tests of checkpoint files share: tensors to save, and what is asserted of a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from monosem.checkpoints.safe_load import WeightsError
from monosem.checkpoints.weights import read


def odd_tensors() -> dict[str, Tensor]:
    """Of every kind that a checkpoint may hold: views, halves, booleans, nothing."""
    weight = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    return {
        "backbone.weight": nn.Parameter(weight),
        "backbone.transposed": weight.t(),
        "backbone.slice": weight[1:3, ::2],
        "backbone.half": weight.half(),
        "backbone.brain": weight.bfloat16(),
        "backbone.empty": torch.zeros(0, 3),
        "backbone.on": weight > 0,
        "backbone.num_batches_tracked": torch.tensor(7),
        "backbone.expanded": torch.ones(()).expand(5, 6),
    }


def assert_same(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """The same names in the same order, with the same numbers, and no gradients."""
    assert list(tensors) == list(expected)
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype, name
        assert tensors[name].shape == tensor.shape, name
        assert torch.equal(tensors[name], tensor), name
        assert not tensors[name].requires_grad, name


def assert_refused(path: Path, words: str) -> None:
    """Reading the file is refused in one line that names it and says `words`."""
    with pytest.raises(WeightsError) as error:
        read(path)
    message = str(error.value)
    assert words in message and str(path) in message, message
    assert "\n" not in message and len(message) < 700, message
