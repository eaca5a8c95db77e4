"""Corruptions: exact amounts, shared draws, and the reference's distributions (golden i, j)."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from monosem.core.identity import generator
from monosem.evaluation.corruptions import (
    Corruption,
    FewShot,
    GaussianNoise,
    LabelNoise,
    UniformNoise,
)

LABELS = torch.arange(10).repeat_interleave(torch.tensor([7, 20, 20, 20, 20, 20, 20, 20, 20, 33]))
IMAGES = torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))
PIXEL = torch.tensor([2.0, 4.0, 5.0])[:, None, None]


@pytest.mark.parametrize("rate", [0.0, 0.005, 0.29, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_label_noise_flips_exactly_the_given_fraction_and_never_to_the_true_class(rate, classes):
    labels = torch.arange(1000) % classes
    told = LabelNoise().labels(labels, classes, rate, generator("x"))
    assert (told != labels).sum() == round(rate * 1000)
    assert told.min() >= 0 and told.max() < classes


def test_labels_wrong_at_ten_percent_are_among_those_wrong_at_twenty():
    few, many = (LabelNoise().labels(LABELS, 10, rate, generator("x")) for rate in (0.1, 0.2))
    wrong = few != LABELS
    assert wrong.sum() == 20 and torch.equal(few[wrong], many[wrong])


def test_label_noise_is_uniform_over_the_other_classes_as_in_the_reference(golden):
    g = golden("j_label_noise")
    confusion = g["confusion"].double()
    classes, n, rate = len(confusion), int(confusion.sum()), float(g["noise_rate"])
    labels = torch.arange(classes).repeat_interleave(confusion.sum(1).long())
    told = LabelNoise().labels(labels, classes, rate, generator("x"))
    ours = torch.zeros_like(confusion).index_put_(
        (labels, told), torch.ones(n, dtype=torch.float64), accumulate=True
    )
    assert (told != labels).sum() == int(g["changed_count"])
    expected = torch.where(
        torch.eye(classes) > 0,
        (confusion.sum(1) * (1 - rate))[:, None],
        (confusion.sum(1) * rate / (classes - 1))[:, None],
    )
    for table in (
        ours,
        confusion,
    ):  # the same chi-square test passes both: within five deviations of its mean
        freedom = classes * (classes - 1)
        assert abs(((table - expected) ** 2 / expected).sum() - freedom) < 5 * (2 * freedom) ** 0.5


def test_few_shots_are_exact_per_class_and_nested():
    sets = [set(FewShot().examples(LABELS, k, generator("x")).tolist()) for k in (1, 2, 5, 7)]
    for k, kept in zip((1, 2, 5, 7), sets, strict=True):
        assert LABELS[list(kept)].bincount().tolist() == [k] * 10
    assert sets[0] < sets[1] < sets[2] < sets[3]


def test_a_fraction_is_stratified_within_one_image_of_the_reference(golden):
    g = golden("i_few_shot_split")
    kept = FewShot("fraction").examples(g["labels"], float(g["fraction"]), generator("x"))
    assert ((g["labels"][kept].bincount() - g["kept_labels"].bincount()).abs() <= 1).all()
    assert len(kept.unique()) == len(kept)


@pytest.mark.parametrize("severity", [0.01, 0.3, 1.0])
def test_fractions_are_nested_and_leave_no_class_empty(severity):
    kept = FewShot("fraction").examples(LABELS, severity, generator("x"))
    assert (
        set(kept.tolist())
        <= set(FewShot("fraction").examples(LABELS, 1.0, generator("x")).tolist())
        == set(range(200))
    )
    assert (LABELS[kept].bincount(minlength=10) >= 1).all()


@pytest.mark.parametrize(
    "corruption",
    [GaussianNoise(), UniformNoise(), GaussianNoise("pixel"), UniformNoise(centred=True)],
    ids=repr,
)
def test_severities_scale_one_and_the_same_noise(corruption):
    weak, strong = (
        corruption.images(IMAGES, PIXEL, s, generator("x")) - IMAGES for s in (0.2, 0.6)
    )
    assert_close(3 * weak, strong, rtol=1e-4, atol=1e-5)


def test_noise_has_the_stated_distribution_in_normalised_and_pixel_space():
    many = torch.zeros(500, 3, 16, 16)
    gaussian = GaussianNoise().images(many, PIXEL, 0.2, generator("x"))
    assert gaussian.mean().abs() < 1e-3 and abs(gaussian.std() - 0.2) < 1e-3
    assert_close(
        GaussianNoise("pixel").images(many, PIXEL, 0.1, generator("x")), gaussian / 2 * PIXEL
    )
    one_sided = UniformNoise().images(many, PIXEL, 0.2, generator("x"))
    assert one_sided.min() >= 0 and one_sided.max() < 0.2 and abs(one_sided.mean() - 0.1) < 1e-3
    assert_close(
        UniformNoise(centred=True).images(many, PIXEL, 0.2, generator("x")), one_sided - 0.1
    )


def test_a_new_corruption_overrides_one_hook_and_nothing_else():
    class Dark(Corruption):
        def images(self, images, pixel, severity, generator):
            return images - severity

    assert (
        Dark().touches_images(0.5)
        and Dark().touches_images(-0.5)
        and not Dark().touches_images(0.0)
    )
    assert not LabelNoise().touches_images(0.5)
    assert torch.equal(Dark().labels(LABELS, 10, 0.5, generator("x")), LABELS)
    assert torch.equal(Dark().examples(LABELS, 0.5, generator("x")), torch.arange(200))


@pytest.mark.parametrize(
    ("corruption", "severity", "words"),
    [
        (LabelNoise(), 1.2, "between 0 and 1, got 1.2"),
        (LabelNoise(), -0.1, "between 0 and 1, got -0.1"),
        (GaussianNoise(), -1.0, "0 or more, got -1.0"),
        (UniformNoise(), float("nan"), "finite"),
        (FewShot(), 0.0, "1 or more, got 0"),
        (FewShot(), 2.5, "a whole number, got 2.5"),
        (FewShot(), 8.0, "at most 7, the training images of the smallest class, got 8 shots"),
        (FewShot("fraction"), 0.0, "above 0"),
        (FewShot("fraction"), 1.5, "between 0 and 1, got 1.5"),
    ],
)
def test_impossible_severities_are_refused(corruption, severity, words):
    with pytest.raises(ValueError, match=words):
        corruption.check_severity(severity, LABELS)
