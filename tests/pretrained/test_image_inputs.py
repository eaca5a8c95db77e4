"""Inputs of pretrained networks against torchvision's transforms of the same picture."""

from __future__ import annotations

import pytest
import torch
from pictures import GREY, Pictures, as_picture
from torch.testing import assert_close
from torchvision.transforms import v2

from monosem.pretrained.image_inputs import ImageInputs, InputRule

MEAN, STD = (0.5, 0.45, 0.4), (0.25, 0.2, 0.3)
MODES = {mode: v2.InterpolationMode(mode) for mode in ("bicubic", "bilinear", "nearest")}


def rule(resize=(48, 48), fit="cover", crop=(32, 32), interpolation="bicubic"):
    return InputRule(resize, fit, crop, interpolation, MEAN, STD)


def inputs_of(data, rule):
    prepared = data.prepare(data.split("test").inputs)
    return ImageInputs(data.mean, data.std, rule)(prepared)


def theirs(data, *steps):
    whole = v2.Compose(
        [*steps, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    )
    return torch.stack([whole(as_picture(image)) for image in data.split("test").inputs])


@pytest.mark.parametrize("data", [Pictures(), GREY], ids=["colour", "grey"])
def test_an_image_of_the_right_size_is_only_normalised_anew_and_grey_is_repeated(data):
    exact = rule(resize=(40, 40), crop=(40, 40))
    assert_close(inputs_of(data, exact), theirs(data), atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [24, 48, 112])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_resizing_is_that_of_pillow_up_to_its_rounding_to_whole_numbers(interpolation, side):
    data = Pictures(height=40, width=52)
    crop = side - 5
    ours = inputs_of(data, rule((side, side), crop=(crop, crop), interpolation=interpolation))
    steps = (v2.Resize(side, MODES[interpolation], antialias=True), v2.CenterCrop(crop))
    levels = torch.tensor(STD)[:, None, None] * 255
    # Pillow rounds to whole numbers of 255 after each of two passes.
    assert_close(ours * levels, theirs(data, *steps) * levels, atol=1.6, rtol=0)


def test_what_interpolation_adds_beyond_the_pixel_range_is_cut_off_and_noise_is_not():
    black_and_white = torch.zeros(1, 3, 40, 40)
    black_and_white[..., 20:] = 1
    network = ImageInputs((0.0,) * 3, (1.0,) * 3, rule(resize=(96, 96), crop=(96, 96)))

    def pixels(prepared):
        return network(prepared) * network.std + network.mean

    clean = pixels(black_and_white)
    assert clean.min() > -1e-6 and clean.max() < 1 + 1e-6
    noisy = pixels(black_and_white * 3 - 1)
    assert noisy.min() < -0.99 and noisy.max() > 1.99


def test_stretching_and_borders_are_what_their_names_say():
    data = Pictures(height=40, width=80)
    prepared = data.prepare(data.split("test").inputs)
    stretched = ImageInputs(data.mean, data.std, rule((32, 32), "stretch"))(prepared)
    assert stretched.shape == (10, 3, 32, 32)
    contained = ImageInputs(data.mean, data.std, rule((32, 32), "contain"))(prepared)
    assert contained.shape == (10, 3, 32, 32)
    assert (contained[:, :, :8] == 0).all() and (contained[:, :, -8:] == 0).all()
    assert (contained[:, :, 8:-8] != 0).any(1).all()


def test_gradients_reach_the_pixels_through_all_of_it():
    data = GREY
    prepared = data.prepare(data.split("test").inputs[:2]).requires_grad_()
    ImageInputs(data.mean, data.std, rule())(prepared).square().sum().backward()
    assert prepared.grad.abs().sum() > 0
