"""The quick body mask against the full-resolution recipe, written anew with scipy, on real scans and the phantom.

The recipe: outside air is the largest piece below -800 HU, closed by 3³; the body is what is not air, eroded by 5³, its
largest piece, dilated by 5³. It errs where outside air is in several pieces (the skin or the table reaches the sides
of the volume) and where the field of view cuts a lung. There, in `lung-two-visits` and the phantom, it is told which
air is lung, and all other air that reaches the sides is outside. In `head-neck` its outside air enters through the
mouth down to the lungs: there air that is closed in within an axial slice counts as inside.
"""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from whole_case import read_volume

from infra.lake import open_lake
from preprocessing.body import body_mask
from preprocessing.quality import audit
from preprocessing.resample import resample, resample_onto
from preprocessing.sources.folder import FolderSource
from preprocessing.sources.phantom import PhantomSource
from preprocessing.volume import Volume

NEAR_MM = 4.0
LUNGS = (10, 11, 12, 13, 14)
EDGE = 3  # voxels beyond the volume's border, so that it is no air and no end of the body


def largest(mask: np.ndarray) -> np.ndarray:
    pieces, _ = ndimage.label(mask)
    return pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()


def recipe_body(hu: np.ndarray, lungs: np.ndarray | None = None) -> np.ndarray:
    """The recipe at full resolution."""
    if lungs is not None:
        hu = np.where(ndimage.binary_dilation(lungs, iterations=2), 0, hu)
    padded = np.pad(hu, EDGE, mode="edge")
    thin = ndimage.binary_closing(padded < -800, np.ones((3, 3, 3)))
    air = largest(thin)
    if lungs is not None:
        pieces, _ = ndimage.label(thin)
        sides = np.concatenate([pieces[:, [EDGE, -EDGE]].ravel(), pieces[:, :, [EDGE, -EDGE]].ravel()])
        air |= np.isin(pieces, sides) & thin
    eroded = largest(ndimage.minimum_filter((~air).astype(np.uint8), 5) > 0)
    body = ndimage.maximum_filter(eroded.astype(np.uint8), 5) > 0
    return body[EDGE:-EDGE, EDGE:-EDGE, EDGE:-EDGE]


def share_near(one: np.ndarray, other: np.ndarray, spacing_mm: float) -> float:
    """The share of a body's boundary voxels within 4 mm of the other's; the volume's border is no boundary."""
    boundaries = [mask & ~ndimage.binary_erosion(mask, border_value=1) for mask in (one, other)]
    distance = ndimage.distance_transform_edt(~boundaries[1], spacing_mm)
    return float((distance[boundaries[0]] <= NEAR_MM).mean())


def compare(ours: np.ndarray, theirs: np.ndarray, spacing_mm: float) -> dict[str, float]:
    """Shares of each boundary near the other, and of volume more than 4 mm outside the other body."""
    far = [
        float((one & (ndimage.distance_transform_edt(~other, spacing_mm) > NEAR_MM)).sum() / theirs.sum())
        for one, other in ((ours, theirs), (theirs, ours))
    ]
    return {
        "ours near": share_near(ours, theirs, spacing_mm),
        "theirs near": share_near(theirs, ours, spacing_mm),
        "excess": far[0],
        "missing": far[1],
    }


def real_scan(real_data, name: str, spacing_mm: float) -> Volume:
    cases = {case.id: case for case in FolderSource(path=str(real_data)).cases()}
    return resample(audit(read_volume(cases[name])), spacing_mm)


def assert_close(
    found: dict[str, float], ours_near: float, theirs_near: float, excess: float = 0.003, missing: float = 0.0015
) -> None:
    assert found["ours near"] > ours_near, found
    assert found["theirs near"] > theirs_near, found
    assert found["excess"] < excess, found
    assert found["missing"] < missing, found


REAL = [
    # measured at 3 mm: ours near the recipe's, the recipe's near ours, in %
    ("abdomen-3mm", 0.985, 0.985),  # 98.8, 99.0
    ("abdomen-dicom", 0.995, 0.995),  # 99.9, 100.0
    ("chest-full", 0.995, 0.995),  # 99.9, 100.0
    ("lung-lesion", 0.995, 0.995),  # 99.9, 99.9
    ("head-4mm", 0.975, 0.985),  # 98.2, 98.8: ears
    ("sarcoma__STS_001", 0.995, 0.995),  # 99.8, 99.7
    ("sarcoma__STS_003", 0.985, 0.98),  # 99.1, 98.5
    ("sarcoma__STS_004", 0.965, 0.995),  # 97.0, 99.9: the recipe's outside air misses a corner of the slice
    ("sarcoma__STS_022", 0.98, 0.99),  # 98.4, 99.6
    ("sarcoma__STS_032", 0.995, 0.995),  # 100.0, 100.0
]


