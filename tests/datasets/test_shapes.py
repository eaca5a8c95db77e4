"""Drawn images: the same spec draws the same; factors are balanced, independent and seen."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.stats import chi2_contingency, chisquare

from monosem.core.fields import FieldError
from monosem.core.identity import generator
from monosem.datasets.shapes import (
    BACKGROUNDS,
    CLASSES,
    FACTORS,
    SHAPES,
    TEXTURES,
    Shapes,
    ShapesOfLevels,
    draw_classes,
    render,
    scene,
)


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors here are too small to be shared by threads, which wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


SMALL = Shapes(train=1000, test=300)


def bits(images):
    return [bytes(image.numpy()) for image in images]


def test_the_same_seed_draws_the_same_bits():
    first, again = (Shapes(train=200).load("train") for _ in range(2))
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.labels, again.labels)


def test_another_seed_draws_other_images():
    first, other = (Shapes(train=200, seed=seed).load("train") for seed in (0, 1))
    assert not set(bits(first.inputs)) & set(bits(other.inputs))


def test_the_number_of_threads_changes_no_bit():
    data = Shapes(test=100, size=16)  # large enough that torch shares it among threads
    one = data.load("test")
    torch.set_num_threads(2)
    assert torch.equal(one.inputs, data.load("test").inputs)


def test_no_image_is_drawn_twice_within_or_across_splits():
    train, test = SMALL.split("train"), SMALL.split("test")
    assert len(set(bits(train.inputs) + bits(test.inputs))) == 1300


def test_a_larger_split_begins_with_the_smaller_one():
    small, large = Shapes(train=130).load("train"), Shapes(train=350).load("train")
    assert torch.equal(large.inputs[:130], small.inputs)
    assert torch.equal(large.labels[:130], small.labels)


def test_a_label_is_a_shape_and_a_texture():
    examples = SMALL.split("train")
    assert list(examples.factors) == list(FACTORS)
    assert len(SHAPES) == len(TEXTURES) == 10
    expected = examples.factors["shape"] * 10 + examples.factors["texture"]
    assert torch.equal(examples.labels, expected)
    assert SMALL.class_names[37] == f"{TEXTURES[7]} {SHAPES[3]}"


def test_classes_differ_by_one_image_at_most():
    examples = Shapes(train=1050).load("train")
    assert len(examples.inputs) == 1050
    assert set(examples.labels.bincount(minlength=len(CLASSES)).tolist()) == {10, 11}


def test_every_class_is_in_both_splits_of_the_smallest_set():
    data = Shapes(train=100, test=100)
    assert data.problem() is None
    assert data.classes == 100
    assert data.channels == 3
    for split in ("train", "test"):
        assert sorted(data.split(split).labels.tolist()) == list(range(100))


@pytest.fixture(scope="module")
def levels():
    """(6000, 7)"""
    name = "a test of factors"
    return torch.cat([draw_classes(generator(name, block)).levels for block in range(60)])


@pytest.mark.parametrize(("column", "names"), list(enumerate(FACTORS.values())), ids=FACTORS)
def test_levels_are_uniform(levels, column, names):
    counts = levels[:, column].bincount()
    assert len(counts) == len(names)
    assert chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize(("one", "two"), list(itertools.combinations(range(7), 2)))
def test_factors_are_independent(levels, one, two):
    counts = torch.zeros(10, 10, dtype=torch.int64)
    counts.index_put_(
        (levels[:, one], levels[:, two]), torch.ones((), dtype=torch.int64), accumulate=True
    )
    table = counts[: levels[:, one].max() + 1, : levels[:, two].max() + 1]
    assert chi2_contingency(table.numpy()).pvalue > 1e-4


def changed(draw, name, level):
    """The same draw with one factor of every image at `level`."""
    levels = draw.levels.clone()
    levels[:, list(FACTORS).index(name)] = level
    return draw._replace(levels=levels)


@pytest.mark.parametrize("name", FACTORS)
def test_every_two_levels_of_a_factor_look_different_in_every_image(name):
    draw = draw_classes(generator("a test of levels"))
    looks = [render(changed(draw, name, level), 32).int() for level in range(len(FACTORS[name]))]
    for one, two in itertools.combinations(looks, 2):
        difference = (one - two).abs().amax(1).flatten(1)  # (images, pixels)
        assert (difference > 5).sum(1).min() >= 5
        assert (difference > 12).float().mean() > 0.04, f"{name} is hardly seen"


@pytest.mark.parametrize("name", ["colour", "texture"])
def test_colour_and_texture_change_no_outline(name):
    draw = draw_classes(generator("a test of outlines"))
    assert torch.equal(scene(changed(draw, name, 3), 32).inside, scene(draw, 32).inside)


def test_the_background_changes_nothing_inside_a_shape():
    draw = draw_classes(generator("a test of outlines"))
    dark, clouded = (render(changed(draw, "background", level), 32) for level in (0, 3))
    outside = 1 - scene(draw, 32).inside.float()
    is_inside = torch.nn.functional.max_pool2d(outside, 2)[:, None].expand(-1, 3, -1, -1) == 0
    assert torch.equal(dark[is_inside], clouded[is_inside])
    assert not torch.equal(dark, clouded)


@pytest.mark.parametrize("level", range(len(BACKGROUNDS)), ids=BACKGROUNDS)
def test_a_shape_stands_out_from_its_background_in_luma_alone(level):
    draw = draw_classes(generator("a test of contrast"))
    inside, shape, ground = scene(changed(draw, "background", level), 32)
    luma = (shape * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    is_dark = BACKGROUNDS[level].startswith("dark")
    lighter, darker = (luma, ground) if is_dark else (ground, luma)
    is_lighter = inside if is_dark else ~inside
    lowest = lighter.masked_fill(~is_lighter, 1).flatten(1).amin(1)
    highest = darker.masked_fill(is_lighter, 0).flatten(1).amax(1)
    assert (lowest - highest).min() > 0.02


def test_normalised_training_images_have_zero_mean_and_unit_deviation():
    pixels = SMALL.normalise(SMALL.split("train").inputs.float() / 255)
    assert pixels.mean((0, 2, 3)).abs().max() < 0.1
    assert (pixels.std((0, 2, 3)) - 1).abs().max() < 0.1


@pytest.mark.parametrize("field", ["train", "test"])
def test_fewer_images_than_classes_are_refused(field):
    message = f"Shapes.{field} must be 100 or more, an image for every class, got 99"
    with pytest.raises(FieldError, match=message):
        Shapes(**{field: 99})


def test_shapes_of_some_levels_differ_from_all_shapes_in_that_factor_alone():
    whole = Shapes(train=200, test=100).load("train")
    some = ShapesOfLevels(train=200, test=100, factor="colour", levels=(2, 5)).load("train")
    assert set(some.factors["colour"].tolist()) == {2, 5}
    for name in set(FACTORS) - {"colour"}:
        assert torch.equal(some.factors[name], whole.factors[name])
    same = whole.factors["colour"] == some.factors["colour"]
    assert same.any() and torch.equal(whole.inputs[same], some.inputs[same])
    assert (whole.inputs[~same] != some.inputs[~same]).flatten(1).any(1).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"levels": ()}, "must hold one or more that differ"),
        ({"levels": (1, 1)}, "must hold one or more that differ"),
        ({"levels": (8,)}, "must be below 8, the levels of background"),
        ({"factor": "shape"}, "must be one of"),
    ],
)
def test_levels_that_there_are_not_are_refused(fields, message):
    with pytest.raises(FieldError, match=f"ShapesOfLevels.* {message}"):
        ShapesOfLevels(**fields)
