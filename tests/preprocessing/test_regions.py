"""The split into regions: what a full map says, what is declared, what a partial map or the image alone proves."""

import numpy as np
import pytest
from atlas_samples import BOTTOM, GEOMETRY, IDS, MM, SHAPE, atlas, end_mm
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.case import CaseError
from preprocessing.geometry import Geometry
from preprocessing.regions import REGIONS, WINDOWS
from preprocessing.regions.split import split_regions

WHOLE = atlas()


def image_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, 40, np.int16)


def split(anatomy, declared=(), kind="full", geometry=GEOMETRY):
    return split_regions(anatomy, geometry, image_of(anatomy.shape), declared, kind)


def spans(regions) -> dict[str, tuple[float, float]]:
    """World z in mm of the first and last slice of every region."""
    return {r.name: (BOTTOM + r.z_start * MM, BOTTOM + (r.z_stop - 1) * MM) for r in regions}


def test_a_whole_body_has_three_regions_with_their_windows():
    regions, findings = split(WHOLE)
    found = spans(regions)
    assert list(found) == list(REGIONS)
    assert findings == ()
    assert found["head_neck"] == pytest.approx(
        (end_mm(WHOLE, 0.01, "vertebrae_C7") - 10, end_mm(WHOLE, 0.99, "brain", "skull") + 15), abs=MM
    )
    assert found["abdomen"][1] > found["chest"][0]  # lung bases and liver dome: each with its own window
    assert [(WINDOWS[r.name].low_hu, WINDOWS[r.name].high_hu) for r in regions] == [
        (-150, 250),
        (-1400, 400),
        (-120, 240),
    ]


@given(st.floats(-2000, 2000), st.floats(-500, 500), st.floats(-500, 500))
@settings(max_examples=10, deadline=None)
def test_where_the_scanner_puts_its_origin_moves_no_slice(z, y, x):
    moved = Geometry(SHAPE, (MM, MM, MM), (z, y, x))
    assert split(WHOLE, geometry=moved)[0] == split(WHOLE)[0]


@given(st.sampled_from([1, 2, 4]))
@settings(max_examples=3, deadline=None)
def test_the_spacing_moves_no_bound_by_more_than_a_voxel(factor):
    part = WHOLE[:, ::2, ::2]  # the rule reads z; half the pixels keep this fast
    coarse = Geometry(part.shape, (MM, MM, MM), GEOMETRY.origin_mm)
    fine = part.repeat(factor, 0)
    shift = MM / factor * (factor - 1) / 2
    fine_geometry = Geometry(fine.shape, (MM / factor, MM, MM), (BOTTOM - shift, *GEOMETRY.origin_mm[1:]))
    fine = fine if factor == 1 else fine.repeat(factor, 1).repeat(factor, 2)
    fine_geometry = Geometry(fine.shape, (MM / factor,) * 3, fine_geometry.origin_mm)
    ours, _ = split(fine, geometry=fine_geometry)
    theirs, _ = split(part, geometry=coarse)
    assert [r.name for r in ours] == [r.name for r in theirs]
    ends = [[n * MM / k for r in found for n in (r.z_start, r.z_stop)] for found, k in ((ours, factor), (theirs, 1))]
    assert ends[0] == pytest.approx(ends[1], abs=MM)


@given(st.integers(0, 12), st.integers(0, 8), st.integers(0, 8))
@settings(max_examples=10, deadline=None)
def test_a_crop_that_cuts_no_bound_moves_none(below, front, side):
    cropped = WHOLE[below:, front // 4 :, side // 4 :]
    geometry = Geometry(cropped.shape, (MM, MM, MM), (BOTTOM + MM * below, -100.0, -150.0))
    found = [(r.name, r.z_start + below, r.z_stop + below) for r in split(cropped, geometry=geometry)[0]]
    assert found == [(r.name, r.z_start, r.z_stop) for r in split(WHOLE)[0]]


@given(st.integers(20, 240), st.integers(20, 240))
@settings(max_examples=25, deadline=None)
def test_whatever_is_cut_away_regions_stay_inside_and_are_long_enough(one, other):
    low, high = sorted((one, other))
    cropped = WHOLE[low : high + 10]
    geometry = Geometry(cropped.shape, (MM, MM, MM), (BOTTOM + MM * low, -100.0, -150.0))
    least = {"head_neck": 96, "chest": 128, "abdomen": 128}
    for region in split(cropped, geometry=geometry)[0]:
        assert 0 <= region.z_start < region.z_stop <= len(cropped)
        assert (region.z_stop - region.z_start) * MM >= least[region.name]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("declared", "kind"), [((), "full"), (("chest",), "full"), (("abdomen",), "partial")])
def test_a_flipped_body_is_refused_whatever_is_declared(axis, declared, kind):
    with pytest.raises(CaseError, match="the labels show the body"):
        split(np.flip(WHOLE, axis), declared, kind)


def test_a_region_without_its_anchors_is_absent():
    lungs = ("lung_upper_lobe_left", "lung_upper_lobe_right")
    regions, _ = split(atlas(without=(*lungs, "brain")))
    assert set(spans(regions)) == {"head_neck", "abdomen"}  # the neck alone is enough for the head


