"""Corruptions: exact amounts, shared draws, and the reference's distributions (golden i, j)."""

from __future__ import annotations

import pytest
import torch
from samples import Classes
from torch.testing import assert_close

from monosem.core.identity import generator
from monosem.corruptions.base import Corruption, training_set
from monosem.corruptions.few_shot import FewShot
from monosem.corruptions.input_noise import GaussianNoise, UniformNoise
from monosem.corruptions.label_noise import LabelNoise
from monosem.datasets.digits import Digits

LABELS = torch.arange(10).repeat_interleave(torch.tensor([7, 20, 20, 20, 20, 20, 20, 20, 20, 33]))
IMAGES = torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))
DATA = Digits(size=8, mean=(0.0, 0.0, 0.0), std=(0.5, 0.25, 0.2))  # a pixel range of 2, 4 and 5


def noisy(corruption, images, severity):
    return corruption.inputs(images, DATA, severity, generator("x"))


# Label noise


@pytest.mark.parametrize("rate", [0.0, 0.005, 0.29, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_label_noise_flips_exactly_the_given_fraction_and_never_to_the_true_class(rate, classes):
    labels = torch.arange(1000) % classes
    noisy_labels = LabelNoise().labels(labels, Classes(classes), rate, generator("x"))
    assert (noisy_labels != labels).sum() == round(rate * 1000)
    assert noisy_labels.min() >= 0 and noisy_labels.max() < classes


def test_labels_wrong_at_ten_percent_are_among_those_wrong_at_twenty():
    ten, twenty = (LabelNoise().labels(LABELS, DATA, rate, generator("x")) for rate in (0.1, 0.2))
    wrong = ten != LABELS
    assert wrong.sum() == 20 and torch.equal(ten[wrong], twenty[wrong])


def test_label_noise_is_uniform_over_the_other_classes_as_in_the_reference(golden):
    g = golden("j_label_noise")
    confusion = g["confusion"].double()
    classes, n, rate = len(confusion), int(confusion.sum()), float(g["noise_rate"])
    members = confusion.sum(1)
    labels = torch.arange(classes).repeat_interleave(members.long())
    noisy_labels = LabelNoise().labels(labels, Classes(classes), rate, generator("x"))
    assert (noisy_labels != labels).sum() == int(g["changed_count"])
    ours = torch.zeros_like(confusion)
    ours.index_put_((labels, noisy_labels), torch.ones(n, dtype=torch.float64), accumulate=True)
    right, wrong = members * (1 - rate), members * rate / (classes - 1)
    expected = torch.where(torch.eye(classes) > 0, right[:, None], wrong[:, None])
    freedom = classes * (classes - 1)
    for table in (ours, confusion):  # both pass one chi-square test: five deviations of its mean
        chi_square = ((table - expected) ** 2 / expected).sum()
        assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5


# Few shots


def test_few_shots_are_exact_per_class_and_nested():
    shots = (1, 2, 5, 7)
    chosen = [FewShot().examples(LABELS, count, generator("x")) for count in shots]
    for count, examples in zip(shots, chosen, strict=True):
        assert LABELS[examples].bincount().tolist() == [count] * 10
    one, two, five, seven = (set(examples.tolist()) for examples in chosen)
    assert one < two < five < seven


def test_a_fraction_is_stratified_within_one_image_of_the_reference(golden):
    g = golden("i_few_shot_split")
    examples = FewShot("fraction").examples(g["labels"], float(g["fraction"]), generator("x"))
    ours, reference = g["labels"][examples].bincount(), g["kept_labels"].bincount()
    assert ((ours - reference).abs() <= 1).all()
    assert len(examples.unique()) == len(examples)


@pytest.mark.parametrize("severity", [0.01, 0.3, 1.0])
def test_fractions_are_nested_and_leave_no_class_empty(severity):
    examples = FewShot("fraction").examples(LABELS, severity, generator("x"))
    everything = FewShot("fraction").examples(LABELS, 1.0, generator("x"))
    assert set(examples.tolist()) <= set(everything.tolist()) == set(range(200))
    assert (LABELS[examples].bincount(minlength=10) >= 1).all()


# Input noise


@pytest.mark.parametrize(
    "corruption",
    [GaussianNoise(), UniformNoise(), GaussianNoise("pixel"), UniformNoise(centred=True)],
    ids=repr,
)
def test_severities_scale_one_and_the_same_noise(corruption):
    weak, strong = (noisy(corruption, IMAGES, severity) - IMAGES for severity in (0.2, 0.6))
    assert_close(3 * weak, strong, rtol=1e-4, atol=1e-5)


def test_gaussian_noise_has_the_stated_deviation_in_normalised_and_in_pixel_units():
    black = torch.zeros(500, 3, 16, 16)
    gaussian = noisy(GaussianNoise(), black, 0.2)
    assert gaussian.mean().abs() < 1e-3 and abs(gaussian.std() - 0.2) < 1e-3
    pixel_range = torch.tensor([2.0, 4.0, 5.0])[:, None, None]
    assert_close(noisy(GaussianNoise("pixel"), black, 0.1), gaussian / 2 * pixel_range)


def test_uniform_noise_is_one_sided_unless_it_is_centred():
    black = torch.zeros(500, 3, 16, 16)
    one_sided = noisy(UniformNoise(), black, 0.2)
    assert one_sided.min() >= 0 and one_sided.max() < 0.2 and abs(one_sided.mean() - 0.1) < 1e-3
    assert_close(noisy(UniformNoise(centred=True), black, 0.2), one_sided - 0.1)


# Hooks


class Dark(Corruption):
    """Of somebody else's."""

    def inputs(self, inputs, data, severity, generator):
        return inputs - severity


def test_a_new_corruption_overrides_one_hook_and_nothing_else():
    assert torch.equal(noisy(Dark(), IMAGES, 0.5), IMAGES - 0.5)
    assert torch.equal(Dark().labels(LABELS, DATA, 0.5, generator("x")), LABELS)
    assert torch.equal(Dark().examples(LABELS, 0.5, generator("x")), torch.arange(200))


def test_inputs_are_touched_by_corruptions_of_inputs_at_any_severity_but_0():
    assert Dark().touches_inputs(0.5) and Dark().touches_inputs(-0.5)
    assert not Dark().touches_inputs(0.0)
    assert not LabelNoise().touches_inputs(0.5)


@pytest.mark.parametrize(
    ("corruption", "severity", "touches"),
    [
        (LabelNoise(), 0.5, True),
        (LabelNoise(), 0.0, False),
        (FewShot(), 5.0, True),
        (FewShot("fraction"), 0.5, True),
        (FewShot("fraction"), 1.0, False),
        (GaussianNoise(), 0.5, False),
        (Dark(), 0.5, False),
    ],
    ids=repr,
)
def test_what_does_not_touch_training_leaves_the_clean_training_set(corruption, severity, touches):
    assert corruption.touches_training(severity) == touches
    clean, corrupted = (training_set(DATA, c, severity, 0) for c in (None, corruption))
    is_same = all(map(torch.equal, clean, corrupted))
    assert is_same != touches


@pytest.mark.parametrize(
    ("corruption", "severity", "message"),
    [
        (LabelNoise(), 1.2, "between 0 and 1, got 1.2"),
        (LabelNoise(), -0.1, "between 0 and 1, got -0.1"),
        (GaussianNoise(), -1.0, "0 or more, got -1.0"),
        (UniformNoise(), float("nan"), "finite"),
        (FewShot(), 0.0, "1 or more, got 0"),
        (FewShot(), 2.5, "a whole number, got 2.5"),
        (FewShot(), 8.0, "at most 7, the training examples of the smallest class, got 8 shots"),
        (FewShot("fraction"), 0.0, "above 0"),
        (FewShot("fraction"), 1.5, "between 0 and 1, got 1.5"),
    ],
)
def test_impossible_severities_are_refused(corruption, severity, message):
    with pytest.raises(ValueError, match=message):
        corruption.check_severity(severity, LABELS)
