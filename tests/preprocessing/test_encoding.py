"""What is written lies where its source lies, and what did not change is stored as it was."""

import itertools

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from ct_samples import ball_hu, ras_affine, rotation, write_dicom, write_nifti
from dicom_samples import SYNTAXES, compress, write_enhanced
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from infra.errors import UserError
from preprocessing.case import Case
from preprocessing.decoding.decode import read_image
from preprocessing.encoding.image import MARK, Original, write_image, write_volume
from preprocessing.encoding.nifti import write_nifti_like
from preprocessing.geometry import Geometry
from preprocessing.quality import audit
from preprocessing.sources.folder import FolderSource

HU = np.maximum(ball_hu(), -1020)  # the audit lifts what is below -1024
GEOMETRY = Geometry(HU.shape, (2.5, 0.8, 0.9), (-30.0, 12.0, -7.5))
ORIENTATIONS = ["".join(p) for p in itertools.product("RL", "AP", "SI")] + ["PIR", "ASL", "SRP"]
POSITIONS = [(-10.0, 5.0, -40.0 + 2.5 * k) for k in range(len(HU))]


def original(path):
    """The one CT of a file or folder, as a user's is read."""
    if path.is_dir():
        (case,) = FolderSource(path=str(path)).cases()
    else:
        case = Case(source="folder", id=path.name, patient="p", image=(str(path),))
    return Original(case, audit(read_image(case)))


def brightened(volume):
    """HU with 40 more in a box, and where that is."""
    changed = np.zeros(volume.image.shape, bool)
    changed[5:12, 6:20, 7:15] = True
    return np.where(changed, volume.image + 40, volume.image).astype(np.int16), changed


def file_in(folder, orientation, dtype=np.int16, slope=1.0, intercept=0.0):
    """A NIfTI file of the ball with its axes in an orientation."""
    affine = ras_affine(GEOMETRY)
    image = nib.Nifti1Image(HU.transpose(2, 1, 0), affine)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(orientation)))
    turned = nib.orientations.apply_orientation(np.asarray(image.dataobj), turn)
    stored = ((turned - intercept) / slope).astype(dtype)
    made = nib.Nifti1Image(stored, affine @ inv_ornt_aff(turn, image.shape))
    made.header.set_data_dtype(dtype)
    made.header.set_slope_inter(slope, intercept)
    path = folder / f"{orientation}.nii.gz"
    nib.save(made, path)
    return path


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_nifti_file_comes_back_in_its_own_orientation(tmp_path, orientation):
    source = original(file_in(tmp_path, orientation))
    hu, changed = brightened(source.volume)
    write_image(source, hu, tmp_path / "out.nii.gz", "test")
    before, after = nib.load(source.case.image[0]), nib.load(tmp_path / "out.nii.gz")
    assert nib.aff2axcodes(after.affine) == tuple(orientation)
    np.testing.assert_array_equal(after.affine, before.affine)
    difference = np.asarray(after.dataobj) - np.asarray(before.dataobj)
    np.testing.assert_array_equal(difference.T, 40 * changed)
    assert after.header["descrip"].item().decode() == MARK


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 1), (4, 2)])
def test_a_nifti_file_keeps_both_affines_and_their_codes(tmp_path, codes):
    sform, qform = codes
    source = original(write_nifti(tmp_path / "in.nii", HU, ras_affine(GEOMETRY), sform=sform, qform=qform))
    write_image(source, source.volume.image, tmp_path / "out.nii", "test")
    before, after = (nib.load(tmp_path / name) for name in ("in.nii", "out.nii"))
    for one, other in zip(before.get_sform(coded=True), after.get_sform(coded=True), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(before.get_qform(coded=True), after.get_qform(coded=True), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept"), [(np.int16, 1, 0), (np.uint16, 1, -1024), (np.int16, 0.5, 0), (np.float32, 1, 0)]
)
def test_unchanged_voxels_keep_the_numbers_of_the_file(tmp_path, dtype, slope, intercept):
    source = original(file_in(tmp_path, "LAS", dtype, slope, intercept))
    hu, changed = brightened(source.volume)
    write_image(source, hu, tmp_path / "out.nii.gz", "test")
    before, after = nib.load(source.case.image[0]), nib.load(tmp_path / "out.nii.gz")
    stored = [np.asarray(image.dataobj.get_unscaled()).T for image in (before, after)]
    assert stored[0].dtype == stored[1].dtype
    np.testing.assert_array_equal(stored[0][~changed], stored[1][~changed])
    np.testing.assert_allclose(np.asarray(after.dataobj).T[changed], hu[changed], atol=slope / 2)


def test_values_that_the_file_cannot_hold_make_all_of_them_int16(tmp_path):
    low = np.clip(HU, -1000, -746)
    made = nib.Nifti1Image((low + 1000).astype(np.uint8).transpose(2, 1, 0), ras_affine(GEOMETRY))
    made.header.set_slope_inter(1, -1000)
    nib.save(made, tmp_path / "in.nii")
    hu = np.where(np.arange(HU.shape[2]) > 20, 700, low).astype(np.int16)
    write_nifti_like(tmp_path / "in.nii", hu, hu != low, tmp_path / "out.nii", "test")
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "out.nii").dataobj).T, hu)


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii.gz"])
@pytest.mark.parametrize("angles", [(0, 0, 0), (0.2, -0.1, 0.3)])
def test_another_format_has_the_same_place_in_the_world(tmp_path, ending, angles):
    direction = tuple(tuple(row) for row in rotation(angles).tolist())
    geometry = Geometry(HU.shape, GEOMETRY.spacing_mm, GEOMETRY.origin_mm, direction)
    write_volume(HU, geometry, tmp_path / f"out{ending}")
    read = original(tmp_path / f"out{ending}").volume
    np.testing.assert_array_equal(read.image, HU)
    np.testing.assert_allclose(read.geometry.corners(), geometry.corners(), atol=1e-3)
    other = sitk.ReadImage(str(tmp_path / f"out{ending}"))
    np.testing.assert_allclose(
        other.TransformIndexToPhysicalPoint((3, 4, 5)), geometry.world((5, 4, 3))[::-1], atol=1e-3
    )


