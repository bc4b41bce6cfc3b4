"""SegRap 2023: two CTs a patient, a 0/255 mask a structure, masks that overlap."""

import numpy as np
from miniatures import RECIPE, anatomy_of, brought, ingested, rows, scan, statuses, zipped

from preprocessing.anatomy import class_ids
from preprocessing.sources.registry import make_source
from preprocessing.store import open_case

ROOT = "SegRap2023_Training_Set_120cases"


def patient(name: str, number: int) -> dict[str, bytes]:
    head = scan("head_neck", number)
    contrast = np.where(head.anatomy > 0, head.hu + 20, head.hu).astype(np.int16)
    brain = (head.anatomy == class_ids()["brain"]).astype(np.uint8) * 255
    lobe = brain.copy()
    lobe[:, :, lobe.shape[2] // 2 :] = 0
    masks = {"Brain": brain, "TemporalLobe_R": lobe, "BrainStem": lobe, "GTVp": head.lesion * np.uint8(255)}
    masks["Thyroid"] = (head.anatomy == class_ids()["thyroid_gland"]).astype(np.uint8) * 255
    files = {f"{name}/image.nii.gz": head.nifti(), f"{name}/image_contrast.nii.gz": head.nifti(contrast)}
    return files | {f"{name}/{mask}.nii.gz": head.nifti(array) for mask, array in masks.items()}


def test_both_scans_of_a_patient_share_labels_and_split(tmp_path, lake, settings):
    files = {f"{ROOT}/{name}": data for name, data in patient("segrap_0000", 0).items()}
    (path,) = brought(tmp_path, {f"{ROOT}.zip": zipped(files)})
    ingested(lake, make_source("segrap23", archive=(path,)), settings)
    found = rows(lake)
    assert statuses(found.values()) == {"segrap_0000": "sealed", "segrap_0000_contrast": "sealed"}
    assert {row.patient for row in found.values()} == {"segrap_0000"}
    assert len({row.split for row in found.values()}) == 1
    assert {row.licence for row in found.values()} == {"CC BY-NC 4.0"}
    assert all(row.lesion for row in found.values())
    assert anatomy_of(lake, found["segrap_0000"]) >= {"brain", "unknown"}

    again = ingested(lake, make_source("segrap23", archive=(path,)), settings)
    assert (again.converted, again.unchanged) == (0, 2)


def test_an_organ_keeps_the_voxels_that_its_parts_overlap(tmp_path, lake, settings):
    (path,) = brought(tmp_path, {"masks.zip": zipped(patient("segrap_0001", 1))})
    ingested(lake, make_source("segrap23", archive=(path,)), settings)
    stored = open_case(lake, rows(lake)["segrap_0001"].key)
    found = np.count_nonzero(stored.read_all("anatomy") == class_ids()["brain"]) * RECIPE.spacing_mm**3
    head = scan("head_neck", 1)
    whole = np.count_nonzero(head.anatomy == class_ids()["brain"]) * np.prod(head.geometry.spacing_mm)
    assert found > 0.8 * whole
