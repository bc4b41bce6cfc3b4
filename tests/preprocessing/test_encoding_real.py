"""Results on real CTs, against the files they came from, as nibabel, ITK and pydicom read them."""

from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from whole_case import read_volume

from preprocessing.case import Case
from preprocessing.decoding.decode import read_image
from preprocessing.encoding.derived import STALE
from preprocessing.encoding.write import write_image, write_mask
from preprocessing.sources.folder import FolderSource

DICOM = ("abdomen-dicom", "liver-dicom-seg", "chest-4mm/dicom", "sarcoma-dicom-rtstruct/image")
NIFTI = ("chest-full", "spine-crop", "abdomen-3mm-crop", "sarcoma/STS_032", "head-4mm")
AXES = {"chest-full": "LAS", "spine-crop": "PIR"}
KEPT = (0x0010, 0x0018, 0x0028)  # groups of patient, acquisition and pixels; private ones as well
ITK = ("lung-lesion/ct.nrrd", "lung-two-visits/3DCT_lung_baseline.mha", "chest-4mm/ct-64.nrrd")


def only_case(path: Path, file: str = "") -> Case:
    cases = FolderSource(path=str(path)).cases()
    (case,) = [c for c in cases if not c.problem and (not file or Path(c.image[0]).name == file)]
    return case


def with_ball(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The HU of a case with a ball of 77 HU in its middle, and where they differ."""
    hu = read_image(case).image
    z, y, x = (np.arange(n) - n // 2 for n in hu.shape)
    ball = (z[:, None, None] * 3) ** 2 + y[:, None] ** 2 + x**2 < 20**2
    return np.where(ball, 77, hu).astype(np.int16), ball & (hu != 77)


@pytest.mark.parametrize("folder", DICOM)
def test_a_real_series(real_data, tmp_path, folder):
    case = only_case(real_data / folder)
    after, changed = with_ball(case)
    assert write_image(case, after, tmp_path / "out", "a ball") == ()
    derived = {d.SourceImageSequence[0].ReferencedSOPInstanceUID: d for d in read_all((tmp_path / "out").iterdir())}
    assert len(derived) == len(case.image)
    for k, source in enumerate(read_all(case.image)):  # the case lists its files in order of place
        one = derived[source.SOPInstanceUID]
        assert np.array_equal(one.pixel_array[~changed[k]], source.pixel_array[~changed[k]])
        for element in source:
            group, number = element.tag.group, element.tag.element
            if number and (group in KEPT or group % 2) and element.keyword not in STALE:
                assert one[element.tag].value == element.value, element
        for keyword in ("FrameOfReferenceUID", "StudyInstanceUID", "ImagePositionPatient", "ImageOrientationPatient"):
            assert one.get(keyword) == source.get(keyword)
    again = only_case(tmp_path / "out")
    assert np.array_equal(read_image(again).image, after)
    assert read_image(again).geometry == read_image(case).geometry
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "out")))
    itk = SimpleITK.GetArrayFromImage(reader.Execute())
    assert np.array_equal(np.maximum(itk, -1024)[changed], after[changed])


def read_all(paths) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in paths]


@pytest.mark.parametrize("folder", NIFTI)
def test_a_real_nifti(real_data, tmp_path, folder):
    case = only_case(real_data / folder)
    after, changed = with_ball(case)
    write_image(case, after, tmp_path / "out.nii.gz", "a ball")
    one, other = nib.load(tmp_path / "out.nii.gz"), nib.load(case.image[0])
    assert "".join(nib.aff2axcodes(one.affine)) == AXES.get(folder, "".join(nib.aff2axcodes(other.affine)))
    assert np.array_equal(one.affine, other.affine)
    for field in ("sform_code", "qform_code", "pixdim", "dim", "quatern_b", "srow_x", "datatype"):
        assert np.array_equal(one.header[field], other.header[field]), field
    stored, before = (np.asarray(image.dataobj.get_unscaled()).T for image in (one, other))
    assert np.array_equal(stored[~changed], before[~changed])
    assert np.abs(np.asarray(one.dataobj).T - after)[changed].max() <= 0.5 * one.dataobj.slope
    assert np.array_equal(read_image(only_case(tmp_path)).image, after)


@pytest.mark.parametrize("name", ITK)
def test_a_real_nrrd_and_metaimage(real_data, tmp_path, name):
    path = real_data / name
    case = only_case(path.parent, path.name)
    after, changed = with_ball(case)
    out = tmp_path / f"out{path.suffix}"
    write_image(case, after, out, "a ball")
    one, other = SimpleITK.ReadImage(str(out)), SimpleITK.ReadImage(str(path))
    assert one.GetPixelID() == other.GetPixelID()
    for fact in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert np.allclose(getattr(one, fact)(), getattr(other, fact)(), rtol=0, atol=1e-9)
    stored, before = map(SimpleITK.GetArrayFromImage, (one, other))
    assert np.array_equal(stored[~changed], before[~changed])
    assert np.array_equal(read_image(only_case(tmp_path)).image, after)


def test_one_slice_in_five_encodings_gives_the_same_numbers(real_data, tmp_path):
    files = sorted((real_data / "transfer-syntaxes").glob("*.dcm"))
    stored = []
    for number, path in enumerate(files):
        case = Case(source="folder", id="x", patient="x", image=(str(path),))
        after, changed = with_ball(case)
        write_image(case, after, tmp_path / str(number), "a ball")
        one, other = pydicom.dcmread(tmp_path / str(number) / "0001.dcm"), pydicom.dcmread(path)
        assert np.array_equal(one.pixel_array[~changed[0]], other.pixel_array[~changed[0]])
        assert one.file_meta.TransferSyntaxUID.is_little_endian
        assert not one.file_meta.TransferSyntaxUID.is_compressed
        stored.append(one.pixel_array)
    assert len(stored) == 5
    assert all(np.array_equal(stored[0], other) for other in stored[1:])


def test_a_real_seg_written_again_is_the_same_mask(real_data, tmp_path):
    case = only_case(real_data / "liver-dicom-seg")
    liver = read_volume(case).anatomy == 5
    assert liver.any()
    write_mask(case, {"liver": liver}, tmp_path / "seg.dcm")
    one, other = (
        highdicom.seg.segread(path).get_volume(combine_segments=True)
        for path in (tmp_path / "seg.dcm", real_data / "liver-dicom-seg/seg/liver.dcm")
    )
    assert np.array_equal(one.array > 0, other.array > 0)
    assert np.allclose(one.affine, other.affine, atol=1e-4)
    again = case.replace(labels=(case.labels[0].replace(path=str(tmp_path / "seg.dcm"), classes=((1, 5),)),))
    assert np.array_equal(read_volume(again).anatomy == 5, liver)


def test_a_mask_of_a_real_nifti_lies_beside_its_labels(real_data, tmp_path):
    case = only_case(real_data / "spine-crop")
    shape = read_image(case).image.shape
    write_mask(case, {"lesion": np.ones(shape, bool)}, tmp_path / "mask.nii.gz")
    label = nib.load(real_data / "spine-crop/sub-ct_seg-vert_label-22_msk.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert mask.shape == label.shape
    assert np.allclose(mask.affine, label.affine, atol=1e-4)
