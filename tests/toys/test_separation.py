"""The paper's score J: its published numbers, plain sampling, and where the lines cross."""

from __future__ import annotations

import dataclasses

import pytest
import scipy.optimize
import torch
from conftest import ROOT

from monosem.core.fields import FieldError
from monosem.core.store import Store
from monosem.datasets.digits import Digits
from monosem.specs.load import load
from monosem.toys.separation import (
    Combination,
    SeparationUnderInputNoise,
    SeparationUnderWrongLabels,
    class_moments,
    mixed,
    separation,
)
from monosem.toys.superposition import TwoFeatures, draw_features

MONO, POLY = (1.0, 0.0), (1.0, -1.0)
PUBLISHED = TwoFeatures(density=0.8)  # S = .2


def score(kind, weights, severity):
    stage = kind(encoder=Combination(weights), data=PUBLISHED, severities=(severity,), name="x")
    return stage.score(severity)


def crossing(kind, low, high):
    """The severity at which both scores are equal, by another method than the stage's own."""
    at = scipy.optimize.brentq(
        lambda severity: score(kind, MONO, severity) - score(kind, POLY, severity), low, high
    )
    stage = kind(encoder=Combination(), data=PUBLISHED, severities=(0.0,), name="x")
    assert stage.crossing() == pytest.approx(at, abs=1e-9)
    return at


def test_the_clean_scores_are_the_published_ones():
    assert score(SeparationUnderWrongLabels, MONO, 0.0) == pytest.approx(6.1957, abs=5e-5)
    assert score(SeparationUnderWrongLabels, POLY, 0.0) == pytest.approx(10.1640, abs=5e-5)
    assert score(SeparationUnderInputNoise, MONO, 0.0) == pytest.approx(142.5 / 23, abs=1e-12)


def test_scores_cross_where_a_share_of_2427_of_the_labels_is_wrong():
    at = crossing(SeparationUnderWrongLabels, 0.01, 0.4)
    assert at == pytest.approx(0.24272, abs=5e-6)
    assert score(SeparationUnderWrongLabels, MONO, 0.3) > score(
        SeparationUnderWrongLabels, POLY, 0.3
    )


def test_with_1_plus_s_squared_for_both_classes_they_would_cross_at_2458():
    """P(x1 > x2) is (1 - S^2) / 2, that of the other class (1 + S^2) / 2. One coefficient for both
    makes classes equally large in the mixture of what is labelled alike."""

    def noisy_score(weights, rate):
        classes = [moments._replace(share=1.04 / 2) for moments in class_moments(*weights, 0.8)]
        zero, one = classes
        return separation(mixed(zero, one, rate), mixed(one, zero, rate))

    at = scipy.optimize.brentq(
        lambda rate: noisy_score(MONO, rate) - noisy_score(POLY, rate), 0.01, 0.4
    )
    assert at == pytest.approx(0.24585, abs=5e-6)


def test_the_two_classes_have_the_shares_of_the_theorem():
    zero, one = class_moments(*MONO, density=0.8)
    assert (one.share, zero.share) == pytest.approx(((1 - 0.2**2) / 2, (1 + 0.2**2) / 2))


def test_scores_cross_where_the_noise_of_the_inputs_has_a_deviation_of_5479():
    at = crossing(SeparationUnderInputNoise, 0.01, 2.0)
    assert at == pytest.approx(0.5479, abs=5e-5)


@pytest.mark.parametrize("weights", [MONO, POLY, (0.6, 0.3)])
@pytest.mark.parametrize("density", [0.5, 0.8])
def test_the_closed_form_is_what_sampling_gives(weights, density):
    draw = torch.Generator().manual_seed(0)
    x = draw_features(1_000_000, density, draw).double()
    hidden = x @ torch.tensor(weights, dtype=torch.float64)
    label = x[:, 0] > x[:, 1]
    wrong = torch.rand(len(x), generator=draw) < 0.3
    noise = (0.4 * torch.randn(x.shape, generator=draw)).double() @ torch.tensor(weights).double()

    def sampled(values, labels):
        one, zero = values[labels], values[~labels]
        return ((one.mean() - zero.mean()) / (one.std() * zero.std())).item()

    zero, one = class_moments(*weights, density)
    assert separation(zero, one) == pytest.approx(sampled(hidden, label), rel=0.02)
    noisy = separation(mixed(zero, one, 0.3), mixed(one, zero, 0.3))
    assert noisy == pytest.approx(sampled(hidden, label ^ wrong), rel=0.03)
    felt = sum(weight**2 for weight in weights) * 0.4**2
    assert separation(zero, one, felt) == pytest.approx(sampled(hidden + noise, label), rel=0.02)


def test_the_representation_is_the_combination():
    inputs = PUBLISHED.prepare(PUBLISHED.split("test").inputs)
    hidden = Combination(POLY).network(lambda stage: {})(inputs)
    assert torch.equal(hidden[:, 0], inputs[:, 0, 0, 0] - inputs[:, 1, 0, 0])


def test_bad_weights_other_data_and_impossible_severities_are_refused():
    with pytest.raises(FieldError, match="Combination.weights must hold 2 numbers, one a feature"):
        Combination((1.0,))
    assert "must have images of 2 channels" in (Combination().incompatibility(Digits()) or "")
    stage = SeparationUnderWrongLabels(
        encoder=Combination(), data=PUBLISHED, severities=(0.5,), name="x"
    )
    with pytest.raises(FieldError, match="must be from 0 to below 0.5, shares of wrong labels"):
        stage.preflight()
    with pytest.raises(FieldError, match="must be 0 or more, deviations of the noise, got -1"):
        SeparationUnderInputNoise(
            encoder=Combination(), data=PUBLISHED, severities=(-1.0,), name="x"
        ).preflight()


def test_the_files_are_the_paper_s_two_dimensions(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    store = Store(tmp_path)
    clean = {}
    for name in ("monosemantic", "polysemantic"):
        experiment = load([f"gin/toy/paper_{name}.gin"]).experiment
        assert experiment.name == name
        for curve in experiment.curves:
            assert dataclasses.replace(curve.data, density=0.8) == curve.data
            artifact = store.get(curve)
            clean[name] = artifact["separation"][0, 0].item()
            j, crossed = curve.remarks(artifact)
            assert j == f"J without noise: {clean[name]:.4f}"
            at = {"label_noise": "0.2427", "input_noise": "0.5479"}[curve.name]
            assert crossed == f"x1 separates better than x1 - x2 from {at} on"
    assert clean == pytest.approx({"monosemantic": 6.1957, "polysemantic": 10.1640}, abs=5e-5)
