import time

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from ct_samples import ball_hu, write_dicom
from dicom_samples import shuffle_frames, write_enhanced, write_rtstruct, write_seg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from whole_case import read_volume

from preprocessing.case import LESION, Case, CaseError, LabelFile
from preprocessing.sources.folder import FolderSource

HU = ball_hu((10, 13, 15))
PLACES = [(3.0, 4.0, 10.0 + 2 * k) for k in range(10)]
SEGMENTS = [("Liver", "Liver", ""), ("Spleen", "Spleen", ""), ("mass", "Neoplasm", "Liver")]
CLASSES = ((1, 5), (2, 1), (3, LESION), (3, 5))


def case_of(images, path, classes=CLASSES):
    return Case(
        source="folder",
        id="x",
        patient="x",
        image=tuple(str(image) for image in images),
        labels=(LabelFile(path=str(path), classes=classes),),
        anatomy="partial",
    )


def masks_of(parts, shape=HU.shape):
    """Random blobs (z, y, x, part) that leave whole slices empty; the third overlaps the first."""
    random = np.random.default_rng(5)
    masks = np.zeros((*shape, parts), np.uint8)
    masks[1:4, 2:8, 2:8, 0] = random.random((3, 6, 6)) > 0.3
    if parts > 1:
        masks[7, 6:12, 9:14, 1] = random.random((6, 5)) > 0.3
        masks[2:3, 3:6, 3:6, 2] = 1
    return masks


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("fractional", [False, True])
def test_segments_are_the_masks_that_another_library_wrote(tmp_path, shuffled, fractional):
    images = write_dicom(tmp_path, HU, PLACES)
    masks = masks_of(3)
    options = {"kind": "FRACTIONAL", "max_fractional_value": 100} if fractional else {}
    path = write_seg(tmp_path / "seg/x.dcm", images, masks.astype(float) if fractional else masks, SEGMENTS, **options)
    if shuffled and not fractional:
        shuffle_frames(path)
    volume = read_volume(case_of(images, path))
    assert np.array_equal(volume.lesion, masks[..., 2])
    expected = np.where(masks[..., 0] > 0, 5, np.where(masks[..., 1] > 0, 1, np.where(masks[..., 2] > 0, 5, 0)))
    assert np.array_equal(volume.anatomy, expected)
    assert volume.findings == ()


def test_a_fractional_segment_holds_where_it_reaches_half(tmp_path):
    images = write_dicom(tmp_path, HU, PLACES)
    share = np.random.default_rng(2).integers(0, 101, HU.shape) / 100
    path = write_seg(
        tmp_path / "seg/x.dcm", images, share[..., None], SEGMENTS[2:], kind="FRACTIONAL", max_fractional_value=100
    )
    assert np.array_equal(read_volume(case_of(images, path, ((1, LESION),))).lesion, share >= 0.5)


def test_a_label_map_holds_its_segments_by_number(tmp_path):
    images = write_dicom(tmp_path, HU, PLACES)
    masks = masks_of(3)[..., :2]
    path = write_seg(tmp_path / "seg/x.dcm", images, masks, SEGMENTS[:2], kind="LABELMAP")
    volume = read_volume(case_of(images, path, CLASSES[:2]))
    assert np.array_equal(volume.anatomy, masks[..., 0] * 5 + masks[..., 1])


