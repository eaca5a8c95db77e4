"""The measurement of reconstructions, against the network that is taken apart."""

from __future__ import annotations

import pytest
import torch
from tiny_sae import tiny_sae

from monosem.core.stage import closure
from monosem.core.store import Store
from monosem.corruptions.label_noise import LabelNoise
from monosem.evaluation.experiment import Experiment
from monosem.evaluation.reconstruction import Reconstruction
from monosem.learning.optimizers import SGD, Constant
from monosem.metrics.firing import DENSITIES
from monosem.models.checkpoint import Latents
from monosem.models.representation import Projection
from monosem.probes.linear import LinearProbe
from monosem.robustness.curves import Curve


def test_it_is_of_the_test_split_and_of_what_the_autoencoder_reads(tmp_path):
    store, sae = Store(tmp_path), tiny_sae(views=())
    for encoder in (sae, Latents(sae, Projection(sae.encoder.encoder))):
        stage = Reconstruction(name="monosemanticity", encoder=encoder, data=sae.data)
        results = {result.metric: result.value for result in stage.results(store.get(stage))}
        images = sae.data.prepare(sae.data.split("test").inputs)
        x = encoder.encoder.network(store.get)(images)
        model = sae.autoencoder(store.get).eval()
        with torch.no_grad():
            code = model(x)
        error = ((code.reconstruction - x) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
        assert results["explained_variance"] == pytest.approx(1 - error.item(), rel=1e-4)
        never = (~(code.latents > 0).any(0)).float().mean().item()
        assert results["never_fire"] == pytest.approx(never)
        assert sum(results[name] for name in DENSITIES) == pytest.approx(1)


def test_an_experiment_measures_it_for_latents_and_for_nothing_else():
    sae = tiny_sae(views=())
    probe = LinearProbe(SGD(lr=1.0), Constant(), epochs=2)
    common = {"data": sae.data, "corruption": LabelNoise(), "probe": probe}
    curves = (
        Curve(name="latents", encoder=sae, severities=(0.0,), **common),
        Curve(name="dense", encoder=sae.encoder, severities=(0.0,), **common),
    )
    experiment = Experiment(name="both", curves=curves)
    (stage,) = experiment.reconstructions
    assert (stage.name, stage.encoder) == ("monosemanticity/latents", sae)
    assert stage in closure(experiment.stages)
