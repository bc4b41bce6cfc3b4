import json
import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
from ct_samples import ball_hu, ras_affine, write_dicom, write_nifti
from scipy.ndimage import map_coordinates
from whole_case import read_volume

from infra.errors import UserError
from preprocessing.anatomy import class_ids, class_names
from preprocessing.case import LESION, CaseError
from preprocessing.geometry import Geometry
from preprocessing.sources.base import Source
from preprocessing.sources.folder import FolderSource

HU = ball_hu((10, 12, 14))
AFFINE = ras_affine(Geometry(HU.shape, (2.5, 1.5, 1.25)))
MASK = (HU > 0).astype(np.uint8)
PLACES = [(0.0, 0.0, 2.0 * k) for k in range(10)]


def put(path, array=HU):
    return write_nifti(path, array, AFFINE)


def listed(path, **options):
    return {case.id: case for case in FolderSource(path=str(path), **options).cases()}


def test_a_folder_is_a_source_that_can_go_to_another_process(tmp_path):
    source = FolderSource(path=str(tmp_path), declared_region="chest", licence="CC0-1.0")
    assert isinstance(source, Source)
    assert pickle.loads(pickle.dumps(source)) == source


def test_what_is_known_of_a_folder_reaches_every_case(tmp_path):
    put(tmp_path / "a.nii.gz")
    case = listed(tmp_path, declared_region="chest", licence="CC0-1.0")["a"]
    assert (case.source, case.declared_regions, case.licence) == ("folder", ("chest",), "CC0-1.0")
    assert case.origin == (str(tmp_path / "a.nii.gz"),)


@pytest.mark.parametrize("kind", ["absent", "file", "empty", "text"])
def test_a_folder_without_cts_is_a_sentence_to_the_user(tmp_path, kind):
    path = tmp_path / "data"
    if kind == "file":
        path.write_text("x")
    elif kind != "absent":
        path.mkdir()
    if kind == "text":
        (path / "notes.txt").write_text("x")
    words = {"absent": "not there", "file": "is a file"}.get(kind, "holds no CT")
    with pytest.raises(UserError, match=words) as caught:
        FolderSource(path=str(path)).cases()
    assert str(path) in str(caught.value)


def test_masks_named_after_classes_are_the_anatomy(tmp_path):
    put(tmp_path / "s1/ct.nii.gz")
    for name in list(class_names().values())[:117]:
        put(tmp_path / f"s1/segmentations/{name}.nii.gz", MASK if name == "liver" else MASK * 0)
    case = listed(tmp_path)["s1"]
    assert case.anatomy == "full"
    assert len(case.labels) == 117
    assert np.array_equal(read_volume(case).anatomy, MASK * class_ids()["liver"])


def test_some_masks_are_a_partial_anatomy_and_tumours_among_them_a_lesion(tmp_path):
    put(tmp_path / "s1/ct.nii.gz")
    put(tmp_path / "s1/segmentations/liver.nii.gz", MASK)
    put(tmp_path / "s1/segmentations/liver_lesions.nii.gz", MASK)
    put(tmp_path / "s1/segmentations/gadget.nii.gz", MASK)
    case = listed(tmp_path)["s1"]
    assert case.anatomy == "partial"
    assert case.lesion == (str(tmp_path / "s1/segmentations/liver_lesions.nii.gz"),)
    assert case.notes == ("gadget.nii.gz: its values have no declared meaning, not used as anatomy",)


def test_masks_belong_to_the_dicom_series_beside_them(tmp_path):
    write_dicom(tmp_path / "s1", HU, PLACES)
    put(tmp_path / "s1/segmentations/liver.nii.gz", MASK)
    case = listed(tmp_path)["s1"]
    assert [label.path for label in case.labels] == [str(tmp_path / "s1/segmentations/liver.nii.gz")]


def test_an_anatomy_map_holds_totalsegmentator_ids(tmp_path):
    put(tmp_path / "s1/ct.nii.gz")
    put(tmp_path / "s1/anatomy.nii.gz", MASK * 117)
    put(tmp_path / "s1/segmentations/liver.nii.gz", MASK)
    case = listed(tmp_path)["s1"]
    assert case.anatomy == "full"
    assert np.array_equal(read_volume(case).anatomy, MASK * 117)
    assert case.notes == ("1 further label files not used: anatomy.nii.gz names the anatomy",)


def test_a_table_beside_an_anatomy_map_overrides_its_ids_by_name(tmp_path):
    put(tmp_path / "s1/ct.nii.gz")
    put(tmp_path / "s1/anatomy.nii.gz", MASK * 118)
    (tmp_path / "s1/structures.csv").write_bytes(b"structure,id\r\nliver,5\r\ncarpal,117\r\ncostal_cartilages,118\r\n")
    volume = read_volume(listed(tmp_path)["s1"])
    assert np.array_equal(volume.anatomy, MASK * class_ids()["costal_cartilages"])


