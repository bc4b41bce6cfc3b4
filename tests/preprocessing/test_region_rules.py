"""The table of the regions' presence and bounds, line by line, on a patient made of blocks."""

import numpy as np
import pytest
from atlas_samples import BOTTOM, GEOMETRY, IDS, LUNGS, MM, SHAPE, atlas, end_mm

from preprocessing.geometry import Geometry
from preprocessing.regions.class_extents import measure_extents
from preprocessing.regions.rules import MIN_EXTENT_MM, RULES

TOP = BOTTOM + MM * (SHAPE[0] - 1)
WHOLE = atlas()
NEAR = pytest.approx


def bounds(region: str, anatomy: np.ndarray):
    return RULES[region](measure_extents(anatomy, GEOMETRY), GEOMETRY)


def block(name: str, ml: float, anatomy: np.ndarray | None = None, z: int = 100) -> np.ndarray:
    """A map with one organ of a given volume: columns of voxels, each 10 voxels high."""
    out = np.zeros(SHAPE, np.uint8) if anatomy is None else anatomy.copy()
    out[out == IDS[name]] = 0
    voxels = round(ml * 1000 / MM**3)
    columns, rest = divmod(voxels, 10)
    flat = out.reshape(SHAPE[0], -1)
    flat[z : z + 10, :columns] = IDS[name]
    flat[z : z + rest, columns] = IDS[name]
    return out


def test_smallest_extents_are_the_tables():
    assert MIN_EXTENT_MM == {"head_neck": 96, "chest": 128, "abdomen": 128}


def joined(*blocks: np.ndarray) -> np.ndarray:
    """Maps over each other; the first that names a voxel keeps it."""
    out = blocks[0].copy()
    for other in blocks[1:]:
        out[out == 0] = other[out == 0]
    return out


@pytest.mark.parametrize(
    ("region", "organs", "present"),
    [
        ("head_neck", {"brain": 201}, True),
        ("head_neck", {"brain": 199}, False),
        ("head_neck", {"skull": 900}, False),
        ("head_neck", {"vertebrae_C1": 1.1, "vertebrae_C4": 1.1, "vertebrae_C7": 1.1}, True),
        ("head_neck", {"vertebrae_C1": 1.1, "vertebrae_C4": 1.1, "vertebrae_C7": 0.9}, False),
        ("head_neck", {"vertebrae_C1": 20, "vertebrae_C4": 20}, False),
        ("chest", {"lung_upper_lobe_left": 300, "lung_lower_lobe_right": 301}, True),
        ("chest", {"lung_upper_lobe_left": 300, "lung_lower_lobe_right": 298}, False),
        ("chest", {"lung_lower_lobe_left": 400, "lung_lower_lobe_right": 400}, False),
        ("chest", {"lung_upper_lobe_left": 400, "lung_middle_lobe_right": 400}, False),
        ("chest", {"heart": 600}, False),
        ("abdomen", {"liver": 301}, True),
        ("abdomen", {"liver": 299}, False),
        ("abdomen", {"kidney_left": 51, "kidney_right": 51, "spleen": 5}, True),
        ("abdomen", {"kidney_left": 51, "kidney_right": 51, "pancreas": 5}, True),
        ("abdomen", {"kidney_left": 51, "kidney_right": 51}, False),
        ("abdomen", {"kidney_left": 51, "kidney_right": 49, "spleen": 200}, False),
        ("abdomen", {"spleen": 200, "pancreas": 90}, False),
    ],
)
def test_presence(region, organs, present):
    maps = [block(name, ml, z=20 * number) for number, (name, ml) in enumerate(organs.items(), 2)]
    assert (bounds(region, joined(*maps)) is not None) is present


@pytest.mark.parametrize(
    ("without", "lower"),
    [
        ((), lambda a: end_mm(a, 0.01, "vertebrae_C7") - 10),
        (("vertebrae_C7",), lambda a: end_mm(a, 0.01, "vertebrae_T1")),
        (("vertebrae_C7", "vertebrae_T1"), lambda a: end_mm(a, 0.99, *LUNGS) + 10),
        (("vertebrae_C7", "vertebrae_T1", *LUNGS), lambda a: end_mm(a, 0.01, "thyroid_gland") - 20),
        (("vertebrae_C7", "vertebrae_T1", *LUNGS, "thyroid_gland"), lambda a: BOTTOM),
    ],
)
def test_where_the_neck_ends(without, lower):
    anatomy = atlas(without=without)
    assert bounds("head_neck", anatomy)[0] == NEAR(lower(anatomy), abs=MM / 2)