def series(folder, **changes):
    stored = (HU + 1024).astype(np.int16)
    return write_dicom(folder, stored, POSITIONS, RescaleIntercept=-1024, **changes)


def slices(folder):
    """The slices of a folder from foot to head."""
    found = [pydicom.dcmread(path) for path in folder.iterdir()]
    return sorted(found, key=lambda s: s.ImagePositionPatient[2])


@pytest.mark.parametrize("syntax", ["plain", *(name for name in SYNTAXES if name != "jpeg-2000")])
def test_a_series_comes_back_as_a_series_of_its_own(tmp_path, syntax):  # JPEG 2000 wants larger slices than these
    paths = series(tmp_path / "in", SeriesDescription="Abdomen", Modality="CT")
    if syntax != "plain":
        compress(paths, syntax)
    source = original(tmp_path / "in")
    hu, changed = brightened(source.volume)
    write_image(source, hu, tmp_path / "out", "noise removed")
    before, after = slices(tmp_path / "in"), slices(tmp_path / "out")
    assert len(after) == len(HU)
    for old, new, wanted, touched in zip(before, after, hu, changed, strict=True):
        assert (new.pixel_array - 1024 == wanted).all()
        assert (new.pixel_array[~touched] == old.pixel_array[~touched]).all()
        for kept in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient", "PixelSpacing"):
            assert new.get(kept) == old.get(kept)
        assert new.SOPInstanceUID != old.SOPInstanceUID
        assert new.SOPInstanceUID == new.file_meta.MediaStorageSOPInstanceUID
        assert new.SourceImageSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID
        assert list(new.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        assert new.DerivationDescription == "noise removed"
        assert new.SeriesDescription == "MedDiff, not for diagnosis: Abdomen"
    assert len({s.SeriesInstanceUID for s in after}) == 1
    assert len({s.SOPInstanceUID for s in after}) == len(HU)
    assert after[0].SeriesInstanceUID != before[0].SeriesInstanceUID
    read = original(tmp_path / "out").volume
    np.testing.assert_array_equal(read.image, hu)
    np.testing.assert_allclose(read.geometry.corners(), source.volume.geometry.corners(), atol=1e-3)


def test_a_series_becomes_a_file_where_its_name_says_so(tmp_path):
    series(tmp_path / "in")
    source = original(tmp_path / "in")
    write_image(source, source.volume.image, tmp_path / "out.nii.gz", "test")
    np.testing.assert_array_equal(original(tmp_path / "out.nii.gz").volume.image, source.volume.image)


def refused(tmp_path, match, write):
    """The sentence is the one that was expected, and nothing is left behind."""
    there = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=match):
        write()
    assert sorted(tmp_path.rglob("*")) == there


def test_what_cannot_be_written_is_a_sentence(tmp_path):
    source = original(file_in(tmp_path, "LPS"))
    hu = source.volume.image
    (tmp_path / "there.nii").touch()
    refused(tmp_path, "is there already", lambda: write_image(source, hu, tmp_path / "there.nii", ""))
    refused(tmp_path, "is no DICOM series", lambda: write_image(source, hu, tmp_path / "series", ""))
    refused(tmp_path, "are no result on the grid", lambda: write_image(source, hu[1:], tmp_path / "out.nii", ""))
    refused(tmp_path, "is not written; use", lambda: write_image(source, hu, tmp_path / "out.mhd", ""))


def test_a_series_that_a_stack_of_slices_cannot_follow_is_refused(tmp_path):
    write_enhanced(tmp_path / "in" / "one.dcm", HU, POSITIONS)
    source = original(tmp_path / "in")
    refused(tmp_path, "enhanced DICOM file", lambda: write_image(source, source.volume.image, tmp_path / "out", ""))


def test_real_series_and_files_come_back_to_the_voxel(tmp_path, real_data):
    for name, output in (("abdomen-dicom", "series"), ("chest-full/ct.nii.gz", "chest.nii.gz"),
                         ("spine-crop/sub-ct_label-22_ct.nii.gz", "spine.nii.gz")):  # fmt: skip
        source = original(real_data / name)
        write_image(source, source.volume.image, tmp_path / output, "test")
        read = original(tmp_path / output).volume
        np.testing.assert_array_equal(read.image, source.volume.image)
        np.testing.assert_allclose(read.geometry.matrix, source.volume.geometry.matrix, atol=1e-5)
        np.testing.assert_allclose(read.geometry.origin_mm, source.volume.geometry.origin_mm, atol=1e-3)
