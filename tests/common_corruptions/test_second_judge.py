"""All that corrupt-tta 0.1.7 does as published, at 224 pixels, beside what imagecorruptions judges.

Its motion blur, snow, glass blur, spatter, elastic and frost are its own and judge nothing here.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from corrupted_images import as_array, as_image, by_name, distance, smooth_images
from test_noise_and_blur import NOISES
from torch.testing import assert_close

from monosem.common_corruptions.weather import Fog
from monosem.core.identity import generator
from monosem.robustness.common import EXTRA, PUBLISHED

FIXED = [corruption for corruption in PUBLISHED + EXTRA if not corruption.is_random]
STATISTICAL = [*NOISES, Fog()]


def of_judge(corruption, images, severity):
    judge = pytest.importorskip("corrupt_tta")
    np.random.seed(0)
    return torch.stack(
        [
            as_image(np.uint8(judge.corrupt(as_array(image), severity, corruption.published)))
            for image in images
        ]
    )


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("corruption", FIXED, ids=by_name)
def test_what_draws_nothing_is_within_a_quarter_of_a_grey_level(corruption, severity):
    images = smooth_images(1, 3, 224)
    theirs = of_judge(corruption, images, severity)
    ours = corruption.corrupted(images, severity, generator("x"))
    assert distance(ours, theirs) < 0.25


@pytest.mark.parametrize("severity", [1, 5])
@pytest.mark.parametrize("corruption", STATISTICAL, ids=by_name)
def test_what_draws_adds_as_much_and_as_unevenly(corruption, severity):
    is_fog = isinstance(corruption, Fog)  # few draws an image, which are of its size
    images = smooth_images(1, 3, 80).expand(300 if is_fog else 40, -1, -1, -1)
    added, of_theirs = (
        corrupted - images
        for corrupted in (
            corruption.corrupted(images, severity, generator("x")),
            of_judge(corruption, images, severity),
        )
    )
    assert abs(added.mean() - of_theirs.mean()) * 255 < (4 if is_fog else 0.5)  # grey levels
    assert_close(added.std(), of_theirs.std(), rtol=0.05, atol=0)
