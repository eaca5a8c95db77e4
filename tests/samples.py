"""Small datasets that the tests of this folder share."""

from __future__ import annotations

import numpy as np


def random_pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
