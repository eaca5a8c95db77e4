"""What tests of training share: a sparse autoencoder of a second, and a look into the optimiser."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from conftest import tiny_pretrain

from monosem.autoencoders.topk import TopK
from monosem.datasets.digits import Digits
from monosem.learning.objectives import Contrastive
from monosem.learning.optimizers import SGD, WarmupCosine
from monosem.models.autoencoder import SparseAutoencoder
from monosem.models.representation import Embedding
from monosem.models.training import Training


def tiny_sae(**fields: Any) -> SparseAutoencoder:
    """32 latents, 4 of them on, of the unit projections of a tiny SimCLR encoder."""
    pretrain = tiny_pretrain(objective=Contrastive())
    standard: dict[str, Any] = {
        "data": Digits(size=8),
        "encoder": Embedding(pretrain),
        "sparsity": TopK(4),
        "latents": 32,
        "optimizer": SGD(lr=0.05),
        "schedule": WarmupCosine(1.0),
        "epochs": 2,
        "batch_size": 256,
        "views": pretrain.views,
    }
    return SparseAutoencoder(**{**standard, **fields})


def groups_in_training(stage: Training, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The parameter groups that the stage gives its optimiser, which is SGD, with their rates."""
    built = []

    def build(self, groups):
        built.extend({"lr": self.lr, **group} for group in groups)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SGD, "build", build)
        patch.setattr(Embedding, "network", lambda self, get: None)
        stage.run(SimpleNamespace(get=None))
    return built
