"""What holds for all nineteen common corruptions."""

from __future__ import annotations

import pytest
import torch
from corrupted_images import by_name, distance, smooth_images
from torch.testing import assert_close

from monosem.common_corruptions.base import SEVERITIES
from monosem.common_corruptions.blur import ZoomBlur
from monosem.common_corruptions.digital import ElasticTransform, Saturate
from monosem.core.identity import generator
from monosem.datasets.digits import Digits
from monosem.robustness.common import EXTRA, PUBLISHED

GREY = Digits(size=16)
SHAPES = [
    (1, 8, 8),
    (1, 16, 16),
    (1, 32, 32),
    (1, 224, 224),
    (3, 32, 32),
    (3, 224, 224),
    (3, 80, 96),
]


def every_but(*exceptions):
    kinds = [one for one in PUBLISHED + EXTRA if not isinstance(one, exceptions)]
    return pytest.mark.parametrize("corruption", kinds, ids=by_name)


every = every_but()


@every
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_are_whole_grey_levels_in_range_and_repeat_with_the_draw(corruption, shape):
    pixels = smooth_images(2, shape[0], 224)[:, :, : shape[1], : shape[2]]
    for severity in range(1, SEVERITIES + 1):
        first, second = (corruption.corrupted(pixels, severity, generator("x")) for _ in range(2))
        assert first.shape == pixels.shape and torch.equal(first, second)
        assert first.min() >= 0 and first.max() <= 1
        assert_close(first * 255, (first * 255).round(), rtol=0, atol=1e-3)
        # Grey is not saturated, and an image of 8 pixels is too small for the first zooms.
        if not isinstance(corruption, (Saturate, ZoomBlur)):
            assert not torch.equal(first, pixels)


@every
def test_severity_0_changes_nothing_and_all_tables_have_5_strengths(corruption):
    inputs = GREY.prepare(GREY.split("test").inputs[:5])
    assert torch.equal(corruption.inputs(inputs, GREY, 0, generator("x")), inputs)
    assert len(corruption.small) == len(corruption.large) == SEVERITIES
    assert corruption.incompatibility(GREY) is None


@every
def test_severities_draw_equally_much_so_that_later_chunks_share_their_draws_too(corruption):
    states = []
    for severity in range(1, SEVERITIES + 1):
        draw = generator("x")
        corruption.corrupted(smooth_images(2, 1, 20), severity, draw)
        states.append(draw.get_state())
    assert all(torch.equal(state, states[0]) for state in states)
    assert torch.equal(states[0], generator("x").get_state()) != corruption.is_random


@every
def test_severities_are_whole_numbers_up_to_5(corruption):
    labels = torch.arange(3)
    for severity in range(6):
        corruption.check_severity(severity, labels)
    for severity in (2.5, 6, -1):
        with pytest.raises(
            ValueError, match=rf"^must be 0 or a whole number from 1 to 5, got {severity}$"
        ):
            corruption.check_severity(severity, labels)


@every
def test_normalised_inputs_are_corrupted_as_their_pixels(corruption):
    inputs = GREY.prepare(GREY.split("test").inputs[:5])
    corrupted = corruption.inputs(inputs, GREY, 3, generator("x"))
    pixels = GREY.split("test").inputs[:5].float() / 255
    expected = GREY.normalise(corruption.corrupted(pixels, 3, generator("x")))
    assert_close((corrupted - expected).abs().mean(), torch.tensor(0.0), rtol=0, atol=2e-4)
    assert torch.equal(corruption.inputs(inputs, GREY, 0, generator("x")), inputs)


@every_but(ElasticTransform)  # its published strengths are larger for small images
def test_the_side_of_64_pixels_still_takes_the_strengths_of_small_images(corruption):
    def mean_change(side):
        pixels = smooth_images(2, 3, 80)[:, :, :side, :side]
        return distance(corruption.corrupted(pixels, 3, generator("x")), pixels)

    assert mean_change(64) < mean_change(65)
