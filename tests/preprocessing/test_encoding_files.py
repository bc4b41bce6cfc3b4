"""Images as NIfTI, NRRD and MetaImage, read again by the package's readers and by nibabel and ITK."""

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK
from ct_samples import ball_hu, ras_affine, rotation, write_dicom, write_nifti
from encoding_samples import case_of, result_of
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from infra.errors import UserError
from preprocessing.case import CaseError, Stated
from preprocessing.decoding.decode import read_image
from preprocessing.encoding import output as output_module
from preprocessing.encoding.write import write_image
from preprocessing.geometry import Geometry

HU = ball_hu((8, 11, 14))
GRID = Geometry(HU.shape, (2.5, 1.5, 0.75), (-40.0, 12.0, 33.0))
SIDES = [("R", "L"), ("A", "P"), ("I", "S")]
ORIENTATIONS = ["".join(code) for axes in permutations(SIDES) for code in product(*axes)]


def oriented(path: Path, code: str, **codes) -> Path:
    """The ball as a NIfTI file whose axes run towards `code`."""
    affine = ras_affine(GRID)
    change = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(code)))
    turned = apply_orientation(HU.transpose(2, 1, 0), change)
    own = affine @ inv_ornt_aff(change, HU.shape[::-1])
    return write_nifti(path, turned.transpose(2, 1, 0), own, **codes)


