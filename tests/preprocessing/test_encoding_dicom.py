"""Images as DICOM series, read again by the package's reader, by pydicom and by ITK."""

import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from ct_samples import ball_hu, write_dicom
from dicom_samples import SYNTAXES, compress, write_enhanced
from encoding_samples import BOX, case_of, result_of
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from infra.errors import UserError
from preprocessing.case import CaseError
from preprocessing.decoding.decode import read_image
from preprocessing.encoding import series
from preprocessing.encoding.derived import NUMBER_OFFSET
from preprocessing.encoding.write import write_image
from preprocessing.geometry import Geometry

HU = ball_hu((8, 11, 14))
PLACES = [(3.0, 4.0, 10.0 + 2 * k) for k in range(8)]
CHANGED_TAGS = {
    *("ImageType", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "PixelData"),
    *("DerivationDescription", "ContentQualification", "SourceImageSequence", "ContributingEquipmentSequence"),
}


def by_place(paths) -> list[pydicom.Dataset]:
    return sorted(map(pydicom.dcmread, paths), key=lambda d: tuple(d.ImagePositionPatient)[::-1])


def check(out: Path, sources: list[Path], after: np.ndarray, changed: np.ndarray, step: float = 1, but=()) -> None:
    """One derived file for each source slice, with its header, and its numbers where nothing changed."""
    derived, original = by_place(out.iterdir()), by_place(sources)
    assert len(derived) == len(original) == len(after)
    assert len({d.SOPInstanceUID for d in derived}) == len(derived)
    assert len({d.SeriesInstanceUID for d in derived}) == 1
    assert derived[0].SeriesInstanceUID != original[0].SeriesInstanceUID
    for k, (one, other) in enumerate(zip(derived, original, strict=True)):
        check_header(one, other, but)
        same = ~changed[k]
        assert np.array_equal(one.pixel_array[same], other.pixel_array[same])
        hu = one.pixel_array * float(one.get("RescaleSlope", 1)) + float(one.get("RescaleIntercept", 0))
        assert np.abs(hu - after[k])[changed[k]].max(initial=0) <= step / 2


def check_header(one: pydicom.Dataset, other: pydicom.Dataset, but=()) -> None:
    assert one.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID
    assert list(one.ImageType[:3]) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert one.ContentQualification == "RESEARCH"
    assert one.DerivationDescription.startswith("MedDiff")
    assert "not for diagnosis" in one.SeriesDescription
    reference = one.SourceImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == other.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == other.SOPClassUID
    assert {element.keyword for element in one} - {element.keyword for element in other} <= CHANGED_TAGS
    for element in other:
        if element.keyword not in CHANGED_TAGS.union(but):
            assert one[element.tag].value == element.value, element


def test_every_slice_keeps_its_header_and_what_did_not_change(tmp_path):
    facts = {"PatientName": "Doe^Jané", "SpecificCharacterSet": "ISO_IR 100", "KVP": "120", "SeriesNumber": 4}
    facts |= {"FrameOfReferenceUID": "1.2.6.6", "SeriesDescription": "Abdomen", "WindowCenter": ["40", "50"]}
    stale = {"LargestImagePixelValue": 9, "InstanceCreationDate": "20010203", "SeriesTime": "1200"}
    sources = write_dicom(tmp_path / "in", HU, PLACES, **facts, **stale)
    after, changed = result_of(case_of(*sources))
    assert write_image(case_of(*sources), after, tmp_path / "out", "dénoised \\ twice") == ()
    check(tmp_path / "out", sources, after, changed, but=stale)
    one = pydicom.dcmread(tmp_path / "out/0001.dcm")
    assert not set(stale) & {element.keyword for element in one}
    assert one.SeriesNumber == NUMBER_OFFSET + 4
    assert one.SeriesDescription == "MedDiff, not for diagnosis: Abdomen"
    assert re.fullmatch(r"MedDiff [\d.]+, not for diagnosis: d\?noised \? twice", one.DerivationDescription)
    read, source = read_image(case_of(tmp_path / "out")), read_image(case_of(*sources))
    assert np.array_equal(read.image, after)
    assert read.geometry == source.geometry
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "out")))
    assert np.array_equal(SimpleITK.GetArrayFromImage(reader.Execute()), after)


