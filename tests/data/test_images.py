"""Images as inputs: their constants, how a network sees them and how a person does."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from samples import random_pixels

from monosem.core.fields import FieldError
from monosem.core.identity import generator
from monosem.data.augment import RandomHorizontalFlip
from monosem.data.dataset import Examples
from monosem.data.images import THUMBNAIL, ImageDataset


@dataclass(frozen=True)
class Noise(ImageDataset):
    """Random pixels; an evaluation leaves the first row and column out."""

    mean: tuple[float, ...] = (0.5, 0.25, 0.75)
    std: tuple[float, ...] = (0.5, 0.2, 0.1)
    side: int = 9

    def load(self, split):
        pixels = random_pixels(6, self.channels, self.side, self.side, seed=len(split))
        return Examples(torch.from_numpy(pixels), torch.arange(6) % 3)

    def crop_for_evaluation(self, images):
        return images[..., 1:, 1:]


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((), (), "Noise.mean must hold a value for every channel"),
        ((0.5,), (0.5, 0.5), r"Noise.std must have one value per channel like mean \(1\), got 2"),
    ],
)
def test_constants_must_have_a_value_for_every_channel(mean, std, message):
    with pytest.raises(FieldError, match=message):
        Noise(mean=mean, std=std)


def test_an_evaluation_sees_the_crop_normalised_channel_by_channel():
    data = Noise()
    images = data.split("test").inputs
    prepared = data.prepare(images).cpu()
    for channel, (mean, std) in enumerate(zip(data.mean, data.std, strict=True)):
        expected = (images[:, channel, 1:, 1:].double() / 255 - mean) / std
        torch.testing.assert_close(prepared[:, channel].double(), expected, rtol=0, atol=1e-5)


def test_the_pixel_range_is_what_a_full_step_of_a_pixel_is_worth():
    data = Noise()
    black, white = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    step = data.normalise(white) - data.normalise(black)
    torch.testing.assert_close(step, data.pixel_range.cpu().expand(1, 3, 2, 2))


def test_augmentations_see_pixels_between_0_and_1_and_a_network_sees_them_normalised():
    data = Noise()
    images = data.split("train").inputs
    flipped = data.augment(images, (RandomHorizontalFlip(probability=1.0),), generator("a"))
    assert torch.equal(flipped, data.normalise(images.flip(-1).float() / 255))


@pytest.mark.parametrize(("side", "shown"), [(9, 8), (THUMBNAIL + 30, THUMBNAIL)])
def test_thumbnails_are_squares_of_limited_size_in_colour(side, shown):
    thumbnails = Noise(side=side).show([3, 0])
    assert thumbnails.shape == (2, shown, shown, 3)
    assert thumbnails.dtype == torch.uint8


def test_a_small_image_is_shown_pixel_by_pixel_and_one_channel_in_grey():
    grey = Noise(mean=(0.5,), std=(0.5,))
    expected = grey.split("test").inputs[2, 0, 1:, 1:]
    shown = grey.show([2])[0]
    for colour in range(3):
        assert torch.equal(shown[..., colour], expected)


def test_images_of_another_number_of_channels_do_not_fit_an_encoder():
    assert Noise().mismatch(Noise(side=20)) is None
    message = Noise().mismatch(Noise(mean=(0.5,), std=(0.5,)))
    assert message == "must have 3 channels like the images of the encoder, got 1"
