"""Metrics against hand formulas, and NaN with a reason where there is no number."""

import math

import numpy as np
import pytest
from scipy import ndimage

from evaluation.metrics import (
    auroc,
    average_precision,
    contrast_hu,
    dice,
    distance_hu,
    gain_ceiling_db,
    histogram_distance_hu,
    image_quality,
    pro,
    psnr,
    ring,
    rmse_hu,
    seam_ratio,
    ssim,
)
from preprocessing.regions import WINDOWS

RNG = np.random.default_rng(0)
REFERENCE = RNG.uniform(-1, 1, (12, 13, 14)).astype(np.float32)
NOISY = (REFERENCE + 0.1 * RNG.standard_normal(REFERENCE.shape)).astype(np.float32)
MASK = RNG.random(REFERENCE.shape) > 0.4


def test_psnr_is_its_formula_with_a_range_of_two_over_the_mask():
    error = np.mean((NOISY.astype(float) - REFERENCE)[MASK] ** 2)
    assert psnr(NOISY, REFERENCE, MASK) == pytest.approx(10 * math.log10(4 / error))


def test_psnr_does_not_see_what_lies_outside_the_mask():
    spoilt = np.where(MASK, NOISY, 5)
    assert psnr(spoilt, REFERENCE, MASK) == psnr(NOISY, REFERENCE, MASK)


def test_rmse_is_in_hu_of_the_window():
    error = math.sqrt(np.mean((NOISY.astype(float) - REFERENCE)[MASK] ** 2))
    assert rmse_hu(NOISY, REFERENCE, MASK, WINDOWS["chest"]) == pytest.approx(900 * error)


def test_ssim_is_the_masked_mean_of_the_textbook_formula():
    """Uniform window of 7, sample covariance, K1 = .01, K2 = .03 (Wang et al. 2004) in the volume's interior."""
    a, b = REFERENCE.astype(float), NOISY.astype(float)
    n, c1, c2 = 7**3, (0.01 * 2) ** 2, (0.03 * 2) ** 2
    mean_a, mean_b = (ndimage.uniform_filter(v, 7) for v in (a, b))
    scale = n / (n - 1)
    var_a, var_b, cov = (
        scale * (ndimage.uniform_filter(u * v, 7) - mu * mv)
        for u, v, mu, mv in ((a, a, mean_a, mean_a), (b, b, mean_b, mean_b), (a, b, mean_a, mean_b))
    )
    local = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    inner = np.zeros_like(MASK)
    inner[3:-3, 3:-3, 3:-3] = MASK[3:-3, 3:-3, 3:-3]
    assert ssim(NOISY, REFERENCE, inner) == pytest.approx(local[inner].mean(), abs=1e-6)


def test_quality_names_its_data_range_and_its_reference():
    units = {m.metric: m.unit for m in image_quality(NOISY, REFERENCE, MASK, WINDOWS["abdomen"], "noise_free")}
    assert units == {
        "psnr": "dB (range 360 HU, against noise_free)",
        "ssim": "1 (window 7, range 360 HU, against noise_free)",
        "rmse": "HU (against noise_free)",
    }


def test_an_empty_mask_gives_reasons_instead_of_numbers():
    nothing = np.zeros_like(MASK)
    measured = image_quality(NOISY, REFERENCE, nothing, WINDOWS["abdomen"], "image")
    assert all(math.isnan(m.value) and m.reason for m in measured)


def test_the_gain_ceiling_is_what_a_perfect_denoiser_gets_against_a_noisy_reference():
    clean = np.zeros((40, 40, 40))
    reference = clean + 0.05 * RNG.standard_normal(clean.shape)
    noisy = reference + 0.15 * RNG.standard_normal(clean.shape)
    everywhere = np.ones(clean.shape, bool)
    gain = psnr(clean, reference, everywhere) - psnr(noisy, reference, everywhere)
    assert gain == pytest.approx(gain_ceiling_db(0.15, 0.05), abs=0.1)


def test_auroc_is_the_share_of_pairs_in_order():
    scores, truth = np.array([0.1, 0.4, 0.35, 0.8, 0.4]), np.array([0, 0, 1, 1, 1])
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[truth == 1] for n in scores[truth == 0]]
    assert auroc(scores, truth, "auroc").value == pytest.approx(np.mean(pairs))


def test_average_precision_is_the_mean_precision_at_each_positive():
    scores, truth = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 0])
    assert average_precision(scores, truth, "ap").value == pytest.approx((1 / 1 + 2 / 3) / 2)


