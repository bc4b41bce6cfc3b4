"""The phantom's files: every format gives back the same Hounsfield values at the same place in the patient."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread

from preprocessing.geometry import Geometry
from preprocessing.sources.phantom.broken import BROKEN, write_broken
from preprocessing.sources.phantom.files import write_image, write_series

OBLIQUE = ((1.0, 0.0, 0.0), (0.0, 0.995, -0.0998), (0.0, 0.0998, 0.995))
GEOMETRIES = {
    "straight": Geometry((5, 7, 9), (3.0, 1.7, 1.6), (-321.5, -80.25, -60.0)),
    "oblique": Geometry((5, 7, 9), (3.0, 1.7, 1.6), (-321.5, -80.25, -60.0), OBLIQUE),
}
LANDMARK = (3, 1, 6)


def volume():
    values = np.random.default_rng(0).integers(-1024, 1500, (5, 7, 9)).astype(np.int16)
    values[LANDMARK] = 2500
    return values


def by_itk(path_or_names):
    """(HU, world z, y, x in LPS mm) of the landmark as SimpleITK reads it."""
    image = SimpleITK.ReadImage(path_or_names)
    array = SimpleITK.GetArrayFromImage(image)
    place = np.unravel_index(array.argmax(), array.shape)
    return array, np.array(image.TransformIndexToPhysicalPoint([int(i) for i in place[::-1]]))[::-1]


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("orientation", ["LAS", "RAS", "LPI", "LPS", "PIR", "RAI"])
@pytest.mark.parametrize("ending", ["nii.gz", "nii", "nrrd", "mha"])
def test_a_landmark_keeps_its_place_in_every_format_and_orientation(tmp_path, ending, orientation, name):
    geometry, path = GEOMETRIES[name], tmp_path / f"ct.{ending}"
    write_image(path, volume(), geometry, orientation)
    array, place = by_itk(str(path))
    assert array.max() == 2500
    np.testing.assert_allclose(place, geometry.world(LANDMARK), atol=2e-3)
    assert sorted(array.ravel()) == sorted(volume().ravel())
    if ending.startswith("nii"):
        image = nib.load(path)
        assert "".join(nib.aff2axcodes(image.affine)) == orientation
        data = np.asarray(image.dataobj)
        index = np.unravel_index(data.argmax(), data.shape)
        ras = (image.affine @ [*index, 1])[:3]
        np.testing.assert_allclose((ras * [-1, -1, 1])[::-1], geometry.world(LANDMARK), atol=2e-3)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_dicom_series_holds_the_same_volume(tmp_path, name):
    geometry = GEOMETRIES[name]
    write_series(tmp_path, volume(), geometry, "one", "phantom-0000")
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    array, place = by_itk(list(names))
    np.testing.assert_array_equal(array, volume())
    np.testing.assert_allclose(place, geometry.world(LANDMARK), atol=1e-3)


def test_a_dicom_series_is_one_ct_series_without_dates(tmp_path):
    write_series(tmp_path, volume(), GEOMETRIES["straight"], "one", "phantom-0000")
    slices = [dcmread(path) for path in sorted(tmp_path.iterdir())]
    assert {s.Modality for s in slices} == {"CT"}
    assert len({s.SeriesInstanceUID for s in slices}) == 1
    assert len({s.SOPInstanceUID for s in slices}) == 5
    assert (slices[0].RescaleSlope, slices[0].RescaleIntercept) == (1, -1024)
    assert not [e for s in slices for e in s if e.VR in ("DA", "TM", "DT")]
    np.testing.assert_array_equal(slices[2].pixel_array.astype(int) - 1024, volume()[2])


@pytest.mark.parametrize("ending", ["nii.gz", "nii", "nrrd", "mha"])
def test_equal_arrays_give_equal_bytes(tmp_path, ending):
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.{ending}", volume().astype(np.uint8), GEOMETRIES["straight"], "LAS")
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_an_unknown_ending_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"ct\.png.*\.nii\.gz"):
        write_image(tmp_path / "ct.png", volume(), GEOMETRIES["straight"])


def test_broken_files_are_broken_each_in_its_own_way(tmp_path):
    folders = {folder.name: folder for folder in write_broken(tmp_path)}
    assert set(folders) == set(BROKEN)
    for way in ("text", "truncated"):
        with pytest.raises(Exception, match=r".+"):
            np.asarray(nib.load(folders[way] / "ct.nii.gz").dataobj)
    assert {dcmread(path).Modality for path in (folders["mr-series"] / "mr").iterdir()} == {"MR"}
    assert np.asarray(nib.load(folders["mr-nifti"] / "ct.nii.gz").dataobj).min() >= 0
    assert nib.load(folders["two-dimensional"] / "ct.nii.gz").ndim == 2
    series = sorted((folders["missing-slices"] / "ct").iterdir())
    z = np.array([float(dcmread(path).ImagePositionPatient[2]) for path in series])
    assert sorted(set(np.diff(z).round(3))) == [5, 15]
    label = folders["other-label"]
    assert nib.load(label / "ct.nii.gz").shape != nib.load(label / "anatomy.nii.gz").shape
    assert nib.load(folders["eight-bit"] / "ct.nii.gz").get_data_dtype() == np.uint8