def test_a_region_that_is_cut_short_is_left_out_with_a_finding():
    part = slice(83, 108)  # 100 mm
    geometry = Geometry((part.stop - part.start, *SHAPE[1:]), (MM, MM, MM), GEOMETRY.origin_mm)
    regions, findings = split(WHOLE[part], geometry=geometry)
    assert "abdomen" not in spans(regions)
    assert any("abdomen spans 100 mm, less than 128 mm: left out" in finding for finding in findings)


def test_a_chest_without_a_heart_is_a_finding():
    regions, findings = split(atlas(without=("heart",)))
    assert "chest" in spans(regions)
    assert findings == ("chest without a heart: 0 mL of it are labelled",)


def test_regions_that_do_not_lie_above_each_other_are_a_finding():
    higher = dict.fromkeys(("liver", "spleen", "stomach"), 400.0)
    _, findings = split(atlas(shift_mm=higher, without=("kidney_left", "kidney_right", "heart", "trachea")))
    assert any(finding.startswith("region_order: chest does not lie above abdomen") for finding in findings)


def test_of_a_declared_region_a_full_map_leaves_what_is_that_region():
    regions, findings = split(WHOLE, ("abdomen",))
    assert regions == tuple(region for region in split(WHOLE)[0] if region.name == "abdomen")
    assert findings == (
        "the labels also show head_neck, which is not declared: left out",
        "the labels also show chest, which is not declared: left out",
    )


def test_all_three_declared_is_a_whole_body():
    assert split(WHOLE, REGIONS) == split(WHOLE)


def test_a_declared_region_that_the_map_lacks_is_a_finding():
    regions, findings = split(atlas(without=("liver", "kidney_left")), ("abdomen", "chest"))
    assert set(spans(regions)) == {"chest"}
    assert "declared region abdomen is not in the map" in findings


@pytest.mark.parametrize("kind", ["partial", "none"])
def test_without_a_full_map_a_declared_region_has_the_whole_range(kind):
    regions, findings = split(np.zeros(SHAPE, np.uint8), ("chest", "abdomen"), kind)
    assert [(r.name, r.z_start, r.z_stop) for r in regions] == [("chest", 0, 260), ("abdomen", 0, 260)]
    assert findings == ()


def test_partial_labels_that_show_another_region_than_declared_are_a_finding():
    anatomy = np.where(np.isin(WHOLE, IDS["liver"]), IDS["liver"], 119).astype(np.uint8)
    regions, findings = split(anatomy, ("head_neck",), "partial")
    assert [r.name for r in regions] == ["head_neck"]
    assert findings == ("the labels also show abdomen, which is not declared: left out",)


def test_a_partial_map_with_a_liver_is_an_abdomen():
    anatomy = np.where(np.isin(WHOLE, IDS["liver"]), IDS["liver"], 119).astype(np.uint8)
    regions, _ = split(anatomy, (), "partial")
    assert set(spans(regions)) == {"abdomen"}


def test_beside_a_partial_map_the_image_may_prove_another_region():
    image = trunk(-850)
    anatomy = np.full(image.shape, 119, np.uint8)
    anatomy[2:42, 20:40, 10:30] = IDS["liver"]
    geometry = Geometry(image.shape, (MM, MM, MM))
    regions, findings = split_regions(anatomy, geometry, image, (), "partial")
    assert [r.name for r in regions] == ["chest", "abdomen"]
    assert findings[0].startswith("region by the image: ")


def trunk(lung_hu: int) -> np.ndarray:
    z, y, x = np.meshgrid(*[np.arange(n) - n / 2 for n in (90, 60, 80)], indexing="ij")
    image = np.where((y / 25) ** 2 + (x / 35) ** 2 < 1, 40, -1000)
    image[((y / 16) ** 2 + ((abs(x) - 16) / 11) ** 2 < 1) & (abs(z) < 30)] = lung_hu
    return image.astype(np.int16)


def without_map(image: np.ndarray):
    geometry = Geometry(image.shape, (MM, MM, MM))
    return split_regions(np.zeros(image.shape, np.uint8), geometry, image, (), "none")


def test_closed_lungs_prove_a_chest_and_bound_it():
    regions, findings = without_map(trunk(-850))
    low, high = spans(regions)["chest"]
    assert (low - BOTTOM, high - BOTTOM) == pytest.approx((4 * 15 - 10, 4 * 75 + 20), abs=2 * MM)
    assert "closed lung" in findings[0]


def test_gas_is_no_lung():
    assert without_map(trunk(-1000))[0] == ()


def test_soft_tissue_in_a_ring_of_bone_proves_a_head():
    z, y, x = np.meshgrid(*[np.arange(60) - 30.0] * 3, indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2) * MM
    image = np.select([radius < 76, radius < 84, radius < 90], [35, 900, 40], -1000).astype(np.int16)
    regions, findings = without_map(image)
    assert [region.name for region in regions] == ["head_neck"]
    assert "closed in by bone" in findings[0]


def test_a_limb_has_no_region_and_says_so():
    _, y, x = np.meshgrid(*[np.arange(60) - 30.0] * 3, indexing="ij")
    radius = np.hypot(x, y) * MM
    image = np.select([radius < 6, radius < 14, radius < 80], [-50, 1000, 50], -1000).astype(np.int16)
    regions, findings = without_map(image)
    assert regions == ()
    assert findings == ("no region: no map of the organs, and the image alone proves none",)