@pytest.mark.parametrize(
    "content",
    [
        {"labels": {"0": "background", "1": "liver", "2": "cancer"}, "modality": {"0": "CT"}},
        {"labels": {"background": 0, "liver": 1, "cancer": 2}, "channel_names": {"0": "CT"}},
    ],
)
def test_a_dataset_json_names_labels_and_lesions_keep_their_organ(tmp_path, content):
    values = np.zeros(HU.shape, np.uint8)
    values[2:5], values[5:7] = 1, 2
    put(tmp_path / "T/imagesTr/liver_4_0000.nii.gz")
    put(tmp_path / "T/imagesTr/liver_5_0000.nii.gz")
    put(tmp_path / "T/labelsTr/liver_4.nii.gz", values)
    (tmp_path / "T/dataset.json").write_text(json.dumps(content))
    cases = listed(tmp_path)
    assert set(cases) == {"T__liver_4", "T__liver_5"}
    assert cases["T__liver_5"].labels == ()
    volume = read_volume(cases["T__liver_4"])
    assert np.array_equal(volume.anatomy, (values > 0) * class_ids()["liver"])
    assert np.array_equal(volume.lesion, values == 2)
    assert volume.anatomy_kind == "partial"


def test_a_dataset_json_that_says_mri_makes_problems(tmp_path):
    put(tmp_path / "T/imagesTr/heart_1.nii.gz")
    (tmp_path / "T/dataset.json").write_text(json.dumps({"modality": {"0": "MRI"}, "labels": {"1": "left atrium"}}))
    assert "modality is 'MRI', not CT" in listed(tmp_path)["T__heart_1"].problem


def test_a_second_channel_is_a_case_with_its_problem(tmp_path):
    put(tmp_path / "T/imagesTr/x_0000.nii.gz")
    put(tmp_path / "T/imagesTr/x_0001.nii.gz")
    cases = listed(tmp_path)
    assert cases["T__x"].problem == ""
    assert "channel 1" in cases["T__x_0001"].problem


def test_a_lesion_beside_its_image_is_a_lesion_and_an_organ_its_class(tmp_path):
    for name in ("a", "b"):
        put(tmp_path / f"{name}_ct.nii.gz")
    put(tmp_path / "a_tumour.nii.gz", MASK)
    put(tmp_path / "b_spleen_seg.nii.gz", MASK)
    put(tmp_path / "b_seg.nii.gz", MASK)
    put(tmp_path / "only/ct.nii.gz")
    put(tmp_path / "only/spleen_mask.nii.gz", MASK)
    cases = listed(tmp_path)
    assert cases["a"].lesion == (str(tmp_path / "a_tumour.nii.gz"),)
    assert cases["only"].labels[0].classes == ((1, class_ids()["spleen"]),)
    assert cases["b"].labels == ()
    assert cases["b"].notes == ("b_seg.nii.gz: its values have no declared meaning, not used as anatomy",)


def test_a_label_without_image_is_a_case_with_its_problem(tmp_path):
    put(tmp_path / "a_ct.nii.gz")
    put(tmp_path / "c_ct.nii.gz")
    put(tmp_path / "b_seg.nii.gz", MASK)
    case = listed(tmp_path)["b_seg"]
    assert "label b_seg.nii.gz has no image beside it" in case.problem
    with pytest.raises(CaseError, match="b_seg"):
        read_volume(case)


def test_a_label_that_may_belong_to_two_images_is_said(tmp_path):
    put(tmp_path / "ct.nii.gz")
    put(tmp_path / "image.nii.gz")
    put(tmp_path / "lesion.nii.gz", MASK)
    cases = listed(tmp_path)
    assert "may belong to ct.nii.gz or image.nii.gz" in cases["lesion"].problem
    assert len(cases) == 3


def test_ids_are_unique_even_where_names_say_nothing(tmp_path):
    put(tmp_path / "p/ct.nii.gz")
    put(tmp_path / "p/ct.nii")
    put(tmp_path / "p/CT_image.nii.gz")
    put(tmp_path / "P_x/ct.nii.gz")
    put(tmp_path / "p_X/ct.nii.gz")
    cases = FolderSource(path=str(tmp_path)).cases()
    assert len({case.id.casefold() for case in cases}) == len(cases) == 5
    assert [case.id for case in cases] == sorted(case.id for case in cases)


