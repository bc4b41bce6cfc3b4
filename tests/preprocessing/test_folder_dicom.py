import contextlib
import random
import shutil

import numpy as np
import pydicom
import pytest
from ct_samples import ball_hu, write_dicom
from dicom_samples import write_rtstruct, write_seg
from whole_case import read_volume

from preprocessing.case import LESION, CaseError
from preprocessing.sources.folder import FolderSource

HU = ball_hu((10, 12, 14))
PLACES = [(0.0, 0.0, 2.0 * k) for k in range(10)]
SQUARE = [(2.0, 3.0, 6.0), (8.0, 3.0, 6.0), (8.0, 9.0, 6.0), (2.0, 9.0, 6.0)]


def listed(path):
    return {case.id: case for case in FolderSource(path=str(path)).cases()}


def put_beside(folder, paths, prefix):
    for path in paths:
        shutil.move(path, folder / f"{prefix}{path.name}")


@pytest.mark.parametrize(
    ("changes", "places"),
    [
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, [(0.0, 2.0 * k, 40.0) for k in range(10)]),
        ({"PixelSpacing": [0.75, 0.75]}, PLACES),
        ({"TemporalPositionIdentifier": 2}, PLACES),
        ({"AcquisitionNumber": 7}, PLACES),
        ({"AcquisitionNumber": 7}, [(0.0, 0.0, 1.3 + 2.0 * k) for k in range(10)]),
        ({"AcquisitionNumber": 7}, [(0.0, 0.0, 400 + 2.0 * k) for k in range(10)]),
        ({"ConvolutionKernel": "B70f"}, PLACES),
        ({"SliceThickness": 5}, PLACES),
    ],
)
def test_one_series_of_two_stacks_is_two_cases(tmp_path, changes, places):
    write_dicom(tmp_path / "s", HU, PLACES, AcquisitionNumber=1)
    uids = tuple(f"1.2.9.{k}" for k in range(10))
    other = write_dicom(tmp_path / "t", HU + 300, places, **{"AcquisitionNumber": 1, "SOPInstanceUID": uids, **changes})
    put_beside(tmp_path / "s", other, "t")
    shutil.rmtree(tmp_path / "t")
    cases = listed(tmp_path)
    assert len(cases) == 2
    assert not [case.problem for case in cases.values() if case.problem]
    low, high = sorted((read_volume(case).image for case in cases.values()), key=np.mean)
    assert np.array_equal(low, HU)
    assert np.array_equal(np.sort(high.ravel()), np.sort((HU + 300).ravel()))
    assert listed(tmp_path).keys() == cases.keys()
    for path in (tmp_path / "s").iterdir():
        path.rename(path.with_name(f"x{path.name[::-1]}"))
    assert listed(tmp_path).keys() == cases.keys()


def test_an_axial_scan_whose_table_positions_are_acquisitions_stays_one_case(tmp_path):
    write_dicom(tmp_path, HU, PLACES, AcquisitionNumber=tuple(range(10)))
    (case,) = listed(tmp_path).values()
    assert np.array_equal(read_volume(case).image, HU)


def test_two_images_of_one_place_that_nothing_tells_apart_are_refused(tmp_path):
    write_dicom(tmp_path / "s", HU, PLACES)
    uids = tuple(f"1.2.9.{k}" for k in range(10))
    put_beside(tmp_path / "s", write_dicom(tmp_path / "t", HU + 1, PLACES, SOPInstanceUID=uids), "t")
    (case,) = listed(tmp_path / "s").values()
    with pytest.raises(Exception, match="different images of one place"):
        read_volume(case)


def test_files_of_a_case_lie_in_order_of_place(tmp_path):
    write_dicom(tmp_path, HU, PLACES)
    (case,) = listed(tmp_path).values()
    z = [float(pydicom.dcmread(path).ImagePositionPatient[2]) for path in case.image]
    assert z == sorted(z)


