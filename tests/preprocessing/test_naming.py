import pytest

from preprocessing.anatomy import class_ids
from preprocessing.case import LESION
from preprocessing.sources.class_names import class_of
from preprocessing.sources.folder.naming import case_name, core, is_label, is_lesion, patient_name, safe


@pytest.mark.parametrize(
    ("name", "label", "lesion"),
    [
        ("ct.nii.gz", False, False),
        ("CT_image.nii.gz", False, False),
        ("pt_12_ct.nii.gz", False, False),
        ("ct-64.nrrd", False, False),
        ("pt_12_seg.nii.gz", True, False),
        ("3DCT_lung_baseline_mask.mha", True, False),
        ("sub-ct_seg-vert_label-22_msk.nii.gz", True, False),
        ("sub-ct_label-22_ct.nii.gz", False, False),
        ("segmentation-12.nii", True, False),
        ("volume-12.nii", False, False),
        ("anatomy.nii.gz", True, False),
        ("lesion.nrrd", True, True),
        ("case3_tumour.nii.gz", True, True),
        ("CT_mask.nii.gz", True, True),
        ("case-GTVp.mha", True, True),
    ],
)
def test_a_name_says_its_role(name, label, lesion):
    assert (is_label(name), is_lesion(name)) == (label, lesion)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("ct.nii.gz", "lesion.nii.gz"),
        ("CT_image.nii.gz", "CT_mask.nii.gz"),
        ("pt_12_ct.nii.gz", "pt_12_seg.nii.gz"),
        ("volume-12.nii", "segmentation-12.nii"),
        ("liver_4_0000.nii.gz", "liver_4.nii.gz"),
        ("sub-ct_label-22_ct.nii.gz", "sub-ct_seg-vert_label-22_msk.nii.gz"),
        ("x.nrrd", "x-label.nrrd"),
    ],
)
def test_an_image_and_its_label_share_their_other_words(image, label):
    assert core(image) == core(label)


def test_names_of_two_patients_share_nothing():
    assert core("pt_1_ct.nii.gz") != core("pt_12_seg.nii.gz")


@pytest.mark.parametrize(
    ("path", "id_"),
    [
        ("ct.nii.gz", "root"),
        ("a b/ct.nii.gz", "a-b"),
        ("sarcoma/STS_001/CT_image.nii.gz", "sarcoma__STS_001"),
        ("head-neck/pt_12_ct.nii.gz", "head-neck__pt_12"),
        ("Task03/imagesTr/liver_4_0000.nii.gz", "Task03__liver_4"),
        ("chest/ct-64.nrrd", "chest__ct-64"),
        ("../../x/ct.nii", "x"),
    ],
)
def test_a_case_is_named_after_its_path(path, id_):
    assert case_name(path, "root") == id_


@pytest.mark.parametrize("text", ["Ärzte/ß ü.nii", "a:b*c?", "///", "", "..", "a__b.c-d_e"])
def test_a_case_id_is_safe_everywhere(text):
    assert safe(text)
    assert not set(safe(text)) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert not safe(text).startswith((".", "-"))


@pytest.mark.parametrize(
    ("ids", "patient"),
    [
        (["lung__3DCT_lung_baseline", "lung__3DCT_lung_followup"], "lung__3DCT_lung"),
        (["a__p7_visit1", "a__p7_visit_2", "a__p7-follow-up"], None),
        (["p7__baseline", "p7__followup"], "p7"),
        (["x__sub-03_ses-1_ct", "x__sub-03_ses-2_ct"], "x__sub-03"),
        (["p7_pre", "p7_post", "p7_arterial"], "p7"),
    ],
)
def test_visits_of_one_patient_share_a_key(ids, patient):
    assert len({patient_name(id_) for id_ in ids}) == 1
    assert patient is None or patient_name(ids[0]) == patient


@pytest.mark.parametrize(
    "ids", [["head__pt_1", "head__pt_12"], ["case_1", "case_2"], ["sub-1_ct", "sub-12_ct"], ["baseline"]]
)
def test_different_patients_keep_different_keys(ids):
    keys = [patient_name(id_) for id_ in ids]
    assert len(set(keys)) == len(ids)
    assert all(keys)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("liver", "liver"),
        ("Right Kidney", "kidney_right"),
        ("kidney_left", "kidney_left"),
        ("left adrenal gland", "adrenal_gland_left"),
        ("oesophagus", "esophagus"),
        ("postcava", "inferior_vena_cava"),
        ("bladder", "urinary_bladder"),
        ("vertebrae_C1", "vertebrae_C1"),
    ],
)
def test_names_of_organs_mean_classes(name, meant):
    assert class_of(name) == class_ids()[meant]


@pytest.mark.parametrize("name", ["cancer", "liver tumour", "lung_nodule", "GTVp", "lymph_node"])
def test_names_of_tumours_mean_a_lesion(name):
    assert class_of(name) == LESION


@pytest.mark.parametrize("name", ["kidney", "lung", "", "body", "target 1", "organ"])
def test_names_that_mean_no_single_class_mean_nothing(name):
    assert class_of(name) is None