@pytest.mark.parametrize("syntax", [*SYNTAXES, "implicit", "big-endian"])
def test_a_slice_of_every_transfer_syntax_comes_out_plain(tmp_path, syntax):
    stored = (ball_hu((8, 40, 36)).astype(int) + 1124).astype(np.uint16)
    facts = {"RescaleIntercept": -1124, "PixelPaddingValue": 7, "RedPaletteColorLookupTableData": b"\1\2\3\4"}
    sources = write_dicom(tmp_path / "in", stored, PLACES, **facts)
    if syntax in SYNTAXES:
        compress(sources, syntax)
    else:
        for path in sources:
            dataset = pydicom.dcmread(path)
            if syntax == "implicit":
                dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            else:
                list(dataset.iterall())  # so that every number is one, in no byte order
                dataset.PixelData = dataset.pixel_array.astype(">u2").tobytes()
                dataset.RedPaletteColorLookupTableData = b"\2\1\4\3"
                dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
            pydicom.dcmwrite(path, dataset)
    after, changed = result_of(case_of(*sources))
    write_image(case_of(*sources), after, tmp_path / "out", "denoised")
    words = "RedPaletteColorLookupTableData"
    check(tmp_path / "out", sources, after, changed, but={words})
    assert pydicom.dcmread(tmp_path / "out/0001.dcm")[words].value == facts[words]
    assert np.array_equal(read_image(case_of(tmp_path / "out")).image, after)


