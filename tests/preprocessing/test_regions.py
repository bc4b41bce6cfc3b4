"""The split into regions: presence, bounds and sanity from a map; only what is certain without one."""

import numpy as np
import pytest

from preprocessing.anatomy import class_ids
from preprocessing.geometry import Geometry
from preprocessing.region_split import split_regions

IDS = class_ids()
MM = 4.0
BOTTOM = -500.0
SHAPE = (260, 60, 80)  # 1040 mm long
GEOMETRY = Geometry(SHAPE, (MM, MM, MM), (BOTTOM, -100.0, -150.0))
ORGANS = {  # name: (z from, z to in mm, half width in voxels)
    "skull": (880, 1040, 20),
    "brain": (900, 1020, 16),
    **{f"vertebrae_C{n}": (860 - 20 * n, 878 - 20 * n, 6) for n in range(1, 8)},
    **{f"vertebrae_T{n}": (720 - 25 * n, 740 - 25 * n, 6) for n in range(1, 13)},
    **{f"vertebrae_L{n}": (420 - 30 * n, 445 - 30 * n, 6) for n in range(1, 6)},
    "lung_upper_lobe_left": (560, 700, 12),
    "lung_lower_lobe_left": (450, 560, 12),
    "heart": (500, 580, 10),
    "liver": (380, 520, 14),
    "spleen": (420, 500, 8),
    "hip_left": (100, 280, 8),
}


def atlas(*, without: tuple[str, ...] = (), flip: bool = False) -> np.ndarray:
    """Blocks of organs stacked along z, from pelvis to head."""
    anatomy = np.full(SHAPE, 118, np.uint8)
    for name, (low, high, half) in ORGANS.items():
        if name in without:
            continue
        x = 40 if name.startswith(("vert", "brain", "skull")) else 14 if name.startswith("lung") else 62
        y = 50 if name.startswith("vert") else 24
        wide = slice(max(0, x - half), x + half), slice(max(0, y - half), y + half)
        anatomy[round(low / MM) : round(high / MM), wide[1], wide[0]] = IDS[name]
    return anatomy[::-1].copy() if flip else anatomy


def image_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, 40, np.int16)


def spans(regions) -> dict[str, tuple[float, float]]:
    return {r.name: (r.z_start * MM, (r.z_stop - 1) * MM) for r in regions}


def test_a_whole_body_has_three_regions_with_anatomical_bounds():
    regions, findings = split_regions(atlas(), GEOMETRY, image_of(SHAPE), (), "full")
    found = spans(regions)
    assert list(found) == ["head_neck", "chest", "abdomen"]
    assert found["head_neck"] == pytest.approx((710, 1036), abs=MM)  # C7's lower end - 10 mm, top of the volume
    assert found["chest"] == pytest.approx((442, 716), abs=MM)  # lungs -10 and +20 mm
    assert found["abdomen"] == pytest.approx((92, 526), abs=MM)  # hips - 10 mm, liver + 10 mm
    assert found["abdomen"][1] > found["chest"][0]
    assert findings == ()


def test_the_same_bounds_at_another_spacing():
    fine = atlas().repeat(2, 0).repeat(2, 1).repeat(2, 2)
    geometry = Geometry(fine.shape, (2.0, 2.0, 2.0), tuple(v - 1 for v in GEOMETRY.origin_mm))
    regions, _ = split_regions(fine, geometry, image_of(fine.shape), (), "full")
    coarse, _ = split_regions(atlas(), GEOMETRY, image_of(SHAPE), (), "full")
    for a, b in zip(regions, coarse, strict=True):
        assert (a.z_start * 2, a.z_stop * 2) == pytest.approx((b.z_start * 4, b.z_stop * 4), abs=6)


def test_a_region_without_its_anchors_is_absent():
    lungs = ("lung_upper_lobe_left",)
    regions, _ = split_regions(atlas(without=(*lungs, "brain")), GEOMETRY, image_of(SHAPE), (), "full")
    assert set(spans(regions)) == {"head_neck", "abdomen"}  # the neck alone is enough for the head


def test_a_region_that_is_cut_short_is_left_out_with_a_finding():
    part = slice(round(400 / MM), round(500 / MM))
    geometry = Geometry((part.stop - part.start, *SHAPE[1:]), (MM, MM, MM), GEOMETRY.origin_mm)
    regions, findings = split_regions(atlas()[part], geometry, image_of(geometry.shape), (), "full")
    assert "abdomen" not in spans(regions)
    assert any("abdomen spans 100 mm, less than 128 mm: left out" in finding for finding in findings)


def test_a_stray_piece_of_an_organ_moves_no_bound():
    anatomy = atlas()
    anatomy[5:8, 2:5, 2:5] = IDS["hip_left"]
    regions, _ = split_regions(anatomy, GEOMETRY, image_of(SHAPE), (), "full")
    assert spans(regions)["abdomen"][0] == pytest.approx(92, abs=MM)


def test_an_upside_down_body_is_flagged_and_not_turned():
    _, findings = split_regions(atlas(flip=True), GEOMETRY, image_of(SHAPE), (), "full")
    assert any(finding.startswith("vertebra_order") for finding in findings)
    assert any(finding.startswith("region_order") for finding in findings)


def test_a_declared_region_that_the_map_lacks_is_a_finding():
    regions, findings = split_regions(atlas(without=("liver",)), GEOMETRY, image_of(SHAPE), ("abdomen",), "full")
    assert "abdomen" not in spans(regions)
    assert "declared region abdomen is not in the map" in findings


@pytest.mark.parametrize("kind", ["partial", "none"])
def test_without_a_full_map_a_declared_region_has_the_whole_range(kind):
    regions, _ = split_regions(np.zeros(SHAPE, np.uint8), GEOMETRY, image_of(SHAPE), ("chest", "abdomen"), kind)
    assert spans(regions) == {"chest": (0, 1036), "abdomen": (0, 1036)}


def test_a_partial_map_with_a_liver_is_an_abdomen():
    anatomy = np.where(atlas() == IDS["liver"], IDS["liver"], 119).astype(np.uint8)
    regions, _ = split_regions(anatomy, GEOMETRY, image_of(SHAPE), (), "partial")
    assert set(spans(regions)) == {"abdomen"}


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
    assert spans(regions)["chest"] == pytest.approx((4 * 15 - 10, 4 * 75 + 20), abs=2 * MM)
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
