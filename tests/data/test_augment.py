"""Augmentations against PIL, torchvision, colorsys and the reference's transforms (golden h)."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from torchvision.transforms import InterpolationMode
from torchvision.transforms import RandomResizedCrop as TorchCrop
from torchvision.transforms import functional as tv

from monosem.core.fields import FieldError
from monosem.core.identity import generator
from monosem.data import augment
from monosem.data.augment import (
    Boxes,
    ColorJitter,
    GaussianBlur,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
)
from monosem.datasets.digits import Digits

IMAGES = torch.rand(8, 3, 20, 24, generator=torch.Generator().manual_seed(0))
PIXELS = (IMAGES * 255).round().to(torch.uint8)
AUGMENTATIONS = [
    RandomResizedCrop(),
    RandomResizedCrop(interpolation="bilinear", size=12),
    RandomHorizontalFlip(),
    RandomRotation(),
    ColorJitter(),
    RandomGrayscale(),
    GaussianBlur(),
]


def pil(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def unpil(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_augmentations_keep_the_range_and_the_channels(augmentation, channels):
    augmented = augmentation(IMAGES[:, :channels], generator("a"))
    assert augmented.shape[:2] == (8, channels)
    assert augmented.min() >= 0
    assert augmented.max() <= 1 + 1e-6


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_augmentations_are_seeded(augmentation, channels):
    images = IMAGES[:, :channels]
    augmented = augmentation(images, generator("a"))
    assert torch.equal(augmented, augmentation(images, generator("a")))
    is_without_effect = channels == 1 and isinstance(augmentation, RandomGrayscale)
    if not is_without_effect:
        assert not torch.equal(augmented, augmentation(images, generator("b")))


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_augmentations_treat_images_one_by_one(augmentation, channels):
    images = IMAGES[:, :channels]
    other_fourth = images.clone()
    other_fourth[3] = 0.5
    others = [0, 1, 2, 4, 5, 6, 7]
    expected = augmentation(images, generator("a"))[others]
    assert_close(augmentation(other_fourth, generator("a"))[others], expected)


def single_box(top, left, height, width):
    return Boxes(*(torch.tensor([float(side)]) for side in (top, left, height, width)))


@pytest.mark.parametrize("name", ["bicubic", "bilinear"])
@pytest.mark.parametrize("box", [(0, 0, 20, 24), (3, 5, 9, 7), (0, 20, 2, 4), (7, 0, 13, 24)])
def test_resizing_a_crop_equals_pil_up_to_its_rounding(name, box):
    theirs = tv.resized_crop(pil(PIXELS[0]), *box, [20, 24], InterpolationMode(name))
    ours = augment.resized_crop(PIXELS[:1] / 255, single_box(*box), (20, 24), name)
    assert (255 * ours[0] - unpil(theirs)).abs().max() <= 1.5


def test_crops_shrink_antialiased_as_pil_does():
    box = (1, 2, 18, 20)
    theirs = tv.resized_crop(pil(PIXELS[0]), *box, [5, 5], InterpolationMode.BICUBIC)
    ours = augment.resized_crop(PIXELS[:1] / 255, single_box(*box), (5, 5), "bicubic")
    assert (255 * ours[0] - unpil(theirs)).abs().max() <= 1.5


def test_crop_boxes_are_distributed_as_torchvision_draws_them():
    crop, draws = RandomResizedCrop(scale=(0.08, 1.0)), 4000
    ours = torch.stack(crop.boxes(draws, 20, 24, generator("boxes")), 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parameters = list(crop.scale), list(crop.ratio)
        boxes = [TorchCrop.get_params(IMAGES[0], *parameters) for _ in range(draws)]
    theirs = torch.tensor(boxes).float()
    tolerance = 4 * theirs.std(0) * (2 / draws) ** 0.5  # four standard errors of a difference
    assert ((ours.mean(0) - theirs.mean(0)).abs() < tolerance).all()
    assert ((ours.std(0) - theirs.std(0)).abs() < tolerance).all()


def test_crop_boxes_lie_inside_the_image():
    boxes = RandomResizedCrop().boxes(4000, 20, 24, generator("boxes"))
    assert torch.stack(boxes).min() >= 0
    assert (boxes.top + boxes.height).max() <= 20
    assert (boxes.left + boxes.width).max() <= 24


def test_a_crop_that_never_fits_falls_back_to_the_largest_in_the_middle():
    crop = RandomResizedCrop(scale=(1.0, 1.0), ratio=(2.0, 2.0))
    assert torch.stack(crop.boxes(3, 20, 20, generator("x")), 1).tolist() == [[5, 0, 10, 20]] * 3


def test_blur_is_within_one_grey_level_of_pil_in_the_mean(golden):
    g = golden("h_transforms")
    images = g["images"].permute(0, 3, 1, 2).float()
    for index, sigma in enumerate(g["blur_sigmas"].tolist()):
        matrix = augment.blur_matrix(torch.full((len(images),), sigma), images.shape[-1])
        blurred = augment.separable(matrix, images, matrix)
        theirs = g["blurred"][:, index].permute(0, 3, 1, 2).float()
        assert (blurred - theirs).abs().mean() < 1


@pytest.mark.parametrize("sigma", [0.1, 0.4, 1.0, 2.0, 3.3])
def test_blur_has_the_variance_of_its_gaussian_and_keeps_the_mean(sigma):
    weights = augment.blur_matrix(torch.tensor([sigma], dtype=torch.float64), 81)[0, 40]
    offsets = torch.arange(81) - 40.0
    assert weights.sum().item() == pytest.approx(1)
    assert (weights >= 0).all()
    assert (weights * offsets).sum().item() == pytest.approx(0, abs=1e-9)
    assert (weights * offsets**2).sum().item() == pytest.approx(sigma**2, rel=1e-6)


def test_normalisation_equals_the_reference(golden):
    g = golden("h_transforms")
    pixels = g["images"].permute(0, 3, 1, 2).float() / 255
    probe = Digits(mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.243, 0.261))
    training = Digits(mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762))
    assert_close(probe.normalise(pixels), g["val_transform"], rtol=1e-5, atol=1e-6)
    assert_close(training.normalise(pixels), g["pretrain_normalise_only"], rtol=1e-5, atol=1e-6)


def test_hue_turns_as_colorsys_does():
    turn = torch.linspace(-0.5, 0.5, 8).reshape(-1, 1, 1, 1)
    turned = augment.adjust_hue(IMAGES, turn)
    for n in range(8):
        h, s, v = colorsys.rgb_to_hsv(*IMAGES[n, :, 4, 7].tolist())
        theirs = colorsys.hsv_to_rgb((h + turn[n].item()) % 1, s, v)
        assert turned[n, :, 4, 7].tolist() == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("factor", [0.2, 1.0, 1.7])
@pytest.mark.parametrize("name", ["adjust_brightness", "adjust_contrast", "adjust_saturation"])
def test_brightness_contrast_and_saturation_equal_torchvision(name, factor):
    ours = getattr(augment, name)(IMAGES, torch.full((8, 1, 1, 1), factor))
    assert_close(ours, getattr(tv, name)(IMAGES, factor), rtol=0, atol=1e-3)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_probabilities_are_shares_of_the_images(probability):
    images = torch.rand(2000, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    flipped = RandomHorizontalFlip(probability)(images, generator("flip"))
    is_changed = flipped.ne(images).flatten(1).any(1)
    assert abs(is_changed.float().mean() - probability) < 0.05


def test_rotation_turns_by_at_most_the_given_angle():
    assert_close(RandomRotation(0.0)(IMAGES, generator("r")), IMAGES, rtol=0, atol=1e-5)
    dot = torch.zeros(200, 1, 41, 41)
    dot[:, :, 20, 36] = 1  # 16 pixels to the right of the middle
    rows = RandomRotation(30.0)(dot, generator("r")).sum(-1).argmax(-1).float() - 20
    assert 7 <= rows.max() <= 9  # 16 sin 30 degrees
    assert -9 <= rows.min() <= -7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomResizedCrop(scale=(0.9, 0.1)), "scale must go from the smaller"),
        (lambda: RandomResizedCrop(scale=(0.5, 1.5)), "scale must be at most 1"),
        (lambda: ColorJitter(hue=0.7), "hue must be at most 0.5"),
        (lambda: GaussianBlur(sigma=(2.0, 1.0)), "sigma must go from the smaller"),
        (lambda: GaussianBlur(probability=1.5), "probability must be between 0 and 1, got 1.5"),
        (lambda: RandomRotation(degrees=-1.0), "degrees must be 0 or more"),
    ],
)
def test_impossible_augmentations_are_refused(make, message):
    with pytest.raises(FieldError, match=message):
        make()
