"""Drawn images: that the same spec draws the same, that factors are balanced and independent, and that each of them is seen."""

from __future__ import annotations

import itertools
import time

import pytest
import torch
from scipy.stats import chi2_contingency, chisquare

from monosem.core.fields import FieldError
from monosem.core.identity import generator
from monosem.data.shapes import (
    BACKGROUNDS,
    CLASSES,
    FACTORS,
    SHAPES,
    TEXTURES,
    Shapes,
    drawn,
    render,
    scene,
)


@pytest.fixture(autouse=True)
def one_thread():
    """The tensors here are too small to be shared by threads, which wait for one another on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


SMALL = Shapes(train=1000, test=300)


def bits(images):
    return [bytes(image.numpy()) for image in images]


def test_the_same_seed_draws_the_same_bits_and_another_seed_draws_others():
    first, again, other = (Shapes(train=200, seed=seed).load("train") for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images) and torch.equal(first.labels, again.labels)
    assert not set(bits(first.images)) & set(bits(other.images))


def test_the_number_of_threads_changes_no_bit():
    one = Shapes(test=200).load("test")
    torch.set_num_threads(2)
    assert torch.equal(one.images, Shapes(test=200).load("test").images)


def test_no_image_is_drawn_twice_within_or_across_splits():
    assert len(set(bits(SMALL.split("train").images) + bits(SMALL.split("test").images))) == 1300


def test_a_larger_split_begins_with_the_smaller_one():
    small, large = Shapes(train=130).load("train"), Shapes(train=350).load("train")
    assert torch.equal(large.images[:130], small.images) and torch.equal(
        large.labels[:130], small.labels
    )


def test_a_label_is_a_shape_and_a_texture_and_classes_differ_by_one_image_at_most():
    images, labels, factors = Shapes(train=1050).load("train")
    assert (
        len(images) == 1050
        and list(factors) == list(FACTORS)
        and len(SHAPES) == len(TEXTURES) == 10
    )
    assert torch.equal(labels, factors["shape"] * 10 + factors["texture"])
    assert set(labels.bincount(minlength=100).tolist()) == {10, 11}
    assert CLASSES[37] == f"{TEXTURES[7]} {SHAPES[3]}"


def test_every_class_is_in_both_splits_of_the_smallest_set_and_nothing_is_wrong_with_it():
    data = Shapes(train=100, test=100)
    assert data.problem() is None and data.classes == 100 and data.channels == 3
    assert all(
        sorted(data.split(split).labels.tolist()) == list(range(100)) for split in ("train", "test")
    )


def test_levels_are_uniform_and_factors_independent():
    levels = torch.cat([drawn(generator("a test of factors", block)).levels for block in range(60)])
    for number, names in enumerate(FACTORS.values()):
        counts = levels[:, number].bincount()
        assert len(counts) == len(names) and chisquare(counts.numpy()).pvalue > 1e-3
    for one, two in itertools.combinations(range(len(FACTORS)), 2):
        wide = len(list(FACTORS.values())[two])
        table = (
            (levels[:, one] * wide + levels[:, two])
            .bincount(minlength=len(list(FACTORS.values())[one]) * wide)
            .reshape(-1, wide)
        )
        assert chi2_contingency(table.numpy()).pvalue > 1e-4


def changed(draw, name, level):
    """The same draw with one factor of every image at `level`."""
    levels = draw.levels.clone()
    levels[:, list(FACTORS).index(name)] = level
    return draw._replace(levels=levels)


@pytest.mark.parametrize("name", FACTORS)
def test_every_two_levels_of_a_factor_look_different_in_every_image(name):
    draw = drawn(generator("a test of levels"))
    looks = torch.stack(
        [render(changed(draw, name, level), 32) for level in range(len(FACTORS[name]))]
    ).int()
    for one, two in itertools.combinations(looks, 2):
        apart = (one - two).abs().amax(1).flatten(1)  # (images, pixels)
        assert (apart > 5).sum(1).min() >= 5 and (apart > 12).float().mean() > 0.04, (
            f"{name} is hardly seen"
        )


def test_colour_and_texture_change_no_outline_and_background_changes_nothing_inside():
    draw = drawn(generator("a test of outlines"))
    inside = scene(draw, 32)[0]
    for name in ("colour", "texture"):
        assert torch.equal(scene(changed(draw, name, 3), 32)[0], inside)
    dark, clouded = (render(changed(draw, "background", level), 32) for level in (0, 3))
    within = (
        torch.nn.functional.max_pool2d(1 - inside.float(), 2)[:, None].expand(-1, 3, -1, -1) == 0
    )
    assert torch.equal(dark[within], clouded[within]) and not torch.equal(dark, clouded)


def test_a_shape_stands_out_from_its_background_in_luma_alone():
    draw = drawn(generator("a test of contrast"))
    for level in range(len(BACKGROUNDS)):
        inside, shape, ground = scene(changed(draw, "background", level), 32)
        luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
        light, dark = (
            ((shape * luma).sum(1), ground) if level < 4 else (ground, (shape * luma).sum(1))
        )
        lowest, highest = (
            light.masked_fill(~(inside if level < 4 else ~inside), 1),
            dark.masked_fill(inside if level < 4 else ~inside, 0),
        )
        assert (lowest.flatten(1).amin(1) - highest.flatten(1).amax(1)).min() > 0.02


def test_drawing_takes_no_time_to_speak_of():
    start = time.perf_counter()
    Shapes(train=2000).load("train")
    assert time.perf_counter() - start < 5


def test_normalised_training_images_have_zero_mean_and_unit_deviation():
    pixels = SMALL.normalise(SMALL.split("train").images.float() / 255)
    assert (
        pixels.mean((0, 2, 3)).abs().max() < 0.1 and (pixels.std((0, 2, 3)) - 1).abs().max() < 0.1
    )


@pytest.mark.parametrize("field", ["train", "test"])
def test_fewer_images_than_classes_are_refused(field):
    with pytest.raises(
        FieldError, match=f"Shapes.{field} must be 100 or more, an image for every class, got 99"
    ):
        Shapes(**{field: 99})