@pytest.mark.parametrize(("case", "ours_near", "theirs_near"), REAL)
def test_a_real_body_ends_where_the_recipe_ends_it(real_data, case, ours_near, theirs_near):
    hu = real_scan(real_data, case, 3.0).image
    assert_close(compare(body_mask(hu, 3.0), recipe_body(hu), 3.0), ours_near, theirs_near)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "theirs_near", "missing"),
    [
        ("lung-lesion", 0.97, 0.0015),
        ("chest-full", 0.97, 0.0015),
        ("head-4mm", 0.97, 0.0015),
        ("abdomen-3mm", 0.91, 0.005),  # 91.6 % and 0.46 %, on a scan interpolated from 3 mm
    ],
)
def test_the_same_at_the_papers_millimetre(real_data, case, theirs_near, missing):
    hu = real_scan(real_data, case, 1.0).image
    assert_close(compare(body_mask(hu, 1.0), recipe_body(hu), 1.0), 0.97, theirs_near, missing=missing)


@pytest.mark.parametrize("visit", ["baseline", "followup"])
def test_lungs_that_the_field_of_view_cuts_are_inside_and_the_skin_is_the_recipes(real_data, visit):
    cases = {case.id: case for case in FolderSource(path=str(real_data)).cases()}
    source = read_volume(cases[f"lung-two-visits__3DCT_lung_{visit}"])
    volume = resample(audit(source), 3.0)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(real_data / f"lung-two-visits/3DCT_lung_{visit}_mask.mha")))
    lungs = resample_onto((labels > 0).astype(np.uint8), source.geometry, volume.geometry, nearest=True) > 0
    mask = body_mask(volume.image, 3.0)
    assert mask[lungs].mean() > 0.999
    found = compare(mask, recipe_body(volume.image, lungs), 3.0)
    # 100 %, 90.2 and 89.6 %: airways that the border cuts are no part of the lung masks, and outside in the recipe
    assert_close(found, 0.995, 0.89)


@pytest.mark.parametrize(
    ("patient", "ours_near", "excess"),
    [
        ("pt_2", 0.92, 0.016),  # 92.4 %, 1.46 %: pieces of the couch touch the shoulders
        ("pt_12", 0.97, 0.004),  # 97.5 %, 0.34 %
    ],
)
def test_a_planning_scan_has_the_recipes_outline(real_data, patient, ours_near, excess):
    hu = real_scan(real_data, f"head-neck__{patient}", 3.0).image
    outlines = [np.stack([ndimage.binary_fill_holes(p) for p in m]) for m in (body_mask(hu, 3.0), recipe_body(hu))]
    assert_close(compare(*outlines, 3.0), ours_near, 0.99, excess)


def test_the_table_below_a_real_body_is_outside(real_data):
    hu = real_scan(real_data, "chest-full", 3.0).image
    mask = body_mask(hu, 3.0)
    table = (hu > -500) & ~ndimage.binary_dilation(recipe_body(hu), iterations=2)
    assert table.sum() > 1000
    assert not mask[table].any()


@pytest.mark.parametrize("case", ["abdomen-3mm", "chest-full"])
def test_lungs_gas_and_every_organ_of_a_real_body_are_inside(real_data, case):
    volume = real_scan(real_data, case, 3.0)
    mask = body_mask(volume.image, 3.0)
    organs = volume.anatomy > 0
    assert mask[organs].mean() > 0.999
    bowel_gas = np.isin(volume.anatomy, (6, 18, 20)) & (volume.image < -800)
    assert mask[bowel_gas].all()


@pytest.fixture(scope="module")
def phantom(tmp_path_factory) -> Volume:
    source = PhantomSource(patients=1, resolution="tiny", dose_pairs=False)
    lake = open_lake(str(tmp_path_factory.mktemp("lake")))
    return resample(read_volume(source.fetch(source.cases()[0], lake, lake.local_path("scratch"))), 3.0)


def test_a_phantom_ends_where_the_recipe_ends_it(phantom):
    lungs = np.isin(phantom.anatomy, LUNGS)
    above = np.s_[:, :78]  # the recipe keeps the table, rows 79 to 87, where the trunk lies on it
    theirs = recipe_body(phantom.image, lungs)
    assert_close(compare(body_mask(phantom.image, 3.0)[above], theirs[above], 3.0), 0.97, 0.97)


def test_every_organ_of_a_phantom_is_inside(phantom):
    mask = body_mask(phantom.image, 3.0)
    assert mask[phantom.anatomy > 0].mean() > 0.995