@pytest.mark.parametrize(("truth", "reason"), [([1, 1], "all 2 are positive"), ([0, 0], "all 2 are negative")])
def test_auroc_of_one_class_is_nan_with_its_reason(truth, reason):
    measured = auroc([0.1, 0.2], truth, "auroc_image")
    assert math.isnan(measured.value)
    assert measured.reason == reason


def test_average_precision_without_positives_is_nan_with_its_reason():
    measured = average_precision(np.array([0.1, 0.3]), np.array([0, 0]), "ap")
    assert math.isnan(measured.value)
    assert measured.reason == "none of 2 is positive"


def test_dice_counts_the_overlap_twice():
    a, b = np.array([1, 1, 1, 0], bool), np.array([0, 1, 1, 1], bool)
    assert dice(a, b) == pytest.approx(2 * 2 / 6)
    assert dice(~np.ones(4, bool), ~np.ones(4, bool)) == 1


def ball(radius, shape=(21, 21, 21)):
    z, y, x = np.indices(shape) - 10
    return z**2 + y**2 + x**2 <= radius**2


def test_contrast_is_lesion_minus_its_surroundings():
    lesion, body = ball(4), np.ones((21, 21, 21), bool)
    hu = np.where(lesion, 30.0, 100.0)
    around = ring(lesion, body)
    assert not (around & ndimage.binary_dilation(lesion)).any()
    assert contrast_hu(hu, lesion, around) == -70
    assert math.isnan(contrast_hu(hu, lesion, ring(lesion, lesion)))


def test_the_histogram_distance_of_a_shift_is_the_shift():
    hu = RNG.normal(size=(9, 9, 9))
    assert histogram_distance_hu(hu + 25, hu, np.ones((9, 9, 9), bool)) == pytest.approx(25)
    assert distance_hu(hu.ravel() + 25, hu.ravel()) == pytest.approx(25)


def test_a_histogram_distance_sees_spread_and_not_only_the_mean():
    assert distance_hu(np.zeros(10), np.array([-30.0, 30.0])) == pytest.approx(30)


def test_a_step_at_the_border_of_a_zone_raises_the_seam_ratio():
    zone = ball(5)
    source = RNG.normal(0, 10, zone.shape)
    assert seam_ratio(source, source, zone) == 1
    inside_changed = np.where(ball(3), source + 500, source)
    assert seam_ratio(inside_changed, source, zone) == 1
    assert seam_ratio(np.where(zone, source + 500, source), source, zone) > 10
    assert math.isnan(seam_ratio(source, source, np.zeros_like(zone)))


def pro_by_hand(scores, truth):
    """Every threshold in turn: mean share found per lesion against the share of healthy voxels above it."""
    lesions, count = ndimage.label(truth, np.ones((3, 3, 3)))
    rates, overlaps = [0.0], [0.0]
    for threshold in sorted(set(scores.ravel()), reverse=True):
        found = scores >= threshold
        rates.append(found[~truth].mean())
        overlaps.append(np.mean([found[lesions == i + 1].mean() for i in range(count)]))
    x = np.linspace(0, 0.3, 30001)
    return np.mean(np.interp(x, rates, overlaps))


def two_lesions():
    truth = np.zeros((6, 8, 8), bool)
    truth[1, 1, 1:3] = truth[3:5, 4:7, 4:7] = True
    return truth


def test_pro_is_the_brute_force_area_of_the_mean_overlap_per_lesion():
    truth = two_lesions()
    scores = np.random.default_rng(1).random(truth.shape) + 0.4 * truth
    measured = pro(scores, truth, np.ones_like(truth), "pro")
    assert measured.value == pytest.approx(pro_by_hand(scores, truth), abs=1e-3)
    assert measured.unit == "1 (to FPR 0.3)"


def test_pro_weighs_a_small_lesion_as_much_as_a_large_one():
    truth = two_lesions()
    everywhere, only_small = np.ones_like(truth), truth.copy()
    only_small[3:] = False
    assert pro(truth.astype(float), truth, everywhere, "pro").value == pytest.approx(1)
    assert pro(only_small.astype(float), truth, everywhere, "pro").value == pytest.approx(0.5 + 0.5 * 0.15)
    assert pro(np.zeros(truth.shape), truth, everywhere, "pro").value == pytest.approx(0.15)


def test_pro_sees_only_what_is_inside_and_says_why_it_has_no_number():
    truth, half = two_lesions(), np.indices((6, 8, 8))[0] < 3
    scores = np.where(half, truth, 9.0)
    assert pro(scores, truth, half, "pro").value == pytest.approx(1)
    assert pro(scores, truth, ~truth, "pro").reason == "no voxel is positive"
    assert pro(scores, truth, truth, "pro").reason == "every voxel is positive"
