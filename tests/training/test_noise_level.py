"""The noise level is found where there is noise, and nowhere else."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.noise_level import estimate_sigma

SHAPE = (21, 24, 25)
CLEAN = np.where(np.indices(SHAPE)[1] < 11, -0.4, 0.4).astype(np.float32)


def noise(seed=0):
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


@given(sigma=st.floats(0.01, 1), seed=st.integers(0, 50))
def test_white_noise_on_a_piecewise_constant_image(sigma, seed):
    assert estimate_sigma(CLEAN + sigma * noise(seed)) == pytest.approx(sigma, rel=0.1)


def test_saturated_voxels_do_not_count():
    """Half the image is cut off at the window's edge, as air is."""
    noisy = np.clip(CLEAN - 0.9 + 0.15 * noise(), -1, 1)
    assert estimate_sigma(noisy) < 0.1
    assert estimate_sigma(noisy, CLEAN > 0) == pytest.approx(0.15, rel=0.1)


def test_without_a_voxel_to_look_at_there_is_no_level():
    assert math.isnan(estimate_sigma(CLEAN, np.zeros(SHAPE, bool)))
