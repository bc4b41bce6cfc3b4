"""Slices that say DERIVED\\SECONDARY: a volume where they look like one, never a reformat, projection or capture."""

import numpy as np
import pydicom
import pytest
from ct_samples import ball_hu, write_dicom
from dicom_samples import compress, write_enhanced
from pydicom.dataset import Dataset

from preprocessing.case import CaseError
from preprocessing.decoding.decode import decode_image
from preprocessing.sources.folder import FolderSource

HU = ball_hu((8, 10, 12))
PLACES = [(3.0, 4.0, 10.0 + 2 * k) for k in range(8)]
KIND = ["DERIVED", "SECONDARY", "AXIAL"]
CORONAL = [1, 0, 0, 0, 0, -1]
TAKEN = r"8 slices say ImageType DERIVED\SECONDARY: taken, since they are axial, in HU and evenly spaced"


def decode(paths):
    return decode_image([str(path) for path in paths])


def code(value: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", "as coded"
    return [item]


@pytest.mark.parametrize("kind", [KIND, ["DERIVED", "SECONDARY"], [*KIND, "CT_SOM5 SPI"], [*KIND, "HELIX"]])
def test_an_even_axial_stack_in_hu_is_a_volume_with_a_finding(tmp_path, kind):
    image = decode(write_dicom(tmp_path, HU, PLACES, ImageType=kind, SeriesDescription="Thorax 2.0 B30f"))
    assert np.array_equal(image.array, HU)
    assert image.findings == (TAKEN,)


def test_so_is_a_recompressed_one_a_tilted_one_and_an_enhanced_one(tmp_path):
    lossless = Dataset()
    lossless.CodeValue, lossless.CodingSchemeDesignator, lossless.CodeMeaning = "113085", "DCM", "Spatial resampling"
    packed = write_dicom(tmp_path / "a", HU, PLACES, ImageType=KIND, DerivationCodeSequence=[lossless])
    assert decode(compress(packed, "jpeg-ls")).findings == (TAKEN,)
    lean = [1, 0, 0, 0, float(np.cos(0.4)), float(np.sin(0.4))]
    tilted = decode(write_dicom(tmp_path / "b", HU, PLACES, ImageType=KIND, ImageOrientationPatient=lean))
    assert TAKEN in tilted.findings
    kinds = (["DERIVED", "SECONDARY", "VOLUME", "RESAMPLED"],) * 8
    path = write_enhanced(tmp_path / "c.dcm", HU, PLACES, kind=kinds)
    dataset = pydicom.dcmread(path)
    dataset.ImageType = kinds[0]
    dataset.save_as(path)
    assert decode([path]).findings == (TAKEN,)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ImageType": [*KIND, "MPR"]}, "reformatted"),
        ({"ImageType": [*KIND, "CT_SOM5 MIP"]}, "projected"),
        ({"ImageType": ["DERIVED", "SECONDARY", "CURVED"]}, "reformatted"),
        ({"ImageType": ["DERIVED", "SECONDARY", "OTHER"]}, "not AXIAL"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88"}, "no CT Image Storage"),
        ({"RescaleSlope": None, "RescaleIntercept": None}, "no rescale to HU"),
        ({"BitsStored": 8, "HighBit": 7}, "8 bits a pixel"),
        ({"ImageOrientationPatient": CORONAL}, "not in the axial plane"),
        ({"SeriesDescription": "Thorax MIP 10mm"}, "described as projected"),
        ({"DerivationDescription": "MPR of series 4"}, "described as reformatted"),
        ({"DerivationCodeSequence": code("113079")}, "coded as projected"),
        ({"RescaleType": "MGML"}, "calculated"),
    ],
)
def test_what_looks_like_no_slice_is_left_out_by_name(tmp_path, changes, why):
    write_dicom(tmp_path / "a", HU, PLACES, **{"ImageType": KIND, **changes})
    (case,) = FolderSource(path=str(tmp_path)).cases()
    assert why in case.problem
    with pytest.raises(CaseError, match=f"holds only .*{why}"):
        decode(sorted((tmp_path / "a").iterdir()))


@pytest.mark.parametrize(
    ("places", "thickness", "doubt"),
    [
        ([(3.0, 4.0, 2 * k + 0.15 * k * k) for k in range(8)], 2, "their distance varies from 2.15 to 3.95 mm"),
        (PLACES, 8, "slabs of 8 mm every 2 mm"),
        (PLACES[:2], 2, "only 2 of them"),
    ],
)
def test_a_stack_that_looks_like_no_plain_volume_is_refused(tmp_path, places, thickness, doubt):
    paths = write_dicom(tmp_path, HU[: len(places)], places, ImageType=KIND, SliceThickness=thickness)
    with pytest.raises(CaseError, match=rf"derived \(ImageType DERIVED\\SECONDARY\) .*{doubt}.*ingest the original"):
        decode(paths)
    original = write_dicom(tmp_path / "original", HU[: len(places)], places, SliceThickness=thickness)
    assert decode(original).array.shape[0] >= len(places)


def test_beside_original_slices_derived_ones_are_left_out(tmp_path):
    paths = write_dicom(tmp_path / "s", HU, PLACES)
    between = [(x, y, z + 1) for x, y, z in PLACES]
    uids = tuple(f"1.2.9.{k}" for k in range(8))
    for path in write_dicom(tmp_path / "t", HU, between, ImageType=KIND, SOPInstanceUID=uids):
        path.rename(tmp_path / "s" / f"t{path.name}")
    image = decode(sorted((tmp_path / "s").iterdir()))
    assert np.array_equal(image.array, HU)
    assert image.findings == (r"8 derived (ImageType DERIVED\SECONDARY, beside original slices) images left out",)
    (case,) = FolderSource(path=str(tmp_path / "s")).cases()
    assert sorted(case.image) == sorted(map(str, paths))
    assert len(case.notes) == 1