def test_hidden_files_and_apple_doubles_are_skipped(tmp_path):
    put(tmp_path / "a.nii.gz")
    for name in ("._a.nii.gz", "__MACOSX/a.nii.gz", ".cache/a.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"junk")
    assert set(listed(tmp_path)) == {"a"}


def test_dicom_files_are_grouped_by_series_whatever_their_names(tmp_path):
    one = write_dicom(tmp_path / "study", HU, PLACES, SeriesNumber=2)
    for k, path in enumerate(one):
        path.rename(path.with_name(f"IM{k}"))
    write_dicom(tmp_path / "study", HU, PLACES, SeriesInstanceUID="1.2.3.9", SeriesNumber=3, PatientID="P-1")
    cases = listed(tmp_path)
    assert set(cases) == {"study__series2", "study__series3"}
    assert {case.patient for case in cases.values()} == {"P-1"}
    assert [len(case.image) for case in cases.values()] == [10, 10]


def test_a_scout_in_the_series_is_a_case_of_its_own(tmp_path):
    write_dicom(tmp_path / "s", HU, PLACES, SeriesNumber=1)
    scout = write_dicom(tmp_path / "t", HU[:1], PLACES[:1], SeriesNumber=1, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    shutil.move(scout[0], tmp_path / "s/scout.dcm")
    assert sorted(len(case.image) for case in listed(tmp_path).values()) == [1, 10]


@pytest.mark.parametrize("identifier", ["", "ANONYMOUS", "anon123", "0000"])
def test_a_placeholder_does_not_make_everybody_one_patient(tmp_path, identifier):
    write_dicom(tmp_path / "a", HU, PLACES, PatientID=identifier, SeriesInstanceUID="1.2.8")
    write_dicom(tmp_path / "b", HU, PLACES, PatientID=identifier, SeriesInstanceUID="1.2.9")
    assert {case.patient for case in listed(tmp_path).values()} == {"a", "b"}


def test_an_mr_series_and_a_broken_dicom_file_are_cases_with_their_problem(tmp_path):
    write_dicom(tmp_path / "mr", HU, PLACES, Modality="MR")
    (tmp_path / "text.dcm").write_text("no DICOM at all, but a page of text " * 9)
    cases = listed(tmp_path)
    assert cases["mr"].problem == "Modality MR is not CT (10 files); only CT can be ingested."
    assert "text.dcm is named DICOM but is none" in cases["text.dcm"].problem


def test_a_listing_changes_its_version_when_a_file_changes(tmp_path):
    path = put(tmp_path / "a.nii.gz")
    first = listed(tmp_path)["a"].version
    assert listed(tmp_path)["a"].version == first
    os.utime(path, ns=(1, 1))
    assert listed(tmp_path)["a"].version != first


# the real data

PROBLEMS = {
    "chest-4mm__lm-64": "a label map",
    "chest-4mm__wholeLung-64": "a label map",
    "liver-dicom-seg": "too thin to be a volume: 3 x 512 x 512",
    "transfer-syntaxes": "2-D: 1 x 512 x 512",
}


@pytest.fixture(scope="module")
def real_cases(real_data):
    return listed(real_data)


def test_every_real_case_passes_or_is_refused_for_the_right_reason(real_cases):
    from preprocessing.quality import audit

    refused = {}
    for id_, case in real_cases.items():
        if id_ == "chest-full":  # the largest: read by the test of its anatomy
            continue
        try:
            volume = audit(read_volume(case))
        except CaseError as error:
            refused[id_] = str(error)
            continue
        assert volume.image.shape == volume.geometry.shape
        assert volume.image.min() >= -1024
    assert refused.keys() == PROBLEMS.keys()
    assert all(PROBLEMS[id_] in refused[id_] for id_ in refused)


def test_the_real_folder_lists_what_its_table_says(real_cases):
    assert len(real_cases) == 33
    kinds = {id_: case.anatomy for id_, case in real_cases.items() if case.anatomy != "none"}
    assert kinds == {
        "abdomen-3mm": "full",
        "abdomen-3mm-crop": "full",
        "chest-full": "full",
        "liver-dicom-seg": "partial",
        "spine-crop__sub-ct_label-22": "partial",
    }
    lesions = {id_ for id_, case in real_cases.items() if case.lesion}
    assert lesions == {"lung-lesion"} | {f"sarcoma__STS_{n}" for n in ("001", "003", "004", "022", "032")}
    drawn = {case.id: label.classes for case in real_cases.values() for label in case.labels if ".dcm" in label.path}
    assert drawn == {"liver-dicom-seg": ((1, 5),), "sarcoma-dicom-rtstruct__image": ((1, LESION),)}


def test_patients_of_the_real_folder(real_cases):
    visits = [real_cases[f"lung-two-visits__3DCT_lung_{visit}"].patient for visit in ("baseline", "followup")]
    assert visits[0] == visits[1]
    assert len({case.patient for id_, case in real_cases.items() if id_.startswith("head-neck__")}) == 10
    assert real_cases["abdomen-dicom"].patient == "CRLM-CT-1004"
    phantom = {real_cases[f"head-phantom-thick-thin__{mm}mm"].patient for mm in (1, 5)}
    assert phantom == {"PLASTIC"}


def test_nrrd_and_dicom_of_one_scan_are_the_same_volume(real_cases):
    nrrd, dicom = (read_volume(real_cases[f"chest-4mm__{name}"]) for name in ("ct-64", "dicom"))
    assert np.array_equal(nrrd.image, dicom.image)
    assert np.allclose(nrrd.geometry.corners(), dicom.geometry.corners(), atol=0.05)


def test_nifti_and_dicom_of_one_scan_are_the_same_volume(real_cases):
    nifti, dicom = (read_volume(real_cases[name]) for name in ("sarcoma__STS_032", "sarcoma-dicom-rtstruct__image"))
    assert nifti.geometry.shape == dicom.geometry.shape
    assert np.allclose(nifti.geometry.corners(), dicom.geometry.corners(), atol=0.05)
    assert np.abs(nifti.image.astype(int) - dicom.image).max() <= 1


def test_a_thick_and_a_thin_series_of_one_scan_lie_over_each_other(real_cases):
    from preprocessing.resample import resample_onto

    thin, thick = (read_volume(real_cases[f"head-phantom-thick-thin__{mm}mm"]) for mm in (1, 5))
    z = thin.geometry.corners()[:, 0]
    inside = [k for k in range(28) if z.min() + 6 < thick.geometry.world((k, 0, 0))[0] < z.max() - 6]
    apart = {}
    for shift in (-1, 0, 1):  # mm
        places = [thick.geometry.world((shift / 5, 0, 0)) + np.array([k, 0, 0]) for k in range(-2, 3)]
        grids = [replace(thick.geometry, origin_mm=tuple(place)) for place in places]
        mean = np.mean([resample_onto(thin.image, thin.geometry, grid)[inside, ::2, ::2] for grid in grids], axis=0)
        apart[shift] = np.abs(mean - thick.image[inside, ::2, ::2]).mean()
    assert len(inside) >= 5
    assert min(apart, key=apart.get) == 0
    assert apart[0] < 8


def test_all_transfer_syntaxes_decode_to_the_same_slice(real_data):
    from preprocessing.decoding.decode import decode_image

    slices = [decode_image([str(path)]).array for path in sorted((real_data / "transfer-syntaxes").iterdir())]
    assert len(slices) == 5
    assert all(np.array_equal(slices[0], other) for other in slices[1:])
    assert slices[0].max() == 1378


def test_ids_of_a_real_anatomy_map_follow_the_table_beside_it(real_cases):
    import nibabel as nib

    case = real_cases["chest-full"]
    stored = np.asarray(nib.load(case.labels[0].path).dataobj).T
    anatomy = read_volume(case).anatomy
    assert np.array_equal(anatomy == class_ids()["costal_cartilages"], stored == 118)
    assert np.array_equal(np.where(stored < 117, stored, 0), np.where(anatomy < 117, anatomy, 0))
    assert class_ids()["body"] not in anatomy


def test_real_vertebrae_get_the_classes_of_their_numbers(real_cases):
    volume = read_volume(real_cases["spine-crop__sub-ct_label-22"])
    names = {class_names()[int(v)] for v in np.unique(volume.anatomy) if v}
    assert names == {"vertebrae_L2", "vertebrae_L3", "vertebrae_L4"}


def test_landmarks_of_two_visits_keep_their_place(real_data, real_cases):
    from preprocessing.resample import resample

    marks = (real_data / "lung-two-visits/3DCT_lung_baseline_landmarks.txt").read_text().split()[2:]
    world = np.array(marks, float).reshape(-1, 3)[:, ::-1]
    volume = read_volume(real_cases["lung-two-visits__3DCT_lung_baseline"])
    out = resample(volume, 1.366)
    last = np.array(volume.image.shape) - 1
    inside = ((volume.geometry.index(world) > 0) & (volume.geometry.index(world) < last)).all(1)
    before, after = (
        map_coordinates(one.image.astype(float), one.geometry.index(world[inside]).T, order=1) for one in (volume, out)
    )
    assert np.corrcoef(before, after)[0, 1] > 0.98


def test_lesion_labels_of_real_masks_are_the_masks(real_cases):
    import SimpleITK as sitk

    case = real_cases["lung-lesion"]
    assert np.array_equal(read_volume(case).lesion, sitk.GetArrayFromImage(sitk.ReadImage(case.lesion[0])))
    assert LESION not in np.unique(read_volume(real_cases["abdomen-3mm"]).anatomy)
