"""Weather: against plain loops, scipy, OpenCV and the package imagecorruptions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from corrupted_images import as_array, as_image, by_name, distance, smooth_images
from samples import random_pixels
from torch.testing import assert_close

from monosem.common_corruptions import textures
from monosem.common_corruptions.weather import Brightness, Fog, Frost, Snow, Spatter, snow_layer
from monosem.core.identity import generator

WEATHER = [Snow(), Frost(), Fog(), Brightness(), Spatter()]
GROWING = [Snow(), Fog(), Brightness()]

every = pytest.mark.parametrize("corruption", WEATHER, ids=by_name)


@pytest.mark.parametrize("corruption", GROWING, ids=by_name)
@pytest.mark.parametrize("side", [32, 96])
def test_the_distance_to_the_image_grows_with_severity(corruption, side):
    pixels = smooth_images(8, 3, side)
    distances = [
        distance(corruption.corrupted(pixels, severity, generator("x")), pixels)
        for severity in range(1, 6)
    ]
    grow = [after - before for before, after in itertools.pairwise(distances)]
    assert min(grow) > -1  # large snow 2 and 3 change about as much, as published
    assert distances[4] > distances[0] + 10


@every
def test_black_images_and_plain_ones_give_numbers(corruption):
    for level in (0.0, 1.0):
        plain = torch.full((2, 3, 16, 16), level)
        for severity in range(1, 6):
            assert corruption.corrupted(plain, severity, generator("x")).isfinite().all()


# Brightness


@pytest.mark.parametrize("severity", range(1, 6))
def test_brightness_is_that_of_imagecorruptions(severity):
    judge = pytest.importorskip("imagecorruptions.corruptions")
    image = torch.from_numpy(random_pixels(1, 3, 66, 66)).float() / 255
    theirs = as_image(judge.brightness(as_array(image[0]), severity))
    assert distance(Brightness().corrupted(image, severity, generator("x"))[0], theirs) < 0.05


# Fog


def plasma_by_a_loop(uniform, side, decay):
    """One map, point by point, on a dictionary of places."""
    heights, values = {(0, 0): 0.0}, iter(uniform.tolist())
    step, wobble = side, 100.0
    while step > 1:
        half = step // 2
        corners = [(r, c) for r in range(0, side, step) for c in range(0, side, step)]

        def fill(down, right, neighbours, corners=corners, wobble=wobble):
            for r, c in corners:
                places = [((r + dr) % side, (c + dc) % side) for dr, dc in neighbours]
                mean = sum(heights[place] for place in places) / 4
                heights[r + down, c + right] = mean + wobble**2 * (2 * next(values) - 1)

        fill(half, half, [(0, 0), (0, step), (step, 0), (step, step)])
        fill(0, half, [(0, 0), (0, step), (half, half), (-half, half)])
        fill(half, 0, [(0, 0), (step, 0), (half, half), (half, -half)])
        step, wobble = half, wobble / decay
    table = torch.tensor([[heights[r, c] for c in range(side)] for r in range(side)])
    return (table - table.min()) / (table.max() - table.min())


@pytest.mark.parametrize("side, decay", [(2, 2.0), (8, 3.0), (16, 1.4)])
def test_fog_is_the_map_of_a_plain_loop(side, decay):
    uniform = torch.rand(3, side * side - 1, generator=generator("x"), dtype=torch.float64)
    ours = textures.plasma(uniform, decay)
    for number in range(3):
        expected = plasma_by_a_loop(uniform[number], side, decay)
        assert_close(ours[number].float(), expected.float())


def test_fog_has_the_statistics_of_imagecorruptions():
    judge = pytest.importorskip("imagecorruptions.corruptions")
    np.random.seed(0)
    theirs = torch.tensor(np.stack([judge.plasma_fractal(64, 2.0) for _ in range(200)]))
    ours = textures.plasma(torch.rand(200, 64 * 64 - 1, generator=generator("x")), 2.0)
    assert_close(ours.mean(), theirs.mean(), rtol=0, atol=0.03)
    assert_close(ours.std((1, 2)).mean(), theirs.std((1, 2)).mean(), rtol=0.06, atol=0)
    steps = [(maps - maps.roll(1, 2)).abs().mean() for maps in (ours, theirs)]
    assert_close(steps[0], steps[1], rtol=0.06, atol=0)


# Frost


def test_frost_has_the_brightness_and_the_contrast_of_the_published_photographs():
    package = pytest.importorskip("imagecorruptions")
    image = pytest.importorskip("PIL.Image")
    folder = f"{package.__path__[0]}/frost"
    names = ["frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg"]
    for name, ours in zip(names, textures.frost_textures(), strict=True):
        theirs = np.asarray(image.open(f"{folder}/{name}").convert("RGB")) / 255.0
        assert np.abs(ours.mean((1, 2)).numpy() - theirs.mean((0, 1))).max() < 1 / 255
        assert abs(ours.std((1, 2)).mean() - theirs.std((0, 1)).mean()) < 1 / 255
        grey, published = ours.mean(0).numpy(), theirs.mean(2)
        for apart in (1, 8, 40):  # how alike pixels so far apart are
            alike = [
                np.corrcoef(table[:, apart:].ravel(), table[:, :-apart].ravel())[0, 1]
                for table in (grey, published)
            ]
            assert abs(alike[0] - alike[1]) < 0.15


def test_the_frost_is_the_same_in_every_run():
    again = textures._frost(2)
    assert torch.equal(again, textures.frost_textures()[2])


def test_severities_share_the_crop_of_frost_and_every_image_has_its_own():
    black = torch.zeros(2, 3, 32, 32)
    one, five = (Frost().corrupt(black, (1, share), generator("x")) for share in (0.1, 0.5))
    assert_close(5 * one, five)
    assert not torch.equal(one[0], one[1])


def test_frost_is_enlarged_for_images_larger_than_a_texture():
    crops = textures.frost_crops(torch.full((1, 3), 0.999), 500, 410, 1.0)
    assert crops.shape == (1, 3, 500, 410)


# Snow


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("table", ["small", "large"])
def test_flakes_are_those_of_scipy_and_imagecorruptions_from_the_same_noise(table, severity):
    judge = pytest.importorskip("imagecorruptions.corruptions")
    scipy = pytest.importorskip("scipy.ndimage")
    flakes = getattr(Snow, table)[severity - 1][:-1]
    mean, deviation, zoom, threshold, radius, sigma = flakes
    normal = torch.randn(1, 1, 64, 64, generator=generator("x"), dtype=torch.float64)
    crop = int(np.ceil(64 / zoom))
    start = (64 - crop) // 2
    part = (mean + deviation * normal[0, 0].numpy())[start : start + crop, start : start + crop]
    zoomed = scipy.zoom(part, zoom, order=1)
    trim = (len(zoomed) - 64) // 2
    layer = zoomed[trim : trim + 64, trim : trim + 64]
    layer = np.floor(np.clip(np.where(layer < threshold, 0, layer), 0, 1) * 255)
    expected = np.round(judge._motion_blur(layer, radius, sigma, -70.0))
    ours = snow_layer(normal, flakes, torch.tensor([-70.0]))[0, 0] * 255
    assert_close(ours.numpy(), expected.astype(float), rtol=0, atol=1.01)
    assert np.abs(ours.numpy() - expected).mean() < 0.02


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("severity", range(1, 6))
def test_snow_adds_as_much_as_imagecorruptions_does(severity):
    judge = pytest.importorskip("imagecorruptions.corruptions")
    np.random.seed(0)
    images = smooth_images(1, 3, 96).expand(12, -1, -1, -1)
    theirs = torch.stack([as_image(judge.snow(as_array(image), severity)) for image in images])
    ours = Snow().corrupted(images, severity, generator("x"))
    assert abs(ours.mean() - theirs.mean()) * 255 < 3
    assert_close((ours - images).std(), (theirs - images).std(), rtol=0.05, atol=0)


# Spatter


def some_liquid(sigma=2.0):
    """(3, 1, 60, 70) whole grey levels, mostly dry."""
    scipy = pytest.importorskip("scipy.ndimage")
    normal = np.random.default_rng(0).normal(0.65, 0.3, (3, 60, 70))
    smooth = np.stack([scipy.gaussian_filter(table, sigma, mode="nearest") for table in normal])
    return np.uint8(255 * np.where(smooth < 0.68, 0, smooth))


def test_edges_are_those_of_opencv():
    cv2 = pytest.importorskip("cv2")
    rough = cv2.GaussianBlur(random_pixels(60, 70), (5, 5), 1.2)
    for levels in [*some_liquid(), rough]:
        ours = textures.edges(torch.from_numpy(levels).float()[None, None])[0, 0].numpy()
        theirs = cv2.Canny(levels, 50, 150) > 0
        assert theirs.any() and (ours != theirs).mean() < 0.001


def test_distances_to_marked_pixels_are_those_of_scipy():
    scipy = pytest.importorskip("scipy.ndimage")
    marked = np.random.default_rng(0).random((2, 50, 40)) < 0.003
    ours = textures.distance_to(torch.from_numpy(marked)[:, None])[:, 0].clamp(max=20)
    for number in range(2):
        expected = np.minimum(scipy.distance_transform_edt(~marked[number]), 20)
        assert_close(ours[number].numpy(), expected.astype(np.float32))


def test_levels_are_equalised_as_by_opencv():
    cv2 = pytest.importorskip("cv2")
    plain = np.full((30, 40), 7, dtype=np.uint8)
    for levels in [random_pixels(30, 40) // 9, np.minimum(random_pixels(30, 40), 20), plain]:
        ours = textures.equalised(torch.from_numpy(levels).float()[None, None])[0, 0]
        assert np.array_equal(ours.numpy(), cv2.equalizeHist(levels).astype(np.float32))


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_water_shines_as_by_the_functions_of_opencv(sigma):
    cv2 = pytest.importorskip("cv2")
    for levels in some_liquid(sigma):
        far = cv2.distanceTransform(255 - cv2.Canny(levels, 50, 150), cv2.DIST_L2, 5)
        far = cv2.blur(np.minimum(far, 20), (3, 3)).astype(np.uint8)
        emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
        relief = cv2.filter2D(cv2.equalizeHist(far), cv2.CV_8U, emboss)
        expected = levels * cv2.blur(relief, (3, 3)).astype(np.float32)
        expected /= expected.max()
        ours = textures.water(torch.from_numpy(levels).float()[None, None])[0, 0].numpy()
        assert np.abs(ours - expected).mean() < 0.01  # OpenCV's distances are nearly Euclidean


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("severity", range(1, 6))
def test_spatter_changes_as_much_as_imagecorruptions_does(severity):
    judge = pytest.importorskip("imagecorruptions.corruptions")
    image = pytest.importorskip("PIL.Image")
    np.random.seed(0)
    images = smooth_images(1, 3, 160).expand(12, -1, -1, -1)
    theirs = torch.stack(
        [as_image(judge.spatter(image.fromarray(as_array(one)), severity)) for one in images]
    )
    ours = Spatter().corrupted(images, severity, generator("x"))
    assert abs((ours - images).mean() - (theirs - images).mean()) * 255 < 1
    assert_close((ours - images).std(), (theirs - images).std(), rtol=0.15, atol=0)
