"""Shifted sets: which classes a probe knows, and how it sees another set."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch.testing import assert_close

from monosem.core.fields import FieldError
from monosem.core.identity import digest
from monosem.data.dataset import Examples
from monosem.data.images import ImageDataset
from monosem.datasets.digits import Digits
from monosem.datasets.shapes import Shapes
from monosem.shifts.base import LEFT_OUT, OtherSet, SeenAs, match_classes

PROBE = ("cat", "dog", "owl")
DATA = Digits(size=8)


@dataclass(frozen=True)
class Cropped(ImageDataset):
    """Images of 8 x 8, of which an evaluation sees the central 4 x 4."""

    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)

    def load(self, split):
        images = torch.arange(2 * 64, dtype=torch.uint8).reshape(2, 1, 8, 8)
        return Examples(images, torch.arange(2))

    def crop_for_evaluation(self, images):
        return images[..., 2:6, 2:6]


@dataclass(frozen=True)
class Small(Cropped):
    """Images that have the size of the crop, and only a test split."""

    splits = ("test",)

    def load(self, split):
        return Examples(torch.full((3, 1, 4, 4), 51, dtype=torch.uint8), torch.tensor([0, 1, 1]))


# Classes


def test_classes_match_by_name_in_whatever_order():
    match = match_classes(PROBE, ("owl", "eel", "cat"), {})
    assert match.labels.tolist() == [2, LEFT_OUT, 0]
    assert match.present.tolist() == [0, 2]


def test_a_map_says_which_classes_are_the_same_and_leaves_out_all_others():
    match = match_classes(PROBE, ("hound", "poodle", "cat"), {"hound": "dog", "poodle": "dog"})
    assert match.labels.tolist() == [1, 1, LEFT_OUT]
    assert match.present.tolist() == [1]


@pytest.mark.parametrize(
    ("names", "class_map", "message"),
    [
        (
            ("eel",),
            {},
            "has no class that the probe knows: it has eel; the probe has cat, dog, owl",
        ),
        (("eel",), {"bat": "cat"}, "the set has no bat: it has eel"),
        (("eel",), {"eel": "fish"}, "the probe has no fish: it has cat, dog, owl"),
    ],
)
def test_classes_that_do_not_match_are_refused_with_both_lists(names, class_map, message):
    with pytest.raises(ValueError, match=message):
        match_classes(PROBE, names, class_map)


def test_long_lists_are_cut():
    with pytest.raises(ValueError, match="it has 0, 1, 2, 3, 4 and 95 more; the probe"):
        match_classes(PROBE, tuple(map(str, range(100))), {})


# Sets as a probe sees them


def test_a_set_is_prepared_with_the_constants_and_the_crop_of_the_probe_s_data():
    source = Digits(size=8, mean=(0.9,), std=(0.1,))
    seen = SeenAs(source, DATA)
    images = source.split("test").inputs
    assert torch.equal(seen.split("test").inputs, images)
    assert torch.equal(seen.prepare(images), DATA.prepare(images))
    assert SeenAs(Cropped(), Cropped()).prepare(Cropped().load("test").inputs).shape[1:] == (
        1,
        4,
        4,
    )


def test_images_of_the_size_of_the_crop_are_not_cropped_again():
    seen = SeenAs(Small(), Cropped())
    assert seen.misfit() is None
    prepared = seen.prepare(Small().load("test").inputs)
    assert_close(prepared.cpu(), torch.full((3, 1, 4, 4), (51 / 255 - 0.5) / 0.25))


def test_inputs_of_another_size_or_number_of_channels_are_refused():
    assert SeenAs(DATA, DATA).misfit() is None
    assert "must have inputs of (1, 8, 8)" in SeenAs(Digits(size=9), DATA).misfit()
    assert "or (1, 4, 4) like the probe's, got (1, 9, 9)" in (
        SeenAs(Digits(size=9), Cropped()).misfit()
    )
    assert "must have 1 channels" in SeenAs(Shapes(train=100, test=100), DATA).misfit()


def test_the_same_set_seen_by_other_data_has_another_identity():
    one, other = SeenAs(DATA, DATA), SeenAs(DATA, Digits(size=8, mean=(0.5,)))
    assert digest(one) != digest(other)


# Sets without a training split


def test_a_set_without_a_training_split_can_be_tested_on_only():
    assert Small().problem() == "has no training split: it can only be a set of Shift.sets"
    assert Small().problem_of_test() is None
    assert Small().sample_shape == (1, 4, 4) and Small().classes == 2
    assert DATA.problem_of_test() is None


def test_a_test_split_with_more_classes_than_names_is_refused():
    class Nameless(Small):
        class_names = ("one",)

    assert "must have a name for each of its 2 classes, got 1" in Nameless().problem_of_test()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "clean"}, "OtherSet.name must be a word"),
        ({"name": "a b"}, "OtherSet.name must be a word"),
        ({"classes": (("a", "b"), ("a", "c"))}, "must name every class of the set once, got 'a'"),
    ],
)
def test_impossible_sets_are_refused(fields, message):
    with pytest.raises(FieldError, match=message):
        OtherSet(**{"name": "x", "data": DATA, **fields})
