"""Blurring costs sharpness and lowers the noise's frequency; the noise power spectrum keeps its integral."""

import math

import numpy as np
import pytest
from scipy import ndimage

from evaluation.sharpness import edge_sharpness, noise_frequencies, noise_power, radial_profile

SPACING = (2.0, 1.0, 1.5)
SHAPE = (24, 40, 32)
EVERYWHERE = np.ones(SHAPE, bool)
NOISE_HU = 20 * np.random.default_rng(0).standard_normal(SHAPE)
STEP = np.where(np.indices(SHAPE)[2] > 15, 100.0, -100.0)


@pytest.mark.parametrize("mask", [EVERYWHERE, np.indices(SHAPE)[1] > 10])
def test_the_spectrum_integrates_to_the_variance_inside_the_mask(mask):
    step = 1 / (NOISE_HU.size * math.prod(SPACING))
    assert noise_power(NOISE_HU, mask, SPACING).sum() * step == pytest.approx(np.mean(NOISE_HU[mask] ** 2))


def test_white_noise_has_a_flat_spectrum_of_its_variance_times_the_voxel():
    _, profile = radial_profile(noise_power(NOISE_HU, EVERYWHERE, SPACING), SPACING)
    assert len(profile) > 3
    assert profile[2:] == pytest.approx(20**2 * math.prod(SPACING), rel=0.2)


def test_a_wave_has_its_own_frequency():
    wave = np.cos(2 * np.pi * np.indices(SHAPE)[1] * 5 / 40)
    mean, peak = noise_frequencies(wave, EVERYWHERE, SPACING, "image")
    assert mean.value == pytest.approx(5 / 40, abs=0.02)
    assert peak.value == pytest.approx(5 / 40, abs=0.02)


def test_blurred_noise_has_a_lower_frequency():
    white, _ = noise_frequencies(NOISE_HU, EVERYWHERE, SPACING, "image")
    blurred, _ = noise_frequencies(ndimage.gaussian_filter(NOISE_HU, 1.5), EVERYWHERE, SPACING, "image")
    assert blurred.value < 0.8 * white.value


def test_no_error_and_no_mask_are_reasons():
    assert {m.reason for m in noise_frequencies(STEP * 0, EVERYWHERE, SPACING, "image")} == {
        "there is no error that varies inside the mask"
    }
    assert edge_sharpness(STEP, STEP, ~EVERYWHERE, SPACING, "image").reason == "the mask is empty"
    assert (
        edge_sharpness(STEP, STEP * 0, EVERYWHERE, SPACING, "image").reason == "the reference is flat inside the mask"
    )


def test_blurring_costs_sharpness_in_order_and_noise_buys_none():
    def sharpness(x):
        return edge_sharpness(x, STEP, EVERYWHERE, SPACING, "image").value

    assert sharpness(STEP) == 1
    assert 1 > sharpness(ndimage.gaussian_filter(STEP, 1)) > sharpness(ndimage.gaussian_filter(STEP, 2)) > 0
    assert sharpness(STEP + NOISE_HU) == pytest.approx(1, abs=0.03)
