"""The body mask: where the patient ends, in milliseconds, without table and outside air."""

import time

import numpy as np
import pytest
from scipy import ndimage

from preprocessing.body import block_mean, body_mask, complete_anatomy

SHAPE = (80, 120, 140)


def scene(spacing_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """A trunk with two lungs and an airway on a table, and the truth: HU (int16) and body (bool)."""
    shape = [round(n * 2 / spacing_mm) for n in SHAPE]
    z, y, x = np.meshgrid(*[np.arange(n) * spacing_mm - n * spacing_mm / 2 for n in shape], indexing="ij")
    body = (y / 90) ** 2 + (x / 120) ** 2 < 1
    lungs = ((y / 55) ** 2 + ((np.abs(x) - 55) / 38) ** 2 < 1) & (np.abs(z) < 60)
    hu = np.where(body, 40, -1000)
    hu[lungs] = -850
    hu[(y > 100) & (y < 104)] = 200
    noise = np.random.default_rng(0).normal(0, 15, shape)
    return (hu + noise).astype(np.int16), body


@pytest.mark.parametrize("spacing_mm", [4.0, 2.0])
def test_the_mask_is_the_body_to_within_a_coarse_voxel(spacing_mm):
    image, truth = scene(spacing_mm)
    mask = body_mask(image, spacing_mm)
    outside = ndimage.distance_transform_edt(~truth) * spacing_mm
    inside = ndimage.distance_transform_edt(truth) * spacing_mm
    assert outside[mask].max() <= 4
    assert inside[~mask].max() <= 4


def test_lungs_are_inside_and_the_table_is_outside():
    image, _ = scene(2.0)
    mask = body_mask(image, 2.0)
    assert mask[(image < -700) & (image > -900)].mean() > 0.99
    assert not mask[:, 110:].any()


def test_a_lung_that_the_field_of_view_cuts_stays_inside():
    image, truth = scene(2.0)
    cut = image[20:60, :, 60:100]
    assert body_mask(cut, 2.0)[truth[20:60, :, 60:100]].mean() > 0.99


def test_two_legs_are_both_kept():
    hu = np.full((30, 60, 120), -1000, np.int16)
    hu[:, 20:40, 10:30] = 40
    hu[:, 20:40, 80:104] = 40
    assert body_mask(hu, 4.0)[hu > 0].mean() > 0.95


def test_air_alone_has_no_body():
    assert not body_mask(np.full((20, 20, 20), -1000, np.int16), 4.0).any()


def test_thirty_million_voxels_take_seconds():
    image, _ = scene(2.0)
    large = np.kron(image, np.ones((3, 3, 3), np.int16))
    start = time.perf_counter()
    body_mask(large, 2 / 3)
    assert time.perf_counter() - start < 10


def test_block_means_repeat_the_last_voxels_of_odd_sizes():
    image = np.arange(5, dtype=np.int16)[:, None, None] * np.ones((5, 3, 3), np.int16)
    np.testing.assert_allclose(block_mean(image, 2)[:, 0, 0], [0.5, 2.5, 4])


BODY = np.array([[[True, True, True, False]]])
ORGANS = np.array([[[5, 0, 118, 10]]], np.uint8)


@pytest.mark.parametrize(("kind", "rest"), [("full", 118), ("partial", 119)])
def test_the_body_fills_what_no_organ_owns(kind, rest):
    anatomy = ORGANS.copy()
    complete_anatomy(BODY, anatomy, kind)
    assert anatomy.tolist() == [[[5, rest, rest, 10]]]


def test_without_a_map_the_body_is_unknown():
    anatomy = np.zeros(BODY.shape, np.uint8)
    complete_anatomy(BODY, anatomy, "none")
    assert anatomy.tolist() == [[[119, 119, 119, 0]]]