def test_each_slice_is_encoded_by_its_own_rescale(tmp_path):
    slopes, intercepts = (1, 2) * 4, (0, 0, -100, -100) * 2
    stored = np.stack([(s - b) // m for s, m, b in zip(HU, slopes, intercepts, strict=True)])
    sources = write_dicom(tmp_path / "in", stored, PLACES, RescaleSlope=slopes, RescaleIntercept=intercepts)
    after, changed = result_of(case_of(*sources))
    write_image(case_of(*sources), after, tmp_path / "out", "denoised")
    check(tmp_path / "out", sources, after, changed, step=2)


def test_a_fractional_slope_and_a_missing_one(tmp_path):
    for name, facts in (("a", {"RescaleSlope": "0.3", "RescaleIntercept": "-7.5"}), ("b", {"RescaleSlope": None})):
        sources = write_dicom(tmp_path / name, HU, PLACES, **facts)
        after, changed = result_of(case_of(*sources), low=-200, high=200)
        write_image(case_of(*sources), after, tmp_path / f"{name}-out", "denoised")
        check(tmp_path / f"{name}-out", sources, after, changed)


def test_a_coronal_and_a_tilted_series_stay_where_they_are(tmp_path):
    tilt = np.radians(15)
    cosines = {"cor": [1, 0, 0, 0, 0, -1], "tilt": [1, 0, 0, 0, float(np.cos(tilt)), float(-np.sin(tilt))]}
    for name, orientation in cosines.items():
        places = PLACES if name == "tilt" else [(3.0, 4.0 + 2 * k, 50.0) for k in range(8)]
        sources = write_dicom(tmp_path / name, HU, places, ImageOrientationPatient=orientation)
        case = case_of(*sources)
        after, changed = result_of(case)
        write_image(case, after, tmp_path / f"{name}-out", "denoised")
        derived = {
            d.SourceImageSequence[0].ReferencedSOPInstanceUID: d for d in by_place((tmp_path / f"{name}-out").iterdir())
        }
        for dataset in map(pydicom.dcmread, sources):
            one = derived[dataset.SOPInstanceUID]
            check_header(one, dataset)
            k = int(np.rint(read_image(case).geometry.index(np.array(one.ImagePositionPatient, float)[::-1])[0]))
            assert np.array_equal(one.pixel_array, after[k])
            assert np.array_equal(one.pixel_array[~changed[k]], dataset.pixel_array[~changed[k]])


def test_copies_and_localizers_are_not_written(tmp_path):
    sources = write_dicom(tmp_path / "in", HU, PLACES)
    copies = write_dicom(tmp_path / "copies", HU[:2], PLACES[:2])
    scout = write_dicom(tmp_path / "scout", HU[:1], PLACES[:1], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    case = case_of(*sources, *copies, *scout)
    after, changed = result_of(case)
    write_image(case, after, tmp_path / "out", "denoised")
    check(tmp_path / "out", sources, after, changed)


# what a stored number can say


def test_padding_stays_padding(tmp_path):
    stored = HU.copy()
    stored[:, :2] = -2000
    sources = write_dicom(tmp_path / "in", stored, PLACES, PixelPaddingValue=-2000)
    after, changed = result_of(case_of(*sources))
    write_image(case_of(*sources), after, tmp_path / "out", "denoised")
    check(tmp_path / "out", sources, after, changed)
    assert (pydicom.dcmread(tmp_path / "out/0001.dcm").pixel_array[:2] == -2000).all()
    assert np.array_equal(read_image(case_of(tmp_path / "out")).image, after)


@pytest.mark.parametrize("where", ["inside", "corner", "beside padding", "every corner gone"])
def test_a_new_number_is_never_taken_for_padding(tmp_path, where):
    stored = np.where(HU == 60, 61, HU)
    if where in ("beside padding", "every corner gone"):
        stored[:, :, 0] = 60
    sources = write_dicom(tmp_path / "in", stored.astype(np.int16), PLACES, PixelPaddingValue=60)
    after = read_image(case_of(*sources)).image.copy()
    if where == "every corner gone":
        after[4, [0, -1]] = -900
    else:
        after[4, 0 if where == "corner" else 5, -1] = 60
    write_image(case_of(*sources), after, tmp_path / "out", "denoised")
    assert np.array_equal(read_image(case_of(tmp_path / "out")).image, after)


def test_hu_beyond_what_a_slice_can_store_are_clipped_with_a_finding(tmp_path):
    stored = np.clip(HU.astype(int) + 1024, 0, 4095).astype(np.uint16)
    sources = write_dicom(tmp_path / "in", stored, PLACES, RescaleIntercept=-1024, BitsStored=12, HighBit=11)
    case = case_of(*sources)
    after = read_image(case).image.copy()
    after[BOX], after[3, 4, 5] = 3500, -1100
    (note,) = write_image(case, after, tmp_path / "out", "denoised")
    assert note.startswith(f"{after[BOX].size} voxels lay outside")
    read = read_image(case_of(tmp_path / "out")).image
    assert np.array_equal(read, np.clip(after, -1024, 3071))


def test_a_header_that_says_little_or_too_little(tmp_path):
    sources = write_dicom(tmp_path / "in", HU, PLACES, ImageType="ORIGINAL")
    after, changed = result_of(case_of(*sources))
    write_image(case_of(*sources), after, tmp_path / "out", "denoised")
    check(tmp_path / "out", sources, after, changed)
    assert list(pydicom.dcmread(tmp_path / "out/0001.dcm").ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    for path in sources:
        dataset = pydicom.dcmread(path)
        del dataset.SOPClassUID
        dataset.save_as(path)
    case = case_of(*sources)
    with pytest.raises(CaseError, match=r"thorax-7: the header .* cannot be written again"):
        write_image(case, after, tmp_path / "again", "denoised")


def test_a_header_that_no_writer_takes_is_refused(tmp_path, monkeypatch):
    def refuse(path, dataset, **options):
        raise ValueError("an element cannot be encoded")

    case = case_of(*write_dicom(tmp_path / "in", HU, PLACES))
    monkeypatch.setattr(series, "dcmwrite", refuse)
    with pytest.raises(CaseError, match=r"\.dcm has a header that cannot be written again"):
        write_image(case, HU, tmp_path / "out", "denoised")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_slope_of_nothing_is_refused(tmp_path):
    sources = write_dicom(tmp_path / "in", HU, PLACES, RescaleSlope=0)
    case = case_of(*sources)
    with pytest.raises(CaseError, match="slope is 0"):
        write_image(case, HU, tmp_path / "out", "denoised")
    assert not (tmp_path / "out").exists()


# enhanced files


def test_frames_of_an_enhanced_file_become_slices(tmp_path):
    path = write_enhanced(
        tmp_path / "in.dcm", HU[::-1] + 24, PLACES[::-1], intercept=-24, kind=["ORIGINAL", "PRIMARY", "VOLUME"]
    )
    case = case_of(path)
    after, changed = result_of(case)
    write_image(case, after, tmp_path / "out", "denoised")
    source = read_image(case)
    read = read_image(case_of(tmp_path / "out"))
    assert np.array_equal(read.image, after)
    assert read.geometry == source.geometry
    derived = by_place((tmp_path / "out").iterdir())
    original = pydicom.dcmread(path)
    for k, one in enumerate(derived):
        frame = one.SourceImageSequence[0].ReferencedFrameNumber
        assert frame == 8 - k
        assert one.SOPClassUID == one.file_meta.MediaStorageSOPClassUID == CTImageStorage
        assert one.SourceImageSequence[0].ReferencedSOPClassUID == original.SOPClassUID
        assert (one.PatientID, one.StudyInstanceUID) == (original.PatientID, original.StudyInstanceUID)
        assert "PerFrameFunctionalGroupsSequence" not in one
        assert np.array_equal(one.pixel_array[~changed[k]], original.pixel_array[frame - 1][~changed[k]])


def test_one_volume_of_an_enhanced_file_of_two(tmp_path):
    far = [(3.0, 4.0, 500.0 + 3 * k) for k in range(8)]
    stacks = ("1",) * 8 + ("2",) * 8
    path = write_enhanced(tmp_path / "in.dcm", np.concatenate([HU, HU[::-1]]), PLACES + far, stack=stacks)
    for stack in (0, 1):
        case = case_of(path, stack=stack)
        after, _ = result_of(case)
        write_image(case, after, tmp_path / f"out-{stack}", "denoised")
        read = read_image(case_of(tmp_path / f"out-{stack}"))
        assert np.array_equal(read.image, after)
        assert read.geometry == read_image(case).geometry


# another grid


@pytest.mark.parametrize("tilt", [0.0, 15.0])
def test_more_slices_take_the_header_of_the_nearest(tmp_path, tilt):
    cosines = [1, 0, 0, 0, float(np.cos(np.radians(tilt))), float(-np.sin(np.radians(tilt)))]
    names = tuple(f"slice {k}" for k in range(8))
    facts = {"ImageComments": names, "SliceLocation": "1", "SpacingBetweenSlices": "2", "PixelPaddingValue": -2000}
    sources = write_dicom(tmp_path / "in", HU, PLACES, ImageOrientationPatient=cosines, **facts)
    own = read_image(case_of(*sources)).geometry
    factor = 3
    grid = Geometry((22, 11, 14), (own.spacing_mm[0] / factor, *own.spacing_mm[1:]), own.origin_mm, own.direction)
    hu = np.repeat(HU, factor, axis=0)[:22] + 3
    assert "nearest" in write_image(case_of(*sources), hu, tmp_path / "out", "finer", geometry=grid)[0]
    read = read_image(case_of(tmp_path / "out"))
    assert np.array_equal(read.image, hu)
    assert np.allclose(read.geometry.corners(), grid.corners(), atol=1e-3)
    derived = by_place((tmp_path / "out").iterdir())
    assert [int(d.ImageComments[-1]) for d in derived] == [round(k / factor) for k in range(22)]
    assert float(derived[0].SliceThickness) == pytest.approx(2 / 3 * np.cos(np.radians(tilt)), abs=1e-3)
    assert [d.InstanceNumber for d in derived] == list(range(1, 23))
    assert not {"SliceLocation", "SpacingBetweenSlices", "PixelPaddingValue"} & {e.keyword for e in derived[0]}
    assert derived[0].SourceImageSequence[0].ReferencedSOPInstanceUID == by_place(sources)[0].SOPInstanceUID


def test_slices_of_uneven_distance_are_written_on_the_grid_they_decode_to(tmp_path):
    steps = np.array([0, 2, 4, 6, 8, 12, 16, 20.0])
    sources = write_dicom(tmp_path / "in", HU, [(3.0, 4.0, 10 + z) for z in steps])
    case = case_of(*sources)
    source = read_image(case)
    assert len(source.image) == 11
    assert "nearest" in write_image(case, source.image, tmp_path / "out", "denoised")[0]
    read = read_image(case_of(tmp_path / "out"))
    assert np.array_equal(read.image, source.image)
    assert np.allclose(read.geometry.corners(), source.geometry.corners(), atol=1e-6)


def test_a_finer_plane_has_its_own_rows_and_columns(tmp_path):
    sources = write_dicom(tmp_path / "in", HU, PLACES)
    grid = Geometry((8, 22, 28), (2.0, 0.75, 0.625), (10.0, 4.0, 3.0))
    hu = HU.repeat(2, 1).repeat(2, 2)
    write_image(case_of(*sources), hu, tmp_path / "out", "finer", geometry=grid)
    read = read_image(case_of(tmp_path / "out"))
    assert np.array_equal(read.image, hu)
    assert read.geometry == grid


# where it goes


def test_the_same_result_is_the_same_series_and_another_is_not(tmp_path):
    sources = write_dicom(tmp_path / "in", HU, PLACES)
    after, _ = result_of(case_of(*sources))
    for name, hu, text in (("a", after, "x"), ("b", after, "x"), ("c", after, "y"), ("d", HU, "x")):
        write_image(case_of(*sources), hu, tmp_path / name, text)
    assert (tmp_path / "a/0003.dcm").read_bytes() == (tmp_path / "b/0003.dcm").read_bytes()
    uids = {name: pydicom.dcmread(tmp_path / name / "0003.dcm").SeriesInstanceUID for name in "abcd"}
    assert uids["a"] == uids["b"]
    assert len(set(uids.values())) == 3


def test_only_a_series_of_ours_is_replaced(tmp_path):
    sources = write_dicom(tmp_path / "in", HU, PLACES)
    case, out = case_of(*sources), tmp_path / "out"
    after, _ = result_of(case)
    write_image(case, HU, out, "denoised")
    with pytest.raises(UserError, match="exists already"):
        write_image(case, after, out, "denoised")
    write_image(case, after, out, "denoised", overwrite=True)
    assert np.array_equal(read_image(case_of(out)).image, after)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    write_dicom(tmp_path / "other", HU, PLACES)
    (out / "notes.txt").write_text("mine")
    for folder in (out, tmp_path / "other"):
        with pytest.raises(UserError, match="holds files that are no result of ours"):
            write_image(case, after, folder, "denoised", overwrite=True)
    with pytest.raises(UserError, match="is the input itself"):
        write_image(case, after, tmp_path / "in", "denoised", overwrite=True)
    assert (out / "notes.txt").exists()
    assert len(list((tmp_path / "in").iterdir())) == 8


def test_nothing_is_left_of_a_series_that_was_broken_off(tmp_path, monkeypatch):
    sources = write_dicom(tmp_path / "in", HU, PLACES)

    def full(path, dataset, **options):
        if path.name.startswith("0005"):
            raise OSError(28, "No space left on device")
        pydicom.dcmwrite(path, dataset, **options)

    monkeypatch.setattr(series, "dcmwrite", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_image(case_of(*sources), HU, tmp_path / "out", "denoised")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