def test_localizers_and_derived_images_beside_slices_are_noted(tmp_path):
    write_dicom(tmp_path / "s", HU, PLACES)
    for k, kind in enumerate((["ORIGINAL", "PRIMARY", "LOCALIZER"], ["DERIVED", "SECONDARY", "MPR"])):
        changes = {"ImageType": kind, "ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "SOPInstanceUID": f"8.{k}"}
        put_beside(tmp_path / "s", write_dicom(tmp_path / "t", HU[:1], PLACES[:1], **changes), f"t{k}")
    (case,) = listed(tmp_path / "s").values()
    assert case.notes == (
        "1 localizer images of the series left out",
        "1 reformatted images of the series left out",
    )
    assert np.array_equal(read_volume(case).image, HU)


@pytest.mark.parametrize("kind", [["ORIGINAL", "PRIMARY", "LOCALIZER"], ["DERIVED", "SECONDARY", "MIP"]])
def test_a_series_of_nothing_else_is_a_case_with_its_problem(tmp_path, kind):
    write_dicom(tmp_path / "a", HU, PLACES)
    write_dicom(tmp_path / "b", HU, PLACES, ImageType=kind, SeriesInstanceUID="1.2.8")
    cases = listed(tmp_path)
    assert cases["a"].problem == ""
    assert "10 files of this series hold only" in cases["b"].problem


def test_a_seg_and_an_rtstruct_are_labels_of_the_series_they_name(tmp_path):
    images = write_dicom(tmp_path / "a/ct", HU, PLACES)
    write_dicom(tmp_path / "b/ct", HU, PLACES, SeriesInstanceUID="1.2.8", StudyInstanceUID="1.2.7")
    masks = np.zeros((10, 12, 14, 2), np.uint8)
    masks[2:5, 3:6, 4:8, 0] = masks[4, 4:8, 5:9, 1] = 1
    seg = write_seg(tmp_path / "seg/x.dcm", images, masks, [("Liver", "Liver", ""), ("mass 3", "Neoplasm", "Liver")])
    rois = [(4, "GTV_primary", "GTV", [SQUARE]), (9, "PTV 60", "PTV", [SQUARE]), (12, "Smith^John", "ORGAN", [SQUARE])]
    structures = write_rtstruct(tmp_path / "rt/x.dcm", rois, series="1.2.8")
    cases = listed(tmp_path)
    assert set(cases) == {"a__ct", "b__ct"}
    (label,) = cases["a__ct"].labels
    assert (label.path, label.classes) == (str(seg), ((1, 5), (2, LESION), (2, 5)))
    assert cases["a__ct"].anatomy == "partial"
    (label,) = cases["b__ct"].labels
    assert (label.path, label.classes) == (str(structures), ((4, LESION),))
    assert cases["b__ct"].notes == (
        "x.dcm: 2 of 3 structures of this DICOM RTSTRUCT have names that mean none of the classes",
    )
    volume = read_volume(cases["a__ct"])
    assert np.array_equal(volume.lesion, masks[..., 1])
    assert np.array_equal(volume.anatomy == 5, masks.any(axis=-1))
    assert seg in [type(seg)(path) for path in cases["a__ct"].origin]


def test_a_label_follows_the_stack_whose_images_it_names(tmp_path):
    write_dicom(tmp_path / "s", HU, PLACES, AcquisitionNumber=1, SeriesInstanceUID="1.2.7.7")
    uids = tuple(f"1.2.9.{k}" for k in range(10))
    facts = {"AcquisitionNumber": 2, "SOPInstanceUID": uids, "SeriesInstanceUID": "1.2.7.7"}
    other = write_dicom(tmp_path / "t", HU + 300, PLACES, **facts)
    put_beside(tmp_path / "s", other, "t")
    write_rtstruct(tmp_path / "s/rt.dcm", [(1, "GTV", "", [SQUARE])], series="1.2.7.7", instances=uids)
    with_label = [case for case in listed(tmp_path / "s").values() if case.labels]
    assert len(with_label) == 1
    volume = read_volume(with_label[0])
    assert np.array_equal(np.sort(volume.image.ravel()), np.sort((HU + 300).ravel()))
    assert volume.lesion.any()


def test_a_label_of_a_series_that_is_not_here_is_a_case_with_its_problem(tmp_path):
    write_dicom(tmp_path / "a", HU, PLACES)
    write_rtstruct(tmp_path / "rt.dcm", [(1, "GTV", "", [SQUARE])], series="9.9.9")
    (problem,) = [case.problem for case in listed(tmp_path).values() if case.problem]
    assert problem.startswith("rt.dcm is a DICOM RTSTRUCT, not an image, and the series it belongs to is not")


def test_a_label_changes_the_version_of_its_case(tmp_path):
    write_dicom(tmp_path / "a", HU, PLACES)
    without = listed(tmp_path)["a"].version
    write_rtstruct(tmp_path / "rt.dcm", [(1, "GTV", "", [SQUARE])])
    assert listed(tmp_path)["a"].version != without


@pytest.mark.parametrize("seed", range(16))
def test_damaged_bytes_are_refused_or_read_and_never_anything_else(tmp_path, seed):
    images = write_dicom(tmp_path / "a", HU, PLACES, PixelPaddingValue=-2000)
    masks = np.zeros((10, 12, 14, 1), np.uint8)
    masks[2:5, 3:6, 4:8] = 1
    write_seg(tmp_path / "seg.dcm", images, masks, [("mass", "Neoplasm", "Liver")])
    write_rtstruct(tmp_path / "rt.dcm", [(4, "GTV", "GTV", [SQUARE])])
    chance = random.Random(seed)
    for path in (images[3], tmp_path / "seg.dcm", tmp_path / "rt.dcm"):
        data = bytearray(path.read_bytes())
        for _ in range(chance.choice([1, 3, 10])):
            data[chance.randrange(132, min(len(data), 1500))] = chance.randrange(256)
        path.write_bytes(data[: chance.randrange(len(data))] if chance.random() < 0.2 else data)
    for case in listed(tmp_path).values():
        with contextlib.suppress(CaseError):
            assert read_volume(case).image.dtype == np.int16


def test_nothing_personal_reaches_a_case_an_error_or_a_log(tmp_path, capfd, caplog, recwarn):
    private = {
        "PatientName": "Doe^Jane",
        "PatientBirthDate": "19500217",
        "StudyDate": "20110923",
        "StudyTime": "101112",
    }
    private |= {"InstitutionName": "Saint Elsewhere", "ReferringPhysicianName": "House^Greg", "AccessionNumber": "A777"}
    write_dicom(tmp_path / "a", HU, PLACES, **private)
    write_dicom(
        tmp_path / "b", HU[[0, 1, 5, 6]], [PLACES[k] for k in (0, 1, 5, 6)], SeriesInstanceUID="1.2.8", **private
    )
    write_rtstruct(tmp_path / "rt.dcm", [(1, "GTV Doe^Jane", "", [SQUARE]), (2, "Doe^Jane", "", [])])
    cases = listed(tmp_path)
    with pytest.raises(Exception, match="missing") as caught:
        read_volume(cases["b"])
    told = str(cases.values()) + str(read_volume(cases["a"]).findings) + str(caught.value)
    told += capfd.readouterr().err + caplog.text + "".join(str(warning.message) for warning in recwarn)
    assert not [word for value in private.values() for word in value.split("^") if word in told]
    assert "1.2.3" not in told
