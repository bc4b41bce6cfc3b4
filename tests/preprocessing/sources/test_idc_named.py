"""Named sets of the Imaging Data Commons in miniature: which series are cases, what segmentations mean and where."""

from dataclasses import replace

import numpy as np
import pytest
from idc_miniature import RAW_DATA, seg_bytes, slab
from miniatures import Scan, anatomy_of, ingested, rows, scan, statuses

from preprocessing.anatomy import class_ids
from preprocessing.geometry import Geometry
from preprocessing.sources.registry import make_source
from preprocessing.store import open_case

pytestmark = pytest.mark.server
A, B, C, SEG = "1.2.5.10", "1.2.5.11", "1.2.5.12", "1.2.9.1"


def part(view: str = "abdomen", patient: int = 1) -> Scan:
    return slab(scan(view, patient), 12)


def organ(one: Scan, name: str) -> np.ndarray:
    return one.anatomy == class_ids()[name]


def centre_mm(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    return np.mean([geometry.world(index) for index in np.argwhere(mask)], axis=0)


def assert_lesion_where(mask: np.ndarray, one: Scan, lake, row, *, relative: float = 0.6) -> None:
    """The stored lesion has its centre within a voxel of the mask's, and its volume within `relative` of it."""
    case = open_case(lake, row.key)
    stored, geometry = case.read_all("lesion") > 0, Geometry.from_dict(case.record.geometry)
    off = np.abs(centre_mm(stored, geometry) - centre_mm(mask > 0, one.geometry))
    assert (off < np.array(one.geometry.spacing_mm)).all()
    volumes = [np.sum(m > 0) * np.prod(place.spacing_mm) for m, place in ((stored, geometry), (mask, one.geometry))]
    assert volumes[0] == pytest.approx(volumes[1], rel=relative)


def test_a_lesion_drawn_on_the_pet_lies_in_the_same_place_of_the_ct(commons, lake, settings):
    ct = part("abdomen")
    lesion = np.zeros_like(ct.lesion)
    lesion[3:9, 10:20, 14:26] = 1
    halved = replace(
        ct.geometry,
        shape=(len(ct.hu), *(-(-n // 2) for n in ct.hu.shape[1:])),
        spacing_mm=(ct.geometry.spacing_mm[0], *(2 * mm for mm in ct.geometry.spacing_mm[1:])),
    )
    pet = Scan(ct.hu[:, ::2, ::2], ct.anatomy[:, ::2, ::2], lesion[:, ::2, ::2], halved)
    named = {"collection_id": "fdg_pet_ct_lesions"}
    commons.ct(ct, A, "PETCT_1", **named)
    commons.put(B, "PETCT_1", {}, Modality="PT", **named)
    data = seg_bytes(pet, B, "PETCT_1", {"Lesion": pet.lesion})
    commons.put(SEG, "PETCT_1", {"seg": data}, Modality="SEG", **named)
    ingested(lake, make_source("fdg-pet-ct-lesions", **commons.options), settings)
    (row,) = rows(lake).values()
    assert (row.status, row.lesion, row.patient) == ("sealed", True, "PETCT_1")
    assert_lesion_where(lesion, ct, lake, row, relative=0.25)


def test_a_full_dose_scan_has_its_low_dose_beside_it_and_projections_are_no_cases(commons, lake, settings):
    full = part("chest", 0)
    noise = np.random.default_rng(3).normal(0, 60, full.hu.shape)
    low = Scan((full.hu + noise).astype(np.int16), full.anatomy, full.lesion, full.geometry)
    named = {"collection_id": "ldct_and_projection_data"}
    commons.ct(full, A, "C001", SeriesDescription="Full Dose Images", **named)
    commons.ct(low, B, "C001", SeriesDescription="Low Dose Images", **named)
    commons.ct(part("abdomen"), C, "L002", SeriesDescription="Full Dose Images", **named)
    raw = {"SeriesDescription": "Full Dose Projections", "SOPClassUID": RAW_DATA}
    commons.put("1.2.5.20", "C001", {"one": b"raw"}, **raw, **named)
    ingested(lake, make_source("ldct-and-projection-data", **commons.options), settings)
    found = {row.patient: row for row in rows(lake).values()}
    assert statuses(found.values()) == {row.case: "sealed" for row in found.values()}
    assert [found[name].companions for name in ("C001", "L002")] == [("low_dose",), ()]
    assert {row.split for row in found.values()} == {"test"}
    case = open_case(lake, found["C001"].key)
    apart = case.read_all("low_dose").astype(int) - case.read_all("image")
    assert 10 < apart.std() < 60, "the noise, as far as resampling left it"
    assert ingested(lake, make_source("ldct-and-projection-data", **commons.options), settings).unchanged == 2


def test_organs_of_nlst_are_named_by_the_words_of_their_labels(commons, lake, settings):
    chest = part("chest", 0)
    parts = {
        "Upper lobe of left lung": organ(chest, "lung_upper_lobe_left"),
        "Aorta": organ(chest, "aorta"),
        "Left ventricle of heart": organ(chest, "heart"),
    }
    there = {label: mask for label, mask in parts.items() if mask.any()}
    assert len(there) >= 2
    result = {"analysis_result_id": "totalsegmentator_ct_segmentations", "collection_id": "nlst"}
    commons.ct(chest, A, "100002", collection_id="nlst")
    commons.seg(chest, A, SEG, "100002", there)
    commons.rows[SEG] |= result | {"SeriesDescription": "TotalSegmentator segmentation of Series 2"}
    commons.put(B, "100002", {"one": b"", "two": b""}, collection_id="nlst", SeriesNumber="1")
    ingested(lake, make_source("nlst", **commons.options), settings)
    sealed, scout = sorted(rows(lake).values(), key=lambda row: row.status, reverse=True)
    assert (sealed.status, sealed.anatomy) == ("sealed", "partial")
    names = {"Upper lobe of left lung": "lung_upper_lobe_left", "Aorta": "aorta", "Left ventricle of heart": "heart"}
    assert anatomy_of(lake, sealed) == {*(names[label] for label in there), "unknown"}
    assert scout.status == "quarantined"
    assert "2 images" in (scout.reason or "")


@pytest.mark.parametrize(("name", "patient"), [("med-ln", "MED_LYMPH_001"), ("abd-ln", "ABD_LYMPH_001")])
def test_lymph_nodes_of_chest_and_abdomen_are_two_sets_of_one_collection(name, patient, commons, lake, settings):
    one = part("abdomen")
    for number, who in enumerate(("MED_LYMPH_001", "ABD_LYMPH_001")):
        commons.ct(one, f"1.2.5.3{number}", who, collection_id="ct_lymph_nodes", shift=number)
        commons.seg(one, f"1.2.5.3{number}", f"1.2.9.3{number}", who, {"Lymph node": one.lesion})
        commons.rows[f"1.2.9.3{number}"]["collection_id"] = "ct_lymph_nodes"
    ingested(lake, make_source(name, **commons.options), settings)
    (row,) = rows(lake).values()
    assert (row.patient, row.status, row.split, row.lesion, row.anatomy) == (patient, "sealed", "test", True, "none")
    assert_lesion_where(one.lesion, one, lake, row)


def test_only_the_arterial_phase_of_c4kc_is_labelled_and_a_kidney_has_no_side(commons, lake, settings):
    one = part("abdomen")
    named = {"collection_id": "c4kc_kits"}
    commons.ct(one, A, "KiTS-00001", SeriesDescription="arterial", **named)
    commons.ct(one, B, "KiTS-00001", SeriesDescription="late", shift=5, **named)
    commons.seg(one, A, SEG, "KiTS-00001", {"Kidney": organ(one, "liver"), "Mass": one.lesion})
    commons.rows[SEG] |= named
    ingested(lake, make_source("c4kc-kits", **commons.options), settings)
    labelled, plain = sorted(rows(lake).values(), key=lambda row: row.lesion, reverse=True)
    assert (labelled.status, labelled.lesion, plain.status, plain.lesion) == ("sealed", True, "sealed", False)
    assert labelled.patient == plain.patient == "KiTS-00001"
    assert labelled.anatomy == plain.anatomy == "none", "unknown is no organ"
    assert_lesion_where(one.lesion, one, lake, labelled)


def test_nodules_of_lidc_are_lesions_and_radiographs_no_cases(commons, lake, settings):
    chest = part("chest", 0)
    named = {"collection_id": "lidc_idri"}
    commons.ct(chest, A, "LIDC-IDRI-0001", **named)
    commons.put(B, "LIDC-IDRI-0001", {"one": b""}, Modality="DX", **named)
    commons.seg(chest, A, SEG, "LIDC-IDRI-0001", {"Nodule": chest.lesion})
    commons.rows[SEG] |= named | {"analysis_result_id": "dicom_lidc_idri_nodules"}
    commons.seg(
        chest, A, "1.2.9.2", "LIDC-IDRI-0001", {"Nodule": chest.anatomy > 0}, analysis_result_id="qin_lungct_seg"
    )
    commons.rows["1.2.9.2"] |= named
    ingested(lake, make_source("lidc-idri", **commons.options), settings)
    (row,) = rows(lake).values()
    assert (row.status, row.patient) == ("sealed", "LIDC-IDRI-0001")
    assert_lesion_where(chest.lesion, chest, lake, row)
