import numpy as np
import pytest
from ct_samples import ball_hu, write_dicom

from preprocessing.case import CaseError
from preprocessing.decode import decode_image

HU = ball_hu((8, 10, 12))
PLACES = [(3.0, 4.0, 10.0 + 2 * k) for k in range(8)]


def decode(paths):
    return decode_image([str(path) for path in paths])


def test_slices_are_sorted_by_position_and_not_by_name_or_instance_number(tmp_path):
    image = decode(sorted(write_dicom(tmp_path, HU, PLACES)))
    assert np.array_equal(image.array, HU)
    assert image.modality == "CT"
    assert image.geometry.origin_mm == (10.0, 4.0, 3.0)
    assert np.allclose(image.geometry.spacing_mm, (2.0, 1.5, 1.25))
    assert image.findings == ()


def test_each_slice_has_its_own_rescale(tmp_path):
    slopes, intercepts = (1, 2) * 4, (0, 0, -100, -100) * 2
    stored = np.stack([(s - b) // m for s, m, b in zip(HU, slopes, intercepts, strict=True)])
    image = decode(write_dicom(tmp_path, stored, PLACES, RescaleSlope=slopes, RescaleIntercept=intercepts))
    expected = stored * np.array(slopes)[:, None, None] + np.array(intercepts)[:, None, None]
    assert np.array_equal(image.array, expected)


def test_unsigned_pixels_with_an_intercept_are_hu(tmp_path):
    stored = (np.maximum(HU, -1024).astype(np.int32) + 1024).astype(np.uint16)
    image = decode(write_dicom(tmp_path, stored, PLACES, RescaleIntercept=-1024))
    assert np.array_equal(image.array, np.maximum(HU, -1024))


def test_a_coronal_series_lies_where_its_cosines_say(tmp_path):
    places = [(3.0, 4.0 + 2 * k, 50.0) for k in range(8)]
    image = decode(write_dicom(tmp_path, HU, places, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]))
    index = np.array([5, 4, 3])
    slice_ = int(np.argmin(np.abs([image.geometry.world((k, 4, 3))[1] - 14.0 for k in range(8)])))
    assert np.allclose(image.geometry.world((slice_, 4, 3)), (50.0 - 4 * 1.5, 14.0, 3.0 + 3 * 1.25))
    assert np.array_equal(image.array[slice_], HU[index[0]])


def test_a_tilted_gantry_keeps_every_voxel_where_it_was_measured(tmp_path):
    tilt = np.radians(15)
    cosines = [1, 0, 0, 0, float(np.cos(tilt)), float(-np.sin(tilt))]
    image = decode(write_dicom(tmp_path, HU, PLACES, ImageOrientationPatient=cosines))
    expected = np.array([10.0 + 2 * 5 - 4 * 1.5 * np.sin(tilt), 4.0 + 4 * 1.5 * np.cos(tilt), 3.0 + 3 * 1.25])
    assert np.allclose(image.geometry.world((5, 4, 3)), expected)
    assert "15.00 degrees from a right angle" in image.findings[0]


def test_missing_slices_are_refused_with_their_number_and_place(tmp_path):
    keep = [0, 1, 2, 5, 6, 7]
    with pytest.raises(CaseError, match=r"about 2 slices are missing .*2 mm, after slice 3 it is 6 mm"):
        decode(write_dicom(tmp_path, HU[keep], [PLACES[k] for k in keep]))


def test_slightly_uneven_slices_are_said_and_clearly_uneven_ones_refused(tmp_path):
    jitter = [(x, y, z + (0.1 if k == 4 else 0)) for k, (x, y, z) in enumerate(PLACES)]
    image = decode(write_dicom(tmp_path / "a", HU, jitter))
    assert image.findings == ("slices lie up to 0.10 mm off an even grid",)
    growing = [(3.0, 4.0, 10.0 + 2 * k + 0.15 * k * k) for k in range(8)]
    with pytest.raises(CaseError, match=r"slice distance varies from 2\.15 to 3\.95 mm"):
        decode(write_dicom(tmp_path / "b", HU, growing))


def test_copies_of_a_slice_are_left_out_and_two_images_of_one_place_refused(tmp_path):
    paths = write_dicom(tmp_path, HU, PLACES)
    (tmp_path / "copy.dcm").write_bytes(paths[2].read_bytes())
    image = decode([*paths, tmp_path / "copy.dcm"])
    assert np.array_equal(image.array, HU)
    assert image.findings == ("1 repeated copies of slices left out",)
    other = write_dicom(tmp_path / "other", HU[2:3] + 1, PLACES[2:3], SOPInstanceUID="9.9.9")
    with pytest.raises(CaseError, match="different images of one place"):
        decode([*paths, *other])


def test_localizers_are_left_out_and_nothing_else_is_a_volume(tmp_path):
    paths = write_dicom(tmp_path / "a", HU, PLACES)
    kind = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout = write_dicom(tmp_path / "b", HU[:1], PLACES[:1], ImageType=kind, SOPInstanceUID="7.7")
    assert decode([*paths, *scout]).findings == ("1 localizer images left out",)
    with pytest.raises(CaseError, match="only localizer"):
        decode(scout)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"Modality": "MR"}, "Modality MR is not CT"),
        ({"ImagePositionPatient": None}, "lacks ImagePositionPatient"),
        ({"PixelSpacing": None}, "lacks ImagePositionPatient, ImageOrientationPatient or PixelSpacing"),
        (
            {"ImageOrientationPatient": ([1, 0, 0, 0, 1, 0],) * 7 + ([0, 1, 0, 0, 0, -1],)},
            "differs from the first slice",
        ),
        ({"NumberOfFrames": 4}, "multi-frame CT of 4 frames"),
        ({"PixelSpacing": [0, 0]}, "spacing 2 x 0 x 0 mm"),
    ],
)
def test_what_is_no_ct_volume_is_refused(tmp_path, changes, words):
    with pytest.raises(CaseError, match=words):
        decode(write_dicom(tmp_path, HU, PLACES, **changes))


@pytest.mark.parametrize("kept", [0, 200, 0.5, 0.97])
def test_a_slice_cut_short_is_refused(tmp_path, kept):
    paths = write_dicom(tmp_path, HU, PLACES)
    whole = paths[3].read_bytes()
    paths[3].write_bytes(whole[: int(kept * len(whole)) if kept < 1 else kept])
    with pytest.raises(CaseError, match=paths[3].name):
        decode(paths)


def test_a_slice_without_rescale_is_said(tmp_path):
    image = decode(write_dicom(tmp_path, HU, PLACES, RescaleSlope=None, RescaleIntercept=None))
    assert image.findings == ("8 slices carry no RescaleSlope; their stored values were taken as HU",)
