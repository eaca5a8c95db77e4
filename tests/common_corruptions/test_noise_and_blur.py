"""Noise and blur: against plain loops and, where it is installed, the package imagecorruptions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from corrupted_images import as_array, as_image, by_name, distance, pixels_of, smooth_images
from torch.testing import assert_close

from monosem.common_corruptions import blur
from monosem.common_corruptions.base import CommonCorruption, luma
from monosem.common_corruptions.blur import (
    CommonGaussianBlur,
    DefocusBlur,
    GlassBlur,
    MotionBlur,
    ZoomBlur,
)
from monosem.common_corruptions.noise import (
    CommonGaussianNoise,
    ImpulseNoise,
    ShotNoise,
    SpeckleNoise,
    photons,
)
from monosem.core.identity import generator
from monosem.datasets.digits import Digits

NOISES = [CommonGaussianNoise(), ShotNoise(), ImpulseNoise(), SpeckleNoise()]
BLURS = [DefocusBlur(), GlassBlur(), MotionBlur(), ZoomBlur(), CommonGaussianBlur()]


@pytest.mark.parametrize("corruption", BLURS, ids=by_name)
def test_a_plain_image_stays_plain_under_blur(corruption):
    plain = torch.full((1, 3, 32, 32), 0.6)
    assert_close(corruption.corrupted(plain, 5, generator("x")), plain, rtol=0, atol=1e-5)


def test_grey_images_are_made_rgb_only_where_colour_is_needed():
    class Red(CommonCorruption):
        needs_colour = True
        small = (1,) * 5

        def corrupt(self, pixels, strength, generator):
            assert pixels.shape[1] == 3
            return pixels * torch.tensor([1.0, 0.0, 0.0])[:, None, None]

    white = torch.ones(1, 1, 4, 4)
    assert_close(Red().corrupted(white, 1, generator("x")) * 255, white * 76)  # 0.299 of 255
    assert_close(luma(torch.ones(1, 3, 2, 2)), torch.ones(1, 1, 2, 2))


def test_images_of_two_channels_are_refused_in_one_line():
    data = Digits(mean=(0.5, 0.5), std=(1.0, 1.0))
    assert ShotNoise().incompatibility(data) == "must have 1 or 3 channels for shot_noise, got 2"


# Noise


@pytest.mark.parametrize("severity", range(1, 6))
def test_noise_of_mid_grey_has_the_published_deviation(severity):
    grey = torch.full((40, 3, 32, 32), 128 / 255)
    middle = 128 / 255
    expected = {
        "gaussian_noise": CommonGaussianNoise.small[severity - 1],
        "shot_noise": math.sqrt(middle / ShotNoise.small[severity - 1]),
        "impulse_noise": math.sqrt(ImpulseNoise.small[severity - 1]) / 2,
        "speckle_noise": SpeckleNoise.small[severity - 1] * middle,
    }
    for noise in NOISES:
        added = noise.corrupted(grey, severity, generator("x")) - middle
        assert abs(added.mean()) < 0.004  # half a grey level is cut off, 0.002
        assert_close(added.std().item(), expected[noise.published], rtol=0.03, atol=0)


def test_severities_share_their_draws():
    grey = torch.full((4, 3, 32, 32), 128 / 255)
    one, five = (CommonGaussianNoise().corrupt(grey, s, generator("x")) - grey for s in (0.1, 0.5))
    assert_close(5 * one, five)
    few, many = (ImpulseNoise().corrupt(grey, s, generator("x")) != grey for s in (0.1, 0.2))
    assert torch.equal(few & many, few)


@pytest.mark.parametrize("white", [*ShotNoise.small, *ShotNoise.large])
def test_photons_are_the_quantiles_of_scipy(white):
    stats = pytest.importorskip("scipy.stats")
    levels = torch.arange(256).repeat(100)
    uniform = torch.rand(levels.shape, generator=generator("x"))
    ours = photons(levels, uniform, white)
    expected = stats.poisson.ppf(uniform.double(), white * levels.double() / 255).clip(min=0)
    assert (ours.numpy() != expected).mean() < 2e-4  # draws and chances have 24 bits


def test_more_photons_where_more_are_drawn_and_salt_stays_salt():
    grey = torch.full((4, 3, 32, 32), 128 / 255)
    one, five = (ShotNoise().corrupt(grey, s, generator("x")) - grey for s in (500, 50))
    assert torch.corrcoef(torch.stack([one.flatten(), five.flatten()]))[0, 1] > 0.9
    few, many = (ImpulseNoise().corrupt(grey, s, generator("x")) for s in (0.1, 0.2))
    assert torch.equal(few[few != grey], many[few != grey])


# Blur, by plain loops


def walked_by_a_loop(image, offsets, distance):
    """Copies one pixel after the other, from the last one on, as the authors' program."""
    image = image.copy()
    height, width = image.shape
    for row in range(height - distance, distance, -1):
        for column in range(width - distance, distance, -1):
            down, right = offsets[:, row, column]
            image[row, column] = image[row + down, column + right]
    return image


