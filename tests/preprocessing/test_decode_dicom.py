from pathlib import Path

import numpy as np
import pydicom
import pytest
from ct_samples import ball_hu, write_dicom

from preprocessing.case import CaseError
from preprocessing.decoding.decode import decode_image
from preprocessing.resample import resample
from preprocessing.volume import Volume

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


def test_a_landmark_in_a_tilted_series_keeps_its_place_through_resampling(tmp_path):
    tilt = np.radians(18)
    shape, spacing = (24, 30, 32), np.array([3.0, 1.5, 1.25])
    cosines = [1, 0, 0, 0, float(np.cos(tilt)), float(-np.sin(tilt))]
    along = np.array([[0, 0, 1], cosines[3:], cosines[:3]])  # a table that moves along z, slices that lean
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = np.array([3.0, 4.0, 10.0]) + (index * spacing) @ along  # x, y, z
    mark = world[13, 16, 9]
    hu = np.rint(-1000 + 2500 * np.exp(-(((world - mark) / 3.0) ** 2).sum(-1))).astype(np.int16)
    places = [tuple(world[k, 0, 0]) for k in range(shape[0])]
    image = decode(write_dicom(tmp_path, hu, places, ImageOrientationPatient=cosines))
    out = resample(Volume(image.array, image.geometry), 1.0)
    weight = np.maximum(out.image.astype(float) + 700, 0)
    found = out.geometry.world(np.array([(weight * axis).sum() for axis in np.indices(weight.shape)]) / weight.sum())
    assert not image.geometry.is_axis_aligned
    assert out.geometry.is_axis_aligned
    assert (np.abs(found - mark[::-1]) < spacing / 2).all()


def test_a_tilted_series_is_resampled_as_the_independent_reference_is(tmp_path):
    tilt = np.radians(-12)
    cosines = [1, 0, 0, 0, float(np.cos(tilt)), float(-np.sin(tilt))]

    def field(world_xyz):  # linear, so that linear interpolation is exact
        return world_xyz @ np.array([2.0, -3.0, 4.0]) - 50

    shape = (20, 24, 26)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * np.array([2.0, 1.5, 1.25])
    world = np.array([3.0, 4.0, 10.0]) + index @ np.array([[0, 0, 1], cosines[3:], cosines[:3]])
    places = [tuple(world[k, 0, 0]) for k in range(shape[0])]
    stored = np.rint(field(world)).astype(np.int16)
    image = decode(write_dicom(tmp_path, stored, places, ImageOrientationPatient=cosines))
    out = resample(Volume(image.array, image.geometry), 1.0)
    points = out.geometry.world(np.stack(np.indices(out.image.shape), -1))
    inside = image.geometry.index(points)
    inside = ((inside > 0.01) & (inside < np.array(shape) - 1.01)).all(-1)
    assert inside.sum() > 1000
    assert np.abs(out.image[inside] - field(points[inside][:, ::-1])).max() <= 1.5


def test_blocks_of_two_slice_distances_are_interpolated_from_where_they_lie(tmp_path):
    z = np.concatenate([np.arange(10) * 2.0, 18 + np.arange(1, 9) * 5.0])
    stored = np.rint(np.broadcast_to(z[:, None, None] * 9 - 300, (18, 10, 12))).astype(np.int16)
    image = decode(write_dicom(tmp_path, stored, [(3.0, 4.0, 10.0 + v) for v in z]))
    assert image.geometry.spacing_mm[0] == 2.0
    assert image.array.shape[0] == 30
    expected = np.arange(30) * 2.0 * 9 - 300
    assert np.abs(image.array - expected[:, None, None]).max() <= 0.5
    assert image.findings == ("slice distance varies from 2 to 5 mm: interpolated at 2 mm from the true positions",)


@pytest.mark.parametrize("keep", [[0, 1, 2, 4, 5, 6, 7], [0, 1, 2, 3, 4, 6, 7], [0, 2, 3, 4, 5, 6, 7]])
def test_one_missing_slice_is_never_interpolated(tmp_path, keep):
    with pytest.raises(CaseError, match="about 1 slices are missing"):
        decode(write_dicom(tmp_path, HU[keep], [PLACES[k] for k in keep]))


def test_distances_too_wide_to_interpolate_are_refused(tmp_path):
    z = [0, 2, 4, 6, 18, 30, 42, 54]
    with pytest.raises(CaseError, match="slice distance varies from 2 to 12 mm"):
        decode(write_dicom(tmp_path, HU, [(3.0, 4.0, float(v)) for v in z]))


def test_slightly_uneven_slices_are_said_and_clearly_uneven_ones_interpolated(tmp_path):
    jitter = [(x, y, z + (0.1 if k == 4 else 0)) for k, (x, y, z) in enumerate(PLACES)]
    image = decode(write_dicom(tmp_path / "a", HU, jitter))
    assert image.findings == ("slices lie up to 0.10 mm off an even grid",)
    growing = [(3.0, 4.0, 10.0 + 2 * k + 0.15 * k * k) for k in range(8)]
    image = decode(write_dicom(tmp_path / "b", HU, growing))
    assert image.findings == (
        "slice distance varies from 2.15 to 3.95 mm: interpolated at 2.15 mm from the true positions",
    )
    assert np.array_equal(image.array[0], HU[0])


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
    ("changes", "why"),
    [
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "reformatted"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 MIP"]}, "projected"),
        ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]}, "reformatted"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screenshot"),
        ({"ImageType": ["DERIVED", "SECONDARY", "OTHER"]}, "derived"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "DOSE_INFO"]}, "dose or protocol page"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary capture"),
        ({"RescaleType": "Z_EFF"}, "calculated"),
    ],
)
def test_derived_images_are_left_out_and_alone_they_are_no_volume(tmp_path, changes, why):
    paths = write_dicom(tmp_path / "a", HU, PLACES)
    other = write_dicom(tmp_path / "b", HU, PLACES, SOPInstanceUID="7.7", **changes)
    image = decode([*paths, *other])
    assert np.array_equal(image.array, HU)
    assert image.findings[0].startswith(f"8 {why}")
    with pytest.raises(CaseError, match=f"only {why}"):
        decode(other)


@pytest.mark.parametrize("kind", [["DERIVED", "PRIMARY", "AXIAL"], ["ORIGINAL", "PRIMARY"], ["ORIGINAL", "SECONDARY"]])
def test_derived_primary_slices_are_a_ct_like_any_other(tmp_path, kind):
    image = decode(write_dicom(tmp_path, HU, PLACES, ImageType=kind))
    assert np.array_equal(image.array, HU)
    assert image.findings == ()


def test_every_file_is_parsed_once(tmp_path, monkeypatch):
    paths = write_dicom(tmp_path, HU, PLACES)
    parsed = []
    real = pydicom.dcmread
    monkeypatch.setattr(
        pydicom, "dcmread", lambda file, **options: parsed.append(Path(file.name)) or real(file, **options)
    )
    decode(paths)
    assert sorted(parsed) == sorted(paths)


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
