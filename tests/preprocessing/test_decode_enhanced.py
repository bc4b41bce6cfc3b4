import numpy as np
import pytest
from ct_samples import ball_hu
from dicom_samples import AXIAL, write_enhanced
from whole_case import read_volume

from preprocessing.case import CaseError
from preprocessing.decoding.decode import decode_image
from preprocessing.inputs import input_of
from preprocessing.sources.folder import FolderSource

HU = ball_hu((8, 10, 12))
PLACES = [(3.0, 4.0, 10.0 + 2 * k) for k in range(8)]
CORONAL = [1, 0, 0, 0, 0, -1]


def test_frames_in_any_order_become_one_volume(tmp_path):
    order = [5, 2, 7, 0, 1, 6, 3, 4]
    path = write_enhanced(tmp_path / "ct.dcm", HU[order], [PLACES[k] for k in order])
    image = decode_image([str(path)])
    assert np.array_equal(image.array, HU)
    assert image.modality == "CT"
    assert image.geometry.origin_mm == (10.0, 4.0, 3.0)
    assert np.allclose(image.geometry.spacing_mm, (2.0, 1.5, 1.25))
    assert image.findings == ()


def test_a_frames_own_rescale_and_place_are_believed_before_the_shared_ones(tmp_path):
    slopes, intercepts = (1, 2) * 4, (0, -100) * 4
    stored = np.stack([(s - b) // m for s, m, b in zip(HU, slopes, intercepts, strict=True)])
    path = write_enhanced(tmp_path / "ct.dcm", stored, PLACES, slope=slopes, intercept=intercepts)
    expected = stored * np.array(slopes)[:, None, None] + np.array(intercepts)[:, None, None]
    assert np.array_equal(decode_image([str(path)]).array, expected)


def test_frames_of_several_files_are_one_volume(tmp_path):
    one = write_enhanced(tmp_path / "b.dcm", HU[:5], PLACES[:5])
    other = write_enhanced(tmp_path / "a.dcm", HU[5:], PLACES[5:])
    assert np.array_equal(decode_image([str(other), str(one)]).array, HU)


def test_frames_that_are_a_localizer_are_left_out(tmp_path):
    kinds = (["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],) * 7 + (["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"],)
    path = write_enhanced(tmp_path / "ct.dcm", HU, PLACES, kind=kinds)
    image = decode_image([str(path)])
    assert np.array_equal(image.array, HU[:7])
    assert image.findings == ("1 localizer images left out",)


def test_frames_without_a_rescale_are_said(tmp_path):
    path = write_enhanced(tmp_path / "ct.dcm", HU, PLACES, slope=None)
    assert decode_image([str(path)]).findings == (
        "8 slices carry no RescaleSlope; their stored values were taken as HU",
    )


def test_a_missing_frame_is_refused(tmp_path):
    keep = [0, 1, 2, 4, 5, 6, 7]
    path = write_enhanced(tmp_path / "ct.dcm", HU[keep], [PLACES[k] for k in keep])
    with pytest.raises(CaseError, match="about 1 slices are missing"):
        decode_image([str(path)])


def test_fewer_functional_groups_than_frames_are_refused(tmp_path):
    import pydicom

    path = write_enhanced(tmp_path / "ct.dcm", HU, PLACES)
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[5:]
    dataset.save_as(path)
    with pytest.raises(CaseError, match=r"ct\.dcm is not a readable DICOM file"):
        decode_image([str(path)])


@pytest.mark.parametrize("told_apart_by", ["StackID", "orientation"])
def test_two_stacks_in_one_file_are_two_cases(tmp_path, told_apart_by):
    other = [(3.0, 4.0, 500.0 + 2 * k) for k in range(8)]
    facts = {"stack": ("1", "2") * 8}
    if told_apart_by == "orientation":
        other = [(3.0, 4.0 + 2 * k, 50.0) for k in range(8)]
        facts = {"orientation": (AXIAL, CORONAL) * 8}
    mixed = [place for pair in zip(PLACES, other, strict=True) for place in pair]
    stored = np.stack([plane for k in range(8) for plane in (HU[k], HU[k] + 500)])
    path = write_enhanced(tmp_path / "s/ct.dcm", stored, mixed, **facts)
    cases = FolderSource(path=str(tmp_path)).cases()
    assert len({case.id for case in cases}) == 2
    assert all(case.image == (str(path),) and not case.problem for case in cases)
    inputs = {input_of(case.replace(id="same"), {"image/0": "0"}) for case in cases}
    assert len(inputs) == 2
    low, high = sorted((read_volume(case) for case in cases), key=lambda volume: volume.image.mean())
    assert np.array_equal(low.image, HU)
    assert np.array_equal(np.sort(high.image.ravel()), np.sort((HU + 500).ravel()))
    assert np.allclose(high.geometry.world((0, 0, 0))[2], 3.0)
