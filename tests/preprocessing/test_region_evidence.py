"""Regions that the image alone proves: every real CT here gets its own or none, never another's."""

import numpy as np
import pytest
from scipy import ndimage
from whole_case import read_volume

from preprocessing.quality import audit
from preprocessing.regions.evidence import region_from_image
from preprocessing.resample import resample
from preprocessing.sources.folder import FolderSource
from preprocessing.volume import Volume

NECKS = [f"head-neck__pt_{n}" for n in (12, 2, 206, 24, 245, 305, 39, 54, 7, 98)]
LIMBS = [f"sarcoma__STS_{n}" for n in ("001", "003", "004", "022", "032")]
PROVEN = {
    **dict.fromkeys(NECKS, ("head_neck",)),
    **dict.fromkeys(LIMBS, ()),
    "head-4mm": ("head_neck",),
    "chest-full": ("chest",),
    "chest-4mm__ct-64": ("chest",),
    "lung-lesion": ("chest",),
    "abdomen-3mm": (),
    "abdomen-dicom": (),
    "spine-crop__sub-ct_label-22": (),
    "head-phantom-thick-thin__1mm": (),
    "head-phantom-thick-thin__5mm": (),
}


@pytest.fixture(scope="module")
def scans(real_data) -> dict[str, Volume]:
    """The real scans of the table at 2 mm, without their labels."""
    found = {}
    for case in FolderSource(path=str(real_data)).cases():
        if case.id in PROVEN:
            unlabelled = case.replace(labels=(), lesion=(), anatomy="none")
            found[case.id] = resample(audit(read_volume(unlabelled)), 2.0)
    return found


@pytest.mark.parametrize("case", PROVEN)
def test_a_real_scan_proves_its_own_region_or_none(scans, case):
    spans, _ = region_from_image(scans[case].image, 2.0)
    assert tuple(spans) == PROVEN[case]


@pytest.mark.parametrize("case", ["head-neck__pt_7", "head-4mm", "lung-lesion", "abdomen-3mm", "sarcoma__STS_003"])
@pytest.mark.parametrize("spacing_mm", [3.0, 5.0])
def test_the_spacing_changes_no_verdict(scans, case, spacing_mm):
    spans, _ = region_from_image(resample(scans[case], spacing_mm).image, spacing_mm)
    assert tuple(spans) == PROVEN[case]


@pytest.mark.parametrize("case", NECKS)
def test_a_real_neck_is_long_enough_and_holds_little_lung(scans, case):
    (low, high) = region_from_image(scans[case].image, 2.0)[0]["head_neck"]
    assert high - low >= 96
    image = scans[case].image[max(0, round(low / 2)) :]
    deep_in_lung = ndimage.binary_erosion((image > -950) & (image < -700), iterations=4)
    assert np.count_nonzero(deep_in_lung) * 0.008 < 100  # mL


@pytest.mark.parametrize("case", ["head-neck__pt_54", "head-neck__pt_24"])
def test_lung_apices_below_a_neck_are_no_chest_even_without_the_head(scans, case):
    without_head = scans[case].image[: 240 // 2]
    spans, reason = region_from_image(without_head, 2.0)
    assert (spans, reason) == ({}, "no map of the organs, and the image alone proves none")
