"""Digital corruptions: against Pillow, OpenCV, scipy and, where installed, imagecorruptions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from corrupted_images import as_array, as_image, by_name, distance, smooth_images
from PIL import Image
from samples import random_pixels
from torch.testing import assert_close

from monosem.common_corruptions import digital
from monosem.common_corruptions.digital import (
    Contrast,
    ElasticTransform,
    JPEGCompression,
    Pixelate,
    Saturate,
)
from monosem.core.identity import generator

DIGITAL = [Contrast(), ElasticTransform(), Pixelate(), JPEGCompression(), Saturate()]
JUDGED = [Contrast(), Pixelate(), JPEGCompression(), Saturate()]  # they draw nothing


@pytest.mark.parametrize("corruption", [Contrast(), JPEGCompression()], ids=by_name)
@pytest.mark.parametrize("side", [32, 96])
def test_the_distance_to_the_image_grows_with_severity(corruption, side):
    pixels = smooth_images(8, 3, side)
    distances = [
        distance(corruption.corrupted(pixels, severity, generator("x")), pixels)
        for severity in range(1, 6)
    ]
    assert distances == sorted(distances)


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("corruption", JUDGED, ids=by_name)
@pytest.mark.parametrize("rough", [False, True])
def test_what_draws_nothing_is_that_of_imagecorruptions(corruption, severity, rough):
    judge = pytest.importorskip("imagecorruptions.corruptions")
    noise = torch.from_numpy(random_pixels(1, 3, 64, 96)).float() / 255
    image = noise if rough else smooth_images(1, 3, 96)[:, :, :64]
    function = getattr(judge, corruption.published)
    theirs = as_image(np.array(function(Image.fromarray(as_array(image[0])), severity)))
    ours = corruption.corrupted(image, severity, generator("x"))[0]
    assert distance(ours, theirs) < 0.25  # no grey level in the mean


@pytest.mark.parametrize("side", [16, 28, 32, 70, 224])
def test_pixelate_is_pillow_s_box_twice_as_in_the_authors_program(side):
    # imagecorruptions enlarges by the nearest pixel, which differs where two are equally near
    image = torch.from_numpy(random_pixels(1, 3, side, side)).float() / 255
    table = Pixelate.small if side <= 64 else Pixelate.large
    for severity, factor in enumerate(table, start=1):
        whole = Image.fromarray(as_array(image[0]))
        few = whole.resize((int(side * factor), int(side * factor)), Image.Resampling.BOX)
        theirs = as_image(np.array(few.resize((side, side), Image.Resampling.BOX)))
        ours = Pixelate().corrupted(image, severity, generator("x"))[0]
        assert distance(ours, theirs) < 0.02


@pytest.mark.parametrize("quality", [7, 40, 80])
def test_a_grey_image_as_jpeg_is_the_image_made_rgb_as_jpeg(quality):
    grey = smooth_images(2, 1, 24)
    ours = JPEGCompression().corrupt(grey, quality, generator("x"))
    colours = JPEGCompression().corrupt(grey.expand(-1, 3, -1, -1), quality, generator("x"))
    assert torch.equal(ours.expand(-1, 3, -1, -1), colours)


@pytest.mark.parametrize("old, new", [(32, 30), (20, 32), (224, 67), (67, 224), (40, 100), (9, 1)])
def test_boxes_are_those_of_pillow(old, new):
    levels = random_pixels(old, old + 3)
    theirs = np.asarray(Image.fromarray(levels).resize((new + 2, new), Image.Resampling.BOX))
    ours = digital.box_resized(torch.from_numpy(levels)[None, None].float(), new, new + 2)[0, 0]
    ours = ours.numpy()
    assert np.abs(ours - theirs).max() <= 1 and np.abs(ours - theirs).mean() < 0.02


def test_saturation_leaves_grey_images_up_to_severity_3_alone():
    grey = smooth_images(2, 1, 32)
    for severity in (1, 2, 3):
        assert_close(Saturate().corrupted(grey, severity, generator("x")), grey)


# Elastic


@pytest.mark.parametrize("shape", [(32, 32), (60, 80)], ids=str)
def test_the_affine_map_is_that_of_opencv(shape):
    cv2 = pytest.importorskip("cv2")
    height, width = shape
    image = smooth_images(1, 1, 80)[:, :, :height, :width]
    moves = torch.tensor([[[3.0, -2.0], [1.0, 4.0], [-2.5, 0.5]]], dtype=torch.float64)
    middle, arm = np.array([width // 2, height // 2]), min(shape) // 3
    before = np.float32(middle + arm * np.array([[1, 1], [1, -1], [-1, -1]]))
    matrix = cv2.getAffineTransform(before, before + np.float32(moves[0].numpy()))
    theirs = cv2.warpAffine(
        image[0, 0].numpy(), matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101
    )
    ours = digital.affine(image, moves)[0, 0].numpy()
    assert np.abs(ours - theirs).mean() * 255 < 0.5  # OpenCV rounds to 1/32 of a pixel


@pytest.mark.parametrize("sigma", [0.0, 0.32, 1.9, 6.4, 150.0])
def test_the_field_is_blurred_as_by_scipy(sigma):
    scipy = pytest.importorskip("scipy.ndimage")
    field = 2 * torch.rand(1, 2, 20, 30, generator=generator("x")) - 1
    ours = digital.smooth_field(field, sigma)[0]
    for number in range(2):
        table = field[0, number].double().numpy()
        expected = scipy.gaussian_filter(table, sigma, mode="reflect", truncate=3)
        assert_close(ours[number].double().numpy(), expected, rtol=0, atol=1e-6)


def test_pixels_are_displaced_as_by_scipy():
    scipy = pytest.importorskip("scipy.ndimage")
    image = smooth_images(1, 1, 40)[:, :, :30]
    displacement = 8 * torch.rand(1, 2, 30, 40, generator=generator("x")) - 4
    down, right = np.mgrid[:30, :40]
    places = [down + displacement[0, 1].numpy(), right + displacement[0, 0].numpy()]
    expected = scipy.map_coordinates(image[0, 0].numpy(), places, order=1, mode="reflect")
    ours = digital.displaced(image, displacement)[0, 0].numpy()
    assert_close(ours, expected, rtol=0, atol=1e-4)


def test_lengths_of_the_elastic_map_are_in_sides_and_images_move_by_themselves():
    pixels = smooth_images(1, 3, 32).expand(2, -1, -1, -1)
    one, other = ElasticTransform().corrupted(pixels, 1, generator("x"))
    assert not torch.equal(one, other)
    shares = [
        distance(ElasticTransform().corrupted(image, 1, generator("x")), image)
        for image in (smooth_images(30, 1, 16), smooth_images(30, 1, 32))
    ]
    assert_close(shares[0], shares[1], rtol=0.25, atol=0)
