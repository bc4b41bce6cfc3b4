import os

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from ct_samples import ball_hu

from preprocessing.case import Case, CaseError
from preprocessing.decoding.data_files import data_files, with_data_files
from preprocessing.decoding.decode import decode_image
from preprocessing.decoding.itk import read_itk
from preprocessing.inputs import file_checksums, input_of
from preprocessing.sources.folder import FolderSource

HU = ball_hu((6, 8, 10))
DETACHED = [("ct.nhdr", False), ("ct.nhdr", True), ("ct.mhd", False), ("ct.mhd", True), ("ct.hdr", False)]
HEADERS = {
    "nhdr": "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 10 8 6\nencoding: raw\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nendian: little\ndata file: {}\n",
    "mhd": "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 10 8 6\nElementSpacing = 1 1 1\n"
    "ElementType = MET_SHORT\nElementDataFile = {}\n",
}


def write(folder, name, packed=False):
    """The files of one image, its header first."""
    path = folder / name
    if name.endswith(".hdr"):
        nib.save(nib.Nifti1Pair(HU.transpose(2, 1, 0), np.eye(4)), path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(HU), str(path), packed)
    return path, next(other for other in folder.iterdir() if other != path)


def input_now(path):
    case = Case(source="folder", id="a", patient="a", image=(str(path),))
    return input_of(case, file_checksums(case))


@pytest.mark.parametrize(("name", "packed"), DETACHED)
def test_a_changed_data_file_under_the_same_header_is_another_input_and_another_version(tmp_path, name, packed):
    path, data = write(tmp_path, name, packed)
    assert data_files(path) == (data,)
    listed, before = FolderSource(path=str(tmp_path)).cases()[0].version, input_now(path)
    times = data.stat().st_mtime_ns
    data.write_bytes(data.read_bytes()[:-1] + b"\x01")
    assert input_now(path) != before
    os.utime(data, ns=(times, times + 1))
    assert FolderSource(path=str(tmp_path)).cases()[0].version != listed
    assert with_data_files([str(path)]) == (str(path), str(data))


@pytest.mark.parametrize("name", ["ct.nrrd", "ct.mha", "ct.nii", "ct.nii.gz"])
def test_an_image_in_one_file_names_no_other(tmp_path, name):
    sitk.WriteImage(sitk.GetImageFromArray(HU), str(tmp_path / name))
    assert data_files(tmp_path / name) == ()
    assert set(file_checksums(Case(source="a", id="a", patient="a", image=(str(tmp_path / name),)))) == {"image/0"}


def stated(folder, suffix, other):
    path = folder / f"ct.{suffix}"
    path.write_text(HEADERS[suffix].format(other))
    return path


@pytest.mark.parametrize("suffix", HEADERS)
def test_voxels_may_lie_in_a_folder_below_their_header(tmp_path, suffix):
    (tmp_path / "voxels").mkdir()
    (tmp_path / "voxels" / "ct.raw").write_bytes(HU.tobytes())
    path = stated(tmp_path, suffix, "voxels/ct.raw")
    assert data_files(path) == (tmp_path / "voxels" / "ct.raw",)
    assert np.array_equal(decode_image([str(path)]).array, HU)


@pytest.mark.parametrize("suffix", HEADERS)
@pytest.mark.parametrize("other", ["{root}/secret.raw", "../secret.raw", "voxels/../../secret.raw", "./../secret.raw"])
def test_a_header_cannot_name_a_file_outside_its_folder(tmp_path, suffix, other):
    (tmp_path / "secret.raw").write_bytes(HU.tobytes())
    (tmp_path / "cts" / "voxels").mkdir(parents=True)
    path = stated(tmp_path / "cts", suffix, other.format(root=tmp_path))
    for read in (decode_image, lambda paths: file_checksums(Case(source="a", id="a", patient="a", image=paths))):
        with pytest.raises(CaseError, match=r"secret\.raw', outside its folder; put both into one folder"):
            read((str(path),))
    assert with_data_files([str(path)]) == (str(path),)


@pytest.mark.parametrize("suffix", HEADERS)
@pytest.mark.parametrize("other", ["LIST\nct.raw", "LIST 2\nct.raw", "slice%03d.raw 1 6 1"])
def test_voxels_in_several_files_are_refused(tmp_path, suffix, other):
    with pytest.raises(CaseError, match=r"in several files .*; save it as one file"):
        decode_image([str(stated(tmp_path, suffix, other))])


