"""Common corruptions as a measurement: its points, its draws, and no encoder pass too many."""

from __future__ import annotations

import pytest
import torch
from conftest import tiny_pretrain

from monosem.common_corruptions.blur import DefocusBlur
from monosem.common_corruptions.noise import CommonGaussianNoise
from monosem.core.fields import FieldError
from monosem.core.store import Store
from monosem.datasets.digits import Digits
from monosem.learning.optimizers import SGD, Constant
from monosem.models.representation import Embedding
from monosem.probes.finetune import FineTune
from monosem.probes.linear import LinearProbe
from monosem.robustness.common import EXTRA, PUBLISHED, CommonCorruptions
from monosem.robustness.curves import Curve
from monosem.specs.load import load

DATA = Digits(size=8)
PROBE = LinearProbe(SGD(lr=1.0), Constant(), epochs=2)
SHARED = {"encoder": Embedding(tiny_pretrain(epochs=1)), "data": DATA, "probe": PROBE, "repeats": 2}


def a_measurement(**fields):
    usual = {**SHARED, "corruptions": (CommonGaussianNoise(), DefocusBlur()), "severities": (1, 5)}
    return CommonCorruptions(**{**usual, **fields})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def values_of(measurement, store, metric="top1"):
    """By point: the values of the repeats."""
    values = {}
    for result in measurement.results(store.get(measurement)):
        if result.metric == metric:
            values.setdefault((result.point, result.severity), []).append(result.value)
    return values


def test_points_are_clean_and_then_every_corruption_by_its_published_name(store):
    values = values_of(a_measurement(), store)
    names = [("clean", 0), ("gaussian_noise", 1), ("gaussian_noise", 5)]
    assert list(values) == [*names, ("defocus_blur", 1), ("defocus_blur", 5)]
    assert list(values) == list(a_measurement().points)
    assert all(len(repeats) == 2 for repeats in values.values())


@pytest.mark.parametrize("corruption", [CommonGaussianNoise(), DefocusBlur()])
def test_accuracies_are_those_of_a_curve_of_the_corruption(store, corruption):
    curve = Curve(corruption=corruption, severities=(0.0, 1.0, 5.0), **SHARED)
    of_curve = store.get(curve)["top1"]
    values = values_of(a_measurement(), store)
    name = corruption.published
    ours = [values["clean", 0], values[name, 1], values[name, 5]]
    assert torch.equal(torch.tensor(ours, dtype=torch.float64), of_curve.cpu())


def test_the_test_split_passes_once_a_draw_and_once_for_all_repeats_where_nothing_is_drawn(store):
    images = len(DATA.split("test").labels)
    assert store.get(a_measurement())["passes"] == images * (2 * 2 + 2 * 1)


def test_fine_tuned_networks_are_measured_too(store):
    probe = FineTune(SGD(lr=0.1), Constant(), epochs=1)
    measurement = a_measurement(probe=probe, severities=(5,))
    assert store.get(measurement)["passes"] == len(DATA.split("test").labels) * 4
    assert len(values_of(measurement, store)) == 3


def test_severities_and_corruptions_are_checked_before_any_work():
    for severity in (0, 6, 2.5):
        with pytest.raises(FieldError, match="CommonCorruptions.severities must be"):
            a_measurement(severities=(severity,))
    for fields in ({"severities": ()}, {"corruptions": ()}, {"severities": (1, 1)}):
        with pytest.raises(FieldError, match="must"):
            a_measurement(**fields)
    two_channels = Digits(mean=(0.5, 0.5), std=(1.0, 1.0))
    with pytest.raises(FieldError, match="CommonCorruptions.data"):
        a_measurement(data=two_channels).preflight()


def test_the_published_set_is_the_paper_s_fifteen_in_its_order_and_four_more_are_extra():
    names = " ".join(corruption.published for corruption in PUBLISHED)
    assert names == (
        "gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur zoom_blur "
        "snow frost fog brightness contrast elastic_transform pixelate jpeg_compression"
    )
    extra = [corruption.published for corruption in EXTRA]
    assert extra == ["speckle_noise", "gaussian_blur", "spatter", "saturate"]
    assert CommonCorruptions(**SHARED).corruptions == PUBLISHED


def test_a_gin_file_names_the_extra_ones():
    files = [f"gin/common_corruptions/{name}.gin" for name in ("simclr", "extra")]
    (measurement,) = load(files, []).experiment.curves
    assert measurement.corruptions == EXTRA