@pytest.mark.parametrize("distance", [1, 2, 4])
def test_copies_along_the_walk_are_those_of_a_plain_loop(distance):
    rng = np.random.default_rng(0)
    offsets = rng.integers(-distance, distance, (2, 3, 12, 17))
    places = np.arange(12 * 17).reshape(12, 17)
    ours = blur.sources_of_walk(torch.from_numpy(offsets), distance)
    for number in range(3):
        expected = walked_by_a_loop(places, offsets[:, number], distance)
        assert torch.equal(ours[number], torch.from_numpy(expected).flatten())


@pytest.mark.parametrize("angle", [-45.0, -10.0, 0.0, 30.0])
def test_motion_is_the_weighted_mean_along_a_line(angle):
    pixels = pixels_of(1, 1, 9, 11)
    weights = [math.exp(-0.5 * (step / 2) ** 2) for step in range(13)]
    expected = torch.zeros(9, 11)
    for row in range(9):
        for column in range(11):
            for step, weight in enumerate(weights):
                down = math.ceil(step * math.sin(math.radians(angle)) - 0.5)
                right = math.ceil(step * math.cos(math.radians(angle)) - 0.5)
                there = min(max(row + down, 0), 8), min(max(column + right, 0), 10)
                expected[row, column] += weight / sum(weights) * pixels[0, 0][there]
    ours = blur.motion_blur(pixels, 6, 2.0, torch.tensor([angle]))
    assert_close(ours[0, 0], expected)


def test_every_image_moves_at_an_angle_of_its_own():
    pixels = smooth_images(1, 3, 32).expand(2, -1, -1, -1)
    one, other = MotionBlur().corrupted(pixels, 5, generator("x"))
    assert not torch.equal(one, other)


# Blur, by the package imagecorruptions (strengths of large images)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("severity", range(1, 6))
def test_blurs_are_those_of_imagecorruptions_to_a_twentieth_of_a_grey_level(severity):
    judge = pytest.importorskip("imagecorruptions.corruptions")
    image = smooth_images(1, 3, 96)
    for corruption, function in [
        (CommonGaussianBlur(), judge.gaussian_blur),
        (DefocusBlur(), judge.defocus_blur),
    ]:
        ours = corruption.corrupted(image, severity, generator("x"))[0]
        assert distance(ours, as_image(function(as_array(image[0]), severity))) < 0.06
    radius, sigma = MotionBlur.large[severity - 1]
    theirs = judge._motion_blur(as_array(image[0]), radius, sigma, 20.0)
    ours = blur.motion_blur(image, radius, sigma, torch.tensor([20.0]))[0]
    assert distance(ours, as_image(theirs)) < 0.6  # ours is not cut down to 8 bits here


@pytest.mark.parametrize("end, step", [*ZoomBlur.small, *ZoomBlur.large])
def test_zooms_are_those_of_scipy_trimmed_on_both_sides(end, step):
    scipy = pytest.importorskip("scipy.ndimage")
    image = smooth_images(1, 1, 64)
    total = image[0, 0].double().numpy().copy()
    factors = np.arange(1, end, step)
    for factor in factors:
        crop = math.ceil(64 / factor)
        start = (64 - crop) // 2
        part = image[0, 0].double().numpy()[start : start + crop, start : start + crop]
        zoomed = scipy.zoom(part, factor, order=1)
        trim = (len(zoomed) - 64) // 2
        total += zoomed[trim : trim + 64, trim : trim + 64]
    ours = ZoomBlur().corrupt(image, (end, step), generator("x"))
    expected = torch.from_numpy(total / (len(factors) + 1)).float()
    assert_close(ours[0, 0], expected, rtol=0, atol=1e-5)