def assert_same_nifti(path: Path, source: Path, after: np.ndarray, changed: np.ndarray):
    """Everything that places voxels is the source's, and so are the stored numbers that did not change."""
    one, other = nib.load(path), nib.load(source)
    fields = ("dim", "pixdim", "sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "xyzt_units")
    for field in (*fields, "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"):
        assert np.array_equal(one.header[field], other.header[field]), field
    assert np.array_equal(one.affine, other.affine)
    stored, before = (np.asarray(image.dataobj.get_unscaled()).T for image in (one, other))
    stored, before = (array.reshape(after.shape) for array in (stored, before))
    assert np.array_equal(stored[~changed], before[~changed], equal_nan=stored.dtype.kind == "f")
    read = np.asarray(one.dataobj).T.reshape(after.shape)
    assert np.abs(read - after)[changed].max() <= 0.5 * abs(one.dataobj.slope)
    assert b"MedDiff" in one.header["descrip"].tobytes()
    assert b"not for diagnosis" in one.header["descrip"].tobytes()
    assert np.array_equal(read_image(case_of(path)).image[~changed], after[~changed])


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_a_nifti_of_every_orientation_keeps_its_axes(tmp_path, code):
    source = oriented(tmp_path / "ct.nii", code, sform=1, qform=2)
    after, changed = result_of(case_of(source))
    assert write_image(case_of(source), after, tmp_path / "out.nii.gz", "denoised") == ()
    assert_same_nifti(tmp_path / "out.nii.gz", source, after, changed)
    assert "".join(nib.aff2axcodes(nib.load(tmp_path / "out.nii.gz").affine)) == code
    assert np.array_equal(read_image(case_of(tmp_path / "out.nii.gz")).image, after)


@pytest.mark.parametrize("codes", [{"sform": 0, "qform": 1}, {"sform": 2, "qform": 0}, {"sform": 4, "qform": 1}])
def test_an_oblique_nifti_keeps_both_affines_and_their_codes(tmp_path, codes):
    affine = ras_affine(GRID)
    affine[:3, :3] = rotation((0.2, -0.1, 0.3)) @ affine[:3, :3]
    source = write_nifti(tmp_path / "ct.nii.gz", HU, affine, **codes)
    after, changed = result_of(case_of(source))
    write_image(case_of(source), after, tmp_path / "out.nii", "denoised")
    assert_same_nifti(tmp_path / "out.nii", source, after, changed)
    assert read_image(case_of(tmp_path / "out.nii")).geometry == read_image(case_of(source)).geometry


def special(path: Path, kind: str) -> Path:
    """NIfTI files whose stored numbers are no plain int16 HU."""
    array, affine = HU.transpose(2, 1, 0), ras_affine(GRID)
    if kind == "nifti-2":
        image = nib.Nifti2Image(array, affine)
    elif kind == "big-endian":
        image = nib.Nifti1Image(array, affine, nib.Nifti1Header(endianness=">"))
    elif kind == "float":
        stored = array + np.float32(0.37)
        stored[0, 0, 0] = np.nan
        image = nib.Nifti1Image(stored, affine)
    elif kind == "double":
        image = nib.Nifti1Image(array + 0.1, affine)
    elif kind == "trailing-axes":
        image = nib.Nifti1Image(array[..., None, None], affine)
    elif kind == "extension":
        image = nib.Nifti1Image(array, affine)
        image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a comment"))
    else:
        image = nib.Nifti1Image((array + 1024).astype(np.uint16), affine)
    image.set_sform(affine, 1)
    nib.save(image, path)
    if kind == "scaled":  # slope and intercept of a header whose numbers were stored before
        header = bytearray(path.read_bytes())
        header[112:120] = np.array([0.5, -600], "<f4").tobytes()
        path.write_bytes(header)
    return path


KINDS = ("nifti-2", "big-endian", "float", "double", "trailing-axes", "extension", "scaled")


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_every_kind_are_kept_where_nothing_changed(tmp_path, kind):
    source = special(tmp_path / "ct.nii", kind)
    after, changed = result_of(case_of(source), low=-500, high=500)
    write_image(case_of(source), after, tmp_path / "out.nii", "denoised")
    assert_same_nifti(tmp_path / "out.nii", source, after, changed)
    one, other = nib.load(tmp_path / "out.nii"), nib.load(source)
    assert type(one) is type(other)
    assert one.get_data_dtype() == other.get_data_dtype()
    assert one.header.endianness == other.header.endianness
    assert one.header.extensions == other.header.extensions
    assert (one.dataobj.slope, one.dataobj.inter) == (other.dataobj.slope, other.dataobj.inter)


def test_a_pair_of_header_and_image_becomes_one_file(tmp_path):
    image = nib.Nifti1Pair(HU.transpose(2, 1, 0), ras_affine(GRID))
    nib.save(image, tmp_path / "ct.hdr")
    after, changed = result_of(case_of(tmp_path / "ct.hdr"))
    write_image(case_of(tmp_path / "ct.hdr"), after, tmp_path / "out.nii.gz", "denoised")
    assert_same_nifti(tmp_path / "out.nii.gz", tmp_path / "ct.hdr", after, changed)


def test_a_wider_type_is_taken_where_a_new_number_does_not_fit(tmp_path):
    stored = np.clip(HU, -100, 155) + 100
    image = nib.Nifti1Image(stored.astype(np.uint8).transpose(2, 1, 0), ras_affine(GRID))
    nib.save(image, tmp_path / "ct.nii")
    after, changed = result_of(case_of(tmp_path / "ct.nii"))
    write_image(case_of(tmp_path / "ct.nii"), after, tmp_path / "out.nii", "denoised")
    assert_same_nifti(tmp_path / "out.nii", tmp_path / "ct.nii", after, changed)
    assert nib.load(tmp_path / "out.nii").get_data_dtype() == np.int16


def test_a_slope_that_only_a_table_states_is_undone(tmp_path):
    source = write_nifti(tmp_path / "ct.nii", HU // 2, ras_affine(GRID))
    case = case_of(source, stated=Stated(slope=2, intercept=-10))
    after, changed = result_of(case)
    write_image(case, after, tmp_path / "out.nii", "denoised")
    stored = np.asarray(nib.load(tmp_path / "out.nii").dataobj).T
    assert np.array_equal(stored[~changed], (HU // 2)[~changed])
    assert np.array_equal(stored[changed], np.rint((after[changed] + 10) / 2))


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64, np.int32])
def test_nrrd_and_metaimage_keep_their_grid_and_numbers(tmp_path, ending, dtype):
    source = tmp_path / f"ct{ending}"
    image = SimpleITK.GetImageFromArray((HU + 0.25).astype(dtype))
    image.SetSpacing((0.75, 1.5, 2.5))
    image.SetOrigin((33.0, 12.0, -40.0))
    image.SetDirection(rotation((0.2, -0.1, 0.3)).ravel().tolist())
    SimpleITK.WriteImage(image, str(source))
    after, changed = result_of(case_of(source))
    for other in (".nrrd", ".mha"):
        out = tmp_path / f"out{other}"
        write_image(case_of(source), after, out, "denoised")
        written = SimpleITK.ReadImage(str(out))
        stored = SimpleITK.GetArrayFromImage(written)
        assert stored.dtype == dtype
        assert np.array_equal(stored[~changed], SimpleITK.GetArrayFromImage(image)[~changed])
        assert np.array_equal(stored[changed], after[changed])
        for fact in ("GetSpacing", "GetOrigin", "GetDirection"):
            assert np.allclose(getattr(written, fact)(), getattr(image, fact)(), rtol=0, atol=1e-12)
        assert "not for diagnosis" in written.GetMetaData("Derivation")
        read = read_image(case_of(out))
        assert np.array_equal(read.image, after)
        assert np.allclose(read.geometry.corners(), read_image(case_of(source)).geometry.corners(), rtol=0, atol=1e-9)


def test_a_bzip2_nrrd_in_ras_comes_out_where_it_lay(tmp_path):
    header = {
        "space": "right-anterior-superior",
        "space directions": np.diag([-0.75, 1.5, 2.5]),
        "space origin": [3.0, 4.0, 5.0],
        "encoding": "bzip2",
    }
    nrrd.write(str(tmp_path / "ct.nrrd"), HU.transpose(2, 1, 0), header)
    case = case_of(tmp_path / "ct.nrrd")
    after, _ = result_of(case)
    write_image(case, after, tmp_path / "out.nrrd", "denoised")
    read = read_image(case_of(tmp_path / "out.nrrd"))
    assert np.array_equal(read.image, after)
    assert read.geometry == read_image(case).geometry


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("source", ["nifti", "nrrd", "dicom", "tilted"])
def test_another_format_lies_at_the_same_place(tmp_path, source, ending):
    case = case_of(*make(tmp_path, source))
    after, _ = result_of(case)
    write_image(case, after, tmp_path / f"out{ending}", "denoised")
    read = read_image(case_of(tmp_path / f"out{ending}"))
    own = read_image(case).geometry
    assert np.array_equal(read.image, after)
    assert read.geometry.shape == own.shape
    assert np.allclose(read.geometry.corners(), own.corners(), rtol=0, atol=1e-4)
    if ending == ".nii":
        affine = nib.load(tmp_path / "out.nii").affine
        assert np.allclose(affine, ras_affine(own), atol=1e-4)


def make(folder: Path, kind: str) -> list[Path]:
    if kind == "nifti":
        return [oriented(folder / "ct.nii.gz", "PIR")]
    if kind == "nrrd":
        image = SimpleITK.GetImageFromArray(HU)
        image.SetDirection(rotation((0.2, -0.1, 0.3)).ravel().tolist())
        SimpleITK.WriteImage(image, str(folder / "ct.nrrd"))
        return [folder / "ct.nrrd"]
    tilt = np.radians(15) if kind == "tilted" else 0.0
    cosines = [1, 0, 0, 0, float(np.cos(tilt)), float(-np.sin(tilt))]
    places = [(3.0, 4.0, 10.0 + 2 * k) for k in range(len(HU))]
    return write_dicom(folder / "series", HU, places, ImageOrientationPatient=cosines)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_a_volume_without_an_original_lies_on_the_given_grid(tmp_path, ending):
    grid = Geometry(HU.shape, (1.0, 2.0, 3.0), (5.0, -6.0, 7.0))
    write_image(None, HU.astype(np.float32), tmp_path / f"made{ending}", "synthetic", geometry=grid)
    read = read_image(case_of(tmp_path / f"made{ending}"))
    assert np.array_equal(read.image, HU)
    assert np.allclose(read.geometry.corners(), grid.corners())


def test_equal_results_are_equal_bytes(tmp_path):
    source = oriented(tmp_path / "ct.nii.gz", "LAS")
    after, _ = result_of(case_of(source))
    for name in ("a/x.nii.gz", "b/y.nii.gz", "a/x.nrrd", "b/y.nrrd"):
        write_image(case_of(source), after, tmp_path / name, "denoised")
    for ending in (".nii.gz", ".nrrd"):
        assert (tmp_path / f"a/x{ending}").read_bytes() == (tmp_path / f"b/y{ending}").read_bytes()


# what is refused


@pytest.fixture
def case(tmp_path):
    return case_of(oriented(tmp_path / "ct.nii.gz", "LAS"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda hu: hu[:-1], r"thorax-7: the result has \(7, 11, 14\) voxels .* grid \(8, 11, 14\)"),
        (lambda hu: np.where(hu > 600, np.nan, hu.astype(float)), "runs from nan"),
        (lambda hu: hu * np.float32(np.inf), "runs from|int16"),
        (lambda hu: hu.astype(np.int32) * 100, "not within int16"),
        (lambda hu: hu > 0, "give HU"),
        (lambda hu: hu.astype(complex), "give HU"),
    ],
)
def test_a_result_that_is_no_ct_of_this_grid_is_refused(tmp_path, case, change, words):
    with np.errstate(invalid="ignore"), pytest.raises(CaseError, match=words):
        write_image(case, change(HU), tmp_path / "out.nii.gz", "denoised")
    assert [path.name for path in tmp_path.iterdir()] == ["ct.nii.gz"]


def test_nifti_cannot_become_dicom(tmp_path, case):
    with pytest.raises(CaseError, match=r"thorax-7: its image is no DICOM series.*name a \.nii\.gz"):
        write_image(case, HU, tmp_path / "series", "denoised")
    with pytest.raises(CaseError, match=r"series: its image is no DICOM series"):
        write_image(None, HU, tmp_path / "series", "synthetic", geometry=GRID)
    with pytest.raises(CaseError, match="give its geometry"):
        write_image(None, HU, tmp_path / "made.nii", "synthetic")


@pytest.mark.parametrize("name", ["out.png", "out.mhd", "out.gz", "out.hdr", "out.dcm"])
def test_an_unknown_ending_is_refused(tmp_path, case, name):
    with pytest.raises(UserError, match=r"one of \.nii, \.nii\.gz, \.nrrd, \.mha, no ending for a DICOM folder"):
        write_image(case, HU, tmp_path / name, "denoised")


def test_what_exists_is_kept_unless_overwriting_is_asked_for(tmp_path, case):
    out = tmp_path / "out.nii.gz"
    out.write_bytes(b"mine")
    with pytest.raises(UserError, match="exists already"):
        write_image(case, HU, out, "denoised")
    assert out.read_bytes() == b"mine"
    after, _ = result_of(case)
    write_image(case, after, out, "denoised", overwrite=True)
    assert np.array_equal(read_image(case_of(out)).image, after)


def test_the_input_and_a_folder_of_that_name_are_never_replaced(tmp_path, case):
    source = tmp_path / "ct.nii.gz"
    before = source.read_bytes()
    with pytest.raises(UserError, match="is the input itself"):
        write_image(case, HU, source, "denoised", overwrite=True)
    (tmp_path / "link.nii.gz").symlink_to(source)
    with pytest.raises(UserError, match="is the input itself"):
        write_image(case, HU, tmp_path / "link.nii.gz", "denoised", overwrite=True)
    assert source.read_bytes() == before
    (tmp_path / "out.nii.gz").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        write_image(case, HU, tmp_path / "out.nii.gz", "denoised", overwrite=True)


def test_a_place_that_cannot_be_written_to_is_a_sentence(tmp_path, case, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be written"):
        write_image(case, result_of(case)[0], tmp_path / "file/out.nii.gz", "denoised")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output_module, "_publish", full)
    for ending in (".nii.gz", ".nrrd"):
        with pytest.raises(UserError, match="No space left on device"):
            write_image(case, result_of(case)[0], tmp_path / f"out{ending}", "denoised")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct.nii.gz", "file"]
