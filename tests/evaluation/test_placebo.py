"""Painted lesions: where they lie, what they change, and what intensity alone makes of them."""

import numpy as np
import pytest

from evaluation.baselines import organ_deviation, organ_noise
from evaluation.metrics import auroc
from evaluation.placebo import ball_mask, paint_ball, place_ball
from evaluation.table import bootstrap

SPACING = (2.0, 1.5, 1.5)
PLACES = 40


@pytest.fixture(scope="module")
def organ():
    """An ellipsoid with half axes of 34, 30 and 24 mm."""
    z, y, x = np.indices((36, 42, 34))
    return ((z - 18) * 2 / 34) ** 2 + ((y - 21) * 1.5 / 30) ** 2 + ((x - 17) * 1.5 / 24) ** 2 < 1


@pytest.fixture(scope="module")
def balls(organ):
    """Weights of balls of 8 mm at PLACES seeded places."""
    return [place_ball(organ, 8, SPACING, seed) for seed in range(PLACES)]


def noisy(organ, seed):
    """HU of a homogeneous organ in other tissue, white noise of 15 HU."""
    noise = np.random.default_rng(seed).standard_normal(organ.shape, np.float32)
    return np.where(organ, np.float32(100), np.float32(20)) + 15 * noise


def test_a_ball_lies_wholly_within_the_organ_edge_included(organ, balls):
    for weight in balls:
        assert organ[weight > 0].all()
        assert weight.max() == 1


def test_beyond_the_borders_of_an_array_there_is_no_organ():
    """A ball in an organ that the crop cuts is whole."""
    volumes = {int(ball_mask(place_ball(np.ones((12, 12, 12), bool), 4, (1, 1, 1), seed)).sum()) for seed in range(20)}
    assert len(volumes) == 1


def test_a_ball_has_its_radius_in_mm_and_an_edge_of_about_a_voxel(organ):
    weight = place_ball(organ, 10, SPACING, 0)
    volume_mm3 = 4 / 3 * np.pi * 10**3
    assert ball_mask(weight).sum() * np.prod(SPACING) == pytest.approx(volume_mm3, rel=0.05)
    assert weight.sum() * np.prod(SPACING) == pytest.approx(volume_mm3, rel=0.05)
    edge = ((weight > 0) & (weight < 1)).sum() * np.prod(SPACING)
    assert edge == pytest.approx(4 * np.pi * 10**2 * np.mean(SPACING), rel=0.1)


def test_equal_seeds_are_equal_places_and_others_are_others(organ):
    first, again, other = (place_ball(organ, 8, SPACING, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_an_organ_that_is_too_small_has_no_place(organ):
    assert place_ball(organ, 30, SPACING, 0) is None
    assert place_ball(np.zeros((8, 8, 8), bool), 1, SPACING, 0) is None


def test_at_contrast_zero_the_image_is_the_same_to_the_bit(organ):
    hu = noisy(organ, 0)
    assert paint_ball(hu, place_ball(organ, 8, SPACING, 0), 0).tobytes() == hu.tobytes()


def test_a_ball_is_darker_by_its_contrast_and_nothing_else_changes(organ):
    hu, weight = noisy(organ, 0), place_ball(organ, 8, SPACING, 0)
    change = paint_ball(hu, weight, -20) - hu
    np.testing.assert_allclose(change, -20 * weight, atol=1e-4)
    assert (change[weight == 0] == 0).all()


def scores(organ, balls, method, contrast_hu, width):
    """AUROC within the organ, each ball in noise of its own."""
    found = []
    for seed, weight in enumerate(balls):
        values = method(paint_ball(noisy(organ, seed), weight, contrast_hu), organ, width)
        found.append(auroc(values[organ], ball_mask(weight)[organ], "auroc_px_organ").value)
    return np.array(found)


def test_intensity_alone_finds_more_contrast_more_surely(organ, balls):
    means = [scores(organ, balls, organ_deviation, contrast, 0).mean() for contrast in (0, -10, -20, -40)]
    assert (np.diff(means) > 0.05).all()
    assert means[-1] > 0.9


def test_the_interval_of_a_placebo_contains_chance(organ, balls):
    low, high = bootstrap(scores(organ, balls, organ_deviation, 0, 0))
    assert low <= 0.5 <= high
    assert high - low < 0.1


def test_smoothing_moves_a_placebo_off_chance(organ, balls):
    """No whole ball lies at the organ's rim, where fewer voxels are averaged: means scatter more and spread is less."""
    _, high = bootstrap(scores(organ, balls, organ_deviation, 0, 2))
    low, _ = bootstrap(scores(organ, balls, organ_noise, 0, 0))
    assert high < 0.5 < low