def test_segments_of_slices_against_the_order_of_files_and_of_a_coronal_series(tmp_path):
    places = [(3.0, 4.0 + 2 * k, 50.0) for k in range(10)]
    images = write_dicom(tmp_path, HU, places, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    masks = masks_of(1)
    path = write_seg(tmp_path / "seg/x.dcm", images[::-1], masks[::-1], SEGMENTS[:1])
    volume = read_volume(case_of(images, path, ((1, LESION),)))
    order = [int(np.abs(HU - plane).sum(axis=(1, 2)).argmin()) for plane in volume.image]
    assert np.array_equal(volume.lesion, masks[order, ..., 0])


def test_a_segmentation_of_a_tilted_series_lies_on_its_slices(tmp_path):
    tilt = np.radians(15)
    cosines = [1, 0, 0, 0, float(np.cos(tilt)), float(-np.sin(tilt))]
    images = write_dicom(tmp_path, HU, PLACES, ImageOrientationPatient=cosines)
    masks = masks_of(1)
    path = write_seg(tmp_path / "seg/x.dcm", images, masks, SEGMENTS[:1])
    assert np.array_equal(read_volume(case_of(images, path, ((1, LESION),))).lesion, masks[..., 0])


def test_a_segmentation_of_an_enhanced_file_lies_on_its_frames(tmp_path):
    image = write_enhanced(tmp_path / "ct.dcm", HU[::-1], PLACES[::-1])
    plain = write_dicom(tmp_path / "plain", HU, PLACES)
    masks = masks_of(1)
    path = write_seg(tmp_path / "seg/x.dcm", plain, masks, SEGMENTS[:1])
    assert np.array_equal(read_volume(case_of([image], path, ((1, LESION),))).lesion, masks[..., 0])


def test_a_segmentation_of_another_grid_is_refused(tmp_path):
    images = write_dicom(tmp_path, HU, PLACES)
    finer = write_dicom(tmp_path / "finer", HU, PLACES, PixelSpacing=[0.75, 0.6])
    path = write_seg(tmp_path / "seg/x.dcm", finer, masks_of(1), SEGMENTS[:1])
    with pytest.raises(CaseError, match=r"x\.dcm: frame 1 does not lie on the voxels of the image"):
        read_volume(case_of(images, path, ((1, LESION),)))


def test_what_lies_outside_the_image_is_left_out_and_said(tmp_path):
    images = write_dicom(tmp_path, HU, PLACES)
    masks = masks_of(1)
    path = write_seg(tmp_path / "seg/x.dcm", images, masks, SEGMENTS[:1])
    volume = read_volume(case_of(images[:3], path, ((1, LESION),)))
    assert np.array_equal(volume.lesion, masks[:3, ..., 0])
    assert volume.findings == (f"x.dcm: {masks[3:].sum()} voxels of part 1 lie outside the image and were left out",)


def test_a_damaged_segmentation_is_refused(tmp_path):
    images = write_dicom(tmp_path, HU, PLACES)
    path = write_seg(tmp_path / "seg/x.dcm", images, masks_of(1), SEGMENTS[:1])
    whole = path.read_bytes()
    for kept in (0, 140, len(whole) // 4, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:kept])
        with pytest.raises(CaseError, match=r"x\.dcm"):
            read_volume(case_of(images, path, ((1, LESION),)))


@pytest.mark.parametrize("undefined", [False, True])
def test_a_structure_set_cut_short_is_refused_wherever_it_is_cut(tmp_path, undefined):
    images = write_dicom(tmp_path, HU, PLACES)
    contours = [world_of(box(2.5, 8.5), k) for k in range(2, 8)]
    path = write_rtstruct(tmp_path / "rt/x.dcm", [(7, "GTV", "GTV", contours)])
    if undefined:
        dataset = pydicom.dcmread(path)
        dataset["ROIContourSequence"].is_undefined_length = True
        dataset.save_as(path)
    whole = path.read_bytes()
    end_of_contours = whole.index(b"\x06\x30\x80\x00") - (8 if undefined else 0)
    for kept in range(200, end_of_contours, 37):
        path.write_bytes(whole[:kept])
        with pytest.raises(CaseError, match=r"x\.dcm"):
            read_volume(case_of(images, path, ((7, LESION),)))


def world_of(points_yx, slice_=4):
    """Points (n, 2) in pixels of a slice as x, y, z in mm."""
    return [(3.0 + 1.25 * x, 4.0 + 1.5 * y, 10.0 + 2 * slice_) for y, x in points_yx]


def drawn(tmp_path, contours, shape=HU.shape):
    images = write_dicom(tmp_path / "ct", HU, PLACES)
    path = write_rtstruct(tmp_path / "rt.dcm", [(7, "GTV", "GTV", contours)])
    volume = read_volume(case_of(images, path, ((7, LESION),)))
    assert volume.lesion.shape == shape
    return volume.lesion[4]


def box(low, high):
    return [(low, low), (low, high), (high, high), (high, low)]


def test_a_voxel_belongs_to_a_contour_where_its_centre_lies_inside(tmp_path):
    expected = np.zeros(HU.shape[1:], np.uint8)
    expected[3:9, 3:9] = 1
    for edge in (2.01, 2.5, 2.99):
        assert np.array_equal(drawn(tmp_path / str(edge), [world_of(box(edge, 11 - edge))]), expected)


def test_a_contour_inside_another_is_a_hole_and_one_beside_it_a_second_part(tmp_path):
    expected = np.zeros(HU.shape[1:], np.uint8)
    expected[2:9, 2:9] = 1
    expected[4:6, 4:6] = 0
    expected[10:12, 10:12] = 1
    contours = [world_of(box(*ends)) for ends in ((1.5, 8.5), (3.5, 5.5), (9.5, 11.5))]
    assert np.array_equal(drawn(tmp_path, contours), expected)


def test_a_keyhole_contour_is_a_ring(tmp_path):
    outer, inner = box(1.5, 8.5), box(3.5, 5.5)[::-1]
    keyhole = [*outer, outer[0], *inner, inner[0], outer[0]]
    expected = np.zeros(HU.shape[1:], np.uint8)
    expected[2:9, 2:9] = 1
    expected[4:6, 4:6] = 0
    assert np.array_equal(drawn(tmp_path, [world_of(keyhole)]), expected)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(0.5, 9), min_size=5, max_size=12), st.floats(0, 6))