@pytest.mark.parametrize("suffix", HEADERS)
@pytest.mark.parametrize("other", ["gone.raw", "x" * 300, "a\0b"])
def test_a_named_file_that_is_not_there_is_a_sentence_and_no_hindrance_to_listing(tmp_path, suffix, other):
    path = stated(tmp_path, suffix, other)
    with pytest.raises(CaseError, match="which is not there; copy it as well"):
        data_files(path)
    before = FolderSource(path=str(tmp_path)).cases()[0].version
    if other == "gone.raw":
        (tmp_path / other).write_bytes(HU.tobytes())
        assert FolderSource(path=str(tmp_path)).cases()[0].version != before


@pytest.mark.parametrize(("key", "value"), [("byteskip", "many"), ("line skip", "2"), ("byteskip", "-7")])
def test_packed_voxels_behind_a_strange_skip_are_refused(tmp_path, key, value):
    path, _ = write(tmp_path, "ct.nhdr", packed=True)
    path.write_text(path.read_text().replace("encoding", f"{key}: {value}\nencoding"))
    with pytest.raises(CaseError, match="packed voxels lie behind"):
        data_files(path)


@pytest.mark.parametrize("name", ["ct.nrrd", "ct.nhdr", "ct.mha", "ct.mhd"])
def test_more_voxels_than_the_header_promises_are_refused(tmp_path, name):
    sitk.WriteImage(sitk.GetImageFromArray(HU), str(tmp_path / name))
    data = next(iter(data_files(tmp_path / name)), tmp_path / name)
    with data.open("ab") as stream:
        stream.write(b"\0\0")
    with pytest.raises(CaseError, match="2 bytes more than its header promises"):
        decode_image([str(tmp_path / name)])


@pytest.mark.parametrize("name", ["ct.nrrd", "ct.mha"])
@pytest.mark.parametrize("piece", [64, 500, 1 << 22])
@pytest.mark.parametrize("value", [0, 7])
def test_packed_voxels_come_whole_in_pieces_of_any_size(tmp_path, monkeypatch, name, piece, value):
    monkeypatch.setattr("preprocessing.decoding.packed.PIECE", piece)
    array = np.full((9, 40, 50), value, np.int16)
    array[4] = np.arange(2000).reshape(40, 50)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / name), True)
    assert np.array_equal(read_itk(tmp_path / name).array, array)


@pytest.mark.parametrize(("name", "sizes"), [("ct.nrrd", "10 8 5"), ("ct.mha", "10 8 5")])
def test_more_packed_voxels_than_the_header_promises_are_refused(tmp_path, name, sizes):
    sitk.WriteImage(sitk.GetImageFromArray(HU), str(tmp_path / name), True)
    whole = (tmp_path / name).read_bytes()
    assert b"10 8 6" in whole
    (tmp_path / name).write_bytes(whole.replace(b"10 8 6", sizes.encode(), 1))
    with pytest.raises(CaseError, match="more bytes than its header promises"):
        decode_image([str(tmp_path / name)])


@pytest.mark.parametrize(
    ("name", "line", "spoilt", "reason"),
    [
        ("ct.nhdr", "space origin: (0,0,0)", "space origin: (0,7v5,0)", "spaceorigin is"),
        ("ct.nhdr", "space directions:", "#pace directions:", "no space directions"),
        ("ct.mhd", "Offset = 0 0 0", "Offset = 0 7v5 0", "Offset is"),
        ("ct.mhd", "ElementSpacing", "ElementSpating", "no ElementSpacing"),
    ],
)
def test_a_place_that_itk_would_guess_is_refused(tmp_path, name, line, spoilt, reason):
    path, _ = write(tmp_path, name)
    assert line in path.read_text()
    path.write_text(path.read_text().replace(line, spoilt))
    with pytest.raises(CaseError, match=reason):
        decode_image([str(path)])


@pytest.mark.parametrize(
    ("key", "line"),
    [("ElementSpacing", "1.5 2 3"), ("Offset", "7.5 15 -40"), ("TransformMatrix", "-1 0 0 0 -1 0 0 0 1")],
)
def test_a_line_that_itk_passes_over_is_no_line_left_out(tmp_path, key, line):
    path, _ = write(tmp_path, "ct.mhd")
    lines = [text for text in path.read_text().splitlines() if not text.startswith(key)]
    path.write_text("\n".join([*lines[:-1], f"{key} = {line}", lines[-1], ""]))
    decode_image([str(path)])
    path.write_text("\n".join([*lines[:-1], "\x12\x05", f"{key} = {line}", lines[-1], ""]))
    with pytest.raises(CaseError, match=f"its {key} is read as "):
        decode_image([str(path)])
