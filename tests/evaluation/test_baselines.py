"""Baselines do what they are named for, and know nothing more."""

import numpy as np
import pytest
import torch
from scipy.interpolate import make_interp_spline
from torch.nn import functional

from evaluation.baselines import (
    CANDIDATES,
    choose,
    class_means,
    organ_deviation,
    organ_noise,
    paint,
    segment_by_threshold,
    smooth,
    upsample_depth,
)
from training.smoothing import smooth_inside

RNG = np.random.default_rng(0)
CLEAN = np.where(np.indices((20, 20, 20)).sum(0) < 28, -0.4, 0.4).astype(np.float32)
NOISY = CLEAN + 0.15 * RNG.standard_normal(CLEAN.shape).astype(np.float32)


@pytest.mark.parametrize("method", CANDIDATES)
def test_a_smoother_with_its_best_parameter_removes_noise(method):
    errors = [np.mean((smooth(method, NOISY, 0.15, p, 2) - CLEAN) ** 2) for p in CANDIDATES[method]]
    assert min(errors) < 0.5 * np.mean((NOISY - CLEAN) ** 2)


def test_the_highest_score_is_chosen():
    assert choose((1.0, 2.0, 3.0), lambda p: -((p - 2) ** 2)) == 2.0


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_linear_upsampling_interpolates_between_block_centres(factor):
    low = RNG.normal(size=(6, 3, 4)).astype(np.float32)
    theirs = functional.interpolate(
        torch.tensor(low)[None, None], scale_factor=(factor, 1, 1), mode="trilinear", align_corners=False
    )
    np.testing.assert_allclose(upsample_depth(low, factor, 1), theirs[0, 0].numpy(), atol=1e-5)


def test_spline_upsampling_is_the_interpolating_cubic_away_from_the_ends():
    low = RNG.normal(size=(24, 2, 2))
    fine = (np.arange(48) + 0.5) / 2 - 0.5
    expected = make_interp_spline(np.arange(24), low, k=3)(fine)
    np.testing.assert_allclose(upsample_depth(low, 2, 3)[20:-20], expected[20:-20], atol=1e-3)


def test_class_means_are_means_over_all_images():
    images = [np.array([0.0, 1.0, 0.5, -1.0]), np.array([0.4, 0.2, -0.9, -0.9])]
    anatomy = [np.array([5, 5, 118, 0]), np.array([5, 118, 0, 0])]
    means = class_means(zip(images, anatomy, strict=True))
    assert means[5] == pytest.approx((0 + 1 + 0.4) / 3)
    assert means[118] == pytest.approx((0.5 + 0.2) / 2)
    assert means[0] == pytest.approx((-1 - 0.9 - 0.9) / 3)
    assert means[7] == pytest.approx((0 + 1 + 0.5 + 0.4 + 0.2) / 5)  # never seen: the body's mean
    np.testing.assert_array_equal(paint(means, np.array([[5, 118]])), [[means[5], means[118]]])


def test_class_means_without_any_body_are_air():
    assert (class_means([]) == -1).all()


def test_smoothing_inside_a_mask_keeps_a_constant_up_to_its_border():
    mask = np.zeros((9, 9, 9), bool)
    mask[2:7, 2:7, 2:7] = True
    x = np.where(mask, 0.7, -5.0)
    smoothed = smooth_inside(x, mask, 1.5)
    np.testing.assert_allclose(smoothed[mask], 0.7)
    assert (smoothed[~mask] == 0).all()


def test_organ_maps_are_zero_outside_and_high_at_a_lesion():
    organ = np.zeros((20, 20, 20), bool)
    organ[3:17, 3:17, 3:17] = True
    lesion = np.zeros_like(organ)
    lesion[8:11, 8:11, 8:11] = True
    x = np.where(lesion, -0.3, 0.2) + 0.02 * RNG.standard_normal(organ.shape)
    for found in (organ_deviation(x, organ, 1.0), organ_noise(x, organ, 1.0)):
        assert (found[~organ] == 0).all()
        assert found[lesion].mean() > 3 * found[organ & ~lesion].mean()


@pytest.mark.parametrize("contrast", [-40.0, 60.0])
def test_the_threshold_segmenter_finds_a_plain_lesion_of_either_sign(contrast):
    z, y, x = np.indices((21, 21, 21)) - 10
    lesion = z**2 + y**2 + x**2 <= 16
    hu = np.where(lesion, 100 + contrast, 100.0) + RNG.normal(0, 3, lesion.shape)
    found = segment_by_threshold(hu, lesion)
    assert 2 * (found & lesion).sum() / (found.sum() + lesion.sum()) > 0.9


def test_the_threshold_segmenter_finds_no_lesion_in_noise():
    z, y, x = np.indices((21, 21, 21)) - 10
    lesion = z**2 + y**2 + x**2 <= 16
    found = segment_by_threshold(RNG.normal(0, 3, lesion.shape), lesion)
    assert 2 * (found & lesion).sum() / (found.sum() + lesion.sum()) < 0.75