@pytest.mark.parametrize(
    ("without", "upper"),
    [
        ((), lambda a: end_mm(a, 0.99, "skull", "brain") + 15),
        (("brain",), lambda a: TOP),
        (("brain", "skull"), lambda a: TOP),
    ],
)
def test_where_the_head_ends(without, upper):
    anatomy = atlas(without=without)
    assert bounds("head_neck", anatomy)[1] == NEAR(upper(anatomy), abs=MM / 2)


def test_where_the_chest_lies():
    lower, upper = bounds("chest", WHOLE)
    assert lower == NEAR(end_mm(WHOLE, 0.01, *LUNGS) - 10, abs=MM / 2)
    assert upper == NEAR(end_mm(WHOLE, 0.99, *LUNGS) + 20, abs=MM / 2)


@pytest.mark.parametrize(
    ("without", "upper"),
    [
        ((), lambda a: end_mm(a, 0.99, "liver") + 10),
        (("liver",), lambda a: end_mm(a, 0.99, "spleen") + 10),
        (("liver", "spleen"), None),
    ],
)
def test_where_the_abdomen_begins(without, upper):
    anatomy = atlas(without=without)
    found = bounds("abdomen", anatomy)
    assert found is None if upper is None else found[1] == NEAR(upper(anatomy), abs=MM / 2)


def test_an_organ_below_20_ml_bounds_nothing():
    higher = {"stomach": 200.0}
    assert bounds("abdomen", atlas(shift_mm=higher))[1] == NEAR(
        end_mm(atlas(shift_mm=higher), 0.99, "stomach") + 10, abs=MM / 2
    )
    small = block("stomach", 19, WHOLE, z=180)
    assert bounds("abdomen", small)[1] == NEAR(end_mm(small, 0.99, "liver") + 10, abs=MM / 2)


@pytest.mark.parametrize(
    ("without", "lower"),
    [
        ((), lambda a: end_mm(a, 0.01, "hip_right") - 10),  # the lower of the two
        (("hip_right",), lambda a: end_mm(a, 0.01, "hip_left") - 10),
        (("hip_right", "hip_left"), lambda a: end_mm(a, 0.01, "urinary_bladder") - 20),
        (("hip_right", "hip_left", "urinary_bladder"), lambda a: end_mm(a, 0.01, "sacrum") - 20),
        (("hip_right", "hip_left", "urinary_bladder", "sacrum"), lambda a: BOTTOM),
    ],
)
def test_where_the_abdomen_ends(without, lower):
    anatomy = atlas(without=without)
    assert bounds("abdomen", anatomy)[0] == NEAR(lower(anatomy), abs=MM / 2)


@pytest.mark.parametrize("region", RULES)
def test_no_bound_leaves_the_volume(region):
    part = slice(130, 250) if region == "head_neck" else slice(120, 160) if region == "chest" else slice(85, 110)
    geometry = Geometry((part.stop - part.start, *SHAPE[1:]), (MM, MM, MM), (BOTTOM + MM * part.start, 0.0, 0.0))
    lower, upper = RULES[region](measure_extents(WHOLE[part], geometry), geometry)
    assert geometry.origin_mm[0] <= lower < upper <= geometry.origin_mm[0] + MM * (geometry.shape[0] - 1)


@pytest.mark.parametrize("name", ["hip_left", "liver", "vertebrae_C7", "spleen", "brain"])
def test_a_stray_piece_of_an_organ_moves_no_bound(name):
    strayed = WHOLE.copy()
    strayed[4:8, 2:5, 2:5] = strayed[250:254, 2:5, 2:5] = IDS[name]
    assert np.ravel([bounds(r, strayed) for r in RULES]) == NEAR(np.ravel([bounds(r, WHOLE) for r in RULES]), abs=0.1)


def test_both_lobes_of_a_thyroid_count_and_a_third_piece_does_not():
    without_spine = ("vertebrae_C7", "vertebrae_T1", *LUNGS, "thyroid_gland")
    lobes = atlas(without=without_spine)
    lobes[180:190, 10:16, 30:36] = lobes[186:196, 10:16, 44:50] = IDS["thyroid_gland"]
    lobes[20:22, 10:12, 10:12] = IDS["thyroid_gland"]
    assert bounds("head_neck", lobes)[0] == NEAR(BOTTOM + MM * 180 - 20, abs=MM / 2)