def test_contours_are_filled_as_an_independent_library_fills_them(tmp_path, radii, turn):
    y, x = np.mgrid[: HU.shape[1], : HU.shape[2]]
    angles = turn + np.arange(len(radii)) * 2 * np.pi / len(radii)
    star = np.stack([6.1 + np.array(radii) * np.sin(angles), 7.2 + np.array(radii) * np.cos(angles)], axis=1)
    written = np.array([[float(f"{v:.6f}") for v in point] for point in world_of(star)])
    outline = np.stack([(written[:, 0] - 3) / 1.25, (written[:, 1] - 4) / 1.5], axis=1)
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    sure = [Outline(outline).contains_points(centres, radius=r) for r in (-1e-3, 1e-3)]
    clear = (sure[0] == sure[1]).reshape(x.shape)
    found = drawn(tmp_path / f"{time.time_ns()}", [world_of(star)])
    assert np.array_equal(found[clear], sure[0].reshape(x.shape)[clear])


def test_a_contour_between_two_slices_is_refused(tmp_path):
    with pytest.raises(CaseError, match=r"a contour of region 7 lies 0\.50 slices off"):
        drawn(tmp_path, [world_of(box(2.5, 8.5), slice_=4.5)])


def test_contours_beyond_the_image_are_said(tmp_path):
    images = write_dicom(tmp_path / "ct", HU, PLACES)
    path = write_rtstruct(tmp_path / "rt.dcm", [(7, "GTV", "", [world_of(box(2.5, 8.5), k) for k in (3, 10, 11)])])
    volume = read_volume(case_of(images, path, ((7, LESION),)))
    assert volume.findings == ("rt.dcm: 2 contours of part 7 lie outside the image and were left out",)
    assert np.flatnonzero(volume.lesion.any(axis=(1, 2))).tolist() == [3]


def test_contours_of_a_tilted_series_lie_on_its_slices(tmp_path):
    tilt = np.radians(15)
    cosines = [1, 0, 0, 0, float(np.cos(tilt)), float(-np.sin(tilt))]
    images = write_dicom(tmp_path / "ct", HU, PLACES, ImageOrientationPatient=cosines)
    down, right = np.array(cosines[3:]) * 1.5, np.array(cosines[:3]) * 1.25
    points = [np.array(PLACES[4]) + y * down + x * right for y, x in box(2.5, 8.5)]
    path = write_rtstruct(tmp_path / "rt.dcm", [(7, "GTV", "", [points])])
    expected = np.zeros(HU.shape, np.uint8)
    expected[4, 3:9, 3:9] = 1
    assert np.array_equal(read_volume(case_of(images, path, ((7, LESION),))).lesion, expected)


# the real data


def test_a_real_seg_is_the_mask_beside_it(real_data):
    folder = real_data / "liver-dicom-seg"
    images = sorted(folder.glob("*.dcm"))
    volume = read_volume(case_of(images, folder / "seg/liver.dcm", ((1, 5),)))
    nrrd = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / "seg/liver_seg.nrrd")))
    assert nrrd.any()
    assert np.array_equal(volume.anatomy == 5, nrrd > 0)
    independent = highdicom.seg.segread(folder / "seg/liver.dcm").get_volume(combine_segments=True).array
    assert (independent > 0).sum() == (volume.anatomy == 5).sum()


def test_a_real_seg_is_listed_as_label_of_the_series_it_names(real_data):
    (case,) = FolderSource(path=str(real_data / "liver-dicom-seg")).cases()
    assert [label.classes for label in case.labels if label.path.endswith("liver.dcm")] == [((1, 5),)]


def test_a_real_rtstruct_is_the_mask_of_the_same_tumour(real_data):
    (case,) = FolderSource(path=str(real_data / "sarcoma-dicom-rtstruct")).cases()
    assert [label.classes for label in case.labels] == [((1, LESION),)]
    mask = np.asarray(nib.load(real_data / "sarcoma/STS_032/CT_mask.nii.gz").dataobj).T
    volume = read_volume(case)
    assert mask.sum() > 30_000
    assert np.array_equal(volume.lesion, mask > 0)
    assert volume.findings == ()


def test_every_syntax_of_one_real_slice_decodes_alike_and_is_refused_as_too_thin(real_data):
    cases = FolderSource(path=str(real_data / "transfer-syntaxes")).cases()
    paths = sorted((real_data / "transfer-syntaxes").iterdir())
    planes = [read_volume(case_of([path], path, ()).replace(labels=())).image for path in paths]
    plain = next(path for path in paths if "Explicit" in path.name)
    stored = pydicom.dcmread(plain)
    assert all(np.array_equal(plane[0], np.maximum(stored.pixel_array - 1024, -3024)) for plane in planes)
    assert len(cases) == 1
